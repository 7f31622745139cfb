"""Is this an address of that currency's chain, with a right checksum, and of which network?

The chain of a currency decides; for one that is an address of another chain, that one is named. What each
chain has for a checksum: Base58Check (BTC, LTC, DOGE, BCH in its old form; XRP, in its own alphabet), Bech32
and Bech32m (BTC, LTC, ADA), CashAddr (BCH), EIP-55 (ETH, and the tokens there), SS58 (DOT). SOL has none: its
addresses are 32 bytes in base 58. An Ethereum address in one case has none either, as EIP-55 says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntFlag
from hashlib import blake2b
from typing import Final, NamedTuple

from eth_hash.auto import keccak

from sidecars.wallet import base58, bech32
from sidecars.wallet.base58 import AddressError


class Network(IntFlag):
    """Which of a chain's networks. The numbers are the settings table's."""

    MAIN = 1
    TEST = 2
    SIGNET = 4
    REGTEST = 8


class Address(NamedTuple):
    """An address as it is kept: in its one canonical form, with the networks where it is one."""

    text: str
    networks: Network


_MAIN: Final = Network.MAIN
_REGTEST: Final = Network.REGTEST
_PUBLIC_TESTS: Final = Network.TEST | Network.SIGNET
_TESTS: Final = _PUBLIC_TESTS | _REGTEST
_ALL: Final = _MAIN | _TESTS
_HASH_BYTES: Final = 20
_CARDANO_CHARS_MAX: Final = 128

Reader = Callable[[str], Address]


class _BitcoinChain(NamedTuple):
    """How the addresses of a chain of Bitcoin's family begin."""

    versions: Mapping[int, Network]
    prefixes: Mapping[str, Network]

    def read(self, text: str) -> Address:
        """Read an address: by its prefix, or else in base 58."""
        if text.lower().startswith(tuple(f"{prefix}1" for prefix in self.prefixes)):
            networks = self.prefixes.get(bech32.decode_witness(text).prefix)
            if networks is None:
                raise AddressError("has a prefix of no network")
            return Address(text.lower(), networks)
        payload = base58.decode_check(text)
        networks = self.versions.get(payload[0])
        if networks is None or len(payload) != 1 + _HASH_BYTES:
            raise AddressError("has a version byte or a length that this chain has not")
        return Address(text, networks)


_BTC: Final = _BitcoinChain(
    {0: _MAIN, 5: _MAIN, 111: _TESTS, 196: _TESTS}, {"bcrt": _REGTEST, "bc": _MAIN, "tb": _PUBLIC_TESTS}
)
# Without version 5, which LTC once shared with BTC: who pays to such an address most likely means the other chain.
_LTC: Final = _BitcoinChain(
    {48: _MAIN, 50: _MAIN, 111: _TESTS, 58: _TESTS}, {"rltc": _REGTEST, "ltc": _MAIN, "tltc": _PUBLIC_TESTS}
)
_DOGE: Final = _BitcoinChain({30: _MAIN, 22: _MAIN, 113: _PUBLIC_TESTS, 111: _REGTEST, 196: _TESTS}, {})
_BCH_OLD: Final = _BitcoinChain({0: _MAIN, 5: _MAIN, 111: _TESTS, 196: _TESTS}, {})
_BCH_PREFIXES: Final = {"bitcoincash": _MAIN, "bchtest": _PUBLIC_TESTS, "bchreg": _REGTEST}


def _read_bch(text: str) -> Address:
    """Read CashAddr, with or without its prefix, or the old form, which is the same as BTC's."""
    if ":" not in text and len(text) < 42:
        return _BCH_OLD.read(text)
    prefix, kind, _ = bech32.decode_cash(text, tuple(_BCH_PREFIXES))
    if prefix not in _BCH_PREFIXES or kind > 1:
        raise AddressError("has a prefix or a type that this chain has not")
    return Address(f"{prefix}:{text.lower().rpartition(':')[2]}", _BCH_PREFIXES[prefix])


