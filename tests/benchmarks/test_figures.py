"""Rounds become one figure; ledgers that disagree are told."""

from __future__ import annotations

from decimal import Decimal

from tests.benchmarks.figures import Figure, percentile_ms, summarize
from tests.benchmarks.ledgers import LedgerState, disagreements
from tests.benchmarks.report import LIMITS, ratio


def test_a_summary_is_the_median_with_the_range() -> None:
    figures = [Figure("x", 1, rate, p50_ms=rate / 10, cpu_us={"it": rate}) for rate in (30.0, 10.0, 20.0)]
    (summary,) = summarize(figures)
    assert (summary.per_second, summary.lowest, summary.highest) == (20.0, 10.0, 30.0)
    assert summary.p50_ms == 2.0
    assert summary.cpu_us == {"it": 20.0}


def test_a_product_is_measured_against_the_limit_with_as_many_in_flight() -> None:
    limit = LIMITS["of L3"]
    summaries = summarize([Figure(limit, 1, 100.0), Figure(limit, 64, 1000.0), Figure("product, stream", 64, 500.0)])
    assert [ratio(summary, limit, summaries) for summary in summaries] == [None, None, 0.5]


def test_percentiles_are_of_the_sorted_durations() -> None:
    assert percentile_ms([0.003, 0.001, 0.002], 50) == 2.0
    assert percentile_ms([], 99) == 0.0


def test_ledgers_log_and_clients_that_agree_are_sound() -> None:
    before = [LedgerState(Decimal(100), 1, 0)] * 2
    after = [LedgerState(Decimal(97), 4, 0), LedgerState(Decimal(103), 4, 0)]
    assert disagreements(before, after, told=3, logged=3) == []


def test_lost_money_lost_commits_and_doubt_are_told() -> None:
    before = [LedgerState(Decimal(100), 1, 0)] * 2
    after = [LedgerState(Decimal(97), 4, 1), LedgerState(Decimal(102), 3, 0)]
    found = disagreements(before, after, told=3, logged=3)
    assert len(found) == 3
    assert "not conserved" in found[0]
    assert "disagree" in found[1]
    assert "in doubt" in found[2]
