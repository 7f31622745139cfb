"""Fiat and the wallet asked by several connections at once, in any order, again and again: the money adds up."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal

import pytest

from participant_sdk.participant import Prepare, Work
from participant_sdk.xa import VoteKind
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
            [processes[at].branch(*draw(chance, f"{lap}-{at}-{place}")) for place in range(BATCH)]
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
        assert all(ack.kind in {1, 2} for answer in answers for ack in answer.commits), answers
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
        rollbacks = [processes[0].rollback_of(branch) for branch in yes if branch not in chosen]
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
