"""The simulated chain and the real client of nodes, over HTTP: what each proves of a payment."""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from base64 import b64encode
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path

import pytest

from sidecars.wallet.addresses import Network
from sidecars.wallet.bitcoind import BitcoinNode, ChainUnavailableError, Output, RefusedError, node_at
from tests.integration.chains import OTHER_OUT, OUT, chain_by_hand, fill, mine, rpc
from tests.integration.companies import Company, until

ONE = Decimal(1)
# A call that brings no answer is made again, so often at most with the first.
ASKED_AT_MOST = 4


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncGenerator[Company]:
    async with chain_by_hand(tmp_path / "chain") as company:
        yield company


@pytest.fixture
async def node(chain: Company) -> AsyncGenerator[BitcoinNode]:
    async with node_at(chain.url, 30) as client:
        yield client


async def totals(chain: Company) -> dict[str, Decimal]:
    return {name: Decimal(text) for name, text in (await chain.ask("GET", "/development/totals")).items()}


async def test_a_payment_from_signing_to_its_blocks(chain: Company, node: BitcoinNode) -> None:
    await fill(chain, "3")
    assert await node.network() is Network.REGTEST
    signed = await node.sign(OUT, Decimal("1.23456789"))
    assert signed.fee > 0
    assert await node.confirmations(signed.txid) is None
    await node.send(signed.raw)
    assert await node.confirmations(signed.txid) == 0
    best = await node.best_block()
    await mine(chain, 2)
    assert await node.best_block() != best
    assert await node.confirmations(signed.txid) == 2
    told = await totals(chain)
    assert told == {
        "deposited": 3,
        "paid": Decimal("1.23456789"),
        "fees": signed.fee,
        "held": 3 - Decimal("1.23456789") - signed.fee,
    }
    assert await rpc(chain, "getbalance") == float(told["held"])


async def test_the_same_payment_is_taken_once_however_often_it_is_sent(chain: Company, node: BitcoinNode) -> None:
    """While it waits, in a block, and when its outputs are spent; after a kill -9 of the node, too."""
    await fill(chain, "3")
    signed = await node.sign(OUT, ONE)
    for _ in range(3):
        await node.send(signed.raw)
    await chain.kill()
    await chain.start()
    await node.send(signed.raw)
    await mine(chain)
    await node.send(signed.raw)
    assert (await totals(chain))["paid"] == 1
    assert len((await chain.ask("GET", "/development/payments"))["payments"]) == 1


async def test_no_output_is_spent_twice(chain: Company, node: BitcoinNode) -> None:
    await fill(chain, "3")
    first, second = await node.sign(OUT, ONE), await node.sign(OTHER_OUT, ONE)
    assert set(first.inputs) == set(second.inputs)
    await node.send(first.raw)
    with pytest.raises(RefusedError, match="txn-mempool-conflict") as waiting:
        await node.send(second.raw)
    assert waiting.value.code == -26
    await mine(chain)
    with pytest.raises(RefusedError, match="missingorspent") as spent:
        await node.send(second.raw)
    assert spent.value.code == -25


async def test_what_is_kept_is_not_spent_by_others(chain: Company, node: BitcoinNode) -> None:
    """Until the node is started again; what is not there, or locked already, does no harm."""
    await fill(chain, "3")
    await fill(chain, "3")
    first = await node.sign(OUT, ONE)
    for _ in range(2):
        await node.keep([*first.inputs, Output("00" * 32, 0)])
    assert not set(first.inputs) & set((await node.sign(OUT, ONE)).inputs)
    await chain.kill()
    await chain.start()
    assert (await node.sign(OUT, ONE)).inputs == first.inputs


async def test_a_payment_that_cannot_be_made_is_refused(chain: Company, node: BitcoinNode) -> None:
    with pytest.raises(RefusedError, match="Insufficient funds"):
        await node.sign(OUT, ONE)
    with pytest.raises(RefusedError, match="Invalid Bitcoin address"):
        await node.sign("1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mo", ONE)
    await chain.ask("POST", "/development/deposits", {"amount": "3"})
    # It is not in a block yet, and is somebody else's word until then.
    with pytest.raises(RefusedError, match="Insufficient funds"):
        await node.sign(OUT, ONE)


