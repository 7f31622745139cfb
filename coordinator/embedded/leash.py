"""Starts a command so that it cannot outlive the process that wants it.

The module is also a program: it asks the kernel for a signal at the parent's death, drops
to another account where told, and becomes the command. A program of its own, because what
subprocess would run between fork and exec (``preexec_fn``) is not safe once gRPC's threads
are there, and because a change of account forgets the wish for that signal.

Linux alone knows such a signal (prctl(2), PR_SET_PDEATHSIG). It follows the parent's
*thread*: start leashed commands from one that lives as long as they shall, such as the main one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_KEEP: Final = -1


def leashed(
    command: Sequence[str], *, death_signal: signal.Signals, uid: int | None = None, gid: int | None = None
) -> list[str]:
    """The command line that runs ``command`` as a child which gets ``death_signal`` when the caller dies.

    With ``uid`` and ``gid``, both or neither, it runs as them, without further groups; that needs root.
    """
    return [
        sys.executable,
        "-I",
        "-S",
        __file__,
        str(int(death_signal)),
        str(os.getpid()),
        str(_KEEP if uid is None else uid),
        str(_KEEP if gid is None else gid),
        *command,
    ]


def _become(  # pragma: no cover - where this runs, nothing is installed that could count it.
    death_signal: int, parent: int, uid: int, gid: int, command: Sequence[str]
) -> None:
    if uid != _KEEP:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of account, which clears it; exec keeps it.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        # The parent died before the kernel was asked: nobody would ever tell us.
        sys.exit(f"{command[0]} was not started, since process {parent} is gone")
    os.execv(command[0], list(command))  # noqa: S606 - no shell is wanted; the command comes from our own code.


if __name__ == "__main__":  # pragma: no cover - as above.
    _signal, _parent, _uid, _gid = (int(word) for word in sys.argv[1:5])
    _become(_signal, _parent, _uid, _gid, sys.argv[5:])
