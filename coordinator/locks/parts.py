"""The parts of an incarnation that lock, put together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from coordinator.engine import Engine
from coordinator.incarnation import IncarnationLife
from coordinator.locks.board import LockBoard
from coordinator.locks.epochs import Epochs
from coordinator.locks.lock_store import LockStore
from coordinator.locks.lock_table import LockTable
from coordinator.locks.locks import Locks, LockSettings
from coordinator.locks.memory import MemoryLockStore
from coordinator.locks.transaction_locks import TransactionLocks
from coordinator.log.decision_log import DecisionLog
from coordinator.telemetry import Telemetry
from participant_sdk.clock import Clock


@dataclass(frozen=True, slots=True)
class LockParts:
    """Locks for any owner, for transactions, and as operators see them."""

    locks: Locks
    transactions: TransactionLocks
    board: LockBoard

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.locks.run())
                tasks.create_task(self.transactions.run())
        finally:
            await self.locks.close()


def assemble_locks(
    engine: Engine,
    log: DecisionLog,
    life: IncarnationLife,
    settings: LockSettings,
    store: LockStore | None,
    *,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
) -> LockParts:
    """Wire the locks of one incarnation; without a ``store``, they are this coordinator's own."""
    own = engine.incarnation.number
    store = store or MemoryLockStore(LockTable(), own, Epochs(log), clock)
    locks = Locks(store, own, settings, clock=clock, random=random, telemetry=telemetry)
    return LockParts(locks, TransactionLocks(engine, locks, clock), LockBoard(locks, log, life, own))
