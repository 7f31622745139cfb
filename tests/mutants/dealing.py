"""Mutants of who waits for whom where branches wait for rows (XA): votes, ends, turns and what is asked together."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Test, single

_DEALING: Final = "participant_sdk/dealing.py"
_RESOURCE: Final = "participant_sdk/resources/postgres_xa.py"
_GATHERING: Final = "participant_sdk/resources/postgres_gathering.py"
_DEALT: Final = "tests/sdk/test_dealing.py::"
_LOAD: Final = "tests/integration/test_postgres_xa_load.py::"

MUTANTS: Final = (
    single(
        "VOTES_WAIT_FOR_THE_SLOWEST",
        "a vote waits for a Prepare beside it, which waits for what follows that vote",
        _DEALING,
        "        done, late = await asyncio.wait(wave, timeout=WAVE_S)\n",
        "        done, late = await asyncio.wait(wave)\n",
        Test(f"{_DEALT}test_votes_and_ends_pass_a_prepare_that_waits_for_one_of_them"),
    ),
    single(
        "ENDS_BEHIND_PREPARES",
        "a Commit waits until the Prepares that were before it have voted",
        _DEALING,
        "        await self._serve(calls)\n",
        "        await asyncio.gather(*self._preparing)\n        await self._serve(calls)\n",
        Test(f"{_DEALT}test_votes_and_ends_pass_a_prepare_that_waits_for_one_of_them"),
    ),
    single(
        "LATE_ONES_COUNT",
        "Prepares that wait for another's end keep the others from beginning",
        _DEALING,
        "        for task in late:\n            task.add_done_callback(partial(self._voted, wave[task]))\n",
        "        for task in late:\n"
        "            task.add_done_callback(partial(self._voted, wave[task]))\n"
        "        await asyncio.gather(*late)\n",
        Test(f"{_DEALT}test_more_prepares_wait_than_may_run_at_once_and_others_pass_them"),
    ),
    single(
        "TURNS_NOT_TAKEN",
        "R10: a Rollback is done beside its own branch's Prepare",
        _DEALING,
        "        if waiting is not None:\n",
        "        if waiting is not None and not waiting and call.is_end is None:\n",
        Test(f"{_DEALT}test_calls_of_one_xid_take_turns"),
    ),
    single(
        "ONE_BRANCHS_CALLS_UNBOUNDED",
        "invariant 12: calls of one branch queue without a bound",
        _DEALING,
        "        if len(self._turns) + self._held >= QUEUE_BOUND_DEFAULT:\n",
        "        if len(self._turns) >= QUEUE_BOUND_DEFAULT:\n",
        Test(f"{_DEALT}test_what_is_not_answered_yet_is_bounded[True]"),
    ),
    single(
        "LATE_ONES_UNBOUNDED",
        "invariant 12: Prepares that wait for another's end are not counted",
        _DEALING,
        "        if len(self._turns) + self._held >= QUEUE_BOUND_DEFAULT:\n",
        "        if self._held >= QUEUE_BOUND_DEFAULT:\n",
        Test(f"{_DEALT}test_what_is_not_answered_yet_is_bounded[False]"),
    ),
    single(
        "ENDS_SHARE_CONNECTIONS",
        "COMMIT PREPARED waits for a connection of a branch that waits for it",
        _RESOURCE,
        "rows=self._rows, finishing=self._finishing)\n",
        "rows=self._rows, finishing=self._work)\n",
        Test(f"{_LOAD}test_a_branch_waits_for_a_row_as_long_as_another_holds_it_and_no_longer[1]"),
    ),
    single(
        "CANCELLED_GOES_ON",
        "R16: a branch whose time ran out goes on at the server, and keeps its locks",
        "participant_sdk/resources/postgres_connection.py",
        "                    await self._cancel(gen)\n",
        "",
        Test(
            "tests/integration/test_lane_waits.py::"
            "test_a_string_that_is_cancelled_ends_at_the_server_and_its_session_is_lent_again"
        ),
    ),
    single(
        "WAIT_ENDS_BY_CALL_ALONE",
        "R9: a branch stays in doubt for ever at a participant whose server was killed and came back",
        "participant_sdk/resources/postgres_connection.py",
        "        if waiter is self._seen and not waiter.done():\n            self._look_away()\n"
        "            waiter.set_result(None)\n",
        "",
        Test("tests/integration/test_lane_waits.py::test_a_wait_ends_though_the_loop_calls_nobody"),
    ),
    single(
        "CLOSED_UNDER_A_WAIT",
        "R16: a service's operation hangs for ever when its branch's time is over, and its connection closed",
        "participant_sdk/resources/postgres_connection.py",
        "            # It finds the connection closed, and says so.\n            self._waiter.set_result(None)\n",
        "            pass\n",
        Test("tests/integration/test_lane_waits.py::test_a_wait_ends_when_its_connection_is_closed"),
    ),
    single(
        "SESSION_LENT_TWICE",
        "XA: two branches work on one session",
        "participant_sdk/resources/postgres_lane.py",
        "            session = self._idle.pop()\n            if session.is_idle:\n",
        "            session = self._idle[-1]\n            if session.is_idle:\n",
        Test("tests/integration/test_lane_settings.py::test_a_session_has_one_user_at_a_time"),
    ),
    single(
        "PLACE_LOST_UNOPENED",
        "XA: a session that cannot be opened takes its place with it, until there is none left",
        "participant_sdk/resources/postgres_lane.py",
        "            self._places.release()\n            raise\n",
        "            raise\n",
        Test("tests/integration/test_lane_settings.py::test_who_gets_no_session_leaves_a_place_for_the_next"),
    ),
    single(
        "PLACE_LOST_DEAD",
        "XA: a session that is found dead takes its place with it, until there is none left",
        "participant_sdk/resources/postgres_lane.py",
        "                await self.take_back(session)\n                raise\n",
        "                raise\n",
        Test("tests/integration/test_lane_settings.py::test_who_gets_no_session_leaves_a_place_for_the_next"),
    ),
    single(
        "DECISION_STORED_AFTER_XA",
        "R12: a decision is stored once COMMIT PREPARED has succeeded, so until then a hand may overrule it",
        _RESOURCE,
        "            found = await self._rows.decide(log_id, current)\n"
        "            if found:\n"
        "                return await self._ending.end(found, Decision.COMMIT)\n",
        "            found = await self._rows.look(log_id, [commit.xid for commit in current])\n"
        "            acks = await self._ending.end(found, Decision.COMMIT)\n"
        "            done = [commit for commit in current if acks[commit.xid].kind is not AckKind.RETRY]\n"
        "            if not done or await self._rows.decide(log_id, done):\n"
        "                return acks\n",
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_another_user_may_not_end_a_branch_and_the_decision_is_kept_all_the_same"
        ),
    ),
    single(
        "BAD_ROW_FAILS_ALL_XA",
        "R17: a row that cannot be opened fails those that were opened with it",
        _GATHERING,
        "            if len(asked) > 1 and isinstance(error, psycopg.Error) and not is_unreachable(error):\n",
        "            if len(asked) > 1 and isinstance(error, psycopg.Error) and is_unreachable(error):\n",
        Test(f"{_LOAD}test_a_row_that_cannot_be_opened_fails_alone"),
    ),
)
