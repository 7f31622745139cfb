"""Waves: who comes while others are under way begins with all who come meanwhile, and waits no longer than of use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import pytest
from pincex.tx.v1 import transaction_pb2

from coordinator.api import contention, waves
from coordinator.api.contention import Contention, counted
from coordinator.api.waves import ENOUGH, Wave, Waves
from tests.api.doors import Doors, transfer
from tests.sdk.small_system import LEFT, OPENING, RIGHT

Frame = transaction_pb2.ExecuteStreamRequest
# gRPC's calls are generic for type checkers only.
Stream: TypeAlias = "grpc.aio.StreamStreamCall[Frame, transaction_pb2.ExecuteStreamResponse]"
FOR_EVER_S: Final = 3600.0


class Short(Contention):
    """A machine that is always short of cores."""

    def is_high(self) -> bool:
        return True


class Ample(Contention):
    """A machine with cores to spare."""

    def is_high(self) -> bool:
        return False


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Waves:
    """Waves that wait for ever, as far as a test can see."""
    monkeypatch.setattr(waves, "USUAL_MAX_S", FOR_EVER_S)
    return Waves(Short(), FOR_EVER_S)


async def _begin(wanted: Waves, count: int) -> Wave:
    wave = await wanted.departure()
    wanted.begins(wave, count)
    return wave


async def come(wanted: Waves, count: int = 1) -> asyncio.Task[Wave]:
    """So many come together; gives who waits for their departure, once it waits or they have begun."""
    wanted.came(count)
    task = asyncio.create_task(_begin(wanted, count))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def settled(*tasks: asyncio.Task[Wave]) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_who_comes_waits_for_half_of_the_wave_before_and_leaves_with_all_who_came(patient: Waves) -> None:
    first = await come(patient, 5)
    assert await settled(first) == [True]
    one, other = await come(patient), await come(patient, 2)
    for ended in range(3):
        assert await settled(one, other) == [False, False], ended
        patient.ended(first.result())
    assert await settled(one, other) == [True, True]
    assert one.result() is other.result() is not first.result()
    # Half of three.
    last = await come(patient)
    for ended in range(2):
        assert await settled(last) == [False], ended
        patient.ended(one.result())
    assert await settled(last) == [True]


async def test_who_comes_as_others_leave_waits_for_these_alone(patient: Waves) -> None:
    """Nine of one stream and one of another, in the same moment: the nine are not taken for their own wave before."""
    await come(patient, 2)
    patient.came(9)
    one = await come(patient)
    patient.came(ENOUGH)
    assert await settled(one) == [True]
    nine = asyncio.create_task(_begin(patient, 9))
    assert await settled(nine) == [False]
    patient.ended(one.result())
    assert await settled(nine) == [True]


async def test_who_would_wait_for_one_alone_waits_for_nobody(patient: Waves) -> None:
    """Else two callers would take turns, and each wait for twice as long."""
    first = await come(patient)
    second = await come(patient)
    assert await settled(first, second) == [True, True]
    third = await come(patient)
    assert await settled(third) == [False]
    patient.ended(first.result())
    assert await settled(third) == [True]


async def test_those_who_left_before_they_began_are_not_waited_for(patient: Waves) -> None:
    first = await come(patient, 2)
    left = [await come(patient) for _ in range(5)]
    stays = await come(patient, 2)
    for task in left:
        task.cancel()
    patient.ended(first.result())
    assert await settled(stays, *left) == [True] * 6
    last = await come(patient)
    assert await settled(last) == [False]
    patient.ended(stays.result())
    assert await settled(last) == [True]


async def test_only_ends_of_the_last_wave_count(patient: Waves) -> None:
    """One that takes long, for its participant is slow, keeps nobody up but those next to it."""
    slow = await come(patient, 4)
    for _ in range(2):
        patient.ended(slow.result())
    fast = await come(patient, 2)
    assert await settled(fast) == [True]
    waiting = await come(patient)
    patient.ended(slow.result())
    assert await settled(waiting) == [False]
    patient.ended(fast.result())
    assert await settled(waiting) == [True]


async def test_where_enough_have_gathered_they_wait_for_nobody(patient: Waves) -> None:
    await come(patient, 2)
    waiting = await come(patient)
    patient.came(ENOUGH - 2)
    assert await settled(waiting) == [False]
    patient.came(1)
    assert await settled(waiting) == [True]
    assert await settled(await come(patient, ENOUGH)) == [True]


async def test_with_cores_to_spare_nobody_waits() -> None:
    wanted = Waves(Ample(), 0.01)
    assert await settled(*[await come(wanted) for _ in range(3)]) == [True] * 3


async def test_where_half_of_a_wave_takes_long_nobody_waits() -> None:
    """It is not for cores that those wait."""
    wanted = Waves(Short(), waves.USUAL_MAX_S * 1.01)
    assert await settled(*[await come(wanted) for _ in range(3)]) == [True] * 3


async def test_who_waits_leaves_though_nobody_ends() -> None:
    wanted = Waves(Short(), 0.01)
    first = await come(wanted, 2)
    async with asyncio.timeout(60):
        assert await (await come(wanted)) is not first.result()


async def test_who_is_cancelled_takes_nobody_along(patient: Waves) -> None:
    first = await come(patient, 2)
    one, other = await come(patient), await come(patient)
    one.cancel()
    patient.ended(first.result())
    assert await settled(one, other) == [True, True]
    assert (one.cancelled(), other.cancelled()) == (True, False)


async def test_how_long_half_takes_is_learnt_while_nobody_waits() -> None:
    """Else nobody ever would, where each comes while the one before is under way."""
    wanted = Waves(Ample())
    first, second = (await come(wanted)).result(), (await come(wanted)).result()
    wanted.ended(second)
    assert wanted.usual_s == 0
    await asyncio.sleep(0.01)
    wanted.ended(first)
    assert wanted.usual_s >= 0.01


@pytest.mark.parametrize(("usual_s", "learnt_s"), [(0.0, 0.01), (0.001, 0.0014)])
async def test_a_wave_of_which_half_do_not_end_says_little_of_the_others(
    monkeypatch: pytest.MonkeyPatch, usual_s: float, learnt_s: float
) -> None:
    """It is timed for so long and no longer, and counts for three times the usual, where that is known."""
    monkeypatch.setattr(waves, "MEASURED_MAX_S", 0.01)
    wanted = Waves(Ample(), usual_s)
    await come(wanted, 9)
    await asyncio.sleep(0.02)
    later = (await come(wanted)).result()
    assert wanted.usual_s == pytest.approx(learnt_s)
    monkeypatch.setattr(waves, "MEASURED_MAX_S", 0.0)
    wanted.ended(later)
    assert wanted.usual_s == pytest.approx(learnt_s * 0.8)


async def test_a_wave_that_nobody_began_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "MEASURED_MAX_S", 0.0)
    wanted = Waves(Ample())
    wanted.came(1)
    await wanted.departure()
    await asyncio.sleep(0.001)
    await come(wanted)
    assert wanted.usual_s == 0


async def begun_at_a_shut_tap(opened: Doors, patient: Waves) -> Stream:
    """A stream of which two have begun, the first as "begun", and cannot end before the tap opens: all others wait."""
    opened.gate.waves = patient
    opened.around.taps[RIGHT].shut()
    stream = opened.stub.ExecuteStream()
    await stream.write(Frame(tag=1, request=transfer(request_id="begun"), more=[transfer()]))
    await until(lambda: opened.assembly.engine.unfinished == 2)
    return stream


async def answers_of(stream: Stream) -> dict[int, transaction_pb2.ExecuteStreamAnswer]:
    """Say no more on it, and gather its answers by their tags."""
    await stream.done_writing()
    answers: dict[int, transaction_pb2.ExecuteStreamAnswer] = {}
    while isinstance(response := await stream.read(), transaction_pb2.ExecuteStreamResponse):
        answers.update({answer.tag: answer for answer in response.answers})
    return answers


async def test_frames_and_calls_that_wait_begin_together_each_under_its_own_tag(
    open_doors: Doors, patient: Waves
) -> None:
    stream = await begun_at_a_shut_tap(open_doors, patient)
    bad = transaction_pb2.ExecuteRequest()
    await stream.write(Frame(tag=10, request=transfer(), more=[bad, transfer()]))
    await stream.write(Frame(tag=20, request=transfer()))
    call = asyncio.ensure_future(open_doors.stub.Execute(transfer()))
    await until(lambda: patient.gathered == 5)
    assert open_doors.assembly.engine.unfinished == 2
    open_doors.around.taps[RIGHT].open()
    outcomes = {tag: answer.result.outcome for tag, answer in (await answers_of(stream)).items()}
    committed, none = transaction_pb2.OUTCOME_COMMITTED, transaction_pb2.OUTCOME_UNSPECIFIED
    assert outcomes == {1: committed, 2: committed, 10: committed, 11: none, 12: committed, 20: committed}
    assert (await call).result.outcome == committed
    assert open_doors.around.balance(LEFT, "a") == OPENING - 6 * 5
    # All have ended, those that could not begin too.
    assert await settled(await come(patient)) == [True]


async def test_those_who_wait_as_the_coordinator_stops_are_told_so_and_nothing_of_them_begins(
    open_doors: Doors, patient: Waves
) -> None:
    stream = await begun_at_a_shut_tap(open_doors, patient)
    await stream.write(Frame(tag=3, request=transfer()))
    await until(lambda: patient.gathered == 1)
    open_doors.gate.close()
    open_doors.around.taps[RIGHT].open()
    answers = await answers_of(stream)
    assert answers[1].result.outcome == answers[2].result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert answers[3].failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert open_doors.around.balance(LEFT, "a") == OPENING - 2 * 5


async def test_what_a_client_that_left_had_waiting_never_begins_and_keeps_nobody_up(
    open_doors: Doors, patient: Waves
) -> None:
    """R16: what has begun goes on; the rest is as if it had never come."""
    stream = await begun_at_a_shut_tap(open_doors, patient)
    await stream.write(Frame(tag=3, request=transfer()))
    await until(lambda: patient.gathered == 1)
    stream.cancel()
    call = asyncio.ensure_future(open_doors.stub.Execute(transfer()))
    await until(lambda: patient.gathered == 2)
    open_doors.around.taps[RIGHT].open()
    async with asyncio.timeout(60):
        assert (await call).result.outcome == transaction_pb2.OUTCOME_COMMITTED
        result = (await open_doors.stub.Execute(transfer(request_id="begun"))).result
    assert (result.outcome, result.replayed) == (transaction_pb2.OUTCOME_COMMITTED, True)
    assert open_doors.around.balance(LEFT, "a") == OPENING - 3 * 5


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("ran", "waited", "is_high"),
    [(750_000, 249_000, False), (750_000, 250_000, True), (0, 0, False), (1_000, 0, False), (0, 1, True)],
)
def test_a_thread_that_waits_for_a_core_is_short_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: int, waited: int, *, is_high: bool
) -> None:
    """By what came since the last look alone."""
    monkeypatch.setattr(contention, "LOOK_EVERY_S", 0.0)
    source = tmp_path / "schedstat"
    source.write_text("5000000 7000000 12\n")
    looking = Contention(source)
    source.write_text(f"{5_000_000 + ran} {7_000_000 + waited} 13\n")
    assert looking.is_high() is is_high
    assert not looking.is_high()


def test_it_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "schedstat"
    source.write_text("0 0 1\n")
    looking = Contention(source)
    source.write_text("0 1000 1\n")
    assert looking.is_high()
    monkeypatch.setattr(contention, "LOOK_EVERY_S", FOR_EVER_S)
    source.write_text("1000000 1000 1\n")
    assert looking.is_high()


@pytest.mark.parametrize("text", [None, "", "0 0", "a b c", "1 2 3 4"])
def test_where_nobody_counts_no_core_is_short(tmp_path: Path, text: str | None) -> None:
    source = tmp_path / "schedstat"
    if text is not None:
        source.write_text(text)
    assert not Contention(source).is_high()


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="a kernel that does not count")
def test_the_kernel_counts_for_this_thread() -> None:
    ran_ns, waited_ns = counted()
    assert ran_ns > 0
    assert waited_ns >= 0
