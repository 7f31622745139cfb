"""One run of the benchmarks: its server, what has been measured in it, and what has failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.benchmarks.figures import Figure, Summary, summarize

# As many as a run of a few minutes writes, of 16 MB each.
WAL_SEGMENTS: Final = 250
# As a server of this size is run: pages are not read and written again and again, nor segments filled.
_SETTINGS: Final[Mapping[str, str]] = {"shared_buffers": "2GB", "min_wal_size": "4GB", "max_wal_size": "8GB"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    ``rounds``: of every part; None for each part's own. ``finished``: how many finished transactions a filled log has.
    """

    parts: tuple[str, ...]
    accounts: int
    rounds: int | None
    seconds: float
    soak_s: float
    finished: int
    output: Path


@dataclass(slots=True)
class Run:
    """What every part is given. Not frozen: figures and failures gather in it.

    ``series``: by process, what it held at each look of a soak, bytes and descriptors.
    """

    plan: Plan
    server: EmbeddedPostgres
    folder: Path
    console: Console
    figures: dict[str, list[Figure]] = field(default_factory=dict[str, list[Figure]])
    failures: list[str] = field(default_factory=list[str])
    series: dict[str, list[list[int]]] = field(default_factory=dict[str, list[list[int]]])
    _numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)
    _databases: list[str] = field(default_factory=list[str])
    _part: str = ""
    _advance: Callable[[str], None] = field(default=lambda _: None)

    def database(self, name: str) -> str:
        """A fresh database, for the part under way; its DSN."""
        made = f"{name}_{self._numbers()}"
        self._databases.append(made)
        return self.server.create_database(made)

    def place(self) -> Path:
        """A fresh folder, for one system's files."""
        folder = self.folder / f"system_{self._numbers()}"
        folder.mkdir()
        return folder

    def rounds(self, own: int) -> range:
        """A part's rounds: as many as the plan wants of every part, else so many."""
        return range(self.plan.rounds or own)

    def record(self, figure: Figure) -> None:
        """Keep a figure of the part under way, and show it."""
        self.figures.setdefault(self._part, []).append(figure)
        self._advance(figure.subject)
        self.console.print(f"{self._part}: {told(figure)}", highlight=False)

    def fail(self, sentences: Sequence[str]) -> None:
        """Keep what is wrong in the part under way."""
        self.failures += [f"{self._part}: {sentence}" for sentence in sentences]

    def summaries(self) -> dict[str, list[Summary]]:
        """The summaries so far, by part."""
        return {part: summarize(figures) for part, figures in self.figures.items()}

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        """Measure one part for the time of the block; shows progress."""
        self._part = name
        done = self.plan.parts.index(name)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(f"{name}: getting ready", total=len(self.plan.parts), completed=done)
            self._advance = lambda what: progress.update(task, description=f"{name}: after {what}")
            yield
        # Or the server would go on cleaning up in them while other parts are measured.
        while self._databases:
            self.server.drop_database(self._databases.pop())


@contextmanager
def server(folder: Path) -> Generator[EmbeddedPostgres]:
    """A PostgreSQL of the run's own, forced commits and all, with WAL segments to use again."""
    started = EmbeddedPostgres(folder / "postgres", settings=_SETTINGS, orphaned=Shutdown.IMMEDIATE)
    try:
        started.start()
        _use_segments(started.dsn())
        yield started
    finally:
        started.stop(Shutdown.IMMEDIATE)


def _use_segments(dsn: str) -> None:
    """Go through WAL segments, and leave them to be used again, as a server does that has been at work for a while.

    A new segment is filled with zeros first, and flushed, while whoever commits waits: 10 to 40 ms for each 16 MB.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(WAL_SEGMENTS):
            connection.execute("select pg_logical_emit_message(false, '', '')")
            connection.execute("select pg_switch_wal()")
        connection.execute("checkpoint")


def told(figure: Figure) -> str:
    """A figure in a line."""
    words = [figure.subject]
    if figure.in_flight:
        words.append(f"{figure.in_flight:,} in flight")
    if figure.per_second:
        words.append(f"{figure.per_second:,.0f}/s")
    if figure.p50_ms:
        words.append(f"p50 {figure.p50_ms:.1f} ms")
    if figure.p99_ms:
        words.append(f"p99 {figure.p99_ms:.1f} ms")
    return ", ".join(words + [f"{name} {number(value)}" for name, value in figure.values.items()])


def number(value: float) -> str:
    """A value as people read it."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.2f}"
