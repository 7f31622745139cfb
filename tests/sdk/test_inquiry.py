"""A participant in doubt: it asks until it knows, and never decides alone (R12)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from pincex.tx.v1 import transaction_pb2

from participant_sdk.branch import BranchPhase
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.grpc_coordinators import GrpcCoordinators
from participant_sdk.hello import Introduction
from participant_sdk.inquiry import BRANCHES_MAX, DecisionSource, Inquiry, NoAnswerError
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Prepare, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving
from participant_sdk.worker import Workers
from participant_sdk.xa import DecisionState
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, NAME, memory, transfer

COMMIT = DecisionAnswer(DecisionState.COMMIT, EPOCH, 3, epoch=EPOCH)
ROLLBACK = DecisionAnswer(DecisionState.ROLLBACK, epoch=EPOCH)
PENDING = DecisionAnswer(DecisionState.PENDING, epoch=EPOCH)
FORGOTTEN = DecisionAnswer(DecisionState.FORGOTTEN, epoch=EPOCH)
Say = Callable[[DecisionQuery], DecisionAnswer | None]


class Oracle:
    """Coordinators by address, each of which says what the test lets it say; None is silence."""

    def __init__(self, says: Mapping[str, Say]) -> None:
        self.says = dict(says)
        self.asked: list[tuple[str, DecisionQuery]] = []
        self._changed = asyncio.Event()

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        self.asked.append((address, query))
        self._changed.set()
        answer = self.says[address](query)
        if answer is None:
            raise NoAnswerError("silence")
        return answer

    async def asked_times(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < times:
                self._changed.clear()
                await self._changed.wait()


async def in_doubt(resource: MemoryResource, count: int = 1) -> list[Prepare]:
    branches = [transfer() for _ in range(count)]
    await resource.apply(Work(prepares=branches))
    return branches


async def known(resource: MemoryResource, addresses: Sequence[str]) -> KnownLogs:
    logs = KnownLogs(resource, clock=CLOCK)
    await logs.greet(Introduction(LOG_ID, "c", EPOCH, EPOCH, tuple(addresses)), CLOCK.unix_ms())
    return logs


@asynccontextmanager
async def inquiring(
    resource: MemoryResource, logs: KnownLogs, source: DecisionSource, addresses: Sequence[str] = ()
) -> AsyncGenerator[Inquiry]:
    workers = Workers(resource, clock=CLOCK)
    inquiry = Inquiry(
        resource,
        workers,
        logs,
        source,
        clock=CLOCK,
        jitter=random.Random(1),
        addresses=addresses,
        patience_s=0.02,
        backoff_cap_s=0.02,
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(workers.run()), group.create_task(inquiry.run())]
        yield inquiry
        for task in tasks:
            task.cancel()


async def until_phase(resource: MemoryResource, one: Prepare, phase: BranchPhase) -> None:
    async with asyncio.timeout(20):
        while True:
            found = await resource.branch(LOG_ID, one.xid)
            if found is not None and found.phase is phase:
                return
            await asyncio.sleep(0)


async def test_commit_and_rollback_are_followed() -> None:
    """The answer's incarnation and sequence travel on, so that the watermark is right (R15)."""
    resource = memory()
    one, two = await in_doubt(resource, 2)
    oracle = Oracle({"c1": lambda query: COMMIT if query.xid == one.xid else ROLLBACK})
    async with inquiring(resource, await known(resource, ["c1"]), oracle):
        await until_phase(resource, one, BranchPhase.COMMITTED)
        await until_phase(resource, two, BranchPhase.ROLLED_BACK)
    assert dict(await resource.watermarks(LOG_ID)) == {EPOCH: 3}
    assert oracle.asked[0][1] == DecisionQuery(LOG_ID, one.xid, NAME, (NAME,), EPOCH)
    assert not resource.invariants()


