"""Checks of the pruning horizon that travels in Hello: what may be forgotten, and what never (R10, R14)."""

from __future__ import annotations

import asyncio
from typing import Final

from pincex.tx.v1 import common_pb2

from participant_sdk.conformance.bench import Bench
from participant_sdk.conformance.hand_checks import forcing, forgetting
from participant_sdk.ids import Xid

_MINUTE_MS: Final = 60_000
# How long a participant that drops something has for it.
_DROPPED_WITHIN_S: Final = 1.0


async def a_young_horizon_is_not_believed(bench: Bench) -> None:
    """A horizon within the prepare window is not believed: what has ended stays, and keeps late Prepares out."""
    committed, undone = await _finished(bench)
    await _tell_horizon(bench, bench.clock.unix_ms() + 1)
    await asyncio.sleep(_DROPPED_WITHIN_S)
    await bench.expect_phase(committed, common_pb2.BRANCH_PHASE_COMMITTED)
    await bench.expect_phase(undone, common_pb2.BRANCH_PHASE_ROLLED_BACK)


async def only_what_ended_below_the_horizon_is_dropped(bench: Bench) -> None:
    """Below the horizon finished branches may go; younger ones, and what is in doubt or forced, stay."""
    now_ms = bench.clock.unix_ms()
    horizon_ms = now_ms - 180 * _MINUTE_MS
    committed, undone = await _finished(bench)
    in_doubt, forced = await bench.prepared(bench.exercise.yes[1]), await bench.prepared(bench.exercise.yes[2])
    await bench.line.resolve(forcing(bench, forced, common_pb2.DECISION_ROLLBACK))
    older, younger = (
        Xid.make(horizon_ms + offset_ms, bench.speaker.incarnation, bench.xids.next(0).sequence)
        for offset_ms in (-30 * _MINUTE_MS, 30 * _MINUTE_MS)
    )
    for xid in (older, younger):
        await bench.rollback(xid)
    await _tell_horizon(bench, horizon_ms)
    # Once the older one is gone, dropping has run; it need never be.
    await bench.comes_to(older, common_pb2.BRANCH_PHASE_UNSPECIFIED, _DROPPED_WITHIN_S)
    for xid, phase in (
        (committed, common_pb2.BRANCH_PHASE_COMMITTED),
        (undone, common_pb2.BRANCH_PHASE_ROLLED_BACK),
        (younger, common_pb2.BRANCH_PHASE_ROLLED_BACK),
        (in_doubt, common_pb2.BRANCH_PHASE_PREPARED),
        (forced, common_pb2.BRANCH_PHASE_HEURISTIC),
    ):
        await bench.expect_phase(xid, phase, where=f"{(horizon_ms - xid.unix_ms) // _MINUTE_MS} min below, ")
    await bench.rollback(in_doubt)
    await forgetting(bench, forced)


async def _finished(bench: Bench) -> tuple[Xid, Xid]:
    """A branch that committed, and one that was rolled back."""
    committed = await bench.prepared()
    await bench.commit(committed)
    undone = await bench.prepared()
    await bench.rollback(undone)
    return committed, undone


async def _tell_horizon(bench: Bench, unix_ms: int) -> None:
    hello = bench.greeting()
    hello.pruned_below_unix_ms = unix_ms
    await bench.line.hello(hello)
