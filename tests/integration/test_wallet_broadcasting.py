"""The wallet's process and the chain's, both real: whatever is killed, slow or repeated, each is paid once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from participant_sdk.clock import SystemClock
from sidecars.sidecar import Surroundings
from sidecars.wallet.broadcasting import OtherNetworkError, attendants
from sidecars.wallet.settings import SettingError, read_settings
from tests.integration.chains import OTHER_OUT, OUT, World, fill, mine, rpc, world
from tests.integration.companies import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def chained(database: str, tmp_path: Path) -> AsyncGenerator[World]:
    async with world(tmp_path / "chain", database) as made:
        yield made


async def test_a_withdrawal_is_paid_followed_and_booked(chained: World) -> None:
    """SENT while no block holds it, CONFIRMED under three, COMPLETED by a branch; then books and chain agree."""
    await chained.queue("w-1", "1.5")
    sent = await chained.until_status("w-1", "SENT")
    assert (sent["confirmations"], sent["problem"]) == (0, None)
    await mine(chained.chain, 2)

    async def is_seen() -> bool:
        return (await chained.status("w-1"))["confirmations"] == 2

    await until(is_seen)
    assert (await chained.status("w-1"))["status"] == "SENT"
    await mine(chained.chain)
    await chained.complete("w-1")
    assert await chained.paid() == [(OUT, "1.50000000")]
    assert await chained.books_agree()
    assert (await rpc(chained.chain, "gettransaction", sent["tx_hash"]))["confirmations"] == 3


async def test_many_are_paid_in_one_go(chained: World) -> None:
    """Each from the change of the one before, without waiting for blocks, and none from another's input."""
    await asyncio.gather(*[chained.queue(f"w-{at}", f"1.0000000{at}", (OUT, OTHER_OUT)[at % 2]) for at in range(8)])
    for at in range(8):
        await chained.until_status(f"w-{at}", "SENT")
    await mine(chained.chain, 3)
    for at in range(8):
        await chained.complete(f"w-{at}")
    assert await chained.paid() == sorted(((OUT, OTHER_OUT)[at % 2], f"1.0000000{at}") for at in range(8))
    assert await chained.books_agree()


# What the node does with a payment while something is killed: nothing yet, or already all of it.
BEFORE = {"kind": "slow", "calls": "sendrawtransaction", "delay_ms": 600_000}
AFTER = {"kind": "late", "calls": "sendrawtransaction", "delay_ms": 600_000}


@pytest.mark.parametrize("fault", [BEFORE, AFTER], ids=["between store and send", "between send and note"])
@pytest.mark.parametrize("victim", ["wallet", "chain", "both"])
async def test_a_kill_between_store_send_and_note_pays_once(
    chained: World, fault: dict[str, object], victim: str
) -> None:
    """kill -9 of either process, or both. What was stored is what is paid: the id stays what it was."""
    await chained.chain.misbehave(fault)
    await chained.queue("w-1")
    stored = await chained.until_status("w-1", "SIGNED")

    async def is_with_the_node() -> bool:
        waiting = (await chained.chain.ask("GET", "/development/payments"))["payments"]
        behaviour = await chained.chain.ask("GET", "/behaviour")
        return bool(waiting) or (fault is BEFORE and bool(behaviour["faults"]))

    await until(is_with_the_node)
    if victim != "chain":
        await chained.kill()
    if victim == "wallet":
        await chained.chain.misbehave()
    else:
        await chained.chain.kill()
        await chained.chain.start()
    if victim != "chain":
        await chained.start()
    sent = await chained.until_status("w-1", "SENT")
    assert sent["tx_hash"] == stored["tx_hash"]
    await mine(chained.chain, 3)
    await chained.complete("w-1")
    assert await chained.paid() == [(OUT, "1.00000000")]
    assert await chained.books_agree()


@pytest.mark.parametrize("call", ["createrawtransaction", "fundrawtransaction", "signrawtransactionwithwallet"])
async def test_a_kill_before_the_payment_is_stored_leaves_nothing(chained: World, call: str) -> None:
    await chained.chain.misbehave({"kind": "late", "calls": call, "delay_ms": 600_000, "times": 1})
    await chained.queue("w-1")

    async def has_struck() -> bool:
        return not (await chained.chain.ask("GET", "/behaviour"))["faults"]

    await until(has_struck)
    await chained.kill()
    assert (await chained.status("w-1"))["status"] == "QUEUED"
    await chained.start()
    await chained.until_status("w-1", "SENT")
    await mine(chained.chain, 3)
    await chained.complete("w-1")
    assert await chained.paid() == [(OUT, "1.00000000")]


