"""Load from a process of its own: what is asked of the generator, and what it reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from participant_sdk.load import OpenReport, Report
from tests.benchmarks import processes

WARM_UP_S: Final = 1.0
# What the generator ends with when it was late itself; the report says so too.
UNTRUSTWORTHY: Final = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What one measurement asks for.

    ``accounts`` are the users or customers at every participant. With ``per_second`` it is an open loop, and
    ``in_flight`` its bound. ``may_refuse``: a participant's "no" is part of the workload. ``run`` and ``transfers``
    are of the mixed workload; see ``Mixed``.
    """

    participants: tuple[str, ...]
    accounts: int
    in_flight: int
    seconds: float
    workload: str = "transfer"
    hot_spot: int = 0
    per_second: float | None = None
    decided: bool = False
    unary: bool = False
    may_refuse: bool = False
    run: str = ""
    transfers: int = 0


async def load(address: str, wanted: Load, *, seed: int) -> Report:
    """Run the generator to its end. ProcessFailedError."""
    output = await processes.output_of("load", tuple(_arguments(address, wanted, seed)), codes=(0, UNTRUSTWORTHY))
    told = json.loads(output)
    kind = Report if wanted.per_second is None else OpenReport
    return kind(**{field.name: told[field.name] for field in fields(kind)})


def _arguments(address: str, wanted: Load, seed: int) -> Iterator[str]:
    yield from ("participant_sdk.load", "--coordinators", address, "--workload", wanted.workload)
    yield from ("--participants", ",".join(wanted.participants), "--accounts", str(wanted.accounts))
    yield from ("--in-flight", str(wanted.in_flight), "--seed", str(seed))
    yield from ("--seconds", str(wanted.seconds), "--warm-up", str(WARM_UP_S))
    if wanted.hot_spot:
        yield from ("--hot-spot", str(wanted.hot_spot))
    if wanted.per_second is not None:
        yield from ("--rate", str(wanted.per_second))
    if wanted.transfers:
        yield from ("--run", wanted.run, "--transfers", str(wanted.transfers))
    if wanted.decided:
        yield "--decided"
    if wanted.unary:
        yield "--unary"