def _read_ethereum(text: str) -> Address:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text, re.ASCII):
        raise AddressError("must be 0x and 40 hexadecimal digits")
    digits = text[2:]
    checked = _with_checksum(digits.lower())
    if digits not in (checked, digits.lower(), digits.upper()):
        raise AddressError("has a wrong checksum (EIP-55): a character is mistyped, or its case is")
    return Address(f"0x{checked}", _ALL)


def _with_checksum(digits: str) -> str:
    """A letter is a capital where the hash of the digits has a high digit at its place."""
    hashed = keccak(digits.encode()).hex()
    return "".join(
        digit.upper() if int(at, 16) >= 8 else digit for digit, at in zip(digits, hashed[: len(digits)], strict=True)
    )


def _read_xrp(text: str) -> Address:
    payload = base58.decode_check(text, base58.XRP_ALPHABET)
    if payload[0] != 0 or len(payload) != 1 + _HASH_BYTES:
        raise AddressError("must be the address of an account, beginning with r")
    return Address(text, _ALL)


def _read_solana(text: str) -> Address:
    if len(base58.decode(text)) != 32:
        raise AddressError("must be 32 bytes in base 58")
    return Address(text, _ALL)


def _read_cardano(text: str) -> Address:
    """Read an address of CIP-19's types 0 to 3, 6 and 7, which have a key or script and may have a stake."""
    prefix, values, encoding = bech32.decode(text, chars_max=_CARDANO_CHARS_MAX)
    networks = {"addr": _MAIN, "addr_test": _TESTS}.get(prefix)
    if networks is None or encoding is not bech32.Encoding.BECH32:
        raise AddressError("must begin with addr1, or addr_test1")
    content = bech32.to_bytes(values)
    kind, network = (content[0] >> 4, content[0] & 15) if content else (15, 15)
    lengths = {0: 57, 1: 57, 2: 57, 3: 57, 6: 29, 7: 29}
    if lengths.get(kind) != len(content) or network != (1 if networks is _MAIN else 0):
        raise AddressError("has a header that does not agree with its length or network")
    return Address(text.lower(), networks)


def _read_polkadot(text: str) -> Address:
    content = base58.decode(text)
    if len(content) != 35 or content[0] != 0:
        raise AddressError("must be of the relay chain's format, beginning with 1")
    if blake2b(b"SS58PRE" + content[:-2]).digest()[:2] != content[-2:]:
        raise AddressError("has a wrong checksum: a character is mistyped or missing")
    return Address(text, _ALL)


CHAINS: Final[Mapping[str, Reader]] = {
    "BTC": _BTC.read,
    "LTC": _LTC.read,
    "DOGE": _DOGE.read,
    "BCH": _read_bch,
    "ETH": _read_ethereum,
    "XRP": _read_xrp,
    "ADA": _read_cardano,
    "DOT": _read_polkadot,
    "SOL": _read_solana,
}
# Tokens are sent on ETH alone here.
_TOKENS: Final = {"USDT": "ETH", "USDC": "ETH", "DAI": "ETH"}
CHAIN_OF: Final[Mapping[str, str]] = {**{chain: chain for chain in CHAINS}, **_TOKENS}


class OtherChainError(AddressError):
    """The text is an address, of another chain. The message names it."""


def read_address(text: str, currency: str) -> Address:
    """Read an address to which ``currency``, one of ``CHAIN_OF``, can be sent; AddressError says why not."""
    chain = CHAIN_OF[currency]
    try:
        return CHAINS[chain](text)
    except AddressError as error:
        other = next((name for name, read in CHAINS.items() if name != chain and _is_address(read, text)), None)
        if other is None:
            raise
        raise OtherChainError(f"is an address of {other}, not of {chain}") from error


def _is_address(read: Reader, text: str) -> bool:
    try:
        read(text)
    except AddressError:
        return False
    return True
