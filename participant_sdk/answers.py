"""Answers that wait to leave on one session: everything ready rides in the next frame, as far as it fits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from pincex.tx.v1 import resource_pb2

from participant_sdk.frames import FRAME_BYTES, Answered, write_answers
from participant_sdk.hello import Welcome
from participant_sdk.ids import Xid
from participant_sdk.wire import results_size_bytes, write_welcome
from participant_sdk.xa import DONE, PREPARED, Ack, Vote

ANSWERS_MAX: Final = 20_000
UTF8_MAX_BYTES: Final = 4

Answer = TypeVar("Answer")


class AnswerQueue:
    """The queue of one session's writer. Its reader waits for ``room``, so it is bounded by what is under way."""

    __slots__ = ("_commit_acks", "_rollback_acks", "_room", "_votes", "_wake", "_welcomes")

    def __init__(self) -> None:
        self._votes: deque[tuple[Xid, Vote]] = deque()
        self._commit_acks: deque[tuple[Xid, Ack]] = deque()
        self._rollback_acks: deque[tuple[Xid, Ack]] = deque()
        self._welcomes: deque[Welcome] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._votes) + len(self._commit_acks) + len(self._rollback_acks) + len(self._welcomes)

    def voted(self, xid: Xid, vote: Vote) -> None:
        """Queue a vote."""
        self._votes.append((xid, vote))
        self._wake.set()

    def committed(self, xid: Xid, ack: Ack) -> None:
        """Queue the acknowledgement of a Commit."""
        self._commit_acks.append((xid, ack))
        self._wake.set()

    def rolled_back(self, xid: Xid, ack: Ack) -> None:
        """Queue the acknowledgement of a Rollback."""
        self._rollback_acks.append((xid, ack))
        self._wake.set()

    def welcomed(self, welcome: Welcome) -> None:
        """Queue the answer to an introduction."""
        self._welcomes.append(welcome)
        self._wake.set()

    async def room(self) -> None:
        """Return once fewer than ``ANSWERS_MAX`` answers wait."""
        if len(self) >= ANSWERS_MAX:
            self._room.clear()
            await self._room.wait()

    async def next_frame(self) -> resource_pb2.SessionResponse:
        """Make a frame of all that is ready, at most about ``FRAME_BYTES`` of it, once there is something."""
        await self._wake.wait()
        left_bytes = FRAME_BYTES
        answered = Answered()
        left_bytes = _take(self._votes, answered.votes, left_bytes, _vote_size_bytes)
        left_bytes = _take(self._commit_acks, answered.commit_acks, left_bytes, _ack_size_bytes)
        _take(self._rollback_acks, answered.rollback_acks, left_bytes, _ack_size_bytes)
        frame = write_answers(answered)
        if self._welcomes:
            frame.hello.CopyFrom(write_welcome(self._welcomes.popleft()))
        if not len(self):
            self._wake.clear()
        if len(self) < ANSWERS_MAX:
            self._room.set()
        return frame


def _take(
    queue: deque[tuple[Xid, Answer]],
    taken: list[tuple[Xid, Answer]],
    left_bytes: int,
    size_bytes: Callable[[Answer], int],
) -> int:
    """Move answers while bytes are left, so that the last one may pass the bound; return what is left."""
    while queue and left_bytes > 0:
        item = queue.popleft()
        taken.append(item)
        left_bytes -= size_bytes(item[1])
    return left_bytes


def _vote_size_bytes(vote: Vote) -> int:
    if vote is PREPARED:
        return 16
    words = len(vote.reason) + len(vote.message) + len(vote.field)
    return 64 + UTF8_MAX_BYTES * words + 8 * len(vote.results) + results_size_bytes(vote.results)


def _ack_size_bytes(ack: Ack) -> int:
    return 16 if ack is DONE else 64 + UTF8_MAX_BYTES * len(ack.message)
