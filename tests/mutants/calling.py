"""Mutants of the HTTP sidecar: what it tells of a service, and when (R2, R8 to R10)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

_VOTES: Final = "tests/http_sidecar/test_votes.py"
_ENDS: Final = "tests/http_sidecar/test_ends.py"

MUTANTS: Final = (
    single(
        "HTTP_VOTE_BEFORE_JOURNAL",
        "R8: a service's yes leaves before it is stored",
        "sidecars/http/participant.py",
        "            return await self._journal.record(log_id, tried)\n",
        "            asyncio.ensure_future(self._journal.record(log_id, tried))\n"
        "            return {xid: answer.vote for xid, answer in tried.items()}\n",
        Test(f"{_VOTES}::test_no_yes_leaves_before_it_is_stored"),
    ),
    single(
        "HTTP_ACKNOWLEDGED_BEFORE_JOURNAL",
        "R9: a confirm is acknowledged before it is stored that the service did it",
        "sidecars/http/courier.py",
        "            await self._journal.settle(done)\n",
        "            asyncio.ensure_future(self._journal.settle(done))\n",
        Test(f"{_ENDS}::test_no_acknowledgement_leaves_before_it_is_stored"),
    ),
    single(
        "HTTP_TIMEOUT_IS_YES",
        "R2: a try that was not answered counts as a yes",
        "sidecars/http/answers.py",
        "    return Tried(transient_no(reason, message[:MESSAGE_MAX_CHARS], xa_code=xa_code), owes_cancel=True)\n",
        "    return Tried(PREPARED)\n",
        Test(f"{_VOTES}::test_a_try_that_times_out_is_no_yes_and_owes_a_cancel"),
    ),
    single(
        "HTTP_TIMEOUT_IS_CERTAIN",
        "R10: a try that was not answered is taken for one that took no effect, and is not cancelled",
        "sidecars/http/answers.py",
        "xa_code=xa_code), owes_cancel=True)\n",
        "xa_code=xa_code))\n",
        Test(f"{_VOTES}::test_a_try_that_times_out_is_no_yes_and_owes_a_cancel"),
    ),
    single(
        "HTTP_CRASHED_TRY_FORGOTTEN",
        "R10: a try that a crash cut off is never cancelled",
        "sidecars/http/migrations/0001_held.sql",
        "        where h.state <> 2 and h.due <= now()\n",
        "        where h.state in (3, 4) and h.due <= now()\n",
        Test(f"{_VOTES}::test_a_try_cut_off_by_a_crash_is_cancelled"),
    ),
    single(
        "HTTP_LATE_YES_STORED",
        "R8: a yes that comes after its try was given up is stored over the cancel",
        "sidecars/http/migrations/0001_held.sql",
        "        where h.state = 1\n        order by h.branch\n",
        "        where h.state in (1, 4)\n        order by h.branch\n",
        Test(f"{_VOTES}::test_a_yes_after_its_try_was_given_up_is_none"),
    ),
    single(
        "HTTP_FAILED_CONFIRM_IS_DONE",
        "R9: a confirm that the service refused is acknowledged",
        "sidecars/http/answers.py",
        "    return 200 <= status < 300 and status != 202\n",
        "    return status < 500\n",
        Test(f"{_ENDS}::test_whatever_is_no_2xx_is_not_done"),
    ),
    single(
        "HTTP_NO_WITHOUT_A_REASON_BINDS",
        "R3: an error page with 409 binds the request",
        "sidecars/http/answers.py",
        "    except (_UnreadableError, InvalidJsonError) as error:\n",
        "    except (_UnreadableError, InvalidJsonError) as error:\n"
        "        if status == 409:\n"
        '            return Tried(business_no("REFUSED", str(error)))\n',
        Test(f"{_VOTES}::test_whatever_is_answered_becomes_a_vote"),
    ),
    Mutant(
        "HTTP_CONNECTION_REUSED",
        "R17: what a service sends beyond an answer is read as another branch's",
        (
            Patch("sidecars/http/service.py", ", max_keepalive_connections=0)", ")"),
            Patch("sidecars/http/service.py", '    "connection": "close",\n', ""),
        ),
        (Test(f"{_VOTES}::test_what_is_sent_beyond_an_answer_is_nobodys"),),
    ),
)
