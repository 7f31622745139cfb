"""What a node may answer that is no answer, or not to what was asked: no money leaves by it, and nothing is held up."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from participant_sdk.clock import SystemClock
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.xa import VoteKind
from sidecars.sidecar import Surroundings
from sidecars.wallet.bitcoind import ChainUnavailableError, node_at
from sidecars.wallet.broadcasting import UNANSWERED_MAX, Broadcaster
from tests.integration.answering import answering, whole, without_end
from tests.integration.participations import Participation, participating
from tests.integration.test_wallet import BTC, change, deposit, status, withdrawal

TXID = "ab" * 32
SCRIPT = {"hex": "0014"}

# What a node answers, by method: a result, what refuses it, or what is called for one.
Results = dict[str, Any]


class Refusal(NamedTuple):
    """A node's error."""

    code: int
    message: str


class Silence(NamedTuple):
    """Something else than the node answers, that it is out of order."""


class Called(NamedTuple):
    """What answers, given the parameters."""

    function: Callable[..., Awaitable[object]]


def right(amount: str = "1") -> Results:
    """A node that does what it is asked."""
    paid = [{"value": amount, "scriptPubKey": SCRIPT}]
    paying = {"txid": TXID, "vin": [{"txid": "cd" * 32, "vout": 0}], "vout": paid}
    return {
        "getblockchaininfo": {"chain": "main"},
        "getbestblockhash": "00",
        "createrawtransaction": "00",
        "decoderawtransaction": paying,
        "fundrawtransaction": {"hex": "01", "fee": "0.0001"},
        "signrawtransactionwithwallet": {"hex": "02", "complete": True},
        "sendrawtransaction": TXID,
        "listunspent": [],
        "gettransaction": {"confirmations": 0},
    }


@pytest.fixture
async def wallet(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "wallet") as participation:
        await participation.rows("update wallet.hot_wallets set is_connected = true where currency = 'BTC'")
        await participation.do(deposit("10"))
        yield participation
        assert await participation.violations() == []


@asynccontextmanager
async def broadcaster(
    wallet: Participation, results: Results, calls: list[str], page_rows: int = 500
) -> AsyncGenerator[Broadcaster]:
    """A broadcaster of BTC over a node that answers so; ``calls`` are those that it got."""

    async def answer(_method: str, _path: str, body: bytes) -> AsyncIterator[bytes]:
        asked = json.loads(body)
        calls.append(asked["method"])
        result: object = results[asked["method"]]
        if isinstance(result, Called):
            result = await result.function(*asked["params"])
        if isinstance(result, Silence):
            yield whole(b"<html>out of order</html>", 503)
        elif isinstance(result, Refusal):
            yield whole({"id": asked["id"], "error": result._asdict()}, 500)
        else:
            yield whole({"id": asked["id"], "result": result, "error": None})

    surroundings = Surroundings("wallet", wallet.dsn, SystemClock(), {})
    lane = Lane(wallet.dsn, 1)
    try:
        async with answering(answer) as url, node_at(url, 5) as node, lane.session() as session:
            yield Broadcaster("BTC", session, node, surroundings, page_rows=page_rows)
    finally:
        await lane.close()


async def queue(wallet: Participation, *names: str) -> None:
    for name in names:
        await wallet.do(withdrawal(name))
        await wallet.do(change("broadcast", name))


async def test_a_payment_of_another_amount_is_not_sent(wallet: Participation) -> None:
    """Nor is it stored: the node may make the right one the next time."""
    await queue(wallet, "w-1")
    calls: list[str] = []
    async with broadcaster(wallet, right("1.5"), calls) as attendant:
        await attendant.run_once()
    assert "sendrawtransaction" not in calls
    told = await status(wallet, "w-1")
    assert (told["status"], told["tx_hash"]) == ("QUEUED", None)
    assert "another payment than it was asked for" in str(told["problem"])


async def test_what_is_cancelled_while_it_is_signed_is_not_sent(wallet: Participation) -> None:
    """The branch that cancels it is in doubt, and may commit; afterwards it has."""
    await queue(wallet, "w-1")
    cancelling = wallet.branch(change("cancel", "w-1"))

    async def sign(_raw: str) -> object:
        (vote,) = await wallet.prepare(cancelling)
        assert vote.kind is VoteKind.PREPARED
        return {"hex": "02", "complete": True}

    calls: list[str] = []
    async with broadcaster(wallet, {**right(), "signrawtransactionwithwallet": Called(sign)}, calls) as attendant:
        await attendant.run_once()
        await wallet.commit(cancelling)
        await attendant.run_once()
    assert "sendrawtransaction" not in calls
    assert await wallet.rows("select count(*) from wallet.payments") == [(0,)]
    assert (await status(wallet, "w-1"))["status"] == "CANCELLED"


