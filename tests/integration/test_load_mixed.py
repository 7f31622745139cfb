"""The mixed workload on real participants: prepared, loaded, and checked over all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

import psycopg
import pytest

from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.clock import SystemClock
from participant_sdk.load import Mixed
from participant_sdk.load.mixed import SHIPPED
from participant_sdk.load.mixed_preparation import Preparation
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.reservation import ReservationResource, ReservationService
from participant_sdk.server import serving
from sidecars.bookkeeper.operations import SERVICE as BOOKKEEPER
from sidecars.fiat.operations import SERVICE as FIAT
from sidecars.fiat.transfers import read_transfers
from sidecars.settlement.operations import SERVICE as SETTLEMENT
from sidecars.sidecar import Surroundings
from sidecars.trading.matcher import match_orders
from sidecars.trading.operations import SERVICE as TRADING
from sidecars.wallet.operations import SERVICE as WALLET
from tests.conftest import MakeDatabase
from tests.integration.companies import playing
from tests.integration.test_load import Ran, checking, end, start_at
from tests.sdk.small_system import LOG_ID, System, coordinator

CLOCK = SystemClock()
SERVICES: Final[Mapping[str, ReservationService]] = {
    "bookkeeper": BOOKKEEPER,
    "trading": TRADING,
    "settlement": SETTLEMENT,
    "fiat": FIAT,
    "wallet": WALLET,
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A coordinator over the five participants, each with a database, and the bank that fiat hears of."""

    address: str
    dsns: Mapping[str, str]
    bank: str

    async def rows(self, participant: str, query: str) -> int:
        """One number out of a participant's database."""
        async with await psycopg.AsyncConnection.connect(self.dsns[participant]) as connection:
            # A query that a test wrote.
            row = await (await connection.execute(query.encode())).fetchone()
        assert row is not None
        return row[0]


@asynccontextmanager
async def running_exchange(databases: MakeDatabase, folder: Path) -> AsyncGenerator[Exchange]:
    """Run one for the time of the block."""
    dsns = {name: await databases(name) for name in SERVICES}
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        bank = await stack.enter_async_context(playing("bank", folder))
        for name, service in SERVICES.items():
            resource = ReservationResource.open(name, service, dsns[name], CLOCK, connections=2)
            served = serving(await stack.enter_async_context(resource), "127.0.0.1:0")
            addresses[name] = f"127.0.0.1:{(await stack.enter_async_context(served)).port}"
        running = await stack.enter_async_context(coordinator(System(MemoryLogStore(CLOCK, LOG_ID), {}, {}, addresses)))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        told = {"PINCEX_FIAT_BANK_URL": bank.url}
        attending = [
            group.create_task(read_transfers(Surroundings("fiat", dsns["fiat"], CLOCK, told))),
            group.create_task(match_orders(Surroundings("trading", dsns["trading"], CLOCK, {}))),
        ]
        yield Exchange(running.address, dsns, bank.url)
        for task in attending:
            task.cancel()


@pytest.fixture
async def exchange(databases: MakeDatabase, tmp_path: Path) -> AsyncGenerator[Exchange]:
    async with running_exchange(databases, tmp_path) as running:
        yield running


async def load(exchange: Exchange, *arguments: str) -> Ran:
    """Run ``pincex load --workload mixed``, small and short, to its end."""
    fixed = ("--workload", "mixed", "--accounts", "20", "--warm-up", "0s", "--bank", exchange.bank, "--json")
    return await end(await start_at(exchange.address, *fixed, *arguments))


async def test_every_kind_of_the_mix_commits_and_those_without_money_are_refused(exchange: Exchange) -> None:
    """Each participant takes what the workload asks of it; the one "no" is that money is not there."""
    mixed = Mixed(SHIPPED, traders=6, run="r")
    endings: Counter[tuple[str, str]] = Counter()
    async with TransactionClient(exchange.address) as client:
        await Preparation(client.execute, mixed, 10_000).prepare(lambda _: None)
        asked = list(islice(mixed, 150))
        for operations, ending in zip(asked, await asyncio.gather(*map(client.execute, asked)), strict=True):
            kind = " ".join(sorted(f"{service}.{name}" for service, name, _ in operations))
            is_poor = "penniless" in str(operations)
            assert isinstance(ending, RolledBack if is_poor else Committed), ending
            endings[kind, "" if isinstance(ending, Committed) else ending.reason] += 1
    committed = {kind for kind, reason in endings if not reason}
    assert len(committed) == 6, endings
    assert {reason for _, reason in endings} == {"", "INSUFFICIENT_FUNDS"}


