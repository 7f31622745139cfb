"""The simulated chain's ledger: blocks, the mempool, coins, and the exchange's wallet, all in the books.

It takes a transaction once, however often it is told of it, and no two that spend one output. It refuses with the
codes and words of bitcoind.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Final, NamedTuple

from sidecars.simulators.books import Books
from sidecars.simulators.chain_transactions import (
    NO_OUTPUT,
    NOWHERE,
    MalformedError,
    Paid,
    Spent,
    Transaction,
    address_from,
    address_of,
    parse,
    script_of,
)
from sidecars.wallet.base58 import AddressError

SATOSHIS: Final = 100_000_000
# Blocks that come by themselves after a long silence; the others' time has passed.
DUE_MAX: Final = 100
BLOCK_INTERVAL_DEFAULT_S: Final = 2.0
FEE_RATE_DEFAULT: Final = 10

_DUST: Final = 546
_PROOF_BYTES: Final = 32

VERIFY_ERROR: Final = -25
VERIFY_REJECTED: Final = -26
IN_CHAIN: Final = -27
WALLET_ERROR: Final = -4
NOT_FOUND: Final = -5
INVALID_PARAMETER: Final = -8
DESERIALIZATION: Final = -22
_MISSING: Final = "bad-txns-inputs-missingorspent"


class RpcError(Exception):
    """What bitcoind answers in place of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Outpoint(NamedTuple):
    """One output of one transaction."""

    txid: str
    vout: int


def coins(satoshis: int) -> Decimal:
    """Satoshis as bitcoind writes them."""
    return Decimal(satoshis).scaleb(-8)


def read_transaction(text: str) -> Transaction:
    """Read a transaction in hexadecimal. RpcError for anything else."""
    try:
        return parse(bytes.fromhex(text))
    except (ValueError, MalformedError) as error:
        raise RpcError(DESERIALIZATION, "TX decode failed. Make sure the tx has at least one input.") from error


