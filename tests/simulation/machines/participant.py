"""A participant as a machine: the branch table, rows that are durable or not yet, and answers that wait for the flush.

The transitions are the product's (``participant_sdk.branch``). Batches, flushes and the claim on a
request are modelled: what a call changes is volatile until ``flush``, which lets the answers out (R8,
R9); a crash loses what was not flushed, but for a prefix that the disk happened to have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from participant_sdk.branch import BranchCall, BranchPhase, call_of, step
from participant_sdk.ids import Xid
from participant_sdk.resources.stored_votes import TOMBSTONE_VOTE
from participant_sdk.xa import Ack, Decision, DecisionState, Heuristic, Vote, VoteKind, transient_no
from tests.simulation.machines.messages import (
    Acknowledged,
    Answered,
    Commit,
    Prepare,
    Rollback,
    ToCoordinator,
    ToParticipant,
    Voted,
)

BUSY: Final = transient_no("REQUEST_IN_PROGRESS", "another branch of the request is held here")
_CALL_OF_VOTE: Final = {
    VoteKind.PREPARED: BranchCall.VOTE_PREPARED,
    VoteKind.READ_ONLY: BranchCall.VOTE_READ_ONLY,
    VoteKind.ROLLED_BACK: BranchCall.VOTE_ROLLED_BACK,
}


class Row(NamedTuple):
    """A branch at rest. ``applied`` counts how often its effect happened; it shares the row's fate (R9)."""

    phase: BranchPhase
    vote: Vote | None = None
    request: str = ""
    heuristic: Heuristic | None = None
    applied: int = 0


NONE: Final = Row(BranchPhase.NONE)


class _Pending(NamedTuple):
    """One local transaction that is not flushed, and what may be said once it is."""

    xid: Xid
    row: Row
    answer: ToCoordinator | None


class ParticipantMachine:
    """One participant. ``durable`` is what a crash leaves, ``current`` what the process sees."""

    __slots__ = ("current", "durable", "name", "pending", "unforgotten")

    def __init__(self, name: str) -> None:
        self.name = name
        self.durable: dict[Xid, Row] = {}
        self.current: dict[Xid, Row] = {}
        self.pending: list[_Pending] = []
        # Heuristic ends that an operator has not forgotten.
        self.unforgotten: dict[Xid, Heuristic] = {}

    def copy(self) -> ParticipantMachine:
        """An equal machine that moves by itself."""
        other = ParticipantMachine(self.name)
        other.durable = dict(self.durable)
        other.current = dict(self.current)
        other.pending = list(self.pending)
        other.unforgotten = dict(self.unforgotten)
        return other

    def key(self) -> object:
        """All that decides what can happen next."""
        return tuple(self.durable.items()), tuple(self.current.items()), tuple(self.pending)

    def take(self, message: ToParticipant, vote: Vote) -> None:
        """Take one message; ``vote`` is what the business would say if this is the Prepare that runs the work."""
        match message:
            case Prepare():
                self._prepare(message, vote)
            case Commit():
                self._end(message.xid, BranchCall.COMMIT, Decision.COMMIT, message.sender)
            case Rollback():
                self._end(message.xid, BranchCall.ROLLBACK, Decision.ROLLBACK, message.sender)
            case Answered():
                # Only COMMIT and ROLLBACK end a doubt (R7).
                if message.state is DecisionState.COMMIT:
                    self._end(message.xid, BranchCall.COMMIT, Decision.COMMIT, 0)
                elif message.state is DecisionState.ROLLBACK:
                    self._end(message.xid, BranchCall.ROLLBACK, Decision.ROLLBACK, 0)

    def resolve(self, xid: Xid, outcome: Decision) -> Ack | None:
        """Let an operator force a branch in doubt (R12)."""
        row = self.current.get(xid, NONE)
        transition = step(row.phase, call_of(outcome), row.heuristic)
        if transition.phase is BranchPhase.HEURISTIC and row.phase is BranchPhase.PREPARED:
            heuristic = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
            applied = row.applied + (outcome is Decision.COMMIT)
            self._write(xid, row._replace(phase=transition.phase, heuristic=heuristic, applied=applied), None)
            self.unforgotten[xid] = heuristic
        return transition.ack

    def flush(self) -> list[ToCoordinator]:
        """Make everything durable, and let out what waited for it."""
        answers: list[ToCoordinator] = []
        for pending in self.pending:
            if pending.row is not NONE:
                self.durable[pending.xid] = pending.row
            if pending.answer is not None:
                answers.append(pending.answer)
        self.pending.clear()
        return answers

    def crash(self, survivors: int) -> None:
        """Lose what is volatile, but for the oldest ``survivors`` local transactions; no answer leaves."""
        for pending in self.pending[:survivors]:
            if pending.row is not NONE:
                self.durable[pending.xid] = pending.row
        self.pending.clear()
        self.current = dict(self.durable)

    def in_doubt(self) -> Iterator[Xid]:
        """The branches that are durably prepared, and so ask."""
        return (xid for xid, row in self.durable.items() if row.phase is BranchPhase.PREPARED)

    def _prepare(self, message: Prepare, vote: Vote) -> None:
        row = self.current.get(message.xid)
        if row is None:
            if message.request and self._claims(message.request):
                vote = BUSY
            row = Row(step(BranchPhase.NONE, _CALL_OF_VOTE[vote.kind]).phase, vote, message.request)
        # A duplicate's answer waits for the flush too (R8).
        answer = Voted(message.sender, self.name, message.xid, row.vote or TOMBSTONE_VOTE)
        self._write(message.xid, row, answer)

    def _claims(self, request: str) -> bool:
        """Whether a branch of this request lives here or was committed (R3)."""
        return any(
            row.request == request
            and (row.phase in (BranchPhase.PREPARED, BranchPhase.COMMITTED) or row.heuristic is Heuristic.COMMIT)
            for row in self.current.values()
        )

    def _end(self, xid: Xid, call: BranchCall, decision: Decision, receiver: int) -> None:
        row = self.current.get(xid, NONE)
        transition = step(row.phase, call, row.heuristic)
        if transition.phase is not row.phase:
            applied = row.applied + (transition.phase is BranchPhase.COMMITTED)
            row = row._replace(phase=transition.phase, applied=applied)
        answer = None
        if receiver and transition.ack is not None:
            answer = Acknowledged(receiver, self.name, xid, decision, transition.ack)
        if row is not NONE or answer is not None:
            self._write(xid, row, answer)

    def _write(self, xid: Xid, row: Row, answer: ToCoordinator | None) -> None:
        if row is not NONE:
            self.current[xid] = row
        self.pending.append(_Pending(xid, row, answer))
