"""Nothing leaves a participant that a synchronous standby has not: no vote (R8), no acknowledgement (R9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.participant import Participant, Prepare, RecoverQuery, Work
from participant_sdk.resources.postgres_finish import finish
from participant_sdk.resources.postgres_lane import Connection, DoubtfulError, Lane
from participant_sdk.resources.postgres_operations import Parameters
from participant_sdk.resources.reservation import ATTEMPTS_MAX
from participant_sdk.xa import Ack, AckKind, Decision, Vote, VoteKind, XaCode
from tests.contract.branch_subjects import LOG, an_xid, fill_bank, prepare_of
from tests.integration.participations import LOG_ID, Participation, participating
from tests.integration.standbys import (
    cancel_wait,
    find_standby,
    lose_standby,
    missing_standby,
    wait_until_waiting,
)
from tests.integration.xa_bank import balance, bank, commit, credit, do, gid, prepared_gids, rollback, vote

ORDER = ("place_order", '{"user_id":"u","symbol":"BTC/USD","side":"sell","amount":0.5,"price":50000}')
BAD = ("place_order", ORDER[1].replace("BTC/USD", "BTC/XYZ"))

Call = Callable[[Participation, Prepare], Awaitable[Sequence[Vote | Ack]]]


async def prepare_it(trading: Participation, branch: Prepare) -> Sequence[Vote]:
    return await trading.prepare(branch)


async def commit_it(trading: Participation, branch: Prepare) -> Sequence[Ack]:
    return await trading.commit(branch)


async def roll_it_back(trading: Participation, branch: Prepare) -> Sequence[Ack]:
    return await trading.rollback(branch)


@pytest.mark.parametrize(
    ("call", "is_prepared", "kind"),
    [
        (prepare_it, False, VoteKind.PREPARED),
        (commit_it, True, AckKind.ALREADY_DONE),
        (roll_it_back, True, AckKind.ALREADY_DONE),
        (roll_it_back, False, AckKind.ALREADY_DONE),
    ],
    ids=["prepare", "commit", "rollback", "tombstone"],
)
async def test_a_batch_whose_wait_is_cancelled_is_asked_again_and_waits_again(
    database: str, call: Call, is_prepared: bool, kind: VoteKind | AckKind
) -> None:
    """What it finds the second time is its own row: visible, and in no standby yet."""
    async with participating(database, "trading") as trading:
        branch = trading.branch(ORDER)
        if is_prepared:
            await trading.prepare(branch)
        await trading.resource.adopt_epoch(LOG_ID, 1)
        async with missing_standby(database):
            asking = asyncio.ensure_future(call(trading, branch))
            for _ in range(ATTEMPTS_MAX - 1):
                await wait_until_waiting(database, asking)
                await cancel_wait(database)
            await wait_until_waiting(database, asking)
        assert [answer.kind for answer in await asking] == [kind]


async def test_a_batch_whose_every_wait_is_cancelled_promises_nothing(database: str) -> None:
    """Even where the DSN asks for errors only: a warning is all that tells of it."""
    quiet = make_conninfo(database, options="-c client_min_messages=error")
    async with participating(quiet, "trading") as trading:
        known, unknown, new = (trading.branch(ORDER) for _ in range(3))
        await trading.prepare(known)
        work = Work([trading.decided(known)], [trading.rollback_of(unknown)], [new])
        async with missing_standby(database):
            asking = asyncio.ensure_future(trading.resource.apply(work))
            for _ in range(ATTEMPTS_MAX):
                await wait_until_waiting(database, asking)
                await cancel_wait(database)
            answers = await asking
        assert [ack.kind for ack in (*answers.commits, *answers.rollbacks)] == [AckKind.RETRY] * 2
        assert (answers.prepares[0].transient, answers.prepares[0].xa_code) == (True, XaCode.XAER_RMFAIL)
        again = await trading.resource.apply(work)
        assert [ack.kind for ack in (*again.commits, *again.rollbacks)] == [AckKind.ALREADY_DONE] * 2
        assert again.prepares[0].is_yes


@pytest.mark.parametrize("operation", [ORDER, BAD], ids=["yes", "no"])
async def test_a_stored_vote_that_another_process_finds_waits_for_the_standby(
    database: str, operation: tuple[str, str]
) -> None:
    """R8: a duplicate Prepare is answered from the row, which the first one's cancelled wait left visible."""
    async with participating(database, "trading") as one, participating(database, "trading") as two:
        branch = one.branch(operation)
        for process in (one, two):
            await process.resource.adopt_epoch(LOG_ID, 1)
        async with missing_standby(database):
            first = asyncio.ensure_future(one.prepare(branch))
            await wait_until_waiting(database, first)
            await cancel_wait(database)
            await wait_until_waiting(database, first)
            second = asyncio.ensure_future(two.prepare(branch))
            await wait_until_waiting(database, first, second)
        assert list(await first) == list(await second)


