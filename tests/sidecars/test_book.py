"""A symbol's book against a naive one, and each of its rules by an example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.parameters import EXACT
from sidecars.trading.book import Book, Outcome
from sidecars.trading.orders import (
    Cancellation,
    Closed,
    Closure,
    Entry,
    Fill,
    Order,
    OrderStatus,
    Side,
    Standing,
    TimeInForce,
    Withdrawn,
)
from tests.sidecars.naive_book import NaiveBook

SYMBOL = "BTC/USD"
BUY, SELL = Side.BUY, Side.SELL
GTC, IOC, FOK = TimeInForce


@st.composite
def entries_of_a_book(draw: st.DrawFn) -> list[Entry]:
    """Few users and prices, so that orders meet; amounts that no context of 28 digits holds."""
    entries: list[Entry] = []
    for sequence in range(1, draw(st.integers(1, 40)) + 1):
        kind = draw(st.sampled_from(("order",) * 8 + ("cancel", "withdrawn")))
        if kind == "cancel":
            entries.append(Cancellation(sequence, f"o{draw(st.integers(1, sequence))}"))
            continue
        if kind == "withdrawn":
            entries.append(Withdrawn(sequence))
            continue
        time_in_force = draw(st.sampled_from((GTC, GTC, GTC, IOC, FOK)))
        price = Decimal(draw(st.integers(98, 102)))
        is_market = time_in_force is not GTC and draw(st.booleans())
        lots = draw(st.integers(1, 5))
        entries.append(
            Order(
                sequence,
                f"o{sequence}",
                draw(st.sampled_from("abc")),
                draw(st.sampled_from(Side)),
                time_in_force,
                None if is_market else price,
                EXACT.multiply(Decimal(lots), Decimal("10000000000000000.000000000000000001")),
            )
        )
    return entries


def match_all(entries: Sequence[Entry], book: Book | None = None) -> tuple[Book, Outcome]:
    book = book or Book(SYMBOL)
    return book, book.match(entries, through=entries[0].sequence - 1, fills_max=10**9)


@given(entries_of_a_book())
def test_it_does_what_the_naive_book_does(entries: list[Entry]) -> None:
    """The same trades in the same order, at the same prices, and the same ends of all orders."""
    book, outcome = match_all(entries)
    naive = NaiveBook(SYMBOL).take(entries)
    assert [event for event in outcome.events if isinstance(event, Fill)] == naive.fills
    untouched = Standing(Decimal(0), OrderStatus.OPEN)
    assert {order_id: outcome.standings.get(order_id, untouched) for order_id in naive.standings} == naive.standings
    assert outcome.standings.keys() <= naive.standings.keys()
    closed = [event.order_id for event in outcome.events if isinstance(event, Closed)]
    assert sorted(closed) == sorted(name for name, each in naive.standings.items() if each.closure is not None)
    waiting = {
        order.order_id: EXACT.subtract(order.amount, order.filled) for side in Side for order in book.waiting(side)
    }
    assert waiting == {order.order_id: naive.left(order) for order in naive.open_orders()}
    assert len(book) == len(waiting)
    assert outcome.through == entries[-1].sequence


@given(entries_of_a_book())
def test_what_must_hold_after_every_entry(entries: list[Entry]) -> None:
    """Never crossed, nobody trades with himself, no right to a trade is passed over, nothing is filled twice."""
    book, traded = Book(SYMBOL), defaultdict[str, Decimal](Decimal)
    amounts = {entry.order_id: entry.amount for entry in entries if isinstance(entry, Order)}
    for entry in entries:
        before = {side: list(book.waiting(side)) for side in Side}
        outcome = book.match([entry], through=entry.sequence - 1, fills_max=10**9)
        fills = [event for event in outcome.events if isinstance(event, Fill)]
        assert all(fill.buyer_id != fill.seller_id for fill in fills)
        for fill in fills:
            traded[fill.buy_order_id] = EXACT.add(traded[fill.buy_order_id], fill.amount)
            traded[fill.sell_order_id] = EXACT.add(traded[fill.sell_order_id], fill.amount)
        if isinstance(entry, Order):
            makers = [fill.sell_order_id if entry.side is BUY else fill.buy_order_id for fill in fills]
            assert makers == [order.order_id for order in before[entry.side.opposite]][: len(makers)]
        bids, asks = (list(book.waiting(side)) for side in Side)
        if bids and asks:
            assert (bids[0].price or 0) < (asks[0].price or 0)
        for order in (*bids, *asks):
            assert order.filled == traded[order.order_id]
            assert order.filled < order.amount
        assert all(filled <= amounts[order_id] for order_id, filled in traded.items())


@given(entries_of_a_book(), st.integers(0, 40), st.integers(1, 3))
def test_a_book_made_again_from_what_waits_goes_on_the_same(entries: list[Entry], cut: int, fills_max: int) -> None:
    """Wherever it was thrown away, and in however many pieces it was matched."""
    _, whole = match_all(entries)
    book, events, standings, through = Book(SYMBOL), list[Fill | Closed](), dict[str, Standing](), 0
    while through < entries[-1].sequence:
        rest = entries[through : max(cut, through + 1)] if through < cut else entries[through:]
        outcome = book.match(rest, through=through, fills_max=fills_max)
        assert outcome.through > through
        events += outcome.events
        standings |= outcome.standings
        through = outcome.through
        waiting = [order for side in Side for order in book.waiting(side)]
        book = Book(SYMBOL, sorted(waiting, key=lambda order: order.sequence))
    assert (events, standings) == (whole.events, whole.standings)


def order(
    sequence: int, side: Side, price: str | None, amount: str, user: str = "", time_in_force: TimeInForce = GTC
) -> Order:
    at = None if price is None else Decimal(price)
    return Order(sequence, f"o{sequence}", user or f"u{sequence}", side, time_in_force, at, Decimal(amount))


def trades(outcome: Outcome) -> list[tuple[str, str, str]]:
    fills = [event for event in outcome.events if isinstance(event, Fill)]
    return [(fill.trade_id, str(fill.price), str(fill.amount)) for fill in fills]


def test_the_better_price_goes_first_and_then_the_older_order() -> None:
    """Rules 1 and 2: at the price of the order that waited."""
    asks = [order(1, SELL, "102", "1"), order(2, SELL, "101", "1"), order(3, SELL, "101", "2")]
    book, outcome = match_all([*asks, order(4, BUY, "102", "3.5")])
    assert trades(outcome) == [
        ("BTC/USD-4-1", "101", "1"),
        ("BTC/USD-4-2", "101", "2"),
        ("BTC/USD-4-3", "102", "0.5"),
    ]
    assert [(each.order_id, str(each.filled)) for each in book.waiting(SELL)] == [("o1", "0.5")]
    assert outcome.standings["o4"] == Standing(Decimal("3.5"), OrderStatus.FILLED)


def test_what_is_left_waits_or_is_cancelled_as_it_asked() -> None:
    """Rule 3."""
    _, outcome = match_all([order(1, SELL, "100", "1"), order(2, BUY, "100", "3"), order(3, SELL, "100", "1")])
    assert outcome.standings["o2"] == Standing(Decimal(2), OrderStatus.OPEN)
    for price in ("100", None):
        _, outcome = match_all([order(1, SELL, "100", "1"), order(2, BUY, price, "3", time_in_force=IOC)])
        assert outcome.standings["o2"] == Standing(Decimal(1), OrderStatus.CANCELLED, Closure.IMMEDIATE_OR_CANCEL)
        assert outcome.events[-1] == Closed("o2")


def test_fill_or_kill_trades_in_full_or_not_at_all() -> None:
    """Rule 4; what its own user offers, and what stands behind that, does not count."""
    asks = [order(1, SELL, "100", "1"), order(2, SELL, "101", "1", "own"), order(3, SELL, "102", "5")]
    book, outcome = match_all([*asks, order(4, BUY, "102", "2", "own", FOK)])
    assert outcome.standings == {"o4": Standing(Decimal(0), OrderStatus.CANCELLED, Closure.FILL_OR_KILL)}
    again = book.match([order(5, BUY, None, "2.5", time_in_force=FOK)], through=4, fills_max=10)
    assert [amount for _, _, amount in trades(again)] == ["1", "1", "0.5"]


def test_an_order_that_meets_its_own_users_goes_no_further() -> None:
    """Rule 5: the newest is cancelled, what it traded before stands, and the older order keeps its place."""
    asks = [order(1, SELL, "100", "1"), order(2, SELL, "101", "1", "own"), order(3, SELL, "102", "5")]
    book, outcome = match_all([*asks, order(4, BUY, "102", "3", "own")])
    assert trades(outcome) == [("BTC/USD-4-1", "100", "1")]
    assert outcome.standings["o4"] == Standing(Decimal(1), OrderStatus.CANCELLED, Closure.SELF_TRADE)
    assert [each.order_id for each in book.waiting(SELL)] == ["o2", "o3"]
    assert list(book.waiting(BUY)) == []


def test_a_cancellation_that_comes_too_late_does_nothing() -> None:
    book, outcome = match_all([order(1, SELL, "100", "1"), order(2, BUY, "100", "1"), Cancellation(3, "o1")])
    assert outcome.standings["o1"] == Standing(Decimal(1), OrderStatus.FILLED)
    assert (outcome.through, len(book)) == (3, 0)


def test_a_row_of_entries_is_cut_after_the_order_that_brings_too_many_fills() -> None:
    asks = [order(at, SELL, "100", "1") for at in (1, 2, 3)]
    book, outcome = match_all([*asks])
    outcome = book.match([order(4, BUY, "100", "2"), order(5, BUY, "100", "1")], through=3, fills_max=1)
    assert (outcome.through, outcome.fills) == (4, 2)
