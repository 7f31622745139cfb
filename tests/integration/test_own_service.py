"""docs/own-service.md and docs/programmatic-api.md are run as they are written, on a whole system."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import psycopg
import pytest
import yaml

from coordinator.embedded import leashed
from participant_sdk.client_errors import InvalidRequestError, RolledBackError
from participant_sdk.client_results import Committed, Enlisted, RolledBack
from participant_sdk.conformance import Means, WorkOrder, read_exercise, run
from participant_sdk.context import working_for
from participant_sdk.parameters import RefusedError
from participant_sdk.service import RunningService, Service
from participant_sdk.suite import TransactionManagerSuite, get_transaction_manager_suite, with_xa_transaction
from participant_sdk.testing import System, running_system
from tests.pages import blocks

LINES_MAX: Final = 60
MIGRATION, *_ = blocks("own-service.md", "sql")
LOYALTY, EMBEDDED, *_ = blocks("own-service.md", "python")
EXERCISE, *_ = blocks("own-service.md", "json")
NAMES = {"timedelta": timedelta, "with_xa_transaction": with_xa_transaction}
OPEN = ("bookkeeper", "open_account", {"user_id": "9", "currency": "BTC"})
DEBIT = ("bookkeeper", "debit_account", {"user_id": "9", "currency": "BTC", "amount": "1"})

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(participants=["loyalty", "unserved"]) as running:
        yield running


@pytest.fixture
async def suite(system: System) -> AsyncGenerator[TransactionManagerSuite]:
    async with get_transaction_manager_suite(addresses=[system.grpc]) as suite:
        yield suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, as it names them."""
    folder = tmp_path_factory.mktemp("loyalty")
    (folder / "migrations").mkdir()
    (folder / "migrations" / "0001_points.sql").write_text(MIGRATION)
    (folder / "loyalty.py").write_text(LOYALTY)
    return folder


