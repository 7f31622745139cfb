"""What waits to leave on a link: at most one entry for each branch and verb, in order of arrival.

Prepares wait until the participant has answered something since the last frame left. A participant that works on one
batch at a time would only queue them itself, and a frame costs the same for one branch as for hundreds: sent as they
come, they take all of a machine's time at a tenth of what it can do. Nobody's end waits: a Commit or a Rollback leaves
at once and takes along what is there, since it may free what a Prepare waits for at the participant. And ``ENOUGH``
of them wait no longer: nothing is gained by more, and the participant would be without work meanwhile.

Nor do Prepares wait for long where an answer is late, because all that was sent waits for rows: twice the usual time to
the first answer to a frame. Where that is usually more than ``USUAL_MAX_S``, it is not batches that the participant is
busy with, and nothing waits.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from participant_sdk.frames import FRAME_BYTES, CommitOrder
from participant_sdk.ids import Xid
from participant_sdk.participant import Prepare

OUTBOX_BOUND: Final = 100_000
ENOUGH: Final = 64
# Chosen: well above what a batch takes a bookkeeper that has its cores to itself.
USUAL_MAX_S: Final = 0.05
# How much of the usual time each answer makes up.
_SHARE: Final = 0.2

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one frame carries."""

    introduce: bool
    prepares: list[Prepare]
    commits: list[CommitOrder]
    rollbacks: list[Xid]


class Outbox:
    """Queues of a link. What is put twice leaves once; each queue is bounded."""

    __slots__ = ("_commits", "_holding", "_introduce", "_left_s", "_prepares", "_rollbacks", "_usual_s", "_wake")

    def __init__(self) -> None:
        # Dictionaries, because they are queues that find what they hold.
        self._prepares: dict[Xid, tuple[Prepare, int]] = {}
        self._commits: dict[Xid, CommitOrder] = {}
        self._rollbacks: dict[Xid, Xid] = {}
        self._introduce = False
        # Runs while Prepares wait for an answer, and ends their waiting.
        self._holding: asyncio.TimerHandle | None = None
        # When the last frame left, until something is answered; and how long that usually takes, 0 if it is not known.
        self._left_s: float | None = None
        self._usual_s = 0.0
        # Set while something may leave.
        self._wake = asyncio.Event()

    def prepare(self, branch: Prepare, size_bytes: int) -> bool:
        """Queue a Prepare that takes about so much of a frame; False at the bound."""
        if len(self._prepares) >= OUTBOX_BOUND:
            return False
        self._prepares[branch.xid] = (branch, size_bytes)
        if len(self._prepares) == (1 if self._holding is None else ENOUGH):
            # Otherwise it is set already, or will be when nothing is held any more.
            self._wake.set()
        return True

    def commit(self, xid: Xid, incarnation: int, sequence: int) -> None:
        """Queue a Commit; at the bound it is dropped, to be sent again by its owner's timer."""
        if not self._commits:
            self._wake.set()
        if len(self._commits) < OUTBOX_BOUND:
            self._commits[xid] = (xid, incarnation, sequence)

    def rollback(self, xid: Xid) -> None:
        """Queue a Rollback; at the bound it is dropped, as a Commit."""
        if len(self._rollbacks) < OUTBOX_BOUND:
            self._rollbacks[xid] = xid
            self._wake.set()

    def take_back(self, xid: Xid) -> bool:
        """Drop a queued Prepare; False where none is queued."""
        return self._prepares.pop(xid, None) is not None

    def introduce(self) -> None:
        """Let the next frame carry an introduction."""
        self._introduce = True
        self._wake.set()

    def left(self) -> None:
        """A frame leaves that is to be answered: Prepares wait until something is, but not for long."""
        loop = asyncio.get_running_loop()
        self._stop_holding()
        self._left_s = loop.time()
        if 0 < self._usual_s <= USUAL_MAX_S:
            self._holding = loop.call_later(2 * self._usual_s, self._release)
        if self._is_due():
            # What was held, and found no place in this frame, need not wait where the next is not held.
            self._wake.set()
        else:
            self._wake.clear()

    def answered(self) -> None:
        """The participant answered something: Prepares may leave."""
        if self._left_s is not None:
            took_s = asyncio.get_running_loop().time() - self._left_s
            self._left_s = None
            self._usual_s += (took_s - self._usual_s) * (_SHARE if self._usual_s else 1)
        self._release()

    def clear(self) -> None:
        """Forget all that is queued, and hold nothing."""
        self._stop_holding()
        self._left_s = None
        self._prepares.clear()
        self._commits.clear()
        self._rollbacks.clear()
        self._introduce = False
        self._wake.clear()

    async def wait(self) -> None:
        """Return once something may leave."""
        await self._wake.wait()

    def take(self, cap: int) -> Batch:
        """Take up to ``cap`` of each kind, held or not; of the prepares only what fits a frame, but at least one."""
        batch = Batch(self._introduce, self._take_prepares(cap), _take(self._commits, cap), _take(self._rollbacks, cap))
        self._introduce = False
        if not self._is_due():
            self._wake.clear()
        return batch

    def _is_due(self) -> bool:
        if self._introduce or self._commits or self._rollbacks:
            return True
        return len(self._prepares) >= (1 if self._holding is None else ENOUGH)

    def _release(self) -> None:
        self._stop_holding()
        if self._prepares:
            self._wake.set()

    def _stop_holding(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None

    def _take_prepares(self, cap: int) -> list[Prepare]:
        taken: list[Prepare] = []
        left_bytes = FRAME_BYTES
        for branch, size_bytes in islice(self._prepares.values(), cap):
            left_bytes -= size_bytes
            if left_bytes < 0 and taken:
                break
            taken.append(branch)
        if len(taken) == len(self._prepares):
            self._prepares.clear()
        else:
            for branch in taken:
                del self._prepares[branch.xid]
        return taken


def _take(queue: dict[Xid, Value], cap: int) -> list[Value]:
    if len(queue) <= cap:
        taken = list(queue.values())
        queue.clear()
        return taken
    keys = list(islice(queue, cap))
    return [queue.pop(key) for key in keys]
