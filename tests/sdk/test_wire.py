"""Values and messages: what is written is what is read, whatever is in it; queues keep what they promise."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.answers import ANSWERS_MAX, AnswerQueue
from participant_sdk.backoff import Backoff
from participant_sdk.frames import (
    FRAME_BYTES,
    MESSAGE_MAX_BYTES,
    Answered,
    CommitOrder,
    prepare_size_bytes,
    read_acks,
    read_commits,
    read_prepares,
    read_votes,
    write_answers,
    write_commits,
    write_prepares,
)
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.outbox import OUTBOX_BOUND, Outbox
from participant_sdk.participant import Operation, Prepare
from participant_sdk.wire import (
    MESSAGE_MAX_CHARS,
    VOTE_MAX_BYTES,
    read_ack,
    read_introduction,
    read_prepare,
    read_vote,
    read_welcome,
    write_ack,
    write_introduction,
    write_prepare,
    write_vote,
    write_welcome,
)
from participant_sdk.xa import DONE, PREPARED, Ack, AckKind, Vote, VoteKind, XaCode
from tests.sdk.peers import EPOCH, LOG_ID, NAME, new_xid, transfer

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
JSON = TEXT.map(json.dumps)
XIDS = st.integers(0, 2**40).map(lambda number: Xid.make(1, EPOCH, number))
VOTES = st.builds(
    Vote,
    st.sampled_from(VoteKind),
    st.sampled_from(XaCode).map(int),
    TEXT,
    TEXT,
    st.booleans(),
    TEXT,
    st.lists(JSON, max_size=3).map(tuple),
    unsent=st.just(False),
)
ACKS = st.builds(Ack, st.sampled_from(AckKind), st.sampled_from(XaCode).map(int), TEXT)
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(vote=VOTES)
def test_a_vote_survives(vote: Vote) -> None:
    assert read_vote(write_vote(vote)) == vote


@given(ack=ACKS)
def test_an_acknowledgement_survives(ack: Ack) -> None:
    assert read_ack(write_ack(ack)) == ack


@given(
    parameters=TEXT,
    tenant=PRINTABLE,
    request_id=PRINTABLE,
    names=st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True), max_size=4).map(tuple),
)
def test_a_branch_survives(parameters: str, tenant: str, request_id: str, names: tuple[str, ...]) -> None:
    operations = (Operation(NAME, "transfer", parameters), Operation(NAME, "read", "{}"))
    branch = Prepare(LOG_ID, new_xid(), operations, 15.0, names, tenant, request_id, b"d" * 32)
    message = resource_pb2.PrepareRequest()
    write_prepare(message, branch, 5000)
    assert (message.xid, message.log_id) == ("", "")
    assert read_prepare(message, branch.xid, LOG_ID, service=NAME, now_s=10.0) == branch


def test_a_branch_that_ends_work_survives() -> None:
    """R13: number and count travel, and the operations do not."""
    branch = Prepare(LOG_ID, new_xid(), (), 15.0, ends_work=True, branch_number=2, operation_count=3)
    message = resource_pb2.PrepareRequest()
    write_prepare(message, branch, 5000)
    assert read_prepare(message, branch.xid, LOG_ID, service=NAME, now_s=10.0) == branch


def test_introductions_survive() -> None:
    introduction = Introduction(LOG_ID, "c1", EPOCH, EPOCH, ("a:1", "b:2"))
    message = write_introduction(introduction, 12)
    assert (read_introduction(message), message.clock_unix_ms) == (introduction, 12)
    welcome = Welcome(NAME, 12, EPOCH, {EPOCH: 5, EPOCH + 1: 2**62}, ("transfer",), session=False, refusal="NO")
    assert read_welcome(write_welcome(welcome)) == welcome


@given(votes=st.dictionaries(XIDS, VOTES | st.just(PREPARED)), acks=st.dictionaries(XIDS, ACKS | st.just(DONE)))
def test_a_frame_of_answers_survives(votes: dict[Xid, Vote], acks: dict[Xid, Ack]) -> None:
    """Packed or in full, every answer arrives with its own xid; the packed ones have nothing to lose."""
    frame = write_answers(Answered(list(votes.items()), list(acks.items()), list(acks.items())))
    packed = {
        xid: PREPARED if vote.kind is VoteKind.PREPARED and not vote.results else vote for xid, vote in votes.items()
    }
    assert dict(read_votes(frame.votes)) == packed
    done = {xid: DONE if ack.kind is AckKind.DONE else ack for xid, ack in acks.items()}
    assert dict(read_acks(frame.commit_acks)) == done
    assert dict(read_acks(frame.rollback_acks)) == done


@given(orders=st.lists(st.tuples(XIDS, st.integers(1, 3), st.integers(1, 2**63 - 1)), unique_by=lambda order: order[0]))
def test_commits_keep_their_incarnation_and_sequence(orders: list[CommitOrder]) -> None:
    frame = resource_pb2.SessionRequest()
    write_commits(frame, orders)
    commits = read_commits(frame.commits, LOG_ID, 5)
    read = {commit.xid: (commit.incarnation, commit.sequence) for commit in commits}
    assert read == {xid: (incarnation, sequence) for xid, incarnation, sequence in orders}
    assert all(commit.epoch == 5 for commit in commits)
    assert len(frame.commits) == len(dict.fromkeys(incarnation for _, incarnation, _ in orders))


def test_prepares_keep_their_order() -> None:
    branches = [(transfer(), 100 + at) for at in range(5)]
    frame = resource_pb2.SessionRequest()
    write_prepares(frame, branches)
    read = [(packed.xid, packed.request.remaining_ms) for packed in read_prepares(frame.prepares)]
    assert read == [(branch.xid, remaining_ms) for branch, remaining_ms in branches]


@pytest.mark.parametrize(
    "vote",
    [
        common_pb2.Vote(),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["x"] * 101),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["x" * (VOTE_MAX_BYTES + 1)]),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["é" * (VOTE_MAX_BYTES // 2), "1"]),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["x" * VOTE_MAX_BYTES], message="m"),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["\0"]),
        common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED, results=["\x1f"]),
    ],
)
def test_a_vote_out_of_bounds_is_a_transient_no(vote: common_pb2.Vote) -> None:
    """R2, and what the log could not keep must not come near it."""
    assert read_vote(vote).transient
    assert not read_vote(vote).is_yes


def test_the_largest_vote_is_read() -> None:
    vote = PREPARED._replace(results=("é" * (VOTE_MAX_BYTES // 2 - 1), "\t\n"))
    assert read_vote(write_vote(vote)) == vote


def test_words_are_cut_and_cleaned() -> None:
    message = common_pb2.Vote(
        kind=common_pb2.VOTE_KIND_ROLLED_BACK, reason="R" * 100, message="a\0b" + "m" * 2000, field="f" * 300
    )
    vote = read_vote(message)
    assert (len(vote.reason), len(vote.field)) == (64, 200)
    assert vote.message.startswith("ab")
    assert len(vote.message) < MESSAGE_MAX_CHARS


def test_what_is_put_twice_leaves_once_and_in_order() -> None:
    outbox, xids = Outbox(), [new_xid() for _ in range(5)]
    for xid in (*xids, xids[0]):
        outbox.commit(xid, EPOCH, 1)
        outbox.rollback(xid)
    first, second = outbox.take(3), outbox.take(3)
    assert [xid for xid, _, _ in first.commits + second.commits] == xids
    assert first.rollbacks + second.rollbacks == xids


def test_an_outbox_fills_frames_to_their_bound() -> None:
    """At least one branch, whatever its size, and never much past the bound."""
    outbox = Outbox()
    big = Operation(NAME, "read", "x" * 60_000)
    branches = [transfer()._replace(operations=(big,) * 8) for _ in range(4)]
    for branch in branches:
        assert outbox.prepare(branch, prepare_size_bytes(branch))
    taken = [outbox.take(512).prepares for _ in range(2)]
    assert [len(prepares) for prepares in taken] == [2, 2]
    huge = transfer()._replace(operations=(big,) * 100)
    outbox.prepare(huge, prepare_size_bytes(huge))
    assert outbox.take(512).prepares == [huge]


async def test_answers_are_cut_into_frames_that_fit() -> None:
    """Large results spread over frames; nothing is lost, and no frame passes what the other end accepts."""
    queue, sent = AnswerQueue(), {new_xid(): PREPARED._replace(results=("x" * 60_000,)) for _ in range(200)}
    for xid, vote in sent.items():
        queue.voted(xid, vote)
        queue.committed(xid, Ack(AckKind.RETRY, XaCode.RETRY, "é" * MESSAGE_MAX_CHARS))
    received: dict[Xid, Vote] = {}
    acks = 0
    while len(queue):
        frame = await queue.next_frame()
        assert frame.ByteSize() < FRAME_BYTES + 2 * VOTE_MAX_BYTES < MESSAGE_MAX_BYTES
        received.update(read_votes(frame.votes))
        acks += len(read_acks(frame.commit_acks))
    assert (received, acks) == (sent, len(sent))


async def test_a_coordinator_that_does_not_read_is_not_read_from() -> None:
    """Answers that wait are bounded by making the reader wait, until some have left."""
    queue = AnswerQueue()
    for _ in range(ANSWERS_MAX):
        queue.rolled_back(new_xid(), DONE)
    reader = asyncio.ensure_future(queue.room())
    await asyncio.wait([reader], timeout=0)
    assert not reader.done()
    await queue.next_frame()
    await asyncio.wait_for(reader, 10)


def test_an_outbox_is_bounded() -> None:
    """A full one refuses prepares, and drops endings, which their owner sends again by its timer."""
    outbox, one = Outbox(), transfer()
    number = 0
    while outbox.prepare(one._replace(xid=Xid.make(1, EPOCH, number)), prepare_size_bytes(one)):
        outbox.rollback(Xid.make(2, EPOCH, number))
        outbox.commit(Xid.make(3, EPOCH, number), EPOCH, 1)
        number += 1
    assert number == OUTBOX_BOUND
    outbox.rollback(new_xid())
    outbox.commit(new_xid(), EPOCH, 1)
    batch = outbox.take(OUTBOX_BOUND + 1)
    assert (len(batch.commits), len(batch.rollbacks)) == (OUTBOX_BOUND, OUTBOX_BOUND)


def test_backoff_doubles_to_its_cap_and_begins_again() -> None:
    backoff = Backoff(random.Random(3), first_s=1.0, cap_s=8.0)
    waits = [backoff.next_s() for _ in range(50)]
    for wait_s, full_s in zip(waits, [1.0, 2.0, 4.0, *[8.0] * 47], strict=True):
        assert full_s / 2 <= wait_s <= full_s
    backoff.reset()
    assert backoff.next_s() <= 1.0
