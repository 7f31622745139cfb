"""Workflows over the bookkeeper and trading, for coordinators that are killed in the middle of them."""

from __future__ import annotations

from coordinator.workflows import Parameters, UserId, Workflow, result_of, workflow
from participant_sdk.operations import OperationLike, Parameter

HOUSE = "house"


class Selling(Parameters):
    """Who sells half a bitcoin, and pays a fee for it."""

    user_id: UserId
    fee: str


async def _sell(wf: Workflow, given: Selling) -> Parameter:
    money = {"user_id": given.user_id, "currency": "BTC", "amount": "0.5"}
    order = {"user_id": given.user_id, "symbol": "BTC/USD", "side": "sell", "amount": "0.5", "price": "50000"}
    await wf.read("look", [("trading", "validate_order", order)])
    await wf.step("lock", [("bookkeeper", "lock_funds", money)], compensate=[("bookkeeper", "release_funds", money)])
    placed = await wf.step(
        "place",
        [("trading", "place_order", order)],
        compensate=[("trading", "cancel_order", {"order_id": result_of(0, "order_id")})],
    )
    fee: OperationLike = (
        "bookkeeper",
        "transfer_funds",
        {"from_user_id": given.user_id, "to_user_id": HOUSE, "currency": "BTC", "amount": given.fee},
    )
    await wf.step("fee", [fee])
    return placed.text(0, "order_id")


@workflow("sells", version="1", parameters=Selling)
async def sells(wf: Workflow, given: Selling) -> Parameter:
    """Look, lock, place, pay: it completes where the fee can be paid, and else leaves nothing behind."""
    return await _sell(wf, given)
