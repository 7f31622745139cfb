"""How soon a new coordinator commits, and finishes what a killed one had decided.

    python -m tests.benchmarks.recovery

A coordinator decides thousands of transfers and tells no participant (``withholding``); it is ended by kill -9 and
another starts on the same log, with nothing else changed. Times count from the kill, so they contain the start of
the process. It ends with the invariants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
import uvloop
import yaml
from rich.console import Console

from coordinator.embedded import leashed
from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from coordinator.embedded.process import free_port
from coordinator.embedded.supervision import await_port
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.client_results import Committed, Wait
from participant_sdk.load import Transfers
from tests.benchmarks import processes
from tests.benchmarks.ledgers import count_commits, disagreements, make_ledger, read_ledger, violations
from tests.benchmarks.product import CREDITED, DEBITED, READY_S, bookkeeper, configuration

ACCOUNTS: Final = 100_000
AT_ONCE: Final = 256
WITHIN_S: Final = 120.0
LOOK_AGAIN_S: Final = 0.05
UNFINISHED: Final = (Path(__file__).parent / "sql" / "unfinished.sql").read_bytes()


@dataclass(frozen=True, slots=True)
class Recovered:
    """Seconds from the kill to the first new commit, and to nothing in doubt and nothing unfinished."""

    transactions: int
    first_commit_s: float
    finished_s: float


class _Databases(NamedTuple):
    ledgers: tuple[str, str]
    log: str


async def recover(databases: _Databases, transactions: int, folder: Path) -> tuple[Recovered, list[str]]:
    """Measure once on fresh databases; the invariants' complaints beside it."""
    before = [await read_ledger(dsn) for dsn in databases.ledgers]
    ports = {DEBITED: free_port(), CREDITED: free_port()}
    grpc = free_port()
    file = folder / "coordinator.yaml"
    file.write_text(yaml.safe_dump(configuration(ports, databases.log, grpc, free_port())))
    async with AsyncExitStack() as stack:
        for (name, port), dsn in zip(ports.items(), databases.ledgers, strict=True):
            await stack.enter_async_context(bookkeeper(name, port, dsn, grpc, folder))
        async with _withholding(file, folder) as child:
            await await_port(grpc)
            told = await _decide(f"127.0.0.1:{grpc}", transactions)
            owed = await _unfinished(databases)
            child.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
        arguments = ("coordinator.cli", "coordinator", "--config", str(file))
        await stack.enter_async_context(processes.process("coordinator", arguments, folder, {}))
        first = asyncio.create_task(_commit_once(f"127.0.0.1:{grpc}"))
        async with asyncio.timeout(WITHIN_S):
            while await _unfinished(databases):  # noqa: ASYNC110 - other processes have no event for us.
                await asyncio.sleep(LOOK_AGAIN_S)
            finished_s = time.monotonic() - killed_s
            first_s = await first - killed_s
    after = [await read_ledger(dsn) for dsn in databases.ledgers]
    found = disagreements(before, after, told + 1, await count_commits(databases.log))
    for dsn in databases.ledgers:
        found += await violations(dsn)
    if owed < transactions:
        found.append(f"only {owed} of {transactions} were unfinished when the coordinator was killed")
    return Recovered(transactions, first_s, finished_s), found


@asynccontextmanager
async def _withholding(file: Path, folder: Path) -> AsyncGenerator[subprocess.Popen[bytes]]:
    command = (sys.executable, "-m", "tests.benchmarks.withholding", "coordinator", "--config", str(file))
    with (folder / "withholding.log").open("wb") as log:
        child = subprocess.Popen(  # noqa: ASYNC220 - forking takes a moment, and nothing else runs then.
            leashed(command, death_signal=signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=processes.ROOT,
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


async def _decide(address: str, transactions: int) -> int:
    """Have this many transfers decided; how many were told COMMITTED."""
    workload = iter(islice(Transfers(DEBITED, CREDITED, ACCOUNTS), transactions))
    told = 0
    async with TransactionClient(address, timeout_s=READY_S) as client, asyncio.TaskGroup() as group:

        async def work() -> None:
            nonlocal told
            for operations in workload:
                ending = await client.execute(operations, wait=Wait.DECIDED)
                if not isinstance(ending, Committed):
                    raise processes.ProcessFailedError(f"a transfer was refused: {ending.message}")
                told += 1

        for _ in range(AT_ONCE):
            group.create_task(work())
    return told


async def _commit_once(address: str) -> float:
    """Try until a transfer commits; when that was, by the monotonic clock."""
    (operations,) = islice(Transfers(DEBITED, CREDITED, ACCOUNTS, seed=1), 1)
    async with TransactionClient(address, timeout_s=1.0) as client:
        # An attempt that did not end in time closes its intent: the next one is another.
        for attempt in count():
            try:
                ending = await client.execute(operations, wait=Wait.DECIDED, request_id=f"first-{attempt}")
            except ClientError:
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if isinstance(ending, Committed):
                return time.monotonic()
    raise AssertionError("count() has no end")


async def _unfinished(databases: _Databases) -> int:
    """Decisions that the log does not call finished; with none, the branches in doubt."""
    async with await psycopg.AsyncConnection.connect(databases.log) as connection:
        row = await (await connection.execute(UNFINISHED)).fetchone()
    if row and row[0]:
        return int(row[0])
    return sum([(await read_ledger(dsn)).in_doubt for dsn in databases.ledgers])


async def _measure(server: EmbeddedPostgres, rounds: int, transactions: int, folder: Path) -> list[str]:
    console = Console()
    found: list[str] = []
    results: list[Recovered] = []
    for number in range(1, rounds + 1):
        ledgers = (server.create_database(f"payer_{number}"), server.create_database(f"payee_{number}"))
        for dsn in ledgers:
            await make_ledger(dsn, ACCOUNTS)
        recovered, complaints = await recover(
            _Databases(ledgers, server.create_database(f"txlog_{number}")), transactions, folder
        )
        console.print(
            f"{number}/{rounds}: {transactions:,} decided and unfinished; after kill -9 the first new commit came in "
            f"{recovered.first_commit_s:.2f} s, all was finished in {recovered.finished_s:.2f} s",
            highlight=False,
        )
        results.append(recovered)
        found += complaints
    _write(results, found)
    return found


def _write(results: Sequence[Recovered], found: Sequence[str]) -> None:
    output = Path("build/recovery.json")
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps({"rounds": [asdict(each) for each in results], "failures": found}, indent=2) + "\n")


def main() -> int:
    """Measure; 0 when every invariant holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recovery")
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pincex-recovery-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "postgres", orphaned=Shutdown.IMMEDIATE)
    server.start()
    try:
        failures = uvloop.run(_measure(server, given.rounds, given.transactions, folder))
    finally:
        server.stop(Shutdown.IMMEDIATE)
        shutil.rmtree(folder)
    for failure in failures:
        sys.stderr.write(f"failed: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
