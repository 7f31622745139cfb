"""What a benchmark measures, and how rounds become one figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement of one subject in one round.

    ``cpu_us`` is CPU per transaction and process, in microseconds; empty where it is not taken apart.
    ``count`` is how many transactions the measurement ran, those outside of the measured time too.
    ``values`` are what else was found, each name ending in its unit. A latency of 0 was not measured.
    """

    subject: str
    in_flight: int
    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: dict[str, float] = field(default_factory=dict[str, float])
    count: int = 0
    values: dict[str, float] = field(default_factory=dict[str, float])

    def with_cpu(self, used_s: Mapping[str, float]) -> Figure:
        """The same, with these processes' CPU seconds shared among all transactions that ran."""
        shares_us = {name: seconds / max(self.count, 1) * 1_000_000 for name, seconds in used_s.items()}
        return replace(self, cpu_us={**self.cpu_us, **shares_us})


@dataclass(frozen=True, slots=True)
class Summary:
    """A subject over all rounds: medians, and the range of the rate."""

    subject: str
    in_flight: int
    per_second: float
    lowest: float
    highest: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    values: dict[str, float]
    rounds: int


def summarize(figures: Sequence[Figure]) -> list[Summary]:
    """The summaries, in the order in which their subjects first came."""
    by_subject: dict[tuple[str, int], list[Figure]] = {}
    for figure in figures:
        by_subject.setdefault((figure.subject, figure.in_flight), []).append(figure)
    return [_summary(several) for several in by_subject.values()]


def percentile_ms(durations_s: Sequence[float], percent: float) -> float:
    """A percentile of durations in seconds, as milliseconds; 0 of none."""
    if not durations_s:
        return 0.0
    return sorted(durations_s)[min(int(len(durations_s) * percent / 100), len(durations_s) - 1)] * 1000


def _summary(figures: Sequence[Figure]) -> Summary:
    rates = [figure.per_second for figure in figures]
    return Summary(
        subject=figures[0].subject,
        in_flight=figures[0].in_flight,
        per_second=median(rates),
        lowest=min(rates),
        highest=max(rates),
        p50_ms=_measured(figure.p50_ms for figure in figures),
        p99_ms=_measured(figure.p99_ms for figure in figures),
        cpu_us=_medians([figure.cpu_us for figure in figures]),
        values=_medians([figure.values for figure in figures]),
        rounds=len(figures),
    )


def _measured(latencies_ms: Iterable[float]) -> float:
    """The median of those that were measured; 0 where none was."""
    known = [latency_ms for latency_ms in latencies_ms if latency_ms]
    return median(known) if known else 0.0


def _medians(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name: None for each in several for name in each}
    return {name: median(each[name] for each in several if name in each) for name in names}
