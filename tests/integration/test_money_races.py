"""Fiat and the wallet asked by several connections at once, in any order, again and again: the money adds up.

Which of two gets the last of a limit is no matter of luck in the tests by turns: a connection of the test's own holds
the row that both change at their end, until both wait.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal

import psycopg
import pytest

from participant_sdk.participant import Prepare, Work
from participant_sdk.xa import Vote, VoteKind
from tests.integration.participations import Participation, participating
from tests.integration.test_fiat import asked, withdraw
from tests.integration.test_wallet import deposit, withdrawal

# Processes on one database, and rounds of batches that they are all given at once.
PROCESSES = 3
ROUNDS = 6
BATCH = 8

Draw = Callable[[random.Random, str], Sequence[tuple[str, str]]]


@asynccontextmanager
async def rivals(dsn: str, name: str) -> AsyncGenerator[list[Participation]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(participating(dsn, name)) for _ in range(PROCESSES)]


async def race(processes: Sequence[Participation], chance: random.Random, draw: Draw) -> list[Prepare]:
    """Have branches prepared, committed and rolled back at once; return those that were committed.

    Each branch is decided once, and told of it by two processes, while others prepare. Some are rolled back before
    they are prepared, and many are prepared twice.
    """
    committed: list[Prepare] = []
    ending: list[Work] = []
    for lap in range(ROUNDS):
        fresh = [
            # One of them gives out the xids, for an xid is never given out twice.
            [processes[0].branch(*draw(chance, f"{lap}-{at}-{place}")) for place in range(BATCH)]
            for at in range(PROCESSES)
        ]
        early = [processes[0].rollback_of(batch[0]) for batch in fresh]
        again = [chance.choice(batch) for batch in fresh]
        works = [
            Work(
                commits=ending[at].commits if ending else (),
                rollbacks=[*(ending[at].rollbacks if ending else ()), early[(at + 1) % PROCESSES]],
                prepares=[*fresh[at], *([again[(at + 1) % PROCESSES]] if lap % 2 else [])],
            )
            for at in range(PROCESSES)
        ]
        applying = [each.resource.apply(work) for each, work in zip(processes, works, strict=True)]
        answers = await asyncio.gather(*applying)
        odd = [ack for answer in answers for ack in answer.commits if ack.kind not in {1, 2}]
        assert not odd
        # Told again, each has its vote, also where it came after its Rollback, or its Rollback after it.
        asked_of = [branch for batch in fresh for branch in batch]
        told = await processes[0].prepare(*asked_of)
        gone = [rollback.xid for rollback in early]
        yes = [
            branch
            for branch, vote in zip(asked_of, told, strict=True)
            if vote.kind is VoteKind.PREPARED and branch.xid not in gone
        ]
        chosen = [branch for branch in yes if chance.random() < 0.6]
        committed += chosen
        commits = [processes[0].decided(branch) for branch in chosen]
        # A transient "no" is owed its Rollback too: the branch may be prepared all the same.
        rollbacks = [processes[0].rollback_of(branch) for branch in asked_of if branch not in chosen]
        ending = [
            Work(commits=commits[at::2] + commits[: at % 2], rollbacks=rollbacks[at % 2 :: 2])
            for at in range(PROCESSES)
        ]
    for each, work in zip(processes, ending, strict=True):
        await each.resource.apply(work)
    return committed


def amounts(branches: Sequence[Prepare], operation: str, field: str) -> dict[str, Decimal]:
    """What these branches' operations of this name come to, by user."""
    found: dict[str, Decimal] = {}
    for branch in branches:
        for each in branch.operations:
            values = json.loads(each.parameters)
            if each.name == operation:
                found[values[field]] = found.get(values[field], Decimal(0)) + Decimal(values["amount"])
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_fiat_is_asked_at_once_the_limits_hold(database: str, seed: int) -> None:
    """What was withdrawn is what the committed branches say, and never more than a day's limit."""
    users = ("ada", "bob")

    def draw(chance: random.Random, name: str) -> list[tuple[str, str]]:
        drawn = [
            withdraw(str(chance.randint(1, 20)), chance.choice(users), withdrawal_id=f"W-{name}-{at}")
            for at in range(chance.randint(1, 3))
        ]
        if chance.random() < 0.2:
            # An id that others want too.
            drawn.append(withdraw("1", chance.choice(users), withdrawal_id=f"W-{chance.randint(1, 4)}"))
        return drawn

    async with rivals(database, "fiat") as processes:
        fiat = processes[0]
        for user in users:
            await fiat.do(asked("set_compliance", user_id=user, state="CLEARED"))
        await fiat.rows("update fiat.limits set withdrawal_day = 300 where currency = 'EUR'")
        committed = await race(processes, random.Random(seed), draw)
        used = dict(await fiat.rows("select user_id, withdrawn from fiat.usage"))
        assert used == amounts(committed, "reserve_withdrawal", "user_id")
        assert committed
        assert max(used.values()) <= 300
        assert await fiat.violations() == []


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_the_wallet_is_asked_at_once_no_money_is_promised_twice(database: str, seed: int) -> None:
    """What is reserved is what the committed branches say, with their fees, and never more than there is."""

    def draw(chance: random.Random, name: str) -> list[tuple[str, str]]:
        return [
            withdrawal(f"W-{name}-{at}", str(chance.randint(1, 3)), user_id=chance.choice(("ada", "bob")), fee="0.001")
            for at in range(chance.randint(1, 2))
        ]

    async with rivals(database, "wallet") as processes:
        wallet = processes[0]
        await wallet.do(deposit("60"))
        await wallet.rows("update wallet.hot_wallets set day_max = 50 where currency = 'BTC'")
        committed = await race(processes, random.Random(seed), draw)
        by_user = amounts(committed, "reserve_withdrawal", "user_id")
        count = sum(len(branch.operations) for branch in committed)
        expected = sum(by_user.values()) + count * Decimal("0.001")
        assert await wallet.rows("select balance, reserved from wallet.hot_wallets where currency = 'BTC'") == [
            (60, expected)
        ]
        assert committed
        assert max(by_user.values()) <= 50
        assert await wallet.violations() == []


