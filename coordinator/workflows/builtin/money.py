"""Money as the built-in workflows reckon it, and words that they share."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from participant_sdk.currencies import SCALES, is_too_fine
from participant_sdk.parameters import BAD_PARAMETERS, Amount

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


def _check_symbol(symbol: str) -> str:
    base, slash, quote = symbol.partition("/")
    if not slash or base not in SCALES or quote not in SCALES or base == quote:
        raise PydanticCustomError("UNKNOWN_SYMBOL", "must be two currencies of ours, such as BTC/USD")
    return symbol


def _check_scale(amount: Decimal, info: ValidationInfo) -> Decimal:
    """The amount is of the currency, or of the symbol's first one, that stands before it; if that is one of ours."""
    currency = str(info.data.get("currency") or info.data.get("symbol") or "").partition("/")[0]
    if currency in SCALES and is_too_fine(amount, currency):
        told = {"scale": SCALES[currency], "currency": currency}
        raise PydanticCustomError(BAD_PARAMETERS, "has more than {scale} decimal places, the most in {currency}", told)
    return amount


Money = Annotated[Amount, AfterValidator(_check_scale)]
Name = Annotated[str, AfterValidator(_check_name)]
Symbol = Annotated[str, AfterValidator(_check_symbol)]
