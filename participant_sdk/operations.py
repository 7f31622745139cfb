"""Operations as a client writes them, and the exact JSON that travels.

A client may write parameters as JSON text, which passes as it is, or as a mapping of text,
whole numbers, decimals, truth values, None, lists and mappings. Floats are refused: 0.1 as a
float is not a tenth, and a ledger must not have to guess which was meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, cast

from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.exact_json import (
    ALL_PARAMETERS_MAX_BYTES,
    DEPTH_MAX,
    NUMBER_MAX_DIGITS,
    NUMBER_MAX_EXPONENT,
    PARAMETERS_MAX_BYTES,
)
from participant_sdk.participant import OPERATIONS_MAX, Operation
from participant_sdk.wire import text_size_bytes

# So many fit, however large each of them is within its own bound.
_ALWAYS_FIT: Final = ALL_PARAMETERS_MAX_BYTES // PARAMETERS_MAX_BYTES
_PARTS: Final = ("service", "operation", "parameters")

Parameter = None | bool | str | int | Decimal | Sequence["Parameter"] | Mapping[str, "Parameter"]
OperationLike = tuple[str, str, str | Mapping[str, Parameter]]


def operations_of(written: Sequence[OperationLike]) -> tuple[Operation, ...]:
    """Make the operations that travel: service, operation, parameters as one JSON object's text.

    InvalidRequestError, naming the field, for none, more than 100, a value that has no exact JSON, more than 64 KiB of
    parameters, or 256 KiB of all. What only a participant can know (names, amounts, accounts) is checked there.
    """
    if not 1 <= len(written) <= OPERATIONS_MAX:
        raise InvalidRequestError(f"1 to {OPERATIONS_MAX} operations, not {len(written)}", field="operations")
    operations = tuple([_operation_of(entry, index) for index, entry in enumerate(written)])
    if fault := parameters_fault(operations):
        raise InvalidRequestError(fault, field="operations")
    return operations


def parameters_fault(operations: Sequence[Operation]) -> str:
    """Why a transaction cannot have all these parameters, each within its own bound; empty where it can."""
    if len(operations) <= _ALWAYS_FIT:
        return ""
    size_bytes = sum([text_size_bytes(each.parameters) for each in operations])
    if size_bytes <= ALL_PARAMETERS_MAX_BYTES:
        return ""
    return f"the parameters take {size_bytes} bytes in all; at most {ALL_PARAMETERS_MAX_BYTES} are allowed"


def json_text(value: Parameter, field: str) -> str:
    """The value's exact JSON. InvalidRequestError, naming the place below ``field``, for what has none."""
    return _write(value, field, 0)


def _operation_of(entry: OperationLike, index: int) -> Operation:
    # Callers need not be type-checked.
    parts = cast("object", entry)
    if not isinstance(parts, tuple | list) or len(cast("Sequence[object]", parts)) != len(_PARTS):
        raise InvalidRequestError(f"must be ({', '.join(_PARTS)})", field=f"operations[{index}]")
    service, name, parameters = entry
    for part, written in (("service", service), ("operation", name)):
        if not isinstance(cast("object", written), str):
            raise InvalidRequestError("must be text", field=f"operations[{index}].{part}")
    text = parameters if isinstance(parameters, str) else _write(parameters, f"operations[{index}].parameters", 0)
    if text_size_bytes(text) > PARAMETERS_MAX_BYTES:
        # A message far too large would not be answered, but refused by gRPC, with all that came with it.
        raise InvalidRequestError(f"larger than {PARAMETERS_MAX_BYTES} bytes", field=f"operations[{index}].parameters")
    return Operation(service, name, text)


def _write(value: object, field: str, depth: int) -> str:
    if depth > DEPTH_MAX:
        raise InvalidRequestError(f"nested deeper than {DEPTH_MAX} levels", field=field)
    match value:
        case str() | bool() | None:
            return json.dumps(value)
        case int() | Decimal():
            return _write_number(Decimal(value), field)
        case Mapping():
            # Callers need not be type-checked, so every member is judged as it comes.
            mapping = cast("Mapping[object, object]", value)
            return "{" + ",".join(_write_member(key, mapping[key], field, depth) for key in mapping) + "}"
        case list() | tuple():
            items = cast("Sequence[object]", value)
            return "[" + ",".join(_write(item, f"{field}[{at}]", depth + 1) for at, item in enumerate(items)) + "]"
        case float():
            raise InvalidRequestError(
                f"{value!r} is a float, which is not exact; write Decimal('{value!r}') or '{value!r}'", field=field
            )
        case _:
            raise InvalidRequestError(f"a {type(value).__name__} has no JSON", field=field)


def _write_member(key: object, value: object, field: str, depth: int) -> str:
    if not isinstance(key, str):
        raise InvalidRequestError(f"the key {key!r} is not text", field=field)
    return f"{json.dumps(key)}:{_write(value, f'{field}.{key}', depth + 1)}"


def _write_number(number: Decimal, field: str) -> str:
    in_range = number.is_finite() and abs(number.adjusted()) <= NUMBER_MAX_EXPONENT
    if not in_range or len(number.as_tuple().digits) > NUMBER_MAX_DIGITS:
        raise InvalidRequestError(
            f"{number} is out of range ({NUMBER_MAX_DIGITS} digits, exponents to {NUMBER_MAX_EXPONENT})", field=field
        )
    return format(number, "f")
