"""Rounds become one figure; ledgers that disagree are told; targets and the guard judge what was measured."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.benchmarks.__main__ import read_plan
from tests.benchmarks.figures import Figure, percentile_ms, summarize
from tests.benchmarks.flames import REST, STAGES, by_stage
from tests.benchmarks.guard import fallen
from tests.benchmarks.ledgers import LedgerState, LogState, disagreements
from tests.benchmarks.parts import PARTS
from tests.benchmarks.processes import ROOT
from tests.benchmarks.report import LIMITS, by_column, ratio
from tests.benchmarks.run import told
from tests.benchmarks.soak import Sample, values
from tests.benchmarks.targets import (
    APPLIED,
    EMPTY_LOG,
    FILLED,
    FILLED_LOG,
    L2,
    OWN_LEDGER,
    SPREAD,
    TARGETS,
    XA,
    Measured,
    Verdict,
    judge,
)

NAMES = ("payer", "payee")
BEFORE = [LedgerState(Decimal(100), 1, 0)] * 2


def verdict(measured: Measured, what: str) -> tuple[Verdict, float | None]:
    (found,) = [each for each in judge(measured) if each.target.what == what]
    return found.verdict, None if found.ratio is None else round(found.ratio, 3)


def test_a_summary_is_the_median_with_the_range() -> None:
    figures = [
        Figure("x", 1, rate, p50_ms=rate / 10, cpu_us={"it": rate}, values={"MiB": -rate})
        for rate in (30.0, 10.0, 20.0)
    ]
    (summary,) = summarize(figures)
    assert (summary.per_second, summary.lowest, summary.highest) == (20.0, 10.0, 30.0)
    assert summary.p50_ms == 2.0
    assert summary.cpu_us == {"it": 20.0}
    assert summary.values == {"MiB": -20.0}


def test_rounds_whose_latency_was_not_measured_do_not_count() -> None:
    """A late load generator's are shown as nothing, and would pull a median down."""
    (summary,) = summarize([Figure("x", 0, 1.0, p99_ms=p99_ms) for p99_ms in (0.0, 0.0, 8.0)])
    assert summary.p99_ms == 8.0


def test_a_product_is_measured_against_the_limit_with_as_many_in_flight() -> None:
    limit = LIMITS["of L3"]
    summaries = summarize([Figure(limit, 1, 100.0), Figure(limit, 64, 1000.0), Figure(APPLIED, 64, 500.0)])
    assert [ratio(summary, limit, summaries) for summary in summaries] == [None, None, 0.5]


def test_percentiles_are_of_the_sorted_durations() -> None:
    assert percentile_ms([0.003, 0.001, 0.002], 50) == 2.0
    assert percentile_ms([], 99) == 0.0


def test_participants_share_a_column() -> None:
    found = by_column({"payer": 1.0, "payee": 2.0, "coordinator": 4.0})
    assert found == {"participants": 3.0, "coordinator": 4.0}


def test_a_line_tells_what_there_is() -> None:
    assert told(Figure("x", 0, 0.0, values={"s": 1.0})) == "x, s 1.00"
    assert told(Figure("x", 8, 1234.0, 1.0, 2.0)) == "x, 8 in flight, 1,234/s, p50 1.0 ms, p99 2.0 ms"


def test_ledgers_log_and_clients_that_agree_are_sound() -> None:
    after = [LedgerState(Decimal(97), 4, 0), LedgerState(Decimal(103), 4, 0)]
    assert disagreements(NAMES, BEFORE, after, 3, LogState(3, {"payer": 3, "payee": 3})) == []


def test_lost_money_lost_commits_and_doubt_are_told() -> None:
    after = [LedgerState(Decimal(97), 4, 1), LedgerState(Decimal(102), 3, 0)]
    found = disagreements(NAMES, BEFORE, after, 4, LogState(3, {"payer": 3, "payee": 3}))
    assert len(found) == 4
    assert "not conserved" in found[0]
    assert "told of 4" in found[1]
    assert "payee committed 2" in found[2]
    assert "in doubt" in found[3]


def test_an_open_system_may_gain_money() -> None:
    after = [LedgerState(Decimal(100), 1, 0), LedgerState(Decimal(105), 1, 0)]
    assert disagreements(NAMES, BEFORE, after, 0, LogState(0, {}), closed=False) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert {judgement.verdict for judgement in judge({})} == {Verdict.NOT_MEASURED}
    assert len(judge({})) == len(TARGETS)


