"""Loads of real bookkeepers: accounts made, money followed, and the command ``pincex load`` from end to end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from coordinator.cli import make_app
from coordinator.commands.load_checks import Books, Ledgers, doubts
from coordinator.commands.load_process import Followed
from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import UnavailableError
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid
from participant_sdk.load import ClosedLoop, SmallBank, SplitTransfers, Transfers
from participant_sdk.load.accounts import BATCH, Accounts, PreparationError
from participant_sdk.load.money import Inflow, money_in
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.server import serving
from sidecars.bookkeeper.operations import SERVICE
from tests.api.doors import NOWHERE
from tests.conftest import MakeDatabase
from tests.counting import counted
from tests.integration.xa_bank import run_sql
from tests.sdk.small_system import LOG_ID, System, coordinator

CLOCK = SystemClock()
PAYER, PAYEE = "payer", "payee"


@dataclass(frozen=True, slots=True)
class Bank:
    """A coordinator over two bookkeepers, each with a database."""

    address: str
    dsns: dict[str, str]

    async def money(self, currency: str = "USD") -> Decimal:
        return sum([await money_in(dsn, currency) for dsn in self.dsns.values()], Decimal(0))


@asynccontextmanager
async def running_bank(databases: MakeDatabase) -> AsyncGenerator[Bank]:
    """Run one for the time of the block."""
    dsns = {name: await databases(name) for name in (PAYER, PAYEE)}
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for name, dsn in dsns.items():
            resource = ReservationResource.open(name, SERVICE, dsn, CLOCK, connections=2)
            participant = await stack.enter_async_context(resource)
            served = await stack.enter_async_context(serving(participant, "127.0.0.1:0"))
            addresses[name] = f"127.0.0.1:{served.port}"
        around = System(MemoryLogStore(CLOCK, LOG_ID), {}, {}, addresses)
        running = await stack.enter_async_context(coordinator(around))
        yield Bank(running.address, dsns)


@pytest.fixture
async def bank(databases: MakeDatabase) -> AsyncGenerator[Bank]:
    async with running_bank(databases) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    exit_code: int | None
    output: str
    errors: str

    @property
    def told(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.output.splitlines()[-1])


def checking(dsns: Iterable[str]) -> list[str]:
    """The options that have these checked."""
    return [argument for dsn in dsns for argument in ("--check", dsn)]


async def start(bank: Bank, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> Process:
    """Start ``pincex load``, small and short."""
    named = ("--participants", f"{PAYER},{PAYEE}", "--accounts", "60", "--duration", "500ms", "--warm-up", "100ms")
    return await start_at(bank.address, *named, *arguments, environment=environment)


async def start_at(address: str, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> Process:
    """Start ``pincex load`` against a coordinator."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator.cli", "load", "--address", address),
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **counted(), "COLUMNS": "200", **environment},
    )


async def end(child: Process) -> Ran:
    """Wait for its end."""
    output, errors = await child.communicate()
    return Ran(child.returncode, output.decode(), errors.decode())


