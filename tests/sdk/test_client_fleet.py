"""A client of several coordinators: any of them takes any call, whoever began the transaction."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc
import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import UnavailableError
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.coordinators import TRY_MAX_S
from participant_sdk.faults import Way, proxying
from participant_sdk.operations import OperationLike
from tests.api.fleet import Fleet, fleet
from tests.sdk.scripted import COMMITTED, Scripted, serving_script
from tests.sdk.small_system import LEFT, RIGHT, System, system

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def world() -> AsyncIterator[System]:
    async with system() as around:
        yield around


@pytest.fixture
async def place(world: System) -> AsyncIterator[Fleet]:
    async with fleet(world) as place:
        yield place


def transfer() -> list[OperationLike]:
    parameters = {"from": "a", "to": "b", "amount": "1"}
    return [(LEFT, "transfer", parameters), (RIGHT, "transfer", parameters)]


async def test_a_transaction_is_ended_through_any_coordinator_while_its_owner_lives(
    world: System, place: Fleet
) -> None:
    """R19: the client lost its way to the owner in the midst of it; the other one passes the call on."""
    one, two = await place.start("one"), await place.start("two")
    async with (
        proxying(one.address) as way,
        proxying(two.address) as detour,
        TransactionClient([way.address, detour.address], timeout_s=20) as client,
    ):
        for _ in range(2):
            txn = await client.begin()
            await txn.enlist(transfer())
            lost = way if one.holds(str(txn.xid)) else detour
            lost.cut(refuse=True)
            assert isinstance(await txn.commit(), Committed)
            lost.restore()
    assert world.effects(LEFT) == world.effects(RIGHT) == 2


async def test_a_transaction_whose_owner_died_is_told_as_rolled_back_by_another(world: System, place: Fleet) -> None:
    """Until the fence the answer is "not now", which the client takes for what it is: ask again."""
    nodes = [await place.start("one"), await place.start("two")]
    async with TransactionClient([node.address for node in nodes], timeout_s=20) as client:
        txn = await client.begin()
        await txn.enlist(transfer())
        await next(node for node in nodes if node.holds(str(txn.xid))).die()
        ending = await txn.commit()
        assert isinstance(ending, RolledBack)
        assert ending.retry
        # And the next one goes to whoever lives.
        assert isinstance(await client.execute(transfer()), Committed)
    assert world.effects(LEFT) == world.effects(RIGHT) == 1


async def test_a_forwarder_that_cannot_reach_the_owner_is_asked_again() -> None:
    """UNAVAILABLE is no outcome: each coordinator in turn, until one says."""
    two = [Scripted(commit=[UNAVAILABLE, UNAVAILABLE, COMMITTED]) for _ in range(2)]
    async with (
        serving_script(two[0]) as one,
        serving_script(two[1]) as other,
        TransactionClient([one, other]) as client,
    ):
        txn = await client.begin()
        assert isinstance(await txn.commit(), Committed)
    assert all("commit" in scripted.calls for scripted in two)


async def test_a_silent_coordinator_is_left_soon_and_nothing_is_done_twice(world: System, place: Fleet) -> None:
    """A frozen process keeps its connections: only that it says nothing tells of it, and pings do so too late."""
    one, two = await place.start("one"), await place.start("two")
    async with (
        proxying(one.address) as way,
        proxying(two.address) as detour,
        TransactionClient([way.address, detour.address], timeout_s=40) as client,
    ):
        txn = await client.begin()
        await txn.enlist(transfer())
        silent = way if one.holds(str(txn.xid)) else detour
        silent.hold(Way.DOWN)
        began_s = time.monotonic()
        assert isinstance(await txn.commit(), Committed)
        assert TRY_MAX_S <= time.monotonic() - began_s < 2 * TRY_MAX_S
        silent.release(Way.DOWN)
    assert world.effects(LEFT) == world.effects(RIGHT) == 1


async def test_what_decides_nothing_is_asked_of_the_next_coordinator_when_one_is_silent(place: Fleet) -> None:
    """Begin too, though the same one would be asked twice where it answers: what it may have begun ends by itself."""
    nodes = [await place.start("one"), await place.start("two")]
    async with (
        proxying(nodes[0].address) as way,
        proxying(nodes[1].address) as detour,
        TransactionClient([way.address, detour.address], timeout_s=40) as client,
    ):
        txn = await client.begin()
        silent = way if nodes[0].holds(str(txn.xid)) else detour
        silent.hold(Way.DOWN)
        began_s = time.monotonic()
        other = await client.begin()
        assert (await client.get_transaction(other.xid)).phase == "ACTIVE"
        assert time.monotonic() - began_s < 2 * TRY_MAX_S
        silent.release(Way.DOWN)


async def test_an_enlist_that_a_silent_coordinator_may_have_done_is_not_repeated(place: Fleet) -> None:
    """The caller is told soon, and rolls back: how it ended is known."""
    nodes = [await place.start("one"), await place.start("two")]
    async with (
        proxying(nodes[0].address) as way,
        proxying(nodes[1].address) as detour,
        TransactionClient([way.address, detour.address], timeout_s=40) as client,
    ):
        txn = await client.begin()
        silent = way if nodes[0].holds(str(txn.xid)) else detour
        silent.hold(Way.DOWN)
        began_s = time.monotonic()
        with pytest.raises(UnavailableError, match="roll it back"):
            await txn.enlist(transfer())
        assert isinstance(await txn.rollback(), RolledBack)
        assert time.monotonic() - began_s < 2 * TRY_MAX_S
        silent.release(Way.DOWN)


async def test_what_may_be_repeated_is_asked_for_at_the_next_coordinator(place: Fleet) -> None:
    """Rollback-only is; an Enlist without an answer is not, for a second one would add the work twice."""
    one, two = await place.start("one"), await place.start("two")
    async with (
        proxying(one.address) as way,
        proxying(two.address) as detour,
        TransactionClient([way.address, detour.address], timeout_s=20) as client,
    ):
        txn = await client.begin()
        lost = way if one.holds(str(txn.xid)) else detour
        lost.cut(refuse=True)
        with pytest.raises(UnavailableError, match="roll it back"):
            await txn.enlist(transfer())
        lost.restore()
        txn = await client.begin()
        lost = way if one.holds(str(txn.xid)) else detour
        lost.cut(refuse=True)
        await txn.set_rollback_only("changed my mind")
        assert isinstance(await txn.commit(), RolledBack)
