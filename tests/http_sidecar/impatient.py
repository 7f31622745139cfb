"""The sidecar as it ships, but asking sooner when in doubt: ``python -m tests.http_sidecar.impatient http …``."""

from __future__ import annotations

import asyncio
import os
import sys

from participant_sdk.clock import SystemClock
from participant_sdk.server import serving
from sidecars.http.options import target_of
from sidecars.http.participant import HttpParticipant
from sidecars.main import _parser  # pyright: ignore[reportPrivateUsage]  The same command, in more of a hurry.
from sidecars.sidecar import Surroundings, attend
from tests.conformance.hosts import PATIENCE_S


async def serve(arguments: list[str]) -> None:
    """Serve until killed."""
    options, clock = _parser().parse_args(arguments), SystemClock()
    target = target_of(options, os.environ)
    async with (
        HttpParticipant.open(options.name, target, options.dsn, clock, connections=9) as participant,
        serving(participant, options.listen, worker_count=8, patience_s=PATIENCE_S),
    ):
        await attend("courier", participant.attend, Surroundings(options.name, options.dsn, clock, {}))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
