"""A node of Bitcoin's family, asked over JSON-RPC: bitcoind, or another that speaks as it does.

Sources: Bitcoin Core's RPC documentation and ``src/rpc/protocol.h``. Amounts travel as text towards the node and are
read as decimals from it, so none is ever a float. No answer, or one from something other than the node, tells
nothing of whether a call was performed: ChainUnavailableError. RefusedError is the node's own word.

Every call that is made here may be made twice: it only reads or reckons, or the node takes it once. So one that brings
no answer is made again, a few times and at once; whoever pays many from one wallet would wait long if each lost answer
cost a whole payment's calls.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final, NamedTuple, TypeVar

import httpx
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from sidecars.wallet.addresses import Network

# The names of getblockchaininfo.
_NETWORKS: Final = {
    "main": Network.MAIN,
    "test": Network.TEST,
    "testnet4": Network.TEST,
    "signet": Network.SIGNET,
    "regtest": Network.REGTEST,
}
# RPC_INVALID_ADDRESS_OR_KEY: of gettransaction, that the wallet knows no such transaction.
_NOT_FOUND: Final = -5
# RPC_INVALID_PARAMETER: of lockunspent, that an output is locked or spent already.
_INVALID_PARAMETER: Final = -8
# RPC_VERIFY_ALREADY_IN_UTXO_SET: the transaction is in a block. RPC_IN_WARMUP: the node is starting.
_IN_CHAIN: Final = -27
_WARMING_UP: Final = -28
# What older nodes say, with RPC_VERIFY_REJECTED, of a transaction that waits for a block already.
_IN_MEMPOOL: Final = ("txn-already-in-mempool", "txn-already-known")
# Pauses after which a call that brought no answer is made again, all within the call's time.
_AGAIN_AFTER_S: Final = (0.05, 0.1, 0.2)


class ChainError(Exception):
    """A call to a node brought no answer of use. Below: ChainUnavailableError, RefusedError."""


class ChainUnavailableError(ChainError):
    """The node could not be asked, or its answer did not come: what was asked may have happened."""


class _NoAnswerError(ChainUnavailableError):
    """Nothing came that could be an answer, or something else than the node said that it is out of order."""


class RefusedError(ChainError):
    """The node refused, with this code of its own."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} (code {code})")
        self.code = code
        self.said = message


