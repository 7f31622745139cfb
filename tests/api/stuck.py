"""Branches that are stuck, made by hand at a participant, and RecoveryService to deal with them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import grpc
from pincex.tx.v1 import common_pb2, recovery_pb2, resource_pb2, transaction_pb2
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceStub
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.ids import Xid
from tests.api.doors import Doors, operation, transfer
from tests.api.fleet import Fleet
from tests.sdk.small_system import LEFT, LOG_ID, RIGHT

if TYPE_CHECKING:
    # The generated stubs know them; the modules themselves have them not.
    from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceAsyncStub
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

XID_UNKNOWN: Final = "01890000-0000-8000-8000-000000000001"
# An incarnation that the log has never drawn, and below all that it has.
LONG_GONE: Final = 7
AGE_MS: Final = 1_000


Resolve = recovery_pb2.RecoveryServiceResolveBranchRequest


def forcing(xid: str, participant: str = LEFT, *, preview: bool = False) -> Resolve:
    """A branch to be committed by hand."""
    return Resolve(
        xid=xid,
        participant=participant,
        outcome=common_pb2.DECISION_COMMIT,
        reason="the bank said so",
        preview=preview,
    )


def recovery(opened: Doors) -> RecoveryServiceAsyncStub:
    """RecoveryService at the door."""
    return RecoveryServiceStub(opened.channel)


async def prepared(opened: Doors | Fleet, participant: str = LEFT, *, incarnation: int = LONG_GONE) -> Xid:
    """A branch that was prepared at a participant, by nobody who is there any more."""
    xid = Xid.make(time.time_ns() // 1_000_000 - AGE_MS, incarnation, time.time_ns() % 1_000_000)
    request = resource_pb2.PrepareRequest(
        xid=str(xid),
        log_id=LOG_ID,
        operations=[operation(participant)],
        remaining_ms=5_000,
        participants=[LEFT, RIGHT],
        tenant="default",
    )
    async with grpc.aio.insecure_channel(opened.around.addresses[participant]) as channel:
        resource: ResourceServiceAsyncStub = ResourceServiceStub(channel)
        vote = (await resource.Prepare(request)).vote
    assert vote.kind == common_pb2.VOTE_KIND_PREPARED
    return xid


async def forgotten(opened: Doors, participant: str = LEFT) -> Xid:
    """A branch in doubt that is older than all that the log remembers: nobody can say what was decided."""
    opened.around.log.tables.pruned_below_unix_ms = time.time_ns() // 1_000_000
    return await prepared(opened, participant)


async def owed(opened: Doors, participant: str = RIGHT) -> str:
    """A transaction that is committed, and whose effect one participant cannot make durable."""
    # Its vote passes, and no flush after that.
    opened.around.taps[participant].shut_after(1)
    request = transfer()
    request.wait = transaction_pb2.WAIT_DECIDED
    result = (await opened.stub.Execute(request)).result
    assert result.outcome == transaction_pb2.OUTCOME_COMMITTED
    return result.xid


async def until_finished(opened: Doors, xid: str) -> None:
    """Wait until nothing is owed of a transaction any more."""
    async with asyncio.timeout(10):
        async for change in opened.stub.WatchTransactions(transaction_pb2.WatchTransactionsRequest(xid=xid)):
            if change.transaction.result.phase in {common_pb2.PHASE_COMMITTED, common_pb2.PHASE_ROLLED_BACK}:
                return
