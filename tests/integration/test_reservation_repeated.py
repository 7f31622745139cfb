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
