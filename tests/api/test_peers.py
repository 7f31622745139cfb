"""Any coordinator takes any call (R19): forwarded to the owner while that lives, answered from the log after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.peers import FORWARDED_KEY
from participant_sdk.clock import SystemClock
from participant_sdk.context import LOG_ID_KEY
from participant_sdk.ids import Xid, XidSource
from tests.api.doors import operation, read_refusal, transfer
from tests.api.fleet import LEASE_S, Fleet, LogTap, Node, fleet
from tests.sdk.small_system import LEFT, OPENING, RIGHT, System, system

CommitRequest = transaction_pb2.TransactionServiceCommitRequest
RollbackRequest = transaction_pb2.TransactionServiceRollbackRequest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def world() -> AsyncIterator[System]:
    async with system() as around:
        yield around


@pytest.fixture
async def place(world: System) -> AsyncIterator[Fleet]:
    async with fleet(world) as place:
        yield place


async def begin(node: Node, request_id: str = "") -> str:
    return (await node.stub.Begin(transaction_pb2.BeginRequest(request_id=request_id))).xid


def enlistment(xid: str, participant: str = LEFT) -> transaction_pb2.EnlistRequest:
    return transaction_pb2.EnlistRequest(xid=xid, participant=participant, operations=[operation(participant)])


def shown(xid: str) -> transaction_pb2.GetTransactionRequest:
    return transaction_pb2.GetTransactionRequest(xid=xid)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def forwarded_to(number: int, log_id: str) -> tuple[tuple[str, str], ...]:
    return ((FORWARDED_KEY, str(number)), (LOG_ID_KEY, log_id))


# -- While the owner lives.


async def test_every_call_that_names_an_xid_is_its_owners_to_answer(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    enlisted = await b.stub.Enlist(enlistment(xid))
    assert (enlisted.branch_number, enlisted.log_id) == (1, place.around.log.log_id)
    assert (await a.stub.Enlist(enlistment(xid, RIGHT))).branch_number == 2
    result = (await b.stub.Commit(CommitRequest(xid=xid))).result
    assert (result.outcome, result.applied) == (transaction_pb2.OUTCOME_COMMITTED, True)
    assert [branch.participant for branch in result.branches] == [LEFT, RIGHT]
    assert place.around.balance(LEFT, "a") == OPENING - 5
    assert a.holds(xid)
    assert not b.holds(xid)


async def test_what_is_shown_is_what_the_owner_knows(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a, "order-1")
    await b.stub.Enlist(enlistment(xid))
    await both_show(a, b, xid, "ACTIVE")
    await b.stub.Commit(CommitRequest(xid=xid))
    await both_show(a, b, xid, "COMMITTED")


async def both_show(a: Node, b: Node, xid: str, state: str) -> None:
    assert await b.stub.GetTransaction(shown(xid)) == await a.stub.GetTransaction(shown(xid))
    path = f"/api/v1/transactions/status/{xid}"
    there, here = await a.http.get(path), await b.http.get(path)
    assert (here.status_code, here.json()) == (200, there.json())
    assert here.json()["state"] == state


async def test_rollback_and_rollback_only_reach_the_owner(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    await b.stub.Enlist(enlistment(xid))
    await b.stub.SetRollbackOnly(transaction_pb2.SetRollbackOnlyRequest(xid=xid, reason="second thoughts"))
    result = (await b.stub.Commit(CommitRequest(xid=xid))).result
    assert result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    assert "second thoughts" in result.message
    other = await begin(a)
    result = (await b.stub.Rollback(RollbackRequest(xid=other, reason="no"))).result
    assert (result.xid, result.outcome) == (other, transaction_pb2.OUTCOME_ROLLED_BACK)


async def test_watching_follows_the_owner_to_the_end(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    await a.stub.Enlist(enlistment(xid))
    watch = b.stub.WatchTransactions(transaction_pb2.WatchTransactionsRequest(xid=xid))
    first = await watch.read()
    assert isinstance(first, transaction_pb2.WatchTransactionsResponse)
    assert first.transaction.result.phase == common_pb2.PHASE_ACTIVE
    await a.stub.Commit(CommitRequest(xid=xid))
    phases: list[int] = []
    while isinstance(change := await watch.read(), transaction_pb2.WatchTransactionsResponse):
        phases.append(change.transaction.result.phase)
    assert (phases[0], phases[-1]) == (common_pb2.PHASE_PREPARING, common_pb2.PHASE_COMMITTED)


async def test_over_http_too_every_route_that_names_an_xid_is_the_owners_to_answer(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    await a.stub.Enlist(enlistment(xid))
    prefix = f"/api/v1/transactions/{xid}"
    there, here = await a.http.post(f"{prefix}/retry"), await b.http.post(f"{prefix}/retry")
    assert (here.status_code, here.json()) == (there.status_code, there.json())
    assert (here.status_code, here.json()["code"]) == (409, "NOT_DECIDED")
    assert (await b.http.post(f"{prefix}/rollback")).json()["state"] == "ROLLED_BACK"
    assert (await a.stub.GetTransaction(shown(xid))).transaction.result.phase == common_pb2.PHASE_ROLLED_BACK
    committed = (await a.stub.Execute(transfer())).result.xid
    retried = await b.http.post(f"/api/v1/transactions/{committed}/retry")
    assert (retried.status_code, retried.json()["phase"]) == (200, "COMMITTED")


async def test_the_owners_error_comes_back_unchanged(place: Fleet) -> None:
    """Code, message and every detail."""
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    await a.stub.Commit(CommitRequest(xid=xid))
    for request in (enlistment(xid), transaction_pb2.EnlistRequest(xid=xid, participant="nobody")):
        there, here = await refusal(a.stub.Enlist(request)), await refusal(b.stub.Enlist(request))
        assert read_refusal(here) == read_refusal(there)
        assert read_refusal(here).info.domain == "pincex.tx"


async def test_the_clients_deadline_ends_the_wait_and_not_the_transaction(place: Fleet) -> None:
    """R16."""
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    await a.stub.Enlist(enlistment(xid))
    place.around.taps[LEFT].shut()
    error = await refusal(b.stub.Commit(CommitRequest(xid=xid), timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    place.around.taps[LEFT].open()
    assert (await b.stub.Commit(CommitRequest(xid=xid))).result.outcome == transaction_pb2.OUTCOME_COMMITTED


async def test_forwarding_needs_no_log_while_the_owner_lived_at_the_last_look(place: Fleet) -> None:
    tap = LogTap()
    a = await place.start("a")
    b = await place.start("b", place.memory(tap))
    xid = await begin(a)
    tap.shut()
    assert (await b.stub.Enlist(enlistment(xid), timeout=LEASE_S / 2)).branch_number == 1
    tap.open()


# -- Who takes a forwarded call.


async def test_a_call_forwarded_to_another_incarnation_is_refused_and_not_executed(place: Fleet) -> None:
    a = await place.start("a")
    xid = await begin(a)
    for number, log_id in ((a.incarnation.number - 1, a.incarnation.log_id), (a.incarnation.number, "f" * 16)):
        for call in (
            a.stub.Rollback(RollbackRequest(xid=xid), metadata=forwarded_to(number, log_id)),
            a.stub.GetTransaction(shown(xid), metadata=forwarded_to(number, log_id)),
            a.stub.WatchTransactions(
                transaction_pb2.WatchTransactionsRequest(xid=xid), metadata=forwarded_to(number, log_id)
            ).read(),
        ):
            error = await refusal(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "not here any more" in str(error.details())
    assert (await a.stub.GetTransaction(shown(xid))).transaction.result.phase == common_pb2.PHASE_ACTIVE


async def test_a_forwarded_call_is_not_forwarded_again(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    xid = await begin(a)
    metadata = forwarded_to(b.incarnation.number, b.incarnation.log_id)
    error = await refusal(b.stub.Rollback(RollbackRequest(xid=xid), metadata=metadata))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    for call in (
        b.stub.GetTransaction(shown(xid), metadata=metadata),
        b.stub.Enlist(enlistment(xid), metadata=metadata),
    ):
        assert (await refusal(call)).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}
    assert (await a.stub.GetTransaction(shown(xid))).transaction.result.phase == common_pb2.PHASE_ACTIVE
    assert len((await a.stub.GetTransaction(shown(xid))).transaction.result.branches) == 0


async def test_three_coordinators_never_pass_a_call_around(place: Fleet) -> None:
    """Each of two is announced at the other's address; the third asks, and is refused there."""
    a = await place.start("a")
    b = await place.start("b", advertise=a.address)
    place.around.log.tables.incarnations[a.incarnation.number].address = b.address
    c = await place.start("c")
    xids = [await begin(a), await begin(b)]
    for xid in xids:
        error = await refusal(c.stub.Commit(CommitRequest(xid=xid), timeout=10))
        assert (error.code(), read_refusal(error).info.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert "not here any more" in str(error.details())
    for node, xid in zip((a, b), xids, strict=True):
        found = await node.stub.GetTransaction(shown(xid))
        assert found.transaction.result.phase == common_pb2.PHASE_ACTIVE


async def test_an_xid_of_an_incarnation_that_nobody_knows_is_unknown(place: Fleet) -> None:
    a = await place.start("a")
    xid = str(Xid.make(SystemClock().unix_ms(), a.incarnation.number + 1000, 1))
    for call in (
        a.stub.Commit(CommitRequest(xid=xid)),
        a.stub.Rollback(RollbackRequest(xid=xid)),
        a.stub.Enlist(enlistment(xid)),
        a.stub.GetTransaction(shown(xid)),
    ):
        assert (await refusal(call)).code() is grpc.StatusCode.NOT_FOUND
    assert (await a.http.get(f"/api/v1/transactions/status/{xid}")).status_code == 404


# -- An owner of which a script says what it does.


@dataclass
class Script:
    """An owner's address in the log, with a script behind it."""

    xid: str
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def commit(self, _: bytes, context: Any) -> bytes:
        self.calls.append({"metadata": dict(context.invocation_metadata()), "left_s": context.time_remaining()})
        self.arrived.set()
        try:
            await self.released.wait()
        finally:
            self.left.set()
        return b""


async def say_nothing(_request: bytes, _context: Any) -> bytes:
    return b""


@asynccontextmanager
async def scripted_owner(world: System, lease_s: float = 60.0) -> AsyncGenerator[tuple[Script, grpc.aio.Server]]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    incarnation = await MemoryLog(world.log).open("scripted", f"127.0.0.1:{port}", lease_s)
    script = Script(str(XidSource(incarnation.number).next(SystemClock().unix_ms())))
    handlers: dict[str, Any] = {
        "Commit": grpc.unary_unary_rpc_method_handler(script.commit),
        "GetTransaction": grpc.unary_unary_rpc_method_handler(say_nothing),
    }
    name = transaction_pb2.DESCRIPTOR.services_by_name["TransactionService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    await server.start()
    yield script, server
    script.released.set()
    await server.stop(None)


async def test_a_forwarded_call_names_the_incarnation_and_takes_the_deadline_along(world: System, place: Fleet) -> None:
    async with scripted_owner(world) as (script, _):
        b = await place.start("b")
        script.released.set()
        await b.stub.Commit(CommitRequest(xid=script.xid), timeout=7)
        (call,) = script.calls
        assert call["metadata"][FORWARDED_KEY] == str(Xid.parse(script.xid).incarnation)
        assert call["metadata"][LOG_ID_KEY] == world.log.log_id
        # The wire rounds up.
        assert 5 < call["left_s"] < 8


async def test_a_client_that_leaves_takes_its_call_along(world: System, place: Fleet) -> None:
    async with scripted_owner(world) as (script, _):
        b = await place.start("b")
        call = b.stub.Commit(CommitRequest(xid=script.xid))
        await script.arrived.wait()
        call.cancel()
        async with asyncio.timeout(10):
            await script.left.wait()


async def test_a_lost_reply_is_no_answer(world: System, place: Fleet) -> None:
    """R19: it may have been done, and nothing says that it was not."""
    async with scripted_owner(world) as (script, server):
        b = await place.start("b")
        call = b.stub.Commit(CommitRequest(xid=script.xid))
        await script.arrived.wait()
        await server.stop(None)
        told = read_refusal(await refusal(call))
        assert told.code is grpc.StatusCode.UNAVAILABLE
        assert "is not known" in told.message
        assert told.info.metadata["transaction_id"] == script.xid
        retry = told.details["RetryInfo"]
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0
        answer = await b.http.get(f"/api/v1/transactions/status/{script.xid}")
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0


async def test_an_answer_that_says_nothing_is_none(world: System, place: Fleet) -> None:
    async with scripted_owner(world) as (script, _):
        b = await place.start("b")
        answer = await b.http.get(f"/api/v1/transactions/status/{script.xid}")
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")


async def test_a_silent_owner_is_waited_for_until_it_is_fenced(world: System, place: Fleet) -> None:
    """The fence ends the wait, and the log answers: nothing was recorded, so it is rolled back (R7)."""
    async with scripted_owner(world, lease_s=0.1) as (script, _):
        b = await place.start("b")
        for _ in range(2):
            result = (await b.stub.Commit(CommitRequest(xid=script.xid))).result
            assert (result.outcome, result.retry) == (transaction_pb2.OUTCOME_ROLLED_BACK, True)
            # Once it is over it is not asked any more.
            assert len(script.calls) == 1
        assert script.left.is_set()


async def test_an_owner_that_takes_its_time_is_waited_for(world: System, place: Fleet) -> None:
    """While it lives nobody speaks for it, however often the log is asked whether it does."""
    looks: list[str] = []

    async def count(moment: Moment, statement: Statement[object], /) -> None:
        if moment is Moment.AFTER and statement.name == "read":
            looks.append(statement.name)

    a, b = await place.start("a"), await place.start("b", place.memory(count))
    xid = await begin(a)
    await a.stub.Enlist(enlistment(xid))
    world.taps[LEFT].shut()
    looks.clear()
    committing = b.stub.Commit(CommitRequest(xid=xid))
    async with asyncio.timeout(20):
        while len(looks) < 2:  # noqa: ASYNC110 - the log has no event for us
            await asyncio.sleep(0.01)
    world.taps[LEFT].open()
    assert (await committing).result.outcome == transaction_pb2.OUTCOME_COMMITTED


async def test_an_owner_that_ended_since_the_last_look_is_answered_for(world: System, place: Fleet) -> None:
    """Its silence has the log asked at once: nobody has to wait for the next look."""
    async with scripted_owner(world) as (script, server):
        await server.stop(None)
        b = await place.start("b")
        number = Xid.parse(script.xid).incarnation
        world.log.tables.incarnations[number].fenced_by = b.incarnation.number
        result = (await b.stub.Commit(CommitRequest(xid=script.xid))).result
        assert (result.outcome, result.retry) == (transaction_pb2.OUTCOME_ROLLED_BACK, True)


# -- An owner that is over.


async def test_a_fenced_owner_stops_by_itself_and_its_waiters_are_told_nothing(world: System, place: Fleet) -> None:
    """Invariant 7; its client hears that the outcome is unknown, and the other coordinator knows it."""
    tap = LogTap()
    a, b = await place.start("a", place.memory(tap)), await place.start("b")
    xid = await begin(a)
    await a.stub.Enlist(enlistment(xid))
    tap.shut()
    at_a, at_b = a.stub.Commit(CommitRequest(xid=xid)), b.stub.Commit(CommitRequest(xid=xid))
    result = (await at_b).result
    assert (result.outcome, result.retry) == (transaction_pb2.OUTCOME_ROLLED_BACK, True)
    tap.open()
    assert await a.ended is not None
    told = read_refusal(await refusal(at_a))
    assert (told.code, told.info.reason) == (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")
    assert Xid.parse(xid) not in world.log.tables.decisions
