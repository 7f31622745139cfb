"""A PostgreSQL XA resource with much to do: what it reads, and who waits for whom (R8, R17)."""

from __future__ import annotations

import asyncio

import pytest

from participant_sdk.clock import SystemClock
from participant_sdk.participant import Commit
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.xa import AckKind, VoteKind
from tests.contract.branch_subjects import LOG, an_xid, fill_bank, prepare_of
from tests.integration.xa_bank import OPERATIONS, balance, bank, credit, run_sql, vote
from tests.sdk.test_workers import Answered, working


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


async def test_a_batch_reads_its_own_branches_however_little_was_there_when_the_planner_looked(dsn: str) -> None:
    """Tables that grew since they were analyzed must not be read whole for every batch, or even for every branch."""
    connections = XaConnections(work=4, finishing=1)
    async with PostgresXaResource.open("bank", dsn, OPERATIONS, connections=connections) as resource:
        first = prepare_of(an_xid(), credit(), request_id="first")
        await vote(resource, first)
        await resource.commit([Commit(LOG, first.xid, 7, 1)])
        await run_sql(dsn, "analyze pincex_xa.branches, pincex_xa.decisions")
        await run_sql(
            dsn,
            "insert into pincex_xa.branches (participant, log_id, xid, phase, tenant, request_id)"
            f" select 'bank', '{LOG}', gen_random_uuid(), 3, 'default', n::text from generate_series(1, 5000) n",
        )
        await run_sql(
            dsn,
            "insert into pincex_xa.decisions select b.participant, b.log_id, b.xid, 7, 1 from pincex_xa.branches b"
            " on conflict do nothing",
        )
        for turn in range(3):
            prepares = [prepare_of(an_xid(), credit(), request_id=f"r{turn}-{at}") for at in range(10)]
            for prepare in prepares:
                assert (await vote(resource, prepare)).kind is VoteKind.PREPARED
                again = await vote(resource, prepare)
                assert again.kind is VoteKind.PREPARED
                commit = Commit(LOG, prepare.xid, 7, 2)
                acks = [(await resource.commit([commit]))[0].kind for _ in range(2)]
                assert acks == [AckKind.DONE, AckKind.ALREADY_DONE]
    # The sessions are closed, and so have told what they read.
    ((few,),) = await run_sql(
        dsn,
        # Filling the decisions read all branches once.
        "select sum(seq_tup_read + idx_tup_fetch) < 5001 + 3000 from pg_stat_user_tables"
        " where relname in ('branches', 'decisions', 'returned')",
    )
    assert few


@pytest.mark.parametrize("work", [16, 1])
async def test_a_branch_waits_for_a_row_as_long_as_another_holds_it_and_no_longer(dsn: str, work: int) -> None:
    """They arrive together. The first one's vote and Commit must pass the second, which waits for that Commit.

    Also where it waits on the only connection for work: what ends a branch has others.
    """
    patient = XaConnections(work=work, lock_timeout_ms=60_000)
    async with (
        PostgresXaResource.open("bank", dsn, OPERATIONS, connections=patient) as resource,
        working(resource, count=1, clock=SystemClock()) as workers,
    ):
        answered = Answered()
        prepares = [prepare_of(an_xid(), credit()) for _ in range(3)]
        for prepare in prepares:
            workers.prepare(prepare, answered.voted)
        for number in range(1, len(prepares) + 1):
            await answered.all_of(number)
            xid, voted = answered.votes[-1]
            assert voted.kind is VoteKind.PREPARED
            workers.commit(Commit(LOG, xid, 7, number), answered.acknowledged)
        await answered.all_of(3, 3)
    assert await balance(dsn) == 103


async def test_a_row_that_cannot_be_opened_fails_alone(dsn: str) -> None:
    """R17: rows are opened together, and one of them may be what the table does not take."""
    async with bank(dsn) as resource:
        await run_sql(dsn, "alter table pincex_xa.branches add check (request_id <> 'bad')")
        prepares = [prepare_of(an_xid(), credit(name), request_id=name) for name in ("alice", "bob")]
        bad = prepare_of(an_xid(), credit("alice"), request_id="bad")
        votes = await asyncio.gather(
            *[vote(resource, prepare) for prepare in [prepares[0], bad, prepares[1]]], return_exceptions=True
        )
    assert isinstance(votes[1], Exception)
    kinds = [answer.kind for answer in (votes[0], votes[2]) if not isinstance(answer, BaseException)]
    assert kinds == [VoteKind.PREPARED] * 2
