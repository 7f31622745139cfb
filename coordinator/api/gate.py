"""What stands behind the doors: nothing while the coordinator starts, an assembly, and no more of it when it stops."""

from __future__ import annotations

from coordinator.api.waves import Waves
from coordinator.assembly import Assembly
from coordinator.engine import Engine
from coordinator.errors import UnavailableError
from coordinator.inquiries import Inquiries
from coordinator.requests import Ended, ExecuteCall


class Gate:
    """Opens the doors when there is something behind them. Mutable: one for each process.

    ``waves`` is for whoever begins transactions, and sees to when they begin.
    """

    __slots__ = ("_assembly", "_stopping", "waves")

    def __init__(self) -> None:
        self._assembly: Assembly | None = None
        self._stopping = False
        self.waves = Waves()

    def open(self, assembly: Assembly) -> None:
        """Let calls in."""
        self._assembly = assembly

    def close(self) -> None:
        """Let nothing new begin; calls about what has begun still pass."""
        self._stopping = True

    async def execute(self, call: ExecuteCall) -> Ended:
        """Run one transaction, which begins with the next wave. Errors as the engine's, and of ``for_new_work``.

        Cancelled, the caller gives up its own future alone; what has begun goes on (R16).
        """
        self.waves.came(1)
        wave = await self.waves.departure()
        self.waves.begins(wave, 1)
        try:
            return await self.for_new_work().execute(call)
        finally:
            self.waves.ended(wave)

    def for_new_work(self) -> Engine:
        """The engine, for a transaction to begin. UnavailableError while starting or stopping."""
        return self.assembly_for_new_work().engine

    def assembly_for_new_work(self) -> Assembly:
        """Everything behind the doors, for something to begin. UnavailableError while starting or stopping."""
        if self._stopping:
            raise UnavailableError("this coordinator is stopping and takes nothing new; ask another")
        return self.assembly

    @property
    def assembly(self) -> Assembly:
        """Everything behind the doors. UnavailableError while starting."""
        if self._assembly is None:
            raise UnavailableError(
                "this coordinator is starting: its decision log is not open yet; ask again, or another"
            )
        return self._assembly

    @property
    def engine(self) -> Engine:
        """The engine, for what has begun. UnavailableError while starting."""
        return self.assembly.engine

    @property
    def inquiries(self) -> Inquiries:
        """Where outcomes are looked up. UnavailableError while starting."""
        return self.assembly.inquiries
