"""The frames of a session: columns of xids side by side, and beside them what is not packed.

A frame that makes no sense as a whole (columns that do not divide, or differ in length) is a
``BadFrameError`` and ends the session. One bad branch within a good frame is answered by
itself (R17).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pincex.tx.v1 import resource_pb2

from participant_sdk.ids import InvalidIdentifierError, Xid
from participant_sdk.participant import Commit, Prepare
from participant_sdk.wire import (
    SEQUENCE_MAX,
    read_ack,
    read_vote,
    text_size_bytes,
    write_ack,
    write_prepare,
    write_vote,
)
from participant_sdk.xa import DONE, PREPARED, Ack, AckKind, Vote, VoteKind

# What both ends accept of one message, and where a frame stops growing: one branch of the
# largest size allowed, on top of a frame just under its own bound, still passes.
MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024
FRAME_BYTES: Final = 1024 * 1024
PREPARE_MAX_BYTES: Final = 1024 * 1024

_OVERHEAD_BYTES: Final = 64


class BadFrameError(Exception):
    """A frame makes no sense. The message says why; the session is to be closed."""


# A Commit as a coordinator sends it: the xid, the incarnation that decided, the decision's sequence there. A plain
# tuple, because one is made for every branch.
CommitOrder = tuple[Xid, int, int]


class PackedPrepare(NamedTuple):
    """A Prepare as it came in a frame; its fields are not checked yet."""

    xid: Xid
    request: resource_pb2.PrepareRequest


@dataclass(slots=True)
class Answered:
    """Answers of a participant, for one frame. Not frozen: it is filled answer by answer."""

    votes: list[tuple[Xid, Vote]] = field(default_factory=list[tuple[Xid, Vote]])
    commit_acks: list[tuple[Xid, Ack]] = field(default_factory=list[tuple[Xid, Ack]])
    rollback_acks: list[tuple[Xid, Ack]] = field(default_factory=list[tuple[Xid, Ack]])

    def __bool__(self) -> bool:
        return bool(self.votes or self.commit_acks or self.rollback_acks)

    def __len__(self) -> int:
        return len(self.votes) + len(self.commit_acks) + len(self.rollback_acks)


def prepare_size_bytes(branch: Prepare) -> int:
    """About what a branch takes in a frame, never less than its operations do."""
    size = _OVERHEAD_BYTES + len(branch.request_id) + len(branch.tenant)
    for service, name, parameters in branch.operations:
        size += _OVERHEAD_BYTES + len(service) + len(name)
        size += len(parameters) if parameters.isascii() else text_size_bytes(parameters)
    for token in branch.fencing_tokens:
        size += _OVERHEAD_BYTES + text_size_bytes(token.key)
    return size


def write_prepares(frame: resource_pb2.SessionRequest, branches: Sequence[tuple[Prepare, int]]) -> None:
    """Add branches, each with its milliseconds left, to a frame."""
    frame.prepares.xids = b"".join([branch.xid for branch, _ in branches])
    requests = frame.prepares.requests
    for branch, remaining_ms in branches:
        write_prepare(requests.add(), branch, remaining_ms)


def read_prepares(batch: resource_pb2.PrepareBatch) -> list[PackedPrepare]:
    """Read a frame's branches to prepare. BadFrameError unless there is one request for each xid."""
    xids = _unpack(batch.xids)
    if len(xids) != len(batch.requests):
        raise BadFrameError(f"{len(xids)} xids to prepare, and {len(batch.requests)} requests")
    return [PackedPrepare(xid, request) for xid, request in zip(xids, batch.requests, strict=True)]


def write_commits(frame: resource_pb2.SessionRequest, orders: Sequence[CommitOrder]) -> None:
    """Add Commits to a frame: one batch for each deciding incarnation, in order of arrival."""
    for incarnation in dict.fromkeys([incarnation for _, incarnation, _ in orders]):
        frame.commits.add(
            xids=b"".join([xid for xid, decider, _ in orders if decider == incarnation]),
            incarnation=incarnation,
            sequences=[sequence for _, decider, sequence in orders if decider == incarnation],
        )


