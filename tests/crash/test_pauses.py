"""A coordinator that is stopped past its lease, and goes on later as if nothing had happened."""

from __future__ import annotations

import signal
from typing import Final

import psutil
import pytest

from tests.crash.checks import read
from tests.crash.processes import Cluster, Process
from tests.crash.trials import WITHIN_S, go_on, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

INCARNATION_ENDED: Final = 5
_NEWEST: Final = "select max(incarnation) from txlog.incarnations where coordinator = %s"
_FENCED: Final = "select fenced_by from txlog.incarnations where incarnation = %s and fenced_at is not null"
# What this incarnation wrote. Its checkpoints are its heir's by now.
_WRITTEN: Final = (
    "select last_sequence, lease_until,"
    " (select count(*) from txlog.decisions d where d.incarnation = i.incarnation)"
    " from txlog.incarnations i where incarnation = %s"
)


@pytest.mark.parametrize("point", ["APPEND_BEFORE", "RECORDED", "COMMIT_FRAME_BEFORE", "CHECKPOINT_BEFORE"])
async def test_a_coordinator_stopped_past_its_lease_writes_nothing_more(up: Cluster, prefix: str, point: str) -> None:
    """R4, R6: the other one fences it, and finishes its work; woken, it may not write, and ends by itself."""
    paused = up.coordinator
    ((number,),) = await read(up.dsns["txlog"], _NEWEST, paused.name)
    async with judged(up, prefix) as load:
        paused.arm(point, 2, "stop")
        await up.until(lambda: is_stopped(paused), WITHIN_S)

        async def fenced() -> bool:
            return bool(await read(up.dsns["txlog"], _FENCED, number))

        await up.until(fenced, WITHIN_S)
        written = await read(up.dsns["txlog"], _WRITTEN, number)
        await go_on(load)
        ended = paused.running
        assert ended is not None
        paused.send(signal.SIGCONT)

        async def has_ended() -> bool:
            return ended.poll() is not None

        await up.until(has_ended, WITHIN_S)
        assert ended.poll() == INCARNATION_ENDED, paused.log_end()
        assert await read(up.dsns["txlog"], _WRITTEN, number) == written
        await go_on(load)


async def is_stopped(process: Process) -> bool:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
