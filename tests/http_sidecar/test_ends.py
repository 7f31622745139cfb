"""Decisions at a service: stored before it hears of them, told until it has done them, acknowledged only then."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import AsyncExitStack

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit, RecoverQuery, Work
from participant_sdk.xa import AckKind, Decision, Heuristic
from sidecars.http.answers import ANSWER_MAX_BYTES
from tests.http_sidecar.at_work import (
    INCARNATION,
    LOG,
    AtWork,
    a_prepare,
    an_xid,
    at_work,
    journal_locked,
    opened,
    until_blocked,
)
from tests.http_sidecar.inventory import SECRET
from tests.http_sidecar.scripted import CUT, Answer, Call, answer, scripted

ENDS = pytest.mark.parametrize("call", ["confirm", "cancel"])


async def end(working: AtWork, call: str, branch: Commit) -> AckKind:
    """Commit or roll back, as the call's name wants."""
    ack = await (working.commit(branch.xid, branch.sequence) if call == "confirm" else working.rollback(branch.xid))
    return ack.kind


def always(sent: bytes) -> Answer:
    async def answering(_: Call) -> bytes:
        return sent

    return answering


@ENDS
async def test_no_acknowledgement_leaves_before_it_is_stored(database: str, call: str) -> None:
    """R9: while the journal cannot be written, the service's 200 is no acknowledgement."""
    async with AsyncExitStack() as locking, at_work(database) as working:
        branch = Commit(LOG, await working.prepared(), INCARNATION, 1)

        async def locks(_: Call) -> bytes:
            if len(working.service.named(call)) == 1:
                await locking.enter_async_context(journal_locked(database))
            return answer(200)

        working.service.answers[call] = locks
        ending = asyncio.create_task(end(working, call, branch))
        await until_blocked(database, "delete from http.held")
        assert not ending.done()
        assert await ending is AckKind.RETRY
        await locking.aclose()
        assert await end(working, call, branch) is AckKind.ALREADY_DONE
        # What was done and not stored is done again.
        assert len(working.service.named(call)) >= 2
        await working.until_nothing_is_held()


@ENDS
async def test_whatever_is_no_2xx_is_not_done(database: str, call: str) -> None:
    """Nor is 202, which says that it is not done yet; redirects are not followed. The coordinator hears RETRY."""
    async with at_work(database) as working:
        branch = Commit(LOG, await working.prepared(), INCARNATION, 1)
        for status in (202, 301, 302, 307, 308, 400, 401, 404, 409, 422, 429, 500, 503):
            working.service.answers[call] = always(answer(status, headers="location: http://127.0.0.1:1/\r\n"))
            assert await end(working, call, branch) is AckKind.RETRY, status
        working.service.answers[call] = always(CUT)
        assert await end(working, call, branch) is AckKind.RETRY
        # Asked for, it is called at once, however long the pause has become.
        working.service.answers[call] = always(answer(204))
        assert await end(working, call, branch) is AckKind.ALREADY_DONE


@ENDS
async def test_what_is_owed_is_brought_whether_or_not_anybody_asks(database: str, call: str) -> None:
    """Until then the branch is shown in doubt, with what it has heard, and why it has not ended."""
    async with at_work(database, **{call: always(answer(503))}) as working:
        branch = Commit(LOG, await working.prepared(), INCARNATION, 9)
        assert await end(working, call, branch) is AckKind.RETRY
        shown = await working.branch(branch.xid)
        assert shown.phase is BranchPhase.PREPARED
        assert f"{call} was answered 503" in shown.reason
        assert (shown.sequence, shown.incarnation) == ((9, INCARNATION) if call == "confirm" else (0, 0))
        assert [it.xid for it in await working.participant.recover(RecoverQuery(LOG))] == [branch.xid]
        assert await working.participant.watermarks(LOG) == ({INCARNATION: 9} if call == "confirm" else {})
        working.service.answers[call] = always(answer(200))
        await working.until_nothing_is_held()
        ended = BranchPhase.COMMITTED if call == "confirm" else BranchPhase.ROLLED_BACK
        assert await working.phase(branch.xid) is ended
        assert await working.participant.recover(RecoverQuery(LOG)) == []
        assert await end(working, call, branch) is AckKind.ALREADY_DONE