def test_a_rate_is_to_be_reached_and_a_latency_to_be_kept() -> None:
    measured = {
        "transfer": summarize(
            [
                Figure(OWN_LEDGER, 256, 6_000),
                Figure(OWN_LEDGER, 512, 8_000),
                Figure(APPLIED, 512, 6_000, p50_ms=50, p99_ms=150),
            ]
        )
    }
    assert verdict(measured, "512 in flight: rate") == (Verdict.MET, 1.2)
    assert verdict(measured, "512 in flight: p99") == (Verdict.MISSED, 1.25)
    assert verdict(measured, "512 in flight: of own ledger, one lane") == (Verdict.MET, 2)
    assert verdict(measured, "512 in flight: of own ledger, two lanes") == (Verdict.MET, 1.5)
    assert verdict(measured, "64 in flight: rate") == (Verdict.NOT_MEASURED, None)


def test_xa_is_judged_at_the_best_concurrency_of_both() -> None:
    figures = [Figure(L2, 16, 900), Figure(L2, 32, 1_000), Figure(XA, 16, 300), Figure(XA, 64, 600)]
    assert verdict({"xa": summarize(figures)}, "XA: of L2, each at its best") == (Verdict.MISSED, 0.857)


def test_cpu_of_many_participants_is_compared_per_branch() -> None:
    figures = [Figure(SPREAD.format(many), 256, 1_000, cpu_us={"coordinator": 50.0 * many - 20}) for many in (2, 8)]
    measured = {"participants": summarize(figures)}
    assert verdict(measured, "8 participants against 2: CPU per branch") == (Verdict.MISSED, 1.188)


@pytest.mark.parametrize(
    ("finished", "expected"), [(10_000_000, (Verdict.MISSED, 0.889)), (5, (Verdict.NOT_MEASURED, None))]
)
def test_the_worst_figure_of_a_filled_log_is_judged(finished: int, expected: tuple[Verdict, float | None]) -> None:
    """Latencies too; and only a log that is as full as the target says."""
    figures = [
        Figure(EMPTY_LOG, 64, 1_000, p99_ms=20),
        Figure(FILLED_LOG, 64, 1_000, p99_ms=25, values={FILLED: float(finished)}),
    ]
    assert verdict({"filled": summarize(figures)}, "10 million finished in the log: worst ratio") == expected


def test_the_guard_wants_a_ratio_and_not_a_rate() -> None:
    for speed in (1.0, 100.0):
        figures = [Figure(OWN_LEDGER, 64, 100 * speed), Figure(APPLIED, 64, 30 * speed)]
        assert fallen(summarize(figures), {64: 0.25}) == []
        (sentence,) = fallen(summarize(figures), {64: 0.35})
        assert "0.30 of the own ledger" in sentence


def test_the_guard_fails_on_what_was_not_measured() -> None:
    assert fallen([], {64: 0.2}) == ["64 in flight was not measured"]


def test_a_soak_compares_its_second_fifth_with_its_last() -> None:
    """The first one warms up. PostgreSQL's growth is told, not judged."""
    flat = [Sample(1_000, 10)] * 10
    growing = [Sample(1_000 + 100 * at, 10) for at in range(10)]
    found = values({"coordinator": flat, "postgresql": growing})
    assert found["growth"] == 0.0
    assert found["postgresql growth"] == pytest.approx(600 / 1_250)
    assert values({"coordinator": growing})["growth"] == pytest.approx(600 / 1_250)


def test_parts_are_chosen_by_name() -> None:
    assert read_plan(["--parts", "xa,grpc"]).parts == ("xa", "grpc")
    assert read_plan(["--guard"]).parts == ("guard",)
    assert read_plan([]).parts == tuple(name for name, part in PARTS.items() if not part.is_long)
    with pytest.raises(SystemExit):
        read_plan(["--parts", "none"])


def test_a_sample_belongs_to_the_innermost_stage_of_its_stack() -> None:
    begun = "run (asyncio/runners.py:118);Engine.submit (coordinator/engine.py:101)"
    within = "Appends.run (coordinator/log/appends.py:9);Engine.recorded (coordinator/engine.py:7);step (x.py:1)"
    waiting = "Thread._bootstrap (threading.py:1);Appends.run (coordinator/log/appends.py:9)"
    lines = [
        f"{begun} 3",
        f"{within} 4",
        f"{begun};deeper (y.py:2) 2",
        f"{waiting} 50",
        "run (asyncio/runners.py:118) 1",
    ]
    assert by_stage(lines) == {"beginning transactions": 5, "decisions on their way": 4, REST: 1}


def test_every_stage_is_a_function_that_is_there() -> None:
    """One that was renamed would count for another stage, without a word."""
    for frame in STAGES:
        function, _, path = frame.partition(" (")
        *owner, name = function.split(".")
        source = (ROOT / path).read_text()
        assert f"def {name}(" in source, frame
        assert not owner or f"class {owner[0]}" in source, frame
