"""Settlement over a real PostgreSQL: trades are settled once, reversed once, and positions sum to nothing."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from participant_sdk.ids import Xid
from participant_sdk.participant import Operation, Prepare, Work
from participant_sdk.xa import AckKind, Vote, VoteKind, XaCode
from sidecars.house import FEES
from sidecars.settlement.operations import SERVICE, due_for
from tests.integration.participations import LOG_ID, Participation, participating

TRADE_ID = "operations[0].parameters.trade_id"


@pytest.fixture
async def settlement(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "settlement") as participation:
        yield participation
        assert await participation.violations() == []


def settle(trade_id: str, buyer: str = "ann", seller: str = "bob", **more: str) -> tuple[str, str]:
    """Half a bitcoin at 50,000 dollars, unless told otherwise."""
    trade = {"symbol": "BTC/USD", "amount": "0.5", "price": "50000", "quote_amount": "25000", **more}
    return "settle_trade", json.dumps({"trade_id": trade_id, "buyer_id": buyer, "seller_id": seller, **trade})


def reverse(trade_id: str, reason: str = "a mistake") -> tuple[str, str]:
    return "reverse_trade", json.dumps({"trade_id": trade_id, "reason": reason})


def ask(trade_id: str) -> tuple[str, str]:
    return "settlement_status", json.dumps({"trade_id": trade_id})


def told(vote: Vote) -> tuple[str, str, bool]:
    return vote.reason, vote.field, vote.transient


async def status(settlement: Participation, trade_id: str) -> dict[str, Any]:
    vote = await settlement.vote(ask(trade_id))
    assert vote.kind is VoteKind.READ_ONLY
    (result,) = vote.results
    return json.loads(result)


async def positions(settlement: Participation) -> dict[tuple[str, str], Decimal]:
    rows = await settlement.rows("select user_id, currency, net from settlement.positions where net <> 0")
    return {(user, currency): net for user, currency, net in rows}


async def test_a_trade_is_settled_when_its_branch_commits(settlement: Participation) -> None:
    """Prepare shuts it and moves nothing; Commit nets both legs and the fees, which go to the house."""
    prepare = settlement.branch(settle("t1", fee_buyer="25", fee_seller="12.50", buy_order_id="b-1"))
    vote = (await settlement.prepare(prepare))[0]
    assert [json.loads(result) for result in vote.results] == [{"buyer_pays": "25025", "seller_receives": "24987.50"}]
    assert (await status(settlement, "t1"))["status"] == "SETTLING"
    assert await positions(settlement) == {}
    await settlement.commit(prepare)
    assert await status(settlement, "t1") == {
        "trade_id": "t1",
        "status": "SETTLED",
        "buyer_id": "ann",
        "seller_id": "bob",
        "symbol": "BTC/USD",
        "amount": "0.5",
        "price": "50000",
        "quote_amount": "25000",
        "fee_buyer": "25",
        "fee_seller": "12.5",
        "buy_order_id": "b-1",
    }
    assert await positions(settlement) == {
        ("ann", "BTC"): Decimal("0.5"),
        ("bob", "BTC"): Decimal("-0.5"),
        ("ann", "USD"): Decimal(-25025),
        ("bob", "USD"): Decimal("24987.5"),
        (FEES, "USD"): Decimal("37.5"),
    }
    legs = await settlement.rows("select leg, giver, taker from settlement.legs order by leg")
    assert legs[:2] == [("delivery", "bob", "ann"), ("fee_buyer", "ann", FEES)]


async def test_a_fill_too_small_to_be_paid_is_settled(settlement: Participation) -> None:
    """What is left of an order may be one smallest unit, worth less than a cent: it changes hands all the same."""
    await settlement.do(settle("t1", amount="0.00000001", price="44000", quote_amount="0"))
    assert await positions(settlement) == {("ann", "BTC"): Decimal("1e-8"), ("bob", "BTC"): Decimal("-1e-8")}
    await settlement.do(reverse("t1"))
    assert await positions(settlement) == {}


async def test_nothing_remains_of_a_trade_whose_branch_is_rolled_back(settlement: Participation) -> None:
    prepare = settlement.branch(settle("t1"), settle("t2"))
    await settlement.prepare(prepare)
    await settlement.rollback(prepare)
    assert await settlement.rows("select trade_id from settlement.trades") == []
    assert await settlement.rows("select net from settlement.positions") == []
    assert await status(settlement, "t1") == {"trade_id": "t1", "status": "UNKNOWN"}
    assert (await settlement.vote(settle("t1"))).is_yes


async def test_a_trade_is_settled_once(settlement: Participation) -> None:
    """While another branch is in doubt the "no" is transient; afterwards it is the business's."""
    first = settlement.branch(settle("t1"))
    await settlement.prepare(first)
    assert told(await settlement.vote(settle("t1"))) == ("TRADE_BEING_SETTLED", TRADE_ID, True)
    assert told(await settlement.vote(reverse("t1"))) == ("TRADE_BEING_SETTLED", TRADE_ID, True)
    await settlement.commit(first)
    again = await settlement.vote(settle("t1", amount="1", quote_amount="50000"))
    assert (*told(again), again.xa_code) == ("TRADE_SETTLED", TRADE_ID, False, XaCode.RBROLLBACK)


