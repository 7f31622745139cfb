"""The memory resource: what survives a crash, what a vote waits for, and what its accounts must always be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Commit, Operation, Prepare, RecoverQuery, Rollback, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_balances import violations
from participant_sdk.resources.memory_store import BranchKey, Change, Effect, MemoryStore, open_gate
from participant_sdk.xa import Ack, AckKind, Decision, Vote, VoteKind, XaCode

LOG = "0123456789abcdef"
NOW_MS = 1_800_000_000_000
XIDS = XidSource(7)


class StillClock:
    """A clock that moves when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000) - 1_000_000


def an_xid() -> Xid:
    return XIDS.next(NOW_MS)


def operation(name: str, parameters: str = "{}") -> Operation:
    return Operation("bank", name, parameters)


def transfer(amount: str) -> Operation:
    return operation("transfer", f'{{"from":"alice","to":"bob","amount":"{amount}"}}')


def prepare(xid: Xid, *operations: Operation, request_id: str = "") -> Prepare:
    return Prepare(LOG, xid, operations, 1_060.0, tenant="default", request_id=request_id)


class Bank:
    """One memory resource on one store, and what a crash makes of them."""

    def __init__(self, gate: Callable[[], Awaitable[None]] = open_gate) -> None:
        self.clock = StillClock()
        self.store = MemoryStore({"alice": 100, "bob": 0}, gate=gate)
        self.resource = MemoryResource("bank", self.store, self.clock)

    def crash(self, survivors: int = 0) -> None:
        self.store.crash(survivors=survivors)
        self.resource = MemoryResource("bank", self.store, self.clock)

    async def vote(self, branch: Prepare) -> Vote:
        return (await self.resource.prepare([branch]))[0]

    async def commit(self, xid: Xid, sequence: int = 1) -> Ack:
        return (await self.resource.commit([Commit(LOG, xid, 7, sequence)]))[0]

    async def rollback(self, xid: Xid) -> Ack:
        return (await self.resource.rollback([Rollback(LOG, xid)]))[0]

    def balance(self, name: str) -> Decimal:
        return self.store.durable.accounts[name].balance

    def available(self, name: str) -> Decimal:
        return self.store.durable.accounts[name].available


