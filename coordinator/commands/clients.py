"""Commands that run and show transactions: execute, tx list, tx show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson, TransactionId

if TYPE_CHECKING:
    from participant_sdk.client import TransactionClient
    from participant_sdk.client_results import TransactionState

# The client and what draws tables are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415

TIMEOUT_DEFAULT_S: Final = 300.0
PAGE_MAX: Final = 1000


def execute(
    file: Annotated[str, typer.Option("--file", "-f", help="The request, in JSON or YAML; - reads standard input.")],
    *,
    address: Address = ADDRESS_DEFAULT,
    request_id: Annotated[str, typer.Option(help="The name of this intent: sent again, it has the same ending.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds for an ending; goes before the file's timeout_seconds.")] = 0,
    decided: Annotated[
        bool, typer.Option("--decided", help="Return as soon as the decision is durable, whatever the file says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run one transaction from a file, and print how it ended.

    Exit codes: 0 committed, 1 rolled back, 2 bad usage or request, 3 outcome unknown, 4 nobody to be reached.
    """
    from coordinator.commands import request_file
    from coordinator.commands.asking import ask
    from coordinator.commands.outputs import show_ending
    from participant_sdk.client_results import Wait

    try:
        request = request_file.read(_text_of(file))
    except (request_file.InvalidFileError, OSError, UnicodeDecodeError) as error:
        fail(f"{file}: {error}", ExitCode.BAD_REQUEST, as_json=as_json)
    ending = ask(
        address,
        lambda client: client.execute(
            request.operations,
            timeout_s=timeout or request.timeout_s or TIMEOUT_DEFAULT_S,
            request_id=request_id or request.request_id,
            wait=Wait.DECIDED if decided else request.wait or Wait.APPLIED,
            lock_keys=request.lock_keys,
        ),
        as_json=as_json,
    )
    raise typer.Exit(show_ending(ending, as_json=as_json))


def show(transaction_id: TransactionId, *, address: Address = ADDRESS_DEFAULT, as_json: AsJson = False) -> None:
    """Tell the story of one transaction."""
    from coordinator.commands.asking import ask
    from coordinator.commands.outputs import show_state

    state = ask(address, lambda client: client.get_transaction(transaction_id), as_json=as_json)
    show_state(state, as_json=as_json)


def list_(
    *,
    address: Address = ADDRESS_DEFAULT,
    phase: Annotated[str, typer.Option(help="Only those in this phase, such as PREPARING.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List transactions, newest first."""
    from coordinator.commands.asking import ask
    from coordinator.commands.outputs import show_states

    states = ask(address, lambda client: _pages(client, phase.upper(), limit), as_json=as_json)
    show_states(states, as_json=as_json)


async def _pages(client: TransactionClient, phase: str, limit: int) -> list[TransactionState]:
    found: list[TransactionState] = []
    token = ""
    while len(found) < limit:
        page = await client.list_transactions(
            phase=phase, page_size=min(PAGE_MAX, limit - len(found)), page_token=token
        )
        found += page.transactions
        token = page.next_token
        if not token:
            break
    return found


def _text_of(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
