"""Checks of Commit, Rollback, recovery and an operator's hand."""

from __future__ import annotations

from itertools import product
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.conformance.bench import Bench, expect_ack, shown, shown_ack
from participant_sdk.conformance.calls import CALL_TIMEOUT_S
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.ids import Xid
from participant_sdk.xa import XaCode

_SEQUENCE_LENGTH: Final = 3
_CALLS: Final = (BranchCall.VOTE_PREPARED, BranchCall.COMMIT, BranchCall.ROLLBACK)


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


async def a_commit_takes_effect_once(bench: Bench) -> None:
    """Nothing is seen before Commit; it is DONE, then ALREADY_DONE, and takes effect once; Rollback comes too late."""
    before = await bench.observed()
    xid = await bench.prepared()
    # Read past the branch: what reads may wait for it, or see what was before; both are right.
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_DONE)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_COMMITTED)
    after = await bench.observed()
    expect(not before or after != before, f"a committed branch took no effect: {after}")
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
            expect(branch.phase == phase, f"{'; '.join(story)}: phase {branch.phase}, not {phase.name}")
        if phase is BranchPhase.PREPARED:
            await bench.rollback(xid)


async def _do(bench: Bench, call: BranchCall, xid: Xid) -> common_pb2.Ack | str:
    if call is BranchCall.COMMIT:
        return await bench.commit(xid)
    if call is BranchCall.ROLLBACK:
        return await bench.rollback(xid)
    return shown(await bench.prepare(xid, bench.exercise.yes[0]))


async def recovery_lists_what_is_in_doubt(bench: Bench) -> None:
    """Recover lists prepared branches by xid, page by page, until they end, and no other log's."""
    xids = [await bench.prepared(operation) for operation in bench.exercise.yes[:3]]
    listed = await bench.listed()
    mine = [branch for branch in listed if branch.xid in map(str, xids)]
    other = resource_pb2.RecoverRequest(log_id=bench.speaker.log_id[::-1], page_size=1_000)
    foreign = (await bench.stub.Recover(other, timeout=CALL_TIMEOUT_S)).branches
    await bench.calls.rollback(xids)
    expect([branch.xid for branch in mine] == sorted(map(str, xids)), f"{len(mine)} of 3 branches are listed")
    for branch in mine:
        expect(branch.phase == common_pb2.BRANCH_PHASE_PREPARED, f"listed in phase {branch.phase}")
        expect(bench.exercise.participant in branch.participants, f"listed with participants {branch.participants}")
    expect(not any(branch.xid in map(str, xids) for branch in foreign), "another log is shown this log's branches")
    left = [branch.xid for branch in await bench.listed() if branch.xid in map(str, xids)]
    expect(not left, f"ended branches are still listed: {left}")


async def finished_branches_and_watermarks_tell_the_sequence(bench: Bench) -> None:
    """Hello reports the highest sequence applied; Recover lists what was committed above a given one."""
    above = bench.sequence
    xids = [await bench.prepared() for _ in range(1)]
    expect_ack(await bench.commit(xids[0]), common_pb2.ACK_KIND_DONE)
    hello = await bench.stub.Hello(greeting(bench), timeout=CALL_TIMEOUT_S)
    marks = {mark.incarnation: mark.sequence for mark in hello.watermarks}
    expect(marks.get(bench.speaker.incarnation) == bench.sequence, f"the watermarks are {marks}")
    finished = await bench.listed(finished=True, above=above)
    committed = [branch for branch in finished if branch.phase == common_pb2.BRANCH_PHASE_COMMITTED]
    expect([branch.xid for branch in committed] == [str(xids[0])], f"{len(committed)} finished branches are listed")
    expect(committed[0].sequence == bench.sequence, f"listed with sequence {committed[0].sequence}")
    expect(committed[0].incarnation == bench.speaker.incarnation, f"with incarnation {committed[0].incarnation}")


