"""Mutants of what is forgotten, and when: decisions, branches, watermarks, heuristic ends (R10, R12, R14, R15)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Seeds, Test, single

MUTANTS: Final = (
    single(
        "PRUNED_UNFINISHED",
        "R14: a decision is forgotten before every branch acknowledged it (in memory)",
        "coordinator/log/memory_keeping.py",
        "            *(row.record.xid.unix_ms for number in tables.incarnations for row in"
        " tables.unfinished(number)),\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_an_unfinished_decision_holds_the_horizon_back_for_all[memory_world-True]"
        ),
    ),
    single(
        "PRUNED_UNFINISHED_SQL",
        "R14: a decision is forgotten before every branch acknowledged it",
        "coordinator/log/sql/prune.sql",
        "                        AND decisions.sequence > coalesce(checkpoints.finished_through, 0)\n    UNION ALL",
        "                        AND decisions.sequence < 0\n    UNION ALL",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_an_unfinished_decision_holds_the_horizon_back_for_all[postgres_world-False]"
        ),
    ),
    single(
        "PRUNED_STRAGGLERS_SQL",
        "R14: a decision is forgotten that its checkpoint names as unfinished",
        "coordinator/log/sql/prune.sql",
        "    FROM txlog.checkpoints CROSS JOIN unnest(stragglers) AS straggler (xid) JOIN"
        " txlog.decisions USING (xid)\n",
        "    FROM txlog.checkpoints CROSS JOIN unnest(stragglers) AS straggler (xid) JOIN"
        " txlog.decisions USING (xid)\n"
        "    WHERE false\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_an_unfinished_decision_holds_the_horizon_back_for_all[postgres_world-True]"
        ),
    ),
    single(
        "PRUNED_EARLY",
        "R14: a decision is forgotten before its retention has passed (in memory)",
        "coordinator/log/memory_keeping.py",
        "            min([now_ms, *leases_ms]) - round(retention_s * 1000),\n",
        "            min([now_ms, *leases_ms]),\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_what_ended_everywhere_and_is_older_than_the_retention_goes_with_its_binding[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "PRUNED_EARLY_SQL",
        "R14: a decision is forgotten before its retention has passed",
        "coordinator/log/sql/prune.sql",
        "        ) - make_interval(secs => %(retention_s)s)) * 1000)::bigint,\n",
        "        )) * 1000)::bigint,\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_what_ended_everywhere_and_is_older_than_the_retention_goes_with_its_binding[postgres_world]"
        ),
    ),
    single(
        "PRUNED_HEURISTICS",
        "R12: a decision is forgotten whose heuristic end nobody has forgotten (in memory)",
        "coordinator/log/memory_keeping.py",
        "            *(xid.unix_ms for xid, participant in tables.heuristics if (xid, participant) not"
        " in tables.forgotten),\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_a_heuristic_end_holds_the_horizon_back_until_it_is_forgotten[memory_world]"
        ),
    ),
    single(
        "PRUNED_HEURISTICS_SQL",
        "R12: a decision is forgotten whose heuristic end nobody has forgotten",
        "coordinator/log/sql/prune.sql",
        "        (SELECT min(txlog.xid_unix_ms(xid)) FROM txlog.heuristics WHERE forgotten_at IS NULL),\n",
        "        NULL,\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_a_heuristic_end_holds_the_horizon_back_until_it_is_forgotten[postgres_world]"
        ),
    ),
    single(
        "PRUNED_BEFORE_A_LATE_ONE",
        "R14: the horizon passes what one may still decide that cannot reach the log (in memory)",
        "coordinator/log/memory_keeping.py",
        "            min([now_ms, *leases_ms]) - round",
        "            min([now_ms, *leases_ms[:0]]) - round",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_one_that_lives_and_cannot_reach_the_log_holds_the_horizon_back[memory_world]"
        ),
    ),
    single(
        "PRUNED_BEFORE_A_LATE_ONE_SQL",
        "R14: the horizon passes what one may still decide that cannot reach the log",
        "coordinator/log/sql/prune.sql",
        "SELECT min(lease_until) FROM txlog.incarnations WHERE fenced_at IS NULL",
        "SELECT min(lease_until) FROM txlog.incarnations WHERE false",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_one_that_lives_and_cannot_reach_the_log_holds_the_horizon_back[postgres_world]"
        ),
    ),
    single(
        "PRUNED_BY_THE_LOGS_CLOCK",
        "R14: a log's clock that was set forward has what is undecided forgotten (in memory)",
        "coordinator/log/memory_keeping.py",
        "min(self._clock.unix_ms(), now_unix_ms)\n",
        "self._clock.unix_ms()\n",
        Test("tests/engine/test_passes.py::test_a_log_whose_clock_is_set_forward_has_nothing_forgotten_early"),
    ),
    single(
        "PRUNED_BY_THE_LOGS_CLOCK_SQL",
        "R14: a log's clock that was set forward has what is undecided forgotten",
        "coordinator/log/sql/prune.sql",
        "least(clock_timestamp(), to_timestamp(%(now_unix_ms)s / 1000.0))",
        "greatest(clock_timestamp(), to_timestamp(%(now_unix_ms)s / 1000.0))",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_of_two_clocks_the_one_that_is_behind_is_believed"
        ),
    ),
    single(
        "PRUNED_IN_HOLD",
        "R15: decisions are forgotten in HOLD (in memory)",
        "coordinator/log/memory_keeping.py",
        "        if tables.held or ",
        "        if ",
        Test("tests/contract/test_decision_log_keeping.py::TestPrune::test_a_log_in_hold_is_not_pruned[memory_world]"),
    ),
    single(
        "PRUNED_IN_HOLD_SQL",
        "R15: decisions are forgotten in HOLD",
        "coordinator/log/sql/prune.sql",
        "    WHERE held_since IS NULL\n      AND (",
        "    WHERE (",
        Test(
            "tests/contract/test_decision_log_keeping.py::TestPrune::test_a_log_in_hold_is_not_pruned[postgres_world]"
        ),
    ),
    single(
        "PRUNED_RIGHT_AFTER_HOLD",
        "R15: decisions are forgotten right after HOLD, before those who waited for them could ask (in memory)",
        "coordinator/log/memory_keeping.py",
        "        if tables.held or is_lately_released:\n",
        "        if tables.held:\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_the_horizon_stays_for_a_retention_after_hold[memory_world]"
        ),
    ),
    single(
        "PRUNED_RIGHT_AFTER_HOLD_SQL",
        "R15: decisions are forgotten right after HOLD, before those who waited for them could ask",
        "coordinator/log/sql/prune.sql",
        "(released_at IS NULL OR released_at <= agreed.time - make_interval(secs => %(retention_s)s))\n",
        "true\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_the_horizon_stays_for_a_retention_after_hold[postgres_world]"
        ),
    ),
    single(
        "HORIZON_STAYS",
        "R14: decisions are deleted, and the horizon does not say so (in memory)",
        "coordinator/log/memory_keeping.py",
        "        tables.pruned_below_unix_ms = max(tables.pruned_below_unix_ms, bound_ms)\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_what_ended_everywhere_and_is_older_than_the_retention_goes_with_its_binding[memory_world]"
        ),
    ),
    single(
        "HORIZON_STAYS_SQL",
        "R14: decisions are deleted, and the horizon does not say so",
        "coordinator/log/sql/prune.sql",
        "    WHERE pruned_below_unix_ms < bound.unix_ms\n",
        "    WHERE pruned_below_unix_ms < bound.unix_ms AND false\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_what_ended_everywhere_and_is_older_than_the_retention_goes_with_its_binding[postgres_world]"
        ),
    ),
    single(
        "HORIZON_GOES_BACK",
        "R14: the horizon goes back (in memory)",
        "coordinator/log/memory_keeping.py",
        "        tables.pruned_below_unix_ms = max(tables.pruned_below_unix_ms, bound_ms)\n",
        "        tables.pruned_below_unix_ms = bound_ms\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_the_horizon_never_goes_back_and_spares_what_is_decided_late[memory_world]"
        ),
    ),
    single(
        "HORIZON_GOES_BACK_SQL",
        "R14: the horizon goes back",
        "coordinator/log/sql/prune.sql",
        "    WHERE pruned_below_unix_ms < bound.unix_ms\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestPrune::test_the_horizon_never_goes_back_and_spares_what_is_decided_late[postgres_world]"
        ),
    ),
    single(
        "YOUNG_HORIZON_BELIEVED",
        "R10: a participant drops tombstones that a late Prepare may still meet",
        "participant_sdk/known_logs.py",
        "        if horizon > now_unix_ms - HORIZON_AGE_MIN_MS:\n",
        "        if horizon > now_unix_ms:\n",
        Test("tests/sdk/test_pruning.py::test_a_horizon_that_is_too_young_or_in_the_future_is_not_believed"),
    ),
    single(
        "DROPPED_FOR_ANOTHER_LOG",
        "R18: a log's horizon drops branches of another log (in memory)",
        "participant_sdk/resources/memory.py",
        "            if key.log_id == log_id and key.xid < floor and",
        "            if key.log_id and key.xid < floor and",
        Test("tests/contract/test_branch_keeping.py::test_only_what_has_ended_below_the_horizon_is_dropped[memory]"),
    ),
    single(
        "PREPARED_DROPPED",
        "R14: a participant drops a branch in doubt (in memory)",
        "participant_sdk/resources/memory.py",
        "_FINISHED: Final = (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK)\n",
        "_FINISHED: Final = (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK, BranchPhase.PREPARED)\n",
        Test("tests/contract/test_branch_keeping.py::test_only_what_has_ended_below_the_horizon_is_dropped[memory]"),
    ),
    single(
        "PREPARED_DROPPED_SQL",
        "R14: a participant drops a branch in doubt (reservation)",
        "participant_sdk/resources/reservation_migrations/0004_pruning.sql",
        "b.phase in (3, 4)\n",
        "b.phase in (2, 3, 4)\n",
        Test(
            "tests/contract/test_branch_keeping.py::test_only_what_has_ended_below_the_horizon_is_dropped[reservation]"
        ),
    ),
    single(
        "WATERMARK_DROPPED_SQL",
        "R15: a watermark falls with the branches that are dropped (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0003_pruning.sql",
        "        select a_participant, a_log_id, d.incarnation, max(d.sequence) from decided d group by"
        " d.incarnation\n",
        "        select a_participant, a_log_id, d.incarnation, max(d.sequence) from decided d where"
        " false group by d.incarnation\n",
        Test(
            "tests/contract/test_branch_keeping.py::test_dropping_goes_in_rounds_and_watermarks_outlive_it[postgres_xa]"
        ),
    ),
    single(
        "ACKNOWLEDGED_FALLS",
        "R15: what a participant acknowledged is lowered by a later checkpoint (in memory)",
        "coordinator/log/memory_keeping.py",
        "            applied[participant] = max(applied.get(participant, 0), sequence)\n",
        "            applied[participant] = sequence\n",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestAcknowledged::test_what_participants_acknowledged_only_rises[memory_world]"
        ),
    ),
    single(
        "ACKNOWLEDGED_FALLS_SQL",
        "R15: what a participant acknowledged is lowered by a later checkpoint",
        "coordinator/log/sql/checkpoint.sql",
        "    WHERE known.sequence < excluded.sequence\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestAcknowledged::test_what_participants_acknowledged_only_rises[postgres_world]"
        ),
    ),
    single(
        "HEURISTIC_OVERWRITTEN",
        "R12: a heuristic end is overwritten by a later one (in memory)",
        "coordinator/log/memory_keeping.py",
        "            self.tables.heuristics.setdefault((record.xid, record.participant), record)\n",
        "            self.tables.heuristics[record.xid, record.participant] = record\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestHeuristics::test_each_branchs_end_is_kept_once[memory_world]"
        ),
    ),
    single(
        "HEURISTIC_OVERWRITTEN_SQL",
        "R12: a heuristic end is overwritten by a later one",
        "coordinator/log/sql/record_heuristics.sql",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (xid, participant) DO UPDATE SET heuristic = excluded.heuristic, message = excluded.message",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestHeuristics::test_each_branchs_end_is_kept_once[postgres_world]"
        ),
    ),
    single(
        "HEURISTIC_DELETED_SQL",
        "R12: a heuristic end that was forgotten is not kept for good",
        "coordinator/log/sql/forget_heuristics.sql",
        "    UPDATE txlog.heuristics\n"
        "    SET forgotten_at = clock_timestamp(), forgotten_reason = %(reason)s\n"
        "    WHERE",
        "    DELETE FROM txlog.heuristics\n    WHERE",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestHeuristics::test_forgotten_ones_are_listed_no_more_and_kept_for_good[postgres_world]"
        ),
    ),
    single(
        "HEURISTIC_FORGOTTEN_UNASKED",
        "R12: a heuristic end is forgotten when the decision comes",
        "participant_sdk/branch.py",
        "        return Transition(BranchPhase.HEURISTIC, COMMITTED_BY_HAND if committed else ROLLED_BACK_BY_HAND)\n",
        "        return Transition(BranchPhase.COMMITTED if committed else BranchPhase.ROLLED_BACK, DONE)\n",
        Test("tests/protocol/test_branch.py::test_a_forced_branch_tells_how_it_ended"),
        Seeds(1, 40),
    ),
    single(
        "HEURISTIC_NOT_KEPT",
        "R12: the log is not told of a heuristic end",
        "coordinator/heuristic_keeper.py",
        "                await self._log.record_heuristics(records)\n",
        "                await self._log.record_heuristics(records[:0])\n",
        Test(
            "tests/engine/test_resolution.py::test_a_commit_that_meets_a_heuristic_end_keeps_it_also_after_a_takeover"
        ),
        Seeds(1, 40),
    ),
)