async def by_turns(processes: Sequence[Participation], held: str, asked_for: Sequence[tuple[str, str]]) -> list[Vote]:
    """Have each process prepare one of these, all of them as far as they come while ``held`` locks a row."""
    branches = [processes[0].branch(each) for each in asked_for]
    # What waits, whatever it waits for: the row itself, or whoever is before it.
    waiting = "select count(distinct pid) from pg_locks where not granted"
    async with await psycopg.AsyncConnection.connect(processes[0].dsn) as holder, asyncio.TaskGroup() as group:
        await holder.execute(held.encode())
        preparing = [group.create_task(each.prepare(branch)) for each, branch in zip(processes, branches, strict=False)]
        while await processes[0].rows(waiting) != [(len(branches),)]:  # noqa: ASYNC110 - locks have no event
            await asyncio.sleep(0.01)
        await holder.commit()
    return [vote for each in preparing for vote in await each]


async def test_of_two_in_fiat_the_second_is_judged_once_the_first_is_done(database: str) -> None:
    """Lock and check are two statements: each fits into what is left of the day, and both do not."""
    async with rivals(database, "fiat") as processes:
        fiat = processes[0]
        await fiat.do(asked("set_compliance", user_id="ada", state="CLEARED"))
        await fiat.do(withdraw("100000"))
        votes = await by_turns(processes, "select from fiat.usage for update", [withdraw("100000"), withdraw("100000")])
        assert sorted(vote.reason for vote in votes) == ["", "DAILY_LIMIT_EXCEEDED"]
        assert await fiat.rows("select withdrawn from fiat.usage") == [(200_000,)]


async def test_of_two_in_the_wallet_the_second_is_judged_once_the_first_is_done(database: str) -> None:
    """As in fiat. No constraint stands behind a day's limit, as one does behind the balance."""
    async with rivals(database, "wallet") as processes:
        wallet = processes[0]
        await wallet.do(deposit("500"))
        held = "select from wallet.hot_wallets where currency = 'BTC' for update"
        wanted = [withdrawal(f"w-{at}", "40") for at in range(3)]
        votes = await by_turns(processes, held, wanted)
        assert sorted(vote.reason for vote in votes) == ["", "", "DAILY_LIMIT_EXCEEDED"]
        assert await wallet.rows("select sum(amount) from wallet.withdrawals") == [(80,)]
