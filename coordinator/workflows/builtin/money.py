"""How finely money is divided, and words that the built-in workflows share."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from participant_sdk.parameters import BAD_PARAMETERS

# As the participants have it: what an amount is rounded to must be what they take.
SCALES: Final[Mapping[str, int]] = {
    "AUD": 2,
    "CAD": 2,
    "CHF": 2,
    "EUR": 2,
    "GBP": 2,
    "JPY": 0,
    "USD": 2,
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
# Products of two amounts, and sums of them, are exact in it.
_EXACT: Final = Context(prec=160)


def written(amount: Decimal) -> str:
    """The amount as text, without an exponent."""
    return f"{amount:f}"


def cost(price: Decimal, amount: Decimal, quote: str, *, is_paid: bool) -> Decimal:
    """Price times amount in the quote currency: what is paid is rounded down, what is locked for it up."""
    step = Decimal(1).scaleb(-SCALES[quote])
    product = _EXACT.multiply(price, amount)
    return product.quantize(step, rounding=ROUND_DOWN if is_paid else ROUND_UP, context=_EXACT)


def _check_name(value: str) -> str:
    if not 1 <= len(value) <= 64 or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


def _check_currency(code: str) -> str:
    if code not in SCALES:
        raise PydanticCustomError("UNKNOWN_CURRENCY", "is no currency of ours; there are {codes}", {"codes": _CODES})
    return code


def _check_symbol(symbol: str) -> str:
    base, slash, quote = symbol.partition("/")
    if not slash or base not in SCALES or quote not in SCALES or base == quote:
        raise PydanticCustomError("UNKNOWN_SYMBOL", "must be two currencies of ours, such as BTC/USD")
    return symbol


_CODES: Final = ", ".join(SCALES)

Name = Annotated[str, AfterValidator(_check_name)]
Currency = Annotated[str, AfterValidator(_check_currency)]
Symbol = Annotated[str, AfterValidator(_check_symbol)]