@pytest.fixture(scope="module")
def loyalty(folder: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("loyalty", folder / "loyalty.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["loyalty"] = module
    specification.loader.exec_module(module)
    return module


class Served:
    """The page's service as a process. Mutable: it is killed and started again."""

    def __init__(self, folder: Path, system: System) -> None:
        arguments = (system.databases["loyalty"], system.participants["loyalty"], system.grpc)
        self._command = (sys.executable, str(folder / "loyalty.py"), *arguments)
        self.process: Process | None = None

    async def start(self) -> Process:
        command = leashed(self._command, death_signal=signal.SIGKILL)
        self.process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        return self.process

    async def restart(self) -> None:
        """kill -9, and start again."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        await self.start()


@asynccontextmanager
async def served(folder: Path, system: System) -> AsyncGenerator[Served]:
    """Run it for the time of the block, until the coordinator has reached it; it stops when it is told to."""
    service = Served(folder, system)
    await service.start()
    try:
        await system.until_up("loyalty")
        yield service
    finally:
        assert service.process is not None
        service.process.terminate()
        assert await service.process.wait() == 0


async def points(system: System, user_id: str) -> int:
    async with await psycopg.AsyncConnection.connect(system.databases["loyalty"]) as connection:
        cursor = await connection.execute("select balance from loyalty.points where user_id = %s", [user_id])
        (balance,) = await cursor.fetchone() or (0,)
        return balance


def grant(user_id: str, number: int) -> tuple[str, str, dict[str, str | int]]:
    return ("loyalty", "grant_points", {"user_id": user_id, "points": number})


def test_the_service_has_under_sixty_lines() -> None:
    assert len((MIGRATION + LOYALTY).splitlines()) < LINES_MAX


async def test_the_page_is_run_as_it_is_written(folder: Path, system: System, suite: TransactionManagerSuite) -> None:
    """Both or neither, with what the business says, what is wrong, and a result told."""
    async with served(folder, system):
        committed = await suite.execute_distributed_transaction([OPEN, grant("9", 5)], request_id="page-1")
        assert isinstance(committed, Committed), committed
        assert committed.results("loyalty") == ('{"balance":5}',)
        undone = await suite.execute_distributed_transaction([grant("9", 5), DEBIT])
        assert isinstance(undone, RolledBack)
        assert (undone.reason, await points(system, "9")) == ("INSUFFICIENT_FUNDS", 5)
        too_many = ("loyalty", "spend_points", {"user_id": "9", "points": 6})
        refused = await suite.execute_distributed_transaction([grant("9", 1), too_many, too_many])
        assert isinstance(refused, RolledBack)
        (vote,) = [branch.vote for branch in refused.branches]
        assert vote is not None
        assert (vote.reason, vote.field) == ("NOT_ENOUGH_POINTS", "operations[2].parameters.points")
        *_, curl = (block for block in blocks("own-service.md", "sh") if block.startswith("curl"))
        answer = await _shell(curl.replace("http://127.0.0.1:8080", system.http))
        # Its account was opened above, so this is a "no", and no point more was granted.
        assert json.loads(answer)["state"] == "ROLLED_BACK"
        assert await points(system, "9") == 5


async def test_the_page_s_service_conforms_when_it_is_killed(folder: Path, system: System) -> None:
    async with served(folder, system) as service:
        report = await run(
            system.participants["loyalty"], read_exercise(EXERCISE), Means(service.restart, asked_within_s=30.0)
        )
    assert report.passed, report.text()
    assert "acknowledgements survive a kill" not in {finding.check for finding in report.skipped}


async def test_embedded_it_works_under_the_caller_s_branch(system: System, loyalty: ModuleType) -> None:
    """The kit has it do so, as a caller's gRPC metadata would (R13)."""
    service: Service = loyalty.service
    async with service.serving(system.databases["loyalty"], system.participants["loyalty"]) as running:
        means = Means(work=partial(_work, running, loyalty), asked_within_s=30.0)
        report = await run(system.participants["loyalty"], read_exercise(EXERCISE), means)
    assert report.passed, report.text()
    assert "work done is prepared and committed" not in {finding.check for finding in report.skipped}


async def _work(running: RunningService, loyalty: ModuleType, order: WorkOrder) -> None:
    branch = Enlisted(order.xid, order.log_id, "loyalty", order.branch_number, order.remaining_ms / 1000)
    with working_for(branch):
        async with running.work() as connection:
            await loyalty.grant_points(connection, loyalty.Points(user_id="1", points=1))


async def test_embedded_it_works_under_the_task_s_transaction(
    system: System, suite: TransactionManagerSuite, loyalty: ModuleType
) -> None:
    """The page's block commits; left by an error, its work is undone, and the error raised again."""
    account = {"user_id": "8", "currency": "BTC"}
    assert isinstance(await suite.execute_distributed_transaction([("bookkeeper", "open_account", account)]), Committed)
    async with _embedded(system, loyalty) as running:
        await _run_block(EMBEDDED.replace('"9"', '"8"'), suite=suite, running=running, **vars(loyalty))
        assert await points(system, "8") == 5
        with pytest.raises(ZeroDivisionError):
            await _run_block(
                EMBEDDED.replace('"9"', '"8"') + "    1 / 0\n", suite=suite, running=running, **vars(loyalty)
            )
        too_much = EMBEDDED.replace('"9"', '"8"').replace("credit_account", "debit_account").replace('"1"', '"10"')
        with pytest.raises(RolledBackError, match="INSUFFICIENT_FUNDS"):
            await _run_block(too_much, suite=suite, running=running, **vars(loyalty))
        assert await points(system, "8") == 5


async def test_embedded_a_no_leaves_no_end_but_rollback(
    system: System, suite: TransactionManagerSuite, loyalty: ModuleType
) -> None:
    """Even where the block that heard it goes on: the operation that failed is missed at Prepare (R13)."""
    async with _embedded(system, loyalty) as running:
        txn = await suite.start(timedelta(seconds=30))
        with with_xa_transaction(txn):
            async with running.work() as connection:
                await loyalty.grant_points(connection, loyalty.Points(user_id="6", points=1))
            with pytest.raises(RefusedError, match="fewer than 9 points"):
                async with running.work() as connection:
                    await loyalty.spend_points(connection, loyalty.Points(user_id="6", points=9))
        with pytest.raises(RolledBackError, match="NO_SUCH_WORK"):
            await suite.commit(txn)
        assert await points(system, "6") == 0


async def test_by_hand_as_the_page_says(system: System, suite: TransactionManagerSuite) -> None:
    """start, enlist, commit; what raises inside is aborted."""
    (block,) = (each for each in blocks("programmatic-api.md", "python") if each.startswith("txn ="))
    block = block.replace('"trader"', '"dealer"')
    account = {"user_id": "dealer", "currency": "BTC"}
    await suite.execute_distributed_transaction(
        [("bookkeeper", "open_account", account), ("bookkeeper", "credit_account", {**account, "amount": "1"})]
    )
    await _run_block(block, suite=suite)
    # The one bitcoin is locked now.
    with pytest.raises(RolledBackError, match="INSUFFICIENT_FUNDS"):
        await _run_block(block, suite=suite)
    with pytest.raises(InvalidRequestError, match="no participant is named 'nobody'"):
        await _run_block(block.replace('"bookkeeper"', '"nobody"'), suite=suite)
    newest = (await suite.client.list_transactions(page_size=1)).transactions[0]
    assert (newest.phase, isinstance(newest.ending, RolledBack)) == ("ROLLED_BACK", True)


@pytest.mark.parametrize("at", [0, 1])
def test_the_programs_of_the_page_are_run(at: int, system: System, tmp_path: Path) -> None:
    """With the configuration that the page names, of this system."""
    configuration = tmp_path / "config.yaml"
    configuration.write_text(yaml.safe_dump({"server": {"grpc": system.grpc}, "participants": []}))
    program = blocks("programmatic-api.md", "python")[at].replace(
        "/etc/transaction-manager/config.yaml", str(configuration)
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ("Committed(" if at == 0 else "the order is placed") in ended.stdout


async def _run_block(text: str, **scope: object) -> None:
    """Run a block of a page, which awaits, with these names."""
    body = "".join(f"    {line}\n" for line in text.splitlines())
    names: dict[str, object] = {**NAMES, **scope}
    exec(f"async def block() -> None:\n{body}", names)  # noqa: S102 - it is ours
    block = cast("Callable[[], Awaitable[None]]", names["block"])
    await block()


@asynccontextmanager
async def _embedded(system: System, loyalty: ModuleType) -> AsyncGenerator[RunningService]:
    """The page's service in this process, where the coordinator has reached it."""
    service: Service = loyalty.service
    async with service.serving(system.databases["loyalty"], system.participants["loyalty"]) as running:
        await system.until_up("loyalty")
        yield running


async def test_whom_nobody_serves_is_waited_for_in_vain(system: System) -> None:
    with pytest.raises(TimeoutError):
        await system.until_up("unserved", timedelta(seconds=0.2))
    with pytest.raises(ValueError, match="'nobody' is none of the system's participants"):
        await system.until_up("nobody")


async def _shell(command: str) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode()
