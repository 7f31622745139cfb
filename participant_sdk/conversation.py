"""A conversation has several parts that run side by side, and ends with the first one that fails.

Why not a plain ``TaskGroup`` whose children raise: in Python 3.11, a task that is cancelled while
its group is ending because of a child's error gets the error alone, and the cancellation is
forgotten. Whoever then goes on to the next conversation can never be stopped. Here the parts
return their errors, so that the group has none and keeps its cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any


async def converse(parts: Sequence[Callable[[], Coroutine[Any, Any, object]]], *ends: type[Exception]) -> Exception:
    """Run the parts until one raises an error of these types; cancel the others, and return it.

    A part never just returns. Any other error of a part comes out as an exception group.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_error_of(part, ends)) for part in parts]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return next(task.result() for task in tasks if task in ended)


async def _error_of(part: Callable[[], Coroutine[Any, Any, object]], ends: tuple[type[Exception], ...]) -> Exception:
    try:
        await part()
    except ends as error:
        return error
    raise AssertionError("a part of a conversation ended without an error")
