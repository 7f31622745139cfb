"""A closed loop: so many callers, each of which sends its next transaction as soon as its last has ended.

It shows the peak. Its latency is what a caller in such a crowd sees, which is no answer to how long
a caller waits at a given load: a slow system is asked less. For that there is the open loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.load.report import Report
from participant_sdk.load.tally import Execute, Progress, Tally
from participant_sdk.load.transfers import Operations


class ClosedLoop:
    """Keeps ``in_flight`` transactions of a workload under way. Runs once."""

    def __init__(self, execute: Execute, workload: Iterator[Operations], in_flight: int) -> None:
        self._execute = execute
        self._workload = workload
        self._in_flight = in_flight
        self._tally = Tally()

    async def run(self, seconds: float, warm_up_s: float) -> Report:
        """Run the load for ``seconds`` after ``warm_up_s``; what is in flight then is awaited and counted.

        A ClientError other than OutcomeUnknown, as for an account that is not there, ends it, in an
        ExceptionGroup.
        """
        self._tally.begin(seconds, warm_up_s)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._in_flight):
                group.create_task(self._client())
            await self._tally.await_end()
        return self._tally.report(self._in_flight)

    def stop(self) -> None:
        """End the load before its time."""
        self._tally.stop()

    def progress(self) -> Progress:
        """What it has come to so far."""
        return self._tally.progress()

    async def _client(self) -> None:
        """One caller: the next transaction begins when the last has ended."""
        tally = self._tally
        while (began_s := time.monotonic()) < tally.until_s:
            try:
                ending = await self._execute(next(self._workload))
            except OutcomeUnknown:
                tally.unknown += 1
                continue
            tally.count(ending)
            ended_s = time.monotonic()
            if ended_s >= tally.measure_from_s:
                # However late it ended: what the end of the load cut off would be the slowest.
                tally.measured += ended_s < tally.until_s
                tally.latencies.record(ended_s - began_s)
