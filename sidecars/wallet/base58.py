"""Base58, and Base58Check with its four bytes of double SHA-256, in the alphabets of Bitcoin and of the XRP Ledger.

Sources: Bitcoin Core's ``base58.cpp``; "base58 Encodings" in the XRP Ledger's documentation.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

BITCOIN_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
XRP_ALPHABET: Final = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"

_CHECKSUM_BYTES: Final = 4
_CHARS_MAX: Final = 128


class AddressError(ValueError):
    """The text is no address. The message goes on from "the address"."""


def decode(text: str, alphabet: str = BITCOIN_ALPHABET) -> bytes:
    """The bytes that the text stands for. AddressError for a character that is not in the alphabet."""
    if not 1 <= len(text) <= _CHARS_MAX:
        raise AddressError(f"must have from 1 to {_CHARS_MAX} characters")
    number = 0
    for char in text:
        digit = alphabet.find(char)
        if digit < 0:
            raise AddressError("has a character that base 58 has not")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def encode(data: bytes, alphabet: str = BITCOIN_ALPHABET) -> str:
    """The text that stands for the bytes."""
    number = int.from_bytes(data)
    chars: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        chars.append(alphabet[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return alphabet[0] * zeros + "".join(reversed(chars))


def decode_check(text: str, alphabet: str = BITCOIN_ALPHABET) -> bytes:
    """The bytes before the checksum. AddressError where that does not agree with them."""
    data = decode(text, alphabet)
    if len(data) <= _CHECKSUM_BYTES:
        raise AddressError("is too short to have a checksum")
    payload, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if _checksum(payload) != checksum:
        raise AddressError("has a wrong checksum: a character is mistyped or missing")
    return payload


def encode_check(payload: bytes, alphabet: str = BITCOIN_ALPHABET) -> str:
    """The text that stands for the bytes and their checksum."""
    return encode(payload + _checksum(payload), alphabet)


def _checksum(payload: bytes) -> bytes:
    return sha256(sha256(payload).digest()).digest()[:_CHECKSUM_BYTES]
