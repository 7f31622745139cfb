"""What a coordinator tells of itself: one log line for each finished transaction, and numbers.

The engine calls ``finished`` once for each transaction and the stages call once for each
batch; both are cheap, and neither can fail. Gauges are read when scraped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

import structlog

from coordinator.log_lines import LEVELS, LineWriter, Timestamps, capture, make_logger
from coordinator.metrics import Count, Distribution, Histogram, Level, Metrics
from coordinator.passes import Pass
from coordinator.protocol.effects import Verb
from coordinator.protocol.outcome import BranchOutcome
from coordinator.running import Finished
from participant_sdk.xa import Decision, Heuristic

_INFO: Final = LEVELS["info"]
# A member takes as long to be found in its enum as a function to be called (``coordinator.protocol.phases``).
_COMMIT: Final = Decision.COMMIT
_TRANSACTIONS: Final = Count.TRANSACTIONS
# ``json.dumps`` of a text, without a look at options.
_QUOTED: Final = json.JSONEncoder().encode


class Telemetry:
    """Logs and metrics of one coordinator. For the event loop's thread alone."""

    __slots__ = (
        "_durations",
        "_level",
        "_lines",
        "_phases",
        "_resources",
        "_timestamps",
        "_writes_info",
        "logger",
        "metrics",
    )

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self.metrics = Metrics()
        self._lines = LineWriter(stream or sys.stderr)
        self._timestamps = Timestamps()
        self._level = level
        self._writes_info = LEVELS[level] <= _INFO
        self.logger: structlog.typing.FilteringBoundLogger = make_logger(self._lines, level)
        self._durations: dict[str, Histogram] = {}
        # The last line's branches and their text: most transactions' are the very same value.
        self._resources: tuple[tuple[BranchOutcome, ...], str] = ((), "")
        self._phases: dict[tuple[Verb, str], Histogram] = {}

    def finished(self, finished: Finished) -> None:
        """Nothing is owed of a transaction any more: count it, and write its canonical line."""
        outcome = finished.outcome
        kind = "committed" if outcome.decision is _COMMIT else "rolled_back_retry" if outcome.retry else "rolled_back"
        self.metrics.count(_TRANSACTIONS, (kind,))
        durations = self._durations.get(kind)
        if durations is None:
            durations = self._durations[kind] = self.metrics.histogram(Distribution.DURATION, (kind,))
        durations.observe(finished.duration_s)
        if outcome.heuristic is not None:
            self.metrics.count(Count.HEURISTICS, (outcome.heuristic.name.lower(),))
        if self._writes_info:
            self._lines.later(self._line(finished))

    def phase(self, verb: Verb, participant: str) -> Histogram:
        """The histogram of a participant's answers to Prepare, Commit or Rollback, in seconds."""
        histogram = self._phases.get((verb, participant))
        if histogram is None:
            labels = (verb.name.lower(), participant)
            histogram = self._phases[verb, participant] = self.metrics.histogram(Distribution.PHASE, labels)
        return histogram

    def batch(self, stage: str, size: int, participant: str = "") -> None:
        """So many items travelled together, as ``votes``, ``acknowledgements``, ``log`` or ``client_stream``."""
        self.metrics.histogram(Distribution.BATCH, (stage, participant)).observe(size)

    def flushed(self, size: int, duration_s: float) -> None:
        """The decision log wrote a batch durably."""
        self.batch("log", size)
        self.metrics.histogram(Distribution.FLUSH).observe(duration_s)

    def refused(self, door: str, reason: str) -> None:
        """A request got an error in place of an outcome, at the ``grpc`` or ``http`` door.

        ``reason`` is the error's class' own, of which there are few; a participant's would be anything.
        """
        self.metrics.count(Count.REFUSED, (door, reason))

    def fault(self, where: str, error: BaseException) -> None:
        """Something happened that no rule foresees: counted, and written with its traceback."""
        self.metrics.count(Count.FAULTS, (where,))
        self.logger.error("Unforeseen error", where=where, exc_info=error)

    def passed(self, ended: Pass) -> None:
        """A recovery pass ended."""
        self.metrics.count(Count.PASSES, (ended.scope.name.lower(),))
        for result, count in (
            ("resolved", ended.resolved),
            ("failed", ended.failed),
            ("taken_over", ended.taken_over),
        ):
            self.metrics.count(Count.RECOVERED, (result,), count)

    def forced(self, heuristic: Heuristic) -> None:
        """An operator forced a branch whose decision nobody knows: no transaction here ends with it."""
        self.metrics.count(Count.HEURISTICS, (heuristic.name.lower(),))

    def ahead(self, participant: str) -> None:
        """A participant reported that it had applied what the log does not know."""
        self.metrics.count(Count.AHEAD, (participant,))

    def behind(self, participant: str) -> None:
        """A participant turned out to have lost what it had acknowledged."""
        self.metrics.count(Count.BEHIND, (participant,))

    def lock_waited(self, result: str, duration_s: float) -> None:
        """A claim to keys was granted, or given up: timeout, deadlock, full, unavailable, cancelled."""
        self.metrics.histogram(Distribution.LOCK_WAIT, (result,)).observe(duration_s)

    def lock_lost(self, cause: str) -> None:
        """Keys that were held are held no more: lost by the store, unreachable, or broken by an operator."""
        self.metrics.count(Count.LOCKS_LOST, (cause,))

    def workflow_begun(self, kind: str) -> None:
        """A workflow was begun, durably."""
        self.metrics.count(Count.WORKFLOWS_BEGUN, (kind,))

    def workflow_ended(self, kind: str, state: str) -> None:
        """A workflow came to its end: completed, or compensated."""
        self.metrics.count(Count.WORKFLOWS_ENDED, (kind, state))

    def deadlock_broken(self) -> None:
        """Owners waited in a circle, and one of them was told to give way."""
        self.metrics.count(Count.DEADLOCKS)

    def level(self, what: Level, read: Callable[[], float], *labels: str) -> None:
        """Have ``read`` called for this gauge whenever the metrics are scraped."""
        self.metrics.level(what, read, labels)

    def capture(self) -> None:
        """Have everything that this process logs come out here as lines; for the process' own main alone."""
        capture(self._lines, self._level)

    def close(self) -> None:
        """Write what waits to be written."""
        self._lines.flush()

    def _line(self, finished: Finished) -> str:
        """Write the canonical line by hand: only reasons and a client's names can need escaping."""
        outcome = finished.outcome
        committed = outcome.decision is _COMMIT
        if outcome.branches is not self._resources[0]:
            text = ",".join([f'"{branch.participant}"' for branch in outcome.branches])
            self._resources = outcome.branches, text
        line = (
            f'{{"timestamp":"{self._timestamps.at(time.time_ns() // 1_000_000)}","level":"info",'
            f'"message":"Transaction {"committed" if committed else "rolled back"}",'
            f'"transaction_id":"{outcome.xid}","duration_ms":{finished.duration_s * 1000:.3f},'
            f'"resources":[{self._resources[1]}],"operation_count":{finished.operation_count},'
            f'"prepare_ms":{finished.prepare_s * 1000:.3f},"decide_ms":{finished.decide_s * 1000:.3f},'
            f'"apply_ms":{finished.apply_s * 1000:.3f}'
        )
        if finished.request_id:
            line += f',"request_id":{_QUOTED(finished.request_id)}'
        if not committed:
            line += f',"reason":{_QUOTED(outcome.reason)},"detail":{_QUOTED(outcome.message)}'
        if finished.resend_attempts:
            line += f',"resend_attempts":{finished.resend_attempts}'
        if outcome.heuristic is not None:
            line += f',"heuristic":"{outcome.heuristic.name}"'
        return line + "}"
