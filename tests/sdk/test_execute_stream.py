"""The stream: many at once, and every one with its ending, whatever happens to the stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator

import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.faults import Way, proxying
from participant_sdk.operations import OperationLike
from tests.sdk.small_system import LEFT, OPENING, RIGHT, Running, System, coordinator, system

MANY = 300


@pytest.fixture
async def around() -> AsyncGenerator[System]:
    async with system() as made:
        yield made


@pytest.fixture
async def running(around: System) -> AsyncGenerator[Running]:
    async with coordinator(around) as made:
        yield made


def transfer(amount: int = 1) -> list[OperationLike]:
    return [
        (LEFT, "debit", {"account": "a", "amount": amount}),
        (RIGHT, "credit", {"account": "b", "amount": amount}),
    ]


async def test_many_at_once_all_commit_once(around: System, running: Running) -> None:
    async with TransactionClient(running.address) as client, client.stream(in_flight=64) as stream:
        endings = await asyncio.gather(*(stream.execute(transfer()) for _ in range(MANY)))
    assert all(isinstance(ending, Committed) and ending.applied for ending in endings)
    assert around.effects(LEFT) == around.effects(RIGHT) == MANY
    assert around.balance(LEFT, "a") == OPENING - MANY


async def test_each_item_has_its_own_ending(running: Running) -> None:
    """R17: what is wrong with one is nothing to the others."""
    async with TransactionClient(running.address) as client, client.stream() as stream:
        good, refused, wrong, local = await asyncio.gather(
            stream.execute(transfer()),
            stream.execute(transfer(10**9)),
            stream.execute([("nobody", "debit", "{}")]),
            stream.execute([]),
            return_exceptions=True,
        )
    assert isinstance(good, Committed)
    assert isinstance(refused, RolledBack)
    assert refused.reason == "INSUFFICIENT_FUNDS"
    assert isinstance(wrong, InvalidRequestError)
    assert wrong.field == "operations[0].service"
    assert isinstance(local, InvalidRequestError)


async def test_a_cut_stream_leaves_every_item_with_one_effect(around: System, running: Running) -> None:
    """What was in flight is settled by unary calls under the same request_ids (R3)."""
    async with (
        proxying(running.address) as lossy,
        TransactionClient(lossy.address, timeout_s=30) as client,
        client.stream() as stream,
    ):
        await stream.execute(transfer())
        await running.finished.get()
        lossy.hold(Way.DOWN)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(stream.execute(transfer())) for _ in range(MANY)]
            for _ in range(MANY // 2):
                await running.finished.get()
            lossy.cut()
            lossy.release(Way.DOWN)
        assert all(isinstance(task.result(), Committed) for task in tasks)
        assert isinstance(await stream.execute(transfer()), Committed)
    assert around.effects(LEFT) == around.effects(RIGHT) == MANY + 2


async def test_an_overdue_answer_is_asked_for_at_another_coordinator(around: System, running: Running) -> None:
    """R19: silence tells no outcome. Here the first coordinator's stream stays open, and says nothing more."""
    async with (
        proxying(running.address) as first,
        proxying(running.address) as second,
        TransactionClient([first.address, second.address]) as client,
        client.stream() as stream,
    ):
        await stream.execute(transfer())
        lossy = first if first.passed_bytes(Way.UP) else second
        lossy.hold(Way.DOWN)
        assert isinstance(await stream.execute(transfer(), timeout_s=0.2), Committed)
    assert around.effects(LEFT) == around.effects(RIGHT) == 2


async def test_what_is_under_way_when_the_stream_is_left_goes_on_by_itself(around: System, running: Running) -> None:
    async with TransactionClient(running.address) as client, asyncio.TaskGroup() as group:
        async with client.stream() as stream:
            await stream.execute(transfer())
            around.taps[RIGHT].shut()
            task = group.create_task(stream.execute(transfer()))
            await asyncio.sleep(0)
        around.taps[RIGHT].open()
    assert isinstance(task.result(), Committed)
    assert around.effects(RIGHT) == 2


async def test_a_cancelled_execution_leaves_the_stream_to_the_others(around: System, running: Running) -> None:
    """R16: a client's cancellation stops nothing; its transaction goes on."""
    async with TransactionClient(running.address) as client, client.stream() as stream:
        await stream.execute(transfer())
        around.taps[RIGHT].shut()
        task = asyncio.ensure_future(stream.execute(transfer()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        around.taps[RIGHT].open()
        assert isinstance(await stream.execute(transfer()), Committed)


@pytest.fixture
def silent() -> Generator[str]:
    """The address of a coordinator that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def test_callers_who_give_up_before_they_are_sent_leave_their_places_to_others(silent: str) -> None:
    """Invariant 12: what nobody waits for any more is neither kept nor in anybody's way."""
    async with TransactionClient(silent) as client, client.stream(in_flight=2) as stream:
        for _ in range(4):
            gone = [asyncio.ensure_future(stream.execute(transfer())) for _ in range(2)]
            await asyncio.wait(gone, timeout=0.02)
            for task in gone:
                task.cancel()
            ended = await asyncio.gather(*gone, return_exceptions=True)
            assert [type(end) for end in ended] == [asyncio.CancelledError] * 2


async def test_waiting_for_a_place_on_the_stream_counts_towards_the_time_out(around: System, running: Running) -> None:
    async with TransactionClient(running.address) as client, client.stream(in_flight=1) as stream:
        await stream.execute(transfer())
        around.taps[RIGHT].shut()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(stream.execute(transfer()))
            await asyncio.sleep(0)
            ending = await stream.execute(transfer(), timeout_s=0.1)
            assert isinstance(ending, RolledBack)
            assert not first.done()
            around.taps[RIGHT].open()
    assert isinstance(first.result(), Committed)
