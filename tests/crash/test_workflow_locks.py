"""Locks of workflows in a real Redis: held while one runs, by whoever runs it, and losing Redis loses time only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx
import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.faults import Way
from tests.conftest import MakeDatabase
from tests.crash.exchange import HOUSE
from tests.crash.processes import Cluster, cluster
from tests.crash.workflow_calls import Json, begin, run
from tests.redis_servers import RedisServer, redis_server

pytestmark = pytest.mark.timeout(240)

KEY: Final = "account/seller/BTC"
SALE: Final = {"user_id": "seller", "fee": "0.25"}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    async with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def shop(tmp_path: Path, databases: MakeDatabase, redis: RedisServer) -> AsyncGenerator[Cluster]:
    locks = {"store": redis.dsn, "ttl": "3s", "lock_timeout": "8s"}
    modules = ["tests.crash.exchange"]
    async with cluster(tmp_path, databases, coordinators=2, workflows=modules, more={"locks": locks}) as up:
        account = {"user_id": "seller", "currency": "BTC"}
        opened = await up.execute(
            ("bookkeeper", "open_account", {"user_id": HOUSE, "currency": "BTC"}),
            ("bookkeeper", "open_account", account),
            ("bookkeeper", "credit_account", {**account, "amount": "5"}),
        )
        assert opened.json()["state"] == "COMMITTED", opened.text
        yield up


async def asked(up: Cluster, path: str) -> Json:
    """What the last coordinator answers, which nobody kills."""
    url = f"http://{up.coordinators[-1].http}/api/v1/transactions/{path}"
    told: Json = (await up.client.get(url)).json()
    return told


async def holder(up: Cluster) -> Json | None:
    """Who holds the key."""
    locks = {each["key"]: each for each in (await asked(up, "locks"))["locks"]}
    holders = locks.get(KEY, {"holders": []})["holders"]
    return holders[0] if holders else None


async def workflow(up: Cluster, name: str) -> Json:
    found = [each for each in (await asked(up, "workflows"))["workflows"] if each["request_id"] == name]
    return found[0] if found else {"state": "", "steps": []}


async def until_ended(up: Cluster, name: str, state: str = "COMPLETED") -> Json:
    async def has_ended() -> bool:
        return (await workflow(up, name))["state"] == state

    await up.until(has_ended)
    return await workflow(up, name)


async def until_held_by(up: Cluster, name: str, incarnation: int = 0) -> Json:
    """Wait until a workflow holds the key, and has asked for a step; at another incarnation than this."""

    async def is_held() -> bool:
        found = await workflow(up, name)
        if not found["steps"] or found["incarnation"] == incarnation:
            return False
        held = await holder(up)
        return held is not None and found["workflow_id"] in str(held)

    await up.until(is_held)
    return await workflow(up, name)


async def balance(up: Cluster) -> Decimal:
    rows = await up.rows("bookkeeper", "select balance from bookkeeper.accounts where user_id = 'seller'")
    return Decimal(str(rows[0][0]))


async def test_two_of_one_key_run_one_after_the_other(shop: Cluster) -> None:
    shop.proxies["trading"].hold(Way.UP)
    await begin(shop, "first", "sells", SALE, lock_keys=[KEY])
    await until_held_by(shop, "first")
    await begin(shop, "second", "sells", SALE, lock_keys=[KEY])

    async def waits() -> bool:
        second = (await workflow(shop, "second")).get("workflow_id", "none")
        return any(second in str(each["waiters"]) for each in (await asked(shop, "locks"))["locks"])

    await shop.until(waits)
    assert (await workflow(shop, "second"))["steps"] == []
    shop.proxies["trading"].restore()
    first, second = await until_ended(shop, "first"), await until_ended(shop, "second")
    assert second["steps"][0]["began_at"] >= first["ended_at"]
    assert await balance(shop) == Decimal("4.5")


async def test_whoever_takes_it_over_holds_its_keys(shop: Cluster) -> None:
    shop.proxies["trading"].hold(Way.UP)
    await begin(shop, "taken-over", "sells", SALE, lock_keys=[KEY])
    before = await until_held_by(shop, "taken-over")
    shop.coordinator.kill()
    after = await until_held_by(shop, "taken-over", before["incarnation"])
    assert after["lock_keys"] == [KEY]
    shop.proxies["trading"].restore()
    await until_ended(shop, "taken-over")
    assert await balance(shop) == Decimal("4.75")


async def test_losing_redis_loses_time_only(shop: Cluster, redis: RedisServer) -> None:
    """Flushed and killed under one that runs, it completes; one that cannot lock begins nothing."""
    shop.proxies["trading"].hold(Way.UP)
    await begin(shop, "runs", "sells", SALE, lock_keys=[KEY])
    await until_held_by(shop, "runs")
    token = (await holder(shop) or {})["token"]
    await redis.say("FLUSHALL")

    async def is_held_anew() -> bool:
        held = await holder(shop)
        return held is not None and held["token"] > token

    await shop.until(is_held_anew)
    await asyncio.to_thread(redis.kill)
    told = await run(shop, "sells", SALE, lock_keys=[KEY], timeout_seconds=2)
    assert (told["state"], told["failure"]["code"], told["steps"]) == ("COMPENSATED", "LOCK_STORE_UNAVAILABLE", [])
    shop.proxies["trading"].restore()
    await until_ended(shop, "runs")
    await redis.start()
    assert await balance(shop) == Decimal("4.75")


async def test_a_key_that_a_transaction_holds_is_waited_for_and_then_given_up(shop: Cluster) -> None:
    async with TransactionClient([shop.coordinators[0].grpc]) as client:
        held = await client.begin(timeout_s=60.0, lock_keys=[KEY])
        told = await run(shop, "sells", SALE, lock_keys=[KEY], timeout_seconds=1)
        assert (told["state"], told["failure"]["code"], told["steps"]) == ("COMPENSATED", "LOCK_TIMEOUT", [])
        assert str(held.xid) in told["failure"]["message"]
        await held.rollback()
    answer = await shop.client.get(f"http://{shop.coordinators[0].http}/metrics")
    assert isinstance(answer, httpx.Response)
    assert 'pincex_workflows_started_total{workflow_type="sells"} 1.0' in answer.text
    assert 'pincex_workflows_ended_total{state="COMPENSATED",workflow_type="sells"} 1.0' in answer.text
    assert "pincex_workflows_running 0.0" in answer.text
    assert "pincex_workflows_stuck 0.0" in answer.text
    assert await balance(shop) == Decimal(5)
