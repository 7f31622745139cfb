"""The load generator: what it counts is what happened, and what it could not do, it says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from statistics import mean, stdev
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import InvalidRequestError, OutcomeUnknown
from participant_sdk.client_results import Committed, Ending, RolledBack, Wait
from participant_sdk.ids import Xid
from participant_sdk.load import ClosedLoop, Empty, InvalidOrderError, OpenLoop, Operations, Order
from participant_sdk.load.latencies import LATENCY_MAX_US, Latencies
from participant_sdk.load.options import Options, read_options
from participant_sdk.load.order import TRANSFERS_MAX
from participant_sdk.operations import OperationLike
from tests.sdk.small_system import LEFT, RIGHT, System, coordinator, system

XID = Xid.make(1, 1, 1)
# Transactions, a tenth of which is refused.
ENOUGH = 200


@pytest.fixture
async def around() -> AsyncGenerator[System]:
    async with system() as made:
        yield made


def workload() -> Iterator[Operations]:
    """Transfers, every tenth of which is refused."""
    number = 0
    while True:
        number += 1
        amount = 10**9 if number % 10 == 0 else 1
        yield [
            (LEFT, "debit", {"account": "a", "amount": amount}),
            (RIGHT, "credit", {"account": "b", "amount": amount}),
        ]


async def at_once(_: Operations) -> Ending:
    """Commit without any delay."""
    return Committed(XID)


async def test_a_closed_loop_counts_every_ending(around: System) -> None:
    """It ends when enough was measured, not by the clock: on a busy machine nothing may end for seconds."""
    measured = 0

    async def execute(operations: Sequence[OperationLike]) -> Ending:
        nonlocal measured
        ending = await stream.execute(operations)
        measured += loop.progress().p50_ms > 0
        if measured == ENOUGH:
            loop.stop()
        return ending

    async with (
        coordinator(around) as running,
        TransactionClient(running.address) as client,
        client.stream(in_flight=8) as stream,
    ):
        loop = ClosedLoop(execute, workload(), 8)
        report = await loop.run(seconds=60.0, warm_up_s=0.1)
    assert report.committed == around.effects(LEFT) == around.effects(RIGHT)
    assert report.rolled_back.keys() == {"INSUFFICIENT_FUNDS"}
    assert report.unknown == report.not_applied == 0
    assert report.per_second > 0
    assert 0 < report.p50_ms <= report.p90_ms <= report.p99_ms <= report.p999_ms <= report.max_ms


async def test_an_open_loop_counts_every_ending(around: System) -> None:
    async with (
        coordinator(around) as running,
        TransactionClient(running.address) as client,
        client.stream(in_flight=1000) as stream,
    ):
        report = await OpenLoop(stream.execute, workload(), 200).run(seconds=0.4, warm_up_s=0.1)
    assert report.committed == around.effects(LEFT) == around.effects(RIGHT)
    assert report.rolled_back.keys() == {"INSUFFICIENT_FUNDS"}
    assert report.not_offered == report.unknown == 0
    assert 0 < report.p50_ms <= report.p99_ms <= report.max_ms
    assert 0 <= report.lag_p50_ms <= report.lag_p99_ms <= report.lag_max_ms


async def test_empty_transactions_commit(around: System) -> None:
    async with coordinator(around) as running, TransactionClient(running.address) as client:
        report = await ClosedLoop(lambda each: Empty.execute_with(client, each), iter(Empty()), 4).run(0.2, 0.0)
    assert report.committed > 0
    assert report.rolled_back == {}


async def test_unknown_and_owed_endings_are_counted_apart() -> None:
    def cycle() -> Iterator[Ending | None]:
        while True:
            yield None
            yield Committed(XID, applied=False)
            yield RolledBack(XID, "NO")

    endings = cycle()

    async def execute(_: Sequence[OperationLike]) -> Ending:
        ending = next(endings)
        if ending is None:
            raise OutcomeUnknown("nobody says")
        return ending

    report = await ClosedLoop(execute, workload(), 1).run(seconds=0.01, warm_up_s=0.0)
    assert report.unknown >= report.committed >= report.rolled_back["NO"] > 0
    assert report.not_applied == report.committed
    assert report.ended == report.unknown + report.committed + report.rolled_back["NO"]


async def test_a_stall_is_seen_by_all_who_would_have_come_in_it() -> None:
    """Latency counts from when a transaction was due. Here half of all meet what one caller alone would meet once."""
    open_again = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, open_again.set)

    async def stalled(_: Operations) -> Ending:
        await open_again.wait()
        return Committed(XID)

    report = await OpenLoop(stalled, workload(), 500).run(seconds=0.6, warm_up_s=0.0)
    assert report.not_offered == 0
    assert report.p90_ms > 150
    assert report.max_ms > 250


@pytest.mark.parametrize("is_open", [True, False])
async def test_what_ends_after_the_load_is_measured_too(*, is_open: bool) -> None:
    """The slowest would be cut off otherwise. It is no part of the rate."""
    loop, released = asyncio.get_running_loop(), asyncio.Event()

    async def slow(_: Operations) -> Ending:
        # After the load, whenever in it this one began.
        loop.call_later(1.0, released.set)
        await released.wait()
        return Committed(XID)

    load = OpenLoop(slow, workload(), 200) if is_open else ClosedLoop(slow, workload(), 4)
    report = await load.run(seconds=0.5, warm_up_s=0.0)
    assert report.per_second == 0
    assert report.committed > 0
    assert report.p50_ms > 150


async def test_what_is_past_the_cap_is_counted_and_not_believed() -> None:
    released = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, released.set)
    begun = 0

    async def slow(_: Operations) -> Ending:
        nonlocal begun
        begun += 1
        await released.wait()
        return Committed(XID)

    report = await OpenLoop(slow, workload(), 1000, in_flight_max=5).run(seconds=0.2, warm_up_s=0.0)
    assert begun == report.committed == 5
    assert 100 < report.not_offered < 300
    assert report.offered_per_second == pytest.approx(25)
    assert not report.trustworthy
    assert f"{report.not_offered} transactions were due while 5 were under way" in report.distrust


async def test_a_generator_that_is_late_itself_says_so() -> None:
    """What stops the generator's own loop is no fault of the system's."""

    async def busy(_: Operations) -> Ending:
        time.sleep(0.03)  # noqa: ASYNC251 - what is tested is a loop that does not come to run.
        return Committed(XID)

    report = await OpenLoop(busy, workload(), 100).run(seconds=0.3, warm_up_s=0.0)
    assert report.p99_ms >= report.lag_p99_ms > 30
    assert not report.trustworthy
    assert report.distrust.startswith("the generator itself was late")


async def test_arrivals_are_random_at_the_rate_asked_for() -> None:
    """Poisson: of a thousand the deviation is 32."""
    report = await OpenLoop(at_once, workload(), 2000, in_flight_max=500, seed=3).run(seconds=0.5, warm_up_s=0.0)
    assert report.asked_per_second == 2000
    # What has ended makes room for others.
    assert report.not_offered == 0
    assert 1600 < report.offered_per_second < 2400
    assert report.committed == round(report.offered_per_second * report.seconds)


async def test_arrivals_know_nothing_of_each_other() -> None:
    """Their gaps deviate by as much as they last; regular ones would not."""
    begun_s: list[float] = []

    async def note(_: Operations) -> Ending:
        begun_s.append(time.monotonic())
        return Committed(XID)

    await OpenLoop(note, workload(), 100, seed=1).run(seconds=0.6, warm_up_s=0.0)
    gaps = [later - sooner for sooner, later in pairwise(begun_s)]
    assert 0.5 < stdev(gaps) / mean(gaps) < 1.5


@pytest.mark.parametrize("rate", [0.0, 0.5])
async def test_a_load_can_be_ended_early(rate: float) -> None:
    loop = OpenLoop(at_once, workload(), rate) if rate else ClosedLoop(_yielding, workload(), 2)
    asyncio.get_running_loop().call_later(0.1, loop.stop)
    async with asyncio.timeout(10):
        report = await loop.run(seconds=3600, warm_up_s=0.0)
    assert 0.05 < report.seconds < 10


async def _yielding(_: Operations) -> Ending:
    await asyncio.sleep(0)
    return Committed(XID)


async def test_a_load_that_is_ended_in_its_warm_up_has_measured_nothing() -> None:
    loop = ClosedLoop(_yielding, workload(), 1)
    asyncio.get_running_loop().call_later(0.05, loop.stop)
    report = await loop.run(seconds=10, warm_up_s=3600)
    assert (report.seconds, report.per_second, report.p50_ms) == (0, 0, 0)
    assert report.committed > 0


async def test_progress_tells_what_has_been_so_far() -> None:
    loop = ClosedLoop(_yielding, workload(), 1)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(loop.run(seconds=0.2, warm_up_s=0.0))
        await asyncio.sleep(0.1)
        looked = loop.progress()
    assert 0 < looked.committed < running.result().committed
    assert 0.05 < looked.elapsed_s < 0.2
    assert 0 < looked.p50_ms <= looked.p99_ms


async def test_a_request_that_is_wrong_in_itself_ends_the_load() -> None:
    """All that follow would meet the same."""

    async def wrong(_: Operations) -> Ending:
        raise InvalidRequestError("user 7 has no account", field="operations[0]")

    for loop in (ClosedLoop(wrong, workload(), 3), OpenLoop(wrong, workload(), 1000)):
        with pytest.raises(ExceptionGroup) as raised:
            await loop.run(seconds=3600, warm_up_s=0.0)
        assert isinstance(raised.value.exceptions[0], InvalidRequestError)


def test_latencies_are_what_the_library_says() -> None:
    """Our recording is its layout, but cheaper."""
    numbers = random.Random(5)
    ours = Latencies()
    # The library has no types.
    library: Any = HdrHistogram(1, LATENCY_MAX_US, 3)
    values = [0, 1, 2047, 2048, LATENCY_MAX_US, *(int(10 ** numbers.uniform(0, 8)) for _ in range(5_000))]
    for us in values:
        # Half a microsecond more: a float may lie just below the whole number.
        ours.record((us + 0.5) / 1_000_000)
        library.record_value(us)
    for percentile in (0.1, 1, 25, 50, 90, 99, 99.9, 99.99, 100):
        assert ours.percentiles_ms(percentile) == (library.get_value_at_percentile(percentile) / 1000,)


def test_latencies_out_of_range_count_at_its_ends() -> None:
    latencies = Latencies()
    assert latencies.percentiles_ms(50, 100) == (0, 0)
    latencies.record(-0.001)
    latencies.record(1e9)
    lowest, highest = latencies.percentiles_ms(1, 100)
    assert lowest == 0
    assert highest == pytest.approx(LATENCY_MAX_US / 1000, rel=0.001)


def order(**changes: object) -> Order:
    """An order with what matters to a test."""
    members: dict[str, object] = {
        "coordinators": ("127.0.0.1:1",),
        "workload": "transfer",
        "participants": ("a", "b"),
        "accounts": 10,
        "seconds": 1.0,
    }
    return Order(**{**members, **changes})  # pyright: ignore[reportArgumentType] - a wrong one would fail the test.


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("--workload", {"workload": "bitcoin"}),
        ("--participants", {"participants": ()}),
        ("--participants", {"participants": ("a", "")}),
        ("--participants", {"participants": ("a", "a")}),
        ("--accounts", {"accounts": 1}),
        ("--accounts", {"accounts": -5}),
        ("--hot-spot", {"hot_spot": 5}),
        ("--hot-spot", {"hot_spot": 11, "workload": "smallbank"}),
        ("--hot-spot", {"hot_spot": 1, "workload": "smallbank"}),
        ("--rate", {"rate_per_s": -1.0}),
        ("--rate", {"rate_per_s": float("nan")}),
        ("--rate", {"rate_per_s": float("inf")}),
        ("--concurrency", {"in_flight": -1}),
        ("--concurrency", {"in_flight": 10**9}),
        ("--duration", {"seconds": 0.0}),
        ("--duration", {"seconds": float("inf")}),
        ("--warm-up", {"warm_up_s": -1.0}),
        ("--participants", {"workload": "mixed"}),
        ("--run", {"run": "a b"}),
        ("--run", {"run": "r" * 33}),
        ("--transfers", {"transfers": -1}),
    ],
)
def test_an_order_that_cannot_be_names_the_option(option: str, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidOrderError) as raised:
        order(**changes)
    assert raised.value.option == option
    assert str(raised.value).startswith(f"{option}: ")


@pytest.mark.parametrize(
    "ordered",
    [
        order(),
        order(rate_per_s=0.1, in_flight=7, wait=Wait.DECIDED, unary=True, follow_money=True, seed=9, currency="EUR"),
        order(workload="smallbank", participants=("a",), hot_spot=3, seconds=1.25, warm_up_s=0.0),
        order(workload="mixed", participants=tuple("abcde"), run="r7", transfers=40),
    ],
)
def test_arguments_say_the_whole_order(ordered: Order) -> None:
    options = Options(ordered, progress=True)
    assert read_options(options.written()) == options


def test_debited_and_credited_name_two_participants_or_one() -> None:
    fixed = ["--coordinators=x:1", "--accounts=5"]
    assert read_options([*fixed, "--debited=a", "--credited=b"]).order.participants == ("a", "b")
    assert read_options(fixed).order.participants == ("bookkeeper",)


def test_the_mixed_workload_is_of_the_five_that_ship_with_the_system_and_every_run_has_a_name() -> None:
    first, second = (read_options(["--coordinators=x:1", "--accounts=5", "--workload=mixed"]).order for _ in "12")
    assert first.participants == ("bookkeeper", "trading", "settlement", "fiat", "wallet")
    assert first.run != second.run
    assert replace(first, run="") == replace(second, run="")


def test_a_mixed_load_wants_as_many_bank_transfers_as_it_may_record() -> None:
    """Its share of the rate for as long as it runs; and no load has more announced than a bank can take."""
    mixed = {"workload": "mixed", "participants": tuple("abcde"), "seconds": 9.0, "warm_up_s": 1.0}
    assert order(**mixed, rate_per_s=100.0).transfers_wanted == 70
    assert order(**{**mixed, "seconds": 10.0**5}).transfers_wanted == TRANSFERS_MAX
    assert order().transfers_wanted == 0


def test_a_workload_is_made_for_as_many_participants_as_there_are() -> None:
    """With one, both accounts are there; with more than two, one pays and each other one gets."""
    for participants in (("a",), ("a", "b"), ("a", "b", "c", "d")):
        operations = next(iter(order(participants=participants).make_workload()))
        paid, *got = [(service, name, json.loads(str(parameters))) for service, name, parameters in operations]
        assert paid[:2] == ("a", "debit_account")
        assert [each[:2] for each in got] == [(each, "credit_account") for each in (participants[1:] or participants)]
        assert int(paid[2]["amount"]) == sum(int(each[2]["amount"]) for each in got)


def test_the_same_seed_gives_the_same_operations() -> None:
    for workload_name in ("transfer", "smallbank"):
        one, other = (iter(order(workload=workload_name, seed=3).make_workload()) for _ in range(2))
        assert list(islice(one, 50)) == list(islice(other, 50))