async def test_pending_leads_to_the_owner_at_once() -> None:
    """R7: a coordinator that does not own the transaction names who does."""
    resource = memory()
    (one,) = await in_doubt(resource)
    oracle = Oracle(
        {
            "c1": lambda _: DecisionAnswer(DecisionState.PENDING, owner_address="c9", epoch=EPOCH),
            "c9": lambda _: COMMIT,
        }
    )
    async with inquiring(resource, await known(resource, ["c1"]), oracle):
        await until_phase(resource, one, BranchPhase.COMMITTED)
    assert [address for address, _ in oracle.asked[:2]] == ["c1", "c9"]


async def test_each_coordinator_of_the_latest_introduction_is_asked_in_turn() -> None:
    """R12: three of them, and none can say; then they are replaced, and only the new one is asked."""
    resource = memory()
    (one,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda _: None, "c2": lambda _: None, "c3": lambda _: PENDING})
    logs = await known(resource, ["c1", "c2", "c3"])
    async with inquiring(resource, logs, oracle):
        while {address for address, _ in oracle.asked} != {"c1", "c2", "c3"}:
            await oracle.asked_times(len(oracle.asked) + 1)
        # Each time it begins with another one, and goes through all of them.
        await oracle.asked_times(9)
        asked = [address for address, _ in oracle.asked]
        assert asked[:9] == ["c1", "c2", "c3", "c2", "c3", "c1", "c3", "c1", "c2"]
        oracle.says["c4"] = lambda _: COMMIT
        await logs.greet(Introduction(LOG_ID, "c", EPOCH, EPOCH, ("c4",)), CLOCK.unix_ms())
        before = len(oracle.asked)
        await until_phase(resource, one, BranchPhase.COMMITTED)
    assert {address for address, _ in oracle.asked[before:][-1:]} == {"c4"}


async def test_it_asks_for_ever_and_never_decides_alone() -> None:
    """R12: pending, silence and failure leave the branch as it is, however often."""
    resource = memory()
    (one,) = await in_doubt(resource)
    says: list[DecisionAnswer | None] = [PENDING, None]
    oracle = Oracle({"c1": lambda _: says[len(oracle.asked) % 2], "c2": lambda _: None})
    async with inquiring(resource, await known(resource, ["c1"]), oracle, addresses=["c2"]):
        await oracle.asked_times(30)
        await until_phase(resource, one, BranchPhase.PREPARED)
        oracle.says["c1"] = lambda _: COMMIT
        await until_phase(resource, one, BranchPhase.COMMITTED)


async def test_any_coordinator_can_answer() -> None:
    """Configured and learned addresses are asked in turn."""
    resource = memory()
    (one,) = await in_doubt(resource)
    oracle = Oracle({"gone": lambda _: None, "alive": lambda _: ROLLBACK})
    async with inquiring(resource, await known(resource, ["alive"]), oracle, addresses=["gone"]):
        await until_phase(resource, one, BranchPhase.ROLLED_BACK)
    assert [address for address, _ in oracle.asked[:2]] == ["gone", "alive"]


async def test_a_forgotten_transaction_is_an_alert_and_left_alone() -> None:
    """R7: FORGOTTEN is shown to an operator, never guessed."""
    resource = memory()
    (one,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda _: FORGOTTEN})
    async with inquiring(resource, await known(resource, ["c1"]), oracle) as inquiry:
        await oracle.asked_times(5)
        assert inquiry.forgotten == 1
        assert inquiry.in_doubt == 1
        await until_phase(resource, one, BranchPhase.PREPARED)


async def test_an_answer_of_an_older_epoch_is_not_believed() -> None:
    """R15: a coordinator that outlived its log's timeline says nothing that counts."""
    resource = memory()
    await resource.adopt_epoch(LOG_ID, EPOCH + 1)
    (one,) = await in_doubt(resource)
    oracle = Oracle({"old": lambda _: ROLLBACK, "new": lambda _: None})
    logs = KnownLogs(resource, clock=CLOCK)
    await logs.greet(Introduction(LOG_ID, "c", EPOCH + 1, EPOCH + 1, ("old", "new")), CLOCK.unix_ms())
    async with inquiring(resource, logs, oracle):
        await oracle.asked_times(6)
        await until_phase(resource, one, BranchPhase.PREPARED)
        oracle.says["new"] = lambda _: DecisionAnswer(DecisionState.COMMIT, EPOCH, 3, epoch=EPOCH + 2)
        await until_phase(resource, one, BranchPhase.COMMITTED)
    assert logs.epoch(LOG_ID) == EPOCH + 2


