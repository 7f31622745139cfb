"""Two coordinators over one log: what one began the other goes on with, and finishes when the first dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import grpc
import pytest
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.log.decision_log import Appended, DecisionLog, Incarnation
from coordinator.log.memory import MemoryLog
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.ids import Xid
from tests.api.doors import operation, read_refusal, transfer
from tests.api.fleet import Fleet, Node, fleet
from tests.conftest import MakeDatabase
from tests.sdk.small_system import LEFT, OPENING, RIGHT, System, system

CommitRequest = transaction_pb2.TransactionServiceCommitRequest
WITHIN_S: Final = 10.0
WORK: Final = [(name, "transfer", {"from": "a", "to": "b", "amount": "5"}) for name in (LEFT, RIGHT)]

pytestmark = pytest.mark.timeout(90)


class Site:
    """A fleet, and ways to its log: in memory or on PostgreSQL."""

    def __init__(self, place: Fleet, dsn: str) -> None:
        self.place = place
        self.around = place.around
        self._dsn = dsn

    def log(self) -> DecisionLog:
        return PostgresLog(self._dsn) if self._dsn else MemoryLog(self.around.log)

    def deaf_log(self) -> tuple[DecisionLog, asyncio.Event]:
        """A log whose first decisions become durable without the coordinator ever hearing of it; and when."""
        recorded = asyncio.Event()
        log = _DeafPostgresLog(self._dsn) if self._dsn else _DeafMemoryLog(self.around.log)
        log.recorded = recorded
        return log, recorded

    async def pair(self) -> tuple[Node, Node]:
        return await self.place.start("a", self.log()), await self.place.start("b", self.log())

    async def is_fenced(self, number: int) -> bool:
        log = self.log()
        try:
            snapshot = await log.read([Xid.make(1, number, 1)])
        finally:
            await log.close()
        return snapshot.incarnations[number].fenced


class _DeafMemoryLog(MemoryLog):
    recorded: asyncio.Event

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        appended = await super().append(incarnation, expected_sequence, records, burned=burned)
        return await _unheard(self.recorded, appended) if records else appended


class _DeafPostgresLog(PostgresLog):
    recorded: asyncio.Event

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        appended = await super().append(incarnation, expected_sequence, records, burned=burned)
        return await _unheard(self.recorded, appended) if records else appended


async def _unheard(recorded: asyncio.Event, appended: Appended) -> Appended:
    recorded.set()
    await asyncio.Event().wait()
    return appended


@pytest.fixture
async def world() -> AsyncIterator[System]:
    async with system() as around:
        yield around


@pytest.fixture(params=["memory", "postgres"])
async def site(request: pytest.FixtureRequest, world: System, databases: MakeDatabase) -> AsyncIterator[Site]:
    dsn = ""
    if request.param == "postgres":
        dsn = await databases("log")
        await migrate_log(dsn)
    async with fleet(world) as place:
        yield Site(place, dsn)


async def begun(node: Node, *participants: str) -> str:
    xid = (await node.stub.Begin(transaction_pb2.BeginRequest())).xid
    for participant in participants:
        await node.stub.Enlist(enlistment(xid, participant))
    return xid


def enlistment(xid: str, participant: str) -> transaction_pb2.EnlistRequest:
    return transaction_pb2.EnlistRequest(xid=xid, participant=participant, operations=[operation(participant)])


async def until_answered(node: Node, xid: str) -> tuple[transaction_pb2.TransactionResult, int]:
    """Commit again and again until an outcome is told; how often the call was UNAVAILABLE before that."""
    refused = 0
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return (await node.stub.Commit(CommitRequest(xid=xid))).result, refused
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                assert "RetryInfo" in read_refusal(error).details
                refused += 1
                await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Return when stores are as wanted: they have no event for us."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - as the docstring says.
            await asyncio.sleep(0.01)


async def test_begun_at_one_enlisted_and_committed_at_the_other(site: Site) -> None:
    a, b = await site.pair()
    xid = await begun(a, LEFT)
    await b.stub.Enlist(enlistment(xid, RIGHT))
    result = (await b.stub.Commit(CommitRequest(xid=xid))).result
    assert (result.outcome, result.phase) == (transaction_pb2.OUTCOME_COMMITTED, common_pb2.PHASE_COMMITTED)
    status = (await b.http.get(f"/api/v1/transactions/status/{xid}")).json()
    assert (status["state"], status["applied"], status["incarnation"]) == ("COMMITTED", True, a.incarnation.number)
    assert site.around.balance(LEFT, "b") == site.around.balance(RIGHT, "b") == OPENING + 5


async def test_a_dead_owner_is_not_spoken_for_until_it_is_fenced(site: Site) -> None:
    """R7, R19: then, within seconds, the log answers for it."""
    a, b = await site.pair()
    xid = await begun(a, LEFT, RIGHT)
    await a.die()
    assert not await site.is_fenced(a.incarnation.number)
    result, refused = await until_answered(b, xid)
    assert await site.is_fenced(a.incarnation.number)
    assert refused > 0
    assert (result.xid, result.outcome) == (xid, transaction_pb2.OUTCOME_ROLLED_BACK)
    assert (result.reason, result.retry) == ("PRESUMED", True)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await b.stub.Enlist(enlistment(xid, LEFT))
    told = read_refusal(raised.value)
    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_ACTIVE")
    status = await b.http.get(f"/api/v1/transactions/status/{xid}")
    assert (status.status_code, status.json()["state"]) == (200, "ROLLED_BACK")
    watched = [
        change.transaction.result.phase
        async for change in b.stub.WatchTransactions(transaction_pb2.WatchTransactionsRequest(xid=xid))
    ]
    assert watched == [common_pb2.PHASE_ROLLED_BACK]


async def test_what_the_dead_had_decided_the_survivor_finishes(site: Site) -> None:
    """R6: within seconds of the death, and whoever asks again by request_id hears of that commit."""
    deaf, recorded = site.deaf_log()
    a, b = await site.place.start("a", deaf), await site.place.start("b", site.log())
    call = a.stub.Execute(transfer(request_id="order-1"))
    await recorded.wait()
    died_s = time.monotonic()
    await a.die()
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    await until(lambda: site.around.balance(LEFT, "b") == site.around.balance(RIGHT, "b") == OPENING + 5)
    assert time.monotonic() - died_s < WITHIN_S
    again = (await b.stub.Execute(transfer(request_id="order-1"))).result
    assert (again.outcome, again.replayed) == (transaction_pb2.OUTCOME_COMMITTED, True)
    assert Xid.parse(again.xid).incarnation == a.incarnation.number
    told, _ = await until_answered(b, again.xid)
    assert (told.xid, told.outcome) == (again.xid, transaction_pb2.OUTCOME_COMMITTED)
    await until(lambda: b.holds(again.xid))
    assert (site.around.effects(LEFT), site.around.effects(RIGHT)) == (1, 1)


async def test_a_restarted_coordinator_does_not_answer_for_the_incarnation_before(site: Site) -> None:
    """Another incarnation at the same address refuses the forwarded call; it does not execute it."""
    a, b = await site.pair()
    xid = await begun(a, LEFT, RIGHT)
    await a.die()
    again = await site.place.start("a", site.log(), at=a.address)
    assert again.address == a.address
    answers = await asyncio.gather(until_answered(b, xid), until_answered(again, xid))
    for result, refused in answers:
        assert (result.outcome, result.retry) == (transaction_pb2.OUTCOME_ROLLED_BACK, True)
        assert refused > 0
    assert not again.holds(xid)
    assert site.around.effects(LEFT) == 0


async def test_twins_at_two_coordinators_commit_once_and_hear_the_same(site: Site) -> None:
    """R3, invariant 11: the log's binding decides, and the other is told what is stored."""
    a, b = await site.pair()
    names = [f"order-{number}" for number in range(10)]
    async with TransactionClient(a.address) as at_a, TransactionClient(b.address) as at_b:
        endings = await asyncio.gather(
            *[client.execute(WORK, request_id=name) for name in names for client in (at_a, at_b)]
        )
    for one, other in zip(endings[::2], endings[1::2], strict=True):
        assert isinstance(one, Committed)
        assert isinstance(other, Committed)
        assert one.xid == other.xid
        assert one.replayed != other.replayed
    assert site.around.balance(LEFT, "b") == site.around.balance(RIGHT, "b") == OPENING + 5 * len(names)
    assert site.around.effects(LEFT) == site.around.effects(RIGHT) == len(names)


