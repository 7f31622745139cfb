"""What is left behind by crashes is brought to its end, and nothing else is touched."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncGenerator
from typing import Final

import grpc
import httpx
import psycopg
import pytest
import pytest_asyncio
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.faults import Way
from tests.crash.checks import broken_invariants, read
from tests.crash.conftest import Servers
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster
from tests.crash.trials import WITHIN_S, until_all_settled

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

FOREIGN_LOG: Final = "feedfacefeedface"
STOPPED: Final = 0
_PREPARED: Final = "select gid from pg_prepared_xacts where database = current_database()"
_OPEN: Final = "select xid::text from pincex.branches where phase = 2 and request_id = %s"
_PHASE: Final = "select phase from pincex.branches where request_id = %s"
_CREDITS: Final = "select xid::text from credits where request = %s"
_DECIDED: Final = "select xid::text from txlog.decisions where decision = 1 and request_id = %s"
_numbers: Final = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    """One coordinator, so that nobody takes over while it is down."""
    async with cluster(tmp_path_factory.mktemp("cluster"), servers.database, bank=True) as running:
        await fill_till(running)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def name(up: Cluster) -> AsyncGenerator[str]:
    """A transaction's name; afterwards the cluster is whole again, whatever came of the test."""
    yield f"recovery{next(_numbers)}"
    for proxy in up.proxies.values():
        proxy.restore()
    for process in up.processes:
        process.disarm()
    up.start_all()
    await up.until_ready()


def execute(up: Cluster, name: str) -> asyncio.Task[httpx.Response]:
    """Begin a transaction of trading and the bank."""
    order = {"user_id": name, "symbol": "BTC/USD", "side": "sell", "amount": "0.01", "price": "50000"}
    return asyncio.create_task(
        up.execute(
            ("trading", "place_order", order), ("bank", "credit", {"request": name, "amount": "1"}), request_id=name
        )
    )


async def until_rows(up: Cluster, database: str, query: str, *parameters: str, count: int = 1) -> None:
    async def there() -> bool:
        return len(await read(up.dsns[database], query, *parameters)) == count

    await up.until(there, WITHIN_S)


async def trigger(up: Cluster, **body: str) -> None:
    url = f"http://{up.coordinators[0].http}/api/v1/transactions/recovery/trigger"
    answer = await up.client.post(url, json=body)
    assert answer.is_success, answer.text


async def judge(up: Cluster) -> None:
    await until_all_settled(up)
    await up.until_ready()
    assert await broken_invariants(up) == []


async def test_an_orphan_after_prepare_failed_is_rolled_back(up: Cluster, name: str) -> None:
    """R2, R12: it is prepared, its vote never came, and its transaction was rolled back without it."""
    bank = up.sidecars["bank"]
    bank.arm("XA_PREPARED")
    answer = await execute(up, name)
    assert answer.json()["state"] == "ROLLED_BACK"
    await bank.ended(WITHIN_S)
    assert len(await read(up.dsns["bank"], _PREPARED)) == 1
    bank.start()
    await until_rows(up, "bank", _PREPARED, count=0)
    assert await read(up.dsns["bank"], _CREDITS, name) == []
    await judge(up)


async def test_an_orphan_of_a_running_transaction_is_left_alone(up: Cluster, name: str) -> None:
    """R7, R18: asked about by its participant and swept by recovery, it stays until its transaction ends."""
    up.proxies["trading"].hold(Way.DOWN)
    call = execute(up, name)
    await until_rows(up, "bank", _PREPARED)
    await until_rows(up, "trading", _OPEN, name)
    # Its vote is counted. It looks around as it starts, and asks about what it finds.
    up.sidecars["bank"].kill()
    up.sidecars["bank"].start()
    await up.until_ready()
    await trigger(up, recovery_type="orphans")
    assert len(await read(up.dsns["bank"], _PREPARED)) == 1
    assert len(await read(up.dsns["trading"], _OPEN, name)) == 1
    up.proxies["trading"].release(Way.DOWN)
    assert (await call).json()["state"] == "COMMITTED"
    await judge(up)
    assert len(await read(up.dsns["bank"], _CREDITS, name)) == 1


async def test_acknowledgements_that_are_lost_again_and_again(up: Cluster, name: str) -> None:
    """R9, R10: Commit comes again each time; its effect is there once."""
    bank = up.sidecars["bank"]
    bank.arm("ACK_FRAME_BEFORE")
    call = execute(up, name)
    for _ in range(2):
        await bank.ended(WITHIN_S)
        bank.arm("ACK_FRAME_BEFORE")
        bank.start()
    await bank.ended(WITHIN_S)
    bank.start()
    assert (await call).json()["state"] == "COMMITTED"
    await judge(up)
    assert len(await read(up.dsns["bank"], _CREDITS, name)) == 1