async def test_epochs_and_an_operators_hand_are_told_of_only_when_a_standby_has_them(database: str) -> None:
    """R12, R15: where a wait is cancelled nothing is told; asked again, it waits again."""
    async with participating(database, "trading") as trading:
        branch = trading.branch(ORDER)
        await trading.prepare(branch)
        resource: Participant = trading.resource
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: resource.adopt_epoch(LOG_ID, 9),
            lambda: resource.resolve(LOG_ID, branch.xid, Decision.COMMIT, "by hand"),
            lambda: resource.forget(LOG_ID, branch.xid),
        ]
        async with missing_standby(database):
            for ask in asks:
                for _ in range(2):
                    asking = asyncio.ensure_future(ask())
                    await wait_until_waiting(database, asking)
                    await cancel_wait(database)
                    with pytest.raises(DoubtfulError):
                        await asking


@pytest.mark.parametrize("asked", ["watermarks", "finished"])
async def test_what_was_applied_is_told_of_only_when_a_standby_has_it(database: str, asked: str) -> None:
    """R15: a watermark that a failover takes back would look like a participant that lost its tail.

    A cancelled wait leaves the branch visibly committed, and in no standby.
    """
    async with participating(database, "trading") as trading:
        branch = trading.branch(ORDER)
        await trading.prepare(branch)
        commit_of = trading.decided(branch)
        query = RecoverQuery(LOG_ID, finished=True)
        async with missing_standby(database):
            committing = asyncio.ensure_future(trading.resource.commit([commit_of]))
            await wait_until_waiting(database, committing)
            await cancel_wait(database)
            await wait_until_waiting(database, committing)
            asking = asyncio.ensure_future(
                trading.resource.watermarks(LOG_ID) if asked == "watermarks" else trading.resource.recover(query)
            )
            await wait_until_waiting(database, committing, asking)
        await committing
        told = await asking
        if isinstance(told, Mapping):
            assert dict(told) == {commit_of.incarnation: commit_of.sequence}
        else:
            assert [found.xid for found in told] == [branch.xid]


async def test_a_stored_decision_is_told_of_only_when_a_standby_has_it(database: str) -> None:
    """R15, for prepared transactions: the decision is stored before COMMIT PREPARED, and is the watermark."""
    await fill_bank(database)
    async with bank(database) as resource:
        xid = an_xid()
        await vote(resource, prepare_of(xid, credit()))
        async with missing_standby(database):
            committing = asyncio.ensure_future(commit(resource, xid, 3))
            await wait_until_waiting(database, committing)
            await cancel_wait(database)
            # It is stored without a wait of its own, as COMMIT PREPARED waits for both.
            assert (await committing).kind is AckKind.RETRY
            asking = asyncio.ensure_future(resource.watermarks(LOG))
            await wait_until_waiting(database, asking)
        assert dict(await asking) == {7: 3}


class Losing:
    """An operation that changes something and loses the standby."""

    def __init__(self, dsn: str) -> None:
        self.is_lost = asyncio.Event()
        self._dsn = dsn

    async def __call__(self, connection: Connection, _parameters: Parameters) -> str:
        await connection.execute("update accounts set balance = balance + 1 where name = 'alice'")
        await lose_standby(self._dsn)
        self.is_lost.set()
        return ""


