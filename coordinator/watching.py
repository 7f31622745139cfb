"""Who watches transactions move: each watcher has a bounded queue, and one that lags misses the oldest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from coordinator.protocol.phases import FINISHED
from coordinator.requests import TransactionView
from participant_sdk.ids import Xid

QUEUE_MAX: Final = 1_000


class _Watcher:
    """One watcher's queue: of one transaction, or of all where ``xid`` is None."""

    __slots__ = ("queue", "wake", "xid")

    def __init__(self, xid: Xid | None) -> None:
        self.xid = xid
        self.queue: deque[TransactionView] = deque(maxlen=QUEUE_MAX)
        self.wake = asyncio.Event()


class Watchers:
    """All watchers of one engine. ``all`` is empty while there are none, so that nobody draws views in vain."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: list[_Watcher] = []

    def tell(self, view: TransactionView) -> None:
        """Queue a change for everybody who watches its transaction."""
        for watcher in self.all:
            if watcher.xid is None or watcher.xid == view.xid:
                watcher.queue.append(view.without_events())
                watcher.wake.set()

    async def follow(self, first: TransactionView | None) -> AsyncIterator[TransactionView]:
        """Each change: of ``first``'s transaction, until it finishes, or of all, for ever."""
        watcher = _Watcher(first.xid if first else None)
        if first is not None:
            watcher.queue.append(first.without_events())
            watcher.wake.set()
        self.all.append(watcher)
        try:
            while True:
                await watcher.wake.wait()
                watcher.wake.clear()
                while watcher.queue:
                    view = watcher.queue.popleft()
                    yield view
                    if first is not None and view.phase in FINISHED:
                        return
        finally:
            self.all.remove(watcher)
