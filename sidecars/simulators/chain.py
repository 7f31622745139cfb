"""A chain for development: ``python -m sidecars.simulators.chain --listen host:port --folder path``.

It answers the JSON-RPC calls of bitcoind that a wallet needs, on the regression test network, with one wallet in it.
``docs/participants.md`` lists them; what is below ``/development`` a node has not. Faults strike calls by the names of
their RPC methods. Blocks come every two seconds, unless told otherwise, whenever somebody looks.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, validate_call
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecars.simulators.books import Books
from sidecars.simulators.chain_ledger import (
    SATOSHIS,
    Ledger,
    Outpoint,
    RpcError,
    coins,
    read_transaction,
)
from sidecars.simulators.chain_transactions import Paid, Transaction, address_of, script_of
from sidecars.simulators.faults import Behaviour
from sidecars.simulators.serving import Company, RefusedError, main
from sidecars.wallet.base58 import AddressError

BLOCKS_MAX: Final = 1_000
_TYPE_ERROR: Final = -3
_METHOD_NOT_FOUND: Final = -32601
_PARSE_ERROR: Final = -32700
_STATUS_OF: Final = {_METHOD_NOT_FOUND: 404, _PARSE_ERROR: 500}

Value = None | bool | int | str | Decimal | Sequence["Value"] | Mapping[str, "Value"]
Coins = Annotated[Decimal, Field(gt=0, lt=21_000_000, decimal_places=8)]


class _Call(BaseModel):
    """A request of JSON-RPC, with its parameters by place."""

    id: int | str | None = None
    method: str
    params: list[object] = []


class _Place(BaseModel):
    txid: str
    vout: int


class _Deposit(BaseModel):
    """Money from outside: to an address of the wallet's, a new one if none is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = None
    amount: Coins


class _Mining(BaseModel):
    """How blocks come, and what they cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_interval_s: Annotated[float, Field(ge=0, le=3600)]
    fee_rate: Annotated[int, Field(ge=1, le=100_000)] | None = None


class _Reorganization(BaseModel):
    """Whether what waits then is forgotten."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    forget: bool = False


