"""What participants' branches put back into a log that lost its tail: a pure judgement (R15).

A branch that is COMMITTED above the log's sequences proves that COMMIT was in the log, and stores
what the row said; so does one that heard COMMIT and did not come to follow it. Where branches contradict
each other, or the log, nothing is guessed: the release is refused, and says which transaction and why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.errors import RefusedError
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from coordinator.protocol.outcome import BranchOutcome, encode_votes
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Branch
from participant_sdk.xa import Decision, VoteKind

Held = Mapping[str, Branch]


@dataclass(frozen=True, slots=True)
class Polled:
    """One participant's whole answer: the highest sequences it applied, and its branches of this log."""

    participant: str
    watermarks: Mapping[int, int]
    branches: Sequence[Branch]


@dataclass(frozen=True, slots=True)
class Lost:
    """A transaction that committed and is not in the log. ``held`` are its branches, by participant.

    ``others`` are the participants that hold none of it in doubt or committed: they voted READ_ONLY,
    or ended it against the decision.
    """

    xid: Xid
    incarnation: int
    sequence: int
    participants: tuple[str, ...]
    held: Held

    @property
    def others(self) -> tuple[str, ...]:
        """Whose branch of it was not among those polled."""
        return tuple(name for name in self.participants if name not in self.held)

    def row(self, others: Held, now_unix_ms: int) -> StoredDecision:
        """The row that the log had, as far as the branches remember it; ``others`` as those answered now.

        Whoever voted PREPARED is told COMMIT, so that one that rolled back says so (a heuristic).
        """
        branches = {**self.held, **others}
        known = next(iter(self.held.values()))
        prepared = [name for name, branch in branches.items() if name in self.held or _voted_prepared(branch)]
        votes = [
            BranchOutcome(name, branches[name].vote if name in branches else None, done=False)
            for name in self.participants
        ]
        record = DecisionRecord(
            self.xid,
            Decision.COMMIT,
            tuple(name for name in self.participants if name in prepared),
            RequestId(known.tenant, known.request_id) if known.request_id else None,
            known.request_digest,
            results=encode_votes(tuple(votes)),
        )
        return StoredDecision(record, self.incarnation, self.sequence, now_unix_ms)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the poll comes to: commits that the log lost, by xid, and how many branches in doubt have no decision."""

    lost: tuple[Lost, ...] = ()
    undecided: int = 0
    sequences: Mapping[int, int] = field(default_factory=dict[int, int])


def raised(polled: Iterable[Polled], sequences: Mapping[int, int]) -> dict[int, int]:
    """Where the log's sequences must rise to, by incarnation: the highest that any participant applied."""
    highest: dict[int, int] = {}
    for each in polled:
        for number, sequence in each.watermarks.items():
            if sequence > max(sequences.get(number, 0), highest.get(number, 0)):
                highest[number] = sequence
    return dict(sorted(highest.items()))


def find(
    polled: Sequence[Polled],
    sequences: Mapping[int, int],
    known: Mapping[Xid, StoredDecision],
    pruned_below_unix_ms: int = 0,
) -> Findings:
    """Compare all that participants hold with the log's ``sequences`` and rows (``known``).

    RefusedError where that is not one clear answer: BRANCHES_DISAGREE, BINDING_CONFLICT,
    PARTICIPANTS_MISSING (a branch names one that was not polled).
    """
    lost: list[Lost] = []
    undecided = 0
    configured = [each.participant for each in polled]
    for xid, held in _by_xid(polled).items():
        committed = {name: branch for name, branch in held.items() if _heard_commit(branch)}
        row = known.get(xid)
        if row is not None:
            _check_row(row, committed)
            continue
        participants = _participants(xid, held)
        _check_polled(xid, participants, configured)
        if committed:
            lost.append(_lost(xid, committed, held, participants))
        elif xid.unix_ms >= pruned_below_unix_ms:
            undecided += sum(branch.phase is BranchPhase.PREPARED for branch in held.values())
    _check_apart(lost)
    rising = raised(polled, sequences)
    for each in lost:
        rising[each.incarnation] = max(rising.get(each.incarnation, 0), each.sequence)
    return Findings(tuple(lost), undecided, dict(sorted(rising.items())))


