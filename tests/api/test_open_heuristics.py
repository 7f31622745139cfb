"""Branches that ended by hand are counted, in status and metrics, until they are forgotten (R12)."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import pytest
from pincex.tx.v1 import recovery_pb2
from typer.testing import CliRunner

from coordinator.cli import make_app
from coordinator.log.memory import MemoryLog
from coordinator.open_heuristics import OpenHeuristics
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.ids import Xid
from participant_sdk.xa import Heuristic
from tests.api.doors import Doors
from tests.api.stuck import forcing, forgotten, recovery
from tests.sdk.small_system import LEFT

STATUS: Final = "/api/v1/transactions/recovery/status"


async def told(opened: Doors) -> tuple[int, int, float]:
    """The count by gRPC, by HTTP and as a metric."""
    status = await recovery(opened).GetRecoveryStatus(recovery_pb2.GetRecoveryStatusRequest())
    metrics = opened.telemetry.metrics.render().decode().splitlines()
    (gauge,) = [line.split()[1] for line in metrics if line.startswith("pincex_heuristics_open ")]
    return status.open_heuristics, (await opened.http.get(STATUS)).json()["open_heuristics"], float(gauge)


async def forget(opened: Doors, xid: str) -> None:
    await recovery(opened).ForgetHeuristic(recovery_pb2.ForgetHeuristicRequest(xid=xid, reason="put right"))


async def test_a_forced_branch_is_open_until_it_is_forgotten(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    assert await told(open_doors) == (0, 0, 0)
    await recovery(open_doors).ResolveBranch(forcing(xid))
    assert await told(open_doors) == (1, 1, 1)
    await forget(open_doors, xid)
    assert await told(open_doors) == (0, 0, 0)


async def test_the_command_does_not_say_that_nothing_needs_attention(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    address = f"127.0.0.1:{open_doors.grpc_port}"

    def status(*more: str) -> str:
        return CliRunner().invoke(make_app(), ["recovery", "status", "--coordinator", address, *more]).stdout

    assert "Nothing needs attention." in await asyncio.to_thread(status)
    await recovery(open_doors).ResolveBranch(forcing(xid))
    shown = await asyncio.to_thread(status)
    assert "Ended by hand and not forgotten: 1." in shown
    assert "Nothing needs attention" not in shown
    assert json.loads(await asyncio.to_thread(status, "--json"))["open_heuristics"] == 1


async def test_a_forced_branch_is_counted_and_told_once(open_doors: Doors, capsys: pytest.CaptureFixture[str]) -> None:
    """Sent again, and found by a pass, it is the same one."""
    xid = str(await forgotten(open_doors))
    for _ in range(2):
        await recovery(open_doors).ResolveBranch(forcing(xid))
    await recovery(open_doors).TriggerRecovery(recovery_pb2.TriggerRecoveryRequest())
    counted = open_doors.telemetry.metrics.render().decode()
    assert 'pincex_heuristics_total{heuristic="commit"} 1.0' in counted
    assert "heuristic_outcome" not in capsys.readouterr().out


async def test_what_another_coordinator_recorded_is_counted_and_an_unreadable_log_changes_nothing(
    open_doors: Doors,
) -> None:
    log = MemoryLog(open_doors.around.log, open_doors.wire)
    counting = OpenHeuristics(log)
    await log.record_heuristics([HeuristicRecord(Xid.make(1, 2, 3), LEFT, Heuristic.HAZARD, "")])
    await counting.look()
    assert counting.count == 1
    open_doors.wire.is_cut = True
    await counting.look()
    assert counting.count == 1
    open_doors.wire.is_cut = False