class Output(NamedTuple):
    """An output of a transaction: what a payment spends."""

    txid: str
    vout: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A payment, signed and not sent: its id, its text in hexadecimal, what the chain takes, and what it spends."""

    txid: str
    raw: str
    fee: Decimal
    inputs: tuple[Output, ...]


class _Error(BaseModel):
    code: int
    message: str


class _Reply(BaseModel):
    result: object = None
    error: _Error | None = None
    id: object = None


class _BlockchainInfo(BaseModel):
    chain: str


# What the tables can hold of it: anything else is no answer of a node.
_Txid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Raw = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$")]
_Count = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class _Funded(BaseModel):
    hex: _Raw
    fee: Annotated[Decimal, Field(ge=0)]


class _Signature(BaseModel):
    hex: _Raw
    complete: bool


class _Script(BaseModel):
    hex: str


class _Input(BaseModel):
    txid: _Txid
    vout: Annotated[_Count, Field(ge=0)]


class _Vout(BaseModel):
    value: Decimal
    script: Annotated[_Script, Field(alias="scriptPubKey")]


class _Transaction(BaseModel):
    txid: _Txid
    vin: tuple[_Input, ...]
    vout: tuple[_Vout, ...]


class _Seen(BaseModel):
    confirmations: _Count


Result = TypeVar("Result")

_TEXT: Final = TypeAdapter(str)
_YES: Final = TypeAdapter(bool)
_UNSPENT: Final = TypeAdapter(list[_Input])
_INFO: Final = TypeAdapter(_BlockchainInfo)
_FUNDED: Final = TypeAdapter(_Funded)
_SIGNATURE: Final = TypeAdapter(_Signature)
_TRANSACTION: Final = TypeAdapter(_Transaction)
_SEEN: Final = TypeAdapter(_Seen)


class BitcoinNode:
    """One node, with the hot wallet's keys."""

    def __init__(self, client: httpx.AsyncClient, url: httpx.URL, timeout_s: float) -> None:
        self._client = client
        self._url = url
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)

    async def network(self) -> Network:
        """Which network the node is on. RefusedError for one that is not known here."""
        chain = (await self._call(_INFO, "getblockchaininfo")).chain
        if chain not in _NETWORKS:
            raise RefusedError("getblockchaininfo", 0, f"the network {chain} is not known here")
        return _NETWORKS[chain]

    async def best_block(self) -> str:
        """The hash of the last block."""
        return await self._call(_TEXT, "getbestblockhash")

    async def keep(self, outputs: Sequence[Output]) -> None:
        """Have the node spend none of these for anything else: those that it takes for free are locked."""
        unspent = {Output(each.txid, each.vout) for each in await self._call(_UNSPENT, "listunspent", 0)}
        free = [{"txid": output.txid, "vout": output.vout} for output in outputs if output in unspent]
        if not free:
            return
        try:
            await self._call(_YES, "lockunspent", False, free)
        except RefusedError as error:
            if error.code != _INVALID_PARAMETER:
                raise

    async def sign(self, address: str, amount: Decimal) -> Signed:
        """Make a payment of exactly this amount, and sign it. Nothing is sent, and nothing of it is kept.

        RefusedError, too, where the node made something else than was asked for.
        """
        created = await self._call(_TEXT, "createrawtransaction", [], [{address: f"{amount:f}"}])
        wanted = (await self._call(_TRANSACTION, "decoderawtransaction", created)).vout[0].script
        funded = await self._call(_FUNDED, "fundrawtransaction", created, {"lockUnspents": False})
        signature = await self._call(_SIGNATURE, "signrawtransactionwithwallet", funded.hex)
        if not signature.complete:
            raise RefusedError("signrawtransactionwithwallet", 0, "the node does not have all the keys")
        decoded = await self._call(_TRANSACTION, "decoderawtransaction", signature.hex)
        if [output.value for output in decoded.vout if output.script == wanted] != [amount] or len(decoded.vout) > 2:
            raise RefusedError("decoderawtransaction", 0, "the node made another payment than it was asked for")
        inputs = tuple(Output(each.txid, each.vout) for each in decoded.vin)
        return Signed(decoded.txid, signature.hex, funded.fee, inputs)

    async def send(self, raw: str) -> None:
        """Send a payment; one that the chain has already is as good. RefusedError: it has not, and takes it not now."""
        try:
            await self._call(_TEXT, "sendrawtransaction", raw)
        except RefusedError as error:
            if error.code != _IN_CHAIN and not any(said in error.said for said in _IN_MEMPOOL):
                raise

    async def confirmations(self, txid: str) -> int | None:
        """How many blocks hold a payment, 0 while it waits, below 0 where another spent its inputs; None: not known."""
        try:
            return (await self._call(_SEEN, "gettransaction", txid)).confirmations
        except RefusedError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    async def _call(self, kind: TypeAdapter[Result], method: str, *params: object) -> Result:
        try:
            # The client's own time-outs are for each piece of an answer, and there may be many.
            async with asyncio.timeout(self._timeout_s):
                for pause_s in _AGAIN_AFTER_S:
                    with suppress(_NoAnswerError):
                        return await self._ask(kind, method, params)
                    await asyncio.sleep(pause_s)
                return await self._ask(kind, method, params)
        except TimeoutError as error:
            raise ChainUnavailableError(f"{method}: no answer within {self._timeout_s:g} s") from error

    async def _ask(self, kind: TypeAdapter[Result], method: str, params: Sequence[object]) -> Result:
        asked = {"jsonrpc": "1.0", "id": next(self._ids), "method": method, "params": params}
        try:
            response = await self._client.post(self._url, json=asked)
        except httpx.HTTPError as error:
            raise _NoAnswerError(f"{method}: {type(error).__name__} {error}") from error
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RefusedError(method, response.status_code, "the node does not accept our credentials")
        try:
            reply = _Reply.model_validate(json.loads(response.content, parse_float=Decimal))
            if reply.id != asked["id"]:
                raise ChainUnavailableError(f"{method}: the answer is to another call")
            if reply.error is None:
                return kind.validate_python(reply.result)
        except (ValueError, ValidationError) as error:
            unavailable = ChainUnavailableError if response.is_success else _NoAnswerError
            raise unavailable(f"{method}: HTTP {response.status_code}, and no answer of a node") from error
        if reply.error.code == _WARMING_UP:
            raise ChainUnavailableError(f"{method}: {reply.error.message}")
        raise RefusedError(method, reply.error.code, reply.error.message)


@asynccontextmanager
async def node_at(url: str, timeout_s: float) -> AsyncGenerator[BitcoinNode]:
    """Talk to the node at ``http://user:password@host:port/wallet/name``. No call takes longer than ``timeout_s``."""
    given = httpx.URL(url)
    # Apart from the URL, which is logged.
    auth = httpx.BasicAuth(given.username, given.password) if given.userinfo else None
    async with httpx.AsyncClient(auth=auth, timeout=timeout_s, trust_env=False) as client:
        yield BitcoinNode(client, given.copy_with(userinfo=b""), timeout_s)