async def test_a_reversed_trade_nets_to_nothing_and_stays_reversed(settlement: Participation) -> None:
    await settlement.do(settle("t1", fee_buyer="1", fee_seller="1"), settle("t2", "bob", "ann", fee_buyer="3"))
    only_t2 = {("bob", "BTC"), ("ann", "BTC"), ("bob", "USD"), ("ann", "USD"), (FEES, "USD")}
    undone, done = settlement.branch(reverse("t1")), settlement.branch(reverse("t1", "bad price"))
    await settlement.prepare(undone)
    before = await positions(settlement)
    assert (await status(settlement, "t1"))["status"] == "REVERSING"
    assert told(await settlement.vote(reverse("t1"))) == ("TRADE_BEING_REVERSED", TRADE_ID, True)
    await settlement.rollback(undone)
    standing = await status(settlement, "t1")
    assert (standing["status"], "reason" in standing) == ("SETTLED", False)
    await settlement.prepare(done)
    assert await positions(settlement) == before
    await settlement.commit(done)
    standing = await status(settlement, "t1")
    assert (standing["status"], standing["reason"]) == ("REVERSED", "bad price")
    after = await positions(settlement)
    assert set(after) == only_t2
    assert (after["bob", "USD"], after[FEES, "USD"]) == (-25003, 3)
    for operation in (reverse("t1"), settle("t1")):
        assert told(await settlement.vote(operation)) == ("TRADE_REVERSED", TRADE_ID, False)
    unknown = await settlement.vote(reverse("t9"))
    assert (*told(unknown), unknown.xa_code) == ("UNKNOWN_TRADE", TRADE_ID, False, XaCode.XAER_INVAL)


async def test_of_a_batch_that_wants_one_trade_the_first_that_fits_has_it(settlement: Participation) -> None:
    """In order of arrival; one that is refused for another trade stands in nobody's way."""
    await settlement.do(settle("old"), settle("older"))
    branches = [
        settlement.branch(settle("t1"), settle("old")),
        settlement.branch(settle("t1"), settle("t2")),
        settlement.branch(settle("t2"), settle("t3")),
        settlement.branch(settle("t3")),
        settlement.branch(reverse("old"), reverse("nothing")),
        settlement.branch(reverse("old")),
        settlement.branch(reverse("older"), reverse("old")),
        settlement.branch(reverse("older")),
    ]
    votes = await settlement.prepare(*branches)
    assert [vote.reason for vote in votes] == [
        *("TRADE_SETTLED", "", "TRADE_BEING_SETTLED", ""),
        *("UNKNOWN_TRADE", "", "TRADE_BEING_REVERSED", ""),
    ]
    assert votes[0].field == "operations[1].parameters.trade_id"
    taken = await settlement.rows("select trade_id from settlement.trades where status = 1 order by trade_id")
    assert taken == [("t1",), ("t2",), ("t3",)]
    answers = await settlement.resource.apply(
        Work(
            [settlement.decided(branches[1])],
            [settlement.rollback_of(branches[3])],
            [settlement.branch(reverse("t1")), settlement.branch(settle("t3"))],
        )
    )
    assert [vote.is_yes for vote in answers.prepares] == [True, True]


@pytest.mark.parametrize("operation", ["settle", "reverse"])
async def test_rivals_from_several_workers_get_one_yes(settlement: Participation, operation: str) -> None:
    trades = [f"t{each}" for each in range(6)]
    make = settle if operation == "settle" else reverse
    if operation == "reverse":
        await settlement.do(*map(settle, trades))
    rivals = [[settlement.branch(make(trade)) for trade in order] for order in (trades, trades[::-1]) * 4]
    answers = await asyncio.gather(*[settlement.resource.prepare(batch) for batch in rivals])
    votes = [vote for batch in answers for vote in batch]
    assert sum(vote.is_yes for vote in votes) == len(trades)
    assert {vote.reason for vote in votes if not vote.is_yes} <= {"TRADE_BEING_SETTLED", "TRADE_BEING_REVERSED"}