async def test_a_node_that_does_everything_wrong_pays_each_once(chained: World) -> None:
    """It fails before and after, loses answers, repeats calls, answers late; both processes are killed meanwhile."""
    kinds = ("slow", "fail_before", "twice", "fail_after", "lost", "late")
    faults = [{"kind": kind, "share": 0.07, "delay_ms": 100} for kind in kinds]
    await chained.chain.ask("PUT", "/development/mining", {"block_interval_s": 0.3})
    await chained.chain.misbehave(*faults)
    names = [f"w-{at}" for at in range(12)]
    for at, name in enumerate(names):
        await chained.queue(name, f"1.{at + 1:08}")
        if at % 4 == 3:
            await chained.kill()
            await chained.chain.kill()
            await chained.chain.start()
            await chained.chain.misbehave(*faults)
            await chained.start(PINCEX_WALLET_CHAIN_TIMEOUT_S="2")
    for name in names:
        await chained.complete(name)
    assert await chained.paid() == sorted((OUT, f"1.{at + 1:08}") for at in range(12))
    await until(chained.books_agree)


async def test_a_block_that_is_replaced_is_paid_again_by_the_same_payment(chained: World) -> None:
    """The node has even forgotten it. It is sent again until it is deep enough, and its id stays."""
    await chained.queue("w-1")
    sent = await chained.until_status("w-1", "SENT")
    for forget in (False, True):
        await mine(chained.chain)
        await chained.chain.ask("POST", "/development/reorganizations", {"forget": forget})

        async def is_back() -> bool:
            return (await chained.status("w-1"))["confirmations"] == 0

        await until(is_back)
    await chained.kill()
    await chained.start()

    async def is_known() -> bool:
        return bool(await chained.paid())

    await until(is_known)
    await mine(chained.chain, 3)
    await chained.complete("w-1")
    assert (await chained.status("w-1"))["tx_hash"] == sent["tx_hash"]
    assert await chained.paid() == [(OUT, "1.00000000")]


async def test_what_the_chain_can_no_longer_take_is_not_signed_anew(chained: World) -> None:
    """Another transaction spent its inputs: nobody can know that here, so it is told to people, and stays as it is."""
    await chained.queue("w-1")
    sent = await chained.until_status("w-1", "SENT")
    await mine(chained.chain)
    await chained.kill()
    await chained.chain.ask("POST", "/development/reorganizations", {"forget": True})
    created = await rpc(chained.chain, "createrawtransaction", [], [{OTHER_OUT: "99"}])
    funded = await rpc(chained.chain, "fundrawtransaction", created)
    signed = await rpc(chained.chain, "signrawtransactionwithwallet", funded["hex"])
    await rpc(chained.chain, "sendrawtransaction", signed["hex"])
    await mine(chained.chain, 5)
    await chained.start()
    held_up = await chained.until_problem("w-1", "bad-txns-inputs-missingorspent")
    assert (held_up["status"], held_up["tx_hash"]) == ("SENT", sent["tx_hash"])
    assert await chained.wallet.rows("select count(*) from wallet.payments") == [(1,)]
    assert await chained.paid() == [(OTHER_OUT, "99.00000000")]


async def test_a_fee_above_what_is_reserved_waits(chained: World) -> None:
    """Nothing is signed for it; once fees fall it goes on by itself, and the hot wallet paid what was taken."""
    await chained.chain.ask("PUT", "/development/mining", {"block_interval_s": 0, "fee_rate": 2000})
    await chained.queue("w-1", fee="0.00001")
    held_up = await chained.until_problem("w-1", "the chain wants a fee of")
    assert held_up["status"] == "QUEUED"
    assert "0.00001 is reserved" in held_up["problem"]
    await chained.chain.ask("PUT", "/development/mining", {"block_interval_s": 0, "fee_rate": 1})
    assert (await chained.until_status("w-1", "SENT"))["problem"] is None
    await mine(chained.chain, 3)
    await chained.complete("w-1")
    assert await chained.books_agree()


