"""What the kit found: for every check its rule, whether it passed, and what was seen."""

from __future__ import annotations

from dataclasses import dataclass


class DeviationError(Exception):
    """The participant did not do what the rule wants. The message says what was seen."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, over one way of calling (``unary`` or ``session``)."""

    rule: str
    check: str
    over: str
    passed: bool
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that did not pass."""
        return tuple(finding for finding in self.findings if not finding.passed)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failed

    def text(self) -> str:
        """The report for a person: a line for each check, then the count."""
        lines = [
            f"{'ok  ' if finding.passed else 'FAIL'} {finding.rule:<4} {finding.check} ({finding.over})"
            + ("" if finding.passed else f": {finding.seen}")
            for finding in self.findings
        ]
        return "\n".join([*lines, f"{len(self.findings) - len(self.failed)} of {len(self.findings)} checks passed"])


def expect(condition: bool, seen: object) -> None:
    """Raise DeviationError with what was seen, unless the condition holds."""
    if not condition:
        raise DeviationError(" ".join(str(seen).split()))
