"""The wallet over a real PostgreSQL: what is reserved, changed and recorded, by whole batches, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from decimal import Decimal
from itertools import count

import pytest

from participant_sdk.participant import Work
from participant_sdk.xa import Vote, VoteKind, XaCode
from tests.integration.participations import Participation, participating

BTC = "bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv"
OLD_BTC = "1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mo"
ETH = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
PARAMETERS = "operations[0].parameters"
_hashes = count(1)


@pytest.fixture
async def wallet(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "wallet") as participation:
        await participation.rows("update wallet.hot_wallets set is_connected = true where currency = 'BTC'")
        yield participation
        assert await participation.violations() == []


def deposit(amount: str, currency: str = "BTC", tx_hash: str = "", **changed: object) -> tuple[str, str]:
    parameters = {
        "user_id": "ada",
        "currency": currency,
        "amount": amount,
        "tx_hash": tx_hash or f"{next(_hashes):064x}",
        "output_index": 0,
        "address": BTC,
    }
    return "record_deposit", json.dumps({**parameters, **changed})


def withdrawal(
    withdrawal_id: str | None, amount: str = "1", operation: str = "reserve", **changed: object
) -> tuple[str, str]:
    named = {} if withdrawal_id is None else {"withdrawal_id": withdrawal_id}
    parameters = {**named, "user_id": "ada", "currency": "BTC", "amount": amount, "address": BTC}
    return f"{operation}_withdrawal", json.dumps({**parameters, **changed})


def change(operation: str, withdrawal_id: str) -> tuple[str, str]:
    return f"{operation}_withdrawal", json.dumps({"withdrawal_id": withdrawal_id})


async def hot(wallet: Participation, currency: str = "BTC") -> tuple[Decimal, Decimal]:
    """Balance and what is reserved of it."""
    rows = await wallet.rows("select balance, reserved from wallet.hot_wallets where currency = %s", currency)
    return rows[0][0], rows[0][1]


async def status(wallet: Participation, withdrawal_id: str) -> dict[str, object]:
    vote = await wallet.vote(("withdrawal_status", json.dumps({"withdrawal_id": withdrawal_id})))
    assert vote.kind is VoteKind.READ_ONLY, vote
    return json.loads(vote.results[0])


async def confirm_by_hand(wallet: Participation, withdrawal_id: str, fee: str = "0.0002") -> None:
    """What the attendant does, without a chain."""
    parameters = (withdrawal_id, f"tx-{withdrawal_id}", "00", Decimal(fee), [f"in-{withdrawal_id}"], [0])
    stored = await wallet.rows("select wallet.store_payment(%s, %s, %s, %s, %s::text[], %s::integer[])", *parameters)
    assert stored == [(True,)]
    await wallet.rows("select wallet.note_seen(%s, 3)", withdrawal_id)


def told(vote: Vote) -> tuple[str, str, bool, int]:
    return vote.reason, vote.field.removeprefix(f"{PARAMETERS}."), vote.transient, vote.xa_code


async def test_a_withdrawal_from_its_reservation_to_the_books(wallet: Participation) -> None:
    """Reserved with its fee; queued by a committed broadcast; final with what the chain took, and no more."""
    await wallet.do(deposit("10"))
    prepare = wallet.branch(withdrawal("w-1", "2"))
    assert (await wallet.prepare(prepare))[0].is_yes
    assert (await status(wallet, "w-1"))["status"] == "RESERVING"
    assert await hot(wallet) == (10, Decimal("2.0005"))
    await wallet.commit(prepare)
    assert (await status(wallet, "w-1"))["status"] == "RESERVED"
    await wallet.do(change("broadcast", "w-1"))
    assert (await status(wallet, "w-1"))["status"] == "QUEUED"
    early = await wallet.vote(change("confirm", "w-1"))
    assert told(early) == ("WITHDRAWAL_NOT_CONFIRMED", "withdrawal_id", True, XaCode.RBTRANSIENT)
    await confirm_by_hand(wallet, "w-1")
    assert await status(wallet, "w-1") == {
        "withdrawal_id": "w-1",
        "status": "CONFIRMED",
        "user_id": "ada",
        "currency": "BTC",
        "amount": "2",
        "address": BTC,
        "tx_hash": "tx-w-1",
        "fee": "0.0002",
        "confirmations": 3,
        "confirmations_needed": 3,
        "problem": None,
    }
    await wallet.do(change("confirm", "w-1"))
    assert (await status(wallet, "w-1"))["status"] == "COMPLETED"
    assert await hot(wallet) == (Decimal("7.9998"), 0)


async def test_a_rollback_leaves_nothing(wallet: Participation) -> None:
    """Of a reservation, of a deposit, and of a change; the id and the output may be used again."""
    await wallet.do(deposit("10"))
    branches = [wallet.branch(withdrawal("w-1")), wallet.branch(deposit("5", tx_hash="ab" * 32))]
    await wallet.prepare(*branches)
    assert await hot(wallet) == (10, Decimal("1.0005"))
    await wallet.rollback(*branches)
    assert await hot(wallet) == (10, 0)
    await wallet.do(withdrawal("w-1"), deposit("5", tx_hash="ab" * 32))
    for operation in ("broadcast", "cancel"):
        changing = wallet.branch(change(operation, "w-1"))
        await wallet.prepare(changing)
        await wallet.rollback(changing)
        assert (await status(wallet, "w-1"))["status"] == "RESERVED"
    assert await hot(wallet) == (15, Decimal("1.0005"))


async def test_a_cancelled_withdrawal_frees_what_it_reserved_and_is_not_counted(wallet: Participation) -> None:
    await wallet.do(deposit("200"))
    await wallet.do(withdrawal("w-1", "50"), withdrawal("w-2", "50"))
    assert told(await wallet.vote(withdrawal("w-3", "1")))[:2] == ("DAILY_LIMIT_EXCEEDED", "amount")
    await wallet.do(change("cancel", "w-2"))
    assert await hot(wallet) == (200, Decimal("50.0005"))
    await wallet.do(withdrawal("w-3", "1"))
    refused = await wallet.vote(change("cancel", "w-2"))
    assert told(refused) == ("WITHDRAWAL_CANCELLED", "withdrawal_id", False, XaCode.RBROLLBACK)


async def test_what_is_queued_can_be_cancelled_until_it_is_signed(wallet: Participation) -> None:
    """A cancel in doubt keeps it from being signed; a payment that is stored keeps it from being cancelled."""
    await wallet.do(deposit("10"))
    await wallet.do(withdrawal("w-1"), withdrawal("w-2"))
    await wallet.do(change("broadcast", "w-1"), change("broadcast", "w-2"))
    cancelling = wallet.branch(change("cancel", "w-1"))
    await wallet.prepare(cancelling)
    stored = "select wallet.store_payment(%s, %s, 'raw', 0.0001, array['in'], array[0])"
    assert await wallet.rows(stored, "w-1", "tx-1") == [(False,)]
    await wallet.commit(cancelling)
    assert await wallet.rows(stored, "w-1", "tx-1") == [(False,)]
    assert await wallet.rows(stored, "w-2", "tx-2") == [(True,)]
    assert told(await wallet.vote(change("cancel", "w-2")))[0] == "WITHDRAWAL_SIGNED"
    assert await wallet.rows("select withdrawal_id from wallet.payments") == [("w-2",)]


async def test_branches_of_one_batch_share_a_hot_wallet_in_order(wallet: Participation) -> None:
    """The first that fit are taken, whatever the order of sizes; a branch counts as a whole."""
    await wallet.do(deposit("10"))
    branches = [
        wallet.branch(withdrawal("w-1", "4"), withdrawal("w-2", "4")),
        wallet.branch(withdrawal("w-3", "3")),
        wallet.branch(withdrawal("w-4", "1")),
        wallet.branch(withdrawal("w-5", "9"), withdrawal("w-6", "9")),
        wallet.branch(withdrawal("w-7", "0.5")),
    ]
    votes = await wallet.prepare(*branches)
    assert [vote.is_yes for vote in votes] == [True, False, True, False, True]
    assert told(votes[1]) == ("HOT_WALLET_INSUFFICIENT", "amount", False, XaCode.RBROLLBACK)
    assert await hot(wallet) == (10, Decimal("9.502"))


async def test_branches_of_one_batch_share_a_users_day_in_order(wallet: Participation) -> None:
    await wallet.do(deposit("1000"))
    mine = [wallet.branch(withdrawal(f"w-{at}", "40")) for at in range(3)]
    others = wallet.branch(withdrawal("w-9", "40", user_id="bob"))
    votes = await wallet.prepare(*mine, others)
    assert [vote.is_yes for vote in votes] == [True, True, False, True]
    assert told(votes[2])[:2] == ("DAILY_LIMIT_EXCEEDED", "amount")
    assert "today" in votes[2].message
    assert (await wallet.vote(withdrawal("w-4", "20"))).is_yes


async def test_two_workers_never_promise_the_same_money(wallet: Participation) -> None:
    await wallet.do(deposit("10"))
    rivals = [
        [wallet.branch(withdrawal(f"w-{lane}-{at}", "1", user_id=f"u{lane}")) for at in range(3)] for lane in range(8)
    ]
    answers = await asyncio.gather(*[wallet.prepare(*lane) for lane in rivals])
    assert sum(vote.is_yes for votes in answers for vote in votes) == 9
    assert (await hot(wallet))[1] == Decimal("9.0045")


async def test_one_withdrawal_is_changed_by_one_branch_at_a_time(wallet: Participation) -> None:
    """What only tells that another branch is in doubt is transient: the same request may pass later."""
    await wallet.do(deposit("10"))
    reserving = wallet.branch(withdrawal("w-1"))
    await wallet.prepare(reserving)
    assert told(await wallet.vote(change("broadcast", "w-1")))[::2] == ("WITHDRAWAL_PENDING", True)
    assert told(await wallet.vote(withdrawal("w-1")))[::2] == ("WITHDRAWAL_PENDING", True)
    await wallet.commit(reserving)
    assert told(await wallet.vote(withdrawal("w-1")))[::2] == ("WITHDRAWAL_EXISTS", False)
    assert told(await wallet.vote(change("confirm", "w-1")))[::2] == ("WITHDRAWAL_NOT_BROADCAST", False)
    rivals = [wallet.branch(change(operation, "w-1")) for operation in ("broadcast", "cancel")]
    votes = await wallet.prepare(*rivals)
    assert [vote.is_yes for vote in votes] == [True, False]
    assert told(votes[1])[::2] == ("WITHDRAWAL_BUSY", True)
    assert told(await wallet.vote(change("cancel", "w-1")))[::2] == ("WITHDRAWAL_BUSY", True)
    await wallet.commit(rivals[0])
    assert told(await wallet.vote(change("broadcast", "w-1")))[::2] == ("WITHDRAWAL_QUEUED", False)


async def test_twice_in_one_branch_is_refused_for_good(wallet: Participation) -> None:
    """No other branch has a hand in it, so another try would fare no better."""
    await wallet.do(deposit("10"), deposit("10", tx_hash="cd" * 32))
    await wallet.do(withdrawal("w-1"))
    one = deposit("1", tx_hash="ef" * 32)
    branches = [
        wallet.branch(withdrawal("w-2"), withdrawal("w-2")),
        wallet.branch(change("broadcast", "w-1"), change("cancel", "w-1")),
        wallet.branch(one, one),
    ]
    votes = await wallet.prepare(*branches)
    assert [(vote.reason, vote.field, vote.is_business_no) for vote in votes] == [
        ("WITHDRAWAL_REPEATED", "operations[1].parameters.withdrawal_id", True),
        ("WITHDRAWAL_REPEATED", "operations[1].parameters.withdrawal_id", True),
        ("DEPOSIT_REPEATED", "operations[1].parameters.tx_hash", True),
    ]


async def test_the_same_id_twice_in_one_batch_gets_one_yes(wallet: Participation) -> None:
    """And the other one hears that it is pending, or gets it where the first is refused."""
    await wallet.do(deposit("10"))
    votes = await wallet.prepare(wallet.branch(withdrawal("w-1")), wallet.branch(withdrawal("w-1")))
    assert [told(vote)[0] for vote in votes] == ["", "WITHDRAWAL_PENDING"]
    votes = await wallet.prepare(wallet.branch(withdrawal("w-2", "20")), wallet.branch(withdrawal("w-2", "2")))
    assert [told(vote)[0] for vote in votes] == ["HOT_WALLET_INSUFFICIENT", ""]


async def test_an_output_is_credited_once(wallet: Participation) -> None:
    """Whoever asks, however its hash is written; the other outputs of its transaction are others."""
    first = wallet.branch(deposit("1", tx_hash="ab" * 32))
    votes = await wallet.prepare(first, wallet.branch(deposit("1", tx_hash="AB" * 32)))
    assert [told(vote)[::2] for vote in votes] == [("", False), ("DEPOSIT_PENDING", True)]
    assert told(await wallet.vote(deposit("1", tx_hash="ab" * 32)))[0] == "DEPOSIT_PENDING"
    await wallet.commit(first)
    assert told(await wallet.vote(deposit("1", tx_hash="aB" * 32))) == (
        *("DEPOSIT_EXISTS", "tx_hash", False),
        XaCode.RBROLLBACK,
    )
    await wallet.do(deposit("2", tx_hash="ab" * 32, output_index=1))
    await wallet.do(deposit("2", "LTC", tx_hash="ab" * 32, address="LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1"))
    assert await hot(wallet) == (3, 0)


async def test_only_asking_reserves_nothing(wallet: Participation) -> None:
    await wallet.do(deposit("2"))
    asked, mixed = (
        wallet.branch(withdrawal(None, operation="validate")),
        wallet.branch(withdrawal("w-1", operation="validate"), withdrawal("w-1")),
    )
    votes = await wallet.prepare(asked, mixed)
    assert [vote.kind for vote in votes] == [VoteKind.READ_ONLY, VoteKind.PREPARED]
    assert await hot(wallet) == (2, Decimal("1.0005"))
    poor = await wallet.vote(withdrawal(None, operation="validate"))
    assert told(poor)[:2] == ("HOT_WALLET_INSUFFICIENT", "amount")
    unknown = await wallet.vote(change_status("w-7"))
    assert told(unknown) == ("UNKNOWN_WITHDRAWAL", "withdrawal_id", False, XaCode.XAER_INVAL)
    beside = await wallet.vote(deposit("1"), change_status("w-1"))
    assert (beside.reason, beside.field) == ("READS_ALONE", "operations[1].operation")


def change_status(withdrawal_id: str) -> tuple[str, str]:
    return "withdrawal_status", json.dumps({"withdrawal_id": withdrawal_id})


LIMITS = [
    ({"amount": "0.00009999"}, "LIMIT_EXCEEDED", "amount"),
    ({"amount": "50.00000001"}, "LIMIT_EXCEEDED", "amount"),
    ({"fee": "0.01000001"}, "LIMIT_EXCEEDED", "fee"),
    ({"amount": "1", "fee": "0.01", "user_id": "bob", "address": OLD_BTC}, "ADDRESS_NOT_WHITELISTED", "address"),
    ({"currency": "ETH", "address": ETH}, "HOT_WALLET_INSUFFICIENT", "amount"),
]


@pytest.mark.parametrize("operation", ["reserve", "validate"])
async def test_limits_and_whitelists_are_the_business_saying_no(wallet: Participation, operation: str) -> None:
    """They bind the request, as wrong parameters do not; and each names its parameter."""
    await wallet.do(deposit("100"))
    await wallet.rows("insert into wallet.whitelist values ('bob', 'BTC', %s), ('bob', 'ETH', %s)", BTC, ETH)
    votes = await wallet.prepare(
        *[
            wallet.branch(withdrawal("w-1", **{"amount": "1", "operation": operation, **changed}))
            for changed, _, _ in LIMITS
        ]
    )
    assert [told(vote) for vote in votes] == [(reason, field, False, XaCode.RBROLLBACK) for _, reason, field in LIMITS]
    # In whatever case it is written: what is compared is the canonical form.
    assert (await wallet.vote(withdrawal("w-1", operation=operation, user_id="bob", address=BTC.upper()))).is_yes
    assert (await wallet.vote(withdrawal("w-2", operation=operation, address=OLD_BTC))).is_yes


async def test_an_address_of_another_network_is_refused(wallet: Participation) -> None:
    """A database belongs to one network, from when a node first said which."""
    regtest = "bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9"
    for operation in (withdrawal("w-1", address=regtest), deposit("1", address=regtest)):
        refused = await wallet.vote(operation)
        assert told(refused) == ("ADDRESS_OF_OTHER_NETWORK", "address", False, XaCode.XAER_INVAL)
        assert "main" in refused.message
    bind = "select wallet.bind_network(%s::smallint)"
    assert await wallet.rows(bind, 8) == [(True,)]
    assert await wallet.rows(bind, 1) == [(False,)]
    await wallet.do(deposit("1", address=regtest))
    assert told(await wallet.vote(deposit("1")))[0] == "ADDRESS_OF_OTHER_NETWORK"


async def test_a_database_with_withdrawals_of_one_network_is_not_bound_to_another(wallet: Participation) -> None:
    await wallet.do(deposit("1"))
    bind = "select wallet.bind_network(%s::smallint)"
    assert await wallet.rows(bind, 8) == [(False,)]
    assert await wallet.rows(bind, 1) == [(True,)]


async def test_what_no_node_is_connected_for_is_not_broadcast(wallet: Participation) -> None:
    """Reserved, checked and cancelled like any other; and while nobody has told, it may be tried again."""
    await wallet.do(deposit("10", "ETH", "0x" + "ab" * 32, address=ETH), deposit("10"))
    await wallet.do(withdrawal("e-1", currency="ETH", address=ETH), withdrawal("w-1"))
    refused = await wallet.vote(change("broadcast", "e-1"))
    assert told(refused) == ("CHAIN_NOT_CONNECTED", "withdrawal_id", False, XaCode.RBROLLBACK)
    await wallet.do(change("cancel", "e-1"))
    await wallet.rows("update wallet.hot_wallets set is_connected = null where currency = 'BTC'")
    unknown = await wallet.vote(change("broadcast", "w-1"))
    assert told(unknown) == ("CHAIN_UNKNOWN", "withdrawal_id", True, XaCode.RBTRANSIENT)


async def test_commits_and_prepares_travel_in_one_batch(wallet: Participation) -> None:
    """What a Commit frees is there for the Prepare beside it."""
    await wallet.do(deposit("2"))
    await wallet.do(withdrawal("w-1", "1.9"))
    cancelling = wallet.branch(change("cancel", "w-1"))
    await wallet.prepare(cancelling)
    following = wallet.branch(withdrawal("w-2", "1.9"))
    work = Work(commits=[wallet.decided(cancelling)], prepares=[following])
    assert (await wallet.resource.apply(work)).prepares[0].is_yes
    assert await hot(wallet) == (2, Decimal("1.9005"))