class Gate:
    """A disk that writes when told."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


async def test_a_prepared_branch_survives_a_crash_and_can_still_commit() -> None:
    """R8."""
    bank, xid = Bank(), an_xid()
    assert (await bank.vote(prepare(xid, transfer("60")))).kind is VoteKind.PREPARED
    bank.crash()
    assert bank.available("alice") == 40
    assert (await bank.commit(xid)).kind is AckKind.DONE
    bank.crash()
    assert (bank.balance("alice"), bank.balance("bob")) == (40, 60)
    assert (await bank.commit(xid)).kind is AckKind.ALREADY_DONE
    assert bank.resource.invariants() == []


async def test_no_vote_leaves_before_its_flush() -> None:
    """R8: a duplicate that arrives during the flush waits for it as well."""
    gate = Gate()
    bank, xid = Bank(gate), an_xid()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(bank.vote(prepare(xid, transfer("60"))))
        await gate.reached.wait()
        second = group.create_task(bank.vote(prepare(xid, transfer("60"))))
        await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        assert bank.store.unflushed == 1
        assert await bank.resource.branch(LOG, xid) is None
        gate.open.set()
    assert first.result() == second.result()


async def test_a_crash_during_a_flush_loses_the_branch_or_keeps_it_whole() -> None:
    """R9: row, hold and balance are one local transaction."""
    for survivors in (0, 1):
        gate = Gate()
        bank, xid = Bank(gate), an_xid()
        asking = asyncio.ensure_future(bank.vote(prepare(xid, transfer("60"))))
        await gate.reached.wait()
        bank.crash(survivors)
        gate.open.set()
        asking.cancel()
        assert bank.available("alice") == (100, 40)[survivors]
        branch = await bank.resource.branch(LOG, xid)
        assert (branch.phase if branch else None) == (None, BranchPhase.PREPARED)[survivors]
        assert bank.resource.invariants() == []


async def test_a_cancelled_prepare_is_in_doubt_and_the_next_call_flushes_it() -> None:
    gate = Gate()
    bank, xid = Bank(gate), an_xid()
    asking = asyncio.ensure_future(bank.vote(prepare(xid, transfer("60"))))
    await gate.reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.open.set()
    assert (await bank.vote(prepare(xid, transfer("60")))).kind is VoteKind.PREPARED
    assert bank.store.unflushed == 0


async def test_reservations_within_a_batch_see_each_other() -> None:
    """R17, invariant 6: together they exceed the balance, and exactly one gets the yes."""
    bank = Bank()
    votes = await bank.resource.prepare([prepare(an_xid(), transfer("60")), prepare(an_xid(), transfer("60"))])
    assert [vote.kind for vote in votes] == [VoteKind.PREPARED, VoteKind.ROLLED_BACK]
    assert votes[1].reason == "INSUFFICIENT_FUNDS"
    assert votes[1].is_business_no


async def test_a_batch_commits_before_it_prepares_in_one_flush() -> None:
    flushes = 0

    async def gate() -> None:
        nonlocal flushes
        flushes += 1

    bank, first, second = Bank(gate), an_xid(), an_xid()
    await bank.vote(prepare(first, operation("credit", '{"account":"alice","amount":"50"}')))
    answers = await bank.resource.apply(
        Work(commits=[Commit(LOG, first, 7, 1)], prepares=[prepare(second, transfer("150"))])
    )
    assert answers.prepares[0].kind is VoteKind.PREPARED
    assert flushes == 2


async def test_a_second_branch_of_a_live_request_votes_transient_until_the_first_is_undone() -> None:
    """R3."""
    bank, first = Bank(), an_xid()
    await bank.vote(prepare(first, transfer("1"), request_id="order-1"))
    for _ in range(2):
        busy = await bank.vote(prepare(an_xid(), transfer("1"), request_id="order-1"))
        assert busy.transient
    await bank.rollback(first)
    assert (await bank.vote(prepare(an_xid(), transfer("1"), request_id="order-1"))).kind is VoteKind.PREPARED


async def test_embedded_work_must_match_what_prepare_ends() -> None:
    """R13: another count, another number, or work lost in a crash is a "no" of XAER_NOTA, never READ_ONLY."""
    for number, count, begun, expected in (
        (1, 1, True, VoteKind.PREPARED),
        (1, 2, True, VoteKind.ROLLED_BACK),
        (2, 1, True, VoteKind.ROLLED_BACK),
        (1, 1, False, VoteKind.ROLLED_BACK),
        (0, 0, False, VoteKind.ROLLED_BACK),
    ):
        bank, xid = Bank(), an_xid()
        if begun:
            assert bank.resource.begin(LOG, xid, 1, 1_060.0)
            assert bank.resource.do(LOG, xid, transfer("5"))
        ends = prepare(xid)._replace(ends_work=True, branch_number=number, operation_count=count)
        vote = await bank.vote(ends)
        assert vote.kind is expected
        assert vote.kind is VoteKind.PREPARED or vote.xa_code == XaCode.XAER_NOTA


async def test_active_work_expires_with_its_deadline_and_is_lost_in_a_crash() -> None:
    """R13."""
    bank, expired, lost = Bank(), an_xid(), an_xid()
    bank.resource.begin(LOG, expired, 1, 1_001.0)
    bank.clock.now_s += 2
    assert await bank.resource.expire() == 1
    assert not bank.resource.begin(LOG, expired, 1, 1_060.0)
    bank.resource.begin(LOG, lost, 1, 1_060.0)
    bank.crash()
    assert not bank.resource.do(LOG, lost, transfer("1"))


async def test_watermarks_and_finished_branches_follow_the_commits() -> None:
    """R15: they are durable with the effect, and a lower sequence takes nothing back."""
    bank, first, second = Bank(), an_xid(), an_xid()
    await bank.resource.prepare([prepare(first, transfer("1")), prepare(second, transfer("1"))])
    await bank.commit(second, sequence=9)
    await bank.commit(first, sequence=8)
    bank.crash()
    assert await bank.resource.watermarks(LOG) == {7: 9}
    listed = await bank.resource.recover(RecoverQuery(LOG, finished=True, above={7: 8}))
    assert [branch.xid for branch in listed] == [second]


async def test_an_epoch_is_adopted_durably_and_never_lowered() -> None:
    bank = Bank()
    assert await bank.resource.adopt_epoch(LOG, 5) == 5
    bank.crash()
    assert await bank.resource.adopt_epoch(LOG, 4) == 5


async def test_a_branch_forced_by_hand_stays_in_the_list_until_forgotten() -> None:
    """R12, invariant 10."""
    bank, xid = Bank(), an_xid()
    await bank.vote(prepare(xid, transfer("60")))
    assert (await bank.resource.resolve(LOG, xid, Decision.COMMIT, "the auditor said so")).kind is (
        AckKind.HEURISTIC_COMMIT
    )
    bank.crash()
    assert bank.balance("bob") == 60
    assert (await bank.rollback(xid)).kind is AckKind.HEURISTIC_COMMIT
    assert [branch.reason for branch in await bank.resource.recover(RecoverQuery(LOG))] == ["the auditor said so"]
    assert (await bank.resource.forget(LOG, xid)).kind is AckKind.DONE
    assert await bank.resource.recover(RecoverQuery(LOG)) == []
    assert bank.resource.invariants() == []


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("mint", "{}", "operations[0].operation"),
        ("debit", "[]", "operations[0].parameters"),
        ("debit", '{"account":"alice"}', "operations[0].parameters.amount"),
        ("debit", '{"account":"alice","amount":"0"}', "operations[0].parameters.amount"),
        ("debit", '{"account":"alice","amount":"-1"}', "operations[0].parameters.amount"),
        ("debit", '{"account":"alice","amount":"NaN"}', "operations[0].parameters.amount"),
        ("debit", '{"account":"alice","amount":true}', "operations[0].parameters.amount"),
        ("debit", '{"account":"alice","amount":"0.0000000000000000001"}', "operations[0].parameters.amount"),
        ("debit", '{"account":7,"amount":"1"}', "operations[0].parameters.account"),
        ("debit", '{"account":"alice","amount":"1","memo":""}', "operations[0].parameters.memo"),
    ],
)
async def test_wrong_parameters_get_a_no_that_names_the_field(name: str, parameters: str, field: str) -> None:
    vote = await Bank().vote(prepare(an_xid(), operation(name, parameters)))
    assert (vote.kind, vote.xa_code, vote.field) == (VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, field)


async def test_a_read_votes_read_only_with_its_result() -> None:
    vote = await Bank().vote(prepare(an_xid(), operation("read", '{"account":"alice"}')))
    assert vote.kind is VoteKind.READ_ONLY
    assert vote.results == ('{"balance": "100", "available": "100"}',)


CALLS = st.lists(st.tuples(st.sampled_from(["prepare", "commit", "rollback", "crash"]), st.integers(0, 3)), max_size=25)


@given(CALLS)
def test_any_calls_in_any_order_keep_the_invariants(calls: list[tuple[str, int]]) -> None:
    """Invariants 5, 6 and 9: whatever is sent, repeated or lost, each effect happens once at most."""

    async def run() -> None:
        bank = Bank()
        xids = [an_xid() for _ in range(4)]
        for call, which in calls:
            match call:
                case "prepare":
                    await bank.vote(prepare(xids[which], transfer("40"), request_id=f"r{which % 3}"))
                case "commit":
                    await bank.commit(xids[which], sequence=which + 1)
                case "rollback":
                    await bank.rollback(xids[which])
                case _:
                    bank.crash()
            assert bank.resource.invariants() == []

    asyncio.run(run())


async def test_the_invariants_notice_what_is_wrong() -> None:
    """An oracle that finds nothing must be one that could."""
    bank, xid = Bank(), an_xid()
    await bank.vote(prepare(xid, transfer("60")))
    state = bank.store.current
    key = BranchKey(LOG, xid)
    stored, alice = state.branches[key], state.accounts["alice"]
    for spoil, what in (
        (Change(accounts={"alice": alice._replace(held=Decimal(0))}), "holds"),
        (Change(accounts={"alice": alice._replace(balance=Decimal(10))}), "its effects make"),
        (Change(accounts={"alice": alice._replace(balance=Decimal(10))}), "and holds"),
        (Change(effect=Effect(key, stored.postings)), "its branch is PREPARED"),
        (Change({key: stored._replace(branch=replace(stored.branch, phase=BranchPhase.COMMITTED))}), "did not happen"),
    ):
        spoilt = state.copy()
        spoilt.write(spoil)
        assert any(what in violation for violation in violations(spoilt, bank.store.opening)), what
    twice = state.copy()
    for _ in range(2):
        twice.write(Change(effect=Effect(key, stored.postings)))
    assert any("happened 2 times" in violation for violation in violations(twice, bank.store.opening))


def test_no_more_survives_a_crash_than_was_written() -> None:
    with pytest.raises(ValueError, match="0 are unflushed"):
        Bank().crash(survivors=1)