async def test_an_intent_is_closed_at_one_while_it_runs_at_the_other(site: Site) -> None:
    """Rollback by request_id wins or comes too late; both hear the same, and nothing happens twice."""
    a, b = await site.pair()
    names = [f"order-{number}" for number in range(10)]
    async with TransactionClient(a.address) as at_a, TransactionClient(b.address) as at_b:
        running = [at_a.execute(WORK, request_id=name) for name in names]
        closing = [at_b.close_request(name) for name in names]
        endings = await asyncio.gather(*running, *closing)
    committed = sum(isinstance(ending, Committed) for ending in endings[: len(names)])
    for one, other in zip(endings[: len(names)], endings[len(names) :], strict=True):
        assert type(one) is type(other)
    assert site.around.balance(LEFT, "b") == site.around.balance(RIGHT, "b") == OPENING + 5 * committed


async def test_a_client_of_both_goes_on_at_the_other_when_one_dies(site: Site) -> None:
    a, b = await site.pair()
    async with TransactionClient([a.address, b.address]) as client:
        txns = [await client.begin() for _ in range(8)]
        for txn in txns:
            await txn.enlist(WORK)
        ending = await txns[0].commit()
        assert isinstance(ending, Committed)
        await a.die()
        for txn in txns[1:]:
            ending = await txn.commit()
            if txn.xid.incarnation == b.incarnation.number:
                assert isinstance(ending, Committed)
            else:
                assert isinstance(ending, RolledBack)
                assert ending.retry
        assert isinstance(await client.execute(WORK), Committed)
        state = await client.get_transaction(txns[0].xid)
        assert state.phase == "COMMITTED"
