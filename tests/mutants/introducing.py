"""Mutants of introductions and of what a link carries: clocks, epochs, reports, deadlines (R10, R13, R15, R16, R17)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "CLOCKS_NOT_COMPARED",
        "R10: coordinator and participant talk though their clocks are far apart",
        "participant_sdk/hello.py",
        "    return abs(one_unix_ms - other_unix_ms) > CLOCKS_APART_MAX_MS\n",
        "    return abs(one_unix_ms - other_unix_ms) < 0\n",
        Test("tests/sdk/test_sessions.py::test_clocks_more_than_a_minute_apart_are_refused"),
    ),
    single(
        "FUTURE_XID_PREPARED",
        "R10: a branch is prepared whose xid is from the future, so that the window never closes",
        "participant_sdk/resources/admission.py",
        "    if age_ms < -CLOCK_SKEW_MAX_MS:\n",
        "    if age_ms < -CLOCK_SKEW_MAX_MS * 1_000_000:\n",
        Test("tests/sdk/test_sessions.py::test_an_xid_from_the_future_is_refused"),
    ),
    single(
        "ANYBODY_IS_THE_PARTICIPANT",
        "R15: whoever answers at the address counts as the participant",
        "participant_sdk/link.py",
        "        if welcome.participant != self.name:\n",
        "        if not welcome.participant:\n",
        Test("tests/sdk/test_sessions.py::test_another_participant_at_the_address_is_no_participant_of_ours"),
    ),
    single(
        "ANYBODY_IS_POLLED",
        "R15: whoever answers at the address is polled in the participant's place",
        "coordinator/hold.py",
        "        if welcome.participant != name:\n",
        "        if not welcome.participant:\n",
        Test("tests/engine/test_hold.py::test_whoever_else_answers_at_the_address_does_not_stand_in_for_a_participant"),
    ),
    single(
        "OUTDATED_WELCOME_TOLD",
        "R15: a welcome of before the log was connected to anew counts as a report",
        "participant_sdk/link.py",
        "            self._greetings.outdate()\n",
        "            pass\n",
        Test("tests/sdk/test_greetings.py::test_a_welcome_to_an_earlier_introduction_is_not_told"),
    ),
    single(
        "NOT_INTRODUCED_AGAIN",
        "R15: nobody is asked for a report when the log was connected to anew",
        "coordinator/reports.py",
        "        for link in self._links.values():\n            link.introduce()\n",
        "",
        Test("tests/engine/test_reports.py::test_work_goes_on_after_every_connection_to_the_log_was_lost"),
        Seeds(1, 40),
    ),
    single(
        "OLD_WELCOME_ALARMS",
        "R15: a participant is called behind by a welcome that is older than the checkpoint",
        "coordinator/reports.py",
        "        if known is None:\n            self._suspected[participant] = applied\n",
        "        if known is not None:\n            self._suspected[participant] = applied\n",
        Test("tests/engine/test_reports.py::test_a_welcome_older_than_the_checkpoint_is_no_alarm"),
    ),
    single(
        "LATER_EPOCH_UNTOLD",
        "R15: nobody is told that a participant holds an epoch which the log has forgotten",
        "participant_sdk/link.py",
        "            self._events.epoch_ahead(self.name, welcome.epoch)\n",
        "            pass\n",
        Test("tests/engine/test_reports.py::test_a_log_that_forgot_an_epoch_is_held_and_begins_above_it"),
    ),
    single(
        "EPOCH_BEGINS_BELOW",
        "R15: what is drawn after an epoch was forgotten is below it (in memory)",
        "coordinator/log/memory_keeping.py",
        "        self.tables.epoch_after = max(self.tables.epoch_after, epoch)\n",
        "",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestHold::test_what_is_drawn_after_an_epoch_was_forgotten_is_above_it[memory_world-False]"
        ),
    ),
    single(
        "FENCED_ONE_HOLDS",
        "invariant 7: one that is fenced puts the log in HOLD (in memory)",
        "coordinator/log/memory_keeping.py",
        "        if own is None or not own.is_live or own.timeline != self.tables.timeline:\n            return",
        "        if own is None:\n            return",
        Test("tests/engine/test_reports.py::test_one_that_is_fenced_puts_nothing_in_hold"),
    ),
    single(
        "FENCED_ONE_HOLDS_SQL",
        "invariant 7: one that is fenced puts the log in HOLD",
        "coordinator/log/migrations/0004_hold_above_an_epoch.sql",
        "    WHERE incarnation = own AND fenced_at IS NULL AND timeline = txlog.current_timeline();\n",
        "    WHERE incarnation = own;\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestHold::test_what_is_drawn_after_an_epoch_was_forgotten_is_above_it[postgres_world-False]"
        ),
    ),
    single(
        "IMPLAUSIBLE_WATERMARK",
        "R15: a Commit of an incarnation that no log can have drawn leaves a watermark, and every log is in HOLD",
        "participant_sdk/session.py",
        "            elif not self._logs.is_plausible(commit.incarnation):\n",
        "            elif not commit.incarnation:\n",
        Test("tests/sdk/test_implausible.py::test_a_commit_of_an_implausible_incarnation_leaves_no_watermark"),
    ),
    single(
        "OLDER_EPOCH_OBEYED_IN_MEMORY",
        "R15: a Commit of an older epoch takes effect (in memory)",
        "participant_sdk/resources/memory.py",
        "        if commit.epoch < self._store.current.epochs.get(commit.log_id, 0):\n",
        "        if commit.epoch < 0:\n",
        Test("tests/contract/test_epochs.py::test_a_commit_of_an_older_epoch_changes_nothing[memory]"),
    ),
    single(
        "BAD_FIELD_FAILS_THE_SESSION",
        "R17: a branch with a wrong field ends the session, and so fails what travelled with it",
        "participant_sdk/session.py",
        "            self._answers.voted(packed.xid, refused_field(error))\n            return\n",
        "            raise BadFrameError(str(error)) from error\n",
        Test("tests/sdk/test_sessions.py::test_a_bad_branch_gets_its_own_no_and_fails_nothing_else"),
    ),
    single(
        "SENT_WITHOUT_TIME",
        "R16: a branch is sent whose time has run out",
        "participant_sdk/link.py",
        "            if remaining_ms > 0:\n",
        "            if remaining_ms := max(1, remaining_ms):\n",
        Test("tests/sdk/test_sessions.py::test_what_is_too_late_to_be_sent_is_voted_no_by_the_link"),
    ),
    single(
        "TAKEN_BACK_ONE_LEAVES",
        "R10: a Prepare leaves after its Rollback was asked for",
        "participant_sdk/link.py",
        "        if self._outbox.take_back(xid):\n            self._outstanding.pop(xid, None)\n",
        "",
        Test("tests/sdk/test_sessions.py::test_a_rollback_takes_back_a_prepare_that_has_not_left"),
    ),
    single(
        "ACTIVE_ONE_STAYS",
        "R13: work that nobody prepares stays for ever (in memory)",
        "participant_sdk/resources/memory.py",
        "        expired = [key for key, work in self._active.items() if now_s >= work.deadline_s]\n",
        "        expired = [key for key, work in self._active.items() if now_s < work.deadline_s < 0]\n",
        Test("tests/contract/test_branch_table.py::test_work_under_an_xid_expires_with_its_deadline[memory]"),
    ),
    single(
        "ACTIVE_ONE_STAYS_XA",
        "R13: work that nobody prepares stays for ever (XA)",
        "participant_sdk/resources/postgres_xa.py",
        "        late = [key for key, work in self._embedded.items() if now_s >= work.deadline_s]\n",
        "        late = [key for key, work in self._embedded.items() if now_s < work.deadline_s < 0]\n",
        Test("tests/contract/test_branch_table.py::test_work_under_an_xid_expires_with_its_deadline[postgres_xa]"),
    ),
    single(
        "OLDER_EPOCH_ROLLS_BACK",
        "R15: a Rollback of an older epoch is obeyed",
        "participant_sdk/servicer.py",
        "            if request.epoch < await self._logs.admit(rollback.log_id, request.epoch):\n",
        "            if await self._logs.admit(rollback.log_id, request.epoch) < 0:\n",
        Test("tests/sdk/test_servicer.py::test_a_stale_epoch_gets_retry"),
    ),
    Mutant(
        "OLDER_EPOCH_OBEYED_THROUGHOUT",
        "R15: neither session nor single call nor resource minds that a coordinator speaks for an older epoch",
        (
            Patch(
                "participant_sdk/servicer.py",
                "            if request.epoch < await self._logs.admit(commit.log_id, request.epoch):\n",
                "            if await self._logs.admit(commit.log_id, request.epoch) < 0:\n",
            ),
            Patch(
                "participant_sdk/session.py",
                "        stale = frame.epoch < await self._admit(frame.epoch)\n",
                "        stale = await self._admit(frame.epoch) < 0\n",
            ),
            Patch(
                "participant_sdk/resources/memory.py",
                "        if commit.epoch < self._store.current.epochs.get(commit.log_id, 0):\n",
                "        if commit.epoch < 0:\n",
            ),
        ),
        (Test("tests/engine/test_hold.py::test_what_an_older_coordinator_still_says_is_not_believed"),),
    ),
    single(
        "HELD_FOR_EVER",
        "R16: Prepares wait without end for a participant that answers nothing of what it was sent before",
        "participant_sdk/outbox.py",
        "call_later(2 * self._usual_s, self._release)",
        "call_later(2 * self._usual_s, lambda: None)",
        Test("tests/sdk/test_outbox.py::test_prepares_leave_without_any_answer[0.01]"),
    ),
    single(
        "ENDS_HELD_TOO",
        "R16: a Commit waits for the answer to a Prepare that may wait for this very Commit",
        "participant_sdk/outbox.py",
        "        if not self._commits:\n            self._wake.set()\n",
        "        if not self._commits and self._holding is None:\n            self._wake.set()\n",
        Test("tests/sdk/test_outbox.py::test_a_commit_waits_for_nothing_and_takes_prepares_along"),
    ),
)
