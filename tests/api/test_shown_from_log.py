"""What is shown of a transaction whose coordinator is gone: what the log tells, and nothing that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.finishes import KEPT_S
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.ids import Xid
from participant_sdk.xa import Heuristic
from tests.api.doors import transfer
from tests.api.fleet import Fleet, Node, fleet
from tests.sdk.small_system import LEFT, RIGHT, system

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def place() -> AsyncIterator[Fleet]:
    async with system() as around, fleet(around) as place:
        yield place


async def shown(node: Node, xid: str) -> transaction_pb2.TransactionResult:
    return (await node.stub.GetTransaction(transaction_pb2.GetTransactionRequest(xid=xid))).transaction.result


def done(result: transaction_pb2.TransactionResult) -> dict[str, bool]:
    return {branch.participant: branch.done for branch in result.branches}


async def test_what_was_finished_before_its_coordinator_went_is_shown_as_done(place: Fleet) -> None:
    a = await place.start("a")
    xid = (await a.stub.Execute(transfer())).result.xid
    await a.assembly.life.resign()
    await a.die()
    b = await place.start("b")
    result = await shown(b, xid)
    assert (result.phase, result.applied) == (common_pb2.PHASE_COMMITTED, True)
    assert done(result) == {LEFT: True, RIGHT: True}
    assert not b.holds(xid)


async def test_heuristic_ends_are_shown_after_a_restart_as_before(place: Fleet) -> None:
    a = await place.start("a")
    xid = (await a.stub.Execute(transfer())).result.xid
    await place.memory().record_heuristics([HeuristicRecord(Xid.parse(xid), RIGHT, Heuristic.ROLLBACK, "by hand")])
    await a.assembly.life.resign()
    await a.die()
    result = await shown(await place.start("b"), xid)
    assert result.heuristic == common_pb2.HEURISTIC_MIXED
    ends = {branch.participant: branch.heuristic for branch in result.branches}
    assert ends == {LEFT: common_pb2.HEURISTIC_UNSPECIFIED, RIGHT: common_pb2.HEURISTIC_ROLLBACK}


async def test_what_another_coordinator_took_over_is_not_done_before_it_is(place: Fleet) -> None:
    """The one that is asked holds nothing of it: the checkpoint says what is left."""
    a = await place.start("a")
    # Its vote passes, and no flush after that.
    place.around.taps[RIGHT].shut_after(1)
    request = transfer()
    request.wait = transaction_pb2.WAIT_DECIDED
    xid = (await a.stub.Execute(request)).result.xid
    await a.assembly.life.resign()
    await a.die()
    b = await place.start("b")
    async with asyncio.timeout(10):
        while not b.holds(xid):  # noqa: ASYNC110 - taking over has no event for us.
            await asyncio.sleep(0.01)
    c = await place.start("c")
    result = await shown(c, xid)
    assert not result.applied
    assert not done(result)[RIGHT]
    assert not c.holds(xid)
    place.around.taps[RIGHT].open()
    async with asyncio.timeout(10 + KEPT_S):
        while not (await shown(c, xid)).applied:  # noqa: ASYNC110 - b's checkpoint has no event for us.
            await asyncio.sleep(0.05)
