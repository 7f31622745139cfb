"""Checks of what recovery reads: the branches in doubt, the finished ones, one by itself, and no other log's."""

from __future__ import annotations

from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_ack, shown_phase
from participant_sdk.conformance.calls import Decided
from participant_sdk.conformance.report import expect
from participant_sdk.conformance.words import shown
from participant_sdk.ids import Xid


async def recovery_lists_what_is_in_doubt(bench: Bench) -> None:
    """Recover lists prepared branches by xid, page by page as its tokens say, until they end."""
    xids = [await bench.prepared(operation) for operation in bench.exercise.yes[:3]]
    listed = await bench.listed()
    mine = [branch for branch in listed if branch.xid in map(str, xids)]
    await bench.calls.rollback(xids)
    expect([branch.xid for branch in mine] == sorted(map(str, xids)), f"{len(mine)} of 3 branches are listed")
    for branch in mine:
        expect(branch.phase == common_pb2.BRANCH_PHASE_PREPARED, f"listed in phase {shown_phase(branch)}")
        expect(bench.exercise.participant in branch.participants, f"listed with participants {branch.participants}")
    left = [branch.xid for branch in await bench.listed() if branch.xid in map(str, xids)]
    expect(not left, f"ended branches are still listed: {left}")


async def a_log_is_shown_its_own_branches(bench: Bench) -> None:
    """Recover and GetBranch of another log show nothing of this one's, and its calls end nothing here."""
    xid = await bench.prepared()
    other = bench.of_log(_other(bench))
    listed = [branch.xid for branch in await other.listed()]
    expect(str(xid) not in listed, "another log is shown this log's branch")
    await other.expect_phase(xid, common_pb2.BRANCH_PHASE_UNSPECIFIED, where="asked for by another log, ")
    expect_ack(await other.commit(xid), common_pb2.ACK_KIND_HEURISTIC_HAZARD)
    await other.rollback(xid)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED, where="after another log's Rollback, ")
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)


async def one_xid_under_two_logs_is_two_branches(bench: Bench) -> None:
    """The same xid under two logs names two branches, and each goes its own way."""
    other = bench.of_log(_other(bench)[::-1])
    xid = await bench.prepared(bench.exercise.yes[0])
    vote = await other.prepare(xid, bench.exercise.yes[1])
    try:
        expect(vote.kind == common_pb2.VOTE_KIND_PREPARED, f"under the other log: {shown(vote)}")
        expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)
        await other.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED, where="under the other log, ")
        expect_ack(await other.commit(xid), common_pb2.ACK_KIND_DONE)
        await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
        seen = (await other.marks()).get(bench.speaker.incarnation)
        expect(seen == other.sequence, f"the other log's watermark is {seen}, not {other.sequence}")
    finally:
        await other.rollback(xid)


async def finished_branches_are_listed_above_the_sequences(bench: Bench) -> None:
    """Recover of finished branches lists what was committed above a sequence, of each incarnation, page by page."""
    earlier = bench.speaker.incarnation - 2
    above = bench.sequence
    bench.sequence += 3
    orders: list[Decided] = []
    for incarnation, sequence in (
        (bench.speaker.incarnation, above + 1),
        (earlier, above + 1),
        (bench.speaker.incarnation, above + 2),
        (earlier, above + 2),
        (bench.speaker.incarnation, above + 3),
    ):
        orders.append(Decided(await bench.prepared(), incarnation, sequence))
        (ack,) = await bench.calls.commit(orders[-1:])
        expect_ack(ack, common_pb2.ACK_KIND_DONE)
    known = ((bench.speaker.incarnation, above + 1), (earlier, above + 1))
    marks = await bench.marks()
    others = [(incarnation, sequence) for incarnation, sequence in marks.items() if incarnation not in dict(known)]
    finished = await bench.listed(finished=True, above=(*known, *others))
    seen = [_decided(branch) for branch in finished if branch.phase == common_pb2.BRANCH_PHASE_COMMITTED]
    wanted = sorted(orders[2:])
    expect(seen == wanted, f"listed: {_in_words(seen)}; committed above: {_in_words(wanted)}")
    mine = [branch for branch in finished if branch.xid == str(orders[2].xid)]
    expect(list(mine[0].participants) != [], "listed without the transaction's participants")


async def an_unknown_branch_is_shown_as_unknown(bench: Bench) -> None:
    """GetBranch of an unknown branch has no phase; Forget of it is UNKNOWN_XID."""
    xid = bench.an_xid()
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_UNSPECIFIED)
    forget = resource_pb2.ForgetRequest(xid=str(xid), log_id=bench.speaker.log_id)
    expect_ack((await bench.line.forget(forget)).ack, common_pb2.ACK_KIND_UNKNOWN_XID)


def _other(bench: Bench) -> str:
    """An id of a log that is not the bench's, nor its reversal's."""
    return f"{int(bench.speaker.log_id, 16) ^ 1:016x}"


def _decided(branch: resource_pb2.Branch) -> Decided:
    return Decided(Xid.parse(branch.xid), branch.incarnation, branch.sequence)


def _in_words(orders: list[Decided]) -> str:
    return ", ".join(f"{order.incarnation}/{order.sequence}" for order in orders) or "nothing"
