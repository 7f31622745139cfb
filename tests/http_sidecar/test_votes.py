"""What a service's answer to a try becomes: a vote that is stored before it is told, and a cancel where one is owed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Prepare, Work
from participant_sdk.xa import AckKind, Vote, VoteKind, XaCode
from sidecars.http.answers import ANSWER_MAX_BYTES
from tests.http_sidecar.at_work import (
    LOG,
    OPERATION,
    AtWork,
    a_prepare,
    at_work,
    journal_locked,
    opened,
    until_blocked,
)
from tests.http_sidecar.scripted import CUT, Call, answer, scripted

NO = {"reason": "OUT_OF_STOCK", "message": "none left", "field": "operations[0].parameters.sku"}


class Case(NamedTuple):
    """An answer to a try, and what becomes of it."""

    sent: bytes
    reason: str
    transient: bool = True
    xa_code: int = XaCode.RBPROTO


UNREADABLE = "SERVICE_UNREADABLE"
CERTAIN = {
    "a no, then a yes": Case(answer(409, NO) + answer(200) * 3, "OUT_OF_STOCK", transient=False, xa_code=100),
    "409": Case(answer(409, NO), "OUT_OF_STOCK", transient=False, xa_code=XaCode.RBROLLBACK),
    "422": Case(answer(422, NO), "OUT_OF_STOCK", transient=False, xa_code=XaCode.RBROLLBACK),
    "400": Case(answer(400, NO), "OUT_OF_STOCK", transient=False, xa_code=XaCode.XAER_INVAL),
}
UNKNOWN = {
    **{
        str(status): Case(answer(status, NO), "SERVICE_FAILED", xa_code=XaCode.RBCOMMFAIL)
        for status in (201, 202, 204, 401, 403, 404, 405, 408, 410, 413, 429, 500, 502, 503, 504)
    },
    **{
        str(status): Case(
            answer(status, headers="location: http://127.0.0.1:1/try\r\n"),
            "SERVICE_FAILED",
            xa_code=XaCode.RBCOMMFAIL,
        )
        for status in (301, 302, 307, 308)
    },
    "cut": Case(CUT, "SERVICE_UNREACHABLE", xa_code=XaCode.RBCOMMFAIL),
    "not HTTP": Case(b"SSH-2.0-x\r\n\r\n", "SERVICE_UNREACHABLE", xa_code=XaCode.RBCOMMFAIL),
    "shorter than it says": Case(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{}", "SERVICE_TIMED_OUT", xa_code=106
    ),
    "malformed": Case(answer(200, raw=b'{"results": ['), UNREADABLE),
    "empty": Case(answer(200, raw=b""), UNREADABLE),
    "not UTF-8": Case(answer(200, raw=b'{"results": ["\xff"]}'), UNREADABLE),
    "a list": Case(answer(200, []), UNREADABLE),
    "results a text": Case(answer(200, {"results": "yes"}), UNREADABLE),
    "results an object": Case(answer(200, {"results": {}}), UNREADABLE),
    "two results for one": Case(answer(200, {"results": [1, 2]}), UNREADABLE),
    "a key twice": Case(answer(200, raw=b'{"results":[],"results":[]}'), UNREADABLE),
    "NaN": Case(answer(200, raw=b'{"results":[NaN]}'), UNREADABLE),
    "too exact": Case(answer(200, raw=b'{"results":[1e400]}'), UNREADABLE),
    "read_only a text": Case(answer(200, {"read_only": "true"}), UNREADABLE),
    "huge": Case(answer(200, {"results": ["x" * ANSWER_MAX_BYTES]}), UNREADABLE),
    "endless": Case(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (8 * ANSWER_MAX_BYTES), UNREADABLE),
    "compressed": Case(answer(200, raw=b"\x1f\x8b\x08", headers="content-encoding: gzip\r\n"), UNREADABLE),
    "twice, first a failure": Case(answer(500) + answer(200), "SERVICE_FAILED", xa_code=XaCode.RBCOMMFAIL),
    "a no without a word": Case(answer(409, raw=b"<html>conflict</html>"), UNREADABLE),
    "a no without a reason": Case(answer(409, {"message": "no"}), UNREADABLE),
    "a reason that is no word": Case(answer(422, {"reason": "out of stock"}), UNREADABLE),
    "a reason that is a number": Case(answer(400, {"reason": 7}), UNREADABLE),
    "a field that is a list": Case(answer(400, {**NO, "field": ["a"]}), UNREADABLE),
}


async def test_whatever_is_answered_becomes_a_vote(database: str) -> None:
    """Only 200, 409, 422 and 400 are certain: after anything else a cancel is owed, and the vote binds nothing.

    All travel in one batch: an answer is its own branch's vote alone (R17).
    """
    cases = {**CERTAIN, **UNKNOWN}
    prepares = {name: a_prepare() for name in cases}
    sent = {str(prepares[name].xid): case.sent for name, case in cases.items()}

    async def trying(call: Call) -> bytes:
        return sent[call.body["transaction_id"]]

    async with at_work(database, **{"try": trying}) as working:
        votes = dict(zip(cases, await working.participant.prepare(list(prepares.values())), strict=True))
        for name, case in cases.items():
            vote = votes[name]
            expected = (VoteKind.ROLLED_BACK, case.reason, case.transient, case.xa_code)
            assert (vote.kind, vote.reason, vote.transient, vote.xa_code) == expected, f"{name}: {vote}"
        assert votes["400"].field == votes["409"].field == NO["field"]
        assert votes["409"].message == "none left"
        await working.service.until("cancel", len(UNKNOWN))
        await working.until_nothing_is_held()
        cancelled = {call.body["transaction_id"] for call in working.service.named("cancel")}
        assert cancelled == {str(prepares[name].xid) for name in UNKNOWN}
        assert len(working.service.named("try")) == len(cases)
        for name in cases:
            assert await working.phase(prepares[name].xid) is BranchPhase.ROLLED_BACK
            # R8: a second Prepare gets the stored vote, and the service is not asked again.
            assert await working.vote(prepares[name]) == votes[name]
        assert len(working.service.named("try")) == len(cases)


async def test_a_yes_has_its_results_exactly(database: str) -> None:
    async def trying(_: Call) -> bytes:
        return answer(200, raw=b'{"results": [{"left": 0.100000000000000001}, null]}')

    async with at_work(database, **{"try": trying}) as working:
        prepare = a_prepare(count=2, request_id="r-1")
        vote = await working.vote(prepare)
        assert (vote.kind, vote.results) == (VoteKind.PREPARED, ('{"left":0.100000000000000001}', "null"))
        assert await working.vote(prepare) == vote
        (call,) = working.service.named("try")
        # The parameters' text travels as it came.
        assert call.raw.count(OPERATION.parameters.encode()) == 2
        assert call.body["request_id"] == "r-1"
        assert call.body["tenant"] == "default"
        assert 0 < call.body["remaining_ms"] <= 2_000
        assert call.branch == f"{LOG}:{prepare.xid}:inventory"
        assert await working.phase(prepare.xid) is BranchPhase.PREPARED


async def test_what_changed_nothing_is_read_only_and_never_called_again(database: str) -> None:
    async def trying(_: Call) -> bytes:
        return answer(200, {"read_only": True, "results": [5]})

    async with at_work(database, **{"try": trying}) as working:
        prepare = a_prepare()
        vote = await working.vote(prepare)
        assert (vote.kind, vote.results) == (VoteKind.READ_ONLY, ("5",))
        assert (await working.rollback(prepare.xid)).kind is AckKind.ALREADY_DONE
        assert [call.name for call in working.service.calls] == ["try"]


async def test_parameters_that_are_no_json_never_reach_the_service(database: str) -> None:
    async with at_work(database) as working:
        operations = (OPERATION, OPERATION._replace(parameters='{"a":1,"a":2}'))
        vote = await working.vote(a_prepare()._replace(operations=operations))
        assert (vote.xa_code, vote.field) == (XaCode.XAER_INVAL, "operations[1].parameters")
        assert working.service.calls == []


async def test_a_try_that_times_out_is_no_yes_and_owes_a_cancel(database: str) -> None:
    """Neither a yes nor a certain no: the service may have taken effect, or does so yet (R2)."""
    asked = asyncio.Event()

    async def trying(_: Call) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return CUT

    async with scripted(**{"try": trying}) as service, opened(database, service, timeout_s=0.3) as working:
        prepare = a_prepare()
        vote = await working.vote(prepare)
        assert asked.is_set()
        assert (vote.kind, vote.reason, vote.transient) == (VoteKind.ROLLED_BACK, "SERVICE_TIMED_OUT", True)
        await service.until("cancel")
        await working.until_nothing_is_held()


async def test_a_try_ends_with_its_branchs_time(database: str) -> None:
    """R16: the deadline counts, where it is nearer than the call's time-out."""

    async def trying(_: Call) -> bytes:
        await asyncio.Event().wait()
        return CUT

    async with scripted(**{"try": trying}) as service, opened(database, service, timeout_s=60.0) as working:
        vote = await working.vote(a_prepare(remaining_s=0.3))
        assert vote.reason == "SERVICE_TIMED_OUT"
        await service.until("cancel")


