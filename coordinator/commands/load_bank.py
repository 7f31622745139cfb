"""The development system's bank, told of money that comes in, for a load that records it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import httpx

from participant_sdk.load import InvalidOrderError, Mixed
from participant_sdk.load.accounts import AT_ONCE
from participant_sdk.load.mixed import BANK_AMOUNT, IBAN

_ANSWER_WITHIN_S: Final = 10.0
_PATH: Final = "/development/transfers"


async def announce_transfers(bank: str, mixed: Mixed, announced: Callable[[int], None]) -> None:
    """Have the bank receive the workload's transfers; ``announced`` is told of each.

    InvalidOrderError where no bank of the development system takes them.
    """
    references = (mixed.bank_reference(number) for number in range(mixed.transfers))
    try:
        async with (
            httpx.AsyncClient(base_url=bank, timeout=_ANSWER_WITHIN_S) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(AT_ONCE):
                group.create_task(_announce(client, mixed.currency, references, announced))
    except httpx.InvalidURL as error:
        raise _refusal(bank, error) from error
    except ExceptionGroup as failed:
        raise _refusal(bank, failed.exceptions[0]) from failed


async def _announce(
    client: httpx.AsyncClient, currency: str, references: Iterator[str], announced: Callable[[int], None]
) -> None:
    for reference in references:
        money = {"currency": currency, "amount": BANK_AMOUNT, "iban": IBAN, "name": "load", "reference": reference}
        (await client.post(_PATH, json=money)).raise_for_status()
        announced(1)


def _refusal(bank: str, error: Exception) -> InvalidOrderError:
    why = f"{type(error).__name__} {error}".strip()
    return InvalidOrderError(
        "--bank", f"no bank of a development system takes transfers at {bank} ({why}); '' for none"
    )
