"""Transactions as Bitcoin writes them, in the form before segregated witness, and scripts that pay to addresses.

What is signed here is signed with the simulator's own secret, in place of elliptic curves: only it can make, and
only it checks, such signatures. Everything else is Bitcoin's, so that ids are made of contents.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sidecars.wallet import base58, bech32
from sidecars.wallet.base58 import AddressError

VERSION: Final = 2
SEQUENCE: Final = 0xFFFFFFFD
# What the input of a transaction from outside names: no transaction, and no output of it.
NOWHERE: Final = "00" * 32
NO_OUTPUT: Final = 0xFFFFFFFF
_PREFIX: Final = "bcrt"
_KEY_HASH: Final = 111
_SCRIPT_HASH: Final = 196


class MalformedError(ValueError):
    """The bytes are no transaction."""


@dataclass(frozen=True, slots=True)
class Spent:
    """An input: the output that it spends, and what proves that it may."""

    txid: str
    index: int
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class Paid:
    """An output: so many satoshis, to whoever the script lets spend them."""

    satoshis: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction."""

    inputs: tuple[Spent, ...]
    outputs: tuple[Paid, ...]

    def serialized(self) -> bytes:
        """The bytes that travel."""
        parts = [VERSION.to_bytes(4, "little"), _count(len(self.inputs))]
        for each in self.inputs:
            parts += [bytes.fromhex(each.txid)[::-1], each.index.to_bytes(4, "little")]
            parts += [_count(len(each.proof)), each.proof, SEQUENCE.to_bytes(4, "little")]
        parts.append(_count(len(self.outputs)))
        for output in self.outputs:
            parts += [output.satoshis.to_bytes(8, "little"), _count(len(output.script)), output.script]
        return b"".join([*parts, bytes(4)])

    @property
    def txid(self) -> str:
        """The hash of the bytes, written backwards as Bitcoin does."""
        return sha256(sha256(self.serialized()).digest()).digest()[::-1].hex()

    def signed(self, secret: bytes) -> Transaction:
        """The transaction with its inputs proved."""
        bare = replace(self, inputs=tuple(replace(each, proof=b"") for each in self.inputs))
        proof = hmac.digest(secret, bare.serialized(), "sha256")
        return replace(self, inputs=tuple(replace(each, proof=proof) for each in self.inputs))


def parse(data: bytes) -> Transaction:
    """Read a transaction. MalformedError for anything that is not wholly one."""
    reader = _Reader(data)
    reader.number(4)
    inputs = tuple(_read_spent(reader) for _ in range(reader.count()))
    outputs = tuple(_read_paid(reader) for _ in range(reader.count()))
    reader.number(4)
    transaction = Transaction(inputs, outputs)
    if transaction.serialized() != data:
        raise MalformedError("not a transaction in its one form")
    return transaction


def script_of(address: str) -> bytes:
    """The script that pays to an address of the regression test network. AddressError for any other."""
    if address.lower().startswith(f"{_PREFIX}1"):
        witness = bech32.decode_witness(address)
        version = witness.version + (0x50 if witness.version else 0)
        return bytes([version, len(witness.program)]) + witness.program
    payload = base58.decode_check(address)
    if len(payload) != 21 or payload[0] not in (_KEY_HASH, _SCRIPT_HASH):
        raise AddressError("is not of the regression test network")
    hashed = payload[1:]
    return b"\x76\xa9\x14" + hashed + b"\x88\xac" if payload[0] == _KEY_HASH else b"\xa9\x14" + hashed + b"\x87"


def address_of(script: bytes) -> str:
    """The address that a script of ``script_of`` pays to."""
    if script.startswith(b"\x76"):
        return base58.encode_check(bytes([_KEY_HASH]) + script[3:23])
    if script.startswith(b"\xa9"):
        return base58.encode_check(bytes([_SCRIPT_HASH]) + script[2:22])
    version = script[0] - 0x50 if script[0] else 0
    return bech32.encode_witness(bech32.Witness(_PREFIX, version, script[2:]))


def address_from(seed: bytes) -> str:
    """The address for a key that is never needed: what makes it ours is the simulator's list."""
    return bech32.encode_witness(bech32.Witness(_PREFIX, 0, sha256(seed).digest()[:20]))


class _Reader:
    """Reads from the left. Mutable: it remembers how far."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise MalformedError("the transaction ends too soon")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def count(self) -> int:
        first = self.number(1)
        if first > 0xFD:
            raise MalformedError("a list of more than 65,535")
        return first if first < 0xFD else self.number(2)


def _count(number: int) -> bytes:
    return bytes([number]) if number < 0xFD else b"\xfd" + number.to_bytes(2, "little")


def _read_spent(reader: _Reader) -> Spent:
    txid = reader.take(32)[::-1].hex()
    index = reader.number(4)
    proof = reader.take(reader.count())
    reader.number(4)
    return Spent(txid, index, proof)


def _read_paid(reader: _Reader) -> Paid:
    satoshis = reader.number(8)
    return Paid(satoshis, reader.take(reader.count()))
