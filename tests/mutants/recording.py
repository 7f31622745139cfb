"""Mutants of how decisions are written: fence, sequence, timeline, HOLD, unknown results, reports (R3, R4, R5, R15)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Seeds, Test, single

MUTANTS: Final = (
    single(
        "NO_FENCE",
        "R4: a fenced incarnation writes on (in memory)",
        "coordinator/log/memory_store.py",
        "        if not row.is_live:\n            return AppendStatus.FENCED\n",
        "",
        Test("tests/contract/test_decision_log.py::TestAppend::test_a_fenced_incarnation_writes_nothing[memory_world]"),
        Seeds(1, 40),
    ),
    single(
        "NO_FENCE_SQL",
        "R4: a fenced incarnation writes on",
        "coordinator/log/sql/append.sql",
        "      AND fenced_at IS NULL\n",
        "",
        Test(
            "tests/contract/test_decision_log.py::TestAppend::test_a_fenced_incarnation_writes_nothing[postgres_world]"
        ),
    ),
    single(
        "NO_SEQUENCE",
        "R4: a batch is written whatever the sequence says (in memory)",
        "coordinator/log/memory_store.py",
        "        if row.last_sequence != expected:\n            return",
        "        if expected < 0:\n            return",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestAppend::test_a_batch_that_was_written_is_not_written_again[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "NO_SEQUENCE_SQL",
        "R4: a batch is written whatever the sequence says",
        "coordinator/log/sql/append.sql",
        "      AND last_sequence = $3::bigint\n",
        "",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestAppend::test_a_batch_that_was_written_is_not_written_again[postgres_world]"
        ),
    ),
    single(
        "NO_TIMELINE",
        "R4: an incarnation outlives the promotion of another server (in memory)",
        "coordinator/log/memory_store.py",
        "        if self.tables.timeline != incarnation.timeline:\n",
        "        if self.tables.timeline < 0:\n",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestAppend::test_an_incarnation_of_another_timeline_writes_nothing[memory_world]"
        ),
    ),
    single(
        "NO_TIMELINE_SQL",
        "R4: an incarnation outlives the promotion of another server",
        "coordinator/log/sql/append.sql",
        "      AND timeline = txlog.current_timeline()\n",
        "",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestAppend::test_an_incarnation_of_another_timeline_writes_nothing[postgres_world]"
        ),
    ),
    single(
        "TIMELINE_ENDS_NOBODY",
        "R15: whoever opens on a new timeline lets the incarnations of the old one live (in memory)",
        "coordinator/log/memory_store.py",
        "            if row.fenced_by == NOBODY or (row.is_live and row.timeline != timeline):\n",
        "            if row.fenced_by == NOBODY:\n",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestOpen::test_a_new_timeline_ends_the_incarnations_of_others_and_starts_an_epoch[memory_world]"
        ),
    ),
    single(
        "TIMELINE_ENDS_NOBODY_SQL",
        "R15: whoever opens on a new timeline lets the incarnations of the old one live",
        "coordinator/log/sql/open.sql",
        " OR (other.fenced_at IS NULL AND other.timeline <> drawn.timeline)\n",
        "\n",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestOpen::test_a_new_timeline_ends_the_incarnations_of_others_and_starts_an_epoch[postgres_world]"
        ),
    ),
    single(
        "NUMBER_DRAWN_AGAIN",
        "Identity: after a restore a number is drawn that was used before (in memory)",
        "coordinator/log/memory_store.py",
        "        number = max(max(self.tables.epoch_after, *rows, 0) + 1, self._clock.unix_ms() // 1000)\n",
        "        number = max(self.tables.epoch_after, *rows, 0) + 1\n",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestOpen::test_numbers_rise_and_are_no_less_than_the_logs_unix_seconds[memory_world]"
        ),
    ),
    single(
        "NUMBER_DRAWN_AGAIN_SQL",
        "Identity: after a restore a number is drawn that was used before",
        "coordinator/log/sql/open.sql",
        ", floor(extract(epoch FROM clock_timestamp()))::bigint)",
        ")",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestOpen::test_numbers_rise_and_are_no_less_than_the_logs_unix_seconds[postgres_world]"
        ),
    ),
    single(
        "HOLD_LETS_DECISIONS_PASS",
        "R4: in HOLD a batch that is not empty passes (in memory)",
        "coordinator/log/memory_store.py",
        "        return AppendStatus.HELD if self.tables.held and advance else AppendStatus.WRITTEN\n",
        "        return AppendStatus.WRITTEN\n",
        Test("tests/contract/test_decision_log.py::TestAppend::test_in_hold_only_an_empty_batch_passes[memory_world]"),
        Seeds(1, 40),
    ),
    single(
        "HOLD_LETS_DECISIONS_PASS_SQL",
        "R4: in HOLD a batch that is not empty passes",
        "coordinator/log/sql/append.sql",
        "      AND ($4::bigint = 0 OR NOT EXISTS (SELECT FROM txlog.log WHERE held_since IS NOT NULL))\n",
        "",
        Test(
            "tests/contract/test_decision_log.py::TestAppend::test_in_hold_only_an_empty_batch_passes[postgres_world]"
        ),
    ),
    single(
        "REQUEST_BOUND_TWICE",
        "R3: two transactions are bound to one request_id (in memory)",
        "coordinator/log/memory_store.py",
        "            if bound or record.xid in self.tables.decisions:\n",
        "            if record.xid in self.tables.decisions:\n",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestRequests::test_a_bound_request_keeps_its_row_and_the_rest_of_the_batch_passes[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "REQUEST_BOUND_TWICE_SQL",
        "R3: two transactions are bound to one request_id",
        "coordinator/log/migrations/0001_decision_log.sql",
        "CREATE UNIQUE INDEX decisions_request ",
        "CREATE INDEX decisions_request ",
        Test(
            "tests/contract/test_decision_log.py::"
            "TestRequests::test_a_bound_request_keeps_its_row_and_the_rest_of_the_batch_passes[postgres_world]"
        ),
    ),
    single(
        "BATCH_NOT_SORTED",
        "The decision log: batches of two coordinators wait for each other's request_ids",
        "coordinator/log/sql/append.sql",
        "    ORDER BY record.tenant, record.request_id, record.place\n",
        "    ORDER BY record.place\n",
        Test(
            "tests/integration/test_postgres_log.py::"
            "TestLostConnections::test_batches_in_opposite_order_that_meet_half_way_do_not_deadlock"
        ),
    ),
    single(
        "DECIDED_LAZILY",
        "R7: a decision is told before it is on the standby's disk",
        "coordinator/log/connection.py",
        "SET synchronous_commit = on;",
        "SET synchronous_commit = local;",
        Test(
            "tests/integration/test_postgres_log_settings.py::"
            "test_everything_but_a_checkpoint_is_written_with_synchronous_commit"
        ),
    ),
    single(
        "WARNING_IS_SUCCESS",
        "R5: COMMIT answered with a WARNING counts as written",
        "coordinator/log/connection.py",
        '            raise LogUncertainError(f"the decision log warned: {warning}")\n',
        "            return\n",
        Test(
            "tests/integration/test_postgres_log_server.py::"
            "TestDurability::test_a_cancelled_wait_for_the_standby_is_an_unknown_result"
        ),
    ),
    single(
        "LOST_ANSWER_IS_FAILURE",
        "R5: a write whose connection was lost is told to have done nothing",
        "coordinator/log/connection.py",
        '                raise LogUncertainError(f"the decision log\'s answer was lost: {error}") from error\n',
        '                raise LogUnavailableError(f"the decision log\'s answer was lost: {error}") from error\n',
        Test(
            "tests/integration/test_postgres_log.py::"
            "TestLostConnections::test_a_terminated_append_is_unknown_and_writing_again_settles_it"
        ),
    ),
    single(
        "UNKNOWN_WRITE_IS_DONE",
        "R5: a write of unknown result is taken as done",
        "coordinator/log/appends.py",
        "            appended = await self._log.append(self._incarnation, self._sequence, records, burned=burned)\n",
        "            try:\n"
        "                appended = await self._log.append(self._incarnation, self._sequence, records,"
        " burned=burned)\n"
        "            except LogUncertainError:\n"
        "                appended = Appended(AppendStatus.WRITTEN, self._sequence + len(records) +"
        " burned)\n",
        Test("tests/log/test_unknown_writes.py::test_what_was_found_is_told_only_after_a_later_write"),
        Seeds(1, 40),
    ),
    single(
        "UNKNOWN_WRITE_IS_FAILED",
        "R5: a write of unknown result is taken as failed",
        "coordinator/log/appends.py",
        "            self._uncertain |= bool(records) and uncertain\n",
        "",
        Test("tests/log/test_unknown_writes.py::test_done_with_the_answer_lost_is_told_once_as_it_was_written"),
        Seeds(1, 40),
    ),
    single(
        "ABSENCE_IS_FAILURE",
        "R5: a row that is absent when it is looked for is taken for a write that failed",
        "coordinator/log/appends.py",
        "            self._uncertain |= bool(records) and uncertain\n",
        "            if uncertain and records:\n"
        "                self._uncertain = bool((await self._log.read([record.xid for record in"
        " records])).decisions)\n",
        Test("tests/log/test_unknown_writes.py::test_what_was_found_is_told_only_after_a_later_write"),
    ),
    single(
        "PRESENCE_TOLD_AT_ONCE",
        "R5: a row that was found is told before a later write was confirmed",
        "coordinator/log/appends.py",
        "        self.confirm(lambda: self._on_written(sequenced))\n",
        "        self._on_written(sequenced)\n",
        Test("tests/log/test_unknown_writes.py::test_what_was_found_is_told_only_after_a_later_write"),
    ),
    single(
        "ABSENT_ONES_DROPPED",
        "R5: what an unknown write did not do is not written again",
        "coordinator/log/appends.py",
        "        if absent:\n            self._taken.append(absent)\n",
        "",
        Test("tests/log/test_unknown_writes.py::test_conflicts_within_a_lost_batch_go_again"),
    ),
    single(
        "OPEN_WRITE_NOT_ENDED",
        "R15: what an open write holds is written again under the next sequence, while the open one may still happen",
        "coordinator/log/appends.py",
        "            return going, 1 if waiting and not going else 0\n",
        "            return going, 0\n",
        Test("tests/log/test_waiting_commits.py::test_an_open_write_that_may_not_be_repeated_is_made_impossible"),
    ),
    single(
        "COMMIT_WRITTEN_EARLY",
        "R15: COMMIT is written before the participants reported",
        "coordinator/log/appends.py",
        "        going: list[DecisionRecord] = []\n",
        "        return batch, []\n        going: list[DecisionRecord] = []\n",
        Test("tests/log/test_waiting_commits.py::test_a_commit_waits_for_its_participants_and_holds_up_nothing_else"),
    ),
    single(
        "REPORTS_OF_ANOTHER_CONNECTION",
        "R15: reports count on after the log was connected to again",
        "coordinator/log/reported.py",
        "        if self._generation == self._log.generation:\n            return False\n",
        "        if self._log.generation:\n            return False\n",
        Test(
            "tests/log/test_waiting_commits.py::test_a_report_of_before_the_log_was_connected_to_again_counts_no_more"
        ),
        Seeds(1, 40),
    ),
    single(
        "RECORDS_OVER_A_NEW_CONNECTION",
        "R15: records are the first that is written over a new connection (in memory)",
        "coordinator/log/memory.py",
        "        if not self._is_connected and (records or burned):\n",
        "        if not self._is_connected and burned < 0:\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestConnections::test_an_append_that_decides_is_never_the_first_of_a_connection[memory_world-0]"
        ),
    ),
    single(
        "RECORDS_OVER_A_NEW_CONNECTION_SQL",
        "R15: records are the first that is written over a new connection",
        "coordinator/log/postgres.py",
        "may_be_first=not advance)",
        "may_be_first=True)",
        Test("tests/contract/test_decision_log_keeping.py::TestConnections"),
    ),
    single(
        "BAD_RECORD_FAILS_ALL",
        "R17: a value that the database refuses fails the batch that it travelled in",
        "coordinator/log/appends.py",
        "        if len(batch) > 1:\n"
        "            middle = len(batch) // 2\n"
        "            self._taken.extendleft((batch[middle:], batch[:middle]))\n"
        "            return\n",
        "        if len(batch) > 1:\n"
        "            self._taken.appendleft([self._on_refused(record, message) for record in batch])\n"
        "            return\n",
        Test("tests/log/test_bad_records.py::test_the_bad_record_alone_is_rolled_back_and_the_rest_pass"),
    ),
    single(
        "TAIL_LOSS_UNTOLD",
        "R4: a sequence that went back ends the incarnation, and nobody is told by HOLD",
        "coordinator/log/appends.py",
        "            await self._log.hold(message)\n",
        "            await self._log.standing()\n",
        Test("tests/log/test_endings.py::test_a_log_that_lost_its_tail_is_put_in_hold"),
    ),
)
