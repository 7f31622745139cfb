"""Under which account an embedded server runs, and where that account can reach its files.

PostgreSQL refuses to run as root. Not root: everything stays as it is. Root: the server runs
as an existing unprivileged account. What that account cannot reach, because a folder above
is closed (a clone below /root), is not opened: the data live under /var/lib/pincex instead,
with a link from where they were wanted, and the binaries are copied there once.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CANDIDATES: Final = ("postgres", "nobody", "daemon")
_OUTSIDE: Final = Path("/var/lib/pincex")


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account of the operating system."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account that a server must take; None for one's own, which is not root's.

    LookupError when root's system has none of the accounts that every system has.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise LookupError(f"PostgreSQL does not run as root, and none of {', '.join(_CANDIDATES)} exists here")


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may pass through every folder down to and including ``path``."""
    if account is None:
        return True
    resolved = path.resolve()
    return all(_may_pass(folder, account) for folder in (resolved, *resolved.parents))


def open_place(wanted: Path, account: Account | None) -> Path:
    """Make the folder and return it, or the one that stands in for it where the account cannot reach it.

    The folder belongs to the caller; others may pass through it, not list it.
    """
    if account is None:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted.resolve()
    if wanted.is_symlink():
        return _closed_folder(wanted.resolve())
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if reachable(wanted.parent, account):
        return _closed_folder(wanted.resolve())
    outside = _closed_folder(_stand_in(wanted))
    if not wanted.exists():
        wanted.symlink_to(outside)
    return outside


def open_files(within: Path, parts: Sequence[str], account: Account | None) -> Path:
    """Return ``within``, or where it cannot be reached a folder with copies of those parts of it."""
    if all(reachable(within / part, account) for part in parts):
        return within
    copy = _stand_in(within / parts[0])
    if not copy.exists():
        unfinished = _closed_folder(copy.with_name(f"{copy.name}.{os.getpid()}"))
        for part in parts:
            shutil.copytree(within / part, unfinished / part, symlinks=True)
        unfinished.rename(copy)
    return copy


def _may_pass(folder: Path, account: Account) -> bool:
    about = folder.stat()
    if about.st_uid == account.uid:
        return bool(about.st_mode & stat.S_IXUSR)
    return bool(about.st_mode & stat.S_IXOTH)


def _stand_in(path: Path) -> Path:
    """A place of its own under /var/lib, which only root can write to: nobody can have been there before."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return _OUTSIDE / f"{path.name}-{name}"


def _closed_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o711)
    return path
