"""What `pincex demo day` prints: progress meanwhile, then what happened, the faults, the books, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from statistics import median
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from coordinator.demo.day import Day
from coordinator.demo.kills import Kill
from coordinator.demo.misbehaviour import FAULTS, REORGANIZATIONS

BROKEN_SHOWN: Final = 40
COMPANIES: Final = ("bank", "chain")
_SAID: Final = {
    "slow": "done late",
    "fail_before": "an error, not done",
    "twice": "done twice",
    "fail_after": "an error, and done",
    "lost": "done, the answer lost",
    "late": "done, the answer late",
}
_ENDINGS: Final = ("COMMITTED", "ROLLED_BACK", "COMPLETED", "COMPENSATED", "STUCK")


class Display:
    """Progress on the terminal; nothing where there is none. Used as ``with``."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, what: str, done: int, planned: int) -> None:
        """Tell what goes on, and how much of how much is done."""
        self._bars.update(self._task, description=what, completed=done, total=planned)


def show_day(day: Day, *, as_json: bool) -> None:
    """Print a day."""
    if as_json:
        told = asdict(day) | {"holds": not day.broken, "books": [_book_json(day, at) for at in range(len(day.books))]}
        print(json.dumps(told, default=str))  # noqa: T201 - it is what the command is for
        return
    console = Console()
    console.print(_happened(day))
    if day.plan.faults:
        console.print(_misbehaviour(day))
    if day.kills:
        console.print(_kills(day))
    console.print(_books(day))
    for line in _verdict(day):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _book_json(day: Day, at: int) -> dict[str, str]:
    book = day.books[at]
    return {**{name: str(value) for name, value in asdict(book).items()}, "difference": f"{book.difference:f}"}


def _happened(day: Day) -> Table:
    table = Table(title=f"{day.plan.users} users, seed {day.plan.seed}, {day.load_s:.0f} s of trading")
    for column in ("what", "done", "refused", "a second"):
        table.add_column(column, justify="left" if column == "what" else "right")
    kinds = dict.fromkeys(name.rpartition(" ")[0] for name in day.counts if name.rpartition(" ")[2] in _ENDINGS)
    for kind in kinds:
        done = sum(day.counts.get(f"{kind} {word}", 0) for word in ("COMMITTED", "COMPLETED"))
        refused = sum(day.counts.get(f"{kind} {word}", 0) for word in ("ROLLED_BACK", "COMPENSATED", "STUCK"))
        table.add_row(kind, f"{done:,}", f"{refused:,}", f"{done / day.load_s:.1f}")
    for symbol, amount in day.volumes.items():
        table.add_row(f"traded {symbol}", f"{amount.normalize():,f}", "", "")
    table.add_row("sent again, as no outcome was known", f"{day.counts.get('sent again', 0):,}", "", "")
    return table


def _misbehaviour(day: Day) -> Table:
    table = Table(title="Calls that bank and chain got wrong, at least")
    for column in ("how", *COMPANIES):
        table.add_column(column, justify="left" if column == "how" else "right")
    for fault in FAULTS:
        struck = [day.counts.get(f"{company} {fault['kind']}", 0) for company in COMPANIES]
        table.add_row(_SAID[str(fault["kind"])], *(f"{times:,}" for times in struck))
    table.add_row("its last block replaced", "", f"{day.counts.get(REORGANIZATIONS, 0):,}")
    return table


def _kills(day: Day) -> Table:
    table = Table(title="Killed with -9, under load")
    for column in ("process", "times", "first success after: least", "median", "most"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for process in dict.fromkeys(kill.process for kill in day.kills):
        seconds = sorted(kill.recovered_s for kill in _of(day, process))
        table.add_row(
            process, str(len(seconds)), f"{seconds[0]:.2f} s", f"{median(seconds):.2f} s", f"{seconds[-1]:.2f} s"
        )
    return table


def _of(day: Day, process: str) -> Iterator[Kill]:
    return (kill for kill in day.kills if kill.process == process)


def _books(day: Day) -> Table:
    table = Table(title="The books")
    table.add_column("")
    for book in day.books:
        table.add_column(book.currency, justify="right")
    rows: list[tuple[str, list[Decimal]]] = [
        ("came in from outside", [book.came for book in day.books]),
        ("- paid out", [-book.paid for book in day.books]),
        ("- taken by the chain as fees", [-book.chain_fees for book in day.books]),
        ("= held at bank or chain", [book.held for book in day.books]),
        ("users own", [book.users for book in day.books]),
        ("+ the house owns", [book.house for book in day.books]),
        ("+ came in for nobody, not credited", [book.unclaimed for book in day.books]),
        ("- chain fees, which the exchange bears", [-book.chain_fees for book in day.books]),
        ("= must be held", [book.held - book.difference for book in day.books]),
        ("difference", [book.difference for book in day.books]),
    ]
    for name, amounts in rows:
        table.add_row(name, *(f"{amount.normalize() + 0:,f}" for amount in amounts), end_section=name.startswith("="))
    return table


def _verdict(day: Day) -> Iterator[str]:
    yield f"Settled {day.settling_s:.1f} s after the last fault."
    if not day.broken:
        yield from (f"holds: {each}" for each in day.checked)
        yield "EVERYTHING HOLDS"
        return
    yield from (f"broken: {each}" for each in day.broken[:BROKEN_SHOWN])
    if len(day.broken) > BROKEN_SHOWN:
        yield f"… and {len(day.broken) - BROKEN_SHOWN} more"
    yield f"{len(day.broken)} THINGS DO NOT HOLD: the same seed and --data DIR make the day again, and keep its logs"
