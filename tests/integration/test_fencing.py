"""Fencing tokens at a participant with reservations, over a real PostgreSQL: who lost a lock is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import psycopg
import pytest

from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import FencingToken, Operation, Prepare, Work
from participant_sdk.xa import Vote, VoteKind
from tests.integration.participations import LOG_ID, Participation, participating

_XIDS = XidSource(1)
_CLOCK = SystemClock()
_HOUR_MS = 3_600_000
OPEN = Operation("bookkeeper", "open_account", '{"user_id":"u","currency":"USD"}')
CREDIT = Operation("bookkeeper", "credit_account", '{"user_id":"u","currency":"USD","amount":1}')


@pytest.fixture
async def books(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "bookkeeper") as participation:
        await participation.do(("open_account", '{"user_id":"u","currency":"USD"}'))
        yield participation
        assert await participation.violations() == []


def showing(*tokens: FencingToken, xid: Xid | None = None) -> Prepare:
    xid = xid or _XIDS.next(_CLOCK.unix_ms())
    return Prepare(LOG_ID, xid, (CREDIT,), _CLOCK.monotonic_s() + 20, ("bookkeeper",), fencing_tokens=tokens)


def k(token: int, *, shared: bool = False) -> FencingToken:
    return FencingToken("k", token, shared)


async def vote(books: Participation, *tokens: FencingToken) -> Vote:
    (told,) = await books.resource.prepare([showing(*tokens)])
    return told


async def test_a_token_lower_than_one_seen_is_refused_as_transient(books: Participation) -> None:
    """Whoever held the lock before its last holder that was seen here has lost it."""
    assert (await vote(books, k(7))).kind is VoteKind.PREPARED
    refused = await vote(books, k(6))
    assert (refused.kind, refused.reason, refused.transient) == (VoteKind.ROLLED_BACK, "FENCED", True)
    assert "'k'" in refused.message
    assert "7" in refused.message
    assert (await vote(books, k(7))).kind is VoteKind.PREPARED
    assert (await vote(books, k(8))).kind is VoteKind.PREPARED


async def test_other_keys_and_no_tokens_are_not_concerned(books: Participation) -> None:
    await vote(books, k(7))
    assert (await vote(books, FencingToken("l", 1))).kind is VoteKind.PREPARED
    assert (await vote(books)).kind is VoteKind.PREPARED
    assert (await vote(books, FencingToken("m", 5), k(6))).reason == "FENCED"


async def test_what_was_refused_raises_nothing_that_it_did_not_show(books: Participation) -> None:
    await vote(books, k(7))
    await vote(books, k(6), FencingToken("l", 9))
    assert (await vote(books, k(7))).kind is VoteKind.PREPARED


async def test_sharers_do_not_outdate_each_other(books: Participation) -> None:
    assert (await vote(books, k(6, shared=True))).kind is VoteKind.PREPARED
    assert (await vote(books, k(5, shared=True))).kind is VoteKind.PREPARED
    assert (await vote(books, k(5))).reason == "FENCED"
    assert (await vote(books, k(7))).kind is VoteKind.PREPARED
    assert (await vote(books, k(6, shared=True))).reason == "FENCED"


async def test_a_duplicate_gets_its_stored_vote_whatever_was_seen_since(books: Participation) -> None:
    """R8, R10: the branch was prepared under its lock, and stays so."""
    first = showing(k(7))
    assert (await books.resource.prepare([first]))[0].kind is VoteKind.PREPARED
    await vote(books, k(8))
    assert (await books.resource.prepare([first]))[0].kind is VoteKind.PREPARED
    late = showing(k(6))
    assert (await books.resource.prepare([late]))[0].reason == "FENCED"
    assert (await books.resource.prepare([late]))[0].reason == "FENCED"


async def test_one_that_is_refused_fails_nothing_that_came_with_it(books: Participation) -> None:
    """R17."""
    await vote(books, k(7))
    votes = (await books.resource.apply(Work(prepares=[showing(k(6)), showing(), showing(k(9))]))).prepares
    assert [each.reason for each in votes] == ["FENCED", "", ""]


async def test_an_older_holder_does_not_slip_in_behind_a_newer_one(books: Participation) -> None:
    """The key's row stays locked until the newer holder's branch is durable; only then is the older one checked."""
    await vote(books, k(7))
    ((log,),) = await books.rows("select log from pincex.logs")
    async with await psycopg.AsyncConnection.connect(books.dsn) as newer:
        # As far as the newer one's check is when it has the key's row, and has not raised its token yet.
        await newer.execute("select from pincex.fencing where key = 'k' for update")
        older = asyncio.create_task(vote(books, k(8)))
        while not await books.rows("select 1 from pg_locks where not granted"):  # noqa: ASYNC110 - locks have no event
            await asyncio.sleep(0.01)
        assert not older.done()
        shown = [log, [0], ["k"], [9], [False]]
        await newer.execute("select * from pincex.fence(%s::smallint, %s, %s, %s, %s, 0)", shown)
        await newer.commit()
        assert (await older).reason == "FENCED"


async def test_keys_that_nobody_showed_for_long_are_forgotten(books: Participation) -> None:
    await vote(books, k(7))
    now_ms = _CLOCK.unix_ms()
    await books.resource.prune(LOG_ID, now_ms - _HOUR_MS, 100)
    assert (await vote(books, k(6))).reason == "FENCED"
    await books.resource.prune(LOG_ID, now_ms + _HOUR_MS, 100)
    assert await books.rows("select key from pincex.fencing") == []
