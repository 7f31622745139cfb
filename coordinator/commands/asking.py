"""A coordinator reached and asked, and what goes wrong turned into a message and an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn, TypeVar

import grpc

from coordinator.commands.exits import ExitCode, fail
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError, InvalidRequestError, OutcomeUnknown, UnavailableError

REACH_WITHIN_S: Final = 3.0

Answer = TypeVar("Answer")


def ask(address: str, question: Callable[[TransactionClient], Awaitable[Answer]], *, as_json: bool) -> Answer:
    """Reach a coordinator and ask it with a client of transactions."""

    async def asked() -> Answer:
        addresses = addresses_of(address)
        await reach(addresses)
        async with TransactionClient(addresses) as client:
            return await question(client)

    return answered(asked, address, as_json=as_json)


def answered(asked: Callable[[], Awaitable[Answer]], address: str, *, as_json: bool) -> Answer:
    """Run a question to its answer; end the command where it has none."""

    async def run() -> Answer:
        return await asked()

    try:
        return asyncio.run(run())
    except TimeoutError:
        fail(f"no coordinator answers at {address}; nothing was sent", ExitCode.UNAVAILABLE, as_json=as_json)
    except ClientError as error:
        fail_with(error, as_json=as_json)
    except ValueError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)


def fail_with(error: ClientError, *, as_json: bool) -> NoReturn:
    """End the command as the client's error says."""
    more = {"code": error.reason, "transaction_id": error.xid}
    match error:
        case OutcomeUnknown(request_id=""):
            fail(str(error), ExitCode.OUTCOME_UNKNOWN, as_json=as_json, **more)
        case OutcomeUnknown():
            more["request_id"] = error.request_id
            message = f"the outcome is not known: {error}; ask again with --request-id {error.request_id}"
            fail(message, ExitCode.OUTCOME_UNKNOWN, as_json=as_json, **more)
        case UnavailableError():
            fail(str(error), ExitCode.UNAVAILABLE, as_json=as_json, **more)
        case InvalidRequestError():
            fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json, field=error.field, **more)
        case _:
            fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json, **more)


def addresses_of(written: str) -> list[str]:
    """The addresses that an option names."""
    return [each.strip() for each in written.split(",")]


async def reach(addresses: Sequence[str]) -> None:
    """Return once one of the addresses can be connected to; TimeoutError when none can in time."""
    async with asyncio.timeout(REACH_WITHIN_S), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_ready(address)) for address in addresses]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _ready(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