async def test_a_branch_is_not_asked_about_before_its_time() -> None:
    """At start everything in doubt is asked about at once; later, what has been in doubt for a while."""
    resource = memory()
    (old,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda _: PENDING})
    logs = await known(resource, ["c1"])
    workers = Workers(resource, clock=CLOCK)
    inquiry = Inquiry(resource, workers, logs, oracle, clock=CLOCK, jitter=random.Random(1), patience_s=3600.0)
    await inquiry.look()
    (young,) = await in_doubt(resource)
    await inquiry.look()
    assert [query.xid for _, query in oracle.asked] == [old.xid]
    assert inquiry.in_doubt == 1
    assert young.xid != old.xid


async def test_many_branches_are_brought_to_their_end() -> None:
    """More than a page, after an outage: each is asked about and followed."""
    resource = memory(MemoryStore({"a": 10_000, "b": 0}))
    branches = await in_doubt(resource, 1_200)
    oracle = Oracle({"c1": lambda _: COMMIT})
    async with inquiring(resource, await known(resource, ["c1"]), oracle):
        await until_phase(resource, branches[-1], BranchPhase.COMMITTED)
        await until_phase(resource, branches[0], BranchPhase.COMMITTED)
    assert not resource.invariants()


async def test_branches_that_nobody_can_end_do_not_keep_younger_ones_from_asking() -> None:
    """R12: each look at a log goes on where the last one had enough; nothing is alerted about twice."""
    resource = memory(MemoryStore({"a": 2 * BRANCHES_MAX, "b": 0}))
    await in_doubt(resource, BRANCHES_MAX)
    (young,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda query: COMMIT if query.xid == young.xid else FORGOTTEN})
    workers = Workers(resource, clock=CLOCK)
    logs = await known(resource, ["c1"])
    inquiry = Inquiry(resource, workers, logs, oracle, clock=CLOCK, jitter=random.Random(1), patience_s=0.0)
    await inquiry.look()
    assert (inquiry.forgotten, inquiry.in_doubt) == (BRANCHES_MAX, BRANCHES_MAX)
    await inquiry.look()
    assert oracle.asked[-1][1].xid == young.xid
    assert inquiry.in_doubt == BRANCHES_MAX + 1
    for _ in range(2):
        await inquiry.look()
    assert (inquiry.forgotten, inquiry.in_doubt) == (BRANCHES_MAX, BRANCHES_MAX + 1)


class Broken(Oracle):
    """Fails, in a way that nobody foresaw, when asked about one branch; slow to let go of the others."""

    def __init__(self, bad: Prepare) -> None:
        super().__init__({})
        self.bad = bad
        self.failed = asyncio.Event()

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        if query.xid == self.bad.xid:
            self.failed.set()
            raise RuntimeError("nobody foresaw it")
        try:
            await self.failed.wait()
            # Lets a group that ends because of the failure begin to end.
            await asyncio.sleep(0.01)
        finally:
            await asyncio.sleep(0.01)
        return COMMIT


async def test_a_question_that_fails_unforeseen_is_its_own_branchs_matter() -> None:
    resource = memory()
    bad, good = await in_doubt(resource, 2)
    async with inquiring(resource, await known(resource, ["c1"]), Broken(bad)) as inquiry:
        await until_phase(resource, good, BranchPhase.COMMITTED)
        assert inquiry.failures
        await until_phase(resource, bad, BranchPhase.PREPARED)


