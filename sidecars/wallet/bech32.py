"""Bech32 and Bech32m, the segregated witness addresses written in them, and CashAddr, which shares their alphabet.

Sources: BIP 173, BIP 350 (which amends it for witness versions from 1 on), and the specification of CashAddr.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sidecars.wallet.base58 import AddressError

SEGWIT_CHARS_MAX: Final = 90
# The longest hash that the specification knows, and room for a prefix.
CASH_CHARS_MAX: Final = 128

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECKSUM_CHARS: Final = 6
_CASH_CHECKSUM_CHARS: Final = 8
_PREFIX_CHARS_MAX: Final = 83
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CASH_GENERATOR: Final = (0x98F2BC8E61, 0x79B76D99E2, 0xF33E5FB3C4, 0xAE2EABE2A8, 0x1E4F43E470)
_WITNESS_VERSION_MAX: Final = 16


class Encoding(IntEnum):
    """Which checksum a text has: the constants that are left when it is right."""

    BECH32 = 1
    BECH32M = 0x2BC830A3


class Decoded(NamedTuple):
    """A text taken apart: what comes before the last ``1``, the 5-bit values after it, and which checksum they had."""

    prefix: str
    values: tuple[int, ...]
    encoding: Encoding


class Witness(NamedTuple):
    """A segregated witness address: its network's prefix, its version from 0 to 16, and its program."""

    prefix: str
    version: int
    program: bytes


def decode(text: str, *, chars_max: int = SEGWIT_CHARS_MAX) -> Decoded:
    """Take a text apart. AddressError for mixed case, a strange character, a wrong length or checksum."""
    prefix, separator, data = _in_one_case(text).rpartition("1")
    if not separator or not 1 <= len(prefix) <= _PREFIX_CHARS_MAX or len(text) > chars_max:
        raise AddressError(f"must have a prefix, a 1 and data, {chars_max} characters at most")
    if len(data) < _CHECKSUM_CHARS:
        raise AddressError("is too short to have a checksum")
    values = _values(data)
    left = _polymod(_expanded(prefix) + values, _GENERATOR, 25)
    if left not in (Encoding.BECH32, Encoding.BECH32M):
        raise AddressError("has a wrong checksum: a character is mistyped or missing")
    return Decoded(prefix, tuple(values[:-_CHECKSUM_CHARS]), Encoding(left))


def encode(prefix: str, values: Sequence[int], encoding: Encoding) -> str:
    """Write a text, in lower case."""
    left = _polymod([*_expanded(prefix), *values, *[0] * _CHECKSUM_CHARS], _GENERATOR, 25) ^ encoding
    checksum = [left >> 5 * (_CHECKSUM_CHARS - 1 - at) & 31 for at in range(_CHECKSUM_CHARS)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in (*values, *checksum))


def decode_witness(text: str) -> Witness:
    """Read a segregated witness address. AddressError for what BIP 350 refuses, whatever its prefix."""
    prefix, values, encoding = decode(text)
    if not values or values[0] > _WITNESS_VERSION_MAX:
        raise AddressError("must have a witness version from 0 to 16")
    version, program = values[0], to_bytes(values[1:])
    if version == 0 and len(program) not in (20, 32):
        raise AddressError("must have a witness program of 20 or 32 bytes, being of version 0")
    if not 2 <= len(program) <= 40:
        raise AddressError("must have a witness program of 2 to 40 bytes")
    if encoding is not _encoding_of(version):
        raise AddressError("has a wrong checksum: version 0 wants that of Bech32, later ones that of Bech32m")
    return Witness(prefix, version, program)


def encode_witness(witness: Witness) -> str:
    """Write a segregated witness address."""
    values = [witness.version, *to_values(witness.program)]
    return encode(witness.prefix, values, _encoding_of(witness.version))


def decode_cash(text: str, prefixes: Sequence[str]) -> tuple[str, int, bytes]:
    """Read a CashAddr address: its prefix, its type's number, and its hash.

    The prefix may be left out of the text: the checksum tells which of these it was. AddressError for none.
    """
    if len(text) > CASH_CHARS_MAX:
        raise AddressError(f"must have {CASH_CHARS_MAX} characters at most")
    lowered = _in_one_case(text)
    named, separator, data = lowered.rpartition(":")
    values = _values(data)
    found = [
        prefix
        for prefix in ([named] if separator else prefixes)
        if _polymod([*_low_bits(prefix), 0, *values], _CASH_GENERATOR, 35) == 1
    ]
    if not found:
        raise AddressError("has a wrong checksum: a character is mistyped or missing")
    payload = to_bytes(values[:-_CASH_CHECKSUM_CHARS])
    if not payload:
        raise AddressError("has a checksum, and nothing before it")
    version, *content = payload
    # Of the sizes that the specification lists, the ones that scripts have.
    if version & 0x80 or (version & 7, len(content)) not in ((0, 20), (3, 32)):
        raise AddressError("must be of 20 or 32 bytes, as its version byte says")
    return found[0], version >> 3, bytes(content)


def to_bytes(values: Sequence[int]) -> bytes:
    """Join 5-bit values into bytes. AddressError where what is left over is not fewer than 5 bits, all zero."""
    number = 0
    for value in values:
        number = number << 5 | value
    spare = len(values) * 5 % 8
    if spare >= 5 or number & (1 << spare) - 1:
        raise AddressError("has padding that is not as short as it can be, and zero")
    return (number >> spare).to_bytes(len(values) * 5 // 8)


def to_values(data: bytes) -> list[int]:
    """Split bytes into 5-bit values, the last one filled up with zeros."""
    count = (len(data) * 8 + 4) // 5
    number = int.from_bytes(data) << (count * 5 - len(data) * 8)
    return [number >> 5 * (count - 1 - at) & 31 for at in range(count)]


def _encoding_of(version: int) -> Encoding:
    return Encoding.BECH32 if version == 0 else Encoding.BECH32M


def _in_one_case(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise AddressError("must be printable ASCII, without spaces")
    lowered = text.lower()
    if text not in (lowered, text.upper()):
        raise AddressError("must not mix upper and lower case")
    return lowered


def _values(data: str) -> list[int]:
    values = [_ALPHABET.find(char) for char in data]
    if -1 in values:
        raise AddressError("has a character that Bech32 has not")
    return values


def _expanded(prefix: str) -> list[int]:
    return [*[ord(char) >> 5 for char in prefix], 0, *_low_bits(prefix)]


def _low_bits(prefix: str) -> list[int]:
    return [ord(char) & 31 for char in prefix]


def _polymod(values: Sequence[int], generator: Sequence[int], shift: int) -> int:
    left = 1
    for value in values:
        top = left >> shift
        left = (left & (1 << shift) - 1) << 5 ^ value
        for bit, constant in enumerate(generator):
            if top >> bit & 1:
                left ^= constant
    return left
