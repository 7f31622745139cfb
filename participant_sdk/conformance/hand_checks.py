"""Checks of an operator's hand: forced, kept with its reason, told, and forgotten when somebody says so (R12)."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_ack, shown_phase
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.ids import Xid

_REASON: Final = "conformance"
_KEPT_S: Final = 0.3
_KINDS: Final = (
    (common_pb2.DECISION_COMMIT, common_pb2.ACK_KIND_HEURISTIC_COMMIT, common_pb2.HEURISTIC_COMMIT),
    (common_pb2.DECISION_ROLLBACK, common_pb2.ACK_KIND_HEURISTIC_ROLLBACK, common_pb2.HEURISTIC_ROLLBACK),
)


async def a_forced_branch_is_shown_with_its_reason(bench: Bench) -> None:
    """ResolveBranch ends a branch in doubt as HEURISTIC; a preview changes nothing; the reason is kept and shown."""
    for outcome, kind, heuristic in _KINDS:
        before = await bench.observed()
        xid = await bench.prepared()
        request = forcing(bench, xid, outcome)
        request.preview = True
        await bench.line.resolve(request)
        await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED, where="after a preview, ")
        request.preview = False
        expect_ack((await bench.line.resolve(request)).ack, kind)
        branch = await bench.branch(xid)
        expect(branch.phase == common_pb2.BRANCH_PHASE_HEURISTIC, f"forced, the branch is {shown_phase(branch)}")
        expect(branch.heuristic == heuristic, f"forced as {outcome}, shown as {branch.heuristic}")
        expect(branch.reason == _REASON, f"kept with the reason {branch.reason!r}")
        changed = await bench.observed() != before
        forget = await forgetting(bench, xid)
        expect(not before or changed == (outcome == common_pb2.DECISION_COMMIT), "its effect is not what was forced")
        expect_ack(forget, common_pb2.ACK_KIND_DONE)


async def a_forced_branch_is_told_until_it_is_forgotten(bench: Bench) -> None:
    """A heuristic is listed and told to whoever commits or rolls back, again and again, until Forget."""
    for outcome, kind, _ in _KINDS:
        xid = await bench.prepared()
        await bench.line.resolve(forcing(bench, xid, outcome))
        expect(str(xid) in [it.xid for it in await bench.listed()], "a heuristic is not listed")
        for _ in range(2):
            expect_ack(await bench.commit(xid), kind)
            expect_ack(await bench.rollback(xid), kind)
        await asyncio.sleep(_KEPT_S)
        branch = await bench.branch(xid)
        expect(branch.phase == common_pb2.BRANCH_PHASE_HEURISTIC, f"not forgotten, it is {shown_phase(branch)}")
        expect(str(xid) in [it.xid for it in await bench.listed()], "a heuristic that was told is not listed any more")
        expect_ack(await forgetting(bench, xid), common_pb2.ACK_KIND_DONE)
        expect_ack(await forgetting(bench, xid), common_pb2.ACK_KIND_ALREADY_DONE)
        expect(str(xid) not in [it.xid for it in await bench.listed()], "a forgotten heuristic is listed")


async def a_hand_needs_a_reason(bench: Bench) -> None:
    """ResolveBranch without a reason, or without an outcome, is INVALID_ARGUMENT and forces nothing."""
    xid = await bench.prepared()
    for outcome, reason in (
        (common_pb2.DECISION_COMMIT, ""),
        (common_pb2.DECISION_ROLLBACK, "  "),
        (common_pb2.DECISION_UNSPECIFIED, _REASON),
    ):
        request = forcing(bench, xid, outcome)
        request.reason = reason
        try:
            answer = await bench.line.resolve(request)
        except grpc.aio.AioRpcError as error:
            expect(error.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{error.code()} for {request}")
        else:
            raise DeviationError(f"answered {answer.ack} instead of INVALID_ARGUMENT")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
    await bench.rollback(xid)


async def a_known_end_is_not_forced(bench: Bench) -> None:
    """Where the decision is known, or the branch is not, ResolveBranch changes nothing and says so."""
    unknown = forcing(bench, bench.an_xid(), common_pb2.DECISION_COMMIT)
    expect_ack((await bench.line.resolve(unknown)).ack, common_pb2.ACK_KIND_UNKNOWN_XID)
    committed = await bench.prepared()
    await bench.commit(committed)
    rolled_back = await bench.prepared()
    await bench.rollback(rolled_back)
    for xid, phase, answers in (
        (
            committed,
            common_pb2.BRANCH_PHASE_COMMITTED,
            (common_pb2.ACK_KIND_ALREADY_DONE, common_pb2.ACK_KIND_HEURISTIC_COMMIT),
        ),
        (
            rolled_back,
            common_pb2.BRANCH_PHASE_ROLLED_BACK,
            (common_pb2.ACK_KIND_HEURISTIC_ROLLBACK, common_pb2.ACK_KIND_ALREADY_DONE),
        ),
    ):
        for (outcome, _, _), kind in zip(_KINDS, answers, strict=True):
            expect_ack((await bench.line.resolve(forcing(bench, xid, outcome))).ack, kind)
            await bench.expect_phase(xid, phase)
        expect_ack(await forgetting(bench, xid), common_pb2.ACK_KIND_ALREADY_DONE)


async def what_is_in_doubt_is_not_forgotten(bench: Bench) -> None:
    """Forget of a branch in doubt is RETRY, and leaves it in doubt."""
    xid = await bench.prepared()
    expect_ack(await forgetting(bench, xid), common_pb2.ACK_KIND_RETRY)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)


def forcing(bench: Bench, xid: Xid, outcome: common_pb2.Decision.ValueType) -> resource_pb2.ResolveBranchRequest:
    """Make a ResolveBranch."""
    return resource_pb2.ResolveBranchRequest(xid=str(xid), log_id=bench.speaker.log_id, outcome=outcome, reason=_REASON)


async def forgetting(bench: Bench, xid: Xid) -> common_pb2.Ack:
    """Forget one branch."""
    return (await bench.line.forget(resource_pb2.ForgetRequest(xid=str(xid), log_id=bench.speaker.log_id))).ack
