"""A batch of records as columns for one statement: no Python per element but building lists.

Texts of one column travel as one text, joined by a control character; uuids, small integers
and digests as PostgreSQL's binary array form, put together by ``bytes.join``. An empty text,
digest or list of participants becomes NULL. The memory log packs too, only to refuse the same
values.

Source: PostgreSQL, ``src/backend/utils/adt/arrayfuncs.c``, ``array_recv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from coordinator.log.decision_log import BadRecordError
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision

SEPARATOR: Final = "\x1f"
DIGEST_MAX_BYTES: Final = 64
# One text: the votes of a hundred branches at their largest, every character escaped.
TEXT_MAX_CHARS: Final = 16 * 1024 * 1024
# One column of a batch, far below what PostgreSQL takes as one value (1 GB), and in memory.
COLUMN_MAX_CHARS: Final = 2 * TEXT_MAX_CHARS

UUID_OID: Final = 2950
SMALLINT_OID: Final = 21
BYTEA_OID: Final = 17

# Dimensions, whether there may be NULLs, the elements' type, the length, the first index.
_ARRAY_HEAD: Final = Struct("!iiIii")
_UUID_SIZE: Final = b"\x00\x00\x00\x10"
_DECISION: Final = {decision: b"\x00\x00\x00\x02" + decision.to_bytes(2, "big") for decision in Decision}
_DIGEST_SIZE: Final = (b"\xff\xff\xff\xff", *(size.to_bytes(4, "big") for size in range(1, DIGEST_MAX_BYTES + 1)))


class UuidArray(bytes):
    """A uuid[] in PostgreSQL's binary form."""

    __slots__ = ()

    @classmethod
    def of(cls, xids: Sequence[Xid]) -> UuidArray:
        """Put xids together."""
        return cls(_array(UUID_OID, len(xids), _UUID_SIZE + _UUID_SIZE.join(xids) if xids else b""))


class SmallintArray(bytes):
    """A smallint[] in PostgreSQL's binary form."""

    __slots__ = ()


class ByteaArray(bytes):
    """A bytea[] in PostgreSQL's binary form."""

    __slots__ = ()


class Columns(NamedTuple):
    """The records' columns; all of one length, but that an empty text stands for no or one NULL."""

    size: int
    xids: UuidArray
    decisions: SmallintArray
    prepared: str
    tenants: str
    request_ids: str
    digests: ByteaArray
    reasons: str
    results: str

    @property
    def parameters(self) -> tuple[bytes, ...]:
        """The columns as parameters in PostgreSQL's binary form."""
        return (
            self.xids,
            self.decisions,
            self.prepared.encode(),
            self.tenants.encode(),
            self.request_ids.encode(),
            self.digests,
            self.reasons.encode(),
            self.results.encode(),
        )


def pack(records: Sequence[DecisionRecord]) -> Columns:
    """Make the columns. BadRecordError for a value that the log does not keep, naming the column.

    Also for a batch that is too much for one statement, of which each half may pass.
    """
    count = len(records)
    digests = [record.digest for record in records]
    if max(map(len, digests), default=0) > DIGEST_MAX_BYTES:
        raise BadRecordError(f"request_digest: more than {DIGEST_MAX_BYTES} bytes")
    bound = [record.request for record in records]
    if not all(request is None or (request.tenant and request.name) for request in bound):
        raise BadRecordError("request_id: an empty name or tenant")
    return Columns(
        count,
        UuidArray.of([record.xid for record in records]),
        SmallintArray(_array(SMALLINT_OID, count, b"".join([_DECISION[record.decision] for record in records]))),
        _join("prepared", [",".join(record.prepared) for record in records]),
        _join("tenant", ["" if request is None else request.tenant for request in bound]),
        _join("request_id", ["" if request is None else request.name for request in bound]),
        ByteaArray(_array(BYTEA_OID, count, b"".join([_DIGEST_SIZE[len(digest)] + digest for digest in digests]))),
        _join("reason", [record.reason for record in records], for_people=True),
        _join("results", [record.results for record in records], for_people=True),
    )


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep the text: it has a form in UTF-8, and no NUL in it."""
    return "\x00" not in text and (text.isascii() or text == text.encode("utf-8", "replace").decode())


def storable(text: str) -> str:
    """The text with what PostgreSQL cannot keep replaced, for messages that must not be lost."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def kept(record: DecisionRecord) -> DecisionRecord:
    """The record as the log keeps it: what its columns cannot carry of texts for people is replaced."""
    if is_storable(record.reason + record.results) and SEPARATOR not in record.reason + record.results:
        return record
    return record._replace(reason=_replaced(record.reason), results=_replaced(record.results))


def _replaced(text: str) -> str:
    return storable(text).replace(SEPARATOR, "\ufffd")


def _array(oid: int, count: int, elements: bytes) -> bytes:
    return _ARRAY_HEAD.pack(1 if count else 0, 1, oid, count, 1)[: 20 if count else 12] + elements


def _join(column: str, texts: list[str], *, for_people: bool = False) -> str:
    """Join texts. What cannot be kept of a text that only people read is replaced: it must not cost a decision."""
    joined = SEPARATOR.join(texts)
    if joined.count(SEPARATOR) >= max(1, len(texts)) or not is_storable(joined):
        if not for_people:
            raise BadRecordError(f"{column}: a unit separator, a NUL or an unpaired surrogate")
        joined = SEPARATOR.join([_replaced(text) for text in texts])
    if len(joined) > TEXT_MAX_CHARS:
        if max(map(len, texts)) > TEXT_MAX_CHARS:
            raise BadRecordError(f"{column}: more than {TEXT_MAX_CHARS} characters")
        if len(joined) > COLUMN_MAX_CHARS:
            raise BadRecordError(f"{column}: more than {COLUMN_MAX_CHARS} characters in one batch")
    return joined