def _by_xid(polled: Iterable[Polled]) -> dict[Xid, dict[str, Branch]]:
    held: dict[Xid, dict[str, Branch]] = {}
    for each in polled:
        for branch in each.branches:
            held.setdefault(branch.xid, {})[each.participant] = branch
    return dict(sorted(held.items()))


def _check_row(row: StoredDecision, committed: Held) -> None:
    record = row.record
    for name, branch in committed.items():
        if record.decision is not Decision.COMMIT:
            raise _disagree(record.xid, f"{name} committed it, and the log says ROLLBACK")
        if (branch.incarnation, branch.sequence) != (row.incarnation, row.sequence):
            raise _disagree(record.xid, f"{name} names {_place(branch)}, and the log {_place(row)}")


def _participants(xid: Xid, held: Held) -> tuple[str, ...]:
    """All participants, in the transaction's order; those that hold a branch, where none stored the names."""
    named = {branch.participants for branch in held.values() if branch.participants}
    if len({frozenset(names) for names in named}) > 1:
        raise _disagree(xid, f"they name different participants: {'; '.join(', '.join(n) for n in sorted(named))}")
    first = min(named, default=())
    return (*first, *sorted(name for name in held if name not in first))


def _check_polled(xid: Xid, participants: Iterable[str], configured: Collection[str]) -> None:
    strangers = [name for name in participants if name not in configured]
    if strangers:
        raise RefusedError(
            f"transaction {xid} concerns {', '.join(strangers)}, which is not configured here and may hold a commit"
            " that the log lost: configure it, and release then",
            code="PARTICIPANTS_MISSING",
            xid=xid,
        )


def _lost(xid: Xid, committed: Held, held: Held, participants: tuple[str, ...]) -> Lost:
    places = {(branch.incarnation, branch.sequence) for branch in committed.values()}
    if len(places) > 1:
        told = "; ".join(f"{name} names {_place(branch)}" for name, branch in committed.items())
        raise _disagree(xid, f"one decision has one place in the log, and {told}")
    ((incarnation, sequence),) = places
    if incarnation != xid.incarnation or sequence < 1:
        raise _disagree(
            xid,
            f"incarnation {xid.incarnation} gave it out, and sequence {sequence} of {incarnation}"
            " is told to have committed it",
        )
    bindings = {(branch.tenant, branch.request_id, branch.request_digest) for branch in held.values()}
    if len(bindings) > 1:
        raise RefusedError(
            f"transaction {xid}: its branches store different requests, and only one can be bound again",
            code="BINDING_CONFLICT",
            xid=xid,
        )
    return Lost(xid, incarnation, sequence, participants, held)


def _check_apart(lost: Sequence[Lost]) -> None:
    places: dict[tuple[int, int], Xid] = {}
    requests: dict[tuple[str, str], Xid] = {}
    for each in lost:
        other = places.setdefault((each.incarnation, each.sequence), each.xid)
        if other != each.xid:
            raise _disagree(each.xid, f"transaction {other} has the same sequence {each.sequence}")
        branch = next(iter(each.held.values()))
        other = requests.setdefault((branch.tenant, branch.request_id), each.xid) if branch.request_id else each.xid
        if other != each.xid:
            raise binding_conflict(each.xid, branch.request_id, other)


def binding_conflict(xid: Xid, request_id: str, other: Xid) -> RefusedError:
    """The refusal of a commit whose request is another transaction's."""
    return RefusedError(
        f"transaction {xid} committed for request {request_id!r}, which is bound to transaction {other}:"
        " one request has one outcome, so look at both before anything is restored",
        code="BINDING_CONFLICT",
        xid=xid,
    )


def _heard_commit(branch: Branch) -> bool:
    """COMMIT was told to it. One in doubt stores that before it follows; one forced meanwhile keeps it."""
    return branch.phase is BranchPhase.COMMITTED or branch.sequence > 0


def _voted_prepared(branch: Branch) -> bool:
    return branch.vote is not None and branch.vote.kind is VoteKind.PREPARED


def _place(what: Branch | StoredDecision) -> str:
    return f"sequence {what.sequence} of incarnation {what.incarnation}"


def _disagree(xid: Xid, why: str) -> RefusedError:
    return RefusedError(
        f"transaction {xid}: {why}; nothing was restored: look at its branches first",
        code="BRANCHES_DISAGREE",
        xid=xid,
    )
