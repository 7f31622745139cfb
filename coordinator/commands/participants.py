"""Commands on participants: check."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.options import AsJson

# psycopg is imported where it is used: asking for help should not wait for it.
# ruff: noqa: PLC0415


def check(
    name: Annotated[str, typer.Argument(help="A participant shipped with the system, such as bookkeeper.")],
    *,
    dsn: Annotated[
        str, typer.Option(envvar="PINCEX_PARTICIPANT_DSN", help="Its PostgreSQL database; else the one in --data.")
    ] = "",
    data: Annotated[Path, typer.Option(help="Where `pincex dev` keeps its data.")] = Path(".pincex"),
    as_json: AsJson = False,
) -> None:
    """Tell what is broken in a participant's database: its invariants, in one snapshot, while it goes on.

    Exit codes: 0 all of it holds, 1 something does not, 2 bad usage, 4 the database could not be asked.
    """
    import psycopg

    from coordinator.commands.invariants import UncheckedError, UnknownSidecarError, broken_invariants

    try:
        violations = asyncio.run(broken_invariants(name, dsn or _dsn_in(data, name, as_json=as_json)))
    except psycopg.ProgrammingError as error:
        fail(f"--dsn: {str(error).strip()}", ExitCode.BAD_REQUEST, as_json=as_json)
    except UnknownSidecarError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)
    except UncheckedError as error:
        fail(str(error), ExitCode.UNAVAILABLE, as_json=as_json)
    if as_json:
        typer.echo(json.dumps({"participant": name, "holds": not violations, "violations": violations}))
    else:
        typer.echo("\n".join(f"broken: {each}" for each in violations) or f"every invariant of {name} holds")
    raise typer.Exit(ExitCode.ROLLED_BACK if violations else ExitCode.DONE)


def _dsn_in(data: Path, name: str, *, as_json: bool) -> str:
    """The participant's database in a development system: beside the log's, under its own name."""
    import yaml
    from psycopg.conninfo import make_conninfo

    try:
        configuration: dict[str, Any] = yaml.safe_load((data / "coordinator.yaml").read_text())
    except OSError:
        message = f"--dsn: required, as no development system keeps its data in {data}"
        fail(message, ExitCode.BAD_REQUEST, as_json=as_json)
    return make_conninfo(str(configuration["log"]["dsn"]), dbname=name)
