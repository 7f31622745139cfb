"""The sidecar as it ships, but asking sooner when in doubt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from participant_sdk.clock import SystemClock
from participant_sdk.server import serving
from sidecars.http.options import target_of
from sidecars.http.participant import HttpParticipant
from sidecars.main import _parser  # pyright: ignore[reportPrivateUsage]  The same command, in more of a hurry.
from sidecars.sidecar import Surroundings, attend
from tests.conformance.hosts import PATIENCE_S


def main(arguments: Sequence[str]) -> int:
    """Serve until killed."""
    asyncio.run(_serve(arguments))
    return 0


async def _serve(arguments: Sequence[str]) -> None:
    options, clock = _parser().parse_args(arguments), SystemClock()
    target = target_of(options, os.environ)
    async with (
        HttpParticipant.open(options.name, target, options.dsn, clock, connections=9) as participant,
        serving(participant, options.listen, worker_count=8, patience_s=PATIENCE_S),
    ):
        await attend("courier", participant.attend, Surroundings(options.name, options.dsn, clock, {}))
