"""kill -9 at the moments that matter, with real processes and servers.

The moment is chosen by holding one way of the link between coordinator and participants: what
must not have happened yet is waiting in the proxy, and what must have happened is read from
the databases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from participant_sdk.faults import Way
from tests.conftest import MakeDatabase
from tests.crash.processes import SERVICES, Cluster, cluster

pytestmark = pytest.mark.timeout(180)

LOCK = ("bookkeeper", "lock_funds", {"user_id": "123", "currency": "BTC", "amount": "0.5"})
PLACE = (
    "trading",
    "place_order",
    {"user_id": "123", "symbol": "BTC/USD", "side": "sell", "amount": "0.5", "price": "50000"},
)


@pytest.fixture
async def running(tmp_path: Path, databases: MakeDatabase) -> AsyncGenerator[Cluster]:
    async with cluster(tmp_path, databases) as up:
        opened = await up.execute(
            ("bookkeeper", "open_account", {"user_id": "123", "currency": "BTC"}),
            ("bookkeeper", "credit_account", {"user_id": "123", "currency": "BTC", "amount": "2"}),
        )
        assert opened.json()["state"] == "COMMITTED"
        yield up


async def prepared_xid(up: Cluster, service: str) -> str | None:
    """The transaction of the one branch that is prepared at a participant; None while there is none."""
    found = await up.rows(service, "SELECT xid::text FROM pincex.branches WHERE phase = 2")
    assert len(found) <= 1
    return str(found[0][0]) if found else None


async def both_prepared(up: Cluster) -> bool:
    """Both participants hold a prepared branch of the example."""
    xids = [await prepared_xid(up, service) for service in SERVICES]
    return xids[0] is not None and xids[0] == xids[1]


async def both_ended(up: Cluster, xid: str, phase: int) -> bool:
    """Both participants' branches of the transaction are in this phase."""
    found = [await up.rows(service, "SELECT xid::text, phase FROM pincex.branches") for service in SERVICES]
    return all((xid, phase) in rows for rows in found)


async def commits(up: Cluster) -> int:
    """How many COMMIT decisions with both participants are durable."""
    ((count,),) = await up.rows(
        "txlog", "SELECT count(*) FROM txlog.decisions WHERE decision = 1 AND cardinality(prepared) = 2"
    )
    assert isinstance(count, int)
    return count


async def locked(up: Cluster) -> Decimal:
    ((amount,),) = await up.rows("bookkeeper", "SELECT coalesce(sum(locked), 0) FROM bookkeeper.accounts")
    assert isinstance(amount, Decimal)
    return amount


async def open_orders(up: Cluster) -> int:
    ((count,),) = await up.rows("trading", "SELECT count(*) FROM trading.orders WHERE status = 2")
    assert isinstance(count, int)
    return count


async def given_up(call: asyncio.Task[httpx.Response]) -> None:
    """The client's call ends with its coordinator: no answer, so no outcome."""
    with pytest.raises(httpx.TransportError):
        await call


COMMITTED, ROLLED_BACK = 3, 4


async def test_coordinator_killed_after_the_decision_and_before_anybody_heard(running: Cluster) -> None:
    """R1: on restart both sides are applied."""
    for proxy in running.proxies.values():
        proxy.hold(Way.DOWN)
    call = asyncio.create_task(running.execute(LOCK, PLACE))
    await running.until(lambda: both_prepared(running))
    xid = await prepared_xid(running, "trading")
    assert xid is not None
    # The Prepares are through, the votes wait; now nothing more goes up, so no Commit will.
    for proxy in running.proxies.values():
        proxy.hold(Way.UP)
        proxy.release(Way.DOWN)

    async def decided() -> bool:
        return await commits(running) == 1

    await running.until(decided)
    running.coordinator.kill()
    await given_up(call)
    assert await both_prepared(running), "nobody has heard"
    for proxy in running.proxies.values():
        proxy.cut()
        proxy.restore()
    running.coordinator.start()
    await running.until(lambda: both_ended(running, xid, COMMITTED))
    assert await locked(running) == Decimal("0.5")
    assert await open_orders(running) == 1


async def test_coordinator_killed_before_the_decision(running: Cluster) -> None:
    """R7: no record of a fenced incarnation's transaction means ROLLBACK; both are released."""
    for proxy in running.proxies.values():
        proxy.hold(Way.DOWN)
    call = asyncio.create_task(running.execute(LOCK, PLACE))
    await running.until(lambda: both_prepared(running))
    xid = await prepared_xid(running, "trading")
    assert xid is not None
    running.coordinator.kill()
    await given_up(call)
    for proxy in running.proxies.values():
        proxy.cut()
        proxy.restore()
    assert await commits(running) == 0
    running.coordinator.start()
    await running.until(lambda: both_ended(running, xid, ROLLED_BACK))
    assert await locked(running) == 0
    assert await open_orders(running) == 0


@pytest.mark.parametrize("victim", SERVICES)
async def test_participant_killed_after_its_vote_learns_the_outcome(running: Cluster, victim: str) -> None:
    """R8, R12: its vote survives it, and so does what was decided."""
    running.proxies[victim].hold(Way.DOWN)
    call = asyncio.create_task(running.execute(LOCK, PLACE))
    await running.until(lambda: both_prepared(running))
    xid = await prepared_xid(running, "trading")
    assert xid is not None
    running.proxies[victim].hold(Way.UP)
    running.proxies[victim].release(Way.DOWN)

    async def decided() -> bool:
        return await commits(running) == 1

    await running.until(decided)
    running.sidecars[victim].kill()
    running.proxies[victim].cut()
    running.proxies[victim].restore()
    assert await prepared_xid(running, victim) == xid, "it has not heard"
    running.sidecars[victim].start()
    answer = (await call).json()
    assert answer["state"] == "COMMITTED"
    await running.until(lambda: both_ended(running, xid, COMMITTED))
    assert await locked(running) == Decimal("0.5")
    assert await open_orders(running) == 1


async def test_participant_killed_before_its_vote_is_heard_is_rolled_back(running: Cluster) -> None:
    """R2: a vote that does not come is "no", whatever the branch says of itself."""
    running.proxies["trading"].hold(Way.DOWN)
    call = asyncio.create_task(running.execute(LOCK, PLACE))
    await running.until(lambda: both_prepared(running))
    xid = await prepared_xid(running, "trading")
    assert xid is not None
    running.sidecars["trading"].kill()
    running.proxies["trading"].cut()
    answer = (await call).json()
    assert answer["state"] == "ROLLED_BACK"
    assert "trading" in answer["message"]
    running.proxies["trading"].restore()
    running.sidecars["trading"].start()
    await running.until(lambda: both_ended(running, xid, ROLLED_BACK))
    assert await locked(running) == 0
    assert await open_orders(running) == 0
