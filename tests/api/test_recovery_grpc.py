"""RecoveryService at its door: passes, branches in doubt, heuristic ends, HOLD."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from pincex.tx.v1 import common_pb2, recovery_pb2, resource_pb2, transaction_pb2

from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.ids import Xid
from participant_sdk.xa import Heuristic
from tests.api.doors import Doors, doors, transfer
from tests.api.stuck import XID_UNKNOWN, forcing, forgotten, owed, prepared, recovery, until_finished
from tests.sdk.small_system import LEFT, OPENING, RIGHT

if TYPE_CHECKING:
    # The generated stubs know it; the module itself has it not.
    pass

Trigger = recovery_pb2.TriggerRecoveryRequest

ONE: Final = recovery_pb2.RECOVERY_SCOPE_TRANSACTION
AT: Final = recovery_pb2.RECOVERY_SCOPE_PARTICIPANT
ORPHANS: Final = recovery_pb2.RECOVERY_SCOPE_ORPHANS
COMMIT: Final = common_pb2.DECISION_COMMIT


def pass_of(response: recovery_pb2.TriggerRecoveryResponse) -> recovery_pb2.RecoveryPass:
    """The response's field ``pass``."""
    ran: recovery_pb2.RecoveryPass = getattr(response, "pass")
    return ran


async def test_a_pass_ends_a_branch_that_nobody_drives(open_doors: Doors) -> None:
    """Presumed rolled back, since its incarnation is gone and no commit is in the log (R7)."""
    xid = await prepared(open_doors)
    assert open_doors.around.held(LEFT, "a")
    ran = pass_of(await recovery(open_doors).TriggerRecovery(Trigger(scope=ORPHANS)))
    assert ran.scope == ORPHANS
    assert (ran.scanned, ran.resolved, ran.failed, ran.in_doubt) == (1, 1, 0, 0)
    assert ran.start_time.ToMilliseconds() <= ran.end_time.ToMilliseconds()
    assert not open_doors.around.held(LEFT, "a")
    branches = (await recovery(open_doors).ListInDoubt(recovery_pb2.ListInDoubtRequest())).branches
    assert str(xid) not in {each.branch.xid for each in branches}


@pytest.mark.parametrize(
    "request_",
    [
        Trigger(),
        Trigger(scope=recovery_pb2.RECOVERY_SCOPE_GLOBAL),
        Trigger(scope=AT, participant=LEFT),
        Trigger(scope=ORPHANS),
    ],
)
async def test_every_scope_answers_with_its_pass(open_doors: Doors, request_: Trigger) -> None:
    """An unspecified one is GLOBAL."""
    ran = pass_of(await recovery(open_doors).TriggerRecovery(request_))
    assert ran.scope == (request_.scope or recovery_pb2.RECOVERY_SCOPE_GLOBAL)
    assert ran.HasField("end_time")
    status = await recovery(open_doors).GetRecoveryStatus(recovery_pb2.GetRecoveryStatusRequest())
    assert status.last_pass == ran


