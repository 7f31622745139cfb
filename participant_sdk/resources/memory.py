"""A participant over accounts in memory, for tests and the simulation: it runs the branch table itself.

Its state lives in a ``MemoryStore``, which outlives it as a disk outlives a process. What is
written there is volatile until flushed, and every answer waits for the flush (R8, R9), a
duplicate's too: it may be a second call on work whose first flush is still under way. Work
begun under an xid and not prepared is in the process alone, and a crash loses it, as it
would an open SQL transaction (R13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from participant_sdk.branch import BranchCall, BranchPhase, Transition, call_of, step
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import (
    Answers,
    Branch,
    Commit,
    Operation,
    Participant,
    Prepare,
    RecoverQuery,
    Rollback,
    Work,
)
from participant_sdk.resources.admission import no_such_work, request_busy
from participant_sdk.resources.memory_balances import (
    claims_of,
    is_committed,
    request_key,
    violations,
    with_holds,
    without_holds,
)
from participant_sdk.resources.memory_ledger import OPERATION_NAMES, RefusedError, plan
from participant_sdk.resources.memory_store import BranchKey, Change, Effect, MemoryStore, Posting, StoredBranch
from participant_sdk.resources.stored_votes import TOMBSTONE_VOTE
from participant_sdk.xa import (
    PREPARED,
    READ_ONLY,
    STALE,
    UNKNOWN_XID,
    Ack,
    Decision,
    Heuristic,
    Vote,
    VoteKind,
)

_CALL_OF_VOTE: Final = {
    VoteKind.PREPARED: BranchCall.VOTE_PREPARED,
    VoteKind.READ_ONLY: BranchCall.VOTE_READ_ONLY,
    VoteKind.ROLLED_BACK: BranchCall.VOTE_ROLLED_BACK,
}

_FINISHED: Final = (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK)


@dataclass(slots=True)
class _ActiveWork:
    """Work begun under an xid and not prepared. Mutable: it grows with each operation."""

    branch_number: int
    deadline_s: float
    operations: tuple[Operation, ...] = ()


class MemoryResource(Participant):
    """Accounts with holds; see ``memory_ledger`` for the operations.

    Deterministic: the same calls in the same order over the same store give the same answers.
    """

    operations = OPERATION_NAMES

    def __init__(self, name: str, store: MemoryStore, clock: Clock) -> None:
        self.name = name
        self._store = store
        self._clock = clock
        self._active: dict[BranchKey, _ActiveWork] = {}

    async def apply(self, work: Work) -> Answers:
        """Do a whole batch with one flush."""
        commits = [self._commit(commit) for commit in work.commits]
        rollbacks = [self._rollback(BranchKey(rollback.log_id, rollback.xid)) for rollback in work.rollbacks]
        votes = [self._prepare(prepare) for prepare in work.prepares]
        await self._store.flush()
        return Answers(commits, rollbacks, votes)

    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        """Check, hold and vote."""
        return (await self.apply(Work(prepares=branches))).prepares

    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        """Post what was held."""
        return (await self.apply(Work(commits=branches))).commits

    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        """Release what was held, or leave a tombstone."""
        return (await self.apply(Work(rollbacks=branches))).rollbacks

    def begin(self, log_id: str, xid: Xid, branch_number: int, deadline_s: float) -> bool:
        """Begin work under the xid, after Enlist gave the branch its number; False where the branch has ended."""
        key = BranchKey(log_id, xid)
        if step(self._phase(key), BranchCall.ENLIST).phase is not BranchPhase.ACTIVE:
            return False
        self._active.setdefault(key, _ActiveWork(branch_number, deadline_s))
        return True

    def do(self, log_id: str, xid: Xid, operation: Operation) -> bool:
        """Do one operation under the xid; False where no work is active there."""
        work = self._active.get(BranchKey(log_id, xid))
        if work is None:
            return False
        work.operations += (operation,)
        return True

    async def expire(self) -> int:
        """Roll back active work whose deadline has passed; return how many (R13)."""
        now_s = self._clock.monotonic_s()
        expired = [key for key, work in self._active.items() if now_s >= work.deadline_s]
        for key in expired:
            self._end(key, step(self._phase(key), BranchCall.EXPIRE))
        await self._store.flush()
        return len(expired)

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List what a crash now would leave, by xid."""
        wanted = [
            stored.branch
            for key, stored in self._store.durable.branches.items()
            if key.log_id == query.log_id and _is_wanted(stored.branch, query)
        ]
        return sorted(wanted, key=lambda branch: branch.xid)[: query.limit]

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show what a crash now would leave of the branch, or the work that is active under it."""
        key = BranchKey(log_id, xid)
        stored = self._store.durable.branches.get(key)
        if stored is not None:
            return stored.branch
        return Branch(log_id, xid, BranchPhase.ACTIVE) if key in self._active else None

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        """Force a branch in doubt, and keep the reason."""
        key = BranchKey(log_id, xid)
        heuristic = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
        ack = self._end(key, self._step(key, call_of(outcome)), heuristic=heuristic, reason=reason)
        await self._store.flush()
        return ack

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """End a heuristic branch as what it was forced to."""
        key = BranchKey(log_id, xid)
        ack = self._end(key, self._step(key, BranchCall.FORGET))
        await self._store.flush()
        return ack

    async def log_ids(self) -> Sequence[str]:
        """Every log that it durably holds branches of."""
        return list(dict.fromkeys(key.log_id for key in self._store.durable.branches))

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence applied durably, per incarnation."""
        rows = self._store.durable.watermarks
        return {incarnation: sequence for (log, incarnation), sequence in rows.items() if log == log_id}

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Adopt a higher epoch; the flush is behind every change before it."""
        held = self._store.current.epochs.get(log_id, 0)
        if epoch > held:
            self._store.write(Change(epochs={log_id: epoch}))
        await self._store.flush()
        return max(epoch, held)

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        """Drop finished branches, lowest xids first; their effects stay."""
        floor, current = Xid.floor(below_unix_ms), self._store.current
        finished = [
            key
            for key, stored in current.branches.items()
            if key.log_id == log_id and key.xid < floor and stored.branch.phase in _FINISHED
        ]
        dropped = sorted(finished)[:limit]
        claims = {
            request: None
            for request, xid in current.requests.items()
            if xid is not None and BranchKey(request.log_id, xid) in dropped
        }
        if dropped:
            self._store.write(Change(requests=claims, pruned=tuple(dropped)))
        await self._store.flush()
        return len(dropped)

    def invariants(self) -> list[str]:
        """Every broken invariant, in what is visible and in what a crash would leave; see ``violations``."""
        store = self._store
        return [*violations(store.current, store.opening), *violations(store.durable, store.opening)]

    def _phase(self, key: BranchKey) -> BranchPhase:
        stored = self._store.current.branches.get(key)
        if stored is not None:
            return stored.branch.phase
        return BranchPhase.ACTIVE if key in self._active else BranchPhase.NONE

    def _step(self, key: BranchKey, call: BranchCall) -> Transition:
        stored = self._store.current.branches.get(key)
        return step(self._phase(key), call, stored.branch.heuristic if stored else None)

    def _prepare(self, prepare: Prepare) -> Vote:
        key = BranchKey(prepare.log_id, prepare.xid)
        stored = self._store.current.branches.get(key)
        if stored is not None:
            return stored.branch.vote or TOMBSTONE_VOTE
        vote, postings = self._check(key, prepare)
        branch = Branch(
            prepare.log_id,
            prepare.xid,
            self._step(key, _CALL_OF_VOTE[vote.kind]).phase,
            vote,
            participants=prepare.participants,
            tenant=prepare.tenant,
            request_id=prepare.request_id,
            request_digest=prepare.request_digest,
            prepared_unix_ms=self._clock.unix_ms(),
        )
        self._active.pop(key, None)
        current = self._store.current
        self._store.write(
            Change(
                {key: StoredBranch(branch, postings)},
                with_holds(current.accounts, postings),
                claims_of(current.requests, branch),
            )
        )
        return vote

    def _check(self, key: BranchKey, prepare: Prepare) -> tuple[Vote, tuple[Posting, ...]]:
        active = self._active.get(key)
        refused: Vote | None = None
        if prepare.ends_work or active is not None:
            number, count = (active.branch_number, len(active.operations)) if active else (0, 0)
            refused = no_such_work(prepare, found_number=number, found_count=count)
        if refused is None and self._is_claimed(prepare):
            refused = request_busy(prepare)
        if refused is not None:
            return refused, ()
        try:
            intent = plan(active.operations if active else prepare.operations, self._store.current.accounts)
        except RefusedError as error:
            return error.vote, ()
        kind = PREPARED if intent.postings else READ_ONLY
        return kind._replace(results=intent.results), intent.postings

    def _is_claimed(self, prepare: Prepare) -> bool:
        request = request_key(prepare)
        return request is not None and self._store.current.requests.get(request) is not None

    def _commit(self, commit: Commit) -> Ack:
        if commit.epoch < self._store.current.epochs.get(commit.log_id, 0):
            return STALE
        key = BranchKey(commit.log_id, commit.xid)
        self._count_late(key, commit)
        return self._end(key, self._step(key, BranchCall.COMMIT), commit=commit)

    def _count_late(self, key: BranchKey, commit: Commit) -> None:
        """Keep the sequence of a Commit that comes after the branch was forced and forgotten (R15)."""
        stored = self._store.current.branches.get(key)
        if stored is not None and stored.branch.phase is BranchPhase.COMMITTED and not stored.branch.sequence:
            branch = replace(stored.branch, incarnation=commit.incarnation, sequence=commit.sequence)
            self._store.write(Change({key: stored._replace(branch=branch)}, watermarks=self._mark(commit)))

    def _mark(self, commit: Commit) -> dict[tuple[str, int], int]:
        mark = (commit.log_id, commit.incarnation)
        return {mark: max(commit.sequence, self._store.current.watermarks.get(mark, 0))}

    def _rollback(self, key: BranchKey) -> Ack:
        return self._end(key, self._step(key, BranchCall.ROLLBACK))

    def _end(
        self,
        key: BranchKey,
        transition: Transition,
        *,
        commit: Commit | None = None,
        heuristic: Heuristic | None = None,
        reason: str = "",
    ) -> Ack:
        """Take the branch where the transition leads: row, balances, watermark and effect in one change (R9)."""
        before = self._phase(key)
        if transition.phase is not before:
            self._active.pop(key, None)
            stored = self._store.current.branches.get(key)
            if stored is None:
                stored = StoredBranch(Branch(key.log_id, key.xid, before, TOMBSTONE_VOTE))
            branch = replace(stored.branch, phase=transition.phase)
            if transition.phase is BranchPhase.HEURISTIC:
                branch = replace(branch, heuristic=heuristic, reason=reason)
            if commit is not None:
                branch = replace(branch, incarnation=commit.incarnation, sequence=commit.sequence)
            self._store.write(self._change(key, before, stored._replace(branch=branch), commit))
        return transition.ack or UNKNOWN_XID

    def _change(self, key: BranchKey, before: BranchPhase, after: StoredBranch, commit: Commit | None) -> Change:
        current = self._store.current
        rows = {key: after}
        claims = claims_of(current.requests, after.branch)
        if before is not BranchPhase.PREPARED:
            return Change(rows, requests=claims)
        posted = is_committed(after.branch)
        watermarks = {} if commit is None else self._mark(commit)
        return Change(
            rows,
            without_holds(current.accounts, after.postings, posted=posted),
            claims,
            watermarks,
            effect=Effect(key, after.postings) if posted else None,
        )


def _is_wanted(branch: Branch, query: RecoverQuery) -> bool:
    if query.after is not None and branch.xid <= query.after:
        return False
    match branch.phase:
        case BranchPhase.PREPARED | BranchPhase.HEURISTIC:
            return True
        case BranchPhase.COMMITTED:
            return query.finished and branch.sequence > query.above.get(branch.incarnation, 0)
        case _:
            return False
