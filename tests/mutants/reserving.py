"""Mutants of the reservation resource, its SQL and its services' (R3, R8 to R10, R15)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

MUTANTS: Final = (
    single(
        "LOCKED_WHILE_CHECKED_SQL",
        "Reservation: lock and check are one statement",
        "sidecars/bookkeeper/migrations/0005_reserve_all.sql",
        "    perform\n"
        "    from bookkeeper.accounts as a\n"
        "    where a.account = any (array(\n"
        "        select unnest(array[e.debit_account, e.credit_account])\n"
        "        from bookkeeper.entries as e\n"
        "        where e.branch = any (committed || undone)\n"
        "        union all\n"
        "        select m.debit_account from unnest(movements) as m where m.draw > 0\n"
        "    ))\n"
        "    order by a.account\n"
        "    for no key update;\n",
        "",
        Test("tests/integration/test_reservation_failures.py::test_batches_at_once_never_reserve_more_than_there_is"),
    ),
    Mutant(
        "RUNNING_SUM_IGNORED_SQL",
        "Reservation: two branches of one batch take the same money",
        (
            Patch(
                "sidecars/bookkeeper/migrations/0003_capture.sql",
                "                when w.draw > 0 and w.running > w.free then 'AGAIN'\n",
                "",
            ),
        ),
        (),
        "the table's constraint refuses the whole batch, which is then run by halves until each branch is judged after "
        "those before it are reserved: the votes are the same, and only time is lost. Without the constraint too, "
        "SUM_AND_CONSTRAINT_SQL, it is noticed.",
    ),
    single(
        "REFUSED_TOO_MUCH_SQL",
        "Reservation: what a running sum refused because of one large no is not tried again",
        "sidecars/bookkeeper/migrations/0005_reserve_all.sql",
        "            exit when again = '{}';\n",
        "            exit;\n",
        Test("tests/integration/test_bookkeeper.py::test_a_batch_takes_no_more_than_there_is_and_no_less_than_fits"),
    ),
    single(
        "COMMITS_AFTER_CHECKS_SQL",
        "Reservation: the commits of a batch are applied after its checks",
        "sidecars/bookkeeper/migrations/0005_reserve_all.sql",
        "    if cardinality(committed) > 0 then\n"
        "        perform bookkeeper.commit_branches(committed);\n"
        "    end if;\n"
        "    if",
        "    if",
        Test("tests/integration/test_bookkeeper.py::test_an_operation_is_reserved_and_then_posted_or_voided"),
    ),
    Mutant(
        "CANCELLED_TWICE_SQL",
        "Reservation: two branches cancel one order, and what is marked is not looked at again",
        (
            Patch(
                "sidecars/trading/migrations/0004_operations.sql",
                "    elsif found.cancelling is not null or found.cancel_sequence is not null or not is_first then\n",
                "    elsif found.cancel_sequence is not null or not is_first then\n",
            ),
            Patch(
                "sidecars/trading/migrations/0007_cancelled_once.sql",
                "(old.cancelling is not null or old.cancel_sequence is not null",
                "(old.cancel_sequence is not null",
            ),
        ),
        (Test("tests/integration/test_trading.py::test_an_order_is_cancelled_once"),),
    ),
    single(
        "COMMITTED_TWICE_SQL",
        "R10: a Commit that comes again takes effect again (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "            where b.log = log_number and b.xid = any (placed_xids) and b.phase + 0 = 2\n",
        "            where b.log = log_number and b.xid = any (placed_xids) and b.phase + 0 in (2, 3)\n",
        Test("tests/integration/test_reservation_repeated.py::test_a_commit_that_comes_again_moves_no_money"),
    ),
    single(
        "COMMIT_UNSORTED",
        "R15: a Commit keeps the sequence of another (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "            order by u.xid\n",
        "            order by u.xid desc\n",
        Test("tests/integration/test_reservation_repeated.py::test_commits_in_any_order_get_their_own_answers"),
    ),
    single(
        "NO_TOMBSTONE_SQL",
        "R10: a Prepare after its Rollback is accepted (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "                select log_number, r.xid, 4 from unnest(rollback_xids) as r (xid) order by r.xid\n",
        "                select log_number, r.xid, 4 from unnest(rollback_xids) as r (xid) where false"
        " order by r.xid\n",
        Test("tests/integration/test_reservation.py::test_a_rollback_before_its_prepare_keeps_it_out"),
    ),
    single(
        "TWO_LIVE_BRANCHES_SQL",
        "R3: two live branches of one request are held (reservation)",
        "participant_sdk/resources/reservation_migrations/0006_forced_branches.sql",
        "create unique index branches_live\n",
        "create index branches_live\n",
        Test(
            "tests/contract/test_branch_table.py::test_a_second_branch_of_a_live_request_votes_transient[reservation]"
        ),
    ),
    single(
        "NO_NOT_STORED_SQL",
        "R8: a branch that voted no stays prepared, and a second Prepare is told yes (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "        where b.log = log_number and b.xid = prepare_xids[refused.at];\n",
        "        where false;\n",
        Test(
            "tests/integration/test_reservation.py::"
            "test_a_duplicate_prepare_gets_the_stored_vote_even_from_another_process"
        ),
        Test("tests/contract/test_branch_table.py"),
    ),
    single(
        "PARTICIPANTS_NOT_STORED_SQL",
        "R15: a branch does not keep who takes part, so nobody can wait for their reports (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        " p.request_id, p.request_digest, p.participants, p.answer\n            from unnest(\n",
        " p.request_id, p.request_digest, null, p.answer\n            from unnest(\n",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_everything_committed_above_the_sequences_is_listed_page_by_page[reservation]"
        ),
    ),
    single(
        "COMMITTED_ONES_UNLISTED_SQL",
        "R15: commits above the log's sequences are not listed (reservation)",
        "participant_sdk/resources/reservation_sql/recover_finished.sql",
        " or (b.phase = 3 and b.sequence > a.sequence))\n",
        ")\n",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_everything_committed_above_the_sequences_is_listed_page_by_page[reservation]"
        ),
    ),
    single(
        "BAD_BRANCH_FAILS_ALL_RESERVED",
        "R17: what the database refuses of one branch fails all that travelled with it (reservation)",
        "participant_sdk/resources/reservation.py",
        "                    raise\n                return await self._run_apart(log, batch)\n",
        "                    raise\n                raise\n",
        Test(
            "tests/integration/test_reservation_failures.py::test_one_bad_branch_fails_nothing_that_travelled_with_it"
        ),
    ),
    single(
        "WATERMARK_NOT_WRITTEN_SQL",
        "R15: the sequence of a Commit is not kept (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "            select log_number, c.incarnation, worker_number, max(c.sequence) from claimed as c"
        " group by c.incarnation\n",
        "            select log_number, c.incarnation, worker_number, 0 from claimed as c group by c.incarnation\n",
        Test("tests/integration/test_reservation.py::test_watermarks_are_the_highest_sequences_applied"),
    ),
    single(
        "WATERMARK_FALLS_SQL",
        "R15: a Commit with a lower sequence lowers the watermark (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "do update set sequence = greatest(w.sequence, excluded.sequence)",
        "do update set sequence = excluded.sequence",
        Test("tests/integration/test_reservation_repeated.py::test_a_commit_of_a_lower_sequence_leaves_the_watermark"),
    ),
    single(
        "OLDER_EPOCH_OBEYED_SQL",
        "R15: a Commit of an older epoch takes effect (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "        if commit_epoch < adopted then\n",
        "        if commit_epoch < 0 then\n",
        Test("tests/contract/test_epochs.py::test_a_commit_of_an_older_epoch_changes_nothing[reservation]"),
    ),
    single(
        "EPOCH_NO_BARRIER_SQL",
        "R15: an epoch is adopted while Commits of the one before are under way (reservation)",
        "participant_sdk/resources/reservation_migrations/0005_epochs.sql",
        "        perform pg_advisory_xact_lock(hashtext('pincex.epoch'), number);\n",
        "        perform 1;\n",
        Test(
            "tests/integration/test_epochs.py::"
            "test_an_epoch_is_adopted_once_the_commits_that_began_are_over_and_the_report_tells_of_them[reservation]"
        ),
    ),
    single(
        "FOUND_UNFLUSHED_SQL",
        "R8: a stored vote is told that no standby has (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "        perform pg_logical_emit_message(true, 'pincex', '');\n",
        "        perform 1;\n",
        Test(
            "tests/integration/test_missing_standby.py::"
            "test_a_batch_whose_wait_is_cancelled_is_asked_again_and_waits_again[commit]"
        ),
    ),
    single(
        "WARNING_IS_DURABLE",
        "R9: a wait for the standby that was cancelled counts as durable",
        "participant_sdk/resources/postgres_lane.py",
        "            raise DoubtfulError(self._warnings[0])\n",
        "            self._warnings.clear()\n",
        Test("tests/integration/test_missing_standby.py::test_a_batch_whose_every_wait_is_cancelled_promises_nothing"),
    ),
    single(
        "SETTINGS_LEFT_WEAK",
        "R9: a database that says synchronous_commit = off is believed",
        "participant_sdk/resources/postgres_lane.py",
        " where current_setting('synchronous_commit') in ('off', 'local')",
        "  where false",
        Test("tests/integration/test_lane_settings.py::test_a_session_waits_for_the_disk_whatever_the_database_says"),
    ),
    single(
        "UNREACHABLE_IS_DONE",
        "R9: a Commit whose database was lost counts as done (reservation)",
        "participant_sdk/resources/reservation.py",
        "            return Answers([RETRY] * len(work.commits),",
        "            from participant_sdk.xa import DONE\n\n            return Answers([DONE] * len(work.commits),",
        Test("tests/integration/test_reservation_failures.py::test_without_a_database_nothing_is_promised"),
    ),
    single(
        "REPEATED_FOR_EVER",
        "invariant 12: a batch that fails is repeated without a bound",
        "participant_sdk/resources/reservation.py",
        "                if left == 0 or not is_worth_repeating(error):\n",
        "                if not is_worth_repeating(error):\n",
        Test("tests/integration/test_reservation_failures.py::test_without_a_database_nothing_is_promised"),
    ),
    single(
        "LENT_IN_A_TRANSACTION",
        "XA: a connection goes back to its pool within a transaction",
        "participant_sdk/resources/postgres_lane.py",
        "            if session.is_idle and not self._is_closed:\n",
        "            if not session.connection.closed and not self._is_closed:\n",
        Test(
            "tests/integration/test_lane_settings.py::test_a_transaction_that_was_left_open_is_ended_with_its_session"
        ),
    ),
    single(
        "LOST_STATEMENT_CALLED",
        "Reservation: a statement that its session lost is called again and again",
        "participant_sdk/resources/postgres_calls.py",
        "            del self._names[statement]\n",
        "",
        Test("tests/integration/test_lane_settings.py::test_a_statement_is_prepared_once_and_again_once_it_is_lost"),
    ),
    Mutant(
        "SUM_AND_CONSTRAINT_SQL",
        "Reservation: two branches of one batch take the same money, and no constraint keeps them",
        (
            Patch(
                "sidecars/bookkeeper/migrations/0003_capture.sql",
                "                when w.draw > 0 and w.running > w.free then 'AGAIN'\n",
                "",
            ),
            Patch(
                "sidecars/bookkeeper/migrations/0001_ledger.sql",
                "        reserved >= 0 and releasing >= 0 and locked >= releasing and balance - locked >= reserved\n",
                "        reserved >= 0 and releasing >= 0\n",
            ),
        ),
        (Test("tests/integration/test_bookkeeper.py::test_a_batch_takes_no_more_than_there_is_and_no_less_than_fits"),),
    ),
)
