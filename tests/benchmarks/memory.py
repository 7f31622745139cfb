"""What a transaction in flight costs the coordinator in memory, by the operating system.

Many transactions are sent to participants that do not vote yet; the coordinator holds them all at once. What it has
grown by since it held none, shared among them, is the price. Then the votes come, and all must commit.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import AsyncExitStack
from typing import Final

import httpx
import psutil
import yaml

from coordinator.embedded.process import free_port
from coordinator.embedded.supervision import await_port
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, Ending
from participant_sdk.execute_stream import ExecuteStream
from tests.benchmarks import gated, processes
from tests.benchmarks.figures import Figure
from tests.benchmarks.ledgers import read_log
from tests.benchmarks.product import configuration
from tests.benchmarks.run import Run
from tests.benchmarks.targets import HELD

IN_FLIGHT: Final = 8_000
WARM_UP: Final = 512
READY_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.02
_KIB: Final = 1024
_GAUGE: Final = re.compile(r"^pincex_transactions_in_flight ([0-9.e+]+)$", re.MULTILINE)


async def measure_memory(run: Run) -> None:
    """Resident memory with none and with thousands in flight."""
    log = run.database("txlog")
    grpc, http = free_port(), free_port()
    ports = {name: free_port() for name in gated.NAMES}
    file = run.folder / "memory.yaml"
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    file.write_text(yaml.safe_dump(configuration(addresses, log, grpc, http)))
    async with AsyncExitStack() as stack:
        program = ("tests.benchmarks.gated", *map(str, ports.values()))
        gate = await stack.enter_async_context(processes.process("gated", program, run.folder, {}))
        arguments = ("coordinator.cli", "coordinator", "--config", str(file))
        pid = await stack.enter_async_context(processes.process("coordinator", arguments, run.folder, {}))
        async with asyncio.timeout(READY_S):
            for port in (*ports.values(), grpc, http):
                await await_port(port)
        client = await stack.enter_async_context(TransactionClient(f"127.0.0.1:{grpc}"))
        stream = await stack.enter_async_context(client.stream(in_flight=IN_FLIGHT))
        committed = await _execute(stream, WARM_UP)
        for _ in run.rounds(1):
            figure, more = await _held(stream, pid, gate, f"http://127.0.0.1:{http}/metrics")
            committed += more
            run.record(figure)
    logged = (await read_log(log)).commits
    if logged != committed:
        run.fail([f"clients were told of {committed} commits, the log holds {logged}"])


async def _held(stream: ExecuteStream, pid: int, gate: int, metrics: str) -> tuple[Figure, int]:
    process = psutil.Process(pid)
    idle_bytes = process.memory_info().rss
    os.kill(gate, signal.SIGUSR1)
    executing = asyncio.create_task(_execute(stream, IN_FLIGHT))
    async with httpx.AsyncClient() as http, asyncio.timeout(READY_S):
        while await _in_flight(http, metrics) < IN_FLIGHT:  # noqa: ASYNC110 - the coordinator has no event for us.
            await asyncio.sleep(LOOK_AGAIN_S)
    held_bytes = process.memory_info().rss
    os.kill(gate, signal.SIGUSR2)
    committed = await executing
    values = {
        "KiB each": (held_bytes - idle_bytes) / IN_FLIGHT / _KIB,
        "idle MiB": idle_bytes / _KIB / _KIB,
        "held MiB": held_bytes / _KIB / _KIB,
        "afterwards MiB": process.memory_info().rss / _KIB / _KIB,
    }
    return Figure(HELD, IN_FLIGHT, 0.0, values=values), committed


async def _in_flight(http: httpx.AsyncClient, metrics: str) -> float:
    found = _GAUGE.search((await http.get(metrics)).text)
    return float(found[1]) if found else 0.0


async def _execute(stream: ExecuteStream, transactions: int) -> int:
    """So many transfers at once; how many committed. RuntimeError where one did not."""
    parameters = {"account": gated.ACCOUNT, "amount": 1}
    payer, payee = gated.NAMES
    operations = [(payer, "debit", parameters), (payee, "credit", parameters)]

    async def one() -> Ending:
        return await stream.execute(operations)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(transactions)]
    refused = [ending for task in tasks if not isinstance(ending := task.result(), Committed)]
    if refused:
        raise RuntimeError(f"{len(refused)} of {transactions} were refused, one by {refused[0]}")
    return transactions
