"""The participants that ship conform, in every check that can be made of them, killed and restarted."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from participant_sdk.conformance import Means, Report, example, read_exercise, run
from participant_sdk.resources.invariants import violations
from sidecars.main import SIDECARS
from tests.conformance.hosts import BANK, NAME, Bank, judged
from tests.conformance.processes import ROOT, supervised
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import fill_bank

# What the reservation of shipped services has not: operations that take their time, and work of its own.
NOT_THERE = {
    "no yes leaves after the deadline",
    "work done is prepared and committed",
    "another count or number is xaer nota",
    "work ends with its deadline",
}
# What a supervisor is told by hand: kill it, and wait until it is gone.
KILL = "pid=$(cat {}); kill -9 $pid; while kill -0 $pid 2> /dev/null; do sleep 0.05; done"


def skipped(report: Report) -> set[str]:
    return {finding.check for finding in report.skipped}


async def test_the_memory_resource_conforms() -> None:
    """With every means given, every check is made."""
    report, host = await judged(Bank)
    assert report.passed, report.text()
    assert report.skipped == (), report.text()
    assert {finding.over for finding in report.findings} == {"unary", "session"}
    assert host.violations() == []
    assert all(account.held == 0 for account in host.store.durable.accounts.values())


@pytest.mark.timeout(300)
async def test_the_shipped_participants_conform(databases: MakeDatabase, tmp_path: Path) -> None:
    """On real PostgreSQL, as processes that are killed: XA, those that read, and the bookkeeper by the command."""
    dsns = {name: await databases(name) for name in (NAME, *SIDECARS)}
    async with asyncio.TaskGroup() as group:
        bank_task = group.create_task(_bank(dsns.pop(NAME), tmp_path))
        group.create_task(_bookkeeper(dsns.pop("bookkeeper"), tmp_path))
        tasks = [group.create_task(_sidecar(name, dsn, tmp_path)) for name, dsn in dsns.items()]
    bank = bank_task.result()
    assert bank.passed, bank.text()
    assert skipped(bank) == set(), bank.text()
    for report in [task.result() for task in tasks]:
        assert report.passed, report.text()
        assert skipped(report) == NOT_THERE, report.text()


async def _bank(dsn: str, folder: Path) -> Report:
    await fill_bank(dsn)
    async with supervised(NAME, dsn, folder) as process:
        return await run(process.address, BANK, Means(process.restart, process.work, 20.0))


async def _sidecar(name: str, dsn: str, folder: Path) -> Report:
    async with supervised(name, dsn, folder) as process:
        report = await run(process.address, read_exercise(example(name)), Means(process.restart))
    assert await violations(dsn, SIDECARS[name].service.invariants) == []
    return report


async def _bookkeeper(dsn: str, folder: Path) -> None:
    """By the command line, with nothing told but its address and how to kill it."""
    async with supervised("bookkeeper", dsn, folder) as process:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator.cli", "conformance", process.address, "--json"),
            *("--restart", KILL.format(process.pid_file)),
            stdout=PIPE,
            cwd=ROOT,
        )
        output, _ = await command.communicate()
    report = json.loads(output)
    failed = [finding for finding in report["findings"] if finding["verdict"] == "failed"]
    assert failed == []
    assert command.returncode == 0
    assert (report["conforms"], report["participant"], report["address"]) == (True, "bookkeeper", process.address)
    assert {it["check"] for it in report["findings"] if it["verdict"] == "skipped"} == NOT_THERE
    assert await violations(dsn, SIDECARS["bookkeeper"].service.invariants) == []
