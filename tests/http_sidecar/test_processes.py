"""The sidecar and the example in Go as processes: they conform, and what kill -9 cuts off ends once, either way."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
import pytest

from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, Ending, RolledBack
from participant_sdk.clock import SystemClock
from participant_sdk.conformance import Means, read_exercise, run
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.server import serving
from sidecars.bookkeeper.operations import SERVICE
from sidecars.http.options import SECRET_VARIABLE
from sidecars.http.planning import INVARIANTS
from tests.conftest import MakeDatabase
from tests.http_sidecar.inventory import SECRET, SOURCE, Inventory, inventory, until
from tests.http_sidecar.running import ROOT, RunningSidecar, command, running_sidecar
from tests.http_sidecar.scripted import Call, Scripted, answer, scripted
from tests.sdk.small_system import LOG_ID, System, coordinator

CLOCK = SystemClock()
# What the example has not: an operation that takes its time, or work before Prepare.
NOT_THERE = {
    "no yes leaves after the deadline",
    "work done is prepared and committed",
    "another count or number is xaer nota",
    "work ends with its deadline",
}


async def test_the_example_conforms(database: str, tmp_path: Path) -> None:
    """Every check that can be made of it, the kills of the sidecar too; its calls are signed, as the service wants."""
    environment = {SECRET_VARIABLE: SECRET}
    async with (
        inventory(tmp_path, environment) as service,
        running_sidecar(database, service.address, tmp_path, environment, "tests.http_sidecar.impatient") as sidecar,
    ):
        exercise = read_exercise((SOURCE / "exercise.json").read_text())
        report = await run(sidecar.address, exercise, Means(sidecar.restart, asked_within_s=20.0))
        assert report.passed, report.text()
        assert {finding.check for finding in report.skipped} == NOT_THERE, report.text()
        await until(_nothing_held(database))
        assert service.ends()["held"] == 0
        assert sidecar.lives > 1
    assert await violations(database, INVARIANTS) == []


async def test_a_caller_with_another_secret_is_not_believed(database: str, tmp_path: Path) -> None:
    """The service answers 401, which says nothing of the business: the vote is transient."""
    async with (
        inventory(tmp_path, {SECRET_VARIABLE: SECRET}) as service,
        running_sidecar(database, service.address, tmp_path) as sidecar,
    ):
        report = await run(sidecar.address, read_exercise((SOURCE / "exercise.json").read_text()), Means())
        (finding,) = [it for it in report.findings if it.check == "a yes is prepared and shown" and it.over == "unary"]
        assert "SERVICE_FAILED" in finding.seen
        assert service.records() == []


@dataclass(frozen=True, slots=True)
class Exchange:
    """A coordinator over a bookkeeper and the inventory; ``front`` stands between the sidecar and the service."""

    client: TransactionClient
    front: Scripted
    service: Inventory
    sidecar: RunningSidecar
    books: str
    database: str

    async def buy(self, request_id: str, quantity: int = 1) -> Ending:
        """Pay for bolts, one dollar each, and take them."""
        pay = {"from_user_id": "buyer", "to_user_id": "shop", "currency": "USD", "amount": str(quantity)}
        return await self.client.execute(
            [
                ("bookkeeper", "transfer_funds", pay),
                ("inventory", "reserve", {"sku": "bolt", "quantity": quantity}),
            ],
            timeout_s=60.0,
            request_id=request_id,
        )

    async def paid(self) -> Decimal:
        """What the shop has been paid."""
        query = "select balance from bookkeeper.accounts where user_id = 'shop'"
        async with await psycopg.AsyncConnection.connect(self.books) as connection:
            row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return Decimal(row[0])


@asynccontextmanager
async def exchange(databases: MakeDatabase, folder: Path) -> AsyncGenerator[Exchange]:
    """Run all of it; the buyer has 100 dollars, and there are 100 bolts."""
    books, database = await databases("books"), await databases("inventory")
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(inventory(folder))
        front = await stack.enter_async_context(scripted())
        forwarding = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))

        async def forward(call: Call) -> bytes:
            given = await forwarding.post(f"http://{service.address}/{call.name}", content=call.raw)
            return answer(given.status_code, raw=given.content)

        front.answers = dict.fromkeys(("try", "confirm", "cancel"), forward)
        sidecar = await stack.enter_async_context(running_sidecar(database, front.address, folder))
        opened = ReservationResource.open("bookkeeper", SERVICE, books, CLOCK, connections=2)
        bookkeeper = await stack.enter_async_context(opened)
        served = await stack.enter_async_context(serving(bookkeeper, "127.0.0.1:0"))
        addresses = {"bookkeeper": f"127.0.0.1:{served.port}", "inventory": sidecar.address}
        around = System(MemoryLogStore(CLOCK, LOG_ID), {}, {}, addresses)
        running = await stack.enter_async_context(coordinator(around))
        client = await stack.enter_async_context(TransactionClient(running.address))
        opening = [
            ("bookkeeper", "open_account", {"user_id": "buyer", "currency": "USD"}),
            ("bookkeeper", "open_account", {"user_id": "shop", "currency": "USD"}),
            ("bookkeeper", "credit_account", {"user_id": "buyer", "currency": "USD", "amount": "100"}),
            ("inventory", "restock", {"sku": "bolt", "quantity": 100}),
        ]
        assert isinstance(await client.execute(opening, timeout_s=60.0), Committed)
        yield Exchange(client, front, service, sidecar, books, database)
    assert await violations(database, INVARIANTS) == []
    assert await violations(books, SERVICE.invariants) == []


def _nothing_held(database: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            row = await (await connection.execute("select count(*) from http.held")).fetchone()
        return row is not None and row[0] == 0

    return is_so


@pytest.mark.parametrize("victim", ["sidecar", "service", "both"])
@pytest.mark.timeout(240)
async def test_killed_at_the_worst_moments_everything_ends_once(
    databases: MakeDatabase, tmp_path: Path, victim: str
) -> None:
    """Between the service's answer and the journal, and before the service has been asked: at each of the calls.

    Told committed: paid and taken, once. Told rolled back: neither. In the end nothing is held.
    """
    async with exchange(databases, tmp_path) as at:
        forward = at.front.answers["try"]

        async def kill() -> None:
            if victim != "sidecar":
                await at.service.kill()
                await at.service.start()
            if victim != "service":
                await at.sidecar.restart()

        bought = 0
        for moment in ("try before", "try after", "confirm before", "confirm after"):
            name, _, when = moment.partition(" ")
            struck = asyncio.Event()

            async def strikes(call: Call, when: str = when, struck: asyncio.Event = struck) -> bytes:
                answered = b"" if struck.is_set() or when == "before" else await forward(call)
                if not struck.is_set():
                    struck.set()
                    await kill()
                    return answered if victim == "service" and when == "after" else b""
                return await forward(call)

            at.front.answers[name] = strikes
            ending = await at.buy(f"{victim}-{moment}".replace(" ", "-"))
            assert struck.is_set(), moment
            assert isinstance(ending, Committed), f"{moment}: {ending}"
            bought += 1
            # The same request again is told the same, and buys nothing.
            assert isinstance(await at.buy(f"{victim}-{moment}".replace(" ", "-")), Committed)
            at.front.answers[name] = forward
        no = await at.buy("too-many", 99)
        assert isinstance(no, RolledBack)
        at.front.answers["cancel"] = forward
        await until(_nothing_held(at.database))
        assert at.service.ends()["held"] == 0
        assert at.service.stock("bolt") == 100 - bought
        assert await at.paid() == Decimal(bought)
        assert at.sidecar.lives == (1 if victim == "service" else 5)


async def test_a_cancel_that_is_killed_is_made_again(databases: MakeDatabase, tmp_path: Path) -> None:
    """The bookkeeper says no; the service held something, and has cancelled it when the sidecar dies."""
    async with exchange(databases, tmp_path) as at:
        forward = at.front.answers["cancel"]
        struck = asyncio.Event()

        async def strikes(call: Call) -> bytes:
            answered = await forward(call)
            if not struck.is_set():
                struck.set()
                await at.sidecar.restart()
                return b""
            return answered

        at.front.answers["cancel"] = strikes
        poor = {"from_user_id": "shop", "to_user_id": "buyer", "currency": "USD", "amount": "5"}
        ending = await at.client.execute(
            [("bookkeeper", "transfer_funds", poor), ("inventory", "reserve", {"sku": "bolt", "quantity": 5})],
            timeout_s=60.0,
            request_id="poor",
        )
        assert isinstance(ending, RolledBack)
        await asyncio.wait_for(struck.wait(), 60)
        await until(_nothing_held(at.database))
        assert at.service.stock("bolt") == 100
        assert at.service.ends()["held"] == 0
        assert len(at.front.named("cancel")) >= 2


async def test_a_try_that_a_cancel_overtook_is_refused_by_the_example(tmp_path: Path) -> None:
    """What the contract wants of every service: a cancel of an unknown branch is kept, and answers for its late try."""
    async with inventory(tmp_path) as service, httpx.AsyncClient(trust_env=False) as client:
        tried = {
            "branch_id": "b-1",
            "operations": [{"operation": "restock", "parameters": {"sku": "nut", "quantity": 1}}],
        }

        async def post(call: str, body: object) -> int:
            return (await client.post(f"http://{service.address}/{call}", json=body)).status_code

        assert await post("cancel", {"branch_id": "b-1"}) == 200
        assert await post("try", tried) == 409
        assert await post("cancel", {"branch_id": "b-1"}) == 200
        assert await post("confirm", {"branch_id": "b-1"}) == 409
        assert await post("confirm", {"branch_id": "b-2"}) == 409
        other = {**tried, "branch_id": "b-3"}
        assert [await post("try", other), await post("try", other)] == [200, 200]
        await service.kill()
        # A line that the crash cut short was told to nobody.
        with (tmp_path / "inventory.journal").open("a") as journal:
            journal.write('{"branch":"b-4","state":"he')
        await service.start()
        assert [await post("confirm", {"branch_id": "b-3"}) for _ in range(2)] == [200, 200]
        assert await post("cancel", {"branch_id": "b-3"}) == 409
        assert await post("try", {**tried, "branch_id": "b-4"}) == 200
        assert service.stock("nut") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--try-url", "http://10.0.0.1/try"), "plain HTTP leaves this machine"),
        (("--confirm-url", "ftp://127.0.0.1/x"), "confirm-url"),
        (("--cancel-url", "http://user:word@127.0.0.1/x"), "cancel-url: no user"),
        (("--cancel-url", "http://127.0.0.1:port/x"), "cancel-url"),
        (("--cancel-url", ""), "cancel-url"),
        (("--timeout", "0"), "timeout"),
        (("--timeout", "nan"), "timeout"),
        (("--calls", "0"), "calls"),
        (("--secret-file", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--secret-file", "/dev/null"), "secret-file"),
        (("--listen", "no-such-host.invalid:1"), "cannot listen"),
    ],
)
async def test_what_cannot_be_served_is_told_and_ends_it(database: str, arguments: tuple[str, ...], word: str) -> None:
    told, code = await _told(*command(database, "127.0.0.1:0", "127.0.0.1:1"), *arguments)
    assert code == 1
    assert told[-1]["message"] == "participant_failed"
    assert word in told[-1]["error"]


async def test_a_short_secret_is_refused(database: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    arguments = command(database, "127.0.0.1:0", "127.0.0.1:1")
    told, code = await _told(*arguments, "--secret-file", str(tmp_path / "secret"))
    assert (code, "at least 32 bytes" in told[-1]["error"]) == (1, True)


async def test_a_name_of_its_own_is_wanted_and_the_invariants_are_checked(database: str, tmp_path: Path) -> None:
    urls = (f"--{call}-url=http://127.0.0.1:1/{call}" for call in ("try", "confirm", "cancel"))
    told, code = await _told("http", "--dsn", database, "--listen", "127.0.0.1:0", *urls)
    assert (code, told[-1]["error"].partition(":")[0]) == (1, "name")
    async with running_sidecar(database, "127.0.0.1:1", tmp_path):
        pass
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("insert into pincex.logs (log_id) values ('0123456789abcdef')")
        await connection.execute(
            "insert into http.held (branch, log, xid, state, due) values (7, 1, gen_random_uuid(), 3, now())"
        )
    told, code = await _told("http", "--dsn", database, "--check")
    assert (code, [it["violation"].partition(":")[0] for it in told if "violation" in it]) == (1, ["STATE_NOT_BRANCH"])


async def _told(*arguments: str) -> tuple[list[dict[str, str]], int | None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecars.main", *arguments, stderr=PIPE, cwd=ROOT
    )
    _, errors = await process.communicate()
    # gRPC writes a line of its own about an address that it cannot find.
    return [json.loads(line) for line in errors.splitlines() if line.startswith(b"{")], process.returncode
