"""What the command load prints: progress on the terminal, a table, or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from participant_sdk.load import OpenReport, Order, Report
from participant_sdk.load.tally import Progress

LATENCIES: Final = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
_NAMES: Final = ("p50", "p90", "p99", "p99.9", "max")


@dataclass(frozen=True, slots=True)
class Ended:
    """A load that has ended: its report, what was checked, and what does not hold."""

    report: Report
    checked: tuple[str, ...]
    violations: tuple[str, ...]


class Display:
    """Progress on the terminal, below what is printed; nothing where there is no terminal. Used as ``with``."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", total=None, told="")
        self._last = (0.0, 0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, what: str, total: float | None = None) -> None:
        """Go over to the next thing."""
        self._bars.reset(self._task, total=total, description=what, told="")

    def advance(self, by: float) -> None:
        """So much more is done."""
        self._bars.advance(self._task, by)

    def tell(self, progress: Progress) -> None:
        """Show a running load."""
        ended = progress.committed + progress.rolled_back + progress.unknown
        last_s, last_ended = self._last
        per_second = (ended - last_ended) / max(progress.elapsed_s - last_s, 0.001)
        self._last = (progress.elapsed_s, ended)
        told = f"{per_second:,.0f}/s  p50 {progress.p50_ms:.1f} ms  p99 {progress.p99_ms:.1f} ms"
        if not progress.p99_ms:
            told = f"{per_second:,.0f}/s  warming up"
        told += f"\ncommitted {progress.committed:,}  rolled back {progress.rolled_back:,}"
        told += f"  unknown {progress.unknown:,}"
        if progress.not_offered:
            told += f"  not offered {progress.not_offered:,}"
        self._bars.update(self._task, completed=progress.elapsed_s, told=told)


def show_load(order: Order, ended: Ended, *, as_json: bool) -> None:
    """Print how a load ended."""
    if as_json:
        typer.echo(json.dumps(_members(order, ended)))
        return
    console = Console()
    console.print(_figures(ended.report))
    console.print(_endings(ended.report))
    for checked in ended.checked:
        console.print(f"[green]holds[/green]: {checked}", highlight=False)
    for violation in ended.violations:
        console.print("[bold red]does not hold[/bold red]: ", end="")
        console.print(violation, markup=False, highlight=False)


def _figures(report: Report) -> Table:
    told = asdict(report)
    table = Table("", "", show_header=False)
    table.add_row("transactions a second", f"{report.per_second:,.1f}")
    if isinstance(report, OpenReport):
        table.add_row("asked for", f"{report.asked_per_second:,.1f}")
        table.add_row("offered", f"{report.offered_per_second:,.1f}")
        table.add_row("the generator's own lag, p99", f"{report.lag_p99_ms:.2f} ms")
    if isinstance(report, OpenReport) and not report.trustworthy:
        table.add_row("[bold red]latencies[/bold red]", f"[bold red]not known[/bold red]: {report.distrust}")
    else:
        for name, member in zip(_NAMES, LATENCIES, strict=True):
            table.add_row(f"latency, {name}", f"{told[member]:,.2f} ms")
    table.add_row("measured for", f"{report.seconds:,.1f} s")
    table.add_row("generator's CPU for one", f"{report.cpu_us:,.0f} µs")
    return table


def _endings(report: Report) -> Table:
    table = Table("ended", "transactions", title="from beginning to end, with the warm-up")
    table.add_row("committed", f"{report.committed:,}")
    if report.not_applied:
        table.add_row("of these not yet applied everywhere when told", f"{report.not_applied:,}")
    for reason, count in sorted(report.rolled_back.items()):
        table.add_row(f"rolled back: {reason}", f"{count:,}")
    if report.unknown:
        table.add_row("[red]outcome unknown[/red]", f"{report.unknown:,}")
    if isinstance(report, OpenReport) and report.not_offered:
        table.add_row("[red]not offered[/red]", f"{report.not_offered:,}")
    return table


def _members(order: Order, ended: Ended) -> dict[str, Any]:  # JSON has no other type.
    """The report as JSON. Latencies that are not true are null."""
    report = asdict(ended.report)
    if isinstance(ended.report, OpenReport) and not ended.report.trustworthy:
        report |= dict.fromkeys(LATENCIES)
    return {
        "workload": order.workload,
        "participants": list(order.participants),
        "loop": "open" if order.rate_per_s else "closed",
        **report,
        "checked": list(ended.checked),
        "violations": list(ended.violations),
    }