async def test_a_cancellation_that_comes_with_a_failure_ends_the_asking() -> None:
    """A task group that ends because of an error forgets it in Python 3.11, and asking would go on for ever."""
    resource = memory()
    bad, _ = await in_doubt(resource, 2)
    source = Broken(bad)
    logs = await known(resource, ["c1"])
    workers = Workers(resource, clock=CLOCK)
    inquiry = Inquiry(resource, workers, logs, source, clock=CLOCK, jitter=random.Random(1), patience_s=0.02)
    task = asyncio.ensure_future(inquiry.run())
    await source.failed.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


class Flaky(MemoryResource):
    """Its store is away at first."""

    fails_left = 3

    async def log_ids(self) -> Sequence[str]:
        self.fails_left -= 1
        if self.fails_left > 0:
            raise ConnectionError("no database")
        return (LOG_ID,)


async def test_a_store_that_fails_is_asked_again() -> None:
    """Asking goes on for ever, whatever the participant's own code raises meanwhile."""
    resource = Flaky(NAME, MemoryStore({"a": 10, "b": 0}), CLOCK)
    (one,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda _: ROLLBACK})
    async with inquiring(resource, KnownLogs(resource, clock=CLOCK), oracle, addresses=["c1"]) as inquiry:
        await until_phase(resource, one, BranchPhase.ROLLED_BACK)
        assert inquiry.failures == 2


class Remembering(MemoryResource):
    """Knows after a restart which log's branches it holds."""

    async def log_ids(self) -> Sequence[str]:
        return (LOG_ID,)


class Answering:
    """GetDecision of a real TransactionService; every other call is out of its part."""

    def __init__(self, answer: transaction_pb2.GetDecisionResponse) -> None:
        self.requests: list[transaction_pb2.GetDecisionRequest] = []
        self._answer = answer

    async def get_decision(
        self, request: transaction_pb2.GetDecisionRequest, _context: object
    ) -> transaction_pb2.GetDecisionResponse:
        self.requests.append(request)
        return self._answer


@asynccontextmanager
async def coordinator(answering: Answering) -> AsyncGenerator[str]:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        answering.get_decision,  # pyright: ignore[reportArgumentType]  The stubs know no coroutines here.
        transaction_pb2.GetDecisionRequest.FromString,
        transaction_pb2.GetDecisionResponse.SerializeToString,
    )
    service = "pincex.tx.v1.TransactionService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GetDecision": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_a_served_participant_asks_over_grpc() -> None:
    """The whole way: a process that finds a branch in doubt at its start and follows the answer."""
    resource = Remembering(NAME, MemoryStore({"a": 10, "b": 0}), CLOCK)
    (one,) = await in_doubt(resource)
    answering = Answering(
        transaction_pb2.GetDecisionResponse(
            decision=transaction_pb2.DECISION_STATE_COMMIT, incarnation=EPOCH, sequence=9, epoch=EPOCH
        )
    )

    async with (
        coordinator(answering) as address,
        serving(resource, "127.0.0.1:0", coordinators=["127.0.0.1:1", address], patience_s=0.1),
    ):
        await until_phase(resource, one, BranchPhase.COMMITTED)
    request = answering.requests[0]
    assert (request.xid, request.participant, request.log_id) == (str(one.xid), NAME, LOG_ID)


async def test_an_answer_that_says_nothing_is_none() -> None:
    """UNSPECIFIED, and COMMIT without its place in the log, end no doubt."""
    query = DecisionQuery(LOG_ID, transfer().xid, NAME)
    nothing = transaction_pb2.GetDecisionResponse()
    placeless = transaction_pb2.GetDecisionResponse(decision=transaction_pb2.DECISION_STATE_COMMIT)
    for said in (nothing, placeless):
        async with coordinator(Answering(said)) as address, GrpcCoordinators() as coordinators:
            with pytest.raises(NoAnswerError):
                await coordinators.decision(address, query)
    async with GrpcCoordinators() as coordinators:
        with pytest.raises(NoAnswerError):
            await coordinators.decision("127.0.0.1:1", query)
