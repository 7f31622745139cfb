"""The currencies that the exchange deals in, and how finely each is divided."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from participant_sdk.parameters import is_finer, refuse

UNKNOWN_CURRENCY: Final = "UNKNOWN_CURRENCY"

# Places after the point: ISO 4217 for what banks keep, the smallest unit of the chain for the others.
FIAT_SCALES: Final[Mapping[str, int]] = {
    "AUD": 2,
    "CAD": 2,
    "CHF": 2,
    "EUR": 2,
    "GBP": 2,
    "JPY": 0,
    "USD": 2,
}
CHAIN_SCALES: Final[Mapping[str, int]] = {
    "ADA": 6,
    "BCH": 8,
    "BTC": 8,
    "DAI": 18,
    "DOGE": 8,
    "DOT": 10,
    "ETH": 18,
    "LTC": 8,
    "SOL": 9,
    "USDC": 6,
    "USDT": 6,
    "XRP": 6,
}
SCALES: Final[Mapping[str, int]] = {**FIAT_SCALES, **CHAIN_SCALES}


def _check_currency(code: str) -> str:
    if code not in SCALES:
        raise PydanticCustomError(UNKNOWN_CURRENCY, "is no currency of ours; there are {codes}", {"codes": _CODES})
    return code


def _check_fiat(code: str) -> str:
    if code not in FIAT_SCALES:
        raise PydanticCustomError(
            UNKNOWN_CURRENCY, "is no currency that our banks keep; there are {codes}", {"codes": _FIAT_CODES}
        )
    return code


def _check_on_chain(code: str) -> str:
    if code not in CHAIN_SCALES:
        raise PydanticCustomError(
            UNKNOWN_CURRENCY, "is on no chain of ours; there are {codes}", {"codes": _CHAIN_CODES}
        )
    return code


_CODES: Final = ", ".join(SCALES)
_FIAT_CODES: Final = ", ".join(FIAT_SCALES)
_CHAIN_CODES: Final = ", ".join(CHAIN_SCALES)

Currency = Annotated[str, AfterValidator(_check_currency)]
FiatCurrency = Annotated[str, AfterValidator(_check_fiat)]
ChainCurrency = Annotated[str, AfterValidator(_check_on_chain)]


def check_scale(amount: Decimal, currency: str, index: int, name: str) -> None:
    """RefusedError, naming the parameter, for an amount finer than its currency is divided."""
    if is_too_fine(amount, currency):
        raise refuse(index, name, f"has more than {SCALES[currency]} decimal places, the most in {currency}")


def is_too_fine(amount: Decimal, currency: str) -> bool:
    """Whether an amount is finer than its currency is divided."""
    return is_finer(amount, SCALES[currency])
