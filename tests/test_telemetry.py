"""Log lines as the system's description shows them, and numbers that Prometheus reads."""

from __future__ import annotations

import io
import json

from coordinator.log_lines import Timestamps
from coordinator.metrics import SECONDS_BOUNDS, Histogram, Level
from coordinator.protocol.effects import Verb
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import Phase
from coordinator.running import Finished
from coordinator.telemetry import Telemetry
from participant_sdk.ids import Xid
from participant_sdk.xa import PREPARED, Decision, business_no

XID = Xid.make(1_700_000_000_000, 7, 1)
COMMITTED = Outcome(
    XID,
    Decision.COMMIT,
    Phase.COMMITTED,
    branches=(BranchOutcome("bookkeeper", PREPARED, True), BranchOutcome("trading", PREPARED, True)),
)


def finished(outcome: Outcome = COMMITTED, operation_count: int = 3) -> Finished:
    return Finished(outcome, "", operation_count, 0.15, 0.1, 0.03, 0.02, 0)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_committed_transaction_is_one_line_with_the_described_fields() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("info", stream)
    telemetry.finished(finished())
    telemetry.close()
    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "level": "info",
        "message": "Transaction committed",
        "transaction_id": str(XID),
        "duration_ms": 150.0,
        "resources": ["bookkeeper", "trading"],
        "operation_count": 3,
        "prepare_ms": 100.0,
        "decide_ms": 30.0,
        "apply_ms": 20.0,
    }


async def test_a_rollback_says_why_and_escapes_what_a_participant_wrote() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("info", stream)
    no = BranchOutcome("bookkeeper", business_no("INSUFFICIENT_FUNDS", 'only "3"\n'), True)
    outcome = Outcome(XID, Decision.ROLLBACK, Phase.ROLLED_BACK, "INSUFFICIENT_FUNDS", 'only "3"\n', branches=(no,))
    telemetry.finished(finished(outcome, 1))
    telemetry.close()
    (line,) = lines(stream)
    assert (line["message"], line["reason"], line["detail"]) == (
        "Transaction rolled back",
        "INSUFFICIENT_FUNDS",
        'only "3"\n',
    )


async def test_events_and_transactions_keep_their_order() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("info", stream)
    telemetry.finished(finished())
    telemetry.logger.info("Coordinator started", incarnation=7)
    assert [line["message"] for line in lines(stream)] == ["Transaction committed", "Coordinator started"]


async def test_above_info_no_line_is_written_for_a_transaction() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("warning", stream)
    telemetry.finished(finished())
    telemetry.logger.info("Coordinator started")
    telemetry.logger.warning("Participant unreachable", participant="trading")
    telemetry.close()
    assert [line["message"] for line in lines(stream)] == ["Participant unreachable"]


async def test_a_fault_is_written_with_its_traceback_and_counted() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("info", stream)
    telemetry.fault("engine", ZeroDivisionError("by zero"))
    (line,) = lines(stream)
    assert "by zero" in json.dumps(line["exception"])
    assert 'pincex_faults_total{where="engine"} 1.0' in telemetry.metrics.render().decode()


async def test_metrics_have_names_units_and_bounded_labels() -> None:
    telemetry = Telemetry("error", io.StringIO())
    telemetry.finished(finished())
    telemetry.phase(Verb.PREPARE, "trading").observe(0.004)
    telemetry.flushed(17, 0.002)
    telemetry.refused("http", "INVALID_REQUEST")
    telemetry.level(Level.IN_FLIGHT, lambda: 5)
    text = telemetry.metrics.render().decode()
    for expected in (
        'pincex_transactions_total{outcome="committed"} 1.0',
        'pincex_transaction_duration_seconds_bucket{le="0.2",outcome="committed"} 1.0',
        'pincex_transaction_duration_seconds_sum{outcome="committed"} 0.15',
        'pincex_phase_duration_seconds_bucket{le="0.005",participant="trading",phase="prepare"} 1.0',
        'pincex_batch_size_count{participant="",stage="log"} 1.0',
        "pincex_log_flush_duration_seconds_count 1.0",
        'pincex_requests_refused_total{door="http",reason="INVALID_REQUEST"} 1.0',
        "pincex_transactions_in_flight 5.0",
        "process_resident_memory_bytes",
    ):
        assert expected in text
    assert str(XID) not in text


def test_a_timestamp_is_rfc_3339_in_utc() -> None:
    timestamps = Timestamps()
    assert timestamps.at(1_705_314_600_007) == "2024-01-15T10:30:00.007Z"
    assert timestamps.at(1_705_314_600_999) == "2024-01-15T10:30:00.999Z"


def test_values_counted_together_fall_where_they_would_one_by_one() -> None:
    """A value on a bound is within it, and none is lost beyond the last."""
    values = [0.0, 0.001, 0.0011, 0.5, 0.02, 300.0, 300.1, 1e9, 0.5, *SECONDS_BOUNDS]
    together, apart = Histogram(SECONDS_BOUNDS), Histogram(SECONDS_BOUNDS)
    for value in sorted(values):
        apart.observe(value)
    together.observe_all(values)
    together.observe_all([])
    assert together.expose() == apart.expose()
    assert together.total == len(values)
