"""Trading over a real PostgreSQL: orders wait, enter their books in order, are cancelled once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from participant_sdk.participant import Prepare
from participant_sdk.xa import Vote, VoteKind, XaCode
from tests.integration.participations import OTHER_LOG_ID, Participation, participating

ASKED = '{"user_id":"123","symbol":"BTC/USD","side":"sell","amount":0.5,"price":50000}'


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "trading") as participation:
        yield participation
        assert await participation.violations() == []


def place(
    symbol: str = "BTC/USD", amount: str = "0.5", more: str = ',"price":50000', user: str = "123"
) -> tuple[str, str]:
    return "place_order", f'{{"user_id":"{user}","symbol":"{symbol}","side":"buy","amount":{amount}{more}}}'


def cancel(order_id: str) -> tuple[str, str]:
    return "cancel_order", f'{{"order_id":"{order_id}"}}'


def order_of(vote: Vote, at: int = 0) -> str:
    return json.loads(vote.results[at])["order_id"]


async def book(trading: Participation, symbol: str = "BTC/USD") -> Sequence[tuple[str, int]]:
    rows = await trading.rows(
        "select order_id, sequence from trading.orders where symbol = %s and status = 2 order by sequence", symbol
    )
    return [(order_id, sequence) for order_id, sequence in rows]


async def test_an_order_waits_for_its_branch_and_then_enters_the_book(trading: Participation) -> None:
    """The spec's example: PENDING and invisible at Prepare, in the book with a number on Commit."""
    prepare = trading.branch(("place_order", ASKED))
    vote = (await trading.prepare(prepare))[0]
    assert order_of(vote) == f"{prepare.log_id}-{prepare.xid}-0"
    assert await trading.rows("select status, sequence from trading.orders") == [(1, None)]
    assert await book(trading) == []
    await trading.commit(prepare)
    assert await book(trading) == [(order_of(vote), 1)]
    assert await trading.rows("select user_id, side, type, amount, price from trading.orders") == [
        ("123", 2, 1, 0.5, 50000)
    ]


async def test_one_xid_of_two_logs_places_two_orders(trading: Participation) -> None:
    """R18: the same xid under two logs names two branches, and so two orders."""
    one = trading.branch(place())
    other = trading.branch(place(), xid=one.xid)._replace(log_id=OTHER_LOG_ID)
    votes = [(await trading.prepare(prepare))[0] for prepare in (one, other)]
    assert [vote.is_yes for vote in votes] == [True, True]
    assert order_of(votes[0]) != order_of(votes[1])
    await trading.commit(one)
    await trading.rollback(other)
    assert [order_id for order_id, _ in await book(trading)] == [order_of(votes[0])]


async def test_an_order_whose_branch_is_rolled_back_is_rejected(trading: Participation) -> None:
    prepare = trading.branch(place(), place("ETH/USD"))
    await trading.prepare(prepare)
    await trading.rollback(prepare)
    assert await trading.rows("select status, sequence from trading.orders") == [(4, None), (4, None)]


async def test_numbers_in_a_book_rise_in_the_order_of_commits(trading: Participation) -> None:
    """Within a batch in the order of arrival, for each symbol by itself."""
    first = [trading.branch(place(), place("ETH/USD"), place()) for _ in range(2)]
    second = [trading.branch(place())]
    votes = [*await trading.prepare(*first), *await trading.prepare(*second)]
    await trading.commit(*second)
    await trading.commit(*first[::-1])
    entered = [order_of(votes[2]), *[order_of(votes[at], of) for at in (0, 1) for of in (0, 2)]]
    assert await book(trading) == list(zip(entered, range(1, 6), strict=True))
    assert await book(trading, "ETH/USD") == [(order_of(votes[at], 1), at + 1) for at in (0, 1)]


async def test_no_number_shows_up_below_one_that_was_read(trading: Participation) -> None:
    """A matcher reads upward: whoever numbers an order keeps others from numbering until it is durable."""
    lanes = [[trading.branch(place()) for _ in range(3)] for _ in range(16)]
    await asyncio.gather(*[trading.prepare(*lane) for lane in lanes])
    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 48:
            last = seen[-1] if seen else 0
            rows = await trading.rows(
                "select sequence from trading.orders where symbol = 'BTC/USD' and sequence > %s order by sequence", last
            )
            seen.extend(row[0] for row in rows)

    await asyncio.gather(follow(), *[trading.commit(*lane) for lane in lanes])
    assert seen == list(range(1, 49))