class Ledger:
    """The chain. What is locked is kept in memory alone, as in bitcoind: a restart forgets it."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._locked: set[Outpoint] = set()
        with books.transaction() as connection:
            connection.execute(
                "insert or ignore into settings values (1, ?, ?, unixepoch(), ?)",
                (secrets.token_bytes(32), BLOCK_INTERVAL_DEFAULT_S, FEE_RATE_DEFAULT),
            )
            connection.execute("insert or ignore into blocks values (0, ?)", (sha256(b"genesis").hexdigest(),))
        self._secret: bytes = books.read("select secret from settings")[0]["secret"]

    def set_mining(self, block_interval_s: float, fee_rate: int | None) -> None:
        """Have a block come by itself every so often, or never with 0; and fees of so many satoshis for each byte."""
        with self._books.transaction() as connection:
            connection.execute("update settings set block_interval_s = ?, due_s = unixepoch()", (block_interval_s,))
            if fee_rate is not None:
                connection.execute("update settings set fee_rate = ?", (fee_rate,))

    def catch_up(self, now_s: float) -> None:
        """Mine the blocks whose time has come."""
        interval_s, due_s = self._setting("block_interval_s"), self._setting("due_s")
        if not interval_s or now_s < due_s + interval_s:
            return
        due = int((now_s - due_s) // interval_s)
        with self._books.transaction() as connection:
            connection.execute("update settings set due_s = ?", (due_s + due * interval_s,))
        self.mine(min(due, DUE_MAX))

    def best(self) -> tuple[int, str]:
        """The last block's height and hash."""
        row = self._books.read("select height, hash from blocks order by height desc limit 1")[0]
        return row["height"], row["hash"]

    def mine(self, count: int) -> list[str]:
        """Mine so many blocks; the first takes all that waits. Their hashes."""
        with self._books.transaction() as connection:
            return [_mine(connection) for _ in range(count)]

    def reorganize(self, *, forget: bool) -> list[str]:
        """Replace the last block by two that are empty; their hashes.

        What it held waits again. With ``forget`` the node has never heard of what waits, but for money from outside.
        """
        height, _ = self.best()
        if height == 0:
            raise RpcError(INVALID_PARAMETER, "there is no block to replace")
        with self._books.transaction() as connection:
            connection.execute("update transactions set height = null where height = ?", (height,))
            if forget:
                _forget(connection)
            connection.execute("delete from blocks where height = ?", (height,))
            return [_add_block(connection)[0] for _ in range(2)]

    def new_address(self) -> str:
        """Another address of the wallet's."""
        with self._books.transaction() as connection:
            return self._new_address(connection)

    def receive(self, address: str, satoshis: int) -> Outpoint:
        """Somebody pays from outside; it waits for a block."""
        with self._books.transaction() as connection:
            # Contents that no other transaction has, as the heights in coinbases make them.
            nowhere = Spent(NOWHERE, NO_OUTPUT, secrets.token_bytes(8))
            transaction = Transaction((nowhere,), (Paid(satoshis, _script(address)),))
            _insert(connection, transaction, fee=0, is_from_outside=True)
        return Outpoint(transaction.txid, 0)

    def unspent(self, confirmations_min: int) -> list[sqlite3.Row]:
        """The wallet's coins that are not locked."""
        best, _ = self.best()
        rows = self._books.read(
            "select *, case when height is null then 0 else ? - height + 1 end as confirmations from unspent"
            " where confirmations >= ? order by height is null, number",
            best,
            confirmations_min,
        )
        return [row for row in rows if Outpoint(row["txid"], row["output_index"]) not in self._locked]

    def lock(self, outpoints: Sequence[Outpoint], *, unlock: bool) -> None:
        """Keep coins from being spent by ``fund``, or let them. RpcError for one that is not a coin, or locked."""
        free = {Outpoint(row["txid"], row["output_index"]) for row in self.unspent(0)}
        for outpoint in outpoints:
            if (outpoint not in self._locked) if unlock else (outpoint not in free):
                raise RpcError(INVALID_PARAMETER, "Invalid parameter, expected unspent output")
        self._locked = self._locked - set(outpoints) if unlock else self._locked | set(outpoints)

    def unlock_all(self) -> None:
        """Lock nothing any more."""
        self._locked = set()

    def fund(self, transaction: Transaction) -> tuple[Transaction, int]:
        """Add coins of the wallet's, and its change; the fee in satoshis. RpcError where there are not enough."""
        needed = sum(output.satoshis for output in transaction.outputs)
        rate = int(self._setting("fee_rate"))
        with self._books.transaction() as connection:
            change = _script(self._new_address(connection))
        chosen: list[Spent] = []
        have = 0
        for row in self.unspent(0):
            if row["height"] is None and row["is_from_outside"]:
                continue
            chosen.append(Spent(row["txid"], row["output_index"], bytes(_PROOF_BYTES)))
            have += row["satoshis"]
            with_change = Transaction(tuple(chosen), (*transaction.outputs, Paid(0, change)))
            fee = rate * len(with_change.serialized())
            rest = have - needed - fee
            if rest >= _DUST:
                return replace(with_change, outputs=(*transaction.outputs, Paid(rest, change))), fee
            if rest >= 0:
                return replace(with_change, outputs=transaction.outputs), have - needed
        raise RpcError(WALLET_ERROR, "Insufficient funds")

    def sign(self, transaction: Transaction) -> Transaction:
        """Prove that the wallet may spend what the transaction spends."""
        return transaction.signed(self._secret)

    def accept(self, transaction: Transaction) -> str:
        """Take a transaction into the mempool, or find it there: its id. RpcError for what bitcoind refuses."""
        txid = transaction.txid
        known = self._books.read("select height from transactions where txid = ?", txid)
        if known and known[0]["height"] is None:
            return txid
        if known and self._books.read("select 1 from unspent_anywhere where txid = ?", txid):
            raise RpcError(IN_CHAIN, "Transaction outputs already in utxo set")
        with self._books.transaction() as connection:
            came = self._spendable(connection, transaction)
            fee = came - sum(output.satoshis for output in transaction.outputs)
            if fee < 0:
                raise RpcError(VERIFY_REJECTED, "bad-txns-in-belowout")
            if transaction.signed(self._secret) != transaction:
                raise RpcError(VERIFY_REJECTED, "mandatory-script-verify-flag-failed")
            _insert(connection, transaction, fee=fee, is_from_outside=False)
        return txid

    def confirmations(self, txid: str) -> sqlite3.Row:
        """A transaction, and how many blocks hold it. RpcError for one that is not known."""
        best, _ = self.best()
        rows = self._books.read(
            "select *, case when height is null then 0 else ? - height + 1 end as confirmations"
            " from transactions where txid = ?",
            best,
            txid,
        )
        if not rows:
            raise RpcError(NOT_FOUND, "Invalid or non-wallet transaction id")
        return rows[0]

    def _spendable(self, connection: sqlite3.Connection, transaction: Transaction) -> int:
        """What the inputs are worth. RpcError for one that is not there, is spent, or is not the wallet's."""
        total = 0
        for each in transaction.inputs:
            place = (each.txid, each.index)
            found = connection.execute(
                "select o.satoshis from outputs as o join addresses as a on a.address = o.address"
                " where o.txid = ? and o.output_index = ?",
                place,
            ).fetchone()
            spender = connection.execute(
                "select t.height from inputs as i join transactions as t on t.txid = i.txid"
                " where i.spent_txid = ? and i.spent_index = ?",
                place,
            ).fetchone()
            if spender is not None and spender["height"] is None:
                raise RpcError(VERIFY_REJECTED, "txn-mempool-conflict")
            if found is None or spender is not None:
                raise RpcError(VERIFY_ERROR, _MISSING)
            total += found["satoshis"]
        return total

    def _new_address(self, connection: sqlite3.Connection) -> str:
        row = connection.execute("select coalesce(max(number), 0) + 1 as number from addresses").fetchone()
        address = address_from(self._secret + row["number"].to_bytes(8))
        connection.execute("insert into addresses values (?, ?)", (row["number"], address))
        return address

    def _setting(self, name: str) -> float:
        return self._books.read("select * from settings")[0][name]