async def test_a_pass_over_one_transaction_finishes_it(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    open_doors.around.taps[RIGHT].open()
    request = Trigger(scope=ONE, xid=xid)
    ran = pass_of(await recovery(open_doors).TriggerRecovery(request))
    assert ran.scope == ONE
    await until_finished(open_doors, xid)
    assert open_doors.around.balance(RIGHT, "a") == OPENING - 5


async def test_status_tells_of_everything_at_once(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    await recovery(open_doors).TriggerRecovery(Trigger())
    status = await recovery(open_doors).GetRecoveryStatus(recovery_pb2.GetRecoveryStatusRequest())
    assert [each.participant for each in status.participants] == [LEFT, RIGHT]
    assert all(each.up and each.reported for each in status.participants)
    assert [each.owed for each in status.participants] == [0, 1]
    assert {each.breaker for each in status.participants} == {recovery_pb2.BREAKER_STATE_CLOSED}
    (stuck,) = status.needs_attention
    assert (stuck.xid, list(stuck.participants), status.needs_attention_count) == (xid, [RIGHT], 1)
    assert f"pincex tx retry {xid}" in stuck.advice
    (live,) = status.coordinators
    assert (live.incarnation, live.self) == (open_doors.assembly.engine.incarnation.number, True)
    assert live.lease_left_ms > 0
    assert not status.HasField("held_since")


async def test_a_forgotten_branch_is_shown_forced_and_forgotten(open_doors: Doors) -> None:
    """Nobody knows its decision, so an operator's hand ends it; it stays shown until that was dealt with (R12)."""
    xid = str(await forgotten(open_doors))
    stub = recovery(open_doors)
    (found,) = (await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest())).branches
    assert (found.participant, found.branch.xid, found.branch.phase) == (LEFT, xid, common_pb2.BRANCH_PHASE_PREPARED)
    assert (found.state, found.decision) == (transaction_pb2.DECISION_STATE_FORGOTTEN, 0)
    assert "pincex tx resolve" in found.advice

    shown = await stub.ResolveBranch(forcing(xid, preview=True))
    assert shown.branch.phase == common_pb2.BRANCH_PHASE_PREPARED
    assert not shown.HasField("ack")
    assert open_doors.around.balance(LEFT, "a") == OPENING

    forced = await stub.ResolveBranch(forcing(xid))
    assert (forced.branch.phase, forced.branch.heuristic) == (
        common_pb2.BRANCH_PHASE_HEURISTIC,
        common_pb2.HEURISTIC_COMMIT,
    )
    assert (forced.ack.kind, forced.branch.reason) == (common_pb2.ACK_KIND_HEURISTIC_COMMIT, "the bank said so")
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5
    again = await stub.ResolveBranch(forcing(xid))
    assert again.ack.kind == common_pb2.ACK_KIND_HEURISTIC_COMMIT
    assert open_doors.around.effects(LEFT) == 1

    (found,) = (await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest(participant=LEFT))).branches
    assert found.branch.heuristic == common_pb2.HEURISTIC_COMMIT
    answer = await stub.ForgetHeuristic(recovery_pb2.ForgetHeuristicRequest(xid=xid, reason="booked by hand"))
    assert list(answer.participants) == [LEFT]
    assert not (await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest())).branches


