"""L4: gRPC alone, with the contract's messages: each is made and read, and nothing is done about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import grpc
from pincex.tx.v1 import common_pb2, transaction_pb2
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from coordinator.embedded.process import free_port
from coordinator.embedded.supervision import await_port
from participant_sdk.grpc_core import EXPERIMENTS
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from tests.benchmarks import processes
from tests.benchmarks.figures import Figure, percentile_ms
from tests.benchmarks.run import Run

if TYPE_CHECKING:
    # gRPC's asynchronous stubs have names for type checkers only.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

UNARY_IN_FLIGHT: Final = 64
FRAMES_OF: Final = (1, 16, 128, 512)
# Frames under way: enough that neither side waits for the other.
FRAMES_IN_FLIGHT: Final = 4
READY_S: Final = 30.0
ROUNDS: Final = 2
# As our own programs choose for themselves.
_AS_PROGRAMS: Final = {"GRPC_EXPERIMENTS": EXPERIMENTS}
_PARAMETERS: Final = '{"user_id":"12345","currency":"USD","amount":"1"}'


async def measure_l4(run: Run) -> None:
    """Unary calls, and one stream with frames of several sizes."""
    async with _echo(run) as (stub, pid):
        for _ in run.rounds(ROUNDS):
            run.record(await _unary(stub, pid, run.plan.seconds))
            for items in FRAMES_OF:
                run.record(await _stream(stub, pid, run.plan.seconds, items))


@asynccontextmanager
async def _echo(run: Run) -> AsyncGenerator[tuple[TransactionServiceAsyncStub, int]]:
    port = free_port()
    async with (
        processes.process("echo", ("tests.benchmarks.grpc_echo", str(port)), run.folder, _AS_PROGRAMS) as pid,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel,
    ):
        async with asyncio.timeout(READY_S):
            await await_port(port)
        yield TransactionServiceStub(channel), pid


async def _unary(stub: TransactionServiceAsyncStub, pid: int, seconds: float) -> Figure:
    durations_s: list[float] = []
    until_s = time.monotonic() + seconds

    async def client() -> None:
        while (began_s := time.monotonic()) < until_s:
            await stub.Execute(_request())
            durations_s.append(time.monotonic() - began_s)

    own_s, other_s = time.process_time(), processes.cpu_s({"echo": pid})["echo"]
    async with asyncio.TaskGroup() as group:
        for _ in range(UNARY_IN_FLIGHT):
            group.create_task(client())
    used_s = {"driver": time.process_time() - own_s, "coordinator": processes.cpu_s({"echo": pid})["echo"] - other_s}
    return _figure("L4 gRPC, unary", UNARY_IN_FLIGHT, seconds, durations_s, 1).with_cpu(used_s)


async def _stream(stub: TransactionServiceAsyncStub, pid: int, seconds: float, items: int) -> Figure:
    call = stub.ExecuteStream()
    durations_s: list[float] = []
    sent_s: list[float] = []
    own_s, other_s = time.process_time(), processes.cpu_s({"echo": pid})["echo"]
    until_s = time.monotonic() + seconds
    for _ in range(FRAMES_IN_FLIGHT):
        sent_s.append(time.monotonic())
        await call.write(_frame(items))
    while len(durations_s) < len(sent_s):
        answer = await call.read()
        if not isinstance(answer, transaction_pb2.ExecuteStreamResponse) or _committed(answer) != items:
            raise RuntimeError(f"{items} items were sent, and not as many answered")
        durations_s.append(time.monotonic() - sent_s[len(durations_s)])
        if time.monotonic() < until_s:
            sent_s.append(time.monotonic())
            await call.write(_frame(items))
    await call.done_writing()
    used_s = {"driver": time.process_time() - own_s, "coordinator": processes.cpu_s({"echo": pid})["echo"] - other_s}
    in_flight = items * FRAMES_IN_FLIGHT
    return _figure(f"L4 gRPC, frames of {items}", in_flight, seconds, durations_s, items).with_cpu(used_s)


def _figure(subject: str, in_flight: int, seconds: float, durations_s: list[float], items: int) -> Figure:
    return Figure(
        subject,
        in_flight,
        len(durations_s) * items / seconds,
        percentile_ms(durations_s, 50),
        percentile_ms(durations_s, 99),
        count=len(durations_s) * items,
    )


def _frame(items: int) -> transaction_pb2.ExecuteStreamRequest:
    return transaction_pb2.ExecuteStreamRequest(tag=1, request=_request(), more=[_request() for _ in range(items - 1)])


def _committed(answer: transaction_pb2.ExecuteStreamResponse) -> int:
    outcomes = [each.result.outcome for each in answer.answers if each.tag and each.result.xid]
    return outcomes.count(transaction_pb2.OUTCOME_COMMITTED)


def _request() -> transaction_pb2.ExecuteRequest:
    operations = [
        common_pb2.Operation(service="payer", operation="debit_account", parameters=_PARAMETERS),
        common_pb2.Operation(service="payee", operation="credit_account", parameters=_PARAMETERS),
    ]
    return transaction_pb2.ExecuteRequest(
        operations=operations, request_id="6f9619ff-8b86-d011-b42d-00c04fc964ff", wait=transaction_pb2.WAIT_APPLIED
    )
