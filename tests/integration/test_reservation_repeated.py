"""What comes again, or in another order than it was decided, over the reservation resource (R10, R15)."""

from __future__ import annotations

from participant_sdk.participant import Commit
from participant_sdk.xa import AckKind
from tests.integration.participations import EPOCH, INCARNATION, LOG_ID, participating

ORDER = ("place_order", '{"user_id":"u","symbol":"BTC/USD","side":"sell","amount":0.5,"price":50000}')
ACCOUNT = '{"user_id":"u","currency":"USD"}'
CREDIT = ("credit_account", '{"user_id":"u","currency":"USD","amount":"7"}')


async def test_a_commit_that_comes_again_moves_no_money(database: str) -> None:
    async with participating(database, "bookkeeper") as books:
        await books.do(("open_account", ACCOUNT))
        credit = books.branch(CREDIT)
        await books.prepare(credit)
        commit = books.decided(credit)
        acks = [(await books.resource.commit([commit]))[0].kind for _ in range(2)]
        assert acks == [AckKind.DONE, AckKind.ALREADY_DONE]
        assert await books.rows("select balance::integer from bookkeeper.accounts") == [(7,)]
        assert await books.violations() == []


async def test_a_commit_of_a_lower_sequence_leaves_the_watermark(database: str) -> None:
    """They reach a participant in any order. Over one connection, so that one worker's row meets both."""
    async with participating(database, "trading", connections=1) as trading:
        branches = [trading.branch(ORDER) for _ in range(2)]
        await trading.prepare(*branches)
        for branch, sequence in zip(branches, (20, 10), strict=True):
            await trading.resource.commit([Commit(LOG_ID, branch.xid, INCARNATION, sequence, EPOCH)])
        assert await trading.resource.watermarks(LOG_ID) == {INCARNATION: 20}


async def test_commits_in_any_order_get_their_own_answers(database: str) -> None:
    """R11, R15: each keeps its own sequence and acknowledgement."""
    async with participating(database, "trading", connections=1) as trading:
        branches = [trading.branch(ORDER) for _ in range(4)]
        await trading.prepare(*branches[:1], *branches[2:])
        await trading.rollback(branches[2])
        commits = [Commit(LOG_ID, branch.xid, INCARNATION + at, 10 + at, EPOCH) for at, branch in enumerate(branches)]
        acks = await trading.resource.commit(commits[::-1])
        unknown, ended = AckKind.HEURISTIC_HAZARD, AckKind.HEURISTIC_ROLLBACK
        assert [ack.kind for ack in acks] == [AckKind.DONE, ended, unknown, AckKind.DONE]
        for at in (0, 3):
            stored = await trading.resource.branch(LOG_ID, branches[at].xid)
            assert stored is not None
            assert (stored.incarnation, stored.sequence) == (INCARNATION + at, 10 + at)


async def test_a_batch_reads_its_own_branches_however_little_was_there_when_the_planner_looked(database: str) -> None:
    """A table that grew since it was analyzed must not be read whole for every batch, or even for every branch."""
    async with participating(database, "trading", connections=1) as trading:
        branches = [trading.branch(ORDER) for _ in range(20)]
        # One branch of each log: so each log seems to have no more, however many rows there will be.
        await trading.prepare(branches[0], trading.branch(ORDER, log_id="00000000000000ff"))
        await trading.rows("analyze pincex.branches")
        await trading.rows(
            "insert into pincex.branches (phase, log, xid) select 4, b.log, gen_random_uuid()"
            " from pincex.branches as b, generate_series(1, 5000)"
        )
        await trading.prepare(*branches)
        await trading.rollback(*branches[10:])
        for _ in range(2):
            await trading.commit(*branches[:10])
        await trading.prepare(*branches)
    # The sessions are closed, and so have told what they read.
    ((read,),) = await trading.rows(
        "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'branches'"
    )
    assert read < 3_000


async def test_branches_are_looked_up_each_by_its_xid_however_few_the_planner_believes_there_are(database: str) -> None:
    """Else each element of a batch is compared with all of a log's branches: seconds for one batch of a young log."""
    async with participating(database, "trading", connections=1) as trading:
        await trading.prepare(trading.branch(ORDER), trading.branch(ORDER, log_id="00000000000000ff"))
        await trading.rows("analyze pincex.branches")
        async with trading.resource._lane.session() as session:  # pyright: ignore[reportPrivateUsage]  Its settings are asked.
            await session.connection.execute(
                "prepare looking (uuid[], smallint) as select a.at, b.phase"
                " from unnest($1) with ordinality as a (xid, at)"
                " left join pincex.branches as b on b.log = $2 and b.xid = a.xid"
            )
            cursor = await session.connection.execute("explain execute looking ('{}', 1::smallint)")
            plan = "\n".join([line for (line,) in await cursor.fetchall()])
    assert "Index Cond: ((log = $2) AND (xid = a.xid))" in plan, plan
