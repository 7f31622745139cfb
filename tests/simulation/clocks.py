"""The clocks of simulated processes: virtual time, with each process's own error."""

from __future__ import annotations

from typing import Final

from tests.simulation.loop import SimulatedLoop

# Where every run begins, in Unix seconds; any moment would do.
EPOCH_UNIX_S: Final = 1_800_000_000


class SimulatedClock:
    """A process's two clocks. ``skew_ms`` is how far its wall clock is from the true time."""

    def __init__(self, loop: SimulatedLoop, *, skew_ms: int = 0, offset_s: float = 0.0) -> None:
        self._loop = loop
        self._skew_ms = skew_ms
        self._offset_s = offset_s

    def jump(self, by_ms: int) -> None:
        """Set the wall clock forward or back."""
        self._skew_ms += by_ms

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment, other for each process."""
        return self._loop.time() + self._offset_s

    def unix_ms(self) -> int:
        """What the process believes that the time is."""
        return EPOCH_UNIX_S * 1000 + int((self._loop.time() + self._loop.slept_s) * 1000) + self._skew_ms
