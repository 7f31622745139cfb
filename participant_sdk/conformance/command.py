"""The kit as a command, apart from how its options are read: from an address to a report and an exit code.

Exit codes: 0 every check that could be made passed; 1 one did not; 2 the exercise or the options
are wrong; 4 nothing answers at the address.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from participant_sdk.conformance.bench import Means, WorkOrder
from participant_sdk.conformance.exercise import Exercise, InvalidExerciseError, example, read_exercise
from participant_sdk.conformance.kit import Progress, UnreachableError, name_of, run
from participant_sdk.conformance.report import DeviationError, Report

CONFORMS: Final = 0
DEVIATES: Final = 1
BAD_USAGE: Final = 2
UNREACHABLE: Final = 4

ASKED_WITHIN_S: Final = 60.0
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Order:
    """What a command line asked for.

    ``exercise`` is a file; without it the participant is asked for its name, and the example of that name taken.
    ``restart`` and ``work`` are commands for the shell; ``by_hand`` asks a person to restart instead.
    """

    address: str
    exercise: Path | None = None
    restart: str = ""
    by_hand: bool = False
    work: str = ""
    host: str = HOST
    asked_within_s: float = ASKED_WITHIN_S

    def means(self) -> Means:
        """What the kit may do beside calling."""
        restart = _RestartCommand(self.restart) if self.restart else None
        return Means(
            _restart_by_hand if self.by_hand else restart,
            _WorkCommand(self.work) if self.work else None,
            self.asked_within_s,
            self.host,
        )


class RefusedError(Exception):
    """The kit cannot be run. The message says why; ``exit_code`` is BAD_USAGE or UNREACHABLE."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def carry_out(order: Order, progress: Progress) -> Report:
    """Run the kit as ordered. RefusedError where it cannot be run."""
    if order.restart and order.by_hand:
        raise RefusedError("a command that restarts, or a person who does, not both", BAD_USAGE)
    try:
        exercise = await _exercise(order)
        return await run(order.address, exercise, order.means(), progress=progress)
    except (InvalidExerciseError, OSError, UnicodeDecodeError) as error:
        raise RefusedError(str(error), BAD_USAGE) from error
    except UnreachableError as error:
        raise RefusedError(str(error), UNREACHABLE) from error


def exit_code_of(report: Report) -> int:
    """The exit code for a report."""
    return CONFORMS if report.passed else DEVIATES


async def _exercise(order: Order) -> Exercise:
    if order.exercise is not None:
        return read_exercise(order.exercise.read_text(encoding="utf-8"))
    return read_exercise(example(await name_of(order.address)))


class _RestartCommand:
    """Restarts by a command of the shell."""

    def __init__(self, command: str) -> None:
        self._command = command

    async def __call__(self) -> None:
        await _run_shell(self._command, {})


class _WorkCommand:
    """Has the service work under a branch, by a command of the shell that finds the branch in its environment."""

    def __init__(self, command: str) -> None:
        self._command = command

    async def __call__(self, order: WorkOrder) -> None:
        branch = {
            "PINCEX_XID": str(order.xid),
            "PINCEX_LOG_ID": order.log_id,
            "PINCEX_PARTICIPANT": order.participant,
            "PINCEX_BRANCH": str(order.branch_number),
            "PINCEX_REMAINING_MS": str(order.remaining_ms),
        }
        await _run_shell(self._command, branch)


async def _run_shell(command: str, environment: dict[str, str]) -> None:
    """Run a command, its output with the kit's errors. DeviationError where it fails."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=DEVNULL, stdout=sys.stderr.fileno(), env={**os.environ, **environment}
    )
    code = await process.wait()
    if code:
        raise DeviationError(f"the command ended with {code}: {command}")


async def _restart_by_hand() -> None:
    sys.stderr.write("Kill the participant with kill -9 and start it again at the same address; then press Enter: ")
    sys.stderr.flush()
    if not await asyncio.to_thread(sys.stdin.readline):
        raise DeviationError("nobody is there to restart it")