class Node:
    """The RPC methods, each with bitcoind's parameters and result, as far as a wallet needs them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.methods: Mapping[str, Callable[..., Value]] = {
            "createrawtransaction": validate_call(self._create),
            "decoderawtransaction": validate_call(self._decode),
            "fundrawtransaction": validate_call(self._fund),
            "generatetoaddress": validate_call(self._generate),
            "getbalance": validate_call(self._balance),
            "getbestblockhash": validate_call(lambda: ledger.best()[1]),
            "getblockchaininfo": validate_call(self._info),
            "getblockcount": validate_call(lambda: ledger.best()[0]),
            "getnewaddress": validate_call(self._new_address),
            "gettransaction": validate_call(self._seen),
            "listunspent": validate_call(self._unspent),
            "lockunspent": validate_call(self._lock),
            "sendrawtransaction": validate_call(self._send),
            "signrawtransactionwithwallet": validate_call(self._sign),
        }

    def _info(self) -> Value:
        height, block = self._ledger.best()
        return {"chain": "regtest", "blocks": height, "bestblockhash": block, "initialblockdownload": False}

    def _new_address(self) -> Value:
        return self._ledger.new_address()

    def _generate(self, count: Annotated[int, Field(ge=1, le=BLOCKS_MAX)], address: str) -> Value:
        # Nobody is paid for blocks here, so that all money has come from outside.
        del address
        return self._ledger.mine(count)

    def _balance(self, _dummy: str = "*", confirmations: int = 0) -> Value:
        return coins(sum(row["satoshis"] for row in self._ledger.unspent(confirmations)))

    def _unspent(self, confirmations: int = 1) -> Value:
        return [
            {
                "txid": row["txid"],
                "vout": row["output_index"],
                "address": row["address"],
                "amount": coins(row["satoshis"]),
                "confirmations": row["confirmations"],
            }
            for row in self._ledger.unspent(confirmations)
        ]

    def _lock(self, unlock: bool, places: list[_Place] | None = None) -> Value:
        if places is None and unlock:
            self._ledger.unlock_all()
        outpoints = [Outpoint(place.txid, place.vout) for place in places or ()]
        self._ledger.lock(outpoints, unlock=unlock)
        return True

    def _create(self, inputs: list[_Place], outputs: list[dict[str, Coins]]) -> Value:
        if inputs:
            raise RpcError(_TYPE_ERROR, "the simulator chooses all inputs itself, in fundrawtransaction")
        paid = [
            Paid(int(amount * SATOSHIS), _script(address)) for output in outputs for address, amount in output.items()
        ]
        return Transaction((), tuple(paid)).serialized().hex()

    def _fund(self, text: str, options: dict[str, object] | None = None) -> Value:
        funded, fee = self._ledger.fund(read_transaction(text))
        if options and options.get("lockUnspents"):
            self._ledger.lock([Outpoint(each.txid, each.index) for each in funded.inputs], unlock=False)
        return {"hex": funded.serialized().hex(), "fee": coins(fee), "changepos": len(funded.outputs) - 1}

    def _sign(self, text: str) -> Value:
        return {"hex": self._ledger.sign(read_transaction(text)).serialized().hex(), "complete": True}

    def _decode(self, text: str) -> Value:
        transaction = read_transaction(text)
        return {
            "txid": transaction.txid,
            "vin": [{"txid": each.txid, "vout": each.index} for each in transaction.inputs],
            "vout": [
                {
                    "value": coins(each.satoshis),
                    "n": at,
                    "scriptPubKey": {"hex": each.script.hex(), "address": address_of(each.script)},
                }
                for at, each in enumerate(transaction.outputs)
            ],
        }

    def _send(self, text: str) -> Value:
        return self._ledger.accept(read_transaction(text))

    def _seen(self, txid: str) -> Value:
        row = self._ledger.confirmations(txid)
        return {"txid": txid, "confirmations": row["confirmations"], "fee": -coins(row["fee"]), "hex": row["raw"]}


class _Door:
    """What the process serves: the RPC, under its faults, and what only development has."""

    def __init__(self, books: Books, behaviour: Behaviour) -> None:
        self._books = books
        self._behaviour = behaviour
        self._ledger = Ledger(books)
        self._node = Node(self._ledger)

    async def call(self, request: Request) -> Response:
        """Answer one RPC."""
        try:
            call = _Call.model_validate(json.loads(await request.body(), parse_float=Decimal))
        except ValueError:
            return _answer(None, RpcError(_PARSE_ERROR, "Parse error"))

        async def perform() -> Response:
            self._ledger.catch_up(time.time())
            try:
                return _answer(call.id, self._perform(call))
            except RpcError as error:
                return _answer(call.id, error)

        return await self._behaviour.answer(call.method, perform)

    async def deposit(self, request: Request) -> Response:
        """Somebody pays one of the wallet's addresses; it waits for the next block."""
        asked = _Deposit.model_validate_json(await request.body())
        address = asked.address or self._ledger.new_address()
        try:
            paid = self._ledger.receive(address, int(asked.amount * SATOSHIS))
        except RpcError as error:
            raise RefusedError(400, "BAD_ADDRESS", str(error)) from error
        body = {"tx_hash": paid.txid, "output_index": paid.vout, "address": address, "amount": f"{asked.amount:f}"}
        return JSONResponse(body, 201)

    async def deposits(self, request: Request) -> Response:
        """What others paid to an address: how somebody whose call was cut off learns whether it was done."""
        self._ledger.catch_up(time.time())
        best, _block = self._ledger.best()
        rows = self._books.read(
            "select o.txid, o.output_index, o.satoshis, o.address, t.height from outputs as o"
            " join transactions as t on t.txid = o.txid where t.is_from_outside and o.address = ?",
            request.query_params.get("address", ""),
        )
        told = [{**_paid(row), "confirmations": _confirmations(row, best)} for row in rows]
        return JSONResponse({"deposits": told})

    async def mining(self, request: Request) -> Response:
        """Set how blocks come by themselves."""
        asked = _Mining.model_validate_json(await request.body())
        self._ledger.set_mining(asked.block_interval_s, asked.fee_rate)
        return JSONResponse(asked.model_dump())

    async def reorganize(self, request: Request) -> Response:
        """Replace the last block."""
        asked = _Reorganization.model_validate_json(await request.body())
        try:
            return JSONResponse({"blocks": self._ledger.reorganize(forget=asked.forget)})
        except RpcError as error:
            raise RefusedError(409, "NO_BLOCK", str(error)) from error

    async def payments(self, _: Request) -> Response:
        """What the wallet paid to addresses of others."""
        best, _block = self._ledger.best()
        rows = self._books.read("select * from payments order by txid, output_index")
        told = [
            {
                "tx_hash": row["txid"],
                "address": row["address"],
                "amount": f"{coins(row['satoshis']):f}",
                "confirmations": _confirmations(row, best),
            }
            for row in rows
        ]
        return JSONResponse({"payments": told})

    async def totals(self, _: Request) -> Response:
        """What came from outside, was paid to others, was left as fees, and is there: the first is the others' sum."""
        row = self._books.read(
            "select (select coalesce(sum(o.satoshis), 0) from outputs as o join transactions as t on t.txid = o.txid"
            " where t.is_from_outside) as deposited,"
            " (select coalesce(sum(satoshis), 0) from payments) as paid,"
            " (select coalesce(sum(fee), 0) from transactions) as fees,"
            " (select coalesce(sum(satoshis), 0) from unspent) as held"
        )[0]
        return JSONResponse({name: f"{coins(row[name]):f}" for name in ("deposited", "paid", "fees", "held")})

    def _perform(self, call: _Call) -> Value:
        method = self._node.methods.get(call.method)
        if method is None:
            raise RpcError(_METHOD_NOT_FOUND, "Method not found")
        try:
            return method(*call.params)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise RpcError(_TYPE_ERROR, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _paid(row: sqlite3.Row) -> dict[str, str | int]:
    """A deposit, as ``record_deposit`` takes it."""
    return {
        "tx_hash": row["txid"],
        "output_index": row["output_index"],
        "address": row["address"],
        "amount": f"{coins(row['satoshis']):f}",
    }


def _confirmations(row: sqlite3.Row, best: int) -> int:
    return 0 if row["height"] is None else best - row["height"] + 1


def _script(address: str) -> bytes:
    try:
        return script_of(address)
    except AddressError as error:
        raise RpcError(-5, f"Invalid Bitcoin address: {address}") from error


def _answer(call_id: int | str | None, result: Value | RpcError) -> Response:
    """Write a reply as bitcoind does, amounts as numbers with eight places."""
    if isinstance(result, RpcError):
        said = {"code": result.code, "message": str(result)}
        body, status = {"result": None, "error": said, "id": call_id}, _STATUS_OF.get(result.code, 500)
    else:
        body, status = {"result": result, "error": None, "id": call_id}, 200
    return Response(_written(body), status, media_type="application/json")


def _written(value: Value) -> str:
    match value:
        case Decimal():
            return f"{value:.8f}"
        case str() | bool() | int() | None:
            return json.dumps(value)
        case Mapping():
            return "{" + ",".join(f"{json.dumps(name)}:{_written(each)}" for name, each in value.items()) + "}"
        case _:
            return "[" + ",".join(_written(each) for each in value) + "]"


def routes(books: Books, behaviour: Behaviour) -> Iterable[Route]:
    """The node's calls, under its faults, and those that only development has."""
    door = _Door(books, behaviour)
    for path in ("/", "/wallet/{name}"):
        yield Route(path, door.call, methods=["POST"])
    yield Route("/development/deposits", door.deposit, methods=["POST"])
    yield Route("/development/deposits", door.deposits, methods=["GET"])
    yield Route("/development/mining", door.mining, methods=["PUT"])
    yield Route("/development/reorganizations", door.reorganize, methods=["POST"])
    yield Route("/development/payments", door.payments, methods=["GET"])
    yield Route("/development/totals", door.totals, methods=["GET"])


_FOLDER: Final = files("sidecars.simulators")
COMPANY: Final = Company("chain", _FOLDER / "chain_schema.sql", _FOLDER / "chain_invariants.sql", routes)

if __name__ == "__main__":
    sys.exit(main(COMPANY))
