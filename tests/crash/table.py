"""The table of what came of the kills."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from tests.crash.runs import Run


def table_of(runs: Sequence[Run]) -> Table:
    """One row for each point: runs, transactions, lost, and the seconds until work went on and all was settled."""
    table = Table("point", "runs", "transactions", "lost", "broken", "late", "first commit", "settled", title="kill -9")
    for column in table.columns[1:]:
        column.justify = "right"
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.point, []).append(run)
    for name, group in [*groups.items(), ("all", list(runs))]:
        hit = sum(run.was_hit for run in group)
        table.add_row(
            name,
            f"{hit}" if hit == len(group) else f"[red]{hit} of {len(group)}[/]",
            f"{sum(run.intents for run in group):,}",
            _count(sum(len(run.lost) for run in group)),
            _count(sum(len(run.broken) for run in group)),
            _count(sum(len(run.late) for run in group)),
            spread([run.first_commit_s for run in group]),
            spread([run.settled_s for run in group]),
            end_section=name == list(groups)[-1],
        )
    return table


def spread(seconds: Sequence[float | None]) -> str:
    """p50, p95 and max."""
    known = sorted(each for each in seconds if each is not None)
    if not known:
        return ""
    p95 = known[min(len(known) - 1, round(0.95 * (len(known) - 1)))]
    return f"{statistics.median(known):.1f} / {p95:.1f} / {known[-1]:.1f}"


def _count(number: int) -> str:
    return f"[red]{number}[/]" if number else "0"
