"""The classic matrix: participants that crash in prepare, commit or rollback, by every way to an end.

Crashes are of real processes, in the moment that is named; the supervisor brings them back.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from typing import Final

import pytest
import pytest_asyncio

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import Failed
from participant_sdk.client_results import Committed, Ending, RolledBack, Wait
from participant_sdk.client_wire import read_ending, set_timeout, write_execute
from participant_sdk.coordinators import Coordinators
from participant_sdk.interactive import Transaction
from participant_sdk.participant import Operation
from tests.crash.checks import broken_invariants, losses
from tests.crash.load import Intent
from tests.crash.processes import Cluster
from tests.crash.trials import WITHIN_S, supervised, until_all_settled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

VICTIMS: Final = {"first": ("trading",), "second": ("bank",), "both": ("trading", "bank")}
_numbers: Final = itertools.count(1)


class Crash(Enum):
    """In which half of the protocol the participant dies: the work is done, and its answer is lost."""

    PREPARE = "BATCH_AFTER"
    COMMIT = "POSTING_AFTER"
    ROLLBACK = "VOIDING_AFTER"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(up: Cluster) -> AsyncGenerator[TransactionClient]:
    async with TransactionClient(up.coordinators[0].grpc, timeout_s=WITHIN_S) as client:
        yield client


@pytest.fixture
def request_id() -> str:
    return f"matrix{next(_numbers)}-0"


def work(request_id: str) -> list[Operation]:
    """An order, and a credit."""
    order = f'{{"user_id":"{request_id}","symbol":"BTC/USD","side":"sell","amount":"0.01","price":"50000"}}'
    return [
        Operation("trading", "place_order", order),
        Operation("bank", "credit", f'{{"request":"{request_id}","amount":"1"}}'),
    ]


def refused_work() -> Operation:
    """What a third participant says no to."""
    move = '{"from_user_id":"shop","to_user_id":"till","currency":"USD","amount":"99999999","description":"no"}'
    return Operation("bookkeeper", "transfer_funds", move)


async def begun(up: Cluster, client: TransactionClient, request_id: str) -> Transaction:
    await up.until_ready()
    txn = await client.begin(request_id=request_id)
    await txn.enlist(work(request_id))
    return txn


async def judge(up: Cluster, request_id: str, *endings: Ending) -> None:
    """Wait until nothing is open; then nothing is lost and no invariant is broken."""
    await until_all_settled(up)
    intent = Intent(request_id, ("trading", "bank"), (), time.monotonic(), told=list(endings), insists=False)
    assert await losses(up, [intent], request_id.removesuffix("-0")) == []
    assert await broken_invariants(up) == []


def arm(up: Cluster, victims: Sequence[str], crash: Crash) -> None:
    for name in victims:
        up.sidecars[name].arm(crash.value)


def are_armed(up: Cluster, victims: Sequence[str]) -> bool:
    return any(up.sidecars[name].armed.exists() for name in victims)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
async def test_crash_in_prepare_of_a_commit(
    up: Cluster, client: TransactionClient, request_id: str, victims: Sequence[str]
) -> None:
    """R2: the vote does not come, so all is rolled back, what is durably prepared too."""
    txn = await begun(up, client, request_id)
    arm(up, victims, Crash.PREPARE)
    async with supervised(up):
        ending = await txn.commit()
        assert isinstance(ending, RolledBack)
        assert ending.retry
        await judge(up, request_id, ending)
    assert not are_armed(up, victims)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
async def test_crash_in_commit_of_a_commit(
    up: Cluster, client: TransactionClient, request_id: str, victims: Sequence[str]
) -> None:
    """R1, R9: it is decided; whoever died acknowledges when it is back, and has applied it once."""
    txn = await begun(up, client, request_id)
    arm(up, victims, Crash.COMMIT)
    async with supervised(up):
        ending = await txn.commit()
        assert isinstance(ending, Committed)
        await judge(up, request_id, ending)
    assert not are_armed(up, victims)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
async def test_crash_in_rollback_of_a_commit_that_was_refused(
    up: Cluster, client: TransactionClient, request_id: str, victims: Sequence[str]
) -> None:
    """R2, R12: a third one says no; whoever dies in its rollback holds nothing when it is back."""
    txn = await begun(up, client, request_id)
    await txn.enlist([refused_work()])
    arm(up, victims, Crash.ROLLBACK)
    async with supervised(up):
        ending = await txn.commit()
        assert isinstance(ending, RolledBack)
        assert ending.reason == "INSUFFICIENT_FUNDS"
        await judge(up, request_id, ending)
    assert not are_armed(up, victims)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
async def test_crash_in_rollback_of_an_explicit_rollback(
    up: Cluster, client: TransactionClient, request_id: str, victims: Sequence[str]
) -> None:
    """R10: what was enlisted is told, whether it was prepared or not, and is told again."""
    txn = await begun(up, client, request_id)
    arm(up, victims, Crash.ROLLBACK)
    async with supervised(up):
        ending = await txn.rollback()
        assert isinstance(ending, RolledBack)
        await judge(up, request_id, ending)
    assert not are_armed(up, victims)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
async def test_crash_in_rollback_of_a_rollback_only(
    up: Cluster, client: TransactionClient, request_id: str, victims: Sequence[str]
) -> None:
    """Commit of what is rollback-only is a rollback, and one like any other."""
    txn = await begun(up, client, request_id)
    await txn.set_rollback_only("it must not be")
    arm(up, victims, Crash.ROLLBACK)
    async with supervised(up):
        ending = await txn.commit()
        assert isinstance(ending, RolledBack)
        assert ending.reason == "ROLLBACK_ONLY"
        await judge(up, request_id, ending)
    assert not are_armed(up, victims)


@pytest.mark.parametrize("crash", [Crash.PREPARE, Crash.COMMIT], ids=["prepare", "commit"])
@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
@pytest.mark.parametrize("rollback_only", [False, True], ids=["explicit rollback", "rollback-only"])
async def test_nothing_is_prepared_or_committed_by_a_rollback(
    up: Cluster,
    client: TransactionClient,
    request_id: str,
    crash: Crash,
    victims: Sequence[str],
    *,
    rollback_only: bool,
) -> None:
    """The rest of the matrix is empty: no participant comes to the moment in which it would die."""
    txn = await begun(up, client, request_id)
    if rollback_only:
        await txn.set_rollback_only("it must not be")
    arm(up, victims, crash)
    try:
        ending = await (txn.commit() if rollback_only else txn.rollback())
        assert isinstance(ending, RolledBack)
        await judge(up, request_id, ending)
        assert all(up.sidecars[name].armed.exists() and up.sidecars[name].is_running for name in victims)
    finally:
        for name in victims:
            up.sidecars[name].disarm()


async def test_timeouts_racing_commits(up: Cluster) -> None:
    """R16: whatever comes first, vote or time-out, the client and the databases say the same."""
    await up.until_ready()
    prefix = f"matrix{next(_numbers)}"
    coordinators = Coordinators(up.coordinators[0].grpc)

    async def one(number: int) -> Intent:
        name = f"{prefix}-{number}"
        intent = Intent(name, ("trading", "bank"), (), time.monotonic(), insists=False)
        request = write_execute(work(name), name, Wait.APPLIED)
        set_timeout(request.timeout, 0.01 + number % 20 * 0.004)
        answer = await coordinators.ask(
            lambda stub: stub.Execute, request, WITHIN_S, lambda reply: read_ending(reply.result, name)
        )
        assert not isinstance(answer, Failed), answer
        intent.told.append(answer)
        return intent

    intents: list[Intent] = []
    for batch in range(6):
        intents += await asyncio.gather(*[one(batch * 20 + number) for number in range(20)])
    await coordinators.close()
    await until_all_settled(up)
    assert await losses(up, intents, prefix) == []
    assert await broken_invariants(up) == []
    assert any(isinstance(intent.told[0], RolledBack) for intent in intents)