async def test_a_prepared_transaction_that_no_standby_has_is_no_vote(database: str) -> None:
    """R8: a transient no. It is left prepared, for Rollback to end: who else has voted for it is not known here."""
    await fill_bank(database)
    lose, xid = Losing(database), an_xid()
    try:
        async with bank(database, lose=lose) as resource:
            asking = asyncio.ensure_future(vote(resource, prepare_of(xid, do("lose"))))
            await lose.is_lost.wait()
            await wait_until_waiting(database, asking)
            await find_nobody_and_cancel(database)
            answer = await asking
            assert (answer.kind, answer.transient) == (VoteKind.ROLLED_BACK, True)
            assert await prepared_gids(database) == [gid(xid)]
            assert (await rollback(resource, xid)).kind is AckKind.DONE
            assert (await prepared_gids(database), await balance(database)) == ([], 100)
    finally:
        await find_standby(database)


async def find_nobody_and_cancel(database: str) -> None:
    """Cancel the wait first: once the names change, it would end well."""
    await cancel_wait(database)
    await find_standby(database)


async def test_a_duplicate_prepare_waits_with_the_first_one(database: str) -> None:
    """R8: a prepared transaction is seen as soon as it is on this server's disk, before any standby has it."""
    await fill_bank(database)
    lose = Losing(database)
    try:
        async with bank(database, lose=lose) as one, bank(database) as two:
            prepare = prepare_of(an_xid(), do("lose"))
            first = asyncio.ensure_future(vote(one, prepare))
            await lose.is_lost.wait()
            await wait_until_waiting(database, first)
            second = asyncio.ensure_future(vote(two, prepare))
            await wait_until_waiting(database, first, second)
            await find_standby(database)
            assert [(await task).kind for task in (first, second)] == [VoteKind.PREPARED] * 2
    finally:
        await find_standby(database)


@pytest.mark.parametrize("outcome", [Decision.COMMIT, Decision.ROLLBACK], ids=lambda outcome: outcome.name)
async def test_an_end_that_no_standby_has_is_not_acknowledged(database: str, outcome: Decision) -> None:
    """R9: RETRY, and who asks again finds it ended, and waits for the standby before saying so."""
    await fill_bank(database)
    lane, xid = Lane(database, 1), an_xid()
    async with bank(database) as resource:
        await vote(resource, prepare_of(xid, credit()))
        async with missing_standby(database):
            ending = asyncio.ensure_future(finish(lane, [gid(xid)], outcome))
            await wait_until_waiting(database, ending)
            await cancel_wait(database)
            (answer,) = await ending
            assert isinstance(answer, Ack)
            assert answer.kind is AckKind.RETRY
            asking = asyncio.ensure_future((commit if outcome is Decision.COMMIT else rollback)(resource, xid))
            await wait_until_waiting(database, asking)
        await lane.close()
        ended = AckKind.ALREADY_DONE if outcome is Decision.COMMIT else AckKind.DONE
        assert (await asking).kind is ended
        assert await balance(database) == (101 if outcome is Decision.COMMIT else 100)


async def test_a_stored_no_and_a_tombstone_wait_for_the_standby(database: str) -> None:
    """R8, R9: a no that binds, and that a Rollback was there, are answers too."""
    await fill_bank(database)
    async with bank(database) as resource:
        refused, buried = prepare_of(an_xid(), do("unknown")), an_xid()
        no = await vote(resource, refused)
        await rollback(resource, buried)
        async with missing_standby(database):
            voting = asyncio.ensure_future(vote(resource, refused))
            burying = asyncio.ensure_future(rollback(resource, buried))
            await wait_until_waiting(database, voting, burying)
        assert await voting == no
        assert (await burying).kind is AckKind.ALREADY_DONE
        assert await resource.branch(LOG, buried) is not None


async def test_a_service_that_silences_warnings_still_gets_no_vote_past_the_standby(database: str) -> None:
    """A warning is all that tells of a cancelled wait."""
    await fill_bank(database)
    lose = Losing(database)

    async def silence(connection: Connection, _parameters: Parameters) -> str:
        await connection.execute("set client_min_messages = error")
        return ""

    try:
        async with bank(database, silence=silence, lose=lose) as resource:
            asking = asyncio.ensure_future(vote(resource, prepare_of(an_xid(), do("silence"), do("lose"))))
            await lose.is_lost.wait()
            await wait_until_waiting(database, asking)
            await find_nobody_and_cancel(database)
            assert (await asking).kind is VoteKind.ROLLED_BACK
    finally:
        await find_standby(database)
