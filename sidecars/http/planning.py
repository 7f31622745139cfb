"""What a branch comes to before the service is asked: checked, and journalled as a try whose outcome is open."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from participant_sdk.exact_json import InvalidJsonError, loads_object
from participant_sdk.ids import Xid
from participant_sdk.parameters import refuse
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.xa import Vote, VoteKind, XaCode
from sidecars.http.target import Target

# Past its turn and its time-out a call has ended here; what it was answered takes a moment to be stored.
MARGIN_S: Final = 2.0
_FOLDER: Final = files("sidecars.http")
INVARIANTS: Final = _FOLDER / "invariants.sql"


class Admitted(Vote):
    """The vote of a branch that was journalled just now, and is to be tried.

    A vote that is read back from the journal is a plain one: whoever asked for that has gone.
    """

    __slots__ = ()


_ADMITTED: Final = Admitted(
    VoteKind.ROLLED_BACK,
    XaCode.RBTRANSIENT,
    "TRY_UNFINISHED",
    "the service was asked to try, and its answer was not stored",
    transient=True,
)


def service_of(target: Target) -> ReservationService:
    """Make the service of the SDK's branches: its operations are the target's own, and any are let through."""
    window_s = target.turn_s + target.timeout_s + MARGIN_S

    def plan(log_id: str, xid: Xid, operations: Sequence[Operation]) -> Planned:
        for index, operation in enumerate(operations):
            try:
                loads_object(operation.parameters)
            except InvalidJsonError as error:
                return Planned((), refuse(index, "", f"cannot be read: {error}").vote)
        return Planned((f'"l":"{log_id}","x":"{xid}","w":{window_s}',), _ADMITTED)

    return ReservationService(
        schema="http",
        migrations=_FOLDER / "migrations",
        invariants=INVARIANTS,
        operations=(),
        plan=plan,
    )
