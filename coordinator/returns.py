"""What waits before it tries again at a participant, and is woken once that is back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager


class Returns:
    """Those who wait, by participant: what was away comes back long before a pause that has grown is over."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # Dictionaries for their order; each who waits has a place of its own in them.
        self._waiting: dict[str, dict[object, Callable[[], None]]] = {}

    @contextmanager
    def awaited(self, participants: Iterable[str], wake: Callable[[], None]) -> Generator[None]:
        """Have ``wake`` called whenever one of them is back, for the time of the block."""
        names, place = dict.fromkeys(participants), object()
        for name in names:
            self._waiting.setdefault(name, {})[place] = wake
        try:
            yield
        finally:
            for name in names:
                waiting = self._waiting[name]
                del waiting[place]
                if not waiting:
                    del self._waiting[name]

    def back(self, participant: str) -> None:
        """A session with this participant is open, where there was none."""
        for wake in tuple(self._waiting.get(participant, {}).values()):
            wake()