async def test_what_cannot_be_paid_does_not_keep_the_others_waiting(wallet: Participation) -> None:
    """However many there are of them, before those that can, and before those that were sent."""
    await queue(wallet, "w-1")
    node = right()
    async with broadcaster(wallet, node, [], page_rows=2) as attendant:
        await attendant.run_once()
        assert (await status(wallet, "w-1"))["status"] == "SENT"
        await queue(wallet, "bad-1", "bad-2", "bad-3", "w-2")
        addresses = iter(["bad"] * 3 + ["good"])

        async def create(_inputs: Sequence[object], _outputs: object) -> object:
            return Refusal(-4, "Insufficient funds") if next(addresses) == "bad" else "00"

        other = dict(node["decoderawtransaction"], txid="ef" * 32, vin=[{"txid": "ee" * 32, "vout": 1}])
        node |= {"createrawtransaction": Called(create), "decoderawtransaction": other}
        node |= {"getbestblockhash": "01", "gettransaction": {"confirmations": 3}}
        await attendant.run_once()
    assert (await status(wallet, "w-2"))["status"] in {"SENT", "CONFIRMED"}
    assert (await status(wallet, "w-1"))["status"] == "CONFIRMED"
    assert "Insufficient funds" in str((await status(wallet, "bad-3"))["problem"])


@pytest.mark.parametrize(
    "odd",
    [
        {"createrawtransaction": Refusal(-4, "no \0 text")},
        {"createrawtransaction": Refusal(-4, "x" * 100_000)},
        {"decoderawtransaction": {**right()["decoderawtransaction"], "txid": "\0"}},
        {"decoderawtransaction": {**right()["decoderawtransaction"], "vin": [{"txid": TXID, "vout": 2**40}]}},
        {"signrawtransactionwithwallet": {"hex": "\0", "complete": True}},
    ],
    ids=["text", "long text", "id", "index", "hexadecimal"],
)
async def test_what_fits_into_no_table_holds_up_one_withdrawal(wallet: Participation, odd: Results) -> None:
    """The attendant lives, tells what is wrong, and pays the next one."""
    await queue(wallet, "w-1", "w-2")
    node = {**right(), **odd}
    ((name, wrong),) = odd.items()

    async def once(*_: object) -> object:
        node[name] = right()[name]
        return wrong

    node[name] = Called(once)
    calls: list[str] = []
    async with broadcaster(wallet, node, calls) as attendant:
        await attendant.run_once()
    statuses = dict(await wallet.rows("select withdrawal_id, status from wallet.withdrawals"))
    assert statuses == {"w-1": 3, "w-2": 5}
    ((problem,),) = await wallet.rows("select problem from wallet.withdrawals where withdrawal_id = 'w-1'")
    assert problem
    assert len(problem) <= 500


async def test_an_absurd_number_of_blocks_is_no_answer(wallet: Participation) -> None:
    """It would not fit into its column; the payment stays as it is until the node makes sense."""
    await queue(wallet, "w-1")
    node = right()
    async with broadcaster(wallet, node, []) as attendant:
        await attendant.run_once()
        node |= {"gettransaction": {"confirmations": 2**40}, "getbestblockhash": "01"}
        await attendant.run_once()
    told = await status(wallet, "w-1")
    assert (told["status"], told["confirmations"]) == ("SENT", 0)
    assert "no answer of a node" in str(told["problem"])


async def test_a_call_that_brings_no_answer_is_made_again_at_once(wallet: Participation) -> None:
    """Each may be made twice. Else a node of which every fifth answer is lost would hardly ever pay: it takes six."""
    await queue(wallet, "w-1")
    node = right()
    calls: list[str] = []
    async with broadcaster(wallet, {name: Called(second_time(result)) for name, result in node.items()}, calls) as one:
        await one.run_once()
    assert (await status(wallet, "w-1"))["status"] == "SENT"
    assert {calls.count(method) % 2 for method in calls} == {0}


def second_time(result: object) -> Callable[..., Awaitable[object]]:
    """Answers every second call alone."""
    answers = itertools.cycle([Silence(), result])

    async def answer(*_: object) -> object:
        return next(answers)

    return answer


async def test_what_cannot_be_signed_does_not_keep_what_was_sent_from_being_followed(wallet: Participation) -> None:
    """However often the node leaves the calls unanswered by which payments are made."""
    await queue(wallet, "w-1")
    node = right()
    async with broadcaster(wallet, node, []) as attendant:
        await attendant.run_once()
        await queue(wallet, *(f"later-{at}" for at in range(UNANSWERED_MAX + 1)))
        node |= {"createrawtransaction": Silence(), "getbestblockhash": "01", "gettransaction": {"confirmations": 3}}
        await attendant.run_once()
    assert (await status(wallet, "w-1"))["status"] == "CONFIRMED"


async def test_payments_are_looked_at_together(wallet: Participation) -> None:
    """A look takes as long as the node is far away; of many payments each would wait for all before it."""
    names = ("w-1", "w-2", "w-3")
    node = right()
    async with broadcaster(wallet, node, []) as attendant:
        for at, name in enumerate(names):
            paying = dict(node["decoderawtransaction"], txid=f"{at:064x}", vin=[{"txid": "ee" * 32, "vout": at}])
            await queue(wallet, name)
            await attendant.run_once()
            node["decoderawtransaction"] = paying
        everybody = asyncio.Barrier(len(names))

        async def look(_txid: str) -> object:
            await everybody.wait()
            return {"confirmations": 3}

        node |= {"getbestblockhash": "01", "gettransaction": Called(look)}
        await attendant.run_once()
    assert [(await status(wallet, name))["status"] for name in names] == ["CONFIRMED"] * 3


async def test_an_answer_that_never_ends_is_no_answer() -> None:
    async with answering(without_end) as url, node_at(url, 0.3) as node:
        with pytest.raises(ChainUnavailableError, match=r"within 0\.3 s"):
            await node.sign(BTC, Decimal(1))
