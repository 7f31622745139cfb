"""What PostgreSQL's and Redis's supervision share: starting, finding and ending a server's processes."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from coordinator.embedded.account import Account
from coordinator.embedded.leash import leashed

STOP_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.01
_LOG_LINES_SHOWN: Final = 20
_PORTS: Final = range(20_000, 32_000)
_PORTS_TRIED: Final = 100
# One after the other, from a place of this process's own.
_places: Final = itertools.count(secrets.randbelow(len(_PORTS)))


class EmbeddedServerError(Exception):
    """An embedded server did not do what was asked. The message ends with the last lines of its log."""


def site_folder(package: str) -> Path:
    """The folder that an installed package lies in. EmbeddedServerError when it is not installed."""
    # The package is only found, never imported: its own supervision stays out of it.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("install the 'dev' extra (pip install 'pincex-transactions[dev]'), or give a DSN")
    return Path(spec.origin).parent.parent


def spawn(
    command: Sequence[str], *, folder: Path, log: Path, death_signal: signal.Signals, account: Account | None
) -> subprocess.Popen[bytes]:
    """Start the command in ``folder`` as ``account``, writing to ``log``; ``death_signal`` when we die."""
    uid, gid = (None, None) if account is None else (account.uid, account.gid)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - commands are ours.
            leashed(command, death_signal=death_signal, uid=uid, gid=gid),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            # A Ctrl-C at the terminal is for the owner, who stops the server when its users are done.
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals]) -> None:
    """Send the signals one after the other, each with half a minute to take effect, until the process ends."""
    for sign in dict.fromkeys(signals):
        process.send_signal(sign)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return


def log_end(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago. EmbeddedServerError when none is found.

    No port is given again before all others were: the one that it was given to may not listen on it yet.
    Below the range from which the kernel takes ports for outgoing connections: one of those might
    hold the port just when a server is started again on it.
    """
    for _ in range(_PORTS_TRIED):
        port = _PORTS[next(_places) % len(_PORTS)]
        if port_is_free(port):
            return port
    raise EmbeddedServerError(f"no free port among {_PORTS_TRIED} between {_PORTS.start} and {_PORTS.stop}")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the loopback's port now."""
    try:
        hold_port(port).close()
    except OSError:
        return False
    return True


def hold_port(port: int) -> socket.socket:
    """Keep the loopback's port from outgoing connections until this is closed. OSError where it is taken.

    The kernel takes for them any port of a range that nobody is bound to, for as long as they last, and no server
    can listen there meanwhile. Linux lets servers listen on what is held: this one does not listen itself.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do: a port that only waits for late packets of closed connections is free.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()
        raise
    return held


def processes_in(directory: Path) -> list[int]:
    """The processes whose working folder this is, as a server's all is its data; none where there is no /proc."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink() == directory:
                found.append(int(entry.parent.name))
        except OSError:
            # It ended while we looked, or is another account's.
            continue
    return found


def await_none_in(directory: Path) -> None:
    """Wait until no process works in the directory; kill those that stay past half a minute."""
    deadline = time.monotonic() + STOP_S
    while running := processes_in(directory):
        if time.monotonic() > deadline:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            deadline += STOP_S
        time.sleep(LOOK_AGAIN_S)