async def test_a_service_that_is_not_there_gets_its_cancel_when_it_is(database: str) -> None:
    async with scripted() as gone:
        address = gone.address
    async with scripted() as service:
        service_then = service.address
        service.address = address
        async with opened(database, service) as working:
            prepare = a_prepare()
            assert (await working.vote(prepare)).reason == "SERVICE_UNREACHABLE"
            ack = await working.rollback(prepare.xid)
            assert (ack.kind, "cancel: no answer" in ack.message) == (AckKind.RETRY, True)
            assert await working.phase(prepare.xid) is BranchPhase.ACTIVE
            assert "cancelling" in (await working.branch(prepare.xid)).reason
        service.address = service_then
        async with opened(database, service) as working:
            await service.until("cancel")
            await working.until_nothing_is_held()
            assert (await working.rollback(prepare.xid)).kind is AckKind.ALREADY_DONE


async def test_no_yes_leaves_before_it_is_stored(database: str) -> None:
    """R8: while the journal cannot be written, the service's 200 is no vote."""
    async with AsyncExitStack() as locking, at_work(database) as working:
        voting = asyncio.create_task(_voting_while_locked(working, locking))
        prepare, vote = await voting
        assert vote.kind is VoteKind.ROLLED_BACK
        assert (vote.reason, vote.transient) == ("DATABASE_UNAVAILABLE", True)
        # Nothing is promised, and what the service holds is cancelled once the try's time has passed.
        await working.service.until("cancel", branch=str(prepare.xid))
        await working.until_nothing_is_held()


