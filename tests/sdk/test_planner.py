"""The planning of reservations: each operation by its own function, and a "no" for the whole branch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from participant_sdk.ids import Xid
from participant_sdk.parameters import Parameters, RefusedError, Whole
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.resources.reservation_planning import Place, Planner, Row, rows
from participant_sdk.xa import PREPARED, business_no, invalid
from tests.pages import blocks

XID = Xid.floor(1_700_000_000_000)


class Seats(Parameters):
    number: Whole


PLANNER = Planner(rows)


@PLANNER.operation("book")
def book(seats: Seats, at: Place) -> Row:
    if seats.number > 9:
        raise at.refuse("number", "is more than there are")
    return Row(f'"o":{at.number},"n":{seats.number}', f'"{at.name}"')


@PLANNER.operation("check")
def check(seats: Seats, at: Place) -> Row:
    return Row(f'"o":{at.number},"n":-{seats.number}')


def plan(*operations: tuple[str, int], planner: Planner[Any] = PLANNER) -> Planned:  # pyright: ignore[reportExplicitAny]  Items of any kind.
    written = [Operation("seats", name, f'{{"number":{number}}}') for name, number in operations]
    return planner.plan("00000000000000aa", XID, written)


def test_each_operation_becomes_its_row_in_order() -> None:
    planned = plan(("check", 1), ("book", 2))
    assert planned.rows == ('"o":0,"n":-1', '"o":1,"n":2')
    assert planned.vote == PREPARED._replace(results=("", f'"00000000000000aa-{XID}-1"'))
    assert plan(("check", 1)).vote == PREPARED
    assert PLANNER.names == ("book", "check")


def test_one_wrong_operation_refuses_the_branch_and_is_named() -> None:
    field = "operations[1].parameters.number"
    assert plan(("check", 1), ("book", 10)) == Planned(
        (), invalid("BAD_PARAMETERS", f"{field} is more than there are", field)
    )
    unknown = plan(("check", 1), ("leave", 1)).vote
    assert (unknown.reason, unknown.field) == ("UNKNOWN_OPERATION", "operations[1].operation")
    assert "there are book, check" in unknown.message


def test_the_items_of_a_branch_may_be_planned_together() -> None:
    def at_most_five(items: Sequence[int]) -> Planned:
        if sum(items) > 5:
            raise RefusedError(business_no("FULL", "no more than five"))
        return Planned(tuple(map(str, items)))

    planner = Planner(at_most_five)

    @planner.operation("book")
    def book_seats(seats: Seats, _: Place) -> int:
        return seats.number

    assert book_seats(Seats(number=1), Place("", XID, 0)) == 1
    assert plan(("book", 2), ("book", 3), planner=planner) == Planned(("2", "3"))
    assert plan(("book", 3), ("book", 3), planner=planner) == Planned((), business_no("FULL", "no more than five"))


def test_the_page_s_planner_plans(tmp_path: Path) -> None:
    """docs/own-service.md, as it is written."""
    (block,) = (each for each in blocks("own-service.md", "python") if each.startswith("planner ="))
    names: dict[str, object] = {**globals(), "ReservationService": ReservationService, "files": tmp_path.joinpath}
    exec(block, names)  # noqa: S102 - the page's own code
    service = cast("ReservationService", names["SERVICE"])
    assert service.operations == ("book_seats",)
    planned = service.plan("00000000000000aa", XID, [Operation("cinema", "book_seats", '{"number":2}')])
    assert planned.rows == ('"o":0,"n":2',)
    assert planned.vote.results == (f'{{"booking_id":"00000000000000aa-{XID}-0"}}',)
    refused = service.plan("00000000000000aa", XID, [Operation("cinema", "book_seats", '{"number":10}')]).vote
    assert refused.message == "operations[0].parameters.number must be at most 9"


def _swapped(at: Place, seats: Seats) -> Row: ...  # pyright: ignore[reportReturnType]  It is never called.


def test_a_function_that_cannot_be_served_is_refused_at_import() -> None:
    wrong = cast("Callable[[Any, Place], Row]", _swapped)  # pyright: ignore[reportExplicitAny]  What no checker lets pass.
    with pytest.raises(TypeError, match="_swapped is to take two parameters, the first annotated with a model"):
        Planner(rows).operation("book")(wrong)
    with pytest.raises(ValueError, match="'book' is served already"):
        PLANNER.operation("book")
    with pytest.raises(ValueError, match="has no name"):
        PLANNER.operation("")
