"""Numbers that no log can have drawn by now: believed once, they would shut out every true coordinator (R15)."""

from __future__ import annotations

import contextlib
import time

import grpc
import pytest
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.branch import BranchPhase
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.hello import EPOCH_IMPLAUSIBLE, INCARNATION_AHEAD_MAX_S, Introduction
from participant_sdk.server import serving
from participant_sdk.xa import AckKind, Decision
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, Told, linked, memory, new_xid, transfer

HOUR_S = 3_600


def far() -> int:
    return int(time.time()) + INCARNATION_AHEAD_MAX_S + HOUR_S


@pytest.mark.parametrize("forged", ["epoch", "incarnation"])
async def test_an_introduction_from_the_far_future_is_refused_and_shuts_nobody_out(forged: str) -> None:
    resource = memory()
    numbers = {"epoch": EPOCH, "incarnation": EPOCH, forged: far()}
    async with serving(resource, "127.0.0.1:0") as served:
        calls = GrpcResourceCalls(f"127.0.0.1:{served.port}", clock=CLOCK)
        welcome = await calls.hello(Introduction(LOG_ID, "forger", numbers["incarnation"], numbers["epoch"]))
        assert (welcome.refusal, dict(welcome.watermarks)) == (EPOCH_IMPLAUSIBLE, {})
        true = await calls.hello(Introduction(LOG_ID, "c", EPOCH, EPOCH))
        assert (true.refusal, true.epoch) == ("", EPOCH)
        await calls.close()
    assert await resource.adopt_epoch(LOG_ID, 0) == EPOCH


async def test_an_epoch_up_to_a_day_ahead_is_adopted() -> None:
    """Incarnations may run ahead of the clock: the last one plus one, or seconds of another clock."""
    epoch = int(time.time()) + INCARNATION_AHEAD_MAX_S - HOUR_S
    async with serving(memory(), "127.0.0.1:0") as served:
        calls = GrpcResourceCalls(f"127.0.0.1:{served.port}", clock=CLOCK)
        assert (await calls.hello(Introduction(LOG_ID, "c", epoch, epoch))).epoch == epoch
        await calls.close()


async def test_unary_calls_of_the_far_future_are_errors_that_name_the_field() -> None:
    resource = memory()
    async with (
        serving(resource, "127.0.0.1:0") as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
    ):
        stub = ResourceServiceStub(channel)
        xid = str(new_xid())
        forged = {
            "epoch: EPOCH_IMPLAUSIBLE": [
                stub.Commit(resource_pb2.CommitRequest(xid=xid, log_id=LOG_ID, incarnation=1, sequence=1, epoch=far())),
                stub.Rollback(resource_pb2.RollbackRequest(xid=xid, log_id=LOG_ID, epoch=far())),
            ],
            "incarnation: ": [
                stub.Commit(
                    resource_pb2.CommitRequest(xid=xid, log_id=LOG_ID, incarnation=far(), sequence=1, epoch=EPOCH)
                )
            ],
        }
        for message, calls in forged.items():
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await resource.adopt_epoch(LOG_ID, 0) == 0
    assert not await resource.watermarks(LOG_ID)


async def test_a_frame_of_an_implausible_epoch_ends_its_session() -> None:
    resource = memory()
    async with (
        serving(resource, "127.0.0.1:0") as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=CHANNEL_OPTIONS) as channel,
    ):
        hello = resource_pb2.HelloRequest(
            log_id=LOG_ID, coordinator="c", incarnation=EPOCH, epoch=EPOCH, clock_unix_ms=CLOCK.unix_ms()
        )
        call = ResourceServiceStub(channel).Session()
        await call.write(resource_pb2.SessionRequest(hello=hello, epoch=EPOCH))
        await call.read()
        rollbacks = resource_pb2.RollbackBatch(xids=new_xid())
        await call.write(resource_pb2.SessionRequest(epoch=far(), rollbacks=rollbacks))
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert EPOCH_IMPLAUSIBLE in await call.details()
    assert await resource.adopt_epoch(LOG_ID, 0) == EPOCH


async def test_a_commit_of_an_implausible_incarnation_leaves_no_watermark() -> None:
    """It would tell every coordinator that the log lost decisions, and so put it in HOLD."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        forged, good = transfer(), transfer()
        for one in (forged, good):
            link.prepare(one)
            await told.vote(one.xid)
        link.commit(forged.xid, far(), 1)
        link.commit(good.xid, EPOCH, 1)
        assert (await told.ack(Decision.COMMIT, forged.xid)).kind is AckKind.RETRY
        assert (await told.ack(Decision.COMMIT, good.xid)).kind is AckKind.DONE
    found = await resource.branch(LOG_ID, forged.xid)
    assert found is not None
    assert found.phase is BranchPhase.PREPARED
    assert dict(await resource.watermarks(LOG_ID)) == {EPOCH: 1}
