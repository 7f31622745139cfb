"""Redis under a real coordinator: killed, flushed, failed over while transfers lock their accounts; and deadlocks.

Time may be lost, and never money: what clients were told is what the ledger says, to the last cent, and the
tokens that the bookkeeper has seen only rise.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import DeadlockError
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.resources.invariants import violations
from sidecars.bookkeeper.operations import SERVICE
from tests.conftest import MakeDatabase
from tests.crash.processes import Cluster, cluster
from tests.redis_servers import Failover, failover

pytestmark = pytest.mark.timeout(300)

USERS = [f"user-{number}" for number in range(6)]
OPENING = Decimal(1000)
CLIENTS = 8


class Ledger:
    """What the clients were told: their own record."""

    def __init__(self) -> None:
        self.moved: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.running = True

    def take(self, source: str, target: str, ending: Committed | RolledBack) -> None:
        match ending:
            case Committed():
                self.moved[source] -= 1
                self.moved[target] += 1
                self.told["committed"] += 1
            case RolledBack():
                self.told[ending.reason] += 1


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncGenerator[Failover]:
    async with failover(tmp_path) as servers:
        yield servers


@pytest.fixture
async def running(tmp_path: Path, databases: MakeDatabase, redis: Failover) -> AsyncGenerator[Cluster]:
    locks = {"store": redis.dsn, "ttl": "3s", "lock_timeout": "8s"}
    async with cluster(tmp_path, databases, coordinators=2, more={"locks": locks}) as up:
        for user in USERS:
            money = {"user_id": user, "currency": "USD"}
            opened = await up.execute(
                ("bookkeeper", "open_account", money),
                ("bookkeeper", "credit_account", {**money, "amount": str(OPENING)}),
            )
            assert opened.json()["state"] == "COMMITTED", opened.text
        yield up


async def transfers(client: TransactionClient, ledger: Ledger, seed: int) -> None:
    """Move one dollar at a time between two users whose accounts are locked, until told to stop."""
    chosen = random.Random(seed)
    while ledger.running:
        source, target = chosen.sample(USERS, 2)
        move = {"from_user_id": source, "to_user_id": target, "currency": "USD", "amount": Decimal(1)}
        keys = [f"account/{source}", f"account/{target}"]
        ending = await client.execute([("bookkeeper", "transfer_funds", move)], timeout_s=60.0, lock_keys=keys)
        ledger.take(source, target, ending)


async def highest_token(up: Cluster) -> int:
    ((token,),) = await up.rows("bookkeeper", "SELECT coalesce(max(exclusive), 0) FROM pincex.fencing")
    assert isinstance(token, int)
    return token


async def balances_of(up: Cluster) -> dict[object, object]:
    rows = await up.rows("bookkeeper", "SELECT user_id, balance FROM bookkeeper.accounts WHERE user_id LIKE 'user-%'")
    return {row[0]: row[1] for row in rows}


async def more_commits(up: Cluster, ledger: Ledger, count: int = 20) -> None:
    """Wait until so many more transfers have committed."""
    wanted = ledger.told["committed"] + count

    async def enough() -> bool:
        return ledger.told["committed"] >= wanted

    await up.until(enough)


async def test_redis_killed_flushed_and_failed_over_loses_time_and_no_money(running: Cluster, redis: Failover) -> None:
    ledger = Ledger()
    tokens: list[int] = []

    async def kill() -> None:
        await asyncio.to_thread(redis.primary.kill)
        await redis.primary.start()

    async def flush() -> None:
        await redis.primary.say("FLUSHALL")

    faults: list[Callable[[], Awaitable[object]]] = [flush, redis.fail_over, flush, kill]
    async with TransactionClient([each.grpc for each in running.coordinators]) as client, asyncio.TaskGroup() as tasks:
        for seed in range(CLIENTS):
            tasks.create_task(transfers(client, ledger, seed))
        for fault in faults:
            await more_commits(running, ledger)
            tokens.append(await highest_token(running))
            await fault()
        await more_commits(running, ledger)
        tokens.append(await highest_token(running))
        ledger.running = False
    assert tokens == sorted(set(tokens)), "a token was given twice, or fell"
    assert len({token >> 30 for token in tokens}) > len(faults) / 2, "no new epoch after a fault"
    assert set(ledger.told) <= {"committed"}, ledger.told
    balances = await balances_of(running)
    assert balances == {user: OPENING + ledger.moved[user] for user in USERS}
    assert await violations(running.dsns["bookkeeper"], SERVICE.invariants) == []
    assert await running.rows("bookkeeper", "SELECT 1 FROM pincex.branches WHERE phase = 2") == []


async def test_of_two_that_lock_a_then_b_and_b_then_a_one_is_rolled_back_and_the_other_commits(
    running: Cluster,
) -> None:
    """Each at its own coordinator, over one Redis."""
    one, two = (TransactionClient(each.grpc) for each in running.coordinators)
    async with one, two:
        older = await one.begin(timeout_s=60.0, lock_keys=["account/user-0"])
        younger = await two.begin(timeout_s=60.0, lock_keys=["account/user-1"])
        move = {"from_user_id": "user-0", "to_user_id": "user-1", "currency": "USD", "amount": Decimal(1)}
        for txn in (older, younger):
            await txn.enlist([("bookkeeper", "transfer_funds", move)])
        waiting = asyncio.create_task(older.lock("account/user-1"))
        url = f"http://{running.coordinators[1].http}/api/v1/transactions/locks"

        async def is_waiting() -> bool:
            locks = {each["key"]: each for each in (await running.client.get(url)).json()["locks"]}
            return bool(locks["account/user-1"]["waiters"])

        await running.until(is_waiting)
        with pytest.raises(DeadlockError, match=str(older.xid)):
            # A second is the product's promise; this machine may be busy, and lock_timeout is 8 s.
            async with asyncio.timeout(5):
                await younger.lock("account/user-0")
        assert await waiting > 0
        lost = await younger.commit()
        assert isinstance(lost, RolledBack)
        assert lost.reason == "DEADLOCK"
        assert f"waits for 'account/user-1' held by {younger.xid}" in lost.message
        assert isinstance(await older.commit(), Committed)
    balances = await balances_of(running)
    assert (balances["user-0"], balances["user-1"]) == (OPENING - 1, OPENING + 1)


async def test_locks_of_a_coordinator_that_was_killed_end_and_others_go_on(running: Cluster) -> None:
    one, two = (TransactionClient(each.grpc) for each in running.coordinators)
    async with one, two:
        held = await one.begin(timeout_s=60.0, lock_keys=["account/user-0"])
        running.coordinators[0].process.kill()
        move = {"from_user_id": "user-0", "to_user_id": "user-1", "currency": "USD", "amount": Decimal(1)}
        ending = await two.execute(
            [("bookkeeper", "transfer_funds", move)], timeout_s=60.0, lock_keys=["account/user-0"]
        )
        assert isinstance(ending, Committed)
        listed = await running.client.get(f"http://{running.coordinators[1].http}/api/v1/transactions/locks")
        owners = json.dumps(listed.json())
        assert str(held.xid) not in owners
