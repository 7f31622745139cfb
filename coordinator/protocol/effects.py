"""What a step asks of the world around it: records to append, messages to send, replies to give.

The rule that keeps promises visible: what must wait until a record is durable is never in
the step that carries the record, but in the step that the log's answer (``Recorded``) causes.
So whoever performs a step needs no order among its parts.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from typing import Final, NamedTuple

from coordinator.protocol.outcome import BranchOutcome, Outcome, decode_votes
from coordinator.protocol.phases import Phase
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import PREPARED, Decision, Heuristic

SENDS_KEPT_MAX: Final = 1024


class Verb(Enum):
    """What is told to a participant."""

    PREPARE = auto()
    COMMIT = auto()
    ROLLBACK = auto()

    # A member is one object, so this is as good as the enum's own, which is written in Python.
    __hash__ = object.__hash__


class Send(NamedTuple):
    """One message to one participant."""

    verb: Verb
    participant: str


@lru_cache(maxsize=SENDS_KEPT_MAX)
def sends(verb: Verb, participants: tuple[str, ...]) -> tuple[Send, ...]:
    """The same message to each of them, made once: the same few participants come all the time."""
    return tuple([Send(verb, participant) for participant in participants])


class DecisionRecord(NamedTuple):
    """A row for the decision log. ``results`` is what ``encode_votes`` wrote."""

    xid: Xid
    decision: Decision
    prepared: tuple[str, ...] = ()
    request: RequestId | None = None
    digest: bytes = b""
    reason: str = ""
    results: str = ""


class StoredDecision(NamedTuple):
    """A row of the decision log: the record, its writer, and its sequence there."""

    record: DecisionRecord
    incarnation: int
    sequence: int
    decided_unix_ms: int


class HeuristicRecord(NamedTuple):
    """A heuristic end of a branch, to be kept until forgotten."""

    xid: Xid
    participant: str
    heuristic: Heuristic
    message: str


class Refusal(Enum):
    """Why an event was refused, or, for REQUEST_REUSED, why the client gets an error for an answer."""

    NOT_ACTIVE = "the transaction is not active any more"
    ROLLBACK_ONLY = "the transaction is marked rollback-only"
    MIXED_WORK = "the branch already has work of the other kind (carried or embedded)"
    REQUEST_REUSED = "the request_id is bound to other operations"


class Step(NamedTuple):
    """What one event caused. Half of all events, as every vote but the last, cause ``NOTHING``.

    ``wake_at_s`` replaces the time asked for before; None lets that stand. ``attention``: the outcome was told as
    often as is usual, and an operator is to look why that is not enough.
    """

    messages: tuple[Send, ...] = ()
    record: DecisionRecord | None = None
    lookup: bool = False
    heuristics: tuple[HeuristicRecord, ...] = ()
    reply: Outcome | None = None
    refusal: Refusal | None = None
    wake_at_s: float | None = None
    finished: bool = False
    attention: bool = False


NOTHING: Final = Step()


def replayed(stored: StoredDecision) -> Outcome:
    """The answer that a bound request_id gets, from the log's row.

    Branches that voted PREPARED are not called done: the row does not say who has acknowledged.
    """
    record = stored.record
    branches = decode_votes(record.results) or tuple(
        BranchOutcome(name, PREPARED, done=False) for name in record.prepared
    )
    no = next((b for b in branches if b.vote is not None and not b.vote.is_yes), None)
    committed = record.decision is Decision.COMMIT
    return Outcome(
        record.xid,
        record.decision,
        Phase.COMMITTED if committed else Phase.ROLLED_BACK,
        record.reason,
        f"{no.participant}: {no.vote.message}" if no is not None and no.vote is not None else "",
        branches=branches,
        replayed=True,
    )
