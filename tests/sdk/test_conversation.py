"""Conversations end with the first part that fails, and a cancellation is never forgotten."""

from __future__ import annotations

import asyncio

import pytest

from participant_sdk.conversation import converse


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("the stream broke")


async def test_the_first_failure_ends_all_parts() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    error = await converse((endless, fail), ValueError)
    assert str(error) == "the stream broke"
    assert ended == ["endless"]


async def test_a_cancellation_that_comes_while_the_parts_are_ending_is_kept() -> None:
    """A plain TaskGroup forgets it in Python 3.11, and a link would reconnect after its process was told to end."""
    ending = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(0.01)

    async def reconnect_for_ever() -> None:
        while True:
            await converse((slow_to_end, fail), ValueError)

    task = asyncio.create_task(reconnect_for_ever())
    await ending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_an_error_of_another_kind_comes_out() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await converse((fail,), LookupError)
    assert caught.group_contains(ValueError)


async def test_a_part_that_just_returns_is_a_defect() -> None:
    async def returns() -> None:
        await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup) as caught:
        await converse((returns,), ValueError)
    assert caught.group_contains(AssertionError)