@ENDS
async def test_only_the_status_of_an_end_matters(database: str, call: str) -> None:
    """Its body is not needed: huge, malformed or cut short, 200 is done."""
    async with at_work(database) as working:
        for sent in (answer(200, raw=b"{"), answer(201), answer(200, raw=b" " * (4 * ANSWER_MAX_BYTES))):
            working.service.answers[call] = always(sent)
            assert await end(working, call, Commit(LOG, await working.prepared(), INCARNATION, 1)) is AckKind.DONE


@ENDS
async def test_an_end_that_hangs_is_retry_and_closing_waits_for_nobody(database: str, call: str) -> None:
    async def hangs(_: Call) -> bytes:
        await asyncio.Event().wait()
        return CUT

    async with scripted(**{call: hangs}) as service:
        async with opened(database, service, timeout_s=0.3) as working:
            branch = Commit(LOG, await working.prepared(), INCARNATION, 1)
            assert await end(working, call, branch) is AckKind.RETRY
        async with opened(database, service, timeout_s=60.0) as working:
            # The courier calls by itself, and is in the middle of it.
            await service.until(call, 2)
        service.answers[call] = always(answer(200))
        async with opened(database, service) as working:
            await working.until_nothing_is_held()


@ENDS
async def test_what_a_crash_cut_off_is_told_again(database: str, call: str) -> None:
    """Done by the service, and not stored: the next process calls again, and the service has it once."""
    done: set[str] = set()
    answering = asyncio.Event()

    async def does(asked: Call) -> bytes:
        done.add(asked.branch)
        await answering.wait()
        return answer(200)

    async with scripted(**{call: does}) as service:
        async with opened(database, service, timeout_s=60.0) as working:
            branch = Commit(LOG, await working.prepared(), INCARNATION, 1)
            ending = asyncio.create_task(end(working, call, branch))
            await service.until(call)
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        answering.set()
        async with opened(database, service) as working:
            await service.until(call, 2)
            await working.until_nothing_is_held()
            assert await end(working, call, branch) is AckKind.ALREADY_DONE
            assert len(done) == 1


async def test_each_branch_of_a_batch_has_its_own_acknowledgement(database: str) -> None:
    """R17: one that the service does not confirm keeps nothing from the others."""
    async with at_work(database) as working:
        bad, good, undone = [await working.prepared() for _ in range(3)]

        async def confirms(call: Call) -> bytes:
            return answer(500 if str(bad) in call.branch else 200)

        working.service.answers["confirm"] = confirms
        fresh, unknown = a_prepare(), an_xid()
        commits = [Commit(LOG, xid, INCARNATION, at) for at, xid in enumerate((bad, good, unknown), 1)]
        work = Work(commits, [working.a_rollback(undone)], [fresh])
        answers = await working.participant.apply(work)
        kinds = [ack.kind for ack in answers.commits]
        assert kinds == [AckKind.RETRY, AckKind.DONE, AckKind.HEURISTIC_HAZARD]
        assert [ack.kind for ack in answers.rollbacks] == [AckKind.DONE]
        assert answers.prepares[0].is_yes
        assert "confirm was answered 500" in answers.commits[0].message
        assert working.service.named("confirm", str(unknown)) == []
        working.service.answers["confirm"] = always(answer(200))
        await working.until_only_held(1)


async def test_a_commit_of_an_older_epoch_never_reaches_the_service(database: str) -> None:
    """R15."""
    async with at_work(database) as working:
        xid = await working.prepared()
        await working.participant.adopt_epoch(LOG, 5)
        (ack,) = await working.participant.commit([Commit(LOG, xid, INCARNATION, 1, epoch=4)])
        assert ack.kind is AckKind.RETRY
        assert working.service.named("confirm") == []
        assert await working.phase(xid) is BranchPhase.PREPARED
        (ack,) = await working.participant.commit([Commit(LOG, xid, INCARNATION, 1, epoch=5)])
        assert ack.kind is AckKind.DONE


