"""Locks over both doors of one coordinator, with the store in memory: lock_keys, step by step, deadlocks, operators."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from pincex.tx.v1 import lock_pb2, transaction_pb2
from pincex.tx.v1.lock_pb2_grpc import LockServiceStub

from coordinator.log.decision_log import OperatorAction
from coordinator.protocol.phases import Phase
from participant_sdk.ids import Xid
from participant_sdk.xa import XaCode
from tests.api.doors import Doors, operation, read_refusal, transfer
from tests.api.test_recovery_commands import run, told
from tests.sdk.small_system import LEFT, OPENING, RIGHT

if TYPE_CHECKING:
    # The generated stubs know this class; the module itself has it not.
    from pincex.tx.v1.lock_pb2_grpc import LockServiceAsyncStub

LOCKS: Final = "/api/v1/transactions/locks"
EXECUTE: Final = "/api/v1/transactions/execute"
CommitRequest = transaction_pb2.TransactionServiceCommitRequest
RollbackRequest = transaction_pb2.TransactionServiceRollbackRequest
COMMITTED: Final = transaction_pb2.OUTCOME_COMMITTED
ROLLED_BACK: Final = transaction_pb2.OUTCOME_ROLLED_BACK


def locks_of(opened: Doors) -> LockServiceAsyncStub:
    stub: LockServiceAsyncStub = LockServiceStub(opened.channel)
    return stub


async def begin(opened: Doors, *keys: str) -> str:
    return (await opened.stub.Begin(transaction_pb2.BeginRequest(lock_keys=keys))).xid


async def work(opened: Doors, xid: str) -> None:
    await opened.stub.Enlist(transaction_pb2.EnlistRequest(xid=xid, participant=LEFT, operations=[operation()]))


async def acquire(opened: Doors, xid: str, *keys: str, timeout_s: int = 0, shared: bool = False) -> int:
    mode = lock_pb2.LOCK_MODE_SHARED if shared else lock_pb2.LOCK_MODE_UNSPECIFIED
    request = lock_pb2.AcquireRequest(xid=xid, keys=keys, mode=mode)
    if timeout_s:
        request.timeout.CopyFrom(Duration(seconds=timeout_s))
    return (await locks_of(opened).Acquire(request)).token


async def commit(opened: Doors, xid: str) -> transaction_pb2.TransactionResult:
    return (await opened.stub.Commit(CommitRequest(xid=xid))).result


async def listed(opened: Doors) -> dict[str, Any]:
    answer = await opened.http.get(LOCKS)
    assert answer.status_code == 200, answer.text
    return {lock["key"]: lock for lock in answer.json()["locks"]}


async def until_waiting(opened: Doors, key: str, count: int = 1) -> dict[str, Any]:
    """Look until so many wait for a key: other tasks have no event for us."""
    found: list[dict[str, Any]] = []

    async def is_waiting() -> bool:
        lock = (await listed(opened)).get(key, {"waiters": ()})
        found[:] = [lock]
        return len(lock["waiters"]) >= count

    await until(is_waiting)
    return found[0]


async def until_free(opened: Doors) -> None:
    """Look until nothing is locked: what finishes lets go a moment later."""

    async def is_free() -> bool:
        return not await listed(opened)

    await until(is_free)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - what others wait for has no event for us
            await asyncio.sleep(0.005)


class TestLockKeys:
    async def test_a_transaction_holds_its_keys_until_it_has_finished(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "b", "a")
        waiting = asyncio.ensure_future(_execute(open_doors, "a", "c"))
        lock = await until_waiting(open_doors, "a")
        assert [each["transaction_id"] for each in lock["holders"]] == [holder]
        assert int(lock["holders"][0]["token"]) > 0
        assert not waiting.done()
        assert (await commit(open_doors, holder)).outcome == COMMITTED
        assert (await waiting).outcome == COMMITTED
        await until_free(open_doors)

    async def test_its_keys_are_held_for_as_long_as_a_branch_owes_its_commit(self, open_doors: Doors) -> None:
        """Decided is not done: whoever takes the key next must find what this one did."""
        open_doors.around.taps[RIGHT].shut_after(1)
        request = transfer()
        request.lock_keys.append("a")
        request.wait = transaction_pb2.WAIT_DECIDED
        result = (await open_doors.stub.Execute(request)).result
        assert result.outcome == COMMITTED
        waiting = asyncio.ensure_future(_execute(open_doors, "a"))
        lock = await until_waiting(open_doors, "a")
        assert [each["transaction_id"] for each in lock["holders"]] == [result.xid]
        open_doors.around.taps[RIGHT].open()
        assert (await waiting).outcome == COMMITTED

    async def test_nothing_is_sent_to_participants_before_the_keys_are_held(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "a")
        waiting = asyncio.ensure_future(_execute(open_doors, "a"))
        lock = await until_waiting(open_doors, "a")
        running = open_doors.assembly.engine.held(Xid.parse(lock["waiters"][0]["transaction_id"]))
        assert running.transaction.phase is Phase.ACTIVE
        assert running.view().waiting_for == "the lock on a"
        assert open_doors.nothing_held()
        await open_doors.stub.Rollback(RollbackRequest(xid=holder))
        assert (await waiting).outcome == COMMITTED

    async def test_keys_not_let_go_in_time_roll_back_with_retry(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "a")
        request = transfer(request_id="pay-1")
        request.lock_keys.append("a")
        request.timeout.CopyFrom(Duration(nanos=200_000_000))
        result = (await open_doors.stub.Execute(request)).result
        assert (result.outcome, result.reason, result.retry) == (ROLLED_BACK, "LOCK_TIMEOUT", True)
        assert result.xa_code == XaCode.RBTIMEOUT
        assert f"held by {holder}" in result.message
        assert open_doors.around.balance(LEFT, "a") == OPENING
        # Nothing is bound: the same request goes through once the key is free.
        await open_doors.stub.Rollback(RollbackRequest(xid=holder))
        request.timeout.CopyFrom(Duration(seconds=10))
        assert (await open_doors.stub.Execute(request)).result.outcome == COMMITTED

    async def test_begin_without_its_keys_begins_nothing(self, open_doors: Doors) -> None:
        await begin(open_doors, "a")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await open_doors.stub.Begin(
                transaction_pb2.BeginRequest(lock_keys=["a"], timeout=Duration(nanos=200_000_000))
            )
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
        xid = refused.info.metadata["transaction_id"]
        assert (await commit(open_doors, xid)).outcome == ROLLED_BACK

    async def test_begin_asked_again_holds_its_keys_once(self, open_doors: Doors) -> None:
        request = transaction_pb2.BeginRequest(request_id="r", call_id="c", lock_keys=["a"])
        first = await open_doors.stub.Begin(request)
        assert (await open_doors.stub.Begin(request)).xid == first.xid
        assert len((await listed(open_doors))["a"]["holders"]) == 1

    async def test_a_stream_takes_lock_keys_too(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "a")
        stream = open_doors.stub.ExecuteStream()
        free, locked = transfer(), transfer()
        locked.lock_keys.append("a")
        await stream.write(transaction_pb2.ExecuteStreamRequest(tag=1, request=locked, more=[free]))
        frame = await stream.read()
        assert isinstance(frame, transaction_pb2.ExecuteStreamResponse)
        assert [each.tag for each in frame.answers] == [2]
        await commit(open_doors, holder)
        frame = await stream.read()
        assert isinstance(frame, transaction_pb2.ExecuteStreamResponse)
        assert [each.tag for each in frame.answers] == [1]
        await stream.done_writing()

    async def test_a_deadline_ends_what_waits_and_an_operator_may_too(self, open_doors: Doors) -> None:
        await begin(open_doors, "a")
        waiting = asyncio.ensure_future(_execute(open_doors, "a"))
        lock = await until_waiting(open_doors, "a")
        xid = lock["waiters"][0]["transaction_id"]
        await open_doors.http.post(f"/api/v1/transactions/{xid}/rollback", json={"reason": "not today"})
        result = await waiting
        assert (result.outcome, result.reason) == (ROLLED_BACK, "ROLLBACK_ASKED")
        assert (await listed(open_doors))["a"]["waiters"] == []

    async def test_without_lock_keys_no_store_is_asked(self, open_doors: Doors) -> None:
        assert (await open_doors.stub.Execute(transfer())).result.outcome == COMMITTED
        assert open_doors.around.log.tables.lock_epochs == {}


class TestStepByStep:
    async def test_tokens_rise_and_travel_to_the_participants(self, open_doors: Doors) -> None:
        xid = await begin(open_doors, "a")
        first = await acquire(open_doors, xid, "b", "a")
        second = await acquire(open_doors, xid, "c", shared=True)
        assert second > first
        tokens = open_doors.assembly.engine.held(Xid.parse(xid)).fencing_tokens
        assert [(each.key, each.token, each.shared) for each in tokens] == [
            ("a", first, False),
            ("b", first, False),
            ("c", second, True),
        ]

    async def test_of_two_that_wait_for_each_other_the_youngest_is_rolled_back_and_the_other_commits(
        self, open_doors: Doors
    ) -> None:
        """A then B, B then A: seen at once, told with who waited for whom."""
        older, younger = await begin(open_doors, "a"), await begin(open_doors, "b")
        await work(open_doors, older)
        await work(open_doors, younger)
        waiting = asyncio.ensure_future(acquire(open_doors, older, "b"))
        await until_waiting(open_doors, "b")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(5):
                await acquire(open_doors, younger, "a")
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "DEADLOCK")
        assert refused.info.metadata["xa_code"] == str(XaCode.RBDEADLOCK.value)
        assert refused.info.metadata["transaction_id"] == younger
        assert f"{younger} waits for 'a' held by {older}" in refused.message
        assert f"{older} waits for 'b' held by {younger}" in refused.message
        assert await waiting > 0
        loser = await commit(open_doors, younger)
        assert (loser.outcome, loser.reason, loser.xa_code) == (ROLLED_BACK, "DEADLOCK", XaCode.RBDEADLOCK)
        assert f"{older} waits for 'b' held by {younger}" in loser.message
        assert loser.retry
        shown = (await open_doors.http.get(f"/api/v1/transactions/status/{younger}")).json()
        assert (shown["reason"], shown["xa_code"]) == ("DEADLOCK", 102)
        assert (await commit(open_doors, older)).outcome == COMMITTED
        assert open_doors.around.balance(LEFT, "a") == OPENING - 5
        await until_free(open_doors)
        assert b"pincex_deadlocks_total 1.0" in open_doors.telemetry.metrics.render()

    async def test_the_youngest_gives_way_though_another_closed_the_circle(self, open_doors: Doors) -> None:
        older, younger = await begin(open_doors, "a"), await begin(open_doors, "b")
        waiting = asyncio.ensure_future(acquire(open_doors, younger, "a"))
        await until_waiting(open_doors, "a")
        assert await acquire(open_doors, older, "b") > 0
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await waiting
        assert read_refusal(raised.value).info.reason == "DEADLOCK"
        assert (await commit(open_doors, younger)).reason == "DEADLOCK"

    async def test_a_time_out_leaves_the_transaction_as_it_was(self, open_doors: Doors) -> None:
        holder, other = await begin(open_doors, "a"), await begin(open_doors)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            request = lock_pb2.AcquireRequest(xid=other, keys=["a"], timeout=Duration(nanos=50_000_000))
            await locks_of(open_doors).Acquire(request)
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "LOCK_TIMEOUT")
        assert f"held by {holder}" in refused.message
        assert "RetryInfo" in refused.details
        await work(open_doors, other)
        assert (await commit(open_doors, other)).outcome == COMMITTED

    async def test_a_caller_that_goes_away_waits_for_nothing(self, open_doors: Doors) -> None:
        await begin(open_doors, "a")
        other = await begin(open_doors)
        waiting = asyncio.ensure_future(acquire(open_doors, other, "a"))
        await until_waiting(open_doors, "a")
        waiting.cancel()

        async def is_gone() -> bool:
            return not (await listed(open_doors))["a"]["waiters"]

        await until(is_gone)

    async def test_release_lets_go_of_one_call_or_of_all(self, open_doors: Doors) -> None:
        xid = await begin(open_doors, "a")
        token = await acquire(open_doors, xid, "b", "c")
        await acquire(open_doors, xid, "d")
        release = locks_of(open_doors).Release
        assert list((await release(lock_pb2.ReleaseRequest(xid=xid, token=token))).keys) == ["b", "c"]
        assert sorted(await listed(open_doors)) == ["a", "d"]
        assert list((await release(lock_pb2.ReleaseRequest(xid=xid, token=token))).keys) == []
        assert list((await release(lock_pb2.ReleaseRequest(xid=xid))).keys) == ["a", "d"]
        assert await listed(open_doors) == {}
        assert open_doors.assembly.engine.held(Xid.parse(xid)).fencing_tokens == ()

    async def test_past_its_phase_and_unknown_are_told(self, open_doors: Doors) -> None:
        xid = await begin(open_doors, "a")
        await commit(open_doors, xid)
        for call in (acquire(open_doors, xid, "b"), locks_of(open_doors).Release(lock_pb2.ReleaseRequest(xid=xid))):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            refused = read_refusal(raised.value)
            assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_ACTIVE")


class TestOperators:
    async def test_the_list_says_who_holds_and_who_waits(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "a/b c")
        waiting = asyncio.ensure_future(_execute(open_doors, "a/b c"))
        lock = await until_waiting(open_doors, "a/b c")
        (held,), (waiter,) = lock["holders"], lock["waiters"]
        own = open_doors.assembly.engine.incarnation.number
        assert (held["owner"], held["transaction_id"], held["mode"]) == (holder, holder, "EXCLUSIVE")
        assert (held["incarnation"], held["owner_alive"]) == (own, True)
        assert 0 < held["ttl_ms"] <= 15_000
        assert waiter["for_ms"] >= 0
        assert "token" not in waiter
        by_command = await told(open_doors, "locks", "list")
        assert [each["key"] for each in by_command["locks"]] == ["a/b c"]
        assert by_command["locks"][0]["holders"][0]["token"] == held["token"]
        assert "held by" in (await run(open_doors, "locks", "list")).output
        await open_doors.stub.Rollback(RollbackRequest(xid=holder))
        await waiting
        await until_free(open_doors)
        assert "Nothing is locked" in (await run(open_doors, "locks", "list")).output

    async def test_pages_follow_one_another(self, open_doors: Doors) -> None:
        await begin(open_doors, *(f"k{number}" for number in range(5)), "other")
        keys: list[str] = []
        token = ""
        for _ in range(3):
            params = {"page_size": "2", "key_prefix": "k", **({"page_token": token} if token else {})}
            page = (await open_doors.http.get(LOCKS, params=params)).json()
            keys += [lock["key"] for lock in page["locks"]]
            token = page["next_page_token"]
        assert keys == ["k0", "k1", "k2", "k3", "k4"]
        assert token is None
        assert len((await told(open_doors, "locks", "list", "--limit", "3"))["locks"]) == 3

    async def test_a_broken_lock_is_free_and_its_transaction_is_rolled_back(self, open_doors: Doors) -> None:
        holder = await begin(open_doors, "a", "b")
        await work(open_doors, holder)
        waiting = asyncio.ensure_future(_execute(open_doors, "a"))
        await until_waiting(open_doors, "a")
        answer = await open_doors.http.request("DELETE", f"{LOCKS}/a", json={"reason": "it hangs"})
        assert answer.status_code == 200
        assert answer.json()["keys"] == ["a", "b"]
        assert answer.json()["broken"][0]["transaction_id"] == holder
        assert (await waiting).outcome == COMMITTED
        result = await commit(open_doors, holder)
        assert (result.outcome, result.reason) == (ROLLED_BACK, "ROLLBACK_ONLY")
        assert "LOCK_LOST" in result.message
        assert "it hangs" in result.message
        (action,) = open_doors.around.log.tables.actions
        assert action == OperatorAction("BREAK_LOCK", "it hangs", Xid.parse(holder), detail=action.detail)
        assert "a, b" in action.detail
        assert b'pincex_locks_lost_total{cause="broken"} 1.0' in open_doors.telemetry.metrics.render()

    async def test_the_command_asks_before_it_breaks(self, open_doors: Doors) -> None:
        xid = await begin(open_doors, "a")
        refused = await run(open_doors, "locks", "break", "a", "--reason", "why", text="n\n")
        assert refused.exit_code == 2
        assert xid in refused.output
        assert "a" in await listed(open_doors)
        broken = await told(open_doors, "locks", "break", "a", "--reason", "why", "--yes")
        assert broken["broken"][0]["owner"] == xid
        nothing = await run(open_doors, "locks", "break", "a", "--reason", "why", "--yes", "--json")
        assert nothing.exit_code == 2
        assert "LOCK_NOT_HELD" in nothing.output


async def _execute(opened: Doors, *keys: str) -> transaction_pb2.TransactionResult:
    request = transaction_pb2.ExecuteRequest(operations=[operation(LEFT), operation(RIGHT)], lock_keys=keys)
    return (await opened.stub.Execute(request)).result
