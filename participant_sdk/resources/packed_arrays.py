"""PostgreSQL's parameters in their binary form; arrays are made column by column.

psycopg's own list dumper looks at every element; here a column is one join or one
``struct.pack``, several times cheaper. Source of the form: ``array_recv`` in PostgreSQL's
``arrayfuncs.c``: dimensions, a flag for nulls, the element's type, then for the one
dimension its length and lower bound, then each element with its length before it.
A jsonb is its text behind a version (``jsonb_recv`` in ``jsonb.c``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from psycopg import AsyncConnection, adapt, pq
from psycopg.abc import Buffer

_SMALLINT: Final = 21
_BIGINT: Final = 20
_TEXT: Final = 25
_BYTEA: Final = 17
_UUID: Final = 2950

_LENGTH: Final = struct.Struct(">i")
_LENGTH_16: Final = _LENGTH.pack(16)
_NULL: Final = _LENGTH.pack(-1)
_JSONB_VERSION: Final = b"\x01"


class UuidArray(bytes):
    """A ``uuid[]``."""

    __slots__ = ()


class BigintArray(bytes):
    """A ``bigint[]``."""

    __slots__ = ()


class SmallintArray(bytes):
    """A ``smallint[]``."""

    __slots__ = ()


class TextArray(bytes):
    """A ``text[]``."""

    __slots__ = ()


class ByteaArray(bytes):
    """A ``bytea[]``."""

    __slots__ = ()


def smallint(value: int) -> bytes:
    """Write a ``smallint``."""
    return struct.pack(">h", value)


def bigint(value: int) -> bytes:
    """Write a ``bigint``."""
    return struct.pack(">q", value)


def jsonb(text: str) -> bytes:
    """Write a ``jsonb``."""
    return _JSONB_VERSION + text.encode()


def uuids(values: Sequence[bytes]) -> UuidArray:
    """Pack values of 16 bytes each."""
    if not values:
        return UuidArray(_header(_UUID, 0, nulls=False))
    return UuidArray(_header(_UUID, len(values), nulls=False) + _LENGTH_16 + _LENGTH_16.join(values))


def bigints(values: Sequence[int]) -> BigintArray:
    """Pack values of 64 bits, signed."""
    body = struct.pack(">" + "iq" * len(values), *[part for value in values for part in (8, value)])
    return BigintArray(_header(_BIGINT, len(values), nulls=False) + body)


def smallints(values: Sequence[int | None]) -> SmallintArray:
    """Pack values of 16 bits, signed, and nulls."""
    if None in values:
        return SmallintArray(_variable(_SMALLINT, [None if value is None else smallint(value) for value in values]))
    body = struct.pack(">" + "ih" * len(values), *[part for value in values for part in (2, value)])
    return SmallintArray(_header(_SMALLINT, len(values), nulls=False) + body)


def texts(values: Sequence[str | None]) -> TextArray:
    """Pack texts and nulls."""
    return TextArray(_variable(_TEXT, [None if value is None else value.encode() for value in values]))


def byteas(values: Sequence[bytes | None]) -> ByteaArray:
    """Pack byte strings and nulls."""
    return ByteaArray(_variable(_BYTEA, values))


def register(connection: AsyncConnection[object]) -> None:
    """Teach a connection to send these arrays as they are."""
    for dumper in _DUMPERS:
        connection.adapters.register_dumper(dumper.kind, dumper)


def _variable(element: int, values: Sequence[bytes | None]) -> bytes:
    items = [_NULL if value is None else _LENGTH.pack(len(value)) + value for value in values]
    return _header(element, len(values), nulls=True) + b"".join(items)


def _header(element: int, length: int, *, nulls: bool) -> bytes:
    if length == 0:
        return struct.pack(">iiI", 0, 0, element)
    return struct.pack(">iiIii", 1, int(nulls), element, length, 1)


class _PackedDumper(adapt.Dumper):
    """Send the bytes as they are."""

    format = pq.Format.BINARY
    kind: type[bytes] = bytes

    def dump(self, obj: bytes) -> Buffer | None:
        return obj


class _UuidArrayDumper(_PackedDumper):
    kind = UuidArray
    oid = 2951


class _BigintArrayDumper(_PackedDumper):
    kind = BigintArray
    oid = 1016


class _SmallintArrayDumper(_PackedDumper):
    kind = SmallintArray
    oid = 1005


class _TextArrayDumper(_PackedDumper):
    kind = TextArray
    oid = 1009


class _ByteaArrayDumper(_PackedDumper):
    kind = ByteaArray
    oid = 1001


_DUMPERS: Final[tuple[type[_PackedDumper], ...]] = (
    _UuidArrayDumper,
    _BigintArrayDumper,
    _SmallintArrayDumper,
    _TextArrayDumper,
    _ByteaArrayDumper,
)
