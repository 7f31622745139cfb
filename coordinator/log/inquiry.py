"""What the log's rows say of a transaction's outcome (R7, R15): a pure judgement of one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.log.decision_log import Incarnation, IncarnationState, Snapshot
from coordinator.protocol.effects import StoredDecision
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState


@dataclass(frozen=True, slots=True)
class Answer:
    """What the log says of one xid.

    ``stored`` is the row, where there is one. ``owner`` is what the log knows of the incarnation
    that gave the xid out; PENDING points to it when it is live. PENDING about an xid of the asking
    incarnation's own means that there is no row, and that one may be inserted (``held`` aside).
    ``held``: the log is in HOLD, so nothing was presumed. ``unreported`` kept ROLLBACK from being
    presumed: participants that have not reported since the log was connected to last (R15).
    """

    state: DecisionState
    stored: StoredDecision | None = None
    owner: IncarnationState | None = None
    held: bool = False
    unreported: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """COMMIT or ROLLBACK: it ends a doubt, so it must be durable before it is told."""
        return self.state in (DecisionState.COMMIT, DecisionState.ROLLBACK)


def judge(xid: Xid, snapshot: Snapshot, own: Incarnation, unreported: Sequence[str] = ()) -> Answer:
    """Judge one xid by a snapshot read on the primary, in which it was asked for.

    ``unreported`` are participants of the transaction that have not reported under the generation in
    which the snapshot was read.
    """
    stored = snapshot.decisions.get(xid)
    owner = snapshot.incarnations.get(xid.incarnation)
    if stored is not None:
        state = DecisionState.COMMIT if stored.record.decision is Decision.COMMIT else DecisionState.ROLLBACK
        return Answer(state, stored, owner, snapshot.held)
    state = _without_row(xid, owner, snapshot, own)
    if state is DecisionState.ROLLBACK and unreported:
        return Answer(DecisionState.PENDING, None, owner, snapshot.held, tuple(unreported))
    return Answer(state, None, owner, snapshot.held)


def _without_row(xid: Xid, owner: IncarnationState | None, snapshot: Snapshot, own: Incarnation) -> DecisionState:
    forgettable = xid.unix_ms < snapshot.pruned_below_unix_ms
    if xid.incarnation == own.number:
        return DecisionState.FORGOTTEN if forgettable else DecisionState.PENDING
    ended = xid.incarnation < own.number if owner is None else owner.fenced
    if not ended:
        return DecisionState.PENDING
    if forgettable:
        return DecisionState.FORGOTTEN
    return DecisionState.PENDING if snapshot.held else DecisionState.ROLLBACK
