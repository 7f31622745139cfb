"""What comes to be there while a batch waits for its locks is locked by nobody; all the same one branch gets it.

1. A batch waits for the lock of one row, having looked for another that is not there yet. 2. That other one comes, and
is committed. 3. A second batch has its lock, and marks it, but has not committed. 4. The first one goes on, sees the
row without the mark, and takes it too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from participant_sdk.participant import Prepare
from participant_sdk.xa import Vote
from tests.integration import test_fiat as bank
from tests.integration import test_settlement as trades
from tests.integration import test_trading as orders
from tests.integration import test_wallet as coins
from tests.integration.participations import Participation, participating

RIVAL = 1_000_000
WAITING = "select count(distinct pid) from pg_locks where not granted"

Appear = Callable[[], Awaitable[object]]


async def until_waiting(participation: Participation) -> None:
    while await participation.rows(WAITING) != [(1,)]:  # noqa: ASYNC110 - locks have no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_transaction(participation: Participation, statement: str, *parameters: object) -> AsyncGenerator[None]:
    """Have a statement's locks for the time of the block, and its effect after it."""
    async with await psycopg.AsyncConnection.connect(participation.dsn) as connection:
        await connection.execute(statement.encode(), parameters)
        yield


async def overtaken(participation: Participation, late: Prepare, held: str, appear: Appear, rival: object) -> Vote:
    """Prepare ``late``, kept waiting while ``held`` locks a row, after which a rival's operation is done before it."""
    schema = participation.resource.name
    taking = f"select * from {schema}.apply_operations('{{}}', '{{}}', array[{RIVAL}]::bigint[], %s::jsonb)"
    async with asyncio.TaskGroup() as group:
        async with open_transaction(participation, held):
            preparing = group.create_task(participation.prepare(late))
            await until_waiting(participation)
            await appear()
            stack = AsyncExitStack()
            await stack.enter_async_context(open_transaction(participation, taking, json.dumps([rival])))
        async with stack:
            await until_waiting(participation)
    (vote,) = await preparing
    return vote


async def test_a_days_limit_in_fiat_is_one_for_a_user_who_was_cleared_meanwhile(database: str) -> None:
    """Nobody had locked the user, who was not there."""
    async with participating(database, "fiat") as fiat:
        await fiat.do(bank.asked("set_compliance", user_id="ada", state="CLEARED"))
        await fiat.rows("update fiat.limits set withdrawal_day = 150000 where currency = 'EUR'")

        async def appear() -> None:
            await fiat.do(bank.asked("set_compliance", user_id="new", state="CLEARED"))

        vote = await overtaken(
            fiat,
            fiat.branch(bank.withdraw("1", "ada"), bank.withdraw("100000", "new")),
            "select from fiat.users where user_id = 'ada' for update",
            appear,
            {"b": 1, "o": 0, "k": 5, "u": "new", "c": "EUR", "a": 100000, "i": "W-1", "n": bank.IBAN, "h": "New"},
        )
        assert (vote.reason, vote.transient) == ("DAILY_LIMIT_EXCEEDED", False)
        assert await fiat.rows("select user_id, withdrawn from fiat.usage") == [("new", 100_000)]


async def test_a_withdrawal_in_fiat_is_ended_once(database: str) -> None:
    """Else what one branch completed would be cancelled by the other, and never be paid."""
    async with participating(database, "fiat") as fiat:
        for user in ("ada", "bob"):
            await fiat.do(bank.asked("set_compliance", user_id=user, state="CLEARED"))
        await fiat.do(bank.withdraw("1", "ada", withdrawal_id="W-0"))
        vote = await overtaken(
            fiat,
            fiat.branch(bank.cancel("W-0"), bank.cancel("W-1")),
            "select from fiat.withdrawals where withdrawal_id = 'W-0' for update",
            lambda: fiat.do(bank.withdraw("1", "bob", withdrawal_id="W-1")),
            {"b": 1, "o": 0, "k": 6, "i": "W-1"},
        )
        assert (vote.reason, vote.transient) == ("WITHDRAWAL_IN_DOUBT", True)
        kept = await fiat.rows("select withdrawal_id, ending from fiat.withdrawals order by 1")
        assert kept == [("W-0", None), ("W-1", RIVAL)]


async def test_a_withdrawal_in_the_wallet_is_changed_once(database: str) -> None:
    """Else what one branch had sent would be given back by the other."""
    async with participating(database, "wallet") as wallet:
        await wallet.rows("update wallet.hot_wallets set is_connected = true where currency = 'BTC'")
        await wallet.do(coins.deposit("10"))
        await wallet.do(coins.withdrawal("w-0"))
        vote = await overtaken(
            wallet,
            wallet.branch(coins.change("cancel", "w-0"), coins.change("cancel", "w-1")),
            "select from wallet.withdrawals where withdrawal_id = 'w-0' for update",
            lambda: wallet.do(coins.withdrawal("w-1")),
            {"b": 1, "o": 0, "k": 3, "w": "w-1"},
        )
        assert (vote.reason, vote.transient) == ("WITHDRAWAL_BUSY", True)
        kept = await wallet.rows("select withdrawal_id, changing, change from wallet.withdrawals order by 1")
        assert kept == [("w-0", None, None), ("w-1", RIVAL, 3)]


async def test_an_order_is_cancelled_once(database: str) -> None:
    async with participating(database, "trading") as trading:
        first, later = trading.branch(orders.place()), trading.branch(orders.place())
        await trading.prepare(first)
        await trading.commit(first)
        names = [f"{each.log_id}-{each.xid}-0" for each in (first, later)]

        async def appear() -> None:
            await trading.prepare(later)
            await trading.commit(later)

        vote = await overtaken(
            trading,
            trading.branch(*[orders.cancel(name) for name in names]),
            f"select from trading.orders where order_id = '{names[0]}' for update",
            appear,
            {"b": 1, "o": 0, "k": 2, "i": names[1]},
        )
        assert (vote.reason, vote.transient) == ("ORDER_BEING_CANCELLED", True)
        kept = await trading.rows("select cancelling from trading.orders order by sequence")
        assert kept == [(None,), (RIVAL,)]


async def test_a_trade_is_reversed_once(database: str) -> None:
    async with participating(database, "settlement") as settlement:
        await settlement.do(trades.settle("t0"))
        vote = await overtaken(
            settlement,
            settlement.branch(trades.reverse("t0"), trades.reverse("t1")),
            "select from settlement.trades where trade_id = 't0' for update",
            lambda: settlement.do(trades.settle("t1")),
            {"b": 1, "o": 0, "k": 2, "i": "t1", "s": "a mistake"},
        )
        assert (vote.reason, vote.transient) == ("TRADE_BEING_REVERSED", True)
        kept = await settlement.rows("select trade_id, reversal from settlement.trades order by 1")
        assert kept == [("t0", None), ("t1", RIVAL)]
