"""The kit catches each wrong participant by the checks of what is wrong with it, and by no other."""

from __future__ import annotations

import asyncio

from participant_sdk.conformance import Report
from tests.conformance.hosts import judged
from tests.conformance.wrong import WRONG, Wrong

AT_ONCE = 10


async def test_each_wrong_participant_fails_exactly_what_concerns_its_defect() -> None:
    """All at once, as they mostly wait: each fails its own checks, and its report names the rule."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def judge(wrong: Wrong) -> Report:
        async with turns:
            return (await judged(wrong.kind, wrong.serve))[0]

    reports = await asyncio.gather(*map(judge, WRONG))
    missed: list[str] = []
    for wrong, report in zip(WRONG, reports, strict=True):
        failed = {finding.check for finding in report.failed}
        if failed != set(wrong.fails):
            told = "\n".join(finding.text() for finding in report.failed)
            missed.append(f"{wrong.name}: failed {sorted(failed)}, not {sorted(wrong.fails)}\n{told}")
        elif wrong.rule not in report.summary().partition("broken:")[2]:
            missed.append(f"{wrong.name}: {wrong.rule} is not named by {report.summary()}")
    assert not missed, "\n\n".join(missed)
