"""One transaction, or one participant, that is bad: the others go on (R17)."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncGenerator, Iterator
from functools import partial

import httpx
import pytest
import pytest_asyncio

from tests.crash.bank import POISON
from tests.crash.checks import losses
from tests.crash.conftest import Servers
from tests.crash.load import Load
from tests.crash.odd import NAME, Odd
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster
from tests.crash.trials import commits_of, go_on, judged
from tests.sdk.peers import hosted

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

OTHERS = ("bookkeeper", "trading")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def odd() -> AsyncGenerator[tuple[Odd, str]]:
    """A participant that answers nonsense, and where."""
    servicer = Odd()  # pyright: ignore[reportAbstractUsage]  What it lacks is answered UNIMPLEMENTED.
    async with hosted(servicer) as port:
        yield servicer, f"127.0.0.1:{port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(
    servers: Servers, odd: tuple[Odd, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Cluster]:
    """One coordinator, the usual participants, and the odd one."""
    folder = tmp_path_factory.mktemp("cluster")
    async with cluster(folder, servers.database, bank=True, others={NAME: odd[1]}) as running:
        await fill_till(running)
        yield running


@pytest.mark.parametrize("poison", POISON)
async def test_a_poisonous_transaction_is_refused_alone(up: Cluster, prefix: str, poison: str) -> None:
    """R17: whatever an operation does to its batch and its session, its own branch alone gets the "no"."""
    async with judged(up, prefix) as load:
        for _ in range(5):
            refused = await up.execute(("bank", poison, {}), timeout_seconds=10)
            assert refused.json()["state"] == "ROLLED_BACK", refused.text
        await commits_of(load, ("bank", "trading"))


async def test_a_participant_that_never_answers_keeps_nobody_else(up: Cluster, prefix: str) -> None:
    """Its own transactions wait; those of others are committed meanwhile."""
    bank = up.sidecars["bank"]
    async with judged(up, prefix) as load:
        others = Load([up.coordinators[0].grpc], OTHERS, f"{prefix}others", seed=3)
        bank.send(signal.SIGSTOP)
        try:
            others.start(clients=4)
            await others.until_committed(60, within_s=20.0)
        finally:
            bank.send(signal.SIGCONT)
            await others.stop(within_s=20.0)
        await commits_of(load, ("bank", "trading"))
    assert await losses(up, others.intents, f"{prefix}others") == []


async def test_a_participant_that_answers_nonsense_spoils_only_its_own(
    up: Cluster, odd: tuple[Odd, str], prefix: str
) -> None:
    """R2: an unknown vote is "no"; an unknown acknowledgement is none, so a commit stays owed until it comes."""
    servicer, _ = odd
    servicer.is_sane = False
    async with judged(up, prefix) as load:
        answers = [await with_odd(up, f"{prefix}-odd-{number}") for number in range(10)]
        assert servicer.asked >= len(answers)
        states = [answer.json()["state"] for answer in answers]
        assert states.count("ROLLED_BACK") >= 6, states
        assert all(answer.json()["owed"] == [NAME] for answer in answers if answer.json()["state"] == "COMMITTED")
        await go_on(load)
        servicer.is_sane = True
        await up.until(partial(commits_with_odd, up, (f"{prefix}-healed-{number}" for number in itertools.count())))


async def with_odd(up: Cluster, request_id: str) -> httpx.Response:
    return await asyncio.wait_for(
        up.execute(("trading", "validate_order", ORDER), (NAME, "do", {}), request_id=request_id, wait="DECIDED"), 15.0
    )


async def commits_with_odd(up: Cluster, request_ids: Iterator[str]) -> bool:
    """Its circuit breaker may be open still: what it failed before it was sane counts until one answer is well."""
    return (await with_odd(up, next(request_ids))).json()["state"] == "COMMITTED"


ORDER = {"user_id": "1", "symbol": "BTC/USD", "side": "sell", "amount": "0.01", "price": "50000"}
