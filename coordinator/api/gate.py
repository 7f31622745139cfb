"""What stands behind the doors: nothing while the coordinator starts, an assembly, and no more of it when it stops."""

from __future__ import annotations

from coordinator.engine import Engine
from coordinator.errors import UnavailableError
from coordinator.inquiries import Inquiries


class Gate:
    """Opens the doors when there is something behind them. Mutable: one for each process."""

    __slots__ = ("_engine", "_inquiries", "_stopping")

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._inquiries: Inquiries | None = None
        self._stopping = False

    def open(self, engine: Engine, inquiries: Inquiries) -> None:
        """Let calls in."""
        self._engine = engine
        self._inquiries = inquiries

    def close(self) -> None:
        """Let nothing new begin; calls about what has begun still pass."""
        self._stopping = True

    def for_new_work(self) -> Engine:
        """The engine, for a transaction to begin. UnavailableError while starting or stopping."""
        if self._stopping:
            raise UnavailableError("this coordinator is stopping and takes nothing new; ask another")
        return self.engine

    @property
    def engine(self) -> Engine:
        """The engine, for what has begun. UnavailableError while starting."""
        if self._engine is None:
            raise _starting()
        return self._engine

    @property
    def inquiries(self) -> Inquiries:
        """Where outcomes are looked up. UnavailableError while starting."""
        if self._inquiries is None:
            raise _starting()
        return self._inquiries


def _starting() -> UnavailableError:
    return UnavailableError("this coordinator is starting: its decision log is not open yet; ask again, or another")
