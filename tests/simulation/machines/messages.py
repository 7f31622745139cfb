"""What travels between the machines. Each is a value, so a set of them is a state of the network."""

from __future__ import annotations

from typing import NamedTuple

from participant_sdk.ids import Xid
from participant_sdk.xa import Ack, Decision, DecisionState, Vote


class Prepare(NamedTuple):
    """A coordinator asks for a vote. ``sender`` is its incarnation; ``request`` is empty without one."""

    participant: str
    xid: Xid
    sender: int
    request: str


class Commit(NamedTuple):
    """A coordinator tells COMMIT, with the decision's writer and sequence (R15)."""

    participant: str
    xid: Xid
    sender: int
    incarnation: int
    sequence: int


class Rollback(NamedTuple):
    """A coordinator tells ROLLBACK."""

    participant: str
    xid: Xid
    sender: int


class Answered(NamedTuple):
    """A coordinator answers a participant in doubt. ``sender`` 0: whoever sent it is of no account."""

    participant: str
    xid: Xid
    state: DecisionState
    incarnation: int
    sequence: int


class Voted(NamedTuple):
    """A participant votes, to the incarnation ``receiver``."""

    receiver: int
    participant: str
    xid: Xid
    vote: Vote


class Acknowledged(NamedTuple):
    """A participant acknowledges, to the incarnation ``receiver``; 0 where it had asked by itself."""

    receiver: int
    participant: str
    xid: Xid
    decision: Decision
    ack: Ack


ToParticipant = Prepare | Commit | Rollback | Answered
ToCoordinator = Voted | Acknowledged
Message = ToParticipant | ToCoordinator
