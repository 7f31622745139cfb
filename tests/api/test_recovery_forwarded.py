"""What an operator asks over HTTP of one transaction is its owner's to do, whichever coordinator is asked (R19)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest
from pincex.tx.v1 import transaction_pb2

from tests.api.doors import transfer
from tests.api.fleet import Fleet, Node, fleet
from tests.api.stuck import prepared
from tests.sdk.small_system import LEFT, OPENING, RIGHT, system

BELOW: Final = "/api/v1/transactions"
FORCE: Final = {"participant": LEFT, "outcome": "commit", "reason": "the bank said so"}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def place() -> AsyncIterator[Fleet]:
    async with system() as around, fleet(around) as place:
        yield place


async def resolve(node: Node, xid: str, *, preview: bool = False) -> httpx.Response:
    return await node.http.post(f"{BELOW}/{xid}/resolve", json={**FORCE, "preview": preview})


async def trigger(node: Node, xid: str) -> httpx.Response:
    body = {"recovery_type": "transaction", "transaction_id": xid}
    return await node.http.post(f"{BELOW}/recovery/trigger", json=body)


async def test_the_owner_refuses_to_force_what_it_drives(place: Fleet) -> None:
    """In its own words: what to do instead can be done there."""
    a, b = await place.start("a"), await place.start("b")
    xid = (await a.stub.Begin(transaction_pb2.BeginRequest())).xid
    there, here = await resolve(a, xid), await resolve(b, xid)
    assert (here.status_code, here.json()) == (there.status_code, there.json())
    assert (here.status_code, here.json()["code"]) == (409, "TRANSACTION_LIVE")
    assert "this coordinator drives it" in here.json()["detail"]


async def test_a_branch_that_its_living_owner_has_forgotten_is_forced_there(place: Fleet) -> None:
    """Only the owner may say that nobody knows the decision: nothing is forced beside it."""
    a, b = await place.start("a"), await place.start("b")
    place.around.log.tables.pruned_below_unix_ms = time.time_ns() // 1_000_000
    xid = str(await prepared(place, incarnation=a.incarnation.number))
    shown = (await resolve(b, xid, preview=True)).json()
    assert (shown["branch"]["phase"], shown["acknowledgement"]) == ("PREPARED", None)
    assert place.around.balance(LEFT, "a") == OPENING
    forced = (await resolve(b, xid)).json()
    assert (forced["branch"]["phase"], forced["branch"]["heuristic"]) == ("HEURISTIC", "COMMIT")
    assert (forced["branch"]["transaction_id"], forced["acknowledgement"]) == (xid, "HEURISTIC_COMMIT")
    assert f"pincex tx forget {xid}" in forced["advice"]
    assert place.around.balance(LEFT, "a") == OPENING - 5


async def test_a_pass_over_one_transaction_is_its_owners(place: Fleet) -> None:
    a, b = await place.start("a"), await place.start("b")
    # Its vote passes, and no flush after that.
    place.around.taps[RIGHT].shut_after(1)
    request = transfer()
    request.wait = transaction_pb2.WAIT_DECIDED
    xid = (await a.stub.Execute(request)).result.xid
    place.around.taps[RIGHT].open()
    ran = await trigger(b, xid)
    assert (ran.status_code, ran.json()["recovery_type"]) == (200, "transaction")
    assert (ran.json()["scanned"], ran.json()["failed"], ran.json()["in_doubt"]) == (1, 0, 0)
    assert ran.json()["began_at"] <= ran.json()["ended_at"]
    assert not b.holds(xid)


async def test_what_nobody_gave_out_is_not_found(place: Fleet) -> None:
    """As over gRPC: its incarnation was never drawn by this log, and is above all that were."""
    node = await place.start("a")
    xid = "01890000-0000-8fff-bfff-fc0000000001"
    for answer in (await resolve(node, xid), await trigger(node, xid)):
        assert (answer.status_code, answer.json()["code"]) == (404, "TRANSACTION_UNKNOWN")