async def leave_decided(up: Cluster, name: str) -> None:
    """A transaction that is decided when its coordinator dies, and that nobody has heard of."""
    up.coordinator.arm("COMMIT_FRAME_BEFORE")
    call = execute(up, name)
    await up.coordinator.ended(WITHIN_S)
    await asyncio.gather(call, return_exceptions=True)
    assert len(await read(up.dsns["txlog"], _DECIDED, name)) == 1


async def test_a_resource_that_is_missing_at_recovery_is_finished_when_it_is_back(up: Cluster, name: str) -> None:
    """R6, R17: the others are finished without it."""
    bank = up.sidecars["bank"]
    await leave_decided(up, name)
    bank.kill()
    up.coordinator.start()
    await until_rows(up, "trading", f"{_PHASE} and phase = 3", name)
    assert len(await read(up.dsns["bank"], _PREPARED)) == 1
    bank.start()
    await until_rows(up, "bank", _CREDITS, name)
    await judge(up)


async def test_a_recovery_that_is_suspended_with_work_left_goes_on(up: Cluster, name: str) -> None:
    """R6: stopped in good order with a branch still owed, the next life finishes it."""
    bank = up.sidecars["bank"]
    await leave_decided(up, name)
    bank.kill()
    up.coordinator.start()
    await until_rows(up, "trading", f"{_PHASE} and phase = 3", name)
    stopping = up.coordinator.running
    assert stopping is not None
    up.coordinator.send(signal.SIGTERM)
    await up.coordinator.ended(WITHIN_S)
    assert stopping.poll() == STOPPED, up.coordinator.log_end()
    up.coordinator.start()
    bank.start()
    await until_rows(up, "bank", _CREDITS, name)
    await judge(up)


async def test_a_foreign_logs_branches_are_left_alone(up: Cluster, name: str) -> None:
    """R18: another log's branch, and a prepared transaction that is nobody's, are not touched by recovery."""
    xid = "01a20400-0000-8000-8000-000000000001"
    async with grpc.aio.insecure_channel(up.addresses["trading"]) as channel:
        request = resource_pb2.PrepareRequest(
            xid=await fresh_xid(up), log_id=FOREIGN_LOG, participants=["trading"], operations=[foreign_order(name)]
        )
        request.remaining_ms = 30_000
        answer = await ResourceServiceStub(channel).Prepare(request, timeout=WITHIN_S)
        assert answer.vote.kind == common_pb2.VOTE_KIND_PREPARED, answer
        gid = f"pincex:{FOREIGN_LOG}:{xid}:bank"
        async with await psycopg.AsyncConnection.connect(up.dsns["bank"], autocommit=True) as connection:
            await connection.execute("begin")
            await connection.execute("insert into credits values ('foreign', 1, gen_random_uuid())")
            await connection.execute(f"prepare transaction '{gid}'".encode())
            for kind in ("global", "orphans"):
                await trigger(up, recovery_type=kind)
            up.sidecars["bank"].kill()
            up.sidecars["trading"].kill()
            up.start_all()
            await up.until_ready()
            await trigger(up, recovery_type="global")
            assert [row[0] for row in await read(up.dsns["bank"], _PREPARED)] == [gid]
            assert await read(up.dsns["trading"], "select phase from pincex.branches where xid = %s", request.xid) == [
                (2,)
            ]
            await connection.execute(f"rollback prepared '{gid}'".encode())
        rollback = resource_pb2.RollbackRequest(xid=request.xid, log_id=FOREIGN_LOG)
    async with grpc.aio.insecure_channel(up.addresses["trading"]) as channel:
        await ResourceServiceStub(channel).Rollback(rollback, timeout=WITHIN_S, wait_for_ready=True)
    await judge(up)


async def fresh_xid(up: Cluster) -> str:
    """An xid of a moment ago, as another log's coordinator would make it."""
    ((now,),) = await read(up.dsns["trading"], "select (extract(epoch from now()) * 1000)::bigint")
    text = f"{int(now):012x}"
    return f"{text[:8]}-{text[8:]}-8000-8000-000000000001"


def foreign_order(name: str) -> common_pb2.Operation:
    order = f'{{"user_id":"{name}","symbol":"BTC/USD","side":"sell","amount":"0.01","price":"50000"}}'
    return common_pb2.Operation(service="trading", operation="place_order", parameters=order)
