"""Typed parameters of operations: a pydantic model each, over JSON that was read exactly.

A wrong parameter is a vote, not an exception that travels: ``invalid``, with the field's path
from the branch down, such as ``operations[0].parameters.amount``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Context, Decimal, Inexact
from inspect import signature
from typing import Annotated, Final, LiteralString, TypeVar, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from participant_sdk.exact_json import InvalidJsonError, loads_object
from participant_sdk.participant import Operation
from participant_sdk.xa import Vote, invalid

AMOUNT_LIMIT: Final = Decimal(10) ** 20
SCALE_MAX: Final = 18
USER_ID_MAX_CHARS: Final = 64
NAME_MAX_CHARS: Final = 64
WHOLE_LIMIT: Final = 2**63

BAD_PARAMETERS: Final = "BAD_PARAMETERS"
UNKNOWN_OPERATION: Final = "UNKNOWN_OPERATION"

# Wide enough for any sum of amounts; what it cannot hold exactly is an error, never a rounding.
EXACT: Final = Context(prec=60, traps=[Inexact])

_AMOUNT_TEXT: Final = re.compile(r"-?[0-9]{1,38}(\.[0-9]{1,38})?", re.ASCII)
_LONG_TEXT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_EXPONENT_TEXT: Final = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", re.ASCII)
_MESSAGES: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not a parameter of this operation",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
}


class Parameters(BaseModel):
    """What every operation's parameters keep to: nothing extra, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RefusedError(Exception):
    """The branch's vote is "no", as found before the database was asked."""

    def __init__(self, vote: Vote) -> None:
        super().__init__(vote.message)
        self.vote = vote


def refuse(index: int, name: str, message: str, *, reason: str = BAD_PARAMETERS) -> RefusedError:
    """Make the refusal of one parameter of the operation at ``index``; ``message`` goes on from its path."""
    field = f"operations[{index}].parameters" + (f".{name}" if name else "")
    return RefusedError(invalid(reason, f"{field} {message}", field))


Model = TypeVar("Model", bound=Parameters)


def read(model: type[Model], operation: Operation, index: int) -> Model:
    """Read an operation's parameters. RefusedError names the first field that is wrong."""
    try:
        values = loads_object(operation.parameters)
    except InvalidJsonError as error:
        raise refuse(index, "", f"cannot be read: {error}") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = _printable(".".join(map(str, first["loc"])))
        kind = first["type"]
        message = _MESSAGES.get(kind) or first["msg"].replace("Input should be", "must be")
        raise refuse(index, name, message, reason=kind if kind.isupper() else BAD_PARAMETERS) from error


def model_of(function: Callable[..., object], at: int) -> type[Parameters]:
    """The model that a function of two parameters has annotated at this place.

    TypeError for a function that is not so, or whose model cannot be read exactly (``check_model``).
    """
    name = getattr(function, "__qualname__", repr(function))
    taken = list(signature(function).parameters)
    model = get_type_hints(function).get(taken[at]) if len(taken) == 2 else None
    if not isinstance(model, type) or not issubclass(model, Parameters):
        place = ("first", "second")[at]
        raise TypeError(f"{name} is to take two parameters, the {place} annotated with a model that extends Parameters")
    check_model(model)
    return model


def check_model(model: type[BaseModel], name: str = "") -> None:
    """Check that a model can be read exactly. TypeError names a field that is a bare ``int``, or a ``float`` at all.

    Numbers are read as decimals: an ``int`` would refuse every one of them, and a ``float`` is not exact.
    """
    for field, info in model.model_fields.items():
        path = f"{name or model.__name__}.{field}"
        converts = any(isinstance(each, BeforeValidator | PlainValidator) for each in info.metadata)
        for found in _bare(info.annotation):
            if found is float:
                raise TypeError(f"{path} is a float, which is not exact: make it an Amount, or a Decimal")
            if found is int and not converts:
                raise TypeError(f"{path} is an int, and numbers are read as decimals: make it a Whole")
            if isinstance(found, type) and issubclass(found, BaseModel):
                check_model(found, path)


