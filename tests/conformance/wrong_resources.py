"""Variants of the bank in memory, each wrong in one way: what it keeps, promises, and does to a branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import Answers, Branch, Commit, Prepare, RecoverQuery, Work
from participant_sdk.resources.memory_balances import without_holds
from participant_sdk.resources.memory_store import BranchKey, Change, MemoryStore
from participant_sdk.resources.stored_votes import TOMBSTONE_VOTE
from participant_sdk.xa import DONE, READ_ONLY, Ack, AckKind, Decision, Heuristic, Vote, VoteKind, transient_no
from tests.conformance.hosts import BANK, Bank

ONE_LOG = "0000000000000001"
OLD_MS = 60_000


class _Forgetful(Bank):
    """Born again, it does not find all that it had: what of it was in memory alone is for subclasses to say."""

    def __init__(self, name: str, store: MemoryStore, clock: Clock) -> None:
        super().__init__(name, store, clock)
        self.lose(store)
        store.crash()

    def lose(self, store: MemoryStore) -> None:
        """Take from the store what never was on disk."""


class ForgetsVotes(_Forgetful):
    """Keeps what is prepared in memory alone."""

    def lose(self, store: MemoryStore) -> None:
        disk = store.durable
        for key, (branch, postings) in [*disk.branches.items()]:
            if branch.phase is BranchPhase.PREPARED:
                del disk.branches[key]
                disk.accounts.update(without_holds(disk.accounts, postings, posted=False))


class ForgetsNoes(_Forgetful):
    """Keeps a "no" in memory alone."""

    def lose(self, store: MemoryStore) -> None:
        for key, (branch, _) in [*store.durable.branches.items()]:
            if branch.phase is BranchPhase.ROLLED_BACK and branch.vote and branch.vote.is_business_no:
                del store.durable.branches[key]


class ForgetsTombstones(_Forgetful):
    """Keeps tombstones in memory alone."""

    def lose(self, store: MemoryStore) -> None:
        for key, (branch, _) in [*store.durable.branches.items()]:
            if branch.vote == TOMBSTONE_VOTE:
                del store.durable.branches[key]


class AcknowledgesBeforeTheEffect(_Forgetful):
    """Acknowledges a Commit that is not on disk yet: a kill finds the branch as it was before."""

    def lose(self, store: MemoryStore) -> None:
        disk = store.durable
        for key, _ in disk.effects[-3:]:
            stored = disk.branches[key]
            disk.branches[key] = stored._replace(branch=replace(stored.branch, phase=BranchPhase.PREPARED))
            for account, amount in stored.postings:
                disk.accounts[account] = disk.accounts[account]._replace(
                    balance=disk.accounts[account].balance - amount
                )


class ForgetsEpochs(_Forgetful):
    """Keeps the epoch in memory alone."""

    def lose(self, store: MemoryStore) -> None:
        store.durable.epochs.clear()


class ForgetsWatermarks(_Forgetful):
    """Keeps watermarks in memory alone."""

    def lose(self, store: MemoryStore) -> None:
        store.durable.watermarks.clear()


class ForgetsHands(_Forgetful):
    """Keeps what was forced, and not why, nor that it was by hand."""

    def lose(self, store: MemoryStore) -> None:
        for key, stored in [*store.durable.branches.items()]:
            if stored.branch.phase is BranchPhase.HEURISTIC:
                branch = replace(stored.branch, phase=BranchPhase.ROLLED_BACK, heuristic=None, reason="")
                store.durable.branches[key] = stored._replace(branch=branch)


class TakesUnknownCommits(Bank):
    """Acknowledges a Commit of what it never heard of."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        acks = [DONE if ack.kind is AckKind.HEURISTIC_HAZARD else ack for ack in answers.commits]
        return replace(answers, commits=acks)


class LeavesNoTombstone(Bank):
    """Says DONE to a Rollback of an unknown branch, and forgets it."""

    async def apply(self, work: Work) -> Answers:
        known = [it for it in work.rollbacks if await self.branch(it.log_id, it.xid) is not None]
        answers = await super().apply(replace(work, rollbacks=known))
        acks = dict(zip(known, answers.rollbacks, strict=True))
        return replace(answers, rollbacks=[acks.get(it, DONE) for it in work.rollbacks])


class PostsTwice(Bank):
    """Takes effect again at a second Commit."""

    async def apply(self, work: Work) -> Answers:
        for commit in work.commits:
            stored = self._store.current.branches.get(BranchKey(commit.log_id, commit.xid))
            if stored is not None and stored.branch.phase is BranchPhase.COMMITTED:
                self._store.write(
                    Change(accounts=without_holds(self._store.current.accounts, stored.postings, posted=True))
                )
        return await super().apply(work)


class LosesCommits(Bank):
    """Acknowledges a Commit, and marks it, and posts nothing."""

    def _change(self, key: BranchKey, before: BranchPhase, after: object, commit: Commit | None) -> Change:
        change = super()._change(key, before, after, commit)  # pyright: ignore[reportArgumentType]
        return replace(change, accounts={}, effect=None) if commit is not None else change


class RunsAgain(Bank):
    """Runs a second Prepare as if it were the first, and votes on that."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes: list[Vote] = []
        for prepare, vote in zip(work.prepares, answers.prepares, strict=True):
            is_no = prepare.operations == (BANK.no,)
            votes.append(transient_no("RAN_AGAIN", "it ran again") if is_no and vote.is_yes else vote)
        return replace(answers, prepares=votes)


class FailsTheBatch(Bank):
    """Lets one bad branch fail all that travel with it."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        if len(work.prepares) < 2 or all(vote.is_yes for vote in answers.prepares):
            return answers
        votes = [vote if not vote.is_yes else transient_no("BATCH_FAILED", "one was bad") for vote in answers.prepares]
        return replace(answers, prepares=votes)


