"""The command ``pincex``. Noun, then verb; ``--json`` wherever something is printed."""

from __future__ import annotations

import typer

from coordinator.commands import (
    clients,
    conformance,
    load,
    locks,
    participants,
    recovery,
    resolving,
    servers,
    workflow,
)
from coordinator.demo import command as demo


def make_app() -> typer.Typer:
    """The command with all its commands."""
    app = typer.Typer(
        help="Distributed transactions: run them, watch them, and run their servers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.command("dev")(servers.run_dev)
    app.command("coordinator")(servers.run_coordinator)
    app.command(
        "sidecar",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(servers.run_sidecar)
    app.command("migrate")(servers.migrate)
    app.command("execute")(clients.execute)
    app.command("conformance")(conformance.conformance)
    app.command("load")(load.load)
    transactions = typer.Typer(
        help="Transactions: what is, what was, and the operator's hand on one.", no_args_is_help=True
    )
    transactions.command("list")(clients.list_)
    transactions.command("show")(clients.show)
    transactions.command("retry")(resolving.retry)
    transactions.command("rollback")(resolving.rollback)
    transactions.command("resolve")(resolving.resolve)
    transactions.command("forget")(resolving.forget)
    app.add_typer(transactions, name="tx")
    app.add_typer(_participants(), name="participant")
    app.add_typer(_recovery(), name="recovery")
    app.add_typer(_workflow(), name="workflow")
    keys = typer.Typer(help="Locks: who holds what, who waits, and the operator's hand on one.", no_args_is_help=True)
    keys.command("list")(locks.list_)
    keys.command("break")(locks.break_)
    app.add_typer(keys, name="locks")
    shows = typer.Typer(
        help="Demonstrations, each on a system of its own, which is gone at the end.", no_args_is_help=True
    )
    shows.command("day")(demo.day)
    shows.command("crash")(demo.crash)
    app.add_typer(shows, name="demo")
    return app


def _recovery() -> typer.Typer:
    commands = typer.Typer(help="Recovery: what is stuck, and the way out.", no_args_is_help=True)
    commands.command("status")(recovery.status)
    commands.command("trigger")(recovery.trigger)
    commands.command("in-doubt")(recovery.in_doubt)
    commands.command("hold")(recovery.hold)
    commands.command("release")(recovery.release)
    return commands


def _participants() -> typer.Typer:
    commands = typer.Typer(help="Participants: whether what they keep is sound.", no_args_is_help=True)
    commands.command("check")(participants.check)
    return commands


def _workflow() -> typer.Typer:
    commands = typer.Typer(
        help="Workflows: run them, watch them, and the operator's hand on one.", no_args_is_help=True
    )
    commands.command("run")(workflow.run)
    commands.command("list")(workflow.list_)
    commands.command("show")(workflow.show)
    commands.command("cancel")(workflow.cancel)
    commands.command("retry")(workflow.retry)
    commands.command("skip")(workflow.skip)
    return commands


def main() -> None:
    """Run the command line."""
    make_app()()


if __name__ == "__main__":
    main()
