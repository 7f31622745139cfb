"""Trading with its matching in the test's own hands: short ways to place, to match, and to look at what came of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from participant_sdk.participant import Prepare
from participant_sdk.xa import Vote
from sidecars.trading.book_store import BookStore
from sidecars.trading.matcher import BookMatcher, Round
from sidecars.trading.orders import Cancellation, Entry, Order, Side, TimeInForce
from tests.integration.participations import Participation, participating
from tests.sidecars.naive_book import NaiveBook

SYMBOL = "BTC/USD"


def order(side: str, amount: str, price: str | None = None, **more: str) -> tuple[str, str]:
    """Place an order; a market order where no price is given. Each is of a user of its own unless one is named."""
    members = {"user_id": f"{side}er", "symbol": SYMBOL, "side": side, "amount": amount, **more}
    members |= {"type": "market"} if price is None else {"price": price}
    return "place_order", json.dumps(members)


def cancel(order_id: str) -> tuple[str, str]:
    return "cancel_order", json.dumps({"order_id": order_id})


def order_of(vote: Vote, at: int = 0) -> str:
    return json.loads(vote.results[at])["order_id"]


class Trading:
    """A participant, and a store for its matchers."""

    def __init__(self, participation: Participation, store: BookStore) -> None:
        self.participation = participation
        self.store = store
        self.rows = participation.rows

    async def place(self, *operations: tuple[str, str]) -> list[str]:
        """Place each in a transaction of its own, all in one batch; return their ids."""
        branches = [self.participation.branch(operation) for operation in operations]
        votes = await self.participation.prepare(*branches)
        await self.participation.commit(*branches)
        return [order_of(vote) for vote in votes]

    async def match(self, symbol: str = SYMBOL) -> None:
        """Match all that is there, with a matcher that has just begun."""
        await run(BookMatcher(symbol, self.store))

    async def read(self, operation: str, **parameters: object) -> dict[str, Any]:
        """Ask in a transaction of its own."""
        prepare: Prepare = self.participation.branch((operation, json.dumps(parameters)))
        vote = (await self.participation.prepare(prepare))[0]
        assert vote.is_yes, vote
        return json.loads(vote.results[0])

    async def status(self, order_id: str, **more: int) -> dict[str, Any]:
        return await self.read("order_status", order_id=order_id, **more)

    async def trades(self, symbol: str = SYMBOL) -> list[tuple[Any, ...]]:
        """Every trade, in order: its id, price and amount."""
        return await self.rows(
            "select trade_id, trim_scale(price)::text, trim_scale(amount)::text from trading.fills"
            " where symbol = %s order by taker_sequence, number",
            symbol,
        )


async def run(matcher: BookMatcher) -> Round:
    """Match until there is nothing left, or somebody else was there."""
    while (came_to := await matcher.round()) is Round.MATCHED:
        pass
    return came_to


async def naively(trading: Participation, symbol: str = SYMBOL) -> NaiveBook:
    """What must have come of a book, by its entries alone."""
    rows = await trading.rows(
        "select sequence, order_id, user_id, side, time_in_force, price, amount, cancel_sequence"
        " from trading.orders where symbol = %s and sequence is not null",
        symbol,
    )
    entries: list[Entry] = []
    for sequence, order_id, user_id, side, time_in_force, price, amount, cancelled in rows:
        entries.append(Order(sequence, order_id, user_id, Side(side), TimeInForce(time_in_force), price, amount))
        if cancelled is not None:
            entries.append(Cancellation(cancelled, order_id))
    return NaiveBook(symbol).take(sorted(entries, key=lambda entry: entry.sequence))


async def told(trading: Participation, symbol: str = SYMBOL) -> Sequence[str]:
    """The trades that the outbox tells of, in its order."""
    rows = await trading.rows(
        "select trade_id from trading.outbox where symbol = %s and trade_id is not null order by position", symbol
    )
    return [trade_id for (trade_id,) in rows]


async def is_as_it_must_be(trading: Participation, symbol: str = SYMBOL) -> None:
    """Every entry is matched once: the trades, their order in the outbox and the orders' ends are the naive book's."""
    naive = await naively(trading, symbol)
    rows = await trading.rows(
        "select trade_id, price, amount, buy_order_id, sell_order_id, buyer_id, seller_id from trading.fills"
        " where symbol = %s order by taker_sequence, number",
        symbol,
    )
    assert rows == [
        (fill.trade_id, fill.price, fill.amount, fill.buy_order_id, fill.sell_order_id, fill.buyer_id, fill.seller_id)
        for fill in naive.fills
    ]
    assert await told(trading, symbol) == [fill.trade_id for fill in naive.fills]
    standings = await trading.rows(
        "select order_id, filled, status, closure from trading.orders where symbol = %s and sequence is not null",
        symbol,
    )
    assert {order_id: tuple(standing) for order_id, *standing in standings} == {
        order_id: tuple(standing) for order_id, standing in naive.standings.items()
    }
    assert await trading.violations() == []


@asynccontextmanager
async def matching(dsn: str) -> AsyncGenerator[Trading]:
    """Trading over a fresh database; its invariants must hold at the end."""
    async with participating(dsn, "trading") as participation:
        store = BookStore.open(dsn, 4)
        try:
            yield Trading(participation, store)
        finally:
            await store.close()
        assert await participation.violations() == []
