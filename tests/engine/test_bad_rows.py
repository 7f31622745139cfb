"""R17: a row of the log that cannot be read in full is carried out as far as it can, and stops nobody."""

from __future__ import annotations

from structlog.testing import capture_logs

from coordinator.log.memory import MemoryLog
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision
from tests.engine.recovering import CLOCK, LEFT, RIGHT, node, until, world


async def test_a_dead_coordinators_row_whose_results_cannot_be_read_is_redone_and_told_of_once() -> None:
    async with world() as around:
        log = MemoryLog(around.log)
        incarnation = await log.open("dead", "127.0.0.1:1", 0.001)
        xid = Xid.make(CLOCK.unix_ms(), incarnation.number, 1)
        for name in (LEFT, RIGHT):
            await around.prepare(name, xid)
        row = DecisionRecord(xid, Decision.COMMIT, (LEFT, RIGHT), results='{"v":9}')
        await log.append(incarnation, 0, [row])
        with capture_logs() as lines:
            async with node(around) as assembly:
                await until(lambda: around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.COMMITTED)
                await until(lambda: not assembly.engine.unfinished)
        assert [line["transaction_id"] for line in lines if line["event"] == "results_unreadable"] == [str(xid)]
