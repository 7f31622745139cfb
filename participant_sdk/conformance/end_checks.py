"""Checks of Commit and Rollback: what they do, once, in whatever order they come."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Final

from pincex.tx.v1 import common_pb2

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.conformance.bench import Bench, expect_ack, shown_phase
from participant_sdk.conformance.calls import commit_request
from participant_sdk.conformance.report import expect
from participant_sdk.conformance.words import shown, shown_ack
from participant_sdk.ids import Xid
from participant_sdk.xa import XaCode

_SEQUENCE_LENGTH: Final = 3
_CALLS: Final = (BranchCall.VOTE_PREPARED, BranchCall.COMMIT, BranchCall.ROLLBACK)
_ENDED: Final = (common_pb2.ACK_KIND_DONE, common_pb2.ACK_KIND_ALREADY_DONE)


async def commit_of_an_unknown_branch_is_a_hazard(bench: Bench) -> None:
    """A Commit without a marker is HEURISTIC_HAZARD, never success, and makes no branch."""
    xid = bench.an_xid()
    before = await bench.observed()
    for _ in range(2):
        ack = await bench.commit(xid)
        expect_ack(ack, common_pb2.ACK_KIND_HEURISTIC_HAZARD)
        expect(ack.xa_code == XaCode.HEURHAZ, shown_ack(ack))
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_UNSPECIFIED)
    expect(await bench.observed() == before, "an unknown branch took effect")


async def a_commit_takes_effect(bench: Bench) -> None:
    """Commit of a prepared branch is DONE, and its effect is there when that is said."""
    before = await bench.observed()
    xid = await bench.prepared()
    # Not read in between: what reads may wait for the branch, or see what was before, and both are right.
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_DONE)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_COMMITTED)
    after = await bench.observed()
    expect(not before or after != before, f"a committed branch took no effect: {after}")


async def a_commit_takes_effect_once(bench: Bench) -> None:
    """A second Commit is ALREADY_DONE, a Rollback comes too late, and neither they nor a Prepare change anything."""
    xid = await bench.prepared()
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_DONE)
    after = await bench.observed()
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_ALREADY_DONE)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_HEURISTIC_COMMIT)
    await bench.prepare(xid, bench.exercise.yes[0])
    expect(await bench.observed() == after, f"a second call took effect again: {after}")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_COMMITTED)


async def a_rollback_takes_no_effect(bench: Bench) -> None:
    """Rollback is DONE, then ALREADY_DONE, and nothing is seen of it; Commit comes too late."""
    before = await bench.observed()
    xid = await bench.prepared()
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_ALREADY_DONE)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_HEURISTIC_ROLLBACK)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    expect(await bench.observed() == before, "a branch that was rolled back took effect")


async def calls_in_any_order_follow_the_table(bench: Bench) -> None:
    """Every order of three calls, repetitions too, is answered as the branch table says."""
    for order in product(_CALLS, repeat=_SEQUENCE_LENGTH):
        xid, phase = bench.an_xid(), BranchPhase.NONE
        story: list[str] = []
        for call in order:
            expected = step(phase, call)
            seen = await _do(bench, call, xid)
            story.append(f"{call.name}: {seen if isinstance(seen, str) else shown_ack(seen)}")
            if expected.ack is not None and not isinstance(seen, str):
                expect(seen.kind == expected.ack.kind, f"{'; '.join(story)}, not {expected.ack.kind.name}")
            phase = expected.phase
        branch = await bench.branch(xid)
        expect(branch.phase == phase, f"{'; '.join(story)}: phase {shown_phase(branch)}, not {phase.name}")
        if phase is BranchPhase.PREPARED:
            await bench.rollback(xid)


async def commits_at_once_take_effect_once(bench: Bench) -> None:
    """The same Commit several times at once is DONE or ALREADY_DONE each time, and takes effect once."""
    xid = await bench.prepared()
    request = commit_request(bench.speaker, bench.decided(xid))
    answers = await asyncio.gather(*[bench.line.commit(request) for _ in range(5)])
    for answer in answers:
        expect_ack(answer.ack, *_ENDED)
    after = await bench.observed()
    expect_ack((await bench.line.commit(request)).ack, common_pb2.ACK_KIND_ALREADY_DONE)
    expect(await bench.observed() == after, f"a later Commit took effect again: {after}")


async def _do(bench: Bench, call: BranchCall, xid: Xid) -> common_pb2.Ack | str:
    if call is BranchCall.COMMIT:
        return await bench.commit(xid)
    if call is BranchCall.ROLLBACK:
        return await bench.rollback(xid)
    return shown(await bench.prepare(xid, bench.exercise.yes[0]))
