"""What a benchmark tells: a table for people, JSON for everything else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, Summary

# What a product is measured against, by the column's heading.
LIMITS: Final = {"of L3": "L3 reservation", "of own": "L3 own ledger"}
_SETTINGS: Final = (
    *("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers"),
    *("max_connections", "max_prepared_transactions", "max_wal_size", "commit_delay", "jit"),
)
_DISTRIBUTIONS: Final = ("grpcio", "protobuf", "psycopg", "psycopg-binary", "uvloop")


def settings(dsn: str) -> dict[str, str]:
    """The settings and versions that figures depend on."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select name, setting from pg_settings where name = any (%s)", (list(_SETTINGS),))
        postgres = {f"postgresql.{name}": value for name, value in rows.fetchall()}
    return {
        "cores": str(os.cpu_count()),
        "machine": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _DISTRIBUTIONS},
        **dict(sorted(postgres.items())),
    }


def ratio(summary: Summary, limit: str, summaries: Sequence[Summary]) -> float | None:
    """A product's rate over that of a limit with as many in flight; None for other subjects."""
    if not summary.subject.startswith("product"):
        return None
    limits = [s for s in summaries if s.subject == limit and s.in_flight == summary.in_flight]
    return summary.per_second / limits[0].per_second if limits else None


def show(summaries: Sequence[Summary], console: Console) -> None:
    """Print the table."""
    table = Table(title="Medians over rounds; last, the CPU of each process in microseconds per transaction")
    processes = list(dict.fromkeys(process for summary in summaries for process in summary.cpu_us))
    for column in ("what", "in flight", "per second", "range", *LIMITS, "p50 ms", "p99 ms", *processes):
        table.add_column(column, justify="left" if column == "what" else "right", no_wrap=True)
    for summary in summaries:
        ratios = [ratio(summary, limit, summaries) for limit in LIMITS.values()]
        table.add_row(
            summary.subject,
            str(summary.in_flight),
            f"{summary.per_second:,.0f}",
            f"{summary.lowest:,.0f} to {summary.highest:,.0f}" if summary.rounds > 1 else "",
            *("" if of_limit is None else f"{of_limit:.0%}" for of_limit in ratios),
            f"{summary.p50_ms:.1f}",
            f"{summary.p99_ms:.1f}" if summary.p99_ms else "",
            *(f"{summary.cpu_us[process]:,.0f}" if process in summary.cpu_us else "" for process in processes),
        )
    console.print(table)


def write(
    path: Path,
    figures: Sequence[Figure],
    summaries: Sequence[Summary],
    environment: dict[str, str],
    failures: Sequence[str],
) -> None:
    """Write everything as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "settings": environment,
        "summaries": [
            {**asdict(s), "ratios": {of: ratio(s, limit, summaries) for of, limit in LIMITS.items()}} for s in summaries
        ],
        "rounds": [asdict(figure) for figure in figures],
        "failures": list(failures),
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
