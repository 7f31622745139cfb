"""How soon a new coordinator commits, and finishes what a killed one had decided.

A coordinator decides thousands of transfers and tells no participant (``withholding``); it is ended by kill -9 and
another starts on the same log, with nothing else changed. Times count from the kill, so they contain the start of
the process. It ends with the invariants.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
import yaml

from coordinator.embedded import leashed
from coordinator.embedded.process import free_port
from coordinator.embedded.supervision import await_port
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.client_results import Committed, Wait
from participant_sdk.load import Transfers
from tests.benchmarks import processes
from tests.benchmarks.figures import Figure
from tests.benchmarks.ledgers import (
    UNFINISHED,
    Ledger,
    disagreements,
    make_ledger,
    numbered,
    read_ledger,
    read_log,
    violations,
)
from tests.benchmarks.product import CREDITED, DEBITED, READY_S, configuration, participant
from tests.benchmarks.run import Run
from tests.benchmarks.targets import RECOVERY

TRANSACTIONS: Final = 10_000
ROUNDS: Final = 1
AT_ONCE: Final = 256
WITHIN_S: Final = 120.0
LOOK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Recovered:
    """Seconds from the kill to the first new commit, and to nothing in doubt and nothing unfinished."""

    first_commit_s: float
    finished_s: float


class Databases(NamedTuple):
    """Two bookkeepers', with accounts, and the log's."""

    ledgers: tuple[str, str]
    log: str


async def recover(databases: Databases, accounts: int, folder: Path) -> tuple[Recovered, list[str]]:
    """Measure once on fresh databases; the invariants' complaints beside it."""
    before = [await read_ledger(dsn) for dsn in databases.ledgers]
    ports = {DEBITED: free_port(), CREDITED: free_port()}
    grpc = free_port()
    file = folder / "coordinator.yaml"
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    file.write_text(yaml.safe_dump(configuration(addresses, databases.log, grpc, free_port())))
    async with AsyncExitStack() as stack:
        for (name, port), dsn in zip(ports.items(), databases.ledgers, strict=True):
            await stack.enter_async_context(participant(Ledger(name, dsn), port, grpc, folder))
        async with _withholding(file, folder) as child:
            await await_port(grpc)
            told = await _decide(f"127.0.0.1:{grpc}", accounts)
            owed = await _unfinished(databases)
            child.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
        arguments = ("coordinator.cli", "coordinator", "--config", str(file))
        await stack.enter_async_context(processes.process("coordinator", arguments, folder, {}))
        first = asyncio.create_task(_commit_once(f"127.0.0.1:{grpc}", accounts))
        async with asyncio.timeout(WITHIN_S):
            while await _unfinished(databases):  # noqa: ASYNC110 - other processes have no event for us.
                await asyncio.sleep(LOOK_AGAIN_S)
            finished_s = time.monotonic() - killed_s
            first_s = await first - killed_s
    after = [await read_ledger(dsn) for dsn in databases.ledgers]
    found = disagreements((DEBITED, CREDITED), before, after, told + 1, await read_log(databases.log))
    for dsn in databases.ledgers:
        found += await violations(dsn)
    if owed < TRANSACTIONS:
        found.append(f"only {owed} of {TRANSACTIONS} were unfinished when the coordinator was killed")
    return Recovered(first_s, finished_s), found


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


async def _decide(address: str, accounts: int) -> int:
    """Have them decided; how many were told COMMITTED."""
    workload = iter(islice(Transfers(DEBITED, CREDITED, accounts), TRANSACTIONS))
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


async def _commit_once(address: str, accounts: int) -> float:
    """Try until a transfer commits; when that was, by the monotonic clock."""
    (operations,) = islice(Transfers(DEBITED, CREDITED, accounts, seed=1), 1)
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


async def _unfinished(databases: Databases) -> int:
    """Decisions that the log does not call finished; with none, the branches in doubt."""
    async with await psycopg.AsyncConnection.connect(databases.log) as connection:
        row = await (await connection.execute(UNFINISHED)).fetchone()
    if row and row[0]:
        return int(row[0])
    return sum([(await read_ledger(dsn)).in_doubt for dsn in databases.ledgers])


async def measure_recovery(run: Run) -> None:
    """Each round on fresh databases."""
    for _ in run.rounds(ROUNDS):
        ledgers = (run.database(DEBITED), run.database(CREDITED))
        for dsn in ledgers:
            await make_ledger(dsn, numbered(run.plan.accounts))
        databases = Databases(ledgers, run.database("txlog"))
        recovered, found = await recover(databases, run.plan.accounts, run.place())
        run.fail(found)
        values = {"first commit s": recovered.first_commit_s, "finished s": recovered.finished_s}
        run.record(Figure(RECOVERY, 0, 0.0, values=values, count=TRANSACTIONS))
