"""A whole system for tests: ``pincex dev`` as a process of its own, on free ports, with its data in a new folder.

It knows the command and what that prints, and nothing else of the coordinator: servers, sidecars and
coordinator are the ones that ship.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

STOP_S: Final = 60.0
UP_WITHIN: Final = timedelta(seconds=60)

_FOLDER: Final = "pincex-testing-"
_HEALTH: Final = "/api/v1/transactions/health"
_LOOK_AGAIN_S: Final = 0.05
_END_CHARS: Final = 4_000
# Should the tests be killed, the kernel tells the system to stop, with everything that it started.
_LEASH: Final = "coordinator.embedded.leash"
_COMMAND: Final = "coordinator.cli"


class StartError(Exception):
    """The system did not get ready. The message is what it said."""


class System(BaseModel):
    """Where everything of a running system is; DSNs with their passwords.

    ``simulators`` are the URLs of those who play other companies, such as bank. In ``data`` are data and logs.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    http: str
    grpc: str
    participants: Mapping[str, str]
    databases: Mapping[str, str]
    redis: str
    simulators: Mapping[str, str]
    data: Path

    async def until_up(self, participant: str, within: timedelta = UP_WITHIN) -> None:
        """Return when the coordinator has reached a participant that the tests serve.

        TimeoutError where it has not ``within`` that time; ValueError for a name that it does not know.
        """
        if participant not in self.participants:
            raise ValueError(f"{participant!r} is none of the system's participants: {', '.join(self.participants)}")
        async with asyncio.timeout(within.total_seconds()), httpx.AsyncClient(base_url=self.http) as client:
            while not _is_up(await client.get(_HEALTH), participant):  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(_LOOK_AGAIN_S)


class _Participant(BaseModel):
    """A participant, of a health answer."""

    name: str
    status: str


class _Health(BaseModel):
    """What is read of a health answer."""

    participants: tuple[_Participant, ...]


def _is_up(answer: httpx.Response, participant: str) -> bool:
    known = _Health.model_validate_json(answer.content).participants
    return any(each.status == "UP" for each in known if each.name == participant)


@contextmanager
def running_system(
    *, participants: Sequence[str] = (), data: Path | None = None, environment: Mapping[str, str] | None = None
) -> Generator[System]:
    """Run a system for the time of the block; a matter of seconds. Call it from the main thread.

    Each of ``participants`` is known to the coordinator at an address of its own, where the tests are to serve
    it, and has an empty database. With ``data``, the data and logs are kept in that folder; else nothing is.
    ``environment`` is what its processes find in theirs, beside ours, such as ``PINCEX_FIAT_WEBHOOK_URL``.
    StartError where it does not get ready.
    """
    folder = _folder()
    try:
        with (folder / "output").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                _command(data or folder / "data", participants),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, **(environment or {})},
            )
            with process:
                try:
                    yield _ready(process, folder / "output")
                finally:
                    _stop(process)
    finally:
        _remove(folder)


def _command(data: Path, participants: Sequence[str]) -> list[str]:
    leash = (sys.executable, "-m", _LEASH, str(int(signal.SIGTERM)), str(os.getpid()), "-1", "-1")
    options = ("--data", str(data), "--http-port", "0", "--grpc-port", "0", "--json")
    own = [word for name in participants for word in ("--participant", name)]
    return [*leash, sys.executable, "-m", _COMMAND, "dev", *options, *own]


def _ready(process: subprocess.Popen[str], output: Path) -> System:
    """Wait for the line that it prints once everything answers; nothing comes where it ends before."""
    line = process.stdout.readline() if process.stdout is not None else ""
    try:
        return System.model_validate_json(line)
    except ValidationError as error:
        process.terminate()
        code = process.wait()
        said = output.read_text(encoding="utf-8", errors="replace")[-_END_CHARS:]
        raise StartError(f"the system did not get ready; it ended with code {code}:\n{line}{said}") from error


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop it as a Ctrl-C would, and by force where that takes too long; the kernel ends what it started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _folder() -> Path:
    """Make a folder that PostgreSQL's own account can reach, and remove those of tests that were killed."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_FOLDER}*-*"):
        if not Path("/proc", left.name.removeprefix(_FOLDER).partition("-")[0]).exists():
            _remove(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    folder.chmod(0o711)
    return folder


def _remove(folder: Path) -> None:
    # Where the account cannot reach the folder, the data are elsewhere, behind a link.
    for link in (each for each in (folder / "data").glob("*") if each.is_symlink()):
        with suppress(OSError):
            shutil.rmtree(link.resolve())
    shutil.rmtree(folder, ignore_errors=True)
