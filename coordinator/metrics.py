"""Counts and histograms, kept as plain numbers by the event loop and read when scraped.

prometheus-client's own counters take a lock and walk a list for every change; at thousands
of transactions a second, with several changes each, that was a tenth of the coordinator's
time. So the numbers are kept here, and only their exposition is the library's. Labels are
bounded: participants, phases and outcomes, never a transaction.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

Labels = tuple[str, ...]


class Histogram:
    """How often a value fell where. Slots, not frozen: it is changed for every transaction."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: list[float]) -> None:
        """Count values, which are sorted on the way: one look at each bound in place of one for each value."""
        values.sort()
        below = 0
        for at, bound in enumerate(self._bounds):
            up_to = bisect_right(values, bound, below)
            self._counts[at] += up_to - below
            below = up_to
        self._counts[-1] += len(values) - below
        self._sum += sum(values)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    def expose(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets by upper bound, and the sum of all values."""
        bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True)), self._sum


class Count(Enum):
    """What is counted: name, meaning, labels."""

    # A member is one object, so this is as good as the enum's own, which is written in Python.
    __hash__ = object.__hash__

    TRANSACTIONS = ("pincex_transactions", "Transactions finished", ("outcome",))
    HEURISTICS = (
        "pincex_heuristics",
        "Transactions that ended against their decision, and branches forced by a coordinator where none was known",
        ("heuristic",),
    )
    REFUSED = ("pincex_requests_refused", "Requests that got an error in place of an outcome", ("door", "reason"))
    PASSES = ("pincex_recovery_passes", "Recovery passes that ended", ("scope",))
    RECOVERED = (
        "pincex_recovery_branches",
        "Branches and transactions that recovery passes looked at, by what became of them",
        ("result",),
    )
    AHEAD = (
        "pincex_participants_ahead",
        "Reports of a participant that had applied what the decision log does not know: the log lost its tail",
        ("participant",),
    )
    BEHIND = (
        "pincex_participants_behind",
        "Sessions with a participant that had lost what it had acknowledged",
        ("participant",),
    )
    LOCKS_LOST = ("pincex_locks_lost", "Locks that were held and lost: lost, unreachable or broken", ("cause",))
    DEADLOCKS = ("pincex_deadlocks", "Circles of waits that this coordinator found and had one of them give way", ())
    WORKFLOWS_BEGUN = ("pincex_workflows_started", "Workflows begun here, without those taken over", ("workflow_type",))
    WORKFLOWS_ENDED = ("pincex_workflows_ended", "Workflows that came to their end here", ("workflow_type", "state"))
    FAULTS = ("pincex_faults", "Errors that no rule foresees; each is a defect to report", ("where",))


class Distribution(Enum):
    """What is measured: name, meaning, labels, bounds."""

    DURATION = ("pincex_transaction_duration_seconds", "From its beginning to the answer", ("outcome",), SECONDS_BOUNDS)
    PHASE = (
        "pincex_phase_duration_seconds",
        "From a message to its participant's answer",
        ("phase", "participant"),
        SECONDS_BOUNDS,
    )
    BATCH = ("pincex_batch_size", "Items that travelled together", ("stage", "participant"), SIZE_BOUNDS)
    LOCK_WAIT = (
        "pincex_lock_wait_seconds",
        "From the claim to its grant, or until it was given up",
        ("result",),
        SECONDS_BOUNDS,
    )
    FLUSH = ("pincex_log_flush_duration_seconds", "One durable write of the decision log", (), SECONDS_BOUNDS)


class Level(Enum):
    """What is read when scraped: name, meaning, labels."""

    IN_FLIGHT = ("pincex_transactions_in_flight", "Transactions begun and not finished", ())
    OWED = ("pincex_transactions_owed", "Transactions decided and not applied everywhere", ())
    QUEUE = ("pincex_queue_depth", "Items that wait for their stage's next round", ("queue", "participant"))
    LINK_UP = ("pincex_participant_up", "1 where a session to the participant is open", ("participant",))
    BREAKER = ("pincex_breaker_state", "0 closed, 1 half open, 2 open: messages do not pass", ("participant",))
    IN_DOUBT = ("pincex_branches_in_doubt", "Branches in doubt, as the last recovery pass found", ("participant",))
    IN_DOUBT_AGE = (
        "pincex_branches_in_doubt_oldest_seconds",
        "The age of the oldest branch in doubt, as the last recovery pass found; 0 for none",
        ("participant",),
    )
    ATTENTION = ("pincex_transactions_needing_attention", "Transactions that need an operator", ())
    OPEN_HEURISTICS = (
        "pincex_heuristics_open",
        "Branches that ended by hand and are not forgotten; of more than 1000 that many are counted",
        (),
    )
    LOCKS_HELD = ("pincex_locks_held", "Calls for locks that this coordinator's owners hold", ())
    LOCKS_WAITING = ("pincex_locks_waiting", "Calls for locks that this coordinator's owners wait with", ())
    WORKFLOWS_RUNNING = ("pincex_workflows_running", "Workflows that go forward or back here, stuck ones left out", ())
    WORKFLOWS_STUCK = ("pincex_workflows_stuck", "Workflows here that wait for an operator", ())
    HELD = ("pincex_log_held", "1 where the decision log is in HOLD", ())


class Metrics(Collector):
    """All numbers of one coordinator, in a registry of its own. For the event loop's thread alone."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Count, Labels], int] = {}
        self._distributions: dict[tuple[Distribution, Labels], Histogram] = {}
        self._levels: dict[tuple[Level, Labels], Callable[[], float]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def count(self, what: Count, labels: Labels = (), by: int = 1) -> None:
        """Add to a count."""
        key = (what, labels)
        self._counts[key] = self._counts.get(key, 0) + by

    def histogram(self, what: Distribution, labels: Labels = ()) -> Histogram:
        """The histogram with these labels, to be kept by whoever observes often."""
        key = (what, labels)
        found = self._distributions.get(key)
        if found is None:
            found = self._distributions[key] = Histogram(what.value[3])
        return found

    def level(self, what: Level, read: Callable[[], float], labels: Labels = ()) -> None:
        """Have ``read`` called whenever the metrics are scraped; the last one given stays."""
        self._levels[what, labels] = read

    def render(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Give the registry every family, those without values too."""
        for count in Count:
            family = CounterMetricFamily(count.value[0], count.value[1], labels=count.value[2])
            for (what, labels), value in self._counts.items():
                if what is count:
                    family.add_metric(labels, value)
            yield family
        for distribution in Distribution:
            family = HistogramMetricFamily(distribution.value[0], distribution.value[1], labels=distribution.value[2])
            for (what, labels), histogram in self._distributions.items():
                if what is distribution:
                    buckets, total = histogram.expose()
                    family.add_metric(labels, buckets, total)
            yield family
        for level in Level:
            family = GaugeMetricFamily(level.value[0], level.value[1], labels=level.value[2])
            for (what, labels), read in self._levels.items():
                if what is level:
                    family.add_metric(labels, read())
            yield family
