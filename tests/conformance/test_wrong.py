"""The kit catches each wrong participant by the checks of what is wrong with it, and by no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from participant_sdk.conformance import Report
from participant_sdk.conformance.catalogue import checks
from tests.conformance.hosts import judged
from tests.conformance.wrong import DOORS, INQUIRIES, RESOURCES, Wrong

AT_ONCE = 20


@pytest.mark.timeout(300)
@pytest.mark.uncounted
@pytest.mark.parametrize(
    # What waits long beside what works much.
    "wrongs",
    [RESOURCES[::2], RESOURCES[1::2], (*INQUIRIES, *DOORS)],
    ids=["resources", "more resources", "doors and inquiries"],
)
async def test_each_wrong_participant_fails_exactly_what_concerns_its_defect(wrongs: Sequence[Wrong]) -> None:
    """Many at once, as they mostly wait: each fails its own checks, and its report names the rule."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def judge(wrong: Wrong) -> Report:
        async with turns:
            return (await judged(wrong.kind, wrong.serve, wrong.asked_within_s))[0]

    reports = await asyncio.gather(*map(judge, wrongs))
    missed: list[str] = []
    for wrong, report in zip(wrongs, reports, strict=True):
        failed = {finding.check for finding in report.failed}
        if failed != set(wrong.fails):
            told = "\n".join(finding.text() for finding in report.failed)
            missed.append(f"{wrong.name}: failed {sorted(failed)}, not {sorted(wrong.fails)}\n{told}")
        elif wrong.rule not in report.summary().partition("broken:")[2]:
            missed.append(f"{wrong.name}: {wrong.rule} is not named by {report.summary()}")
    assert not missed, "\n\n".join(missed)


def test_every_rule_that_is_checked_is_broken_by_somebody() -> None:
    """A rule whose checks nothing ever fails would not be known to be checked at all."""
    broken = {wrong.rule for wrong in (*RESOURCES, *DOORS, *INQUIRIES)}
    assert {check.rule for check in checks()} == broken


def test_each_wrong_participant_fails_a_check_of_the_rule_it_breaks() -> None:
    rules = {check.name: check.rule for check in checks()}
    for wrong in (*RESOURCES, *DOORS, *INQUIRIES):
        assert wrong.rule in {rules[check] for check in wrong.fails}, wrong.name
