"""An operator's hand against the decision that is coming, so that a branch ends as a heuristic."""

from __future__ import annotations

import asyncio

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.faults import Way
from tests.crash.checks import read
from tests.crash.load import CURRENCY, SHOP, TILL
from tests.crash.processes import Cluster

_BRANCH = "select xid::text from pincex.branches where phase = 2 and request_id = %s"
_LOG = "select log_id from txlog.log"
WITHIN_S = 20.0


async def force_against_decision(up: Cluster, request_id: str) -> str:
    """Run a transaction at the first coordinator whose branch at trading is forced to ROLLBACK before COMMIT.

    Returns its xid once the caller was answered, or lost its coordinator.
    """
    trading = up.proxies["trading"]
    trading.hold(Way.DOWN)
    call = asyncio.create_task(
        up.execute(
            ("bookkeeper", "transfer_funds", _transfer(request_id)),
            ("trading", "place_order", _order(request_id)),
            request_id=request_id,
        )
    )
    try:
        xid = ""

        async def prepared() -> bool:
            nonlocal xid
            xid = next((row[0] for row in await read(up.dsns["trading"], _BRANCH, request_id)), "")
            return bool(xid)

        await up.until(prepared, WITHIN_S)
        await _force(up, xid)
    finally:
        trading.release(Way.DOWN)
    # It ends with its coordinator, or with an answer.
    await asyncio.gather(call, return_exceptions=True)
    return xid


async def _force(up: Cluster, xid: str) -> None:
    ((log_id,),) = await read(up.dsns["txlog"], _LOG)
    request = resource_pb2.ResolveBranchRequest(
        xid=xid, log_id=log_id, outcome=common_pb2.DECISION_ROLLBACK, reason="a drill: against the decision"
    )
    async with grpc.aio.insecure_channel(up.addresses["trading"]) as channel:
        answer = await ResourceServiceStub(channel).ResolveBranch(request, timeout=WITHIN_S)
    assert answer.ack.kind == common_pb2.ACK_KIND_HEURISTIC_ROLLBACK, answer


def _transfer(request_id: str) -> dict[str, str]:
    return {
        "from_user_id": TILL,
        "to_user_id": SHOP,
        "currency": CURRENCY,
        "amount": "1",
        "description": request_id,
    }


def _order(request_id: str) -> dict[str, str]:
    return {"user_id": request_id, "symbol": "BTC/USD", "side": "sell", "amount": "0.01", "price": "50000"}