async def test_retry_sends_a_decision_again(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    stub = recovery(open_doors)
    answer = await stub.RetryTransaction(recovery_pb2.RetryTransactionRequest(xid=xid))
    assert answer.phase == common_pb2.PHASE_COMMITTING
    open_doors.around.taps[RIGHT].open()
    await until_finished(open_doors, xid)
    answer = await stub.RetryTransaction(recovery_pb2.RetryTransactionRequest(xid=xid))
    assert answer.phase == common_pb2.PHASE_COMMITTED


async def test_branches_in_doubt_come_in_pages_oldest_first(open_doors: Doors) -> None:
    xids = [str(await forgotten(open_doors, participant)) for participant in (LEFT, RIGHT, LEFT, RIGHT, LEFT)]
    found: list[str] = []
    token = ""
    while True:
        request = recovery_pb2.ListInDoubtRequest(page_size=2, page_token=token)
        page = await recovery(open_doors).ListInDoubt(request)
        assert len(page.branches) <= 2
        found += [each.branch.xid for each in page.branches]
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(xids)


async def test_a_participant_that_cannot_be_asked_is_named() -> None:
    async with doors(absent="gone") as opened:
        page = await recovery(opened).ListInDoubt(recovery_pb2.ListInDoubtRequest())
        assert list(page.unreachable_participants) == ["gone"]
        ran = pass_of(await recovery(opened).TriggerRecovery(Trigger()))
        assert list(ran.unreachable_participants) == ["gone"]


async def test_hold_ends_this_coordinator_and_is_told_first() -> None:
    """Every incarnation that lives is fenced in the same statement, its own too (R15)."""
    async with doors() as opened:
        held = await recovery(opened).Hold(recovery_pb2.HoldRequest(reason="restored from a backup"))
        assert held.held_since.ToMilliseconds() == opened.around.log.tables.held_since_ms
        assert opened.around.log.tables.held == "restored from a backup"
        async with asyncio.timeout(10):
            await opened.ended.wait()


async def test_hold_is_previewed_and_released() -> None:
    """A commit that a participant had applied, and the log lost, is in the log again (R15)."""
    async with doors(held="restored") as opened:
        stub = recovery(opened)
        await stub.TriggerRecovery(Trigger())
        status = await stub.GetRecoveryStatus(recovery_pb2.GetRecoveryStatusRequest())
        assert status.held_reason == "restored"
        assert status.HasField("held_since")
        in_doubt = await prepared(opened)
        preview = await stub.ReleaseHold(recovery_pb2.ReleaseHoldRequest(reason="polled", preview=True))
        assert (preview.commits_restored, preview.rollbacks_presumed) == (0, 1)
        assert opened.around.log.tables.held
        assert await stub.ReleaseHold(recovery_pb2.ReleaseHoldRequest(reason="polled")) == preview
        assert not opened.around.log.tables.held
        request = transaction_pb2.GetDecisionRequest(xid=str(in_doubt))
        assert (await opened.stub.GetDecision(request)).decision == transaction_pb2.DECISION_STATE_ROLLBACK


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="not ours to install")
async def test_grpcurl_lists_and_calls_it(open_doors: Doors) -> None:
    """Over reflection alone, as an operator would; an error shows its details."""

    def grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["grpcurl", "-plaintext", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    address = f"127.0.0.1:{open_doors.grpc_port}"
    listed = await asyncio.to_thread(grpcurl, address, "list", "pincex.tx.v1.RecoveryService")
    assert len(listed.stdout.split()) == 8
    status = await asyncio.to_thread(grpcurl, address, "pincex.tx.v1.RecoveryService/GetRecoveryStatus")
    assert [each["participant"] for each in json.loads(status.stdout)["participants"]] == [LEFT, RIGHT]
    body = json.dumps({"xid": XID_UNKNOWN, "participant": LEFT, "outcome": "DECISION_COMMIT"})
    error = await asyncio.to_thread(grpcurl, "-d", body, address, "pincex.tx.v1.RecoveryService/ResolveBranch")
    assert "google.rpc.BadRequest" in error.stderr
    assert "reason" in error.stderr


def test_the_branch_message_is_the_participants_own() -> None:
    """One type for a branch, wherever it is shown."""
    field = recovery_pb2.InDoubtBranch.DESCRIPTOR.fields_by_name["branch"]
    assert field.message_type is resource_pb2.Branch.DESCRIPTOR


async def test_an_end_that_only_the_log_remembers_is_shown_until_forgotten(open_doors: Doors) -> None:
    """A participant that lost its branch shows nothing, and somebody has to look all the same (R11, R12)."""
    xids = [Xid.parse((await open_doors.stub.Execute(transfer())).result.xid) for _ in range(3)]
    in_doubt = await forgotten(open_doors)
    for xid in xids:
        record = HeuristicRecord(xid, RIGHT, Heuristic.HAZARD, "no marker here")
        open_doors.around.log.tables.heuristics[xid, RIGHT] = record
    stub = recovery(open_doors)
    found: list[recovery_pb2.InDoubtBranch] = []
    token = ""
    while True:
        page = await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest(page_size=1, page_token=token))
        found += page.branches
        token = page.next_page_token
        if not token:
            break
    assert [each.branch.xid for each in found] == [str(xid) for xid in sorted((*xids, in_doubt))]
    hazard = found[-1]
    assert (hazard.participant, hazard.branch.heuristic) == (RIGHT, common_pb2.HEURISTIC_HAZARD)
    assert (hazard.state, hazard.branch.reason) == (transaction_pb2.DECISION_STATE_COMMIT, "no marker here")
    assert "pincex tx forget" in hazard.advice
    left = await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest(participant=LEFT))
    assert [each.branch.xid for each in left.branches] == [str(in_doubt)]
    for xid in xids:
        await stub.ForgetHeuristic(recovery_pb2.ForgetHeuristicRequest(xid=str(xid), reason="booked by hand"))
    right = await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest(participant=RIGHT))
    assert not right.branches
