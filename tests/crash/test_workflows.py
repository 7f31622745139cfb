"""kill -9 of the coordinator at every boundary of a workflow's steps: it resumes and ends once.

Completed with every effect there once, or compensated with nothing left behind.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.crash import workflow_calls
from tests.crash.checks import broken_invariants
from tests.crash.conftest import Servers
from tests.crash.exchange import HOUSE
from tests.crash.processes import Cluster, cluster
from tests.crash.workflow_calls import ENDS_WITHIN_S, ended, workflow_of
from tests.crash.workflow_points import WORKFLOW_POINTS

pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

HITS_MAX: Final = 12
# Inside a step: before and after its votes, its decision and its commits.
INSIDE: Final = ("PREPARE_FRAME_BEFORE", "VOTES_RECEIVED", "APPEND_BEFORE", "APPEND_ANSWERED", "COMMIT_FRAME_BEFORE")
FORWARD: Final = ("WORKFLOW_BEGUN", "WORKFLOW_CHANGE_BEFORE", "WORKFLOW_CHANGE_AFTER", "STEP_ASKED", "STEP_SETTLED")
BACK: Final = ("WORKFLOW_FAILED", "BACKWARD_BEGUN", "UNDO_BEGUN", "UNDO_SETTLED")
FEES: Final = {"completes": "0.25", "fails": "100"}
_users: Final = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("workflows")
    async with cluster(folder, servers.database, workflows=["tests.crash.exchange"]) as running:
        opened = await running.execute(("bookkeeper", "open_account", {"user_id": HOUSE, "currency": "BTC"}))
        assert opened.json()["state"] == "COMMITTED"
        yield running


async def customer(up: Cluster) -> str:
    """A new customer with a bitcoin."""
    user = f"seller-{next(_users)}"
    opened = await up.execute(
        ("bookkeeper", "open_account", {"user_id": user, "currency": "BTC"}),
        ("bookkeeper", "credit_account", {"user_id": user, "currency": "BTC", "amount": "1"}),
    )
    assert opened.json()["state"] == "COMMITTED"
    return user


async def begin(up: Cluster, user: str, fee: str) -> None:
    """Begin a customer's workflow; the coordinator may die of it."""
    await workflow_calls.begin(up, user, "sells", {"user_id": user, "fee": fee})


async def left_of(up: Cluster, user: str) -> tuple[Decimal, Decimal, list[int]]:
    """The customer's balance, what of it is locked, and the states of his orders."""
    rows = await up.rows("bookkeeper", "select user_id, balance, locked from bookkeeper.accounts")
    ((balance, locked),) = [(Decimal(str(b)), Decimal(str(k))) for name, b, k in rows if name == user]
    orders = await up.rows("trading", "select user_id, status from trading.orders order by order_id")
    return balance, locked, [int(str(status)) for name, status in orders if name == user]


async def run_and_kill(up: Cluster, kind: str, point: str, nth: int) -> bool:
    """Run one workflow and kill its coordinator at this hit; whether it came to it."""
    user = await customer(up)
    up.coordinator.arm(point, nth)
    await begin(up, user, FEES[kind])

    async def is_over() -> bool:
        if not up.coordinator.is_running:
            return True
        return (await workflow_of(up, user) or {}).get("state") in {"COMPLETED", "COMPENSATED"}

    await up.until(is_over, ENDS_WITHIN_S)
    # The last boundary may be hit after its end was shown.
    was_killed = not up.coordinator.is_running
    if was_killed:
        up.coordinator.kill()
        up.start_all()
        await up.until_ready()
    up.coordinator.disarm()
    if await workflow_of(up, user) == {}:
        # It was killed before the workflow was there, so nothing of it may be.
        await begin(up, user, FEES[kind])
    await check(up, user, kind, await ended(up, user))
    return was_killed


async def check(up: Cluster, user: str, kind: str, told: dict[str, object]) -> None:
    """It ended as it must, and what it leaves is what it says."""

    async def is_at_rest() -> bool:
        return not await broken_invariants(up)

    await up.until(is_at_rest, ENDS_WITHIN_S)
    balance, locked, orders = await left_of(up, user)
    if kind == "completes":
        assert told["state"] == "COMPLETED", told
        assert (balance, locked, orders) == (Decimal("0.75"), Decimal("0.5"), [2])
    else:
        assert told["state"] == "COMPENSATED", told
        assert (balance, locked) == (Decimal(1), Decimal(0))
        assert set(orders) <= {3, 4}


@pytest.mark.parametrize("point", [*FORWARD, "READ_KEPT", *INSIDE])
async def test_killed_on_its_way_forward_it_completes_once(shop: Cluster, point: str) -> None:
    assert await run_and_kill(shop, "completes", point, 1 if point in {"WORKFLOW_BEGUN", "READ_KEPT"} else 2)


@pytest.mark.parametrize("point", [*BACK, "STEP_SETTLED", "WORKFLOW_CHANGE_AFTER"])
async def test_killed_on_its_way_back_it_leaves_nothing(shop: Cluster, point: str) -> None:
    later = {"STEP_SETTLED": 3, "WORKFLOW_CHANGE_AFTER": 7}
    assert await run_and_kill(shop, "fails", point, later.get(point, 1))


async def test_killed_again_while_it_is_taken_over(shop: Cluster) -> None:
    user = await customer(shop)
    shop.coordinator.arm("STEP_SETTLED", 1)
    await begin(shop, user, FEES["completes"])
    await shop.coordinator.ended(ENDS_WITHIN_S)
    shop.coordinator.kill()
    shop.coordinator.arm("WORKFLOW_CLAIMED", 1)
    shop.start_all()
    await shop.coordinator.ended(ENDS_WITHIN_S)
    shop.coordinator.kill()
    shop.start_all()
    await shop.until_ready()
    await check(shop, user, "completes", await ended(shop, user))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FEES))
@pytest.mark.parametrize("point", [each.name for each in WORKFLOW_POINTS if each.name != "WORKFLOW_CLAIMED"])
async def test_killed_at_every_hit_of_every_boundary(shop: Cluster, kind: str, point: str) -> None:
    killed = 0
    for nth in range(1, HITS_MAX):
        if not await run_and_kill(shop, kind, point, nth):
            break
        killed += 1
    assert killed or (kind == "completes" and point in BACK)
    await asyncio.sleep(0)