async def _voting_while_locked(working: AtWork, locking: AsyncExitStack) -> tuple[Prepare, Vote]:
    """Prepare; lock the journal before the service answers, and free it only when that was given up."""
    prepare = a_prepare()

    async def trying(_: Call) -> bytes:
        await locking.enter_async_context(journal_locked(working.dsn))
        return answer(200)

    working.service.answers["try"] = trying
    voting = asyncio.create_task(working.vote(prepare))
    await until_blocked(working.dsn, "record_tries")
    assert not voting.done()
    vote = await voting
    await locking.aclose()
    return prepare, vote


async def test_a_request_is_tried_by_one_branch_at_a_time(database: str) -> None:
    """R3: while the service may hold something of a branch, another one of its request votes transient, unasked."""
    is_down = True

    async def cancelling(_: Call) -> bytes:
        return answer(503 if is_down else 200)

    async with at_work(database, cancel=cancelling) as working:
        first, second, third = (a_prepare(request_id="twin") for _ in range(3))
        assert (await working.vote(first)).is_yes
        assert (await working.vote(second)).reason == "REQUEST_IN_PROGRESS"
        assert (await working.rollback(first.xid)).kind is AckKind.RETRY
        # Rolled back, and not yet cancelled.
        assert (await working.vote(third)).reason == "REQUEST_IN_PROGRESS"
        is_down = False
        assert (await working.rollback(first.xid)).kind is AckKind.ALREADY_DONE
        assert (await working.vote(a_prepare(request_id="twin"))).is_yes
        assert len(working.service.named("try")) == 2


async def test_one_batch_is_called_side_by_side_and_bounded(database: str) -> None:
    async def trying(_: Call) -> bytes:
        await asyncio.sleep(0)
        return answer(200)

    async with scripted(**{"try": trying}) as service, opened(database, service, calls_at_once=4) as working:
        prepares = [a_prepare() for _ in range(100)]
        answers = await working.participant.apply(Work(prepares=prepares))
        assert all(vote.is_yes for vote in answers.prepares)
        assert 1 < service.most_at_once <= 4


