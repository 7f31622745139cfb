"""Prepared transactions that have our name and no row, and those that are not ours (R18)."""

from __future__ import annotations

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import BranchId, Xid
from participant_sdk.participant import RecoverQuery
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.xa import AckKind, Decision, Heuristic
from tests.contract.branch_subjects import LOG, an_xid, fill_bank, prepare_of
from tests.integration.xa_bank import balance, bank, commit, credit, gid, prepared_gids, rollback, run_sql, vote

OTHER_LOG = "fedcba9876543210"


def quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


async def orphan(dsn: str, name: str) -> None:
    """Prepare a transaction by hand, under a name, without a row."""
    await run_sql(
        dsn,
        f"begin; update accounts set balance = balance + 1 where name = 'alice'; prepare transaction {quoted(name)}",
    )


async def in_doubt(resource: PostgresXaResource, log_id: str = LOG) -> list[Xid]:
    branches = await resource.recover(RecoverQuery(log_id))
    assert all(branch.phase is BranchPhase.PREPARED for branch in branches)
    return [branch.xid for branch in branches]


async def test_an_orphan_is_listed_and_its_decision_ends_it(database: str) -> None:
    """It can only have voted yes: it is asked about like any other, and answers twice alike."""
    await fill_bank(database)
    async with bank(database) as resource:
        committed, rolled_back = an_xid(), an_xid()
        await orphan(database, gid(committed))
        assert await in_doubt(resource) == [committed]
        assert (await commit(resource, committed, 7)).kind is AckKind.DONE
        assert (await commit(resource, committed, 7)).kind is AckKind.ALREADY_DONE
        assert dict(await resource.watermarks(LOG)) == {7: 7}
        await orphan(database, gid(rolled_back))
        assert (await rollback(resource, rolled_back)).kind is AckKind.DONE
        assert (await rollback(resource, rolled_back)).kind is AckKind.ALREADY_DONE
        assert (await vote(resource, prepare_of(rolled_back, credit()))).transient is False
        assert await in_doubt(resource) == []
    assert await prepared_gids(database) == []
    assert await balance(database) == 101


@pytest.mark.parametrize("outcome", list(Decision), ids=lambda outcome: outcome.name)
async def test_an_operator_can_force_an_orphan(database: str, outcome: Decision) -> None:
    """R12: stored with its reason, shown until forgotten."""
    await fill_bank(database)
    async with bank(database) as resource:
        xid = an_xid()
        await orphan(database, gid(xid))
        expected = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
        ack = await resource.resolve(LOG, xid, outcome, "its row was lost")
        assert ack.kind is (AckKind.HEURISTIC_COMMIT if outcome is Decision.COMMIT else AckKind.HEURISTIC_ROLLBACK)
        branch = await resource.branch(LOG, xid)
        assert branch is not None
        assert (branch.phase, branch.heuristic, branch.reason) == (
            BranchPhase.HEURISTIC,
            expected,
            "its row was lost",
        )
        assert (await resource.forget(LOG, xid)).kind is AckKind.DONE
    assert await prepared_gids(database) == []
    assert await balance(database) == (101 if outcome is Decision.COMMIT else 100)


async def test_what_is_not_ours_is_left_alone(database: str) -> None:
    """Another log's, another participant's, somebody else's, and what only looks like ours: listed by nobody here."""
    await fill_bank(database)
    xid = an_xid()
    foreign = [
        BranchId(OTHER_LOG, xid, "bank").gid,
        BranchId(LOG, xid, "till").gid,
        BranchId(LOG, xid, "bank-two").gid,
        f"pincex:{LOG}:not-an-xid:bank",
        f"x{gid(xid)}",
        "somebody's own",
    ]
    for at, name in enumerate(foreign):
        await run_sql(
            database,
            f"begin; insert into accounts values ('new-{at}', 0); prepare transaction {quoted(name)}",
        )
    async with bank(database) as resource:
        assert await in_doubt(resource) == []
        assert (await rollback(resource, xid)).kind is AckKind.DONE
        assert (await resource.resolve(LOG, xid, Decision.COMMIT, "why")).kind is not AckKind.HEURISTIC_COMMIT
        await resource.expire()
        # Under the other log's name it is that log's branch, and of nobody else.
        assert await in_doubt(resource, OTHER_LOG) == [xid]
    assert sorted(map(str, await prepared_gids(database))) == sorted(foreign)
    for name in foreign:
        await run_sql(database, f"rollback prepared {quoted(name)}")
