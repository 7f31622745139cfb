"""The log in memory breaks as a server does: connections, restores, statements that come too late."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.log.decision_log import AppendStatus, LogUnavailableError, LogUncertainError
from coordinator.log.memory import MemoryLog, Moment, Statement
from tests.log.bench import LEASE_S, Bench, Fate, ScriptedGate, Slow, virtual_time


@virtual_time
async def test_the_generation_rises_when_the_connection_was_lost(bench: Bench) -> None:
    """R15: by an unknown result, by the store's hand or by the simulator's; not by a refusal."""
    own = await bench.coordinator()
    log, gate = own.log, own.gate
    assert log.generation == 1
    gate.script("read", Fate.UNAVAILABLE, Fate.LOST_AFTER)
    for expected in (1, 1):
        with pytest.raises(LogUnavailableError):
            await log.read([])
        assert log.generation == expected
    for expected, lose in ((2, lambda: None), (3, log.disconnect), (4, bench.store.drop_connections)):
        lose()
        await log.read([])
        assert log.generation == expected


@virtual_time
async def test_an_append_after_a_loss_is_told_before_anything_is_written(bench: Bench) -> None:
    own = await bench.coordinator()
    own.log.disconnect()
    with pytest.raises(LogUnavailableError, match="connected to again"):
        await own.log.append(own.commit.incarnation, 0, [own.record()])
    assert own.log.generation == 2
    appended = await own.log.append(own.commit.incarnation, 0, [own.record()])
    assert appended.status is AppendStatus.WRITTEN


@virtual_time
async def test_a_restored_store_never_hears_of_what_was_under_way(bench: Bench) -> None:
    """The server that it was sent to is gone; on one that only lost its connections it is done, and not told."""
    own = await bench.coordinator()
    for restore, sequence in ((True, 0), (False, 1)):
        await own.log.read([])
        own.gate.script("append", Slow(1.0))
        writing = asyncio.ensure_future(own.log.append(own.commit.incarnation, 0, [own.record()]))
        await asyncio.sleep(0.5)
        if restore:
            bench.store.restore(bench.store.copy(), new_timeline=False)
        else:
            bench.store.drop_connections()
        with pytest.raises(LogUncertainError):
            await writing
        assert bench.store.tables.incarnations[own.number].last_sequence == sequence


@virtual_time
async def test_a_late_statement_that_finds_its_server_gone_changes_nothing(bench: Bench) -> None:
    sent: list[Statement[object]] = []

    class Late(ScriptedGate):
        async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
            sent.append(statement)
            raise LogUncertainError("lost")

    with pytest.raises(LogUncertainError):
        await MemoryLog(bench.store, Late()).open("late", "", LEASE_S)
    bench.store.restore(bench.store.copy(), new_timeline=True)
    with pytest.raises(LogUncertainError):
        sent[0].apply()
    assert not bench.store.tables.incarnations
