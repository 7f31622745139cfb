"""The development system's bank, told of money that comes in, for a load that records it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httpx

from participant_sdk.load import InvalidOrderError, Mixed
from participant_sdk.load.at_once import do_all
from participant_sdk.load.mixed import BANK_AMOUNT, IBAN

_ANSWER_WITHIN_S: Final = 10.0
_PATH: Final = "/development/transfers"


async def announce_transfers(bank: str, mixed: Mixed, announced: Callable[[int], None]) -> None:
    """Have the bank receive the workload's transfers; ``announced`` is told of each.

    InvalidOrderError where no bank of the development system takes them.
    """
    references = (mixed.bank_reference(number) for number in range(mixed.transfers))
    try:
        async with httpx.AsyncClient(base_url=bank, timeout=_ANSWER_WITHIN_S) as client:

            async def announce(reference: str) -> None:
                money = {"currency": mixed.currency, "amount": BANK_AMOUNT, "reference": reference}
                (await client.post(_PATH, json={**money, "iban": IBAN, "name": "load"})).raise_for_status()
                announced(1)

            await do_all(references, announce)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"{type(error).__name__} {error}".strip()
        message = f"no bank of a development system takes transfers at {bank} ({why}); '' for none"
        raise InvalidOrderError("--bank", message) from error