async def test_a_block_that_is_replaced_gives_back_what_it_held(chain: Company, node: BitcoinNode) -> None:
    await fill(chain, "3")
    signed = await node.sign(OUT, ONE)
    await node.send(signed.raw)
    await mine(chain)
    height = await rpc(chain, "getblockcount")
    await chain.ask("POST", "/development/reorganizations", {})
    assert await node.confirmations(signed.txid) == 0
    assert await rpc(chain, "getblockcount") == height + 1
    await chain.ask("POST", "/development/reorganizations", {"forget": True})
    assert await node.confirmations(signed.txid) is None
    await node.send(signed.raw)
    await mine(chain)
    assert await node.confirmations(signed.txid) == 1


@pytest.mark.parametrize("kind", ["fail_before", "fail_after", "lost"])
async def test_what_brings_no_answer_is_asked_again_at_once(chain: Company, kind: str) -> None:
    """One payment comes of it, and the caller hears nothing of the calls that were in vain."""
    await fill(chain, "3")
    async with node_at(chain.url, 30) as node:
        signed = await node.sign(OUT, ONE)
        await chain.misbehave({"kind": kind, "calls": "sendrawtransaction", "times": ASKED_AT_MOST - 1})
        await node.send(signed.raw)
        assert await node.confirmations(signed.txid) == 0
    assert (await totals(chain))["paid"] == 1


@pytest.mark.parametrize(
    ("kind", "is_done"), [("fail_before", False), ("fail_after", True), ("lost", True), ("slow", False), ("late", True)]
)
async def test_no_answer_tells_nothing(chain: Company, kind: str, is_done: bool) -> None:
    """An error of something between, silence and a cut connection: it may have happened, and asking again is safe."""
    await fill(chain, "3")
    async with node_at(chain.url, 0.3 if kind in {"slow", "late"} else 30) as node:
        signed = await node.sign(OUT, ONE)
        times = 1 if kind in {"slow", "late"} else ASKED_AT_MOST
        await chain.misbehave({"kind": kind, "calls": "sendrawtransaction", "times": times, "delay_ms": 1_500})
        with pytest.raises(ChainUnavailableError, match="sendrawtransaction"):
            await node.send(signed.raw)
        if kind != "slow":
            assert (await node.confirmations(signed.txid) is not None) == is_done
        await node.send(signed.raw)
        assert await node.confirmations(signed.txid) == 0
    assert (await totals(chain))["paid"] == 1


async def test_a_call_that_is_repeated_on_its_way_is_answered_as_one(chain: Company, node: BitcoinNode) -> None:
    await fill(chain, "3")
    await chain.misbehave({"kind": "twice"})
    signed = await node.sign(OUT, ONE)
    await node.send(signed.raw)
    assert (await totals(chain))["paid"] == 1


WRONG: list[tuple[tuple[object, ...], int, int]] = [
    (("nothing",), -32601, 404),
    (("gettransaction", "00" * 32), -5, 500),
    (("gettransaction",), -3, 500),
    (("gettransaction", 7), -3, 500),
    (("sendrawtransaction", "zz"), -22, 500),
    (("sendrawtransaction", "00"), -22, 500),
    (("createrawtransaction", [], [{OUT: "0.000000001"}]), -3, 500),
    (("createrawtransaction", [], [{OUT: "-1"}]), -3, 500),
    (("createrawtransaction", [], [{"nobody": "1"}]), -5, 500),
    (("lockunspent", False, [{"txid": "00" * 32, "vout": 0}]), -8, 500),
    (("lockunspent", True, [{"txid": "00" * 32, "vout": 0}]), -8, 500),
    (("generatetoaddress", 0, OUT), -3, 500),
]


@pytest.mark.parametrize(("call", "code", "status"), WRONG)
async def test_a_wrong_call_is_refused_as_bitcoind_does(
    chain: Company, call: tuple[str, ...], code: int, status: int
) -> None:
    assert (await rpc(chain, *call, expect=status))["code"] == code


