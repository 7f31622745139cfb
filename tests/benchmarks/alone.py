"""The coordinator's own CPU, alone in one process: its door, engine, links and log writer, without gRPC and PostgreSQL.

Participants and the log answer at once, by a few operations on whole batches, so what is counted is what the
coordinator itself does for each transaction, and frames are made and read as gRPC would have it done. Batches are
exactly as large as is said, so two runs do the same, and their ratio is steady on a machine that is not.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

from pincex.tx.v1 import common_pb2, resource_pb2, transaction_pb2

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext
from coordinator.api.grpc_stream import ClientStream
from coordinator.assembly import Settings, assemble
from coordinator.log.columns import pack
from coordinator.log.decision_log import Appended, AppendStatus, Incarnation
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from coordinator.passes import PassSettings
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.timing import Timing
from coordinator.telemetry import Telemetry
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk import collector
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.hello import Welcome
from participant_sdk.resource_calls import Access
from participant_sdk.wire import write_welcome
from tests.benchmarks.figures import Figure
from tests.benchmarks.run import Run
from tests.benchmarks.targets import ALONE

BATCHES: Final = (1, 64, 512)
# Enough that a round takes a second or so; a single one costs several times what one in a batch does.
TRANSACTIONS: Final = {1: 4_000, 64: 16_000, 512: 20_480}
ROUNDS: Final = 3
PAYER: Final = "payer"
PAYEE: Final = "payee"
IN_FLIGHT_MAX: Final = 20_000
TIMEOUT_S: Final = 30
LEASE_S: Final = 3600.0


class _Participant:
    """Votes yes and acknowledges everything, frame by frame: a transport and its stream in one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def connect(self) -> _Participant:
        return self

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        asked = resource_pb2.SessionRequest.FromString(frame.SerializeToString())
        answer = resource_pb2.SessionResponse()
        if asked.HasField("hello"):
            hello = asked.hello
            welcome = Welcome(self._name, hello.clock_unix_ms, asked.epoch, {}, (), session=True, number=hello.number)
            answer.hello.CopyFrom(write_welcome(welcome))
        answer.votes.prepared_xids = asked.prepares.xids
        answer.commit_acks.done_xids = b"".join([batch.xids for batch in asked.commits])
        self._answers.put_nowait(answer.SerializeToString())

    async def receive(self) -> resource_pb2.SessionResponse:
        return resource_pb2.SessionResponse.FromString(await self._answers.get())

    async def close(self) -> None:
        return


class _Log(MemoryLog):
    """A log that packs its records, as the one on PostgreSQL does, and keeps none of them."""

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        pack(records)
        return Appended(AppendStatus.WRITTEN, expected_sequence + len(records) + burned)


class _Client:
    """One client's stream, whose frames are there already: the next one is read once all of the last is answered."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._unanswered = 0
        self._all_answered = asyncio.Event()

    async def frames(self) -> AsyncIterator[transaction_pb2.ExecuteStreamRequest | None]:
        while True:
            yield transaction_pb2.ExecuteStreamRequest.FromString(await self._frames.get())

    async def write(self, frame: transaction_pb2.ExecuteStreamResponse) -> None:
        read = transaction_pb2.ExecuteStreamResponse.FromString(frame.SerializeToString())
        if not all(each.result.applied for each in read.answers):
            raise RuntimeError("a transfer was not applied")
        self._unanswered -= len(read.answers)
        if not self._unanswered:
            self._all_answered.set()

    async def execute(self, frame: bytes, transactions: int) -> None:
        self._unanswered = transactions
        self._all_answered.clear()
        self._frames.put_nowait(frame)
        await self._all_answered.wait()


async def measure_alone(run: Run) -> None:
    """Every size of batch, in turns."""
    async with _coordinator() as client:
        await _batches(client, 512, "warm-up")
        for turn in run.rounds(ROUNDS):
            for size in BATCHES:
                run.record(await _batches(client, size, f"round-{turn}"))


async def _batches(client: _Client, size: int, name: str) -> Figure:
    frames = [_frame(size, f"{name}-{size}-{at}") for at in range(TRANSACTIONS[size] // size)]
    count = len(frames) * size
    began_s, used_s = time.monotonic(), time.process_time()
    for frame in frames:
        await client.execute(frame, size)
    used_s, passed_s = time.process_time() - used_s, time.monotonic() - began_s
    return Figure(ALONE, size, count / passed_s, count=count).with_cpu({"coordinator": used_s})


def _frame(size: int, name: str) -> bytes:
    first, *more = [_request(f"{name}-{at}") for at in range(size)]
    return transaction_pb2.ExecuteStreamRequest(tag=1, request=first, more=more).SerializeToString()


def _request(request_id: str) -> transaction_pb2.ExecuteRequest:
    parameters = '{"user_id":"12345","currency":"USD","amount":"1"}'
    operations = [
        common_pb2.Operation(service=PAYER, operation="debit_account", parameters=parameters),
        common_pb2.Operation(service=PAYEE, operation="credit_account", parameters=parameters),
    ]
    request = transaction_pb2.ExecuteRequest(operations=operations, request_id=request_id)
    request.timeout.seconds = TIMEOUT_S
    return request


@asynccontextmanager
async def _coordinator() -> AsyncGenerator[_Client]:
    """Run the parts of a coordinator for the time of the block, with one client's stream open."""
    clock = SystemClock()
    log = _Log(MemoryLogStore(clock, "00000000000000aa"))
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: ASYNC230, PTH123 - a device, which never blocks
        telemetry = Telemetry("info", nowhere)
        assembly = assemble(
            log,
            await log.open("alone", "127.0.0.1:1", LEASE_S),
            {name: _access(name, clock) for name in (PAYER, PAYEE)},
            Settings(
                Timing(), Limits(IN_FLIGHT_MAX), 512, PassSettings(is_enabled=False), workflows=WorkflowSettings({})
            ),
            clock=clock,
            random=random.Random(0),
            telemetry=telemetry,
            on_finished=telemetry.finished,
        )
        gate = Gate()
        gate.open(assembly)
        client = _Client()
        # All that the stream asks of gRPC's context is to write.
        stream = ClientStream(gate, telemetry, cast("AnyContext", client), float(TIMEOUT_S))
        collector.settle()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(assembly.run())
            serving = tasks.create_task(stream.serve(client.frames()))
            while not all(link.is_up for link in assembly.links.values()):  # noqa: ASYNC110 - links have no event for it
                await asyncio.sleep(0.01)
            yield client
            serving.cancel()
            running.cancel()
        telemetry.close()


def _access(name: str, clock: SystemClock) -> Access:
    # Nobody calls this address: recovery is not asked for anything.
    return Access(_Participant(name), GrpcResourceCalls("127.0.0.1:1", clock=clock))