async def test_rivals_that_waited_for_one_trade_get_one_yes(settlement: Participation) -> None:
    """What is checked is read in a later statement than the lock's, so after the wait."""
    await settlement.do(settle("t1"))
    waiting = "select count(*) from pg_locks where not granted"
    async with await psycopg.AsyncConnection.connect(settlement.dsn) as blocker:
        await blocker.execute("select from settlement.trades for no key update")
        rivals = [asyncio.create_task(settlement.vote(reverse("t1"))) for _ in range(2)]
        while await settlement.rows(waiting) != [(2,)]:
            pass
        await blocker.rollback()
        votes = await asyncio.gather(*rivals)
    assert sorted(vote.reason for vote in votes) == ["", "TRADE_BEING_REVERSED"]


async def test_one_transaction_changes_a_trade_once(settlement: Participation) -> None:
    await settlement.do(settle("t1"))
    for operations in ((settle("t2"), settle("t2")), (settle("t2"), reverse("t2")), (reverse("t1"), reverse("t1"))):
        vote = await settlement.vote(*operations)
        assert told(vote) == ("TRADE_REPEATED", "operations[1].parameters.trade_id", False)


async def test_asking_is_done_alone_and_tells_what_the_batch_leaves(settlement: Participation) -> None:
    """R13: READ_ONLY promises nothing afterwards, so it reserves nothing; a duplicate gets what was told (R8)."""
    prepare = settlement.branch(settle("t1"))
    await settlement.prepare(prepare)
    net = ("net_position", '{"user_id":"ann","currency":"BTC"}')
    asking = settlement.branch(ask("t1"), net, ask("t2"))
    answers = await settlement.resource.apply(Work([settlement.decided(prepare)], [], [asking]))
    (vote,) = answers.prepares
    assert (vote.kind, vote.xa_code) == (VoteKind.READ_ONLY, XaCode.RDONLY)
    one, position, two = map(json.loads, vote.results)
    assert (one["status"], position, two["status"]) == ("SETTLED", {"net": "0.5"}, "UNKNOWN")
    await settlement.do(settle("t2"))
    assert await settlement.prepare(asking) == [vote]
    nobody = await settlement.vote(("net_position", '{"user_id":"nobody","currency":"BTC"}'))
    assert [json.loads(result) for result in nobody.results] == [{"net": "0"}]
    mixed = await settlement.vote(settle("t3"), ask("t3"))
    assert (mixed.reason, mixed.field, mixed.xa_code) == ("READS_ALONE", "operations[1].operation", XaCode.XAER_INVAL)


@pytest.mark.parametrize(
    ("price", "amount", "quote", "due"),
    [
        ("50000", "0.5", "USD", "25000.00"),
        ("0.01", "0.99999999", "USD", "0.00"),
        ("19.99", "0.33333333", "USD", "6.66"),
        ("1", "2.999", "JPY", "2"),
        (
            "99999999999999999999.999999999999999999",
            "0.999999999999999999",
            "ETH",
            "99999999999999999899.999999999999999999",
        ),
    ],
)
def test_what_is_due_is_exact_and_rounded_down(price: str, amount: str, quote: str, due: str) -> None:
    assert due_for(Decimal(price), Decimal(amount), quote) == Decimal(due)
    assert str(due_for(Decimal(price), Decimal(amount), quote)) == due


@pytest.mark.parametrize("paid", ["0.5", '"0.50"', "0.500000000000000000000", "5e-1"])
def test_what_is_paid_may_be_written_in_any_exact_way(paid: str) -> None:
    _, parameters = settle("t", amount="1", price="0.5", quote_amount="?")
    parameters = parameters.replace('"?"', paid)
    planned = SERVICE.plan(LOG_ID, Xid.make(1, 1, 1), [Operation("settlement", "settle_trade", parameters)])
    assert planned.vote.is_yes, planned.vote