async def load(bank: Bank, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> Ran:
    """Run ``pincex load``, small and short, to its end."""
    return await end(await start(bank, *arguments, environment=environment))


async def balances(bank: Bank, name: str) -> dict[str, Decimal]:
    async with await psycopg.AsyncConnection.connect(bank.dsns[name]) as connection:
        cursor = await connection.execute(
            "select user_id, balance from bookkeeper.accounts where user_id <> 'house:fees'"
        )
        return dict(await cursor.fetchall())


async def prepare(bank: Bank, workload: Transfers | SmallBank, balance: int) -> int:
    """Prepare a workload's accounts; return how many were told of."""
    told: list[int] = []
    async with TransactionClient(bank.address) as client:
        await Accounts(client.execute, workload.currency, balance).prepare(workload.holders(), told.append)
    return sum(told)


async def test_accounts_are_opened_and_funded_and_those_that_are_there_are_funded_again(bank: Bank) -> None:
    """Also where one batch has accounts of both kinds."""
    few, more = 7, BATCH + 10
    assert await prepare(bank, Transfers(PAYER, PAYEE, few), 5) == 2 * few
    assert await prepare(bank, Transfers(PAYER, PAYEE, more), 10) == 2 * more
    for name in (PAYER, PAYEE):
        assert await balances(bank, name) == {str(n): 15 if n < few else 10 for n in range(more)}


async def test_accounts_that_a_participant_refuses_are_named(bank: Bank) -> None:
    with pytest.raises(PreparationError, match="currency is no currency of ours"):
        await prepare(bank, Transfers(PAYER, PAYEE, 3, currency="ABC"), 5)


@pytest.mark.parametrize("hot_spot", [0, 3])
async def test_smallbank_changes_the_ledgers_by_what_came_in(bank: Bank, hot_spot: int) -> None:
    """Committed procedures over two databases, contended: what they brought in is what the ledgers have more."""
    workload = SmallBank((PAYER, PAYEE), customers=20, hot_spot=hot_spot)
    await prepare(bank, workload, 60)
    before = await bank.money()
    async with TransactionClient(bank.address) as client, client.stream(in_flight=16) as stream:
        followed = Inflow(stream.execute, workload.currency)
        report = await ClosedLoop(followed.execute, iter(workload), 16).run(seconds=0.6, warm_up_s=0.0)
    assert report.committed > 0
    assert report.rolled_back.keys() <= {"INSUFFICIENT_FUNDS"}
    assert followed.least == followed.most == await bank.money() - before
    assert max(followed.branches.values()) <= report.committed <= followed.branches.total()
    for dsn in bank.dsns.values():
        assert await violations(dsn, SERVICE.invariants) == []


async def test_split_transfers_commit(bank: Bank) -> None:
    await prepare(bank, Transfers(PAYER, PAYEE, 4), 1000)
    before = await bank.money()
    async with TransactionClient(bank.address) as client:
        workload = iter(SplitTransfers((PAYER, PAYEE), 4))
        report = await ClosedLoop(client.execute, workload, 4).run(seconds=0.2, warm_up_s=0.0)
    assert report.committed > 0
    assert report.rolled_back == {}
    assert await bank.money() == before
    assert sum((await balances(bank, PAYEE)).values()) == 4000 + report.committed


async def test_a_closed_load_prepares_runs_and_checks(bank: Bank) -> None:
    ran = await load(bank, "--prepare", "--concurrency", "8", "--json", *checking(bank.dsns.values()))
    assert ran.exit_code == 0, ran
    told = ran.told
    assert (told["workload"], told["loop"], told["in_flight"]) == ("transfer", "closed", 8)
    assert told["committed"] > 0
    assert told["rolled_back"] == {}
    assert told["unknown"] == 0
    assert told["p50_ms"] <= told["p999_ms"] <= told["max_ms"]
    assert told["violations"] == []
    assert [each.split(" ")[0] for each in told["checked"]] == ["nothing", "the"]
    moved = sum((await balances(bank, PAYEE)).values()) - 60 * 1_000_000
    assert moved == told["committed"]


async def test_an_open_load_prints_a_table(bank: Bank) -> None:
    arguments = ("--workload", "smallbank", "--hot-spot", "5", "--rate", "40", "--prepare", "--balance", "500")
    parameters = [conninfo_to_dict(dsn) for dsn in bank.dsns.values()]
    # A password may stand in the environment, where nobody else can read it.
    (password,) = {str(each.pop("password")) for each in parameters}
    dsns = [make_conninfo("", **each) for each in parameters]
    ran = await load(bank, *arguments, *checking(dsns), environment={"PGPASSWORD": password})
    assert "asked for" in ran.output
    assert "the generator's own lag, p99" in ran.output
    assert "holds: nothing is left in doubt at payer, payee" in ran.output
    assert "holds: the ledgers' own invariants, counts of branches, and money over all of them (USD)" in ran.output
    # On a machine that is busy with other things the generator may be late, and then it has to say so.
    assert (ran.exit_code, "latency, p99.9" in ran.output) in {(0, True), (1, False)}


async def test_more_than_can_be_offered_is_told_and_its_latencies_are_not(bank: Bank) -> None:
    ran = await load(bank, "--prepare", "--rate", "20000", "--in-flight-max", "10", "--json")
    assert ran.exit_code == 1
    told = ran.told
    assert not told["trustworthy"]
    assert "were due while 10 were under way, and were not offered" in told["distrust"]
    assert told["offered_per_second"] < told["asked_per_second"] == 20000
    assert told["not_offered"] > 0
    assert [told[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")] == [None] * 5
    ran = await load(bank, "--rate", "20000", "--in-flight-max", "10")
    assert ran.exit_code == 1
    assert "latency, p50" not in ran.output
    assert "were not offered" in ran.output


async def test_money_that_appears_is_found(bank: Bank) -> None:
    """A ledger that somebody wrote into by hand: both its own invariants and the sum over all notice."""
    await prepare(bank, Transfers(PAYER, PAYEE, 60), 1000)
    async with await psycopg.AsyncConnection.connect(bank.dsns[PAYEE], autocommit=True) as connection:
        # At each posting a unit more than was sent.
        await connection.execute(
            "create function cheat() returns trigger language plpgsql as $$ begin "
            "if new.balance > old.balance then new.balance := new.balance + 1; end if; return new; end $$;"
            "create trigger cheat before update on bookkeeper.accounts for each row execute function cheat()"
        )
    ran = await load(bank, "--concurrency", "2", "--json", *checking(bank.dsns.values()))
    assert ran.exit_code == 1, ran
    names = [violation.partition(":")[0] for violation in ran.told["violations"]]
    assert {"MONEY_NOT_CONSERVED", "BALANCE_NOT_JOURNAL"} <= set(names)
    assert "the ledgers together changed by" in ran.told["violations"][-1]
    assert len(ran.told["checked"]) == 1


async def test_branches_that_no_client_was_told_of_are_found(bank: Bank) -> None:
    """But for those of transactions whose outcome no client knows."""
    await prepare(bank, Transfers(PAYER, PAYEE, 3), 1000)
    ledgers = Ledgers([Books(name, "bookkeeper", dsn) for name, dsn in bank.dsns.items()], "USD")
    await ledgers.read()
    async with TransactionClient(bank.address) as client:
        await client.execute(next(iter(Transfers(PAYER, PAYEE, 3))))
    nothing = Decimal(0)
    assert await ledgers.violations(Followed(nothing, nothing, {PAYER: 1, PAYEE: 1}, unknown=0)) == []
    assert await ledgers.violations(Followed(nothing, nothing, {PAYER: 1}, unknown=1)) == []
    found = await ledgers.violations(Followed(nothing, nothing, {PAYER: 1}, unknown=0))
    assert found == [f"COUNTS_DISAGREE: {PAYEE} committed 1 branches, and clients were told of 0"]
    found = await ledgers.violations(Followed(nothing, nothing, {PAYER: 2, PAYEE: 1}, unknown=0))
    assert found == [f"COUNTS_DISAGREE: {PAYER} committed 1 branches, and clients were told of 2"]


async def test_old_branches_that_are_pruned_meanwhile_are_not_missed(bank: Bank) -> None:
    await prepare(bank, Transfers(PAYER, PAYEE, 3), 1000)
    first = "(select min(branch) from pincex.branches where phase = 3)"
    aged = f"update pincex.branches set xid = '{Xid.make(1, 1, 1)}' where branch = {first}"
    await run_sql(bank.dsns[PAYER], aged)
    ledgers = Ledgers([Books(PAYER, "bookkeeper", bank.dsns[PAYER])], "USD")
    await ledgers.read()
    pruned = f"select pincex.prune(log, '{Xid.make(2, 1, 1)}', 100) from pincex.logs"
    assert await run_sql(bank.dsns[PAYER], pruned) == [(1,)]
    assert await ledgers.violations(Followed(Decimal(0), Decimal(0), {}, unknown=0)) == []


async def test_a_load_can_be_interrupted_and_tells_what_was(bank: Bank) -> None:
    await prepare(bank, Transfers(PAYER, PAYEE, 60), 1000)
    child = await start(bank, "--duration", "1h", "--warm-up", "0s", "--json")
    # What another process does has no event for us.
    while sum((await balances(bank, PAYEE)).values()) == 60 * 1000:  # noqa: ASYNC110 - as above.
        await asyncio.sleep(0.02)
    child.send_signal(signal.SIGINT)
    ran = await end(child)
    assert ran.exit_code == 0, ran
    assert ran.told["committed"] > 0
    assert 0 < ran.told["seconds"] < 60


async def test_accounts_that_are_not_there_end_it_with_the_way_out(bank: Bank) -> None:
    ran = await load(bank)
    assert ran.exit_code == 2
    assert "has no account in USD" in ran.errors
    assert ran.errors.rstrip().endswith("--prepare opens the accounts")
    ran = await load(bank, "--prepare", "--currency", "ABC")
    assert ran.exit_code == 2
    assert ran.errors.startswith("pincex: --prepare: ")
    assert "is no currency of ours" in ran.errors


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("--workload: 'nope'", ("--workload", "nope")),
        ("--rate and --concurrency", ("--rate", "5", "--concurrency", "4")),
        ("--rate", ("--rate", "0")),
        ("--rate", ("--rate=-1",)),
        ("--rate", ("--rate", "nan")),
        ("--concurrency", ("--concurrency", "0")),
        ("--in-flight-max: goes with --rate", ("--in-flight-max", "5")),
        ("--duration: ", ("--duration", "0s")),
        ("--duration: ", ("--duration", "soon")),
        ("--warm-up: ", ("--warm-up", "soon")),
        ("--accounts: ", ("--accounts", "0")),
        ("--hot-spot: ", ("--hot-spot", "5")),
        ("--participants: ", ("--participants", ",")),
        ("--balance", ("--prepare", "--balance", "0")),
    ],
)
def test_bad_usage_names_the_option_before_anybody_is_asked(named: str, arguments: tuple[str, ...]) -> None:
    """Where nobody listens, so that going on would end otherwise."""
    ran = CliRunner().invoke(make_app(), ["load", "--address", NOWHERE, *arguments])
    assert ran.exit_code == 2, ran.output
    assert named in " ".join(ran.output.split())


async def test_what_the_system_cannot_do_names_the_option_and_starts_nothing(
    bank: Bank, databases: MakeDatabase
) -> None:
    """Nothing was opened, though it was asked for."""
    for named, arguments in (
        ("--participants: 'vault' is not configured; there are payee, payer", ("--participants", "vault")),
        ("--check: 1 databases of 2 participants", ("--check", "host=127.0.0.1 port=1")),
        ("--check: connection failed", ("--participants", PAYER, "--check", "host=127.0.0.1 port=1")),
        ('--check: relation "bookkeeper.accounts"', ("--participants", PAYER, "--check", await databases("empty"))),
    ):
        ran = await load(bank, *arguments, "--prepare")
        assert ran.exit_code == 2, ran
        assert named in " ".join(ran.errors.split())
    assert await balances(bank, PAYER) == {}


def test_a_coordinator_that_is_not_there_is_named() -> None:
    ran = CliRunner().invoke(make_app(), ["load", "--address", NOWHERE, "--json"])
    assert ran.exit_code == 4
    assert json.loads(ran.output)["error"] == f"no coordinator answers at {NOWHERE}; nothing was sent"


async def test_of_a_participant_that_cannot_be_asked_nobody_says_that_nothing_is_in_doubt(database: str) -> None:
    async with AsyncExitStack() as stack, AsyncExitStack() as door:
        opened = ReservationResource.open(PAYER, SERVICE, database, CLOCK, connections=1)
        served = await door.enter_async_context(serving(await stack.enter_async_context(opened), "127.0.0.1:0"))
        around = System(MemoryLogStore(CLOCK, LOG_ID), {}, {}, {PAYER: f"127.0.0.1:{served.port}"})
        running = await stack.enter_async_context(coordinator(around))
        assert await doubts([running.address], [PAYER]) == frozenset()
        await door.aclose()
        with pytest.raises(UnavailableError, match=f"{PAYER} could not be asked"):
            await doubts([running.address], [PAYER])
