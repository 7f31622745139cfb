"""Matching over a real PostgreSQL: every entry once, whoever matches, wherever it was stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import psycopg
import pytest

from sidecars.trading.book_store import BookStore, BrokenBookError
from sidecars.trading.matcher import BookMatcher, Round
from tests.integration.matchings import SYMBOL, Trading, cancel, is_as_it_must_be, matching, order, run


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Trading]:
    async with matching(database) as subject:
        yield subject


async def test_orders_meet_by_price_and_then_by_their_place_in_the_book(trading: Trading) -> None:
    """A batch of orders; what each of them is told of itself afterwards."""
    dear, first, second, buy = await trading.place(
        order("sell", "1", "102", user_id="a"),
        order("sell", "1", "101", user_id="b"),
        order("sell", "2", "101", user_id="c"),
        order("buy", "3.5", "102", user_id="d"),
    )
    before = await trading.status(buy)
    assert (before["status"], before["is_matched"], before["fills"]) == ("OPEN", False, [])
    await trading.match()
    assert await trading.trades() == [
        ("BTC/USD-4-1", "101", "1"),
        ("BTC/USD-4-2", "101", "2"),
        ("BTC/USD-4-3", "102", "0.5"),
    ]
    shown = await trading.status(buy)
    fill = shown["fills"].pop(0)
    assert fill.pop("filled_at").endswith("Z")
    assert fill == {
        "trade_id": "BTC/USD-4-1",
        "price": "101",
        "amount": "1",
        "buy_order_id": buy,
        "sell_order_id": first,
        "buyer_id": "d",
        "seller_id": "b",
        "taker_side": "buy",
    }
    assert [each["sell_order_id"] for each in shown.pop("fills")] == [second, dear]
    assert shown == {
        "order_id": buy,
        "client_order_id": None,
        "user_id": "d",
        "symbol": SYMBOL,
        "side": "buy",
        "type": "limit",
        "time_in_force": "gtc",
        "status": "FILLED",
        "reason": None,
        "is_matched": True,
        "amount": "3.5",
        "price": "102",
        "filled": "3.5",
        "remaining": "0",
        "fill_count": 3,
    }
    left = await trading.status(dear)
    assert (left["status"], left["filled"], left["remaining"]) == ("PARTIALLY_FILLED", "0.5", "0.5")
    await is_as_it_must_be(trading.participation)


async def test_the_rest_of_what_does_not_wait_is_cancelled_with_its_reason(trading: Trading) -> None:
    """Immediate or cancel, fill or kill, market orders, and whoever meets himself."""
    await trading.place(order("sell", "2", "100", user_id="a"), order("sell", "1", "101", user_id="me"))
    orders = await trading.place(
        order("buy", "1", "99", time_in_force="ioc"),
        order("buy", "5", "101", time_in_force="fok"),
        order("buy", "0.5", user_id="me"),
        order("buy", "4", user_id="me"),
    )
    await trading.match()
    shown = [await trading.status(order_id) for order_id in orders]
    assert [(each["status"], each["reason"], each["filled"]) for each in shown] == [
        ("CANCELLED", "IMMEDIATE_OR_CANCEL", "0"),
        ("CANCELLED", "FILL_OR_KILL", "0"),
        ("FILLED", None, "0.5"),
        ("CANCELLED", "SELF_TRADE", "1.5"),
    ]
    assert [each["type"] for each in shown] == ["limit", "limit", "market", "market"]
    assert [each["time_in_force"] for each in shown] == ["ioc", "fok", "ioc", "ioc"]
    await is_as_it_must_be(trading.participation)


async def test_a_cancellation_takes_its_turn_in_the_book(trading: Trading) -> None:
    """What came before it may still trade; what comes after finds nothing."""
    (sell,) = await trading.place(order("sell", "2", "100"))
    await trading.place(order("buy", "0.5", "100"))
    await trading.participation.do(cancel(sell))
    vote = await trading.participation.vote(cancel(sell))
    assert (vote.reason, vote.transient) == ("ORDER_BEING_CANCELLED", True)
    await trading.place(order("buy", "1", "100"))
    await trading.match()
    shown = await trading.status(sell)
    assert (shown["status"], shown["reason"], shown["filled"], shown["remaining"]) == (
        "CANCELLED",
        "CANCEL_REQUESTED",
        "0.5",
        "1.5",
    )
    assert (await trading.participation.vote(cancel(sell))).reason == "ORDER_CANCELLED"
    await is_as_it_must_be(trading.participation)


async def test_an_order_that_is_filled_while_its_cancellation_is_in_doubt_stays_filled(trading: Trading) -> None:
    """Prepare of a cancellation promises its turn in the book, and no more: matching waits for nobody."""
    (sell,) = await trading.place(order("sell", "1", "100"))
    doubtful = trading.participation.branch(cancel(sell))
    assert (await trading.participation.prepare(doubtful))[0].is_yes
    await trading.place(order("buy", "1", "100"))
    await trading.match()
    await trading.participation.commit(doubtful)
    await trading.match()
    assert (await trading.status(sell))["status"] == "FILLED"
    assert (await trading.participation.vote(cancel(sell))).reason == "ORDER_FILLED"
    assert await trading.rows("select last_sequence from trading.books where symbol = %s", SYMBOL) == [(2,)]


async def test_what_replaces_an_order_never_meets_it(trading: Trading) -> None:
    """Cancel and place in one transaction: the cancellation goes first, whichever was named first."""
    (sell,) = await trading.place(order("sell", "1", "100", user_id="me"))
    await trading.participation.do(order("buy", "1", "100", user_id="me"), cancel(sell))
    await trading.match()
    book = await trading.read("order_book", symbol=SYMBOL)
    assert (book["bids"], book["asks"]) == ([{"price": "100", "amount": "1", "orders": 1}], [])


async def test_a_book_is_read_best_price_first(trading: Trading) -> None:
    """As far as it is matched: an order that matching has not reached is not in it yet."""
    prices = ("99", "98.5", "97", "101", "102.01", "103")
    await trading.place(*[order("buy" if float(price) < 100 else "sell", "0.5", price) for price in prices * 2])
    await trading.match()
    await trading.place(order("buy", "1", "99"))
    assert await trading.read("order_book", symbol=SYMBOL, depth=2) == {
        "symbol": SYMBOL,
        "sequence": 12,
        "bids": [{"price": price, "amount": "1", "orders": 2} for price in ("99", "98.5")],
        "asks": [{"price": price, "amount": "1", "orders": 2} for price in ("101", "102.01")],
    }
    empty = await trading.read("order_book", symbol="ETH/USD")
    assert (empty["sequence"], empty["bids"], empty["asks"]) == (0, [], [])


async def test_fills_are_read_page_by_page(trading: Trading) -> None:
    """A vote holds 64 KiB: no more than that, whoever asks for how many orders."""
    await trading.place(*[order("sell", "0.01", "100", user_id="\U0001f600" * 64) for _ in range(60)])
    (buy,) = await trading.place(order("buy", "1", "100", user_id="\U0001f603" * 64))
    await trading.match()
    first, second = await trading.status(buy), await trading.status(buy, fills_from=48)
    assert (first["fill_count"], len(first["fills"]), len(second["fills"])) == (60, 48, 12)
    numbers = [int(fill["trade_id"].rpartition("-")[2]) for fill in first["fills"] + second["fills"]]
    assert numbers == list(range(1, 61))
    vote = await trading.participation.vote(*[("order_status", f'{{"order_id":"{buy}"}}')] * 4)
    assert len(vote.results) == 4
    assert sum(len(result.encode()) for result in vote.results) < 60_000


async def test_a_matcher_that_was_overtaken_records_nothing(trading: Trading) -> None:
    """Two that stand at one place of a book, as when one was stopped and goes on: one matches, one comes too late."""
    await trading.place(order("sell", "1", "100"))
    stopped, other = (BookMatcher(SYMBOL, trading.store) for _ in range(2))
    assert await run(stopped) is Round.IDLE
    await trading.place(order("buy", "0.5", "100"))
    # It has read and matched, and is stopped before it records.
    book, matched = await trading.store.load(SYMBOL)
    outcome = book.match(await trading.store.entries(SYMBOL, matched, 10), through=matched, fills_max=10)
    assert await run(other) is Round.IDLE
    assert not await trading.store.record(SYMBOL, matched, outcome)
    # The first one's book is old as well, and it does not know.
    await trading.place(order("buy", "0.5", "100"))
    assert await run(other) is Round.IDLE
    await trading.place(order("buy", "0.5", "100"))
    assert await stopped.round() is Round.OVERTAKEN
    assert await run(stopped) is Round.IDLE
    assert await trading.trades() == [("BTC/USD-2-1", "100", "0.5"), ("BTC/USD-3-1", "100", "0.5")]
    await is_as_it_must_be(trading.participation)


async def test_matchers_that_race_match_each_entry_once(trading: Trading, database: str) -> None:
    """Four at one book, all the time overtaking each other."""
    stores = [BookStore.open(database, 1) for _ in range(4)]
    placing = asyncio.create_task(_trade_at_random(trading, 300))

    async def race(store: BookStore) -> None:
        matcher = BookMatcher(SYMBOL, store)
        while not placing.done() or (await store.progress(SYMBOL)).matched < (await store.progress(SYMBOL)).last:
            await matcher.round()

    async with asyncio.TaskGroup() as group:
        for store in stores:
            group.create_task(race(store))
    for store in stores:
        await store.close()
    assert len(await trading.trades()) > 30
    await is_as_it_must_be(trading.participation)


async def _trade_at_random(trading: Trading, orders: int) -> None:
    chance = random.Random(6)
    placed: list[str] = []
    while len(placed) < orders:
        batch = [
            order(
                chance.choice(("buy", "sell")),
                str(chance.randint(1, 5)),
                str(chance.randint(98, 102)),
                user_id=chance.choice("abcd"),
                time_in_force=chance.choice(("gtc", "gtc", "gtc", "ioc", "fok")),
            )
            for _ in range(10)
        ]
        placed += await trading.place(*batch)
        doubtful = trading.participation.branch(cancel(chance.choice(placed)))
        if (await trading.participation.prepare(doubtful))[0].is_yes:
            await trading.participation.commit(doubtful)


async def test_a_long_row_of_entries_is_matched_in_pieces(trading: Trading) -> None:
    """More than one round holds, from the start and from the middle."""
    await trading.place(*[order("sell", "0.01", str(100 + at % 7)) for at in range(700)])
    await trading.place(*[order("buy", "0.02", "106") for _ in range(300)])
    await trading.match()
    await is_as_it_must_be(trading.participation)
    assert await trading.rows("select sum(amount)::integer from trading.fills") == [(6,)]


async def test_a_missing_entry_stops_its_book(trading: Trading) -> None:
    """An order must not be passed over, whatever happened to the database."""
    await trading.place(*[order("sell", "1", "100") for _ in range(3)])
    await trading.rows("update trading.orders set sequence = 7 where sequence = 2")
    with pytest.raises(BrokenBookError, match="no entry 2, but one 3"):
        await trading.match()
    assert [each.partition(":")[0] for each in await trading.participation.violations()] == ["BOOK_NUMBER_WRONG"]
    await trading.rows("update trading.orders set sequence = 2 where sequence = 7")
    await trading.match()


async def test_a_symbol_without_a_book_is_told(trading: Trading) -> None:
    with pytest.raises(BrokenBookError, match="no book of BTC/XYZ"):
        await trading.match("BTC/XYZ")
    with pytest.raises(BrokenBookError, match="no book of BTC/XYZ"):
        await trading.store.progress("BTC/XYZ")


async def test_a_book_in_memory_that_is_not_the_databases_records_nothing(trading: Trading) -> None:
    """Whatever has changed an order behind matching's back."""
    (sell,) = await trading.place(order("sell", "1", "100"))
    matcher = BookMatcher(SYMBOL, trading.store)
    await run(matcher)
    (buy,) = await trading.place(order("buy", "1", "100"))
    await trading.rows("update trading.orders set status = 3, closure = 4 where order_id = %s", sell)
    with pytest.raises(psycopg.errors.RaiseException, match="1 of 2 orders are not as the book in memory has them"):
        await matcher.round()
    assert await trading.trades() == []
    await trading.rows("update trading.orders set status = 2, closure = null where order_id = %s", sell)
    assert await run(matcher) is Round.IDLE
    assert (await trading.status(buy))["status"] == "FILLED"


async def test_one_that_stands_by_goes_on_when_entries_are_left_alone(trading: Trading) -> None:
    """Not while there is nothing to match, and not while another matches."""
    standing_by = asyncio.create_task(BookMatcher(SYMBOL, trading.store).stand_by())
    await trading.place(order("sell", "1", "100"))
    await asyncio.wait_for(standing_by, 60)
    await trading.match()


async def test_orders_placed_before_there_was_matching_are_matched(trading: Trading) -> None:
    """Cancelled ones, without a place of their cancellation, were over before."""
    gone, sell = await trading.place(order("sell", "1", "99"), order("sell", "1", "100"))
    await trading.rows("update trading.orders set status = 3 where order_id = %s", gone)
    (buy,) = await trading.place(order("buy", "1", "100"))
    await trading.match()
    assert [fill["sell_order_id"] for fill in (await trading.status(buy))["fills"]] == [sell]
