"""Logs that lose their tail, and coordinators that come upon it, over ``recovering``'s participants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Final

from coordinator import canonical
from coordinator.admission import Limits
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.log.decision_log import Incarnation
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.memory import MemoryLog
from coordinator.metrics import Count
from coordinator.protocol.effects import DecisionRecord
from coordinator.telemetry import Telemetry
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.ids import RequestId, Xid, XidSource
from participant_sdk.participant import Commit, Operation, Prepare
from participant_sdk.resource_calls import Access
from participant_sdk.xa import AckKind, Decision, VoteKind
from tests.engine.recovering import BY_HAND, CLOCK, LEASE_S, LEFT, LOG_ID, RIGHT, SOON, World

BOTH: Final = (LEFT, RIGHT)


def operations(amount: str = "10") -> tuple[Operation, ...]:
    """A transfer from one participant to the other."""
    parameters = f'{{"account":"a","amount":"{amount}"}}'
    return Operation(LEFT, "debit", parameters), Operation(RIGHT, "credit", parameters)


@dataclass(slots=True)
class Predecessor:
    """A coordinator that is gone: what it had prepared, decided and told. Mutable: its sequence rises."""

    world: World
    log: MemoryLog
    incarnation: Incarnation
    sequence: int = 0
    _xids: XidSource = field(init=False)

    def __post_init__(self) -> None:
        self._xids = XidSource(self.incarnation.number)

    async def prepare(self, request_id: str = "", *, participants: Sequence[str] = BOTH) -> Xid:
        """Have a transfer prepared at these participants."""
        xid = self._xids.next(CLOCK.unix_ms())
        work = operations()
        digest = canonical.digest(work) if request_id else b""
        for operation in work:
            if operation.service in participants:
                tenant = "default" if request_id else ""
                deadline_s = CLOCK.monotonic_s() + 30
                branch = Prepare(LOG_ID, xid, (operation,), deadline_s, BOTH, tenant, request_id, digest)
                (vote,) = await self.world.resource(operation.service).prepare([branch])
                assert vote.kind is VoteKind.PREPARED
        return xid

    async def decide(self, xid: Xid, request_id: str = "") -> None:
        """Write COMMIT."""
        request = RequestId("default", request_id) if request_id else None
        digest = canonical.digest(operations()) if request_id else b""
        await self.log.append(
            self.incarnation, self.sequence, [DecisionRecord(xid, Decision.COMMIT, BOTH, request, digest)]
        )
        self.sequence += 1

    async def tell(self, xid: Xid, participant: str, sequence: int = 0, *, epoch: int = 0) -> None:
        """Have a participant apply it, durably; as of this epoch, or of one's own."""
        commit = Commit(
            LOG_ID, xid, self.incarnation.number, sequence or self.sequence, epoch or self.incarnation.epoch
        )
        (ack,) = await self.world.resource(participant).commit([commit])
        assert ack.kind is AckKind.DONE


async def predecessor(world: World) -> Predecessor:
    """Draw an incarnation for a coordinator that says what its test has it say."""
    log = MemoryLog(world.log)
    return Predecessor(world, log, await log.open("predecessor", "127.0.0.1:1", 0.001))


@dataclass(frozen=True, slots=True)
class Life:
    """A coordinator that may end; ``lines`` is what it logs."""

    log: MemoryLog
    assembly: Assembly
    running: asyncio.Task[None]
    lines: StringIO
    telemetry: Telemetry

    def counted(self, what: Count, participant: str) -> int:
        """How often this was counted of a participant."""
        wanted = f'{what.value[0]}_total{{participant="{participant}"}} '
        lines = self.telemetry.metrics.render().decode().splitlines()
        return sum(round(float(line.removeprefix(wanted))) for line in lines if line.startswith(wanted))

    async def ended(self) -> IncarnationEndedError:
        """Wait until its incarnation may write no more, and tell why."""
        ended: list[BaseException] = []
        async with asyncio.timeout(20):
            try:
                await self.running
            except* IncarnationEndedError as group:
                ended += group.exceptions
        (error,) = ended
        assert isinstance(error, IncarnationEndedError)
        return error


@asynccontextmanager
async def life(world: World, name: str = "coordinator") -> AsyncGenerator[Life]:
    """Run a coordinator's parts for the time of the block, or until it ends by itself."""
    log = MemoryLog(world.log, world.log_tap.statement)
    lines = StringIO()
    telemetry = Telemetry("error", lines)
    assembly = assemble(
        log,
        await log.open(name, f"{name}:1", LEASE_S),
        {each: Access(GrpcTransport(address), world.wires[each]) for each, address in world.addresses.items()},
        Settings(SOON, Limits(), 512, BY_HAND),
        clock=CLOCK,
        random=random.Random(0),
        telemetry=telemetry,
        on_finished=telemetry.finished,
    )
    running = asyncio.get_running_loop().create_task(assembly.run())
    try:
        yield Life(log, assembly, running, lines, telemetry)
    finally:
        assembly.engine.stop("the test is over")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
