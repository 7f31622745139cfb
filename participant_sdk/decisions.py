"""A participant in doubt asks; a coordinator answers: the two values of GetDecision."""

from __future__ import annotations

from dataclasses import dataclass

from participant_sdk.ids import Xid
from participant_sdk.xa import DecisionState


@dataclass(frozen=True, slots=True)
class DecisionQuery:
    """What became of this transaction? ``epoch`` is the highest that the asker has adopted.

    A coordinator of another log than ``log_id`` must refuse: to it the xid is unknown, which
    there would mean ROLLBACK (R18).
    """

    log_id: str
    xid: Xid
    participant: str
    participants: tuple[str, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class DecisionAnswer:
    """The answer to a participant in doubt. ``owner_address`` is set for PENDING, where it is known."""

    state: DecisionState
    incarnation: int = 0
    sequence: int = 0
    owner_address: str = ""
    epoch: int = 0