async def test_a_storm_of_branches_leaves_the_positions_right(settlement: Participation) -> None:
    """Invariant 6, over random work from four workers: checked while branches are in doubt, and afterwards."""
    rng = random.Random(7)
    users = [f"u{each}" for each in range(5)]

    def operation() -> tuple[str, str]:
        trade = f"t{rng.randrange(60)}"
        if rng.random() < 0.3:
            return reverse(trade)
        buyer, seller = rng.sample(users, 2)
        amount, price = Decimal(rng.randint(1, 999)) / 1000, Decimal(rng.randint(100, 9_999)) / 100
        paid = due_for(price, amount, "USD") or Decimal("0.01")
        return settle(
            trade, buyer, seller, amount=str(amount), price=str(price), quote_amount=str(paid), fee_seller="0.01"
        )

    live: list[Prepare] = []
    reasons: dict[str, int] = {}
    for _ in range(12):
        rng.shuffle(live)
        ended, live = live[: len(live) // 2], live[len(live) // 2 :]
        works: list[Work] = []
        for lane in range(4):
            mine = ended[lane::4]
            works.append(
                Work(
                    [settlement.decided(prepare) for prepare in mine[::2]],
                    [settlement.rollback_of(prepare) for prepare in mine[1::2]],
                    [settlement.branch(*[operation() for _ in range(rng.randint(1, 2))]) for _ in range(6)],
                )
            )
        answered = await asyncio.gather(*map(settlement.resource.apply, works))
        for work, answers in zip(works, answered, strict=True):
            assert all(ack.kind is AckKind.DONE for ack in (*answers.commits, *answers.rollbacks))
            voted = list(zip(work.prepares, answers.prepares, strict=True))
            live += [prepare for prepare, vote in voted if vote.is_yes]
            for _, vote in voted:
                reasons[vote.reason] = reasons.get(vote.reason, 0) + 1
        assert await settlement.violations() == []
    assert {"", "TRADE_SETTLED", "TRADE_REVERSED", "UNKNOWN_TRADE", "TRADE_BEING_SETTLED"} <= set(reasons)
    await settlement.rollback(*live)
    left = "select count(*) from settlement.trades where status = 1 or (status = 2 and reversal is not null)"
    assert await settlement.rows(left) == [(0,)]


BRANCH_OF = "branch = (select {} from settlement.trades where trade_id = '{}')"
NO_DELIVERIES = """
create or replace view settlement.legs as
select trade_id, branch, reversal, 'payment' as leg, false as is_reversal,
    buyer_id as giver, seller_id as taker, quote as currency, quote_amount as amount
from settlement.trades where status = 3
"""
BREAKING = [
    ("update settlement.positions set net = net + 1 where user_id = 'ann' and currency = 'USD'", "POSITIONS_NOT_ZERO"),
    ("insert into settlement.positions values ('x', 'USD', 1), ('y', 'USD', -1)", "POSITION_NOT_TRADES"),
    ("update settlement.trades set seller_id = buyer_id where trade_id = 't1'", "LEG_MISSING"),
    ("update settlement.trades set amount = 0 where trade_id = 't1'", "LEG_MISSING"),
    ("update settlement.trades set quote_amount = 24999.99 where trade_id = 't1'", "LEGS_DISAGREE"),
    (NO_DELIVERIES, "REVERSED_NOT_NOTHING"),
    (f"update pincex.branches set phase = 4 where {BRANCH_OF.format('branch', 't3')}", "SETTLING_WITHOUT_BRANCH"),
    (f"update pincex.branches set phase = 4 where {BRANCH_OF.format('reversal', 't1')}", "REVERSING_WITHOUT_BRANCH"),
    (f"update pincex.branches set phase = 2 where {BRANCH_OF.format('branch', 't1')}", "FINAL_WITHOUT_BRANCH"),
    ("update settlement.trades set branch = 999 where trade_id = 't1'", "FINAL_WITHOUT_BRANCH"),
    ("delete from settlement.trades where trade_id = 't3'", "BRANCH_WITHOUT_TRADE"),
]


@pytest.mark.parametrize(("statement", "violation"), BREAKING)
async def test_what_is_broken_is_found(database: str, statement: str, violation: str) -> None:
    """Each invariant, broken by hand, with what keeps it in the tables out of the way."""
    async with participating(database, "settlement") as settlement:
        await settlement.do(settle("t1", fee_buyer="1"))
        await settlement.do(settle("t2"))
        await settlement.do(reverse("t2"))
        assert (await settlement.vote(settle("t3"))).is_yes
        assert (await settlement.vote(reverse("t1"))).is_yes
        assert await settlement.violations() == []
        for constraint in ("two_parties", "legs_agree", "trades_amount_check"):
            await settlement.rows(f"alter table settlement.trades drop constraint {constraint}")
        await settlement.rows(statement)
        found = {each.partition(":")[0] for each in await settlement.violations()}
        assert violation in found
