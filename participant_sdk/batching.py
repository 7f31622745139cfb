"""Natural batching: take all that queued while the last round was in flight; do one round.

Every stage of the system is one of these: a participant's worker, the decision log, a client's stream of replies.
There are no timers: an item that finds the stage idle leaves at once, and under load the batches grow by
themselves, up to the cap. The queue is bounded; a full one is back-pressure. The coordinator's link has queues of its
own kind (``outbox``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Final, Generic, TypeVar

BATCH_CAP_DEFAULT: Final = 512
QUEUE_BOUND_DEFAULT: Final = 100_000

Item = TypeVar("Item")


class QueueFullError(Exception):
    """The stage's queue holds all it may. The caller says "later", and nothing was queued."""


class Batcher(Generic[Item]):
    """A queue in front of a round.

    ``round_`` gets 1 to ``cap`` items in order of arrival; the next round starts when it
    returns. An exception from it ends ``run``: rounds answer their own failures.
    """

    __slots__ = ("_bound", "_cap", "_queue", "_round", "_wake")

    def __init__(
        self,
        round_: Callable[[list[Item]], Awaitable[None]],
        *,
        cap: int = BATCH_CAP_DEFAULT,
        bound: int = QUEUE_BOUND_DEFAULT,
    ) -> None:
        if not 1 <= cap <= bound:
            raise ValueError(f"a batch's cap is from 1 to the queue's bound {bound}, not {cap}")
        self._round = round_
        self._cap = cap
        self._bound = bound
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, item: Item) -> None:
        """Queue one item for the next round. QueueFullError at the bound."""
        if not self._queue:
            self._wake.set()
        elif len(self._queue) >= self._bound:
            raise QueueFullError(f"{self._bound} items are queued, the most allowed")
        self._queue.append(item)

    def discard(self, item: Item) -> None:
        """Take back one item, unless it has left the queue. Looks through the queue: not for every item."""
        with suppress(ValueError):
            self._queue.remove(item)

    def drain(self) -> list[Item]:
        """Take back all that is queued and in no round yet."""
        items = list(self._queue)
        self._queue.clear()
        return items

    async def run(self) -> None:
        """Do rounds until cancelled. A cancelled round's items are the round's to account for."""
        while True:
            while self._queue:
                batch = self._take()
                await self._round(batch)
            # Set by the first item in the queue alone.
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> list[Item]:
        if len(self._queue) <= self._cap:
            return self.drain()
        batch = list(islice(self._queue, self._cap))
        for _ in batch:
            self._queue.popleft()
        return batch
