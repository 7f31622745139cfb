"""What comes between a branch's look and its end, in a PostgreSQL XA resource (R11, R12)."""

from __future__ import annotations

import asyncio

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.xa import AckKind, Decision, VoteKind
from tests.contract.branch_subjects import LOG, an_xid, fill_bank, prepare_of
from tests.integration.xa_bank import OPERATIONS, balance, bank, commit, credit, gid, run_sql, vote


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


async def test_a_branch_that_somebody_undid_meanwhile_is_not_called_committed(dsn: str) -> None:
    """R11: found prepared, and gone when it was to be committed: what is stored of it says how it ended."""
    xid = an_xid()
    async with PostgresXaResource.open("bank", dsn, OPERATIONS, connections=XaConnections(finishing=1)) as resource:
        assert (await vote(resource, prepare_of(xid, credit()))).kind is VoteKind.PREPARED
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(resource.commit([Commit(LOG, xid, 7, 1)]))
            # It has the only connection, and looks; it must queue behind us for the one by which it commits.
            await asyncio.sleep(0)
            async with resource._finishing.session():  # pyright: ignore[reportPrivateUsage] # Its only connection.
                await run_sql(dsn, f"rollback prepared '{gid(xid)}'")
        assert committing.result()[0].kind is AckKind.HEURISTIC_HAZARD
    assert await balance(dsn) == 100


async def test_a_branch_that_is_gone_and_there_again_is_to_be_told_again(dsn: str) -> None:
    """R9: another session is at work on it; it was not this Commit that ended it, nor has anything."""
    xid = an_xid()
    async with PostgresXaResource.open("bank", dsn, OPERATIONS, connections=XaConnections(finishing=1)) as resource:
        assert (await vote(resource, prepare_of(xid, credit()))).kind is VoteKind.PREPARED
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(resource.commit([Commit(LOG, xid, 7, 1)]))
            # As above; and it must queue behind us again for the one by which it looks once more.
            await asyncio.sleep(0)
            async with resource._finishing.session():  # pyright: ignore[reportPrivateUsage] # As above.
                await run_sql(dsn, f"rollback prepared '{gid(xid)}'")
            async with resource._finishing.session():  # pyright: ignore[reportPrivateUsage] # As above.
                await run_sql(dsn, f"begin; select 1; prepare transaction '{gid(xid)}'")
        assert committing.result()[0].kind is AckKind.RETRY
        await run_sql(dsn, f"rollback prepared '{gid(xid)}'")
    assert await balance(dsn) == 100


async def test_a_branch_that_has_heard_commit_is_not_forced(dsn: str) -> None:
    """R12: a decision is known, and is to be carried out, though it was not yet."""
    xid = an_xid()
    async with bank(dsn) as resource:
        await vote(resource, prepare_of(xid, credit()))
        await resource._rows.decide(LOG, [Commit(LOG, xid, 7, 1)])  # pyright: ignore[reportPrivateUsage] # Heard, not done.
        assert (await resource.resolve(LOG, xid, Decision.ROLLBACK, "impatience")).kind is AckKind.RETRY
        branch = await resource.branch(LOG, xid)
        assert branch is not None
        assert branch.phase is BranchPhase.PREPARED
        assert (await commit(resource, xid)).kind is AckKind.DONE
    assert await balance(dsn) == 101
