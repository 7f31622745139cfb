"""JSON log lines on standard error: structlog's for events, a prebuilt one for each transaction.

A finished transaction is one line, thousands of times a second, so it is built as text and
written with its neighbours: ``LineWriter`` gathers lines and writes them together, at the
latest ``FLUSH_AFTER_S`` later. A process that is killed loses that much of its log, never a
transaction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, TextIO

import structlog

from coordinator.bursts import Bursts, Event

FLUSH_AFTER_S: Final = 0.05
BUFFER_MAX_CHARS: Final = 64 * 1024

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class LineWriter:
    """Writes lines in order, many at once. For the event loop's thread alone."""

    __slots__ = ("_lines", "_size_chars", "_stream", "_timer")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._size_chars = 0
        self._timer: asyncio.TimerHandle | None = None

    def later(self, line: str) -> None:
        """Write the line soon: with its neighbours, in order."""
        self._lines.append(line)
        self._size_chars += len(line)
        if self._size_chars >= BUFFER_MAX_CHARS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def now(self, line: str) -> None:
        """Write the line, after all that waited, before this returns."""
        self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Write all that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        self._lines.append("")
        text = "\n".join(self._lines)
        self._lines = []
        self._size_chars = 0
        self._stream.write(text)
        self._stream.flush()


class _LineLogger:
    """Where structlog's events end: as lines, in order with the others."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def _write(self, line: str) -> None:
        self._writer.now(line)

    debug = info = warning = error = critical = exception = msg = _write


class Timestamps:
    """Wall-clock time as RFC 3339 with milliseconds, UTC; the last one, and its second, are kept from call to call."""

    __slots__ = ("_second", "_second_text", "_text", "_unix_ms")

    def __init__(self) -> None:
        self._second: int = -1
        self._second_text = ""
        self._unix_ms = -1
        self._text = ""

    def at(self, unix_ms: int) -> str:
        """Write a time, such as ``2024-01-15T10:30:00.000Z``."""
        if unix_ms != self._unix_ms:
            second, millisecond = divmod(unix_ms, 1000)
            if second != self._second:
                self._second = second
                self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._unix_ms, self._text = unix_ms, f"{self._second_text}.{millisecond:03d}Z"
        return self._text


def make_logger(writer: LineWriter, level: str) -> structlog.typing.FilteringBoundLogger:
    """A logger of its own for this writer, from this level up: timestamp, level, message, then fields."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        _LineLogger(writer),
        processors=_processors(writer, level),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )
    return logger


def capture(writer: LineWriter, level: str) -> None:
    """Send what modules log, by structlog or by the standard library, to this writer: for the whole process."""
    structlog.configure(
        processors=_processors(writer, level),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _LineLogger(writer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge(make_logger(writer, level))], level=LEVELS[level], force=True)
    # These two tell of every connection and selector; nobody asked.
    for name in ("asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))


class _Bridge(logging.Handler):
    """Hands the standard library's records over: grpc's, uvicorn's and asyncio's errors."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _processors(writer: LineWriter, level: str) -> list[structlog.typing.Processor]:
    timestamps = Timestamps()
    render = structlog.processors.JSONRenderer(default=str)

    def order(_logger: object, name: str, event: Event) -> Event:
        now = timestamps.at(time.time_ns() // 1_000_000)
        # A line that was demoted brings its level.
        return {"timestamp": now, "level": event.pop("level", name), "message": event.pop("event"), **event}

    def sum_up(name: str, event: Event) -> None:
        writer.now(str(render(None, name, order(None, name, event))))

    bursts = Bursts(sum_up, writes_info=LEVELS[level] <= logging.INFO)
    return [bursts, structlog.processors.format_exc_info, order, render]
