"""Typed functions: what a decorator takes, what is read for them, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, cast

import pytest
from psycopg import AsyncConnection
from pydantic import BaseModel, Field

from participant_sdk.ids import InvalidIdentifierError
from participant_sdk.parameters import Amount, Parameters, RefusedError, Whole, check_model, read
from participant_sdk.participant import Operation
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import read_calls, typed
from participant_sdk.service import Service
from participant_sdk.xa import business_no, transient_no


class Grant(Parameters):
    user_id: str
    points: Annotated[Whole, Field(gt=0)]
    many: tuple[Whole, ...] = ()
    worth: Amount | None = None


class Balance(BaseModel):
    balance: Decimal


class Several(Parameters):
    points: Whole


class Bare(Parameters):
    points: int


class Inner(BaseModel):
    rate: list[float]


class Nested(Parameters):
    inner: Inner | None = None


class Converted(Parameters):
    rate: Annotated[float, Field(gt=0)]


async def grant_points(_: Connection, grant: Grant) -> Balance | None:
    if grant.points > 100:
        raise RefusedError(business_no("TOO_MANY", "that is too many", field="points"))
    if grant.points == 100:
        raise RefusedError(transient_no("BUSY", "not now"))
    return Balance(balance=Decimal("1.50")) if grant.points > 1 else None


SERVED = {"grant_points": typed(Grant, grant_points)}


def written(parameters: str, name: str = "grant_points") -> Sequence[Operation]:
    return [Operation("loyalty", "grant_points", '{"user_id":"1","points":1}'), Operation("loyalty", name, parameters)]


async def run(parameters: str) -> str:
    """What the second operation of a branch returns. Its function here never uses the connection."""
    call = read_calls(written(parameters), SERVED)[1]
    assert callable(call.run)
    return await call.run(cast("Connection", AsyncConnection), {})


async def test_a_result_is_told_exactly_as_json() -> None:
    assert await run('{"user_id":"1","points":5}') == '{"balance":"1.50"}'
    assert await run('{"user_id":"1","points":1}') == ""


async def test_a_no_names_the_parameter_s_whole_path() -> None:
    with pytest.raises(RefusedError) as refused:
        await run('{"user_id":"1","points":101}')
    assert refused.value.vote == business_no("TOO_MANY", "that is too many", field="operations[1].parameters.points")
    with pytest.raises(RefusedError) as refused:
        await run('{"user_id":"1","points":100}')
    assert refused.value.vote == transient_no("BUSY", "not now")


@pytest.mark.parametrize(
    ("parameters", "field", "message"),
    [
        ('{"user_id":"1"}', ".points", "is missing"),
        ('{"user_id":"1","points":0}', ".points", "must be greater than 0"),
        ('{"user_id":"1","points":0.5}', ".points", "must be a whole number, such as 12"),
        ('{"user_id":"1","points":"5"}', ".points", "must be a whole number, such as 12"),
        ('{"user_id":"1","points":true}', ".points", "must be a whole number, such as 12"),
        ('{"user_id":"1","points":9223372036854775808}', ".points", "must be at least -2^63, and below 2^63"),
        ('{"user_id":"1","points":1,"more":1}', ".more", "is not a parameter of this operation"),
        ('{"user_id":"1","points":1,"many":[1,"2"]}', ".many", "must be a valid tuple"),
        ("[]", "", "cannot be read: not a JSON object"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_begins(parameters: str, field: str, message: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_calls(written(parameters), SERVED)
    vote = refused.value.vote
    assert (vote.reason, vote.field) == ("BAD_PARAMETERS", f"operations[1].parameters{field}")
    assert message in vote.message


def test_an_operation_that_is_not_served_is_named() -> None:
    with pytest.raises(RefusedError, match="there is no operation 'take'; there are grant_points"):
        read_calls(written("{}", "take"), SERVED)


@pytest.mark.parametrize("number", ["7", "7.0", "7e0", "-9223372036854775808"])
def test_whole_numbers_are_read_however_they_are_written(number: str) -> None:
    found = read(Several, Operation("loyalty", "x", f'{{"points":{number}}}'), 0)
    assert found.points == int(Decimal(number))
    assert Several(points=7).points == 7


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Bare, "Bare.points is an int, and numbers are read as decimals: make it a Whole"),
        (Nested, "Nested.inner.rate is a float, which is not exact"),
        (Converted, "Converted.rate is a float, which is not exact"),
    ],
)
def test_a_model_that_cannot_be_read_exactly_is_refused(model: type[Parameters], message: str) -> None:
    """Money is never a float, and a service must not find that out by its first caller."""
    with pytest.raises(TypeError, match=message.replace(".", r"\.")):
        check_model(model)
    check_model(Grant)


async def _alone(_: Connection) -> None: ...


async def _untyped(_: Connection, parameters: dict[str, str]) -> None: ...


def _not_async(_: Connection, grant: Grant) -> None: ...


async def _bare(_: Connection, bare: Bare) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_alone, "_alone is to take two parameters, the second annotated with a model that extends Parameters"),
        (_untyped, "_untyped is to take two parameters"),
        (_not_async, "an async function of a connection and its parameters is wanted"),
        (_bare, "Bare.points is an int"),
    ],
)
def test_a_function_that_cannot_be_served_is_refused_at_import(function: object, message: str) -> None:
    # What no type checker would let pass is what is tried here.
    wrong = cast("Callable[[Any, Any], Any]", function)  # pyright: ignore[reportExplicitAny]  As above.
    with pytest.raises(TypeError, match=message):
        Service("loyalty").operation("grant_points")(wrong)


async def test_a_service_without_a_name_or_operations_serves_nothing() -> None:
    with pytest.raises(InvalidIdentifierError):
        Service("No Body")
    service = Service("own-loyalty")
    assert service.schema == "own_loyalty"
    with pytest.raises(ValueError, match="own-loyalty serves no operation"):
        async with service.serving("", "127.0.0.1:0"):
            pass
    assert service.operation("grant_points")(grant_points) is grant_points
    with pytest.raises(ValueError, match="'grant_points' is served already"):
        service.operation("grant_points")
    with pytest.raises(ValueError, match="has no name"):
        service.operation("")
