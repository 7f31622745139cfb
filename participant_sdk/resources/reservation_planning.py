"""The planning of a reservation's operations: a function for each, over typed parameters.

    planner = Planner(rows)

    @planner.operation("cancel_order")
    def cancel_order(cancel: Cancel, at: Place) -> Row:
        return Row(f'"o":{at.number},"k":2,"i":{quoted(cancel.order_id)}')

Each function turns one operation into an item, of whatever type the service chose; ``rows`` or a function of
the service's own turns a branch's items into what its SQL reads. ``planner.names`` and ``planner.plan`` are
what ``ReservationService`` takes. All of it is pure: a "no" is a ``RefusedError``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar, cast

from participant_sdk.ids import Xid
from participant_sdk.parameters import BAD_PARAMETERS, Model, RefusedError, model_of, read, refuse, unknown_operation
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.xa import PREPARED

Item = TypeVar("Item")


class Place(NamedTuple):
    """Where an operation stands: its branch, and its number there, from 0."""

    log_id: str
    xid: Xid
    number: int

    @property
    def name(self) -> str:
        """A name that no other operation has, the same at every Prepare: two logs may give out the same xid."""
        return f"{self.log_id}-{self.xid}-{self.number}"

    def refuse(self, parameter: str, message: str, *, reason: str = BAD_PARAMETERS) -> RefusedError:
        """Make the refusal of one of its parameters; ``message`` goes on from the parameter's path."""
        return refuse(self.number, parameter, message, reason=reason)


class Row(NamedTuple):
    """An operation as the service's SQL reads it, without braces and ``b``, and what it returns to the caller."""

    members: str
    result: str = ""


def rows(planned: Sequence[Row]) -> Planned:
    """Plan a branch whose operations have nothing to do with each other."""
    results = tuple([row.result for row in planned])
    vote = PREPARED._replace(results=results) if any(results) else PREPARED
    return Planned(tuple([row.members for row in planned]), vote)


class Planner(Generic[Item]):
    """A service's operations. It is filled while its module is imported, and then only read.

    ``combine`` makes the plan of a branch's items, in the operations' order; RefusedError refuses the branch.
    """

    def __init__(self, combine: Callable[[Sequence[Item]], Planned]) -> None:
        self._combine = combine
        self._operations: dict[str, Callable[[Operation, Place], Item]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The operations served, in the order of their functions."""
        return tuple(self._operations)

    def operation(self, name: str) -> Callable[[Callable[[Model, Place], Item]], Callable[[Model, Place], Item]]:
        """Serve the decorated function under this name; the function itself stays as it is.

        Its first parameter is annotated with the model of the operation's parameters. TypeError for a function
        that is not so, or whose parameters cannot be read exactly; ValueError for a name that is taken.
        """
        if not name or name in self._operations:
            raise ValueError(f"the operation {name!r} is served already, or has no name")

        def add(function: Callable[[Model, Place], Item]) -> Callable[[Model, Place], Item]:
            # It is the model that the function's own type names, which a type checker has compared.
            model = cast("type[Model]", model_of(function, 0))

            def read_item(operation: Operation, at: Place) -> Item:
                return function(read(model, operation, at.number), at)

            self._operations[name] = read_item
            return function

        return add

    def plan(self, log_id: str, xid: Xid, operations: Sequence[Operation]) -> Planned:
        """Work out a branch's rows, or the "no" to what is wrong in itself."""
        # Called for every branch, so without a call for each operation more than its own.
        items: list[Item] = []
        try:
            for number, operation in enumerate(operations):
                read_item = self._operations.get(operation.name)
                if read_item is None:
                    raise unknown_operation(operation, number, self.names)
                items.append(read_item(operation, Place(log_id, xid, number)))
            return self._combine(items)
        except RefusedError as error:
            return Planned((), error.vote)
