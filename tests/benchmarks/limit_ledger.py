"""L3 over the participants' own SQL: the bookkeeper's batches, with no coordinator and no network around them.

What lies between this and L3 is the ledger's price: journal, branches, duplicate guards,
watermarks. What lies between this and the product is the coordinator's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import psycopg

from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.load import Operations, Transfers
from participant_sdk.participant import Commit, Operation, Prepare, Work
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.xa import DONE, PREPARED
from sidecars.bookkeeper.operations import SERVICE
from tests.benchmarks.figures import Figure, percentile_ms
from tests.benchmarks.limit_reservation import DECIDE, SHAPES
from tests.benchmarks.targets import OWN_LEDGER

LOG_ID: Final = "00000000000000cc"
DEADLINE_S: Final = 60.0
_CLOCK: Final = SystemClock()


class LedgerLimit:
    """Two bookkeepers' resources in this process, and a decision log. Made by ``ledger_limit``."""

    def __init__(self, sides: tuple[ReservationResource, ReservationResource], log: str, accounts: int) -> None:
        self._sides = sides
        self._log = log
        self._transfers = iter(Transfers(sides[0].name, sides[1].name, accounts))
        # Incarnations of runs rise, so that their xids and sequences do not meet.
        self._incarnation = int(time.time())

    async def measure(self, seconds: float, in_flight: int) -> Figure:
        """Drive batches with so many transactions in flight. Latency is a batch's, from its hold to its being final."""
        batch, lanes = SHAPES[in_flight]
        until_s = time.monotonic() + seconds
        cpu_s = time.process_time()
        working = [self._lane(batch) for _ in range(lanes)]
        await asyncio.gather(*(lane.run(until_s) for lane in working))
        cpu_s = time.process_time() - cpu_s
        done, ran = sum(lane.done for lane in working), sum(lane.ran for lane in working)
        durations_s = [duration_s for lane in working for duration_s in lane.durations_s]
        return Figure(
            OWN_LEDGER,
            in_flight,
            done / seconds,
            percentile_ms(durations_s, 50),
            percentile_ms(durations_s, 99),
            count=ran,
        ).with_cpu({"driver": cpu_s})

    def _lane(self, batch: int) -> _Lane:
        self._incarnation += 1
        return _Lane(self._sides, self._log, self._transfers, batch, self._incarnation)


@asynccontextmanager
async def ledger_limit(ledgers: tuple[str, str], log: str, accounts: int) -> AsyncGenerator[LedgerLimit]:
    """Open two ledgers, as their sidecars would, for the time of the block."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(ReservationResource.open(name, SERVICE, dsn, _CLOCK))
            for name, dsn in zip(("limit-a", "limit-b"), ledgers, strict=True)
        ]
        yield LedgerLimit((first, second), log, accounts)


class _Lane:
    """One loop of rounds: settle the last batch and prepare the next at both sides, then write the decisions."""

    def __init__(
        self,
        sides: tuple[ReservationResource, ReservationResource],
        log: str,
        transfers: Iterator[Operations],
        batch: int,
        incarnation: int,
    ) -> None:
        self._sides = sides
        self._log = log
        self._transfers = transfers
        self._batch = batch
        self._incarnation = incarnation
        self._xids = XidSource(incarnation)
        self._sequence = 0
        # Settled within the time, and at all.
        self.done = 0
        self.ran = 0
        self.durations_s: list[float] = []

    async def run(self, until_s: float) -> None:
        """Do rounds until then, and one more that settles the last batch."""
        async with await psycopg.AsyncConnection.connect(self._log, autocommit=True) as log:
            packed_arrays.register(log)
            held: list[Xid] = []
            held_from_s = 0.0
            while (began_s := time.monotonic()) < until_s or held:
                wanted = [self._xids.next(_CLOCK.unix_ms()) for _ in range(self._batch)] if began_s < until_s else []
                await self._round(held, wanted)
                if held:
                    self.durations_s.append(time.monotonic() - held_from_s)
                    self.ran += len(held)
                    self.done += len(held) if time.monotonic() < until_s else 0
                held, held_from_s = wanted, began_s
                if held:
                    await log.execute(DECIDE, (packed_arrays.uuids(held),))

    async def _round(self, held: Sequence[Xid], wanted: Sequence[Xid]) -> None:
        commits = [Commit(LOG_ID, xid, self._incarnation, self._sequence + at) for at, xid in enumerate(held, 1)]
        self._sequence += len(held)
        transfers = [next(self._transfers) for _ in wanted]
        works = [
            Work(
                commits=commits, prepares=[self._prepare(xid, t[at]) for xid, t in zip(wanted, transfers, strict=True)]
            )
            for at in range(len(self._sides))
        ]
        for answers in await asyncio.gather(*(s.apply(w) for s, w in zip(self._sides, works, strict=True))):
            if set(answers.commits) - {DONE} or set(answers.prepares) - {PREPARED}:
                raise RuntimeError(f"a limit's accounts have money for everything, and yet: {answers}")

    def _prepare(self, xid: Xid, operation: Sequence[object]) -> Prepare:
        service, name, parameters = map(str, operation)
        deadline_s = _CLOCK.monotonic_s() + DEADLINE_S
        return Prepare(
            LOG_ID,
            xid,
            (Operation(service, name, parameters),),
            deadline_s,
            tuple(side.name for side in self._sides),
            "default",
            str(xid),
            bytes(32),
        )
