"""What users have elsewhere: bank accounts, and addresses on the chain that are not of the exchange's wallet."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import Final

from stdnum import iban

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# The version byte of an address for a key, on the regression test network.
_REGTEST: Final = b"\x6f"
_KEY_BYTES: Final = 20
_GERMAN_DIGITS: Final = 18
# Payments to it are rejected, once the bank has been told so.
CLOSED_IBAN: Final = "GB33BUKB20201555555555"


def bank_account(random: Random) -> str:
    """An IBAN that is well formed."""
    digits = "".join(random.choices("0123456789", k=_GERMAN_DIGITS))
    return f"DE{iban.calc_check_digits(f'DE00{digits}')}{digits}"


def chain_address(random: Random) -> str:
    """An address in Base58Check; with 160 random bits, one that nobody has had."""
    payload = _REGTEST + random.randbytes(_KEY_BYTES)
    data = payload + sha256(sha256(payload).digest()).digest()[:4]
    number = int.from_bytes(data)
    written = ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        written = _ALPHABET[digit] + written
    return written