async def test_a_chain_that_has_less_than_the_books_say_holds_it_up(chained: World) -> None:
    """Somebody recorded what did not come: the node refuses, and says why, until it did."""
    never = {"user_id": "a", "currency": "BTC", "amount": "50", "tx_hash": "ab" * 32, "output_index": 0, "address": OUT}
    await chained.wallet.do(("record_deposit", json.dumps(never)))
    for at in range(3):
        await chained.queue(f"w-{at}", "40")
    await chained.until_problem("w-2", "Insufficient funds")
    await fill(chained.chain, "50")
    await chained.until_status("w-2", "SENT")
    assert len(await chained.paid()) == 3


async def test_two_processes_at_once_pay_once(chained: World, tmp_path: Path, database: str) -> None:
    """The second waits for the first one's lock; when that is killed, it goes on."""
    second = World(chained.chain, chained.wallet, database, tmp_path / "second.log")
    await second.start()
    try:
        for at in range(4):
            await chained.queue(f"w-{at}")
        await chained.until_status("w-3", "SENT")
        await chained.kill()
        await chained.queue("w-4")
        await chained.until_status("w-4", "SENT")
    finally:
        await second.kill()
    assert await chained.paid() == [(OUT, "1.00000000")] * 5


async def test_a_payment_that_another_process_stored_is_not_stored_or_sent_twice(chained: World) -> None:
    """Even where the lock did not hold: one payment for a withdrawal, and one for an output."""
    await chained.kill()
    await chained.queue("w-1")
    await chained.queue("w-2")
    store = "select wallet.store_payment(%s, %s, 'raw', 0.0001, array['in'], array[0])"
    assert await chained.wallet.rows(store, "w-1", "tx-1") == [(True,)]
    assert await chained.wallet.rows(store, "w-1", "tx-2") == [(False,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        await chained.wallet.rows(store, "w-2", "tx-2")
    assert (await chained.status("w-2"))["status"] == "QUEUED"


async def test_a_node_of_another_network_is_refused(chained: World, database: str) -> None:
    """A database is of one network for ever; nothing is paid over a node of another."""
    await chained.kill()
    await chained.queue("w-1")
    await chained.wallet.rows("update wallet.settings set network = 1")
    surroundings = Surroundings("wallet", database, SystemClock(), {"PINCEX_WALLET_CHAIN_URL": chained.chain.url})
    with pytest.raises(OtherNetworkError, match="on REGTEST"):
        await attendants()["broadcaster of BTC"](surroundings)
    assert await chained.paid() == []
    await chained.wallet.rows("update wallet.settings set network = 8")


async def test_what_has_no_node_is_told_to_have_none(chained: World) -> None:
    """The attendants of the other currencies say so, and broadcasting there is refused."""
    rows = await chained.wallet.rows("select currency from wallet.hot_wallets where is_connected order by currency")
    assert rows == [("BTC",)]
    assert await chained.wallet.rows("select count(*) from wallet.hot_wallets where is_connected is null") == [(0,)]


BAD_SETTINGS = [
    ({"PINCEX_WALLET_CHAIN_URL": "ftp://node"}, "PINCEX_WALLET_CHAIN_URL must be a URL"),
    ({"PINCEX_WALLET_CHAIN_URL": "http://"}, "PINCEX_WALLET_CHAIN_URL must be a URL"),
    ({"PINCEX_WALLET_CHAIN_URL": "http://host:port"}, "PINCEX_WALLET_CHAIN_URL is no URL"),
    ({"PINCEX_WALLET_CHAIN_INTERVAL_S": "often"}, "PINCEX_WALLET_CHAIN_INTERVAL_S is 'often'"),
    ({"PINCEX_WALLET_CHAIN_INTERVAL_S": "0"}, "from 0.01 to 600"),
    ({"PINCEX_WALLET_CHAIN_TIMEOUT_S": "nan"}, "PINCEX_WALLET_CHAIN_TIMEOUT_S"),
]


@pytest.mark.parametrize(("environment", "said"), BAD_SETTINGS)
def test_a_bad_setting_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_settings("BTC", environment)


def test_each_currency_has_its_own_node() -> None:
    environment = {"PINCEX_WALLET_CHAIN_URL": "http://btc:1", "PINCEX_WALLET_CHAIN_URL_LTC": "http://ltc:1"}
    assert read_settings("BTC", environment).url == "http://btc:1"
    assert read_settings("LTC", environment).url == "http://ltc:1"
    assert read_settings("BCH", environment) == read_settings("BCH", {})
    assert Decimal(str(read_settings("BCH", {}).interval_s)) == 1