async def placed(trading: Participation) -> tuple[Prepare, str]:
    prepare = trading.branch(place())
    vote = (await trading.prepare(prepare))[0]
    return prepare, order_of(vote)


async def test_an_order_is_cancelled_once(trading: Participation) -> None:
    """Two cancels in one batch: one yes. It is in its book until matching reaches the cancellation."""
    prepare, order_id = await placed(trading)
    early = await trading.vote(cancel(order_id))
    # Only another branch is in doubt: a moment later the same request may pass.
    assert (early.reason, early.transient, early.xa_code) == ("ORDER_PENDING", True, XaCode.RBTRANSIENT)
    await trading.commit(prepare)
    one, two, three = (trading.branch(cancel(order_id)) for _ in range(3))
    votes = await trading.prepare(one, two)
    assert [vote.is_yes for vote in votes] == [True, False]
    assert (votes[1].reason, votes[1].transient) == ("ORDER_BEING_CANCELLED", True)
    assert (await trading.vote(cancel(order_id))).reason == "ORDER_BEING_CANCELLED"
    assert await book(trading) == [(order_id, 1)]
    await trading.rollback(one)
    await trading.prepare(three)
    await trading.commit(three)
    assert await trading.rows("select status, cancel_sequence, cancelling from trading.orders") == [(2, 2, None)]
    soon = await trading.vote(cancel(order_id))
    assert (soon.reason, soon.transient, soon.xa_code) == ("ORDER_BEING_CANCELLED", True, XaCode.RBTRANSIENT)


async def test_an_order_cancelled_twice_by_one_branch_is_refused_for_good(trading: Participation) -> None:
    """No other branch has a hand in it, so another try would fare no better; and the batch goes on."""
    orders = [await placed(trading) for _ in range(2)]
    await trading.commit(*[prepare for prepare, _ in orders])
    (_, one), (_, two) = orders
    branches = [trading.branch(cancel(two), cancel(one), cancel(one)), trading.branch(cancel(two))]
    votes = await trading.prepare(*branches)
    assert (votes[0].reason, votes[0].field) == ("ORDER_REPEATED", "operations[2].parameters.order_id")
    assert votes[0].is_business_no
    assert (votes[1].reason, votes[1].transient) == ("ORDER_BEING_CANCELLED", True)
    assert (await trading.vote(cancel(two))).is_yes


async def test_cancels_from_two_workers_get_one_yes(trading: Participation) -> None:
    prepare, order_id = await placed(trading)
    await trading.commit(prepare)
    rivals = [trading.branch(cancel(order_id)) for _ in range(8)]
    answers = await asyncio.gather(*[trading.prepare(rival) for rival in rivals])
    assert sum(votes[0].is_yes for votes in answers) == 1


async def test_a_rejected_order_cannot_be_cancelled(trading: Participation) -> None:
    prepare, order_id = await placed(trading)
    await trading.rollback(prepare)
    assert (await trading.vote(cancel(order_id))).reason == "ORDER_REJECTED"


async def test_only_asking_reads_and_reserves_nothing(trading: Participation) -> None:
    """READ_ONLY for a branch that only validates; with work beside it, PREPARED."""
    asked, mixed = trading.branch(("validate_order", ASKED)), trading.branch(("validate_order", ASKED), place())
    votes = await trading.prepare(asked, mixed)
    assert [vote.kind for vote in votes] == [VoteKind.READ_ONLY, VoteKind.PREPARED]
    assert votes[1].results[0] == ""
    assert len(await trading.rows("select order_id from trading.orders")) == 1
    refused = await trading.vote(("validate_order", ASKED.replace("0.5", "5000")))
    assert refused.reason == "LIMIT_EXCEEDED"