@pytest.mark.parametrize("outcome", list(Decision))
async def test_what_an_operator_forces_is_told_once_the_service_has_done_it(database: str, outcome: Decision) -> None:
    """R12: stored with its reason before it is reported, shown until forgotten, and not forgotten while it is owed."""
    call = "confirm" if outcome is Decision.COMMIT else "cancel"
    async with at_work(database, **{call: always(answer(503))}) as working:
        participant = working.participant
        xid = await working.prepared()
        assert (await participant.resolve(LOG, xid, outcome, "by hand")).kind is AckKind.RETRY
        shown = await working.branch(xid)
        assert (shown.phase, shown.reason) == (BranchPhase.HEURISTIC, "by hand")
        assert shown.heuristic is Heuristic(int(outcome))
        assert (await participant.forget(LOG, xid)).kind is AckKind.RETRY
        assert (await working.commit(xid)).kind is AckKind.RETRY
        working.service.answers[call] = always(answer(200))
        forced = {Decision.COMMIT: AckKind.HEURISTIC_COMMIT, Decision.ROLLBACK: AckKind.HEURISTIC_ROLLBACK}[outcome]
        assert (await participant.resolve(LOG, xid, outcome, "again")).kind is forced
        assert (await working.branch(xid)).reason == "by hand"
        assert (await working.commit(xid)).kind is forced
        assert (await participant.forget(LOG, xid)).kind is AckKind.DONE


async def test_a_decision_that_is_known_is_not_forced(database: str) -> None:
    async with at_work(database, confirm=always(answer(503))) as working:
        xid = await working.prepared()
        await working.commit(xid)
        ack = await working.participant.resolve(LOG, xid, Decision.ROLLBACK, "too late")
        assert ack.kind is AckKind.RETRY
        assert (await working.rollback(xid)).kind is AckKind.RETRY
        assert working.service.named("cancel") == []
        working.service.answers["confirm"] = always(answer(200))
        await working.until_nothing_is_held()
        ack = await working.participant.resolve(LOG, xid, Decision.ROLLBACK, "too late")
        assert ack.kind is AckKind.HEURISTIC_COMMIT


async def test_pages_of_recovery_hold_what_is_owed_among_what_is_in_doubt(database: str) -> None:
    async with at_work(database, confirm=always(answer(503)), cancel=always(answer(503))) as working:
        xids = sorted([await working.prepared() for _ in range(5)])
        await working.commit(xids[1], 3)
        await working.rollback(xids[3])
        after, pages = None, list[int]()
        listed = list[tuple[int, int]]()
        while page := await working.participant.recover(RecoverQuery(LOG, after=after, limit=2)):
            pages.append(len(page))
            after = page[-1].xid
            listed += [(xids.index(branch.xid), branch.sequence) for branch in page]
            assert {branch.phase for branch in page} == {BranchPhase.PREPARED}
        assert listed == [(0, 0), (1, 3), (2, 0), (3, 0), (4, 0)]
        assert pages == [2, 2, 1]
        finished = await working.participant.recover(RecoverQuery(LOG, finished=True))
        assert [branch.xid for branch in finished] == xids


async def test_every_call_is_signed(database: str) -> None:
    """As the page says: HMAC-SHA256 of the time, a point and the body."""
    async with scripted() as service, opened(database, service, secret=SECRET.encode()) as working:
        await working.commit(await working.prepared())
        await working.rollback(await working.prepared())
        assert [call.name for call in service.calls] == ["try", "confirm", "try", "cancel"]
        for call in service.calls:
            unix, _, sent = call.headers["pincex-signature"].removeprefix("t=").partition(",v1=")
            made = hmac.new(SECRET.encode(), f"{unix}.".encode() + call.raw, hashlib.sha256)
            assert sent == made.hexdigest()


async def test_without_a_secret_nothing_is_signed(database: str) -> None:
    async with at_work(database) as working:
        await working.prepared()
        assert "pincex-signature" not in working.service.calls[0].headers
