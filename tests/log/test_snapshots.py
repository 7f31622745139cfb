"""What an inquiry is judged by is of one moment, whatever happens while it is read (R7)."""

from __future__ import annotations

from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.clock import SystemClock
from tests.contract.worlds import Coordinator, started


class Meddling:
    """A gate behind whose first statement an incarnation decides once more, and is ended."""

    def __init__(self, store: MemoryLogStore, owner: Coordinator) -> None:
        self.record = owner.record()
        self.statements = 0
        self._store = store
        self._owner = owner

    async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
        if moment is Moment.AFTER:
            self.statements += 1
            if self.statements == 1:
                await self._owner.append(self.record)
                self._store.resign(self._owner.incarnation)


async def test_record_and_fence_are_of_one_moment() -> None:
    """Fenced and without a record is ROLLBACK: a record that came between two looks would be overlooked."""
    store = MemoryLogStore(SystemClock(), "0123456789abcdef")
    owner = await started(MemoryLog(store))
    meddling = Meddling(store, owner)
    snapshot = await MemoryLog(store, meddling).read([meddling.record.xid])
    assert meddling.record.xid in store.tables.decisions
    assert snapshot.incarnations[owner.number].fenced is (meddling.record.xid in snapshot.decisions)