async def test_a_try_whose_turn_does_not_come_is_not_made(database: str) -> None:
    """It votes transient, and nothing is owed: the service never heard of it. A batch has an end, whoever hangs."""
    async with (
        scripted(**{"try": _never}) as service,
        opened(database, service, calls_at_once=1, timeout_s=0.2) as working,
    ):
        prepares = [a_prepare() for _ in range(8)]
        reasons = Counter(vote.reason for vote in await working.participant.prepare(prepares))
        assert set(reasons) == {"SERVICE_TIMED_OUT", "SERVICE_BUSY"}
        assert reasons["SERVICE_TIMED_OUT"] == len(service.named("try"))
        await service.until("cancel", reasons["SERVICE_TIMED_OUT"])
        await working.until_nothing_is_held()
        assert len(service.named("cancel")) == reasons["SERVICE_TIMED_OUT"]


async def test_a_rollback_before_its_prepare_never_reaches_the_service(database: str) -> None:
    """R10: the tombstone is in the journal, and keeps the late try at home."""
    async with at_work(database) as working:
        prepare = a_prepare()
        assert (await working.rollback(prepare.xid)).kind is AckKind.DONE
        assert (await working.vote(prepare)).reason == "ROLLED_BACK_BEFORE"
        assert working.service.calls == []


@pytest.mark.parametrize("asks", [True, False])
async def test_a_try_cut_off_by_a_crash_is_cancelled(database: str, asks: bool) -> None:
    """Journalled before the service is asked: whoever comes next owes the cancel, asked for it or not."""
    xid: Xid | None = None
    async with scripted(**{"try": _never}) as service:
        async with opened(database, service, timeout_s=0.5) as working:
            prepare = a_prepare()
            xid = prepare.xid
            voting = asyncio.create_task(working.vote(prepare))
            await service.until("try")
            assert await working.phase(xid) is BranchPhase.ACTIVE
            assert (await working.participant.forget(LOG, xid)).kind is AckKind.RETRY
            voting.cancel()
            await asyncio.gather(voting, return_exceptions=True)
        async with opened(database, service, timeout_s=0.5) as working:
            if asks:
                assert (await working.rollback(xid)).kind is AckKind.ALREADY_DONE
            await service.until("cancel")
            await working.until_nothing_is_held()
            vote = await working.vote(prepare)
            assert (vote.reason, vote.transient) == ("TRY_UNFINISHED", True)
            assert len(service.named("try")) == 1


async def _never(_: Call) -> bytes:
    await asyncio.Event().wait()
    return CUT


async def test_a_yes_after_its_try_was_given_up_is_none(database: str) -> None:
    """Rolled back through another process while the service was at work: the vote is the one in the journal."""
    answering, is_told = asyncio.Event(), asyncio.Event()

    async def trying(_: Call) -> bytes:
        await answering.wait()
        return answer(200)

    async def cancelling(_: Call) -> bytes:
        return answer(200 if is_told.is_set() else 503)

    async with (
        scripted(**{"try": trying, "cancel": cancelling}) as service,
        opened(database, service, timeout_s=60.0) as first,
        opened(database, service) as second,
    ):
        prepare = a_prepare()
        voting = asyncio.create_task(first.vote(prepare))
        await service.until("try")
        assert (await second.rollback(prepare.xid)).kind is AckKind.RETRY
        answering.set()
        assert (await voting).reason == "TRY_UNFINISHED"
        assert await first.phase(prepare.xid) is BranchPhase.ACTIVE
        is_told.set()
        assert (await first.rollback(prepare.xid)).kind is AckKind.ALREADY_DONE
        assert await first.phase(prepare.xid) is BranchPhase.ROLLED_BACK


async def test_what_is_sent_beyond_an_answer_is_nobodys(database: str) -> None:
    """R17: a service that answers twice has not answered for the branch that is asked next."""
    sent = [answer(409, NO) + answer(200), answer(409, NO)]

    async def trying(_: Call) -> bytes:
        return sent.pop(0)

    async with scripted(**{"try": trying}) as service, opened(database, service, calls_at_once=1) as working:
        votes = [await working.vote(a_prepare()) for _ in range(2)]
        assert [vote.reason for vote in votes] == ["OUT_OF_STOCK"] * 2


def test_the_cases_are_json() -> None:
    """A case that was written wrong would be unreadable for another reason than it says."""
    assert json.loads(answer(409, NO).partition(b"\r\n\r\n")[2]) == NO