async def test_a_mixed_load_prepares_runs_and_checks_all_five(exchange: Exchange) -> None:
    """Bank money among it, which fiat must have heard of before; and each participant's own invariants hold."""
    ran = await load(exchange, "--prepare", "--rate", "60", "--duration", "1500ms", *checking(exchange.dsns.values()))
    told = ran.told
    # On a machine that is busy with other things the generator may be late, and then it has to say so.
    assert (ran.exit_code, told["trustworthy"]) in {(0, True), (1, False)}, ran
    assert told["participants"] == list(SERVICES)
    assert told["violations"] == []
    assert told["rolled_back"].keys() <= {"INSUFFICIENT_FUNDS"}
    assert [each.split(" ")[0] for each in told["checked"]] == ["nothing", "the"]
    recorded = await exchange.rows("fiat", "select count(*) from fiat.deposits where recorded_at is not null")
    assert recorded > 0
    for name, service in SERVICES.items():
        assert await violations(exchange.dsns[name], service.invariants) == []


async def test_a_mixed_load_finds_what_is_broken_at_any_participant(exchange: Exchange) -> None:
    """A wallet that somebody wrote into by hand; the money at the bookkeeper is right."""
    assert (await load(exchange, "--prepare", "--bank", "", "--duration", "100ms")).exit_code == 0
    async with await psycopg.AsyncConnection.connect(exchange.dsns["wallet"], autocommit=True) as connection:
        await connection.execute("update wallet.hot_wallets set balance = balance + 1 where currency = 'ETH'")
    ran = await load(exchange, "--duration", "300ms", "--concurrency", "2", *checking(exchange.dsns.values()))
    assert ran.exit_code == 1, ran
    assert [each.partition(":")[0] for each in ran.told["violations"]] == ["BALANCE_NOT_MOVEMENTS"]


async def test_preparing_again_gives_as_much_again(exchange: Exchange) -> None:
    """Under another run's name; and the hot wallet has every coin that the users have."""
    async with TransactionClient(exchange.address) as client:
        for run in ("one", "two"):
            told: list[int] = []
            preparation = Preparation(client.execute, Mixed(SHIPPED, traders=30, run=run), 100)
            await preparation.prepare(told.append)
            assert sum(told) == preparation.users == 40
    for currency in ("USD", "ETH"):
        total = await exchange.rows(
            "bookkeeper", f"select sum(balance) from bookkeeper.accounts where currency = '{currency}'"
        )
        assert total == 2 * 30 * 100
    assert await exchange.rows("wallet", "select balance from wallet.hot_wallets where currency = 'ETH'") == Decimal(
        6000
    )


async def test_what_is_missing_is_named_and_nothing_is_opened(exchange: Exchange) -> None:
    vault = "bookkeeper,trading,settlement,fiat,vault"
    swapped = [exchange.dsns[name] for name in ("bookkeeper", "settlement", "trading", "fiat", "wallet")]
    for named, arguments in (
        ("--participants: mixed is of five", ("--participants", "bookkeeper")),
        ("--participants: 'vault' is not configured", ("--participants", vault)),
        ("--check: 1 databases of 5 participants", checking(swapped[:1])),
        ("--check: the database given for trading has no schema trading", checking(swapped)),
        ("--bank: no bank of a development system takes transfers at", ("--bank", "http://127.0.0.1:1")),
        ("--prepare: operations[", ("--currency", "XYZ", "--bank", "")),
    ):
        ran = await load(exchange, "--prepare", *arguments)
        assert ran.exit_code == 2, ran
        assert named in ran.errors + ran.output
    assert (
        await exchange.rows("bookkeeper", "select count(*) from bookkeeper.accounts where user_id like 'trader%'") == 0
    )
