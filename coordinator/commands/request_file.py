"""A transaction written in a file: the body of ``execute``, in JSON or YAML, read exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn, cast

import yaml

from participant_sdk.client_results import Wait
from participant_sdk.operations import OperationLike, Parameter

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,76})(?:\.\d{1,76})?(?:[eE][+-]?\d{1,4})?", re.ASCII)
# What YAML 1.1 takes for text, wanting a point and a sign, and JSON and YAML 1.2 for a number.
_YAML_EXPONENT: Final = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+")
_KEYS: Final = ("operations", "timeout_seconds", "request_id", "wait", "lock_keys")
TIMEOUT_MAX_S: Final = 55 * 60
_OPERATION_KEYS: Final = ("service", "operation", "parameters")


class InvalidFileError(Exception):
    """The file holds no transaction. The message names the place."""


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A transaction to run. None where the file leaves it open."""

    operations: tuple[OperationLike, ...]
    timeout_s: float | None
    request_id: str | None
    wait: Wait | None
    lock_keys: tuple[str, ...] = ()


def read(text: str) -> RequestFile:
    """Read a transaction. InvalidFileError names what is wrong."""
    body = _mapping(_load(text), _KEYS, "")
    if "operations" not in body:
        raise InvalidFileError("operations: required")
    operations = body["operations"]
    if isinstance(operations, str) or not isinstance(operations, Sequence):
        raise InvalidFileError("operations: must be a list")
    request_id = body.get("request_id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidFileError("request_id: must be text")
    return RequestFile(
        tuple(_operation(each, f"operations[{index}]") for index, each in enumerate(operations)),
        _timeout(body.get("timeout_seconds")),
        request_id,
        _wait(body.get("wait")),
        _lock_keys(body.get("lock_keys")),
    )


def _timeout(written: Parameter) -> float | None:
    if written is None:
        return None
    if not isinstance(written, Decimal):
        raise InvalidFileError("timeout_seconds: must be a number")
    if not 0 < written <= TIMEOUT_MAX_S:
        raise InvalidFileError(f"timeout_seconds: must be above 0 and at most {TIMEOUT_MAX_S} (55 minutes)")
    return float(written)


def _lock_keys(written: Parameter) -> tuple[str, ...]:
    if written is None:
        return ()
    if isinstance(written, str) or not isinstance(written, Sequence):
        raise InvalidFileError("lock_keys: must be a list")
    for index, key in enumerate(written):
        if not isinstance(key, str):
            raise InvalidFileError(f"lock_keys[{index}]: must be text")
    return tuple(str(key) for key in written)


def _wait(written: Parameter) -> Wait | None:
    if written is None:
        return None
    name = written.upper() if isinstance(written, str) else ""
    if name not in Wait.__members__:
        raise InvalidFileError(f"wait: must be one of: {', '.join(each.lower() for each in Wait.__members__)}")
    return Wait[name]


def _operation(written: Parameter, place: str) -> OperationLike:
    members = _mapping(written, _OPERATION_KEYS, f"{place}.")
    for key in _OPERATION_KEYS:
        if key not in members:
            raise InvalidFileError(f"{place}.{key}: required")
    service, name, parameters = (members[key] for key in _OPERATION_KEYS)
    if not isinstance(service, str) or not isinstance(name, str):
        raise InvalidFileError(f"{place}: service and operation must be text")
    if not isinstance(parameters, Mapping):
        raise InvalidFileError(f"{place}.parameters: must be a mapping")
    return service, name, parameters


def _mapping(value: Parameter, known: tuple[str, ...], prefix: str) -> Mapping[str, Parameter]:
    if not isinstance(value, Mapping):
        raise InvalidFileError(f"{prefix.rstrip('.') or 'the file'}: must be a mapping of keys to values")
    for key in value:
        if key not in known:
            raise InvalidFileError(f"{prefix}{key}: unknown; known here: {', '.join(known)}")
    return value


def _load(text: str) -> Parameter:
    """JSON where it begins like JSON, else YAML."""
    try:
        if text.lstrip().startswith("{"):
            return cast(Parameter, _JSON.decode(text.strip()))
        return cast(Parameter, yaml.load(text, _ExactLoader))  # noqa: S506 - a SafeLoader, stricter still
    except RecursionError as error:
        raise InvalidFileError("nested far too deeply") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidFileError(f"malformed: {error}") from error


def _read_members(members: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(members)
    if len(value) != len(members):
        keys = [key for key, _ in members]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return value


def _read_number(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"not an exact number: {text[:80]} (if it is meant as text, quote it)")
    return Decimal(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


_JSON: Final = json.JSONDecoder(
    parse_float=_read_number,
    parse_int=_read_number,
    parse_constant=_refuse_constant,
    object_pairs_hook=_read_members,
)


class _ExactLoader(yaml.SafeLoader):
    """YAML whose numbers are exact decimals; dates, which JSON has not, stay text."""


def _yaml_number(_loader: _ExactLoader, node: yaml.ScalarNode) -> Decimal:
    return _read_number(node.value)


def _yaml_text(_loader: _ExactLoader, node: yaml.ScalarNode) -> str:
    return node.value


def _yaml_mapping(loader: _ExactLoader, node: yaml.MappingNode) -> dict[str, object]:
    return _read_members(
        [
            (str(key.value), cast(object, loader.construct_object(value, deep=True)))  # pyright: ignore[reportUnknownMemberType]  PyYAML's stubs leave it open
            for key, value in node.value
        ]
    )


_ExactLoader.add_implicit_resolver("tag:yaml.org,2002:float", _YAML_EXPONENT, list("-+0123456789"))  # pyright: ignore[reportUnknownMemberType]  As above.
_ExactLoader.add_constructor("tag:yaml.org,2002:int", _yaml_number)
_ExactLoader.add_constructor("tag:yaml.org,2002:float", _yaml_number)
_ExactLoader.add_constructor("tag:yaml.org,2002:timestamp", _yaml_text)
_ExactLoader.add_constructor("tag:yaml.org,2002:map", _yaml_mapping)
