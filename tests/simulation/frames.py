"""Session frames for a reader's eye: a line each."""

from __future__ import annotations

from google.protobuf.message import Message
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.ids import Xid


def describe(frame: Message) -> str:
    """Say what a frame carries, in one line."""
    match frame:
        case resource_pb2.SessionRequest():
            return " ".join(_request_parts(frame))
        case resource_pb2.SessionResponse():
            return " ".join(_response_parts(frame))
        case _:
            return type(frame).__name__


def short(xid: Xid) -> str:
    """The end of an xid: incarnation and sequence, enough to tell transactions of one run apart."""
    return f"{xid.incarnation % 100_000}.{xid.sequence}"


def _request_parts(frame: resource_pb2.SessionRequest) -> list[str]:
    parts: list[str] = []
    if frame.HasField("hello"):
        parts.append(f"hello({frame.hello.coordinator} epoch {frame.hello.epoch})")
    if frame.prepares.xids:
        parts.append(f"prepare({_column(frame.prepares.xids)})")
    for batch in frame.commits:
        pairs = zip(Xid.unpack(batch.xids), batch.sequences, strict=True)
        parts.append(f"commit({', '.join(f'{short(xid)}#{sequence}' for xid, sequence in pairs)})")
    if frame.rollbacks.xids:
        parts.append(f"rollback({_column(frame.rollbacks.xids)})")
    return parts


def _response_parts(frame: resource_pb2.SessionResponse) -> list[str]:
    parts: list[str] = []
    if frame.HasField("hello"):
        parts.append(f"welcome({frame.hello.participant} {frame.hello.refusal})")
    if frame.votes.prepared_xids:
        parts.append(f"prepared({_column(frame.votes.prepared_xids)})")
    for xid, vote in zip(Xid.unpack(frame.votes.xids), frame.votes.votes, strict=True):
        parts.append(f"vote({short(xid)} {common_pb2.VoteKind.Name(vote.kind)[10:]} {vote.reason})")
    for name, acks in (("committed", frame.commit_acks), ("rolledback", frame.rollback_acks)):
        if acks.done_xids:
            parts.append(f"{name}({_column(acks.done_xids)})")
        for xid, ack in zip(Xid.unpack(acks.xids), acks.acks, strict=True):
            parts.append(f"{name}({short(xid)} {common_pb2.AckKind.Name(ack.kind)[9:]})")
    return parts


def _column(packed: bytes) -> str:
    return ", ".join(short(xid) for xid in Xid.unpack(packed))