def read_commits(batches: Sequence[resource_pb2.CommitBatch], log_id: str, epoch: int) -> list[Commit]:
    """Read a frame's Commits, which are of its epoch. BadFrameError unless there is one sequence for each xid."""
    commits: list[Commit] = []
    for batch in batches:
        xids = _unpack(batch.xids)
        if len(xids) != len(batch.sequences):
            raise BadFrameError(f"{len(xids)} xids to commit, and {len(batch.sequences)} sequences")
        incarnation = batch.incarnation
        if not incarnation or any(not 0 < sequence <= SEQUENCE_MAX for sequence in batch.sequences):
            raise BadFrameError(f"commits without an incarnation, or with a sequence not from 1 to {SEQUENCE_MAX}")
        commits += [
            Commit(log_id, xid, incarnation, sequence, epoch)
            for xid, sequence in zip(xids, batch.sequences, strict=True)
        ]
    return commits


def read_rollbacks(batch: resource_pb2.RollbackBatch) -> list[Xid]:
    """Read a frame's Rollbacks. BadFrameError unless the column divides."""
    return _unpack(batch.xids)


def write_answers(answered: Answered) -> resource_pb2.SessionResponse:
    """Write one frame of answers, the common ones packed."""
    frame = resource_pb2.SessionResponse()
    if answered.votes:
        _write_votes(frame.votes, answered.votes)
    if answered.commit_acks:
        _write_acks(frame.commit_acks, answered.commit_acks)
    if answered.rollback_acks:
        _write_acks(frame.rollback_acks, answered.rollback_acks)
    return frame


def read_votes(batch: resource_pb2.VoteBatch) -> list[tuple[Xid, Vote]]:
    """Read a frame's votes. BadFrameError unless there is one vote for each xid that is not packed."""
    votes = [(xid, PREPARED) for xid in _unpack(batch.prepared_xids)]
    others = _unpack(batch.xids)
    if len(others) != len(batch.votes):
        raise BadFrameError(f"{len(others)} xids voted on, and {len(batch.votes)} votes")
    votes += [(xid, read_vote(vote)) for xid, vote in zip(others, batch.votes, strict=True)]
    return votes


def read_acks(batch: resource_pb2.AckBatch) -> list[tuple[Xid, Ack]]:
    """Read a frame's acknowledgements. BadFrameError unless there is one for each xid that is not packed."""
    acks = [(xid, DONE) for xid in _unpack(batch.done_xids)]
    others = _unpack(batch.xids)
    if len(others) != len(batch.acks):
        raise BadFrameError(f"{len(others)} xids acknowledged, and {len(batch.acks)} acknowledgements")
    acks += [(xid, read_ack(ack)) for xid, ack in zip(others, batch.acks, strict=True)]
    return acks


def _write_votes(batch: resource_pb2.VoteBatch, votes: Sequence[tuple[Xid, Vote]]) -> None:
    others = [(xid, vote) for xid, vote in votes if vote.kind is not VoteKind.PREPARED or vote.results]
    if len(others) < len(votes):
        batch.prepared_xids = b"".join(
            [xid for xid, vote in votes if vote.kind is VoteKind.PREPARED and not vote.results]
        )
    batch.xids = b"".join([xid for xid, _ in others])
    batch.votes.extend([write_vote(vote) for _, vote in others])


def _write_acks(batch: resource_pb2.AckBatch, acks: Sequence[tuple[Xid, Ack]]) -> None:
    others = [(xid, ack) for xid, ack in acks if ack.kind is not AckKind.DONE]
    if len(others) < len(acks):
        batch.done_xids = b"".join([xid for xid, ack in acks if ack.kind is AckKind.DONE])
    batch.xids = b"".join([xid for xid, _ in others])
    batch.acks.extend([write_ack(ack) for _, ack in others])


def _unpack(column: bytes) -> list[Xid]:
    try:
        return Xid.unpack(column)
    except InvalidIdentifierError as error:
        raise BadFrameError(str(error)) from error
