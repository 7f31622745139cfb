"""The load generator's process: started, followed while it runs, and read when it has ended.

A process of its own, so that what is drawn here takes no time from what is measured there.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final

from coordinator.embedded.leash import leashed
from participant_sdk.load import OpenReport, Order, Report
from participant_sdk.load.options import Options
from participant_sdk.load.tally import Progress

MODULE: Final = "participant_sdk.load"
# What it exits with when there is a report: done, or done and not to be trusted.
REPORTED: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Followed:
    """What committed: how much came into the ledgers, from ``least`` to ``most``, and branches, by participant.

    Each of the ``unknown`` transactions may have one more branch at every participant.
    """

    least: Decimal
    most: Decimal
    branches: Mapping[str, int]
    unknown: int


@dataclass(frozen=True, slots=True)
class Generated:
    """What a load came to, and, where that was followed, what it should have changed at the participants."""

    report: Report
    followed: Followed | None


class GeneratorError(Exception):
    """The generator ended without a report. The message says why; ``exit_code`` is its own, below 0 for a signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def generate(order: Order, told: Callable[[Progress], None]) -> Generated:
    """Run a load, and tell of its progress each second. SIGINT ends it early; a second one, at once.

    GeneratorError where it brought no report.
    """
    child = await asyncio.create_subprocess_exec(
        *leashed((sys.executable, "-m", MODULE, *Options(order, progress=True).written()), death_signal=signal.SIGKILL),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        # A Ctrl-C at the terminal is for us, who pass it on once.
        start_new_session=True,
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, _interrupt, child)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_read(child, told))
            complaining = group.create_task(_read_errors(child))
        exit_code = await child.wait()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        if child.returncode is None:
            child.kill()
            await child.wait()
    last = reading.result()
    if exit_code not in REPORTED or last is None:
        raise GeneratorError(complaining.result() or f"the load generator ended with {exit_code}", exit_code)
    return _generated(last)


def _interrupt(child: Process) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, child.kill)
    child.send_signal(signal.SIGINT)


async def _read(child: Process, told: Callable[[Progress], None]) -> dict[str, Any] | None:  # JSON has no other type.
    """Pass on its progress; return its report."""
    assert child.stdout is not None  # noqa: S101 - it was asked for as a pipe.
    last: dict[str, Any] | None = None
    async for line in child.stdout:
        last = json.loads(line)
        if last is not None and "progress" in last:
            told(Progress(**last["progress"]))
            last = None
    return last


async def _read_errors(child: Process) -> str:
    assert child.stderr is not None  # noqa: S101 - it was asked for as a pipe.
    return (await child.stderr.read()).decode(errors="replace").strip()


def _generated(members: dict[str, Any]) -> Generated:  # JSON has no other type.
    kind = OpenReport if "trustworthy" in members else Report
    report = kind(**{field.name: members[field.name] for field in fields(kind)})
    if "branches" not in members:
        return Generated(report, None)
    least, most = Decimal(members["inflow_least"]), Decimal(members["inflow_most"])
    return Generated(report, Followed(least, most, members["branches"], report.unknown))
