"""Mutants of the XA resource: PREPARE TRANSACTION, its marker, and what ends it (R8 to R13, R15, R18)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

MUTANTS: Final = (
    single(
        "ROLLBACK_TAG_IS_YES",
        "XA: PREPARE TRANSACTION that answered ROLLBACK without an error is a yes",
        "participant_sdk/resources/postgres_branch.py",
        "    if tag == _PREPARED_TAG:\n",
        "    if tag:\n",
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_the_server_answers_rollback_without_an_error_and_that_is_no_yes"
        ),
    ),
    Mutant(
        "MARKER_FIRST",
        "XA: the marker is written before the operations",
        (
            Patch(
                "participant_sdk/resources/postgres_branch.py",
                "*written, self._mark]\n",
                '*self._mark.split(";")[:1], *written, *self._mark.split(";")[1:]]\n',
            ),
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
                "    if pg_current_xact_id_if_assigned() is null then\n"
                "        raise exception using errcode = 'PXRO1', message = 'the branch changed nothing';\n"
                "    end if;\n",
                "",
            ),
        ),
        (
            Test(
                "tests/integration/test_postgres_xa_votes.py::"
                "test_a_statement_that_finds_nothing_to_change_votes_read_only"
            ),
        ),
    ),
    single(
        "BRANCH_WRITES_LAZILY_SQL",
        "XA: synchronous_commit may be off in a branch",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "    if current_setting('synchronous_commit') in ('off', 'local') then\n",
        "    if false then\n",
        Test(
            "tests/integration/test_postgres_xa_votes.py::test_what_must_not_be_prepared_votes_a_no_that_binds_nothing"
        ),
    ),
    single(
        "ENDED_TRANSACTION_PREPARED_SQL",
        "XA: operations that ended the branch's transaction are prepared all the same",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "    if current_setting('pincex.branch', true) is distinct from a_xid::text then\n",
        "    if false then\n",
        Test(
            "tests/integration/test_postgres_xa_votes.py::test_what_must_not_be_prepared_votes_a_no_that_binds_nothing"
        ),
    ),
    single(
        "ENDED_BRANCH_PREPARED_SQL",
        "R10: a session left behind prepares what was rolled back (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "    if not found then\n        raise exception using errcode = 'PXEN1'",
        "    if false then\n        raise exception using errcode = 'PXEN1'",
        Test(
            "tests/integration/test_postgres_xa_faults.py::"
            "test_a_session_left_behind_cannot_prepare_what_was_rolled_back"
        ),
    ),
    single(
        "NOTHING_CHANGED_PREPARED",
        "XA: a branch that changed nothing is prepared",
        "participant_sdk/resources/postgres_branch.py",
        "        if row is not None and row[0]:\n",
        "        if row is None:\n",
        Test("tests/integration/test_postgres_xa_votes.py::test_a_branch_that_changes_nothing_is_never_prepared"),
    ),
    single(
        "NO_WORK_IS_READ_ONLY_XA",
        "R13: a Prepare without the work that it ends votes READ_ONLY (XA)",
        "participant_sdk/resources/postgres_prepare.py",
        "            return refused or IN_PROGRESS_VOTE\n        try:",
        "            from participant_sdk.xa import READ_ONLY\n\n            return READ_ONLY\n        try:",
        Test("tests/integration/test_postgres_xa.py::test_an_embedded_service_works_under_the_xid"),
    ),
    single(
        "NO_TOMBSTONE_XA_SQL",
        "R10: a Prepare after its Rollback is accepted (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "        where a.xid not in (select k.xid from known k)\n",
        "        where false\n",
        Test(
            "tests/contract/test_branch_table.py::test_every_call_in_every_phase_does_what_the_table_says[postgres_xa]"
        ),
    ),
    Mutant(
        "TWO_LIVE_BRANCHES_XA_SQL",
        "R3: two live branches of one request are held (XA)",
        (
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
                "create unique index branches_request\n",
                "create index branches_request\n",
            ),
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
                "        where a.request_id = '' or not exists (\n",
                "        where true or not exists (\n",
            ),
        ),
        (
            Test(
                "tests/integration/test_postgres_xa.py::test_two_processes_race_for_one_request_and_one_of_them_gets_it"
            ),
        ),
    ),
    single(
        "DECISION_NOT_STORED_SQL",
        "R15: COMMIT PREPARED comes before its sequence is stored (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
        "    where u.xid = any (expected)\n",
        "    where false\n",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_everything_committed_above_the_sequences_is_listed_page_by_page[postgres_xa]"
        ),
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_another_user_may_not_end_a_branch_and_the_decision_is_kept_all_the_same"
        ),
    ),
    single(
        "OLDER_EPOCH_OBEYED_XA_SQL",
        "R15: a Commit of an older epoch takes effect (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
        "        where e.participant = a_participant and e.log_id = a_log_id and e.epoch > a_epoch\n",
        "        where false\n",
        Test("tests/contract/test_epochs.py::test_a_commit_of_an_older_epoch_changes_nothing[postgres_xa]"),
    ),
    single(
        "EPOCH_NO_BARRIER_XA_SQL",
        "R15: an epoch is adopted while Commits of the one before are under way (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0004_epochs.sql",
        "        perform pg_advisory_xact_lock(hashtext('pincex_xa.epoch'), hashtext(a_participant ||"
        " ':' || a_log_id));\n",
        "        perform 1;\n",
        Test(
            "tests/integration/test_epochs.py::"
            "test_an_epoch_is_adopted_once_the_commits_that_began_are_over_and_the_report_tells_of_them[postgres_xa]"
        ),
    ),
    single(
        "GONE_IS_DONE",
        "R11: a prepared transaction that somebody else ended counts as ended as decided",
        "participant_sdk/resources/postgres_finish.py",
        "        return Gone.GONE if ended.sqlstate == UNDEFINED_OBJECT else _failed(gid, ended)\n",
        "        return None if ended.sqlstate == UNDEFINED_OBJECT else _failed(gid, ended)\n",
        Test(
            "tests/integration/test_postgres_xa_races.py::"
            "test_a_branch_that_somebody_undid_meanwhile_is_not_called_committed"
        ),
    ),
    single(
        "NO_SESSION_IS_GONE",
        "R19: an error of a session says that what was to end on it is not there (XA)",
        "participant_sdk/resources/postgres_finish.py",
        "        return [_failed(gid, error) for gid in gids]\n",
        "        return [Gone.GONE if error.sqlstate == UNDEFINED_OBJECT else _failed(gid, error) for gid in gids]\n",
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_what_keeps_a_session_from_being_there_tells_nothing_of_what_was_to_end_on_it"
        ),
    ),
    single(
        "UNDONE_MEANWHILE_IS_DONE",
        "R11: a branch that was gone and is there again counts as ended as decided (XA)",
        "participant_sdk/resources/postgres_ending.py",
        "    if ended is Gone.GONE and branch.phase is BranchPhase.PREPARED:\n",
        "    if ended is None and branch.phase is BranchPhase.NONE:\n",
        Test(
            "tests/integration/test_postgres_xa_races.py::"
            "test_a_branch_that_is_gone_and_there_again_is_to_be_told_again"
        ),
    ),
    single(
        "WARNING_IS_DURABLE_XA",
        "R9: COMMIT PREPARED whose wait for the standby was cancelled counts as durable",
        "participant_sdk/resources/postgres_finish.py",
        '        return [_retry(gid, f"{verb} ended with a warning: {warning}") for gid in gids]\n',
        "        return [None if warning else Gone.GONE for _ in gids]\n",
        Test("tests/integration/test_missing_standby.py"),
    ),
    single(
        "FOUND_UNFLUSHED_XA_SQL",
        "R8: a stored vote is told that no standby has (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "    perform pg_logical_emit_message(true, 'pincex', '');\n    held := pincex_xa",
        "    held := pincex_xa",
        Test("tests/integration/test_missing_standby.py"),
    ),
    single(
        "NO_NOT_STORED",
        "R8: a second Prepare of a branch that voted no runs it again (XA)",
        "participant_sdk/resources/postgres_prepare.py",
        "        return await self._store(prepare, vote)\n",
        "        return vote\n",
        Test("tests/integration/test_postgres_xa_votes.py::test_the_business_says_no_and_a_duplicate_gets_the_same_no"),
    ),
    single(
        "PARTICIPANTS_NOT_STORED_XA_SQL",
        "R15: a branch does not keep who takes part, so nobody can wait for their reports (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
        "a_xids[f.n], 1, string_to_array(a_participants[f.n], ','), a_tenants[f.n],\n",
        "a_xids[f.n], 1, '{}', a_tenants[f.n],\n",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_everything_committed_above_the_sequences_is_listed_page_by_page[postgres_xa]"
        ),
    ),
    single(
        "ERROR_IS_DONE",
        "R9: COMMIT PREPARED that failed counts as done",
        "participant_sdk/resources/postgres_finish.py",
        '    return _retry(gid, f"{error.diag.message_primary or error} (SQLSTATE {error.sqlstate})")\n',
        "    return None\n",
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_another_user_may_not_end_a_branch_and_the_decision_is_kept_all_the_same"
        ),
    ),
    single(
        "LOST_SESSION_UNDOES",
        "R12: a session that is lost rolls back what another has prepared",
        "participant_sdk/resources/postgres_prepare.py",
        "        except (UnknownError, TimeoutError, psycopg.Error) as error:\n"
        "            return _in_doubt(prepare, error)\n",
        "        except (UnknownError, TimeoutError, psycopg.Error) as error:\n"
        "            async with self._work.session() as session:\n"
        '                await session.connection.execute("rollback prepared %s".encode(),'
        " (branch.gid,))\n"
        "            return _in_doubt(prepare, error)\n",
        Test(
            "tests/integration/test_postgres_xa_faults.py::"
            "test_a_session_that_is_lost_undoes_nothing_that_another_has_prepared"
        ),
    ),
    single(
        "WAITS_FOR_THE_MARKER_SQL",
        "XA: a Rollback waits for the marker that a branch locks",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids)"
        " and b.phase + 0 = 1\n"
        "        for update skip locked\n"
        "    ), ended",
        "        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids)"
        " and b.phase + 0 = 1\n"
        "        for update\n"
        "    ), ended",
        Test(
            "tests/integration/test_postgres_xa_faults.py::"
            "test_a_session_that_is_lost_undoes_nothing_that_another_has_prepared"
        ),
    ),
    single(
        "ANOTHER_DATABASES_BRANCH_SQL",
        "R18: prepared transactions of another database are listed",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "        where p.database = current_database() and p.gid ~ ours\n",
        "        where p.gid ~ ours\n",
        Test(
            "tests/integration/test_postgres_xa.py::"
            "test_recovery_lists_its_own_branches_page_by_page_and_leaves_others_alone"
        ),
    ),
    single(
        "FORCED_AGAINST_A_DECISION",
        "R12: a branch is forced that has durably heard COMMIT (XA)",
        "participant_sdk/resources/postgres_xa.py",
        "        if branch.sequence:\n            return Ack",
        "        if branch.sequence < 0:\n            return Ack",
        Test("tests/integration/test_postgres_xa_races.py::test_a_branch_that_has_heard_commit_is_not_forced"),
    ),
    Mutant(
        "TAG_AND_TRANSACTION",
        "XA: operations that ended their transaction are prepared outside of any, and ROLLBACK is a yes",
        (
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
                "    if current_setting('pincex.branch', true) is distinct from a_xid::text then\n",
                "    if false then\n",
            ),
            Patch(
                "participant_sdk/resources/postgres_branch.py",
                "    if tag == _PREPARED_TAG:\n",
                "    if tag:\n",
            ),
        ),
        (Test("tests/integration/test_postgres_xa_votes.py"),),
    ),
)
