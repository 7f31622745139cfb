"""The commands demo day and demo crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.options import AsJson

# The system and its clients are imported where they are started: asking for help should not wait for them.
# ruff: noqa: PLC0415

Data = Annotated[
    Path | None, typer.Option(help="Keep data, logs and the clients' record there, in a new folder; else nothing is.")
]


def day(
    *,
    users: Annotated[int, typer.Option(min=1, max=100_000, help="How many come to the exchange.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same wishes, and kills at the same steps.")] = 0,
    faults: Annotated[bool, typer.Option(help="Kill processes, and have bank and chain misbehave.")] = True,
    kills: Annotated[int, typer.Option(min=0, max=1000, help="How often each process is killed, with -9.")] = 3,
    at_once: Annotated[int, typer.Option(min=1, max=2000, help="How many users are there at one time.")] = 96,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Live through a trading day on a system of its own, under faults, and check the books to the last satoshi.

    Exit codes: 0 everything holds, 1 something does not, as it says; 4 the system did not start.
    """
    from coordinator.demo import day as trading
    from coordinator.demo.day_outputs import Display, show_day
    from coordinator.demo.webhook import Webhook
    from participant_sdk.testing import StartError, running_system

    if data is not None and data.exists() and any(data.iterdir()):
        fail(f"--data {data}: must be a new folder, or an empty one", ExitCode.BAD_REQUEST, as_json=as_json)
    wanted = trading.Plan(users, seed, faults, kills, at_once)
    try:
        # Chance decides when it fails; nothing secret is drawn from it.
        webhook = Webhook(Random(seed))  # noqa: S311 - as the comment above says
        with Display() as display, running_system(data=data, environment=webhook.environment) as system:
            lived = asyncio.run(trading.trade(system, webhook, wanted, display.show))
    except StartError as error:
        fail(str(error), ExitCode.UNAVAILABLE, as_json=as_json)
    show_day(lived, as_json=as_json)
    raise typer.Exit(ExitCode.ROLLED_BACK if lived.broken else ExitCode.DONE)


def crash(*, data: Data = None) -> None:
    """Kill the coordinator with -9 in mid-commit, and watch recovery finish the work.

    Exit codes: 0 it did, 1 it did not; 4 the system did not start.
    """
    from coordinator.demo import crash as crashing
    from participant_sdk.testing import StartError, running_system

    typer.echo("Starting a system of its own: PostgreSQL, Redis, five participants, a coordinator…")
    try:
        with running_system(data=data) as system:
            asyncio.run(crashing.crash(system, typer.echo))
    except StartError as error:
        fail(str(error), ExitCode.UNAVAILABLE)
    except crashing.CrashError as error:
        fail(str(error), ExitCode.ROLLED_BACK)
