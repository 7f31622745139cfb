"""Commands that start servers, or change their databases: dev, coordinator, sidecar, migrate."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from coordinator.commands.exits import ExitCode, fail

if TYPE_CHECKING:
    from coordinator.config import Config

# Servers are imported where they are started: a client's command should not wait for them.
# ruff: noqa: PLC0415

ConfigPath = Annotated[
    Path | None, typer.Option("--config", help="The configuration, YAML or JSON; else TRANSACTION_CONFIG_PATH.")
]
PORT_MAX: Final = 65535
SIDECAR_MODULE: Final = "sidecars.main"


def run_dev(
    *,
    data: Annotated[Path, typer.Option(help="Where data, logs and the configuration are kept.")] = Path(".pincex"),
    http_port: Annotated[int, typer.Option(min=0, max=PORT_MAX, help="0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65000, help="0 takes a free one.")] = 50051,
    postgres: Annotated[str, typer.Option(help="A PostgreSQL server by DSN; else one of our own is started.")] = "",
    redis: Annotated[str, typer.Option(help="A Redis server by DSN; else one of our own is started.")] = "",
    participant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:PORT", help="A participant of your own, which gets a database; may be repeated."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Once ready, tell where everything is as one line, with passwords.")
    ] = False,
) -> None:
    """Run everything on this machine: databases, sidecars, a coordinator; on the loopback only."""
    from coordinator import dev

    try:
        dev.run(dev.DevOptions(data, http_port, grpc_port, postgres, redis, _named_ports(participant or ()), as_json))
    except dev.DevError as error:
        fail(str(error), ExitCode.UNAVAILABLE)


def _named_ports(written: Sequence[str]) -> dict[str, int]:
    """Read NAME:PORT, where the port may be left out for a free one; end the command where one is wrong."""
    from participant_sdk.ids import InvalidIdentifierError, check_participant

    named: dict[str, int] = {}
    for each in written:
        name, _, port = each.partition(":")
        try:
            known = check_participant(name)
        except InvalidIdentifierError as error:
            fail(f"--participant {each}: {error}", ExitCode.BAD_REQUEST)
        if port and not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
            fail(f"--participant {each}: a port is a number from 0 to {PORT_MAX}", ExitCode.BAD_REQUEST)
        if known in named:
            fail(f"--participant {each}: {known} stands twice", ExitCode.BAD_REQUEST)
        named[known] = int(port or "0")
    return named


def run_coordinator(config_path: ConfigPath = None) -> None:
    """Run a coordinator until SIGTERM or SIGINT.

    Exit codes: 0 stopped, 2 it cannot start as configured, 5 its incarnation may write no more (start it again).
    """
    import participant_sdk.grpc_core  # noqa: F401  # pyright: ignore[reportUnusedImport]  Before gRPC, which reads what it sets.
    from coordinator import daemon

    raise typer.Exit(daemon.run(_configuration(config_path)))


def run_sidecar(context: typer.Context) -> None:
    """Run a participant shipped with the system; ``pincex sidecar --help`` tells its options."""
    os.execv(sys.executable, [sys.executable, "-m", SIDECAR_MODULE, *context.args])  # noqa: S606 - our own module


def migrate(
    *,
    config_path: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring the decision log's schema up to date; a coordinator does so at start too."""
    import psycopg

    from coordinator.log.postgres import migrate_log
    from participant_sdk.migrations import MigrationError

    try:
        applied = asyncio.run(migrate_log(_configuration(config_path).log.dsn))
    except MigrationError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)
    except psycopg.OperationalError as error:
        fail(f"the decision log cannot be reached: {error}", ExitCode.UNAVAILABLE, as_json=as_json)
    if as_json:
        typer.echo(json.dumps({"applied": applied}))
    else:
        typer.echo("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")


def _configuration(path: Path | None) -> Config:
    from coordinator import config
    from coordinator.config_sources import InvalidConfigError

    try:
        return config.load(os.environ, path)
    except InvalidConfigError as error:
        fail(str(error), ExitCode.BAD_REQUEST)
