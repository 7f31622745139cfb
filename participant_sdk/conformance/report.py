"""What the kit found: for every check its rule, how it went, what was seen, and what was said last on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class DeviationError(Exception):
    """The participant did not do what the rule wants. The message says what was seen."""


class SkippedError(Exception):
    """The check cannot be made at this participant. The message says why."""


class Verdict(Enum):
    """How a check went."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, over one way of calling (``unary`` or ``session``).

    ``wants`` is what the rule wants, in a sentence. ``seen`` says what came instead, or why the check was
    skipped. ``exchanged`` holds the last messages before a failure, oldest first, each with its direction.
    """

    rule: str
    check: str
    over: str
    verdict: Verdict
    wants: str
    seen: str = ""
    exchanged: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the check was made and passed."""
        return self.verdict is Verdict.PASSED

    def text(self) -> str:
        """The finding for a person: one line, and what went wrong below it."""
        line = f"{self.verdict.value:<7} {self.rule:<4} {self.check} ({self.over})"
        if self.verdict is Verdict.SKIPPED:
            return f"{line}: {self.seen}"
        if self.verdict is Verdict.PASSED:
            return line
        below = [f"the rule: {self.wants}", f"seen:     {self.seen}", *self.exchanged]
        return "\n        ".join([line, *below])

    def members(self) -> Mapping[str, object]:
        """The finding as an object of the JSON report."""
        return {
            "rule": self.rule,
            "check": self.check,
            "over": self.over,
            "verdict": self.verdict.value,
            "wants": self.wants,
            "seen": self.seen,
            "exchanged": list(self.exchanged),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks, of one participant at one address."""

    participant: str
    address: str
    findings: tuple[Finding, ...]
    duration_s: float = 0.0

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that did not pass."""
        return self._of(Verdict.FAILED)

    @property
    def skipped(self) -> tuple[Finding, ...]:
        """The checks that could not be made."""
        return self._of(Verdict.SKIPPED)

    @property
    def passed(self) -> bool:
        """Whether every check that could be made passed."""
        return not self.failed

    def summary(self) -> str:
        """The count, in a sentence."""
        made = len(self.findings) - len(self.skipped)
        rules = sorted({finding.rule for finding in self.failed}, key=lambda rule: int(rule[1:]))
        broken = f"; broken: {', '.join(rules)}" if rules else ""
        return (
            f"{self.participant} at {self.address}: {made - len(self.failed)} of {made} checks passed, "
            f"{len(self.skipped)} skipped, in {self.duration_s:.1f} s{broken}"
        )

    def text(self) -> str:
        """The report for a person: a line for each check, then the count."""
        return "\n".join([*(finding.text() for finding in self.findings), self.summary()])

    def json(self) -> str:
        """The report for a program."""
        counts = {verdict.value: len(self._of(verdict)) for verdict in Verdict}
        return json.dumps(
            {
                "participant": self.participant,
                "address": self.address,
                "conforms": self.passed,
                "duration_s": round(self.duration_s, 3),
                **counts,
                "findings": [finding.members() for finding in self.findings],
            }
        )

    def _of(self, verdict: Verdict) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is verdict)


def expect(condition: bool, seen: object) -> None:
    """Raise DeviationError with what was seen, unless the condition holds."""
    if not condition:
        raise DeviationError(" ".join(str(seen).split()))
