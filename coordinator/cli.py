"""The command ``pincex``. Noun, then verb; ``--json`` wherever something is printed."""

from __future__ import annotations

import typer

from coordinator.commands import clients, servers


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
    transactions = typer.Typer(help="Transactions: what is, and what was.", no_args_is_help=True)
    transactions.command("list")(clients.list_)
    transactions.command("show")(clients.show)
    app.add_typer(transactions, name="tx")
    return app


def main() -> None:
    """Run the command line."""
    make_app()()


if __name__ == "__main__":
    main()