def _bare(annotation: object) -> Iterator[object]:
    """The types that an annotation is made of, but for those that have validators of their own."""
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        if not any(isinstance(each, BeforeValidator | PlainValidator) for each in metadata) or kind is float:
            yield from _bare(kind)
    elif get_origin(annotation) is None:
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _bare(part)


def unknown_operation(operation: Operation, index: int, served: Sequence[str]) -> RefusedError:
    """Make the refusal of an operation that is not served."""
    field = f"operations[{index}].operation"
    message = f"{field}: there is no operation {_printable(operation.name)!r}; there are {', '.join(served)}"
    return RefusedError(invalid(UNKNOWN_OPERATION, message, field))


def is_finer(amount: Decimal, scale: int) -> bool:
    """Whether the amount, of 60 digits at most, needs more than ``scale`` decimal places, trailing zeros left out."""
    units = EXACT.scaleb(amount, scale)
    return units != units.to_integral_value()


def _check_amount(value: object) -> Decimal:
    amount = _check_decimal(value)
    if amount <= 0:
        raise PydanticCustomError(BAD_PARAMETERS, "must be above zero")
    return amount


def _check_amount_or_zero(value: object) -> Decimal:
    amount = _check_decimal(value)
    if amount < 0:
        raise PydanticCustomError(BAD_PARAMETERS, "must not be below zero")
    return amount


def _check_decimal(value: object) -> Decimal:
    if isinstance(value, str):
        if not _AMOUNT_TEXT.fullmatch(value):
            raise PydanticCustomError(BAD_PARAMETERS, _why_no_amount(value))
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise PydanticCustomError(BAD_PARAMETERS, "must be a decimal number, such as 12.5")
    if value >= AMOUNT_LIMIT:
        raise PydanticCustomError(BAD_PARAMETERS, "must be below 10^20")
    # What is below zero is refused, or read further, by whoever takes such: it may have too many digits for this.
    if value > -AMOUNT_LIMIT and is_finer(value, SCALE_MAX):
        raise PydanticCustomError(BAD_PARAMETERS, "has more than 18 decimal places")
    return value


def _why_no_amount(text: str) -> LiteralString:
    if _LONG_TEXT.fullmatch(text):
        return "must have at most 38 digits before its point, and at most 38 after it"
    if _EXPONENT_TEXT.fullmatch(text):
        return "must be written without an exponent where it is text, such as 12.5"
    return "must be a decimal number, such as 12.5"


def _check_whole(value: object) -> int:
    if isinstance(value, Decimal) and not is_finer(value, 0):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PydanticCustomError(BAD_PARAMETERS, "must be a whole number, such as 12")
    if not -WHOLE_LIMIT <= value < WHOLE_LIMIT:
        raise PydanticCustomError(BAD_PARAMETERS, "must be at least -2^63, and below 2^63")
    return value


def _check_user_id(value: str) -> str:
    if not 1 <= len(value) <= USER_ID_MAX_CHARS or not value.isprintable() or value != value.strip():
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable characters, without spaces around them")
    return value


def _check_name(value: str) -> str:
    if not 1 <= len(value) <= NAME_MAX_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


def _check_note(value: str) -> str:
    if len(value) > 256 or not value.isprintable():
        raise PydanticCustomError(BAD_PARAMETERS, "must be at most 256 printable characters")
    return value


def _check_reason(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError(BAD_PARAMETERS, "must say something")
    return _check_note(value)


Amount = Annotated[Decimal, PlainValidator(_check_amount)]
AmountOrZero = Annotated[Decimal, PlainValidator(_check_amount_or_zero)]
Whole = Annotated[int, BeforeValidator(_check_whole)]
UserId = Annotated[str, AfterValidator(_check_user_id)]
# What other systems name things by: orders, trades, symbols.
Name = Annotated[str, AfterValidator(_check_name)]
Note = Annotated[str, AfterValidator(_check_note)]
# Why, for whoever reads the record of it.
Reason = Annotated[str, AfterValidator(_check_reason)]


def _printable(text: str) -> str:
    """The text as it can be shown and sent, whatever the caller put in it, 64 characters at most."""
    return text[:64].encode("ascii", "backslashreplace").decode()
