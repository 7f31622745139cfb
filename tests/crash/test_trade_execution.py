"""``trade_execution`` over the real participants: fills settled, both legs, and the rest released, to the last cent."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.conftest import MakeDatabase
from tests.crash.processes import Cluster, cluster

Json: TypeAlias = "dict[str, Any]"  # pyright: ignore[reportExplicitAny]  Whatever a coordinator answers.

SERVICES: Final = ("bookkeeper", "trading", "settlement")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def exchange(tmp_path: Path, databases: MakeDatabase) -> AsyncGenerator[Cluster]:
    async with cluster(tmp_path, databases, services=SERVICES) as up:
        opened = await up.execute(
            ("bookkeeper", "open_account", {"user_id": "seller", "currency": "BTC"}),
            ("bookkeeper", "credit_account", {"user_id": "seller", "currency": "BTC", "amount": "5"}),
            ("bookkeeper", "open_account", {"user_id": "buyer", "currency": "USD"}),
            ("bookkeeper", "credit_account", {"user_id": "buyer", "currency": "USD", "amount": "500000"}),
        )
        assert opened.json()["state"] == "COMMITTED", opened.text
        yield up


async def trade(up: Cluster, user: str, side: str, amount: str, price: str, **more: str) -> Json:
    """Run an order to the workflow's end; one that waits in the book, only to its place there."""
    parameters = {"user_id": user, "symbol": "BTC/USD", "side": side, "amount": amount, "price": price, **more}
    body = {"workflow_type": "trade_execution", "parameters": parameters, "timeout_seconds": 600}
    headers = {"content-type": "application/json", **({"prefer": "respond-async"} if more else {})}
    url = f"http://{up.coordinators[0].http}/api/v1/transactions/execute-workflow"
    told: Json = (await up.client.post(url, content=json.dumps(body), headers=headers)).json()
    if more:
        await up.until(lambda: is_at(up, told["workflow_id"], "fills"))
    return told


async def show(up: Cluster, workflow_id: str) -> Json:
    url = f"http://{up.coordinators[0].http}/api/v1/transactions/workflows/{workflow_id}"
    told: Json = (await up.client.get(url)).json()
    return told


async def is_at(up: Cluster, workflow_id: str, step: str) -> bool:
    return any(each["name"] == step for each in (await show(up, workflow_id))["steps"])


async def is_completed(up: Cluster, workflow_id: str) -> bool:
    return bool((await show(up, workflow_id))["state"] == "COMPLETED")


async def accounts(up: Cluster) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    """Balance and locked money, by user and currency."""
    rows = await up.rows("bookkeeper", "select user_id, currency, balance, locked from bookkeeper.accounts")
    mine = [row for row in rows if row[0] in {"seller", "buyer"}]
    return {(str(u), str(c)): (Decimal(str(b)), Decimal(str(k))) for u, c, b, k in mine}


async def test_orders_are_settled_and_what_they_did_not_use_is_released(exchange: Cluster) -> None:
    selling = await trade(exchange, "seller", "sell", "2", "44000.01", time_in_force="gtc")
    first = await trade(exchange, "buyer", "buy", "0.7", "45000")
    assert (first["state"], first["result"]["status"], first["result"]["used"]) == ("COMPLETED", "FILLED", "30800.00")
    second = await trade(exchange, "buyer", "buy", "2", "45000")
    assert (second["state"], second["result"]["filled"]) == ("COMPLETED", "1.3")
    await exchange.until(lambda: is_completed(exchange, selling["workflow_id"]))
    nothing = await trade(exchange, "buyer", "buy", "1", "45000")
    assert (nothing["state"], nothing["result"]["filled"]) == ("COMPLETED", "0")
    poor = await trade(exchange, "buyer", "buy", "900", "45000")
    assert (poor["state"], poor["failure"]["code"]) == ("COMPENSATED", "INSUFFICIENT_FUNDS")
    assert await accounts(exchange) == {
        ("seller", "BTC"): (Decimal(3), Decimal(0)),
        ("seller", "USD"): (Decimal("88000.01"), Decimal(0)),
        ("buyer", "BTC"): (Decimal(2), Decimal(0)),
        ("buyer", "USD"): (Decimal("411999.99"), Decimal(0)),
    }
