"""The participants that ship conform, in every check that can be made of them."""

from __future__ import annotations

from tests.conformance.hosts import Bank, judged


async def test_the_memory_resource_conforms() -> None:
    """With every means given, every check is made."""
    report, host = await judged(Bank)
    assert report.passed, report.text()
    assert report.skipped == (), report.text()
    assert {finding.over for finding in report.findings} == {"unary", "session"}
    assert host.violations() == []
    assert all(account.held == 0 for account in host.store.durable.accounts.values())
