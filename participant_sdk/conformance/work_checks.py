"""Checks of Prepares that end work already done under the xid (R13): of none at all, and of the service's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import REMAINING_MS, Bench, WorkOrder, expect_ack, expect_no, shown_phase
from participant_sdk.conformance.report import SkippedError, expect
from participant_sdk.conformance.words import shown
from participant_sdk.ids import Xid
from participant_sdk.xa import XaCode

_BRANCH_NUMBER: Final = 3
_SHORT_MS: Final = 500
_EXPIRED_WITHIN_S: Final = 10.0


async def work_that_was_never_done_is_xaer_nota(bench: Bench) -> None:
    """A Prepare that ends work which is not there is ROLLED_BACK with XAER_NOTA, never READ_ONLY."""
    for count in (0, 1):
        (vote,) = await bench.calls.prepare([_ending(bench, bench.an_xid(), 1, count)])
        expect_no(vote)
        expect(vote.xa_code == XaCode.XAER_NOTA, shown(vote))


async def no_work_at_all_is_a_no(bench: Bench) -> None:
    """A Prepare without operations that does not end work is a no, never READ_ONLY."""
    expect_no(await bench.prepare(bench.an_xid()))


async def work_done_is_prepared_and_committed(bench: Bench) -> None:
    """A Prepare that names the branch's number and its count of operations exactly is PREPARED, and commits."""
    work = _work(bench)
    before = await bench.observed()
    xid = bench.an_xid()
    for _ in range(2):
        await work(_order(bench, xid))
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ACTIVE, common_pb2.BRANCH_PHASE_UNSPECIFIED)
    (vote,) = await bench.calls.prepare([_ending(bench, xid, _BRANCH_NUMBER, 2)])
    expect(vote.kind == common_pb2.VOTE_KIND_PREPARED, shown(vote))
    expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_DONE)
    expect(not before or await bench.observed() != before, "work that was committed took no effect")


async def another_count_or_number_is_xaer_nota(bench: Bench) -> None:
    """Work whose count of operations or branch number differs was lost or done twice: XAER_NOTA, and undone."""
    work = _work(bench)
    before = await bench.observed()
    for number, count in (
        (_BRANCH_NUMBER, 0),
        (_BRANCH_NUMBER, 2),
        (_BRANCH_NUMBER + 1, 1),
    ):
        xid = bench.an_xid()
        await work(_order(bench, xid))
        (vote,) = await bench.calls.prepare([_ending(bench, xid, number, count)])
        await bench.rollback(xid)
        expect_no(vote)
        expect(vote.xa_code == XaCode.XAER_NOTA, f"number {number}, {count} operations: {shown(vote)}")
    expect(await bench.observed() == before, "work that was rolled back took effect")


async def work_ends_with_its_deadline(bench: Bench) -> None:
    """Work that nobody prepares is rolled back once the transaction's deadline has passed."""
    work = _work(bench)
    before = await bench.observed()
    xid = bench.an_xid()
    await work(_order(bench, xid)._replace(remaining_ms=_SHORT_MS))
    if (await bench.branch(xid)).phase == common_pb2.BRANCH_PHASE_ACTIVE:
        ended = await bench.comes_to(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK, _EXPIRED_WITHIN_S)
        phase = shown_phase(await bench.branch(xid))
        expect(ended, f"{_EXPIRED_WITHIN_S:.0f} s after its deadline, the branch is {phase}")
    (vote,) = await bench.calls.prepare([_ending(bench, xid, _BRANCH_NUMBER, 1)])
    await bench.rollback(xid)
    expect_no(vote)
    expect(await bench.observed() == before, "work that expired took effect")


def _work(bench: Bench) -> Callable[[WorkOrder], Awaitable[None]]:
    if bench.means.work is None:
        raise SkippedError("the kit was not told how to have the service work under an xid")
    return bench.means.work


def _order(bench: Bench, xid: Xid) -> WorkOrder:
    return WorkOrder(bench.speaker.log_id, xid, bench.exercise.participant, _BRANCH_NUMBER, REMAINING_MS)


def _ending(bench: Bench, xid: Xid, number: int, count: int) -> resource_pb2.PrepareRequest:
    request = bench.request(xid)
    request.ends_work, request.branch_number, request.operation_count = True, number, count
    return request
