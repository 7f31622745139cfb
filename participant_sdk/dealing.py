"""How a participant's calls are dealt into rounds, so that one xid is never in two rounds at once.

``ByXid`` gives each xid a worker, whose rounds carry whatever came for it: one local transaction, one flush.
``BySide`` is for a participant whose prepares may wait for rows that another branch's end releases. There that end
must never wait behind the prepare, and nor must the vote that comes before the end, or only a time-out would part
them: each Prepare is a round of its own, ends have others, and calls of one xid take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from participant_sdk.batching import QUEUE_BOUND_DEFAULT, Batcher, QueueFullError
from participant_sdk.ids import Xid

# How many waves may be under way, and how long a wave waits for those of it that take longer.
WAVES: Final = 3
WAVE_S: Final = 0.05


class Call(Protocol):
    """What is dealt."""

    @property
    def xid(self) -> Xid:
        """Whose turn it is."""
        ...

    @property
    def is_end(self) -> bool:
        """Whether it ends its branch: a Commit, or a Rollback."""
        ...


Dealt = TypeVar("Dealt", bound=Call)
Given_contra = TypeVar("Given_contra", bound=Call, contravariant=True)


class Dealing(Protocol[Given_contra]):
    """A way of dealing. ``run`` must run for anything to be served."""

    @property
    def queued(self) -> int:
        """How many calls wait."""
        ...

    def put(self, call: Given_contra, /) -> None:
        """Queue a call for a round. QueueFullError at the bound."""
        ...

    async def run(self) -> None:
        """Do rounds until cancelled."""
        ...


class ByXid(Generic[Dealt]):
    """``count`` workers, each with its own queue and one round at a time."""

    __slots__ = ("_queues",)

    def __init__(self, serve: Callable[[list[Dealt]], Awaitable[None]], *, count: int, cap: int) -> None:
        self._queues = [Batcher[Dealt](serve, cap=cap) for _ in range(count)]

    @property
    def queued(self) -> int:
        """How many calls wait, of all workers."""
        return sum(map(len, self._queues))

    def put(self, call: Dealt) -> None:
        """Queue a call with its xid's worker."""
        # The last byte is of the sequence, so it deals evenly, and the same in every run.
        self._queues[call.xid[-1] % len(self._queues)].put(call)

    async def run(self) -> None:
        """Do rounds until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(queue.run())


class BySide(Generic[Dealt]):
    """Prepares in waves, ``prepares_at_once`` in all ``WAVES`` of them; ends in up to ``count`` rounds at once.

    A wave is all that came meanwhile, each by itself, and their votes leave together, for a frame costs more than
    a vote. One that takes longer than ``WAVE_S``, because it waits for another branch's end, is left behind by its
    wave, and counts no more against ``prepares_at_once``.
    """

    __slots__ = ("_count", "_ends", "_held", "_prepare", "_prepares", "_preparing", "_serve", "_turns")

    def __init__(
        self,
        prepare: Callable[[Dealt], Coroutine[None, None, Callable[[], None]]],
        serve: Callable[[list[Dealt]], Awaitable[None]],
        *,
        count: int,
        cap: int,
        prepares_at_once: int,
    ) -> None:
        """``prepare`` serves one Prepare, and returns what sends its vote; ``serve`` serves a round of ends."""
        self._prepare = prepare
        self._serve = serve
        self._count = count
        self._ends = Batcher[Dealt](self._end, cap=cap)
        self._prepares = Batcher[Dealt](self._do_wave, cap=max(1, prepares_at_once // WAVES))
        # The xids that are queued or under way, each with its calls that wait for their turn.
        self._turns: dict[Xid, deque[Dealt]] = {}
        self._held = 0
        # The Prepares under way, in order of their beginnings; ``run`` ends them as it ends.
        self._preparing: dict[asyncio.Task[Callable[[], None]], Dealt] = {}

    @property
    def queued(self) -> int:
        """How many calls wait, for their round or for their turn."""
        return len(self._prepares) + len(self._ends) + self._held

    def put(self, call: Dealt) -> None:
        """Queue a call, or let it wait until the calls of its xid before it were served."""
        # What is under way counts too: a Prepare that its wave left behind may wait for long.
        if len(self._turns) + self._held >= QUEUE_BOUND_DEFAULT:
            raise QueueFullError(f"{QUEUE_BOUND_DEFAULT} calls are not answered yet, the most allowed")
        waiting = self._turns.get(call.xid)
        if waiting is not None:
            waiting.append(call)
            self._held += 1
            return
        self._turns[call.xid] = deque()
        self._queue(call)

    async def run(self) -> None:
        """Do rounds until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._count):
                    group.create_task(self._ends.run())
                for _ in range(WAVES):
                    group.create_task(self._prepares.run())
        finally:
            for task in self._preparing:
                task.cancel()
            await asyncio.gather(*self._preparing, return_exceptions=True)

    def _queue(self, call: Dealt) -> None:
        (self._ends if call.is_end else self._prepares).put(call)

    async def _do_wave(self, calls: list[Dealt]) -> None:
        wave = {asyncio.create_task(self._prepare(call)): call for call in calls}
        self._preparing.update(wave)
        done, late = await asyncio.wait(wave, timeout=WAVE_S)
        for task in done:
            self._voted(wave[task], task)
        for task in late:
            task.add_done_callback(partial(self._voted, wave[task]))

    def _voted(self, call: Dealt, task: asyncio.Task[Callable[[], None]]) -> None:
        del self._preparing[task]
        if not task.cancelled():
            send = task.result()
            send()
            self._end_turn(call)

    async def _end(self, calls: list[Dealt]) -> None:
        await self._serve(calls)
        for call in calls:
            self._end_turn(call)

    def _end_turn(self, call: Dealt) -> None:
        waiting = self._turns[call.xid]
        if waiting:
            self._held -= 1
            # There is room: it was counted against the bound already.
            self._queue(waiting.popleft())
        else:
            del self._turns[call.xid]
