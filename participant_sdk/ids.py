"""Identifiers: of transactions, branches and clients' intents.

An xid is a UUID of version 8 (RFC 9562, section 5.8) whose custom bits are, from the
front: 48 bits of Unix milliseconds, the 32-bit incarnation that gave it out, and a 42-bit
sequence. The version (4 bits) and variant (2 bits) stand where RFC 9562 wants them, so
the incarnation is split 12 + 20 around the variant. Xids of one incarnation rise, and
indexes on them append.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

XID_SIZE_BYTES: Final = 16
INCARNATION_MAX: Final = 2**32 - 1
SEQUENCE_MAX: Final = 2**42 - 1
UNIX_MS_MAX: Final = 2**48 - 1
REQUEST_ID_MAX_CHARS: Final = 128
GID_MAX_BYTES: Final = 199

_XID_TEXT: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_LOG_ID: Final = re.compile(r"[0-9a-f]{16}")


class InvalidIdentifierError(ValueError):
    """An identifier does not have its form. The message names the form."""


class Xid(bytes):
    """A global transaction's identifier: 16 bytes, ordered by time within an incarnation.

    A subclass of ``bytes``, so that hashing, comparing and packing side by side cost
    nothing in Python; ``str(xid)`` is the UUID's text.
    """

    __slots__ = ()

    @classmethod
    def make(cls, unix_ms: int, incarnation: int, sequence: int) -> Xid:
        """Build the xid with these parts. Bounds: 48, 32 and 42 bits, checked."""
        if not (0 <= unix_ms <= UNIX_MS_MAX and 0 < incarnation <= INCARNATION_MAX and 0 <= sequence <= SEQUENCE_MAX):
            raise InvalidIdentifierError(f"xid parts out of range: {unix_ms}, {incarnation}, {sequence}")
        return cls((_front(unix_ms, incarnation) | sequence).to_bytes(XID_SIZE_BYTES, "big"))

    @classmethod
    def parse(cls, text: str) -> Xid:
        """Read the UUID text, 36 lower-case characters. InvalidIdentifierError for any other text."""
        if not _XID_TEXT.fullmatch(text):
            raise InvalidIdentifierError(f"not an xid (a UUID of version 8, in lower case): {text[:64]!r}")
        return cls(bytes.fromhex(text.replace("-", "")))

    @classmethod
    def unpack(cls, packed: bytes) -> list[Xid]:
        """Cut a column of xids, 16 bytes each. InvalidIdentifierError unless it divides evenly."""
        if len(packed) % XID_SIZE_BYTES:
            raise InvalidIdentifierError(f"a column of xids has {len(packed)} bytes, not a multiple of 16")
        return [cls(packed[at : at + XID_SIZE_BYTES]) for at in range(0, len(packed), XID_SIZE_BYTES)]

    @classmethod
    def floor(cls, unix_ms: int) -> Xid:
        """What every xid given out at this time or later is above, and every earlier one below; no xid itself."""
        return cls((unix_ms << 80).to_bytes(XID_SIZE_BYTES, "big"))

    @property
    def unix_ms(self) -> int:
        """When it was given out, by the coordinator's wall clock."""
        return int.from_bytes(self[:6], "big")

    @property
    def incarnation(self) -> int:
        """The incarnation that gave it out."""
        value = int.from_bytes(self, "big")
        return (value >> 64 & 0xFFF) << 20 | value >> 42 & 0xFFFFF

    @property
    def sequence(self) -> int:
        """Its place among the incarnation's xids."""
        return int.from_bytes(self, "big") & SEQUENCE_MAX

    def __str__(self) -> str:
        # With a dash after every second byte, all but three stand where a UUID has them.
        text = self.hex("-", 2)
        return text[:4] + text[5:29] + text[30:34] + text[35:]

    def __repr__(self) -> str:
        return f"Xid({self!s})"


def _front(unix_ms: int, incarnation: int) -> int:
    """All of an xid but its sequence, as a number."""
    return unix_ms << 80 | 8 << 76 | (incarnation >> 20) << 64 | 2 << 62 | (incarnation & 0xFFFFF) << 42


class XidSource:
    """Gives out one incarnation's xids, rising even where the wall clock goes back.

    What the xids of one millisecond have in common is put together once.
    """

    __slots__ = ("_front", "_incarnation", "_last_ms", "_sequence")

    def __init__(self, incarnation: int) -> None:
        self._incarnation = incarnation
        self._last_ms = 0
        self._sequence = 0
        self._front = _front(0, incarnation)

    def next(self, unix_ms: int) -> Xid:
        """Give out the next xid, at this time by the wall clock."""
        self._sequence += 1
        if unix_ms > self._last_ms:
            xid = Xid.make(unix_ms, self._incarnation, self._sequence)
            self._last_ms, self._front = unix_ms, int.from_bytes(xid, "big") - self._sequence
            return xid
        return Xid((self._front | self._sequence).to_bytes(XID_SIZE_BYTES, "big"))

    def gave(self, xid: Xid) -> bool:
        """Whether this source gave the xid out."""
        return xid.incarnation == self._incarnation and 0 < xid.sequence <= self._sequence


@dataclass(frozen=True, slots=True)
class BranchId:
    """One participant's share of one transaction, named across logs."""

    log_id: str
    xid: Xid
    participant: str

    @property
    def gid(self) -> str:
        """The name of a PostgreSQL prepared transaction: under 200 bytes, unique in a cluster."""
        return f"pincex:{self.log_id}:{self.xid}:{self.participant}"

    @classmethod
    def parse_gid(cls, gid: str) -> BranchId:
        """Read a GID of ours. InvalidIdentifierError for any other GID."""
        parts = gid.split(":")
        if len(parts) != 4 or parts[0] != "pincex" or not _LOG_ID.fullmatch(parts[1]):
            raise InvalidIdentifierError(f"not a GID of this system: {gid[:GID_MAX_BYTES]!r}")
        return cls(parts[1], Xid.parse(parts[2]), check_participant(parts[3]))


class RequestId(NamedTuple):
    """A client's name of its intent, unique within its tenant. A named tuple, because it is looked up so often."""

    tenant: str
    name: str


def check_participant(name: str) -> str:
    """Return the participant's name, or raise InvalidIdentifierError: a-z first, then a-z 0-9 _ -, 64 at most."""
    if not _NAME.fullmatch(name):
        raise InvalidIdentifierError(
            f"not a participant's name (a-z first, then a-z 0-9 _ -, at most 64): {name[:64]!r}"
        )
    return name


def check_request_id(name: str) -> str:
    """Return the request_id, or raise InvalidIdentifierError: 1 to 128 printable ASCII characters, no spaces."""
    if not _REQUEST_ID.fullmatch(name):
        raise InvalidIdentifierError(
            f"not a request_id (1 to {REQUEST_ID_MAX_CHARS} printable ASCII characters): {name[:64]!r}"
        )
    return name


def check_log_id(log_id: str) -> str:
    """Return the log id, or raise InvalidIdentifierError: 16 hexadecimal digits."""
    if not _LOG_ID.fullmatch(log_id):
        raise InvalidIdentifierError(f"not a log id (16 hexadecimal digits): {log_id[:64]!r}")
    return log_id
