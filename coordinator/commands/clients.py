"""Commands that are clients of a coordinator: execute, tx list, tx show."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import grpc
import typer

from coordinator.commands import request_file
from coordinator.commands.outputs import ExitCode, fail, fail_with, show_ending, show_state, show_states
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.client_results import TransactionState, Wait

ADDRESS_DEFAULT: Final = "127.0.0.1:50051"
REACH_WITHIN_S: Final = 3.0
TIMEOUT_DEFAULT_S: Final = 300.0
PAGE_MAX: Final = 1000

Address = Annotated[
    str, typer.Option("--address", envvar="PINCEX_ADDRESS", help="The coordinator, host:port; several with commas.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Answer = TypeVar("Answer")


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
    try:
        request = request_file.read(_text_of(file))
    except (request_file.InvalidFileError, OSError, UnicodeDecodeError) as error:
        fail(f"{file}: {error}", ExitCode.BAD_REQUEST, as_json=as_json)
    ending = _ask(
        address,
        lambda client: client.execute(
            request.operations,
            timeout_s=timeout or request.timeout_s or TIMEOUT_DEFAULT_S,
            request_id=request_id or request.request_id,
            wait=Wait.DECIDED if decided else request.wait or Wait.APPLIED,
        ),
        as_json=as_json,
    )
    raise typer.Exit(show_ending(ending, as_json=as_json))


def show(
    transaction_id: Annotated[str, typer.Argument(help="The transaction, as execute printed it.")],
    *,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Tell the story of one transaction."""
    state = _ask(address, lambda client: client.get_transaction(transaction_id), as_json=as_json)
    show_state(state, as_json=as_json)


def list_(
    *,
    address: Address = ADDRESS_DEFAULT,
    phase: Annotated[str, typer.Option(help="Only those in this phase, such as PREPARING.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List transactions, newest first."""
    states = _ask(address, lambda client: _pages(client, phase.upper(), limit), as_json=as_json)
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


def _ask(address: str, ask: Callable[[TransactionClient], Awaitable[Answer]], *, as_json: bool) -> Answer:
    """Reach a coordinator, ask it, and turn what goes wrong into a message and an exit code."""

    async def asked() -> Answer:
        addresses = [each.strip() for each in address.split(",")]
        await _reach(addresses)
        async with TransactionClient(addresses) as client:
            return await ask(client)

    try:
        return asyncio.run(asked())
    except TimeoutError:
        fail(f"no coordinator answers at {address}; nothing was sent", ExitCode.UNAVAILABLE, as_json=as_json)
    except ClientError as error:
        fail_with(error, as_json=as_json)
    except ValueError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)


async def _reach(addresses: list[str]) -> None:
    """Return once one of the addresses can be connected to; TimeoutError when none can in time."""
    async with asyncio.timeout(REACH_WITHIN_S), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_ready(address)) for address in addresses]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _ready(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()


def _text_of(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