class IgnoresTheCount(Bank):
    """Ends whatever work is there, however much of it Prepare names."""

    async def apply(self, work: Work) -> Answers:
        return await super().apply(replace(work, prepares=[self._as_found(prepare) for prepare in work.prepares]))

    def _as_found(self, prepare: Prepare) -> Prepare:
        active = self._active.get(BranchKey(prepare.log_id, prepare.xid))
        if active is None:
            return prepare
        return prepare._replace(branch_number=active.branch_number, operation_count=len(active.operations))


class PreparesNothing(Bank):
    """Votes READ_ONLY on work that it never saw."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes = [
            READ_ONLY if prepare.ends_work and not vote.is_yes else vote
            for prepare, vote in zip(work.prepares, answers.prepares, strict=True)
        ]
        return replace(answers, prepares=votes)


class KeepsWorkForEver(Bank):
    """Lets work that nobody prepares stay for ever."""

    async def expire(self) -> int:
        return 0


class LetsTwinsIn(Bank):
    """Prepares two live branches of one request."""

    def _is_claimed(self, prepare: Prepare) -> bool:
        return False


class CountsFromTheBeginning(Bank):
    """Counts a transaction's time from its beginning, on its own wall clock."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        now_ms = self._clock.unix_ms()
        votes = [
            transient_no("DEADLINE_PASSED", "its time is over") if now_ms - prepare.xid.unix_ms > OLD_MS else vote
            for prepare, vote in zip(work.prepares, answers.prepares, strict=True)
        ]
        return replace(answers, prepares=votes)


class MixesLogs(Bank):
    """Names branches by the xid alone."""

    async def apply(self, work: Work) -> Answers:
        return await super().apply(
            Work(
                [each._replace(log_id=ONE_LOG) for each in work.commits],
                [each._replace(log_id=ONE_LOG) for each in work.rollbacks],
                [each._replace(log_id=ONE_LOG) for each in work.prepares],
            )
        )

    def begin(self, log_id: str, xid: Xid, branch_number: int, deadline_s: float) -> bool:
        return super().begin(ONE_LOG, xid, branch_number, deadline_s)

    def do(self, log_id: str, xid: Xid, operation: object) -> bool:
        return super().do(ONE_LOG, xid, operation)  # pyright: ignore[reportArgumentType]

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        return await super().branch(ONE_LOG, xid)

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        found = await super().recover(replace(query, log_id=ONE_LOG))
        return [replace(branch, log_id=query.log_id) for branch in found]

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        return await super().resolve(ONE_LOG, xid, outcome, reason)

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        return await super().forget(ONE_LOG, xid)

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        return await super().prune(ONE_LOG, below_unix_ms, limit)

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        return await super().watermarks(ONE_LOG)

    async def log_ids(self) -> Sequence[str]:
        return ()


class ReportsTheLastSequence(Bank):
    """Reports the sequence that it applied last, not the highest."""

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        last: dict[int, int] = {}
        for key, _ in self._store.durable.effects:
            branch = self._store.durable.branches[key].branch
            if key.log_id == log_id and branch.sequence:
                last[branch.incarnation] = branch.sequence
        return last


class ReportsWhatItIsTold(Bank):
    """Raises its watermark by every Commit, one that it did not apply too."""

    async def apply(self, work: Work) -> Answers:
        for commit in work.commits:
            mark = (commit.log_id, commit.incarnation)
            held = self._store.current.watermarks.get(mark, 0)
            self._store.write(Change(watermarks={mark: max(held, commit.sequence)}))
        return await super().apply(work)


class ForgetsTheHandItself(Bank):
    """Forgets a heuristic as soon as a coordinator has heard of it."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        for call in (*work.commits, *work.rollbacks):
            branch = await self.branch(call.log_id, call.xid)
            if branch is not None and branch.phase is BranchPhase.HEURISTIC:
                await self.forget(call.log_id, call.xid)
        return answers


class ForcesWhatHasEnded(Bank):
    """Lets an operator force what is committed or rolled back already."""

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        key = BranchKey(log_id, xid)
        stored = self._store.current.branches.get(key)
        if stored is None or stored.branch.phase not in (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK):
            return await super().resolve(log_id, xid, outcome, reason)
        heuristic = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
        branch = replace(stored.branch, phase=BranchPhase.HEURISTIC, heuristic=heuristic, reason=reason)
        self._store.write(Change({key: stored._replace(branch=branch)}))
        await self._store.flush()
        return Ack(AckKind.HEURISTIC_COMMIT if outcome is Decision.COMMIT else AckKind.HEURISTIC_ROLLBACK, 7)


class DropsTheReason(Bank):
    """Keeps that a branch was forced, and not why."""

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        return await super().resolve(log_id, xid, outcome, "")


class DropsAboveTheHorizon(Bank):
    """Drops all that is finished, once there is a horizon."""

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        return await super().prune(log_id, self._clock.unix_ms() + 1, limit)


class SaysNoWithoutAReason(Bank):
    """Says no without a reason, and calls it transient."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes = [
            vote._replace(reason="", transient=True)
            if vote.kind is VoteKind.ROLLED_BACK and vote.reason == "INSUFFICIENT_FUNDS"
            else vote
            for vote in answers.prepares
        ]
        return replace(answers, prepares=votes)
