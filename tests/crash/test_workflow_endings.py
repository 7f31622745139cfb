"""The built-in workflows over the real participants, through HTTP: every ending that each of them has."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.crash.checks import read
from tests.crash.conftest import Servers
from tests.crash.processes import Cluster
from tests.crash.stories import (
    ETHER_OUT,
    IBAN,
    OUT,
    STORIES,
    accounts,
    announced,
    cleared,
    committed,
    free,
    funded,
    rest,
)
from tests.crash.whole_exchange import faults_at_rest, new_user, until_stopped, whole_exchange
from tests.crash.workflow_calls import Json, begin, ended, post, run, workflow_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

Turn = Callable[[Cluster, str], Awaitable[None]]
TRADE: Final = {"user_id": "ann", "symbol": "BTC/USD", "side": "buy", "amount": "1", "price": "45000"}
DEPOSIT: Final = {"user_id": "ann", "currency": "EUR", "amount": "10", "bank_reference": "R-1"}
WITHDRAWAL: Final = {"user_id": "ann", "currency": "BTC", "amount": "0.5", "address": OUT}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("exchange")
    async with whole_exchange(folder, servers.database) as up:
        yield up


async def at_rest(up: Cluster) -> None:
    async def is_at_rest() -> bool:
        return await faults_at_rest(up) == []

    try:
        await up.until(is_at_rest, 20)
    except TimeoutError:
        assert await faults_at_rest(up) == []


async def turned(up: Cluster, user: str, kind: str, parameters: dict[str, str], settled: int, turn: Turn) -> Json:
    """Run a workflow, and have something come about once so many of its steps have settled."""
    up.coordinator.arm("STEP_SETTLED", settled, "stop")
    await begin(up, user, kind, parameters)
    await until_stopped(up)
    try:
        await turn(up, user)
    finally:
        up.coordinator.send(signal.SIGCONT)
    return await ended(up, user)


@pytest.mark.parametrize("name", [name for name, story in STORIES.items() if story.turn is None])
async def test_it_ends_as_it_must_and_leaves_what_it_says(exchange: Cluster, name: str) -> None:
    story, user = STORIES[name], new_user()
    told = await run(exchange, story.kind, await story.arrange(exchange, user), request_id=user)
    assert (told["state"], told["stuck"]) == (story.ends, None), told
    await story.judge(exchange, user, told)
    await at_rest(exchange)


@pytest.mark.parametrize(
    ("kind", "parameters", "field", "code"),
    [
        ("trade_execution", {**TRADE, "side": "borrow"}, "side", "BAD_PARAMETERS"),
        ("trade_execution", {**TRADE, "symbol": "BTC/BTC"}, "symbol", "UNKNOWN_SYMBOL"),
        ("trade_execution", {**TRADE, "amount": "0"}, "amount", "BAD_PARAMETERS"),
        ("trade_execution", {**TRADE, "amount": "0.000000001"}, "amount", "BAD_PARAMETERS"),
        ("trade_execution", {**TRADE, "price": "-1"}, "price", "BAD_PARAMETERS"),
        ("trade_execution", {**TRADE, "stop": "1"}, "stop", "BAD_PARAMETERS"),
        ("fiat_deposit", {**DEPOSIT, "currency": "BTC"}, "currency", "UNKNOWN_CURRENCY"),
        ("fiat_deposit", {**DEPOSIT, "amount": "10.001"}, "amount", "BAD_PARAMETERS"),
        ("fiat_deposit", {**DEPOSIT, "bank_reference": "two words"}, "bank_reference", "BAD_PARAMETERS"),
        ("crypto_withdrawal", {**WITHDRAWAL, "currency": "USD"}, "currency", "UNKNOWN_CURRENCY"),
        ("crypto_withdrawal", {**WITHDRAWAL, "amount": "0.000000001"}, "amount", "BAD_PARAMETERS"),
        ("crypto_withdrawal", {"user_id": "ann", "currency": "BTC", "amount": "1"}, "address", "BAD_PARAMETERS"),
    ],
)
async def test_wrong_parameters_begin_nothing(
    exchange: Cluster, kind: str, parameters: dict[str, str], field: str, code: str
) -> None:
    name = new_user()
    answer = await post(exchange, {"workflow_type": kind, "parameters": parameters, "request_id": name})
    told = answer.json()
    assert answer.status_code in {400, 422}, answer.text
    assert (told["field"], told["code"]) == (f"parameters.{field}", code), told
    assert await workflow_of(exchange, name) == {}


async def refused(up: Cluster, told: Json, step: str, code: str) -> None:
    """It was refused there, and nothing is left of it."""
    assert told["state"] == "COMPENSATED", told
    assert (told["failure"]["step"], told["failure"]["code"]) == (step, code), told
    await at_rest(up)


async def test_a_trade_is_refused_at_its_check(exchange: Cluster) -> None:
    user = new_user()
    parameters = {**TRADE, "user_id": user, "amount": "5000"}
    await refused(exchange, await run(exchange, "trade_execution", parameters), "validate_order", "LIMIT_EXCEEDED")
    assert await accounts(exchange, user) == {}


async def test_a_trade_that_cannot_be_paid_is_refused(exchange: Cluster) -> None:
    user = new_user()
    await funded(exchange, user, "USD", "44999.99")
    told = await run(exchange, "trade_execution", {**TRADE, "user_id": user})
    await refused(exchange, told, "lock_funds", "INSUFFICIENT_FUNDS")
    assert await accounts(exchange, user) == {(user, "USD"): free("44999.99")}


async def test_a_symbol_halted_after_the_check_has_the_money_released(exchange: Cluster) -> None:
    story, user = STORIES["trade-refused"], new_user()
    assert story.turn is not None
    halt = story.turn
    parameters = dict(await story.arrange(exchange, user))
    told = await turned(exchange, user, story.kind, parameters, 1, lambda up, _: halt(up))
    assert told["state"] == "COMPENSATED", told
    await story.judge(exchange, user, told)
    await at_rest(exchange)


async def test_a_sell_order_that_waits_is_settled_and_its_workflow_ends_when_it_is_filled(exchange: Cluster) -> None:
    seller, buyer = new_user(), new_user()
    await funded(exchange, seller, "BTC", "2")
    await funded(exchange, buyer, "USD", "100000")
    selling = {**TRADE, "user_id": seller, "side": "sell", "amount": "0.75", "time_in_force": "gtc"}
    await begin(exchange, seller, "trade_execution", selling)

    async def waits() -> bool:
        query = "select 1 from trading.orders where user_id = %s and sequence is not null"
        return bool(await read(exchange.dsns["trading"], query, seller))

    await exchange.until(waits)
    for amount in ("0.5", "0.25"):
        told = await run(exchange, "trade_execution", {**TRADE, "user_id": buyer, "amount": amount})
        assert (told["state"], told["result"]["status"]) == ("COMPLETED", "FILLED"), told
    told = await ended(exchange, seller)
    assert (told["state"], told["result"]["trades"], told["result"]["released"]) == ("COMPLETED", 2, "0.00"), told
    assert await accounts(exchange, seller, buyer) == {
        (seller, "BTC"): free("1.25"),
        (seller, "USD"): free("33750"),
        (buyer, "BTC"): free("0.75"),
        (buyer, "USD"): free("66250"),
    }
    await at_rest(exchange)


async def test_a_fill_too_small_to_cost_anything_is_settled(exchange: Cluster) -> None:
    """A satoshi at 40000.01 costs 0.0004 dollars: it is delivered, and nothing is paid for it."""
    seller, first, second = new_user(), new_user(), new_user()
    await funded(exchange, seller, "BTC", "1.00000001")
    for user in (first, second):
        await funded(exchange, user, "USD", "50000")
    await rest(exchange, seller, "1.00000001", "40000.01")
    for user, amount, used in ((first, "1", "40000.01"), (second, "0.1", "0.00")):
        told = await run(exchange, "trade_execution", {**TRADE, "user_id": user, "amount": amount})
        assert (told["state"], told["stuck"]) == ("COMPLETED", None), told
        assert told["result"]["used"] == used, told
    assert await accounts(exchange, seller, first, second) == {
        (seller, "BTC"): free("0"),
        (seller, "USD"): free("40000.01"),
        (first, "BTC"): free("1"),
        (first, "USD"): free("9999.99"),
        (second, "BTC"): free("0.00000001"),
        (second, "USD"): free("50000"),
    }
    query = "select status, quote_amount from settlement.trades where buyer_id = %s"
    rows = await read(exchange.dsns["settlement"], query, second)
    assert [(status, Decimal(paid)) for status, paid in rows] == [(2, Decimal(0))]
    await at_rest(exchange)


async def test_a_transfer_that_the_bank_has_not_told_of_is_refused(exchange: Cluster) -> None:
    user = new_user()
    await cleared(exchange, user)
    told = await run(exchange, "fiat_deposit", {**DEPOSIT, "user_id": user, "bank_reference": f"R-{user}"})
    await refused(exchange, told, "validate_transfer", "TRANSFER_UNKNOWN")


async def test_a_transfer_of_another_amount_is_refused(exchange: Cluster) -> None:
    user = new_user()
    await cleared(exchange, user)
    parameters = {"user_id": user, **await announced(exchange, f"R-{user}", "10"), "amount": "11"}
    told = await run(exchange, "fiat_deposit", parameters)
    await refused(exchange, told, "validate_transfer", "TRANSFER_MISMATCH")


async def test_a_limit_lowered_after_the_check_has_nothing_credited(exchange: Cluster) -> None:
    user = new_user()
    await cleared(exchange, user)
    parameters = {"user_id": user, **await announced(exchange, f"R-{user}", "10")}

    async def limit(up: Cluster, most: str) -> None:
        query = "update fiat.limits set deposit_max = %s::numeric where currency = 'EUR' returning currency"
        assert await read(up.dsns["fiat"], query, most) == [("EUR",)]

    told = await turned(exchange, user, "fiat_deposit", parameters, 2, lambda up, _: limit(up, "9"))
    await limit(exchange, "500000")
    await refused(exchange, told, "credit_account", "LIMIT_EXCEEDED")
    assert await accounts(exchange, user) == {}


async def test_a_transfer_is_credited_once_whoever_asks_for_it(exchange: Cluster) -> None:
    user, other = new_user(), new_user()
    for each in (user, other):
        await cleared(exchange, each)
    transfer = await announced(exchange, f"R-{user}", "10")
    first = await run(exchange, "fiat_deposit", {"user_id": user, **transfer})
    assert first["state"] == "COMPLETED", first
    told = await run(exchange, "fiat_deposit", {"user_id": other, **transfer})
    await refused(exchange, told, "validate_transfer", "REFERENCE_USED")
    assert await accounts(exchange, user, other) == {(user, "EUR"): free("10")}


@pytest.mark.parametrize(
    ("change", "step", "code"),
    [
        ({"address": "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"}, "validate_withdrawal", "ADDRESS_OF_OTHER_NETWORK"),
        ({"address": ETHER_OUT}, "validate_withdrawal", "ADDRESS_OF_OTHER_CHAIN"),
        ({"address": OUT[:-1] + "q"}, "validate_withdrawal", "BAD_ADDRESS"),
        ({"amount": "51"}, "validate_withdrawal", "LIMIT_EXCEEDED"),
        ({"amount": "49"}, "validate_withdrawal", "HOT_WALLET_INSUFFICIENT"),
        ({"amount": "1.00000001"}, "lock_funds", "INSUFFICIENT_FUNDS"),
    ],
)
async def test_a_withdrawal_is_refused_and_nothing_is_paid(
    exchange: Cluster, change: dict[str, str], step: str, code: str
) -> None:
    user = new_user()
    await cleared(exchange, user)
    await funded(exchange, user, "BTC", "1")
    told = await run(exchange, "crypto_withdrawal", {**WITHDRAWAL, "user_id": user, **change})
    await refused(exchange, told, step, code)
    assert await accounts(exchange, user) == {(user, "BTC"): free("1")}


async def test_nobody_withdraws_whom_compliance_blocks(exchange: Cluster) -> None:
    user = new_user()
    await cleared(exchange, user, "BLOCKED")
    await funded(exchange, user, "BTC", "1")
    told = await run(exchange, "crypto_withdrawal", {**WITHDRAWAL, "user_id": user})
    await refused(exchange, told, "check_security", "USER_BLOCKED")
    assert await accounts(exchange, user) == {(user, "BTC"): free("1")}


async def test_a_settlement_that_is_refused_waits_for_an_operator_and_goes_on(exchange: Cluster) -> None:
    """Past the pivot nothing is undone: it is put right, retried, and ends once."""
    seller, buyer = new_user(), new_user()
    await funded(exchange, seller, "BTC", "1")
    await funded(exchange, buyer, "USD", "50000")
    # An order that its owner placed without locking what it sells.
    order = {"user_id": seller, "symbol": "BTC/USD", "side": "sell", "amount": "0.5", "price": "40000"}
    await committed(exchange, ("trading", "place_order", order))
    told = await run(exchange, "trade_execution", {**TRADE, "user_id": buyer, "amount": "0.5"}, request_id=buyer)
    assert (told["state"], told["stuck"]["code"], told["stuck"]["step"]) == ("STUCK", "PAST_PIVOT", "settle-1"), told
    await committed(exchange, ("bookkeeper", "lock_funds", {"user_id": seller, "currency": "BTC", "amount": "0.5"}))
    url = f"http://{exchange.coordinators[0].http}/api/v1/transactions/workflows/{told['workflow_id']}/retry"
    (await exchange.client.post(url, json={"reason": "the seller's coins are locked now"})).raise_for_status()

    async def is_completed() -> bool:
        found = await workflow_of(exchange, buyer)
        return found is not None and found["state"] == "COMPLETED"

    await exchange.until(is_completed)
    assert await accounts(exchange, seller, buyer) == {
        (seller, "BTC"): free("0.5"),
        (seller, "USD"): free("20000"),
        (buyer, "BTC"): free("0.5"),
        (buyer, "USD"): free("30000"),
    }
    await at_rest(exchange)


async def test_the_sender_is_checked_where_it_is_named(exchange: Cluster) -> None:
    user = new_user()
    await cleared(exchange, user)
    parameters = {"user_id": user, **await announced(exchange, f"R-{user}", "10")}
    assert parameters["iban"] == IBAN
    told = await run(exchange, "fiat_deposit", {**parameters, "iban": "GB82WEST12345698765432"})
    await refused(exchange, told, "validate_transfer", "TRANSFER_MISMATCH")
