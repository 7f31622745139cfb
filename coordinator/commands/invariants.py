"""What a participant's own invariants find wrong in its database, asked of the sidecar's command.

The coordinator knows no sidecar, so the question goes to a process: ``python -m sidecars.main NAME --check``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coordinator.commands.servers import SIDECAR_MODULE

_BAD_USAGE: Final = 2


class UncheckedError(Exception):
    """Nobody knows whether the invariants hold. The message says why."""


class UnknownSidecarError(UncheckedError):
    """No participant of that name ships with the system. The message names those that do."""


async def broken_invariants(name: str, dsn: str) -> list[str]:
    """Run a shipped participant's invariants over its database; return the violations, none when it is sound.

    UncheckedError where they could not be run. psycopg.ProgrammingError for a DSN that is none.
    """
    parameters = conninfo_to_dict(dsn)
    # Not on the command line, which every user of the machine can read.
    password = parameters.pop("password", None)
    shown = make_conninfo("", **parameters)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", SIDECAR_MODULE, name, "--dsn", shown, "--check"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env={**os.environ, **({"PGPASSWORD": str(password)} if password else {})},
    )
    _, errors = await child.communicate()
    if child.returncode == _BAD_USAGE:
        raise UnknownSidecarError(errors.decode(errors="replace").strip().rpartition("error: ")[2])
    lines: list[dict[str, Any]] = [json.loads(line) for line in errors.splitlines() if line.startswith(b"{")]
    if any(line.get("message") == "invariants_checked" for line in lines):
        return [str(line["violation"]) for line in lines if "violation" in line]
    why = next((str(line["error"]) for line in lines if "error" in line), errors.decode(errors="replace")[-500:])
    raise UncheckedError(f"the invariants of {shown} could not be checked: {' '.join(why.split())}")
