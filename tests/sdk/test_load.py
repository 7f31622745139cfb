"""The load generator: what it counts is what happened."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence

import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.client_results import Committed, Ending, RolledBack
from participant_sdk.ids import Xid
from participant_sdk.load import ClosedLoop, Operations, Transfers
from participant_sdk.operations import OperationLike
from tests.sdk.small_system import LEFT, RIGHT, System, coordinator, system

XID = Xid.make(1, 1, 1)


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


async def test_a_load_counts_every_ending(around: System) -> None:
    async with (
        coordinator(around) as running,
        TransactionClient(running.address) as client,
        client.stream(in_flight=8) as stream,
    ):
        report = await ClosedLoop(stream.execute, workload(), 8).run(seconds=0.3, warm_up_s=0.1)
    assert report.committed == around.effects(LEFT) == around.effects(RIGHT)
    assert report.rolled_back.keys() == {"INSUFFICIENT_FUNDS"}
    assert report.unknown == report.not_applied == 0
    assert report.per_second > 0
    assert 0 < report.p50_ms <= report.p99_ms <= report.max_ms


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


def test_transfers_move_one_unit_between_two_participants_accounts() -> None:
    transfers = iter(Transfers("one", "other", accounts=3, seed=7))
    for _ in range(20):
        (debited, debit, taken), (credited, credit, given) = next(transfers)
        assert (debited, debit, credited, credit) == ("one", "debit_account", "other", "credit_account")
        for parameters in (taken, given):
            assert isinstance(parameters, str)
            read = json.loads(parameters)
            assert read["user_id"] in {"0", "1", "2"}
            assert read["amount"] == "1"


def test_the_same_seed_gives_the_same_transfers() -> None:
    one, other = (iter(Transfers("one", "other", accounts=1000, seed=3)) for _ in range(2))
    assert [next(one) for _ in range(5)] == [next(other) for _ in range(5)]