def _script(address: str) -> bytes:
    try:
        return script_of(address)
    except AddressError as error:
        raise RpcError(NOT_FOUND, f"Invalid Bitcoin address: {address}") from error


def _mine(connection: sqlite3.Connection) -> str:
    block, height = _add_block(connection)
    connection.execute("update transactions set height = ? where height is null", (height,))
    return block


def _add_block(connection: sqlite3.Connection) -> tuple[str, int]:
    row = connection.execute("select height, hash from blocks order by height desc limit 1").fetchone()
    height = row["height"] + 1
    block = sha256(f"{row['hash']} {secrets.token_hex()}".encode()).hexdigest()
    connection.execute("insert into blocks values (?, ?)", (height, block))
    return block, height


def _forget(connection: sqlite3.Connection) -> None:
    """Drop what waits, the last first: it may spend what others that wait have paid."""
    waiting = connection.execute(
        "select txid from transactions where height is null and not is_from_outside order by number desc"
    ).fetchall()
    connection.executemany("delete from transactions where txid = ?", [(row["txid"],) for row in waiting])


def _insert(connection: sqlite3.Connection, transaction: Transaction, *, fee: int, is_from_outside: bool) -> None:
    txid = transaction.txid
    connection.execute(
        "insert into transactions (txid, raw, fee, is_from_outside) values (?, ?, ?, ?)",
        (txid, transaction.serialized().hex(), fee, is_from_outside),
    )
    connection.executemany(
        "insert into outputs values (?, ?, ?, ?)",
        [(txid, at, each.satoshis, address_of(each.script)) for at, each in enumerate(transaction.outputs)],
    )
    if not is_from_outside:
        connection.executemany(
            "insert into inputs values (?, ?, ?)", [(txid, each.txid, each.index) for each in transaction.inputs]
        )
