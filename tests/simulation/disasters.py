"""What takes from a database what it had kept: failovers, restores from older copies, clocks that jump."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

from participant_sdk.resources.memory_store import State
from tests.simulation.faults import LOSSES, SLEEP_S, Fault
from tests.simulation.hosts import Surroundings
from tests.simulation.log_server import LogServer
from tests.simulation.participants import ParticipantHost

LAG_S: Final = (0.2, 4.0)
JUMP_MS: Final = 5_000
COPY_EVERY_S: Final = 0.5
COPIES_MAX: Final = 12
DOWN_S: Final = (0.1, 3.0)


class Disasters:
    """Strikes the log and the participants' stores; the oracle is told at once what was lost."""

    def __init__(self, around: Surroundings, log_server: LogServer, participants: Sequence[ParticipantHost]) -> None:
        self._around = around
        self._log_server = log_server
        self._participants = participants
        self._copies = {host.name: deque[State](maxlen=COPIES_MAX) for host in participants}

    async def keep_copies(self) -> None:
        """Take the copies that restores go back to, until cancelled; none where the mix has no restore."""
        if not any(self._around.mix.chance(fault) for fault in LOSSES):
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._log_server.keep_copies())
            tasks.create_task(self._copy_stores())

    async def _copy_stores(self) -> None:
        while True:
            for host in self._participants:
                self._copies[host.name].append(host.store.durable.copy())
            await asyncio.sleep(COPY_EVERY_S)

    async def reconnect(self, _: Random) -> None:
        """Break every connection to the log."""
        self._count(Fault.LOG_RECONNECT)
        self._log_server.store.drop_connections()

    async def skew_log(self, rng: Random) -> None:
        """Let the log's clock jump, forward or back."""
        self._count(Fault.LOG_CLOCK)
        self._log_server.clock.jump(rng.randint(-JUMP_MS, JUMP_MS))

    async def sleep(self, _: Random) -> None:
        """Suspend every machine at once: only wall clocks go on."""
        self._count(Fault.SLEEP)
        self._around.loop.slept_s += SLEEP_S

    async def fail_over(self, rng: Random) -> None:
        """Let the standby lag, and mostly take over."""
        lag_s, is_promoted = rng.uniform(*LAG_S), rng.random() < 0.7
        self._count(Fault.LOG_FAILOVER)
        await self._log_server.fail_over(lag_s, is_promoted=is_promoted)

    async def restore_log(self, rng: Random, fault: Fault) -> None:
        """Restore the log from an older copy: on a new timeline, in HOLD, or without a word."""
        is_new, held = fault is Fault.LOG_PROMOTED, fault is Fault.LOG_RESTORED_HELD
        if self._log_server.restore(rng, new_timeline=is_new, held=held):
            self._count(fault)
            self._around.oracle.log_lost()

    async def restore_store(self, rng: Random) -> None:
        """Restore a participant from an older copy, while it is down."""
        host = rng.choice(self._participants)
        copies = self._copies[host.name]
        if not copies:
            return
        self._count(Fault.STORE_RESTORED)
        host.kill()
        copy, store = rng.choice(list(copies)), host.store
        copies.clear()
        checkpoints = self._log_server.durable.checkpoints
        applied = {number: row.applied[host.name] for number, row in checkpoints.items() if host.name in row.applied}
        self._around.oracle.losses.lost_branches(host.name, store.durable, copy, applied)
        store.durable, store.current = copy.copy(), copy.copy()
        host.start_later(rng.uniform(*DOWN_S))

    def _count(self, fault: Fault) -> None:
        self._around.tally[fault] += 1
        self._around.trace.note(f"fault {fault.name}")
