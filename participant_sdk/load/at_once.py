"""Much of one kind to be done, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

AT_ONCE: Final = 8

Item = TypeVar("Item")


async def do_all(items: Iterator[Item], do: Callable[[Item], Awaitable[None]]) -> None:
    """Do it for every item, for AT_ONCE of them at a time, and raise what ``do`` raises; then the rest is left."""

    async def one_after_another() -> None:
        for item in items:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_another())
    except ExceptionGroup as failed:
        # The first is what the caller can act on; it carries all of them as its cause.
        raise failed.exceptions[0] from failed
