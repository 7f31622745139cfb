"""The command conformance: any participant, in any language, driven through every rule that concerns it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.options import AsJson

if TYPE_CHECKING:
    from participant_sdk.conformance.command import Order
    from participant_sdk.conformance.report import Report

# The kit, gRPC and what draws are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415

ASKED_WITHIN_DEFAULT_S: Final = 60.0
HOST_DEFAULT: Final = "127.0.0.1"


def conformance(
    *,
    address: Annotated[str, typer.Argument(help="Where the participant serves ResourceService, host:port.")] = "",
    exercise: Annotated[
        Path | None, typer.Argument(help="Its operations, JSON; without it, the example for the name it tells.")
    ] = None,
    example: Annotated[str, typer.Option(help="Only print the exercise shipped for this participant.")] = "",
    restart: Annotated[str, typer.Option(help="A shell command: kill -9 the participant, and start it again.")] = "",
    restart_by_hand: Annotated[bool, typer.Option("--restart-by-hand", help="Ask a person to do that.")] = False,
    work: Annotated[
        str, typer.Option(help="A shell command: do one operation under the branch in PINCEX_XID, PINCEX_BRANCH, ….")
    ] = "",
    host: Annotated[str, typer.Option(help="Where the kit listens for inquiries; it must be reachable.")] = (
        HOST_DEFAULT
    ),
    asked_within: Annotated[float, typer.Option(min=0.1, max=3_600, help="Seconds until a doubt is asked about.")] = (
        ASKED_WITHIN_DEFAULT_S
    ),
    as_json: AsJson = False,
) -> None:
    """Check that a participant keeps the protocol's rules; it commits some fifty of the exercise's operations.

    Exit codes: 0 every check that could be made passed, 1 one did not, 2 the exercise or the options are
    wrong, 4 nothing answers at the address.
    """
    from participant_sdk.conformance.command import Order, RefusedError, exit_code_of

    if example:
        _print_example(example)
        return
    if not address:
        fail("an address, host:port, or --example", ExitCode.BAD_REQUEST, as_json=as_json)
    order = Order(address, exercise, restart, restart_by_hand, work, host, asked_within)
    try:
        report = _carry_out(order, as_json=as_json)
    except RefusedError as error:
        fail(str(error), ExitCode(error.exit_code), as_json=as_json)
    typer.echo(report.json() if as_json else report.summary())
    raise typer.Exit(exit_code_of(report))


def _print_example(name: str) -> None:
    from participant_sdk.conformance import InvalidExerciseError
    from participant_sdk.conformance import example as example_of

    try:
        typer.echo(example_of(name), nl=False)
    except InvalidExerciseError as error:
        fail(str(error), ExitCode.BAD_REQUEST)


def _carry_out(order: Order, *, as_json: bool) -> Report:
    """Run the kit: findings as they are made, and on a terminal a bar with what goes on below them."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    from participant_sdk.conformance.command import carry_out
    from participant_sdk.conformance.kit import Progress
    from participant_sdk.conformance.report import Finding

    console = Console(stderr=True)

    class Shown(Progress):
        """Prints findings, and moves the bar."""

        def began(self, count: int, check: str) -> None:
            bar.update(task, total=count, description=check)

        def found(self, finding: Finding) -> None:
            bar.advance(task)
            if not as_json:
                typer.echo(finding.text())

    # Asking a person to restart wants the terminal for itself.
    hidden = order.by_hand or not console.is_terminal
    with Bar(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("introductions", total=None)
        return asyncio.run(carry_out(order, Shown()))