async def test_a_payment_that_was_tampered_with_is_refused(chain: Company, node: BitcoinNode) -> None:
    await fill(chain, "3")
    signed = await node.sign(OUT, ONE)
    paid = (100_000_000).to_bytes(8, "little").hex()
    more = (100_000_001).to_bytes(8, "little").hex()
    assert signed.raw.count(paid) == 1
    with pytest.raises(RefusedError, match="mandatory-script-verify-flag-failed"):
        await node.send(signed.raw.replace(paid, more))


async def test_wrong_wishes_of_a_developer_are_told(chain: Company) -> None:
    for method, path, body, status, field in (
        ("POST", "/development/deposits", {"amount": "0"}, 400, "amount"),
        ("POST", "/development/deposits", {"amount": "1", "to": "me"}, 400, "to"),
        ("PUT", "/development/mining", {"block_interval_s": -1}, 400, "block_interval_s"),
        ("POST", "/development/reorganizations", {"forget": "perhaps"}, 400, "forget"),
    ):
        assert (await chain.ask(method, path, body, expect=(status,)))["field"] == field
    wrong = {"amount": "1", "address": "nobody"}
    assert (await chain.ask("POST", "/development/deposits", wrong, expect=(400,)))["error"] == "BAD_ADDRESS"
    assert (await chain.ask("POST", "/development/reorganizations", {}, expect=(409,)))["error"] == "NO_BLOCK"


async def test_blocks_come_by_themselves(chain: Company) -> None:
    """Whenever somebody looks; after a long silence not all that were due."""
    await chain.ask("PUT", "/development/mining", {"block_interval_s": 0.001})
    first = await rpc(chain, "getblockcount")

    async def is_longer() -> bool:
        return await rpc(chain, "getblockcount") >= first + 3

    await until(is_longer)


class _Answers:
    """A server that answers every request with these bytes, and keeps what it was sent."""

    def __init__(self, status: str, body: str) -> None:
        self._answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        self.asked = b""

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.splitlines() if line.lower().startswith(b"content-l")
        )
        self.asked = head + await reader.readexactly(length)
        writer.write(self._answer.encode())
        await writer.drain()
        writer.close()


STRANGE = [
    ("503 Service Unavailable", "Work queue depth exceeded", ChainUnavailableError, "HTTP 503"),
    ("200 OK", '{"result":7,"error":null,"id":99}', ChainUnavailableError, "another call"),
    ("200 OK", '{"result":7,"error":null,"id":1}', ChainUnavailableError, "no answer of a node"),
    ("200 OK", "[]", ChainUnavailableError, "no answer of a node"),
    (
        "500 Internal Server Error",
        '{"result":null,"error":{"code":-28,"message":"Loading block index"},"id":1}',
        ChainUnavailableError,
        "Loading block index",
    ),
    ("500 Internal Server Error", '{"result":null,"error":{"code":-1,"message":"no"},"id":1}', RefusedError, "code -1"),
    ("401 Unauthorized", "", RefusedError, "credentials"),
]


@pytest.mark.parametrize(("status", "body", "error", "said"), STRANGE)
async def test_a_strange_answer_is_what_it_is(status: str, body: str, error: type[Exception], said: str) -> None:
    """Only the node's own word is a refusal. The credentials travel as basic authentication, apart from the URL."""
    answers = _Answers(status, body)
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with node_at(f"http://us%40er:pass@127.0.0.1:{port}/wallet/hot", 30) as node:
            with pytest.raises(error, match=said):
                await node.best_block()
    head, _, asked = answers.asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /wallet/hot HTTP/1.1")
    assert b"Basic " + b64encode(b"us@er:pass") in head
    number = ASKED_AT_MOST if said == "HTTP 503" else 1
    assert json.loads(asked) == {"jsonrpc": "1.0", "id": number, "method": "getbestblockhash", "params": []}


async def test_a_node_of_an_unknown_network_is_refused() -> None:
    answers = _Answers("200 OK", '{"result":{"chain":"moon"},"error":null,"id":1}')
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    async with server, node_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 30) as node:
        with pytest.raises(RefusedError, match="network moon is not known"):
            await node.network()
