"""What a benchmark tells: tables for people, JSON for everything else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import psycopg
from rich.table import Table

from coordinator.config import Performance
from deploy.fastest_python import probe
from sidecars.main import WORKERS_DEFAULT
from tests.benchmarks.figures import Summary
from tests.benchmarks.run import Run, number
from tests.benchmarks.targets import L3, OWN_LEDGER, Judgement, judge

# What a product is measured against, by the column's heading.
LIMITS: Final = {"of L3": L3, "of own": OWN_LEDGER}
# The columns of CPU. Whatever is none of the others is a participant.
PROCESSES: Final = ("driver", "load", "coordinator", "participants", "postgresql")
# More values than this stand in a table of their own.
COLUMNS_MAX: Final = 5
_STYLES: Final = {"met": "green", "missed": "red", "not measured": "dim"}
_SETTINGS: Final = (
    *("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers"),
    *("max_connections", "max_prepared_transactions", "max_wal_size", "min_wal_size", "commit_delay", "jit"),
)
_DISTRIBUTIONS: Final = ("grpcio", "protobuf", "psycopg", "psycopg-binary", "uvloop")


def settings(dsn: str) -> dict[str, str]:
    """The settings and versions that figures depend on."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select name, setting from pg_settings where name = any (%s)", (list(_SETTINGS),))
        postgres = {f"postgresql.{name}": value for name, value in rows.fetchall()}
    # How long this Python takes for a fixed piece of work: builds and machines differ by far more than versions.
    build = probe(sys.executable)
    return {
        "cores": str(os.cpu_count()),
        "machine": platform.platform(),
        "python": platform.python_version(),
        **({"python.probe": f"{build.work_s * 1000:.1f} ms"} if build else {}),
        **{name: importlib.metadata.version(name) for name in _DISTRIBUTIONS},
        "bookkeeper.workers": str(WORKERS_DEFAULT),
        "coordinator.batch_size": str(Performance().batch_size),
        **dict(sorted(postgres.items())),
    }


def ratio(summary: Summary, limit: str, summaries: Sequence[Summary]) -> float | None:
    """A product's rate over that of a limit with as many in flight; None for other subjects."""
    if summary.subject.startswith("L"):
        return None
    limits = [s for s in summaries if s.subject == limit and s.in_flight == summary.in_flight]
    return summary.per_second / limits[0].per_second if limits else None


def by_column(cpu_us: Mapping[str, float]) -> dict[str, float]:
    """CPU by the table's columns: all participants are one."""
    found: dict[str, float] = {}
    for name, used_us in cpu_us.items():
        column = name if name in PROCESSES else "participants"
        found[column] = found.get(column, 0.0) + used_us
    return found


def show(run: Run, environment: Mapping[str, str]) -> None:
    """Print the settings, a table for each part, and the targets."""
    run.console.print(", ".join(f"{name} {value}" for name, value in environment.items()), highlight=False)
    plan = f"{run.plan.accounts:,} accounts in each ledger, {run.plan.seconds:g} s for each measurement"
    run.console.print(plan, highlight=False)
    for part, summaries in run.summaries().items():
        run.console.print(_table(part, summaries))
        for summary in summaries:
            if len(summary.values) > COLUMNS_MAX:
                run.console.print(_values(summary))
    judgements = judge(run.summaries())
    if any(judgement.reached is not None for judgement in judgements):
        run.console.print(_targets(judgements))


def _table(part: str, summaries: Sequence[Summary]) -> Table:
    table = Table(title=f"{part}: medians over {summaries[0].rounds}; CPU in microseconds per transaction")
    columns = [c for c in PROCESSES if any(c in by_column(summary.cpu_us) for summary in summaries)]
    limits = [of for of, limit in LIMITS.items() if any(summary.subject == limit for summary in summaries)]
    values = list(dict.fromkeys(name for summary in summaries for name in summary.values))
    values = values if len(values) <= COLUMNS_MAX else []
    for column in ("what", "in flight", "per second", "range", *limits, "p50 ms", "p99 ms", *values, *columns):
        table.add_column(column, justify="left" if column == "what" else "right", no_wrap=True)
    for summary in summaries:
        cpu_us = by_column(summary.cpu_us)
        ratios = [ratio(summary, LIMITS[of], summaries) for of in limits]
        table.add_row(
            summary.subject,
            f"{summary.in_flight:,}" if summary.in_flight else "",
            f"{summary.per_second:,.0f}" if summary.per_second else "",
            f"{summary.lowest:,.0f} to {summary.highest:,.0f}" if summary.rounds > 1 and summary.per_second else "",
            *("" if of_limit is None else f"{of_limit:.0%}" for of_limit in ratios),
            f"{summary.p50_ms:.1f}" if summary.p50_ms else "",
            f"{summary.p99_ms:.1f}" if summary.p99_ms else "",
            *(number(summary.values[name]) if name in summary.values else "" for name in values),
            *(f"{cpu_us[column]:,.0f}" if column in cpu_us else "" for column in columns),
        )
    return table


def _values(summary: Summary) -> Table:
    """Values that are too many for columns, one under the other."""
    table = Table("value", title=summary.subject)
    table.add_column("median", justify="right")
    for name, value in summary.values.items():
        table.add_row(name, number(value))
    return table


def _targets(judgements: Sequence[Judgement]) -> Table:
    table = Table(title="What is to be reached, and what this run reached")
    for column in ("target", "bound", "reached", "ratio", ""):
        table.add_column(column, justify="right" if column in {"bound", "reached", "ratio"} else "left", no_wrap=True)
    for judgement in judgements:
        target, verdict = judgement.target, judgement.verdict.value
        table.add_row(
            target.what,
            f"{'≤' if target.at_most else '≥'} {target.bound:,g} {target.unit}",
            "" if judgement.reached is None else f"{judgement.reached:,.2f} {target.unit}",
            "" if judgement.ratio is None else f"{judgement.ratio:.2f}",
            verdict,
            style=_STYLES[verdict],
        )
    return table


def write(run: Run, environment: Mapping[str, str]) -> None:
    """Write everything as JSON, where the plan says."""
    path = run.plan.output
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = run.summaries()
    document = {
        "settings": dict(environment),
        "plan": {**asdict(run.plan), "output": str(path)},
        "parts": {
            part: {
                "summaries": [
                    {**asdict(s), "ratios": {of: ratio(s, limit, summaries) for of, limit in LIMITS.items()}}
                    for s in summaries
                ],
                "rounds": [asdict(figure) for figure in run.figures[part]],
            }
            for part, summaries in parts.items()
        },
        "targets": [
            {
                "target": judgement.target.what,
                "bound": judgement.target.bound,
                "unit": judgement.target.unit,
                "at_most": judgement.target.at_most,
                "reached": judgement.reached,
                "ratio": judgement.ratio,
                "verdict": judgement.verdict.value,
            }
            for judgement in judge(parts)
        ],
        "soak": run.series,
        "failures": run.failures,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