async def an_operators_hand_is_kept_until_forgotten(bench: Bench) -> None:
    """A forced branch is HEURISTIC, listed and told to whoever asks, with its reason, until Forget."""
    for outcome, kind in (
        (common_pb2.DECISION_COMMIT, common_pb2.ACK_KIND_HEURISTIC_COMMIT),
        (common_pb2.DECISION_ROLLBACK, common_pb2.ACK_KIND_HEURISTIC_ROLLBACK),
    ):
        xid = await bench.prepared()
        request = resource_pb2.ResolveBranchRequest(
            xid=str(xid), log_id=bench.speaker.log_id, outcome=outcome, reason="conformance", preview=True
        )
        await bench.stub.ResolveBranch(request, timeout=CALL_TIMEOUT_S)
        await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
        request.preview = False
        expect_ack((await bench.stub.ResolveBranch(request, timeout=CALL_TIMEOUT_S)).ack, kind)
        branch = await bench.branch(xid)
        expect(branch.phase == common_pb2.BRANCH_PHASE_HEURISTIC, f"phase {branch.phase} after an operator's hand")
        expect(branch.reason == "conformance", f"kept with the reason {branch.reason!r}")
        expect(branch.xid in [it.xid for it in await bench.listed()], "a heuristic is not listed")
        expect_ack(await bench.commit(xid), kind)
        expect_ack(await bench.rollback(xid), kind)
        forget = resource_pb2.ForgetRequest(xid=str(xid), log_id=bench.speaker.log_id)
        expect_ack((await bench.stub.Forget(forget, timeout=CALL_TIMEOUT_S)).ack, common_pb2.ACK_KIND_DONE)
        expect_ack((await bench.stub.Forget(forget, timeout=CALL_TIMEOUT_S)).ack, common_pb2.ACK_KIND_ALREADY_DONE)
        expect(branch.xid not in [it.xid for it in await bench.listed()], "a forgotten heuristic is listed")


async def a_hand_needs_a_reason_and_a_branch(bench: Bench) -> None:
    """ResolveBranch without a reason is INVALID_ARGUMENT; of an unknown branch, UNKNOWN_XID."""
    request = resource_pb2.ResolveBranchRequest(
        xid=str(bench.an_xid()), log_id=bench.speaker.log_id, outcome=common_pb2.DECISION_COMMIT, reason="conformance"
    )
    answer = await bench.stub.ResolveBranch(request, timeout=CALL_TIMEOUT_S)
    expect_ack(answer.ack, common_pb2.ACK_KIND_UNKNOWN_XID)
    request.reason = ""
    try:
        await bench.stub.ResolveBranch(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        expect(error.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{error.code()} for a missing reason")
    else:
        raise DeviationError("a branch was forced without a reason")


async def an_unknown_branch_is_shown_as_unknown(bench: Bench) -> None:
    """GetBranch of an unknown branch has no phase; Forget of it is UNKNOWN_XID."""
    xid = bench.an_xid()
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_UNSPECIFIED)
    forget = resource_pb2.ForgetRequest(xid=str(xid), log_id=bench.speaker.log_id)
    expect_ack((await bench.stub.Forget(forget, timeout=CALL_TIMEOUT_S)).ack, common_pb2.ACK_KIND_UNKNOWN_XID)


async def clocks_apart_are_refused(bench: Bench) -> None:
    """Hello is welcomed with the participant's name and clock, and refused when clocks are ten minutes apart."""
    welcome = await bench.stub.Hello(greeting(bench), timeout=CALL_TIMEOUT_S)
    expect(not welcome.refusal, f"refused: {welcome.refusal}")
    expect(welcome.participant == bench.exercise.participant, f"it says it is {welcome.participant!r}")
    apart_ms = abs(welcome.clock_unix_ms - bench.clock.unix_ms())
    expect(apart_ms < 60_000, f"its clock is {apart_ms} ms apart")
    request = greeting(bench)
    request.clock_unix_ms -= 600_000
    refused = await bench.stub.Hello(request, timeout=CALL_TIMEOUT_S)
    expect(refused.refusal == "CLOCKS_APART", f"the refusal is {refused.refusal!r}")


async def a_lower_epoch_is_refused(bench: Bench) -> None:
    """A higher epoch is adopted; an introduction with a lower one is refused, and a Commit of it gets RETRY."""
    xid = await bench.prepared()
    bench.speaker.epoch += 1
    adopted = await bench.stub.Hello(greeting(bench), timeout=CALL_TIMEOUT_S)
    expect(adopted.epoch == bench.speaker.epoch, f"the epoch {bench.speaker.epoch} was not adopted: {adopted.epoch}")
    bench.speaker.epoch -= 1
    stale = await bench.stub.Hello(greeting(bench), timeout=CALL_TIMEOUT_S)
    ack = await bench.commit(xid)
    bench.speaker.epoch += 1
    await bench.rollback(xid)
    expect(stale.refusal == "EPOCH_STALE", f"the refusal is {stale.refusal!r}")
    expect_ack(ack, common_pb2.ACK_KIND_RETRY)


def greeting(bench: Bench) -> resource_pb2.HelloRequest:
    """Make an introduction."""
    return resource_pb2.HelloRequest(
        log_id=bench.speaker.log_id,
        coordinator="conformance",
        incarnation=bench.speaker.incarnation,
        epoch=bench.speaker.epoch,
        clock_unix_ms=bench.clock.unix_ms(),
    )
