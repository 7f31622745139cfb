"""The operations of a PostgreSQL XA resource: functions, typed or not, or single statements of SQL.

A function gets the branch's connection, inside its transaction, and the parameters; it
returns the result as JSON text, or "". It says no by raising ``RefusedError``, or by any
SQL error. It must not end the transaction, and must not catch an SQL error and go on, for the
transaction is lost then.

A statement takes its parameters by name, ``%(account)s``, exactly those. It says no by an SQL
error: of a constraint, or of ``pincex_xa.expect(condition, reason, message)``. Branches made of
statements that return nothing travel to the server whole, as one string.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic import BaseModel

from participant_sdk.exact_json import Exact, InvalidJsonError, loads_object
from participant_sdk.parameters import Model, RefusedError, read
from participant_sdk.participant import Operation
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.xa import invalid

# A percent sign that stands for itself, or a parameter's place.
_PERCENT: Final = re.compile(r"%%|%\((\w+)\)s")

Parameters = Mapping[str, Exact]
Function = Callable[[Connection, Parameters], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Statement:
    """An operation that is one SQL statement. With ``returns``, its first column of its first row is the result.

    ``names`` are the parameters it takes; ``places`` has the one of each place, in order of appearance, and
    ``template`` is the statement with ``%s`` there. ValueError for a ``%`` that is neither a place nor written ``%%``.
    """

    sql: str
    returns: bool = False

    names: tuple[str, ...] = field(init=False)
    places: tuple[str, ...] = field(init=False)
    template: str = field(init=False)

    def __post_init__(self) -> None:
        if "%" in _PERCENT.sub("", self.sql):
            raise ValueError(f"a parameter is written %(name)s, and a percent sign %%: {self.sql!r}")
        places = tuple([name for name in _PERCENT.findall(self.sql) if name])
        object.__setattr__(self, "names", tuple(dict.fromkeys(places)))
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "template", _PERCENT.sub(lambda found: "%s" if found[1] else "%%", self.sql))


@dataclass(frozen=True, slots=True)
class Typed:
    """An operation that reads its parameters into a model. ``bind`` does so, and gives the function that is run.

    RefusedError of ``bind`` names the parameter that is wrong; the number is the operation's place in its branch.
    """

    bind: Callable[[Operation, int], Function]


def typed(model: type[Model], function: Callable[[Connection, Model], Awaitable[BaseModel | None]]) -> Typed:
    """Make an operation of a function that takes this model; what it returns is told as JSON."""

    def bind(operation: Operation, at: int) -> Function:
        parameters = read(model, operation, at)

        async def run(connection: Connection, _: Parameters) -> str:
            try:
                result = await function(connection, parameters)
            except RefusedError as error:
                if not error.vote.field:
                    raise
                path = f"operations[{at}].parameters.{error.vote.field}"
                raise RefusedError(error.vote._replace(field=path)) from error
            return "" if result is None else result.model_dump_json()

        return run

    return Typed(bind)


XaOperation = Function | Statement | Typed


class Call(NamedTuple):
    """One operation of a branch, read and ready to run. ``field`` names it in errors."""

    run: Function | Statement
    parameters: Parameters
    field: str


def read_calls(operations: Sequence[Operation], served: Mapping[str, XaOperation]) -> list[Call]:
    """Read a branch's operations. RefusedError names what is unknown, missing, superfluous or malformed."""
    return [_read_call(operation, at, served) for at, operation in enumerate(operations)]


def _read_call(operation: Operation, at: int, served: Mapping[str, XaOperation]) -> Call:
    field = f"operations[{at}]"
    run = served.get(operation.name)
    if run is None:
        names = ", ".join(served)
        message = f"there is no operation {operation.name!r}; there are {names}"
        raise RefusedError(invalid("UNKNOWN_OPERATION", message, f"{field}.operation"))
    if isinstance(run, Typed):
        return Call(run.bind(operation, at), {}, f"{field}.parameters")
    try:
        parameters = loads_object(operation.parameters)
    except InvalidJsonError as error:
        raise RefusedError(invalid("BAD_PARAMETERS", str(error), f"{field}.parameters")) from error
    if isinstance(run, Statement):
        _check_names(run, parameters, f"{field}.parameters")
    return Call(run, parameters, f"{field}.parameters")


def _check_names(statement: Statement, parameters: Parameters, path: str) -> None:
    for name in statement.names:
        if name not in parameters:
            raise RefusedError(invalid("BAD_PARAMETERS", f"{path}.{name} is missing", f"{path}.{name}"))
        # As exact JSON reads objects and lists.
        if isinstance(parameters[name], dict | list):
            raise RefusedError(invalid("BAD_PARAMETERS", f"{path}.{name} must be one value", f"{path}.{name}"))
    for name in parameters:
        if name not in statement.names:
            message = f"{path}.{name} is not a parameter of this operation"
            raise RefusedError(invalid("BAD_PARAMETERS", message, f"{path}.{name}"))
