"""Questions of one branch each, gathered: all that came while the last call was under way make the next one.

So there is no statement for each branch, though branches are worked on one by one. If a call fails, each is asked
about by itself, so that only what is bad in itself fails (R17).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import psycopg

from participant_sdk.batching import Batcher
from participant_sdk.resources.postgres_errors import is_unreachable

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class _Asked(NamedTuple, Generic[Question, Answer]):
    log_id: str
    question: Question
    answer: asyncio.Future[Answer]


class Gathering(Generic[Question, Answer]):
    """Asks ``ask`` about the questions of one log, which gives an answer to each. ``run`` must run."""

    __slots__ = ("_ask", "_batcher")

    def __init__(self, ask: Callable[[str, Sequence[Question]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._batcher = Batcher[_Asked[Question, Answer]](self._round)

    async def ask(self, log_id: str, question: Question) -> Answer:
        """Ask with the others. Raises what the call raised; QueueFullError where far too much waits."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._batcher.put(_Asked(log_id, question, answer))
        return await answer

    async def run(self) -> None:
        """Make calls until cancelled; who still asks then is cancelled too."""
        try:
            await self._batcher.run()
        finally:
            for each in self._batcher.drain():
                each.answer.cancel()

    async def _round(self, asked: list[_Asked[Question, Answer]]) -> None:
        logs: dict[str, list[_Asked[Question, Answer]]] = {}
        for each in asked:
            logs.setdefault(each.log_id, []).append(each)
        try:
            for log_id, ours in logs.items():
                await self._call(log_id, ours)
        finally:
            for each in asked:
                # None is left without an answer, unless the call was cancelled.
                each.answer.cancel()

    async def _call(self, log_id: str, asked: list[_Asked[Question, Answer]]) -> None:
        try:
            answers = await self._ask(log_id, [each.question for each in asked])
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            if len(asked) > 1 and isinstance(error, psycopg.Error) and not is_unreachable(error):
                for each in asked:
                    await self._call(log_id, [each])
                return
            for each in asked:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, answer in zip(asked, answers, strict=True):
            # Who was cancelled meanwhile asks no more.
            if not each.answer.done():
                each.answer.set_result(answer)
