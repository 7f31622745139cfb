"""How a client's command ends.

Exit codes: 0 committed, or done; 1 rolled back; 2 bad usage, or refused; 3 the outcome is not
known; 4 nobody can be reached; 5 a coordinator's incarnation may write no more.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import NoReturn

import typer


class ExitCode(IntEnum):
    """How a client's command ended."""

    DONE = 0
    ROLLED_BACK = 1
    BAD_REQUEST = 2
    OUTCOME_UNKNOWN = 3
    UNAVAILABLE = 4


def fail(message: str, exit_code: ExitCode, *, as_json: bool = False, **more: str) -> NoReturn:
    """End the command with a message on standard error, or as JSON on standard output."""
    if as_json:
        typer.echo(json.dumps({"error": message, **{key: value for key, value in more.items() if value}}))
    else:
        typer.echo(f"pincex: {message}", err=True)
    raise typer.Exit(exit_code)


def confirm(question: str, *, yes: bool, as_json: bool) -> None:
    """Return once a person has agreed, or ``--yes`` has been given; end the command otherwise."""
    if yes:
        return
    if as_json:
        fail(
            "with --json nobody is asked: give --yes, or look first with --preview", ExitCode.BAD_REQUEST, as_json=True
        )
    try:
        agreed = typer.confirm(question, default=False)
    except typer.Abort:
        agreed = False
    if not agreed:
        fail("not confirmed; nothing was changed", ExitCode.BAD_REQUEST)
