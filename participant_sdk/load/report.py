"""What came of a load."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a closed loop. Rates and latencies are of the time after the warm-up; counts are of all.

    Transactions under way at the end count in the latencies, not in the rate.
    ``unknown`` transactions may have committed or not; ``not_applied`` ones committed, with a branch
    still owed when their caller was told. ``cpu_us`` is this process's, for one transaction.
    """

    in_flight: int
    seconds: float
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us: float
    committed: int
    rolled_back: dict[str, int]
    unknown: int
    not_applied: int

    @property
    def ended(self) -> int:
        """How many transactions ended, in whichever way."""
        return self.committed + self.unknown + sum(self.rolled_back.values())


@dataclass(frozen=True, slots=True)
class OpenReport(Report):
    """What came of an open loop. Latencies count from the intended start; ``in_flight`` is the cap.

    ``offered_per_second`` began, of ``asked_per_second``; ``not_offered`` did not, in the whole load. The lag
    is the generator's own: how late transactions began against their intended starts. Unless
    ``trustworthy``, it measured itself, not the system: the latencies are not true, and ``distrust`` says why.
    """

    asked_per_second: float
    offered_per_second: float
    not_offered: int
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    trustworthy: bool
    distrust: str
