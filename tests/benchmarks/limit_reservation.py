"""L3: reservations in batches, with nothing around them: no coordinator, no network, no ids of requests.

Each lane is a loop of rounds; a round settles the last batch and holds the next, by one call
at each bank, and writes one batch of decisions.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import psycopg

from participant_sdk.resources import packed_arrays
from tests.benchmarks.figures import Figure, percentile_ms
from tests.benchmarks.limits import Banks
from tests.benchmarks.targets import L3

# Batch and lanes, by how many transactions are in flight.
SHAPES: Final = {1: (1, 1), 64: (64, 1), 256: (256, 1), 512: (256, 2)}

_CALL: Final = "select settle_and_hold(%b, %b, %b, %b)"
DECIDE: Final = "insert into decisions select unnest(%b), 1"


async def measure_l3(banks: Banks, seconds: float, in_flight: int) -> Figure:
    """L3 with so many in flight. Latency is a batch's, from its hold to its being final."""
    batch, lanes = SHAPES[in_flight]
    # Lanes have accounts of their own, so that they do not wait for each other's locks.
    share = banks.accounts // lanes
    working = [_Lane(banks, batch, lane * share + 1, (lane + 1) * share) for lane in range(lanes)]
    until_s = time.monotonic() + seconds
    cpu_s = time.process_time()
    await asyncio.gather(*(lane.run(until_s) for lane in working))
    cpu_s = time.process_time() - cpu_s
    done, ran = sum(lane.done for lane in working), sum(lane.ran for lane in working)
    durations_s = [duration_s for lane in working for duration_s in lane.durations_s]
    return Figure(
        L3,
        in_flight,
        done / seconds,
        percentile_ms(durations_s, 50),
        percentile_ms(durations_s, 99),
        count=ran,
    ).with_cpu({"driver": cpu_s})


class _Lane:
    """One loop of rounds over its own connections."""

    def __init__(self, banks: Banks, batch: int, lowest: int, highest: int) -> None:
        self._banks = banks
        self._batch = batch
        self._lowest = lowest
        self._width = highest - lowest + 1
        self._random = random.Random(lowest)
        # Settled within the time, and at all.
        self.done = 0
        self.ran = 0
        self.durations_s: list[float] = []

    async def run(self, until_s: float) -> None:
        """Do rounds until then, and one more that settles the last batch."""
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(self._banks.first, autocommit=True) as first,
            await connect(self._banks.second, autocommit=True) as second,
            await connect(self._banks.log, autocommit=True) as log,
        ):
            for connection in (first, second, log):
                packed_arrays.register(connection)
                # As on the participants' own connections: plans are kept, and none reads a whole table.
                await connection.execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off")
            held: list[bytes] = []
            held_from_s = 0.0
            while (began_s := time.monotonic()) < until_s or held:
                wanted = self._xids() if began_s < until_s else []
                await asyncio.gather(self._round(first, held, wanted), self._round(second, held, wanted))
                if held:
                    self.durations_s.append(time.monotonic() - held_from_s)
                    self.ran += len(held)
                    self.done += len(held) if time.monotonic() < until_s else 0
                held, held_from_s = wanted, began_s
                if held:
                    await log.execute(DECIDE, (packed_arrays.uuids(held),))

    def _xids(self) -> list[bytes]:
        """Xids that rise, as the product's do, so that indexes append; lanes differ in their last bits."""
        first = time.time_ns() << 64 | self._lowest << 32
        return [(first + at).to_bytes(16, "big") for at in range(self._batch)]

    async def _round(self, connection: psycopg.AsyncConnection, settled: list[bytes], wanted: list[bytes]) -> None:
        picked = self._random.random
        accounts = [self._lowest + int(picked() * self._width) for _ in wanted]
        cursor = await connection.execute(
            _CALL,
            (
                packed_arrays.uuids(settled),
                packed_arrays.uuids(wanted),
                packed_arrays.bigints(accounts),
                packed_arrays.bigints([1] * len(wanted)),
            ),
            prepare=True,
            binary=True,
        )
        row = await cursor.fetchone()
        if row is None or row[0]:
            raise RuntimeError("a limit's accounts have money for everything, and yet a hold was refused")