PARAMETERS = "operations[0].parameters"
WRONG = [
    (place("BTC/XYZ"), "UNKNOWN_SYMBOL", f"{PARAMETERS}.symbol"),
    (place("BTC USD"), "BAD_PARAMETERS", f"{PARAMETERS}.symbol"),
    (place(amount="0"), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    (place(amount="0.000000001"), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    (place(more=',"price":50000.001'), "BAD_PARAMETERS", f"{PARAMETERS}.price"),
    (place(more=',"price":-1'), "BAD_PARAMETERS", f"{PARAMETERS}.price"),
    (place(more=""), "BAD_PARAMETERS", f"{PARAMETERS}.price"),
    (place(more=',"price":1,"type":"market"'), "BAD_PARAMETERS", f"{PARAMETERS}.price"),
    (place(more=',"type":"stop"'), "BAD_PARAMETERS", f"{PARAMETERS}.type"),
    (("place_order", ASKED.replace("sell", "short")), "BAD_PARAMETERS", f"{PARAMETERS}.side"),
    (("place_order", ASKED.replace('"side":"sell",', "")), "BAD_PARAMETERS", f"{PARAMETERS}.side"),
    (("match_order", ASKED), "UNKNOWN_OPERATION", "operations[0].operation"),
    (cancel("nothing"), "UNKNOWN_ORDER", f"{PARAMETERS}.order_id"),
    (cancel(""), "BAD_PARAMETERS", f"{PARAMETERS}.order_id"),
    (("cancel_order", "{}"), "BAD_PARAMETERS", f"{PARAMETERS}.order_id"),
    (("cancel_order", '{"order_id":7}'), "BAD_PARAMETERS", f"{PARAMETERS}.order_id"),
    (place(amount="true"), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    (place(amount='"1e3"'), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    (place(amount="0.5", more=',"price":1,"stop":1'), "BAD_PARAMETERS", f"{PARAMETERS}.stop"),
    (place(user=" 123"), "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    (place(user=""), "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    (place(more=',"price":1,"time_in_force":"day"'), "BAD_PARAMETERS", f"{PARAMETERS}.time_in_force"),
    (place(more=',"type":"market","time_in_force":"gtc"'), "BAD_PARAMETERS", f"{PARAMETERS}.time_in_force"),
    (place(more=',"price":1,"client_order_id":"my order"'), "BAD_PARAMETERS", f"{PARAMETERS}.client_order_id"),
    (place(more=f',"price":1,"client_order_id":"{"x" * 65}"'), "BAD_PARAMETERS", f"{PARAMETERS}.client_order_id"),
    (("validate_order", ASKED.replace("BTC/USD", "BTC/XYZ")), "UNKNOWN_SYMBOL", f"{PARAMETERS}.symbol"),
    (("order_status", '{"order_id":"nothing"}'), "UNKNOWN_ORDER", f"{PARAMETERS}.order_id"),
    (("order_status", "{}"), "BAD_PARAMETERS", f"{PARAMETERS}.order_id"),
    (("order_status", '{"order_id":"x","fills_from":-1}'), "BAD_PARAMETERS", f"{PARAMETERS}.fills_from"),
    (("order_status", '{"order_id":"x","fills_from":0.5}'), "BAD_PARAMETERS", f"{PARAMETERS}.fills_from"),
    (("order_status", '{"order_id":"x","fills_from":"1"}'), "BAD_PARAMETERS", f"{PARAMETERS}.fills_from"),
    (("order_book", '{"symbol":"BTC/XYZ"}'), "UNKNOWN_SYMBOL", f"{PARAMETERS}.symbol"),
    (("order_book", '{"symbol":"BTC/USD","depth":0}'), "BAD_PARAMETERS", f"{PARAMETERS}.depth"),
    (("order_book", '{"symbol":"BTC/USD","depth":51}'), "BAD_PARAMETERS", f"{PARAMETERS}.depth"),
]
BOOK = ("order_book", '{"symbol":"BTC/USD"}')
WRONG_TOGETHER = [
    ((place(), BOOK), "READS_APART", "operations[1].operation"),
    ((BOOK, cancel("x")), "READS_APART", "operations[0].operation"),
    ((BOOK,) * 5, "TOO_MANY_READS", "operations[4].operation"),
]
LIMITS = [
    (place(amount="0.000001"), "amount"),
    (place(amount="1001"), "amount"),
    (place(more=',"price":10000000.01'), "price"),
    (place(amount="1000", more=',"price":100000.01'), "amount"),
    (place(amount="0.00001", more=',"price":1'), "amount"),
]


async def test_what_is_wrong_in_itself_is_refused_by_name(trading: Participation) -> None:
    """Bad input: a "no" that names the field, and nothing placed."""
    votes = await trading.prepare(*[trading.branch(operation) for operation, _, _ in WRONG])
    told = [(vote.kind, vote.xa_code, vote.transient, vote.reason, vote.field) for vote in votes]
    assert told == [(VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, False, reason, field) for _, reason, field in WRONG]
    assert await trading.rows("select order_id from trading.orders") == []


async def test_what_may_not_stand_together_is_refused_by_name(trading: Participation) -> None:
    votes = await trading.prepare(*[trading.branch(*operations) for operations, _, _ in WRONG_TOGETHER])
    told = [(vote.xa_code, vote.reason, vote.field) for vote in votes]
    assert told == [(XaCode.XAER_INVAL, reason, field) for _, reason, field in WRONG_TOGETHER]
    assert (await trading.vote(*(BOOK,) * 4)).is_yes


async def test_limits_and_halts_are_the_business_saying_no(trading: Participation) -> None:
    """They bind the request, as wrong parameters do not."""
    votes = await trading.prepare(*[trading.branch(operation) for operation, _ in LIMITS])
    told = [(vote.reason, vote.field, vote.xa_code) for vote in votes]
    assert told == [("LIMIT_EXCEEDED", f"{PARAMETERS}.{field}", XaCode.RBROLLBACK) for _, field in LIMITS]
    assert all(vote.is_business_no for vote in votes)
    await trading.rows("update trading.symbols set status = 2 where symbol = 'BTC/USD'")
    assert (await trading.vote(place())).reason == "SYMBOL_HALTED"
    assert (await trading.vote(place("ETH/USD"))).is_yes


async def test_a_market_order_has_no_price_and_does_not_wait(trading: Participation) -> None:
    """Somebody else must offer something when it is prepared; whether that is there still, matching finds out."""
    await trading.do(("place_order", ASKED))
    await trading.do(place(more=',"type":"market"', user="456"))
    assert await trading.rows("select type, price, time_in_force from trading.orders where type = 2") == [(2, None, 2)]


async def test_a_market_order_that_nobody_can_fill_is_refused(trading: Participation) -> None:
    """Bad input: neither an empty book, nor one's own orders, nor those that do not wait or are to leave."""
    sell, market = ASKED.replace("123", "456"), place(more=',"type":"market"')

    async def is_refused() -> None:
        for operation in (market, ("validate_order", market[1])):
            vote = await trading.vote(operation)
            assert (vote.reason, vote.field) == ("NO_LIQUIDITY", f"{PARAMETERS}.type")
            assert vote.is_business_no

    await is_refused()
    await trading.do(("place_order", ASKED))
    await trading.do(place(user="456"))
    await trading.do(("place_order", sell.replace("}", ',"time_in_force":"ioc"}')))
    await trading.vote(("place_order", sell))
    await is_refused()
    order_id = order_of(await trading.do(("place_order", sell)))
    assert (await trading.vote(("validate_order", market[1]))).is_yes
    await trading.do(cancel(order_id))
    await is_refused()
    unknown = await trading.vote(place("BTC/XYZ", more=',"type":"market"'))
    assert (unknown.reason, unknown.field) == ("UNKNOWN_SYMBOL", f"{PARAMETERS}.symbol")


def named(name: str, user: str = "123") -> tuple[str, str]:
    return place(more=f',"price":50000,"client_order_id":"{name}"', user=user)


async def test_a_client_gives_an_id_to_one_order(trading: Participation) -> None:
    """Of one user; another's is another."""
    await trading.do(named("one"))
    for operation in (named("one"), ("validate_order", named("one")[1])):
        vote = await trading.vote(operation)
        assert (vote.reason, vote.field) == ("DUPLICATE_CLIENT_ORDER_ID", f"{PARAMETERS}.client_order_id")
        assert vote.is_business_no
    await trading.do(named("one", user="456"), named("two"))
    twice = await trading.vote(named("three"), named("three"))
    assert (twice.reason, twice.field) == (
        "DUPLICATE_CLIENT_ORDER_ID",
        "operations[1].parameters.client_order_id",
    )
    await trading.do(named("three"))
    rows = await trading.rows("select user_id, client_order_id from trading.client_orders order by 1, 2")
    assert rows == [("123", "one"), ("123", "three"), ("123", "two"), ("456", "one")]


async def test_an_id_in_doubt_may_be_asked_for_again(trading: Participation) -> None:
    """In one batch and in the next; who is rolled back gives it free, and who is refused never had it."""
    first, second, third, bad = (
        trading.branch(named("one")),
        trading.branch(named("one")),
        trading.branch(named("one")),
        trading.branch(named("free"), place(amount="5000")),
    )
    votes = [*await trading.prepare(first, second, bad), *await trading.prepare(third)]
    told = [(vote.kind, vote.reason, vote.transient) for vote in votes]
    assert told == [
        (VoteKind.PREPARED, "", False),
        (VoteKind.ROLLED_BACK, "CLIENT_ORDER_ID_BUSY", True),
        (VoteKind.ROLLED_BACK, "LIMIT_EXCEEDED", False),
        (VoteKind.ROLLED_BACK, "CLIENT_ORDER_ID_BUSY", True),
    ]
    await trading.rollback(first)
    assert await trading.rows("select client_order_id from trading.client_orders") == []
    await trading.do(named("one"), named("free"))


async def test_rivals_for_an_id_from_two_workers_get_one_yes(trading: Participation) -> None:
    rivals = [trading.branch(named("one")) for _ in range(8)]
    answers = await asyncio.gather(*[trading.prepare(rival) for rival in rivals])
    assert sum(votes[0].is_yes for votes in answers) == 1
    assert {votes[0].reason for votes in answers} == {"", "CLIENT_ORDER_ID_BUSY"}


async def test_an_order_is_read_wherever_it_stands(trading: Participation) -> None:
    """READ_ONLY, with a result for each operation; before its branch has ended, after, and after a "no"."""
    prepare = trading.branch(named("one"))
    order_id = order_of((await trading.prepare(prepare))[0])
    query = ("order_status", f'{{"order_id":"{order_id}"}}')

    async def status() -> dict[str, object]:
        vote = await trading.vote(("validate_order", ASKED), query)
        assert (vote.kind, vote.results[0]) == (VoteKind.READ_ONLY, "")
        return json.loads(vote.results[1])

    shown = await status()
    assert (shown["status"], shown["client_order_id"], shown["is_matched"]) == ("PENDING", "one", False)
    await trading.commit(prepare)
    assert (await status())["status"] == "OPEN"
    rejected = trading.branch(place())
    order_id = order_of((await trading.prepare(rejected))[0])
    query = ("order_status", f'{{"order_id":"{order_id}"}}')
    await trading.rollback(rejected)
    assert (await status())["status"] == "REJECTED"


async def test_a_repeated_read_tells_what_the_first_one_told(trading: Participation) -> None:
    """R8: the stored vote, whatever has happened since."""
    query = trading.branch(("order_book", '{"symbol":"BTC/USD"}'))
    first = await trading.prepare(query)
    await trading.do(place())
    assert await trading.prepare(query) == first
    await trading.rows("update trading.symbols set status = 2 where symbol = 'BTC/USD'")
    assert (await trading.vote(("order_book", '{"symbol":"BTC/USD"}'))).is_yes


async def test_orders_of_an_older_sidecar_are_placed_as_they_were(trading: Participation) -> None:
    """Old code must run on the new schema: what it sends has no time in force."""
    order_id, members = "old-0", '"e":1,"p":1,"a":1,"r":100'
    await trading.rows(
        "select * from trading.reserve(array[1], %s::jsonb)",
        f'[{{"b":1,"o":0,"k":1,"i":"{order_id}","u":"123","y":"BTC/USD",{members}}}]',
    )
    assert await trading.rows("select time_in_force, status from trading.orders") == [(1, 1)]
    await trading.rows("delete from trading.orders")
