"""Mutants of HOLD, its release, and what participants report of a log that lost its tail (R15)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "HOLD_FENCES_NOBODY",
        "R15: HOLD lets the coordinators live that brought it about (in memory)",
        "coordinator/log/memory_keeping.py",
        "            if row.is_live:\n                row.fenced_by = NOBODY\n\n    def release",
        "            if row.is_live and row.number < 0:\n                row.fenced_by = NOBODY\n\n    def release",
        Test("tests/contract/test_decision_log_hold.py::TestHold::test_hold_fences_everybody_who_lives[memory_world]"),
    ),
    single(
        "HOLD_FENCES_NOBODY_SQL",
        "R15: HOLD lets the coordinators live that brought it about",
        "coordinator/log/migrations/0003_hold_by_hand.sql",
        "    UPDATE txlog.incarnations SET fenced_at = clock_timestamp(), fenced_by = 0 WHERE fenced_at IS NULL;\n",
        "",
        Test(
            "tests/contract/test_decision_log_hold.py::TestHold::test_hold_fences_everybody_who_lives[postgres_world]"
        ),
    ),
    single(
        "HOLD_BEGINS_NO_EPOCH",
        "R15: what is drawn after HOLD is of the epoch before it (in memory)",
        "coordinator/log/memory_keeping.py",
        "        tables.epoch_after = max(tables.incarnations, default=0)\n",
        "",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestHold::test_whoever_comes_next_adopts_and_begins_an_epoch[memory_world]"
        ),
    ),
    single(
        "HOLD_BEGINS_NO_EPOCH_SQL",
        "R15: what is drawn after HOLD is of the epoch before it",
        "coordinator/log/migrations/0003_hold_by_hand.sql",
        ",\n        epoch_after = (SELECT coalesce(max(incarnation), 0) FROM txlog.incarnations)\n",
        "\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestHold::test_whoever_comes_next_adopts_and_begins_an_epoch[postgres_world]"
        ),
    ),
    single(
        "RELEASE_LOSES_COMMITS",
        "R15: the release puts no COMMIT back (in memory)",
        "coordinator/log/memory_keeping.py",
        "            if stored.record.xid not in tables.decisions:\n                tables.insert(stored)\n",
        "            if not stored.record.xid:\n                tables.insert(stored)\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_what_is_restored_is_there_bound_and_unfinished[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "RELEASE_KEEPS_SEQUENCES",
        "R15: sequences do not rise to those that participants reported (in memory)",
        "coordinator/log/memory_keeping.py",
        "            row.last_sequence = max(row.last_sequence, sequence)\n",
        "            row.last_sequence = max(row.last_sequence, 0 * sequence)\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_what_is_restored_is_there_bound_and_unfinished[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "RELEASE_KEEPS_SEQUENCES_SQL",
        "R15: sequences do not rise to those that participants reported",
        "coordinator/log/sql/release_sequences.sql",
        "greatest(known.last_sequence, excluded.last_sequence)",
        "known.last_sequence",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_what_is_restored_is_there_bound_and_unfinished[postgres_world]"
        ),
    ),
    single(
        "LIVING_ONES_SEQUENCE_RAISED",
        "R15: the release raises a living incarnation's sequence behind its back (in memory)",
        "coordinator/log/memory_keeping.py",
        "            if row is not None and row.is_live and sequence > row.last_sequence:\n",
        "            if row is not None and row.is_live and sequence < 0:\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_one_that_lives_has_applied_nothing_that_it_never_wrote[memory_world]"
        ),
    ),
    single(
        "LIVING_ONES_SEQUENCE_RAISED_SQL",
        "R15: the release raises a living incarnation's sequence behind its back",
        "coordinator/log/sql/release_check.sql",
        "           WHERE live.fenced_at IS NULL AND raised.sequence > live.last_sequence\n",
        "           WHERE false\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_one_that_lives_has_applied_nothing_that_it_never_wrote[postgres_world]"
        ),
    ),
    single(
        "RESTORED_BEHIND_A_CHECKPOINT",
        "R15: a checkpoint that came after the loss hides what is put back (in memory)",
        "coordinator/log/memory_keeping.py",
        "                tables.insert(stored)\n                self._uncover(stored)\n",
        "                tables.insert(stored)\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_a_checkpoint_that_came_after_the_loss_hides_nothing[memory_world]"
        ),
    ),
    single(
        "RESTORED_BEHIND_A_CHECKPOINT_SQL",
        "R15: a checkpoint that came after the loss hides what is put back",
        "coordinator/log/sql/release_decisions.sql",
        "    SET finished_through = first.sequence - 1\n",
        "    SET finished_through = checkpoints.finished_through\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_a_checkpoint_that_came_after_the_loss_hides_nothing[postgres_world]"
        ),
    ),
    single(
        "RELEASED_BY_A_FENCED_ONE",
        "R15: an incarnation that HOLD ended releases it (in memory)",
        "coordinator/log/memory_keeping.py",
        "        if own is None or not own.is_live or own.timeline != tables.timeline:\n"
        "            raise ReleaseRefusedError",
        "        if own is None:\n            raise ReleaseRefusedError",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_an_incarnation_that_hold_ended_releases_nothing[memory_world]"
        ),
    ),
    single(
        "RELEASED_BY_A_FENCED_ONE_SQL",
        "R15: an incarnation that HOLD ended releases it",
        "coordinator/log/sql/release_check.sql",
        "           WHERE incarnation = %(incarnation)s AND fenced_at IS NULL AND timeline ="
        " txlog.current_timeline()\n",
        "           WHERE incarnation = %(incarnation)s\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_an_incarnation_that_hold_ended_releases_nothing[postgres_world]"
        ),
    ),
    single(
        "RESTORED_OVER_ROLLBACK",
        "invariant 1: the release turns ROLLBACK into COMMIT (in memory)",
        "coordinator/log/memory_keeping.py",
        "            if present is not None and present.record.decision is not Decision.COMMIT:\n",
        "            if present is not None and not record.xid:\n",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_a_contradiction_is_named_and_nothing_is_changed"
        ),
    ),
    single(
        "RESTORED_OVER_ROLLBACK_SQL",
        "invariant 1: the release does not see that the log says ROLLBACK",
        "coordinator/log/sql/release_decisions.sql",
        "WHERE present.decision <> restored.decision\n   OR (",
        "WHERE (",
        Test(
            "tests/contract/test_decision_log_hold.py::"
            "TestRelease::test_a_contradiction_is_named_and_nothing_is_changed"
        ),
    ),
    single(
        "AHEAD_IS_NOTHING",
        "R15: sequences of participants are ignored after a restore",
        "coordinator/reports.py",
        "        if reported > sequences.get(number, 0)\n",
        "        if reported > sequences.get(number, 0) + 2**62\n",
        Test("tests/engine/test_hold.py::test_a_participant_ahead_of_the_log_puts_it_in_hold"),
        Seeds(1, 40),
    ),
    single(
        "REPORT_NOT_AWAITED",
        "R15: a participant counts as reported before its report is compared",
        "coordinator/log/reported.py",
        "        self._missing: dict[str, None] = dict.fromkeys(self.participants)\n",
        "        self._missing: dict[str, None] = {}\n",
        Test("tests/log/test_waiting_commits.py::test_a_commit_waits_for_its_participants_and_holds_up_nothing_else"),
    ),
    single(
        "BEHIND_IS_NOTHING",
        "R15: a participant that lost its tail is not sent it again",
        "coordinator/reports.py",
        "        behind = _behind(welcome, applied if known is None else known)\n",
        "        behind = _behind(welcome, {})\n",
        Test(
            "tests/engine/test_reports.py::test_a_participant_behind_what_it_acknowledged_is_told_of_and_sent_it_again"
        ),
        Seeds(1, 40),
    ),
    Mutant(
        "RELEASED_WITHOUT_ALL",
        "R15: HOLD is released though a participant did not answer",
        (
            Patch(
                "coordinator/hold.py",
                "        if failed:\n"
                "            _refuse_missing(failed)\n"
                "        return {name: told[name] for name in names}\n",
                "        return {name: told[name] for name in names if name in told}\n",
            ),
            Patch(
                "coordinator/hold.py",
                "again = await self._each(self._calls, self._greet)",
                "again = await self._each(welcomes, self._greet)",
            ),
        ),
        (Test("tests/engine/test_hold.py::test_the_release_wants_every_participant"),),
    ),
    single(
        "FINISHED_NOT_LISTED",
        "R15: the release asks for branches in doubt alone",
        "coordinator/hold.py",
        "RecoverQuery(log_id, True, above, ",
        "RecoverQuery(log_id, False, above, ",
        Test("tests/engine/test_hold.py::test_the_release_restores_the_commit_and_its_binding"),
        Seeds(1, 40),
    ),
    single(
        "RELEASED_WHILE_APPLYING",
        "R15: HOLD is released while an older coordinator's commit is being applied",
        "coordinator/hold.py",
        "        if raised(moved, now) != raised(polled, sequences):\n",
        "        if raised(moved, now) is None:\n",
        Test(
            "tests/engine/test_hold.py::"
            "test_the_release_is_refused_while_an_older_coordinators_commit_is_still_being_applied"
        ),
    ),
    single(
        "BINDING_NOT_RESTORED",
        "R15: a COMMIT is put back without its request_id",
        "coordinator/restoration.py",
        "            RequestId(known.tenant, known.request_id) if known.request_id else None,\n",
        "            None,\n",
        Test("tests/engine/test_hold.py::test_the_release_restores_the_commit_and_its_binding"),
        Seeds(1, 40),
    ),
    single(
        "HEARD_COMMIT_FORGOTTEN",
        "R15: a branch that stored COMMIT and did not come to follow it is no proof of it",
        "coordinator/restoration.py",
        "    return branch.phase is BranchPhase.COMMITTED or branch.sequence > 0\n",
        "    return branch.phase is BranchPhase.COMMITTED\n",
        Test(
            "tests/engine/test_restoration.py::"
            "test_a_branch_that_heard_commit_and_did_not_come_to_follow_it_is_proof[2]"
        ),
    ),
    single(
        "CONTRADICTION_GUESSED",
        "R15: where branches name different places of one COMMIT, one of them is taken",
        "coordinator/restoration.py",
        "    if len(places) > 1:\n",
        "    if len(places) > 9:\n",
        Test(
            "tests/engine/test_restoration.py::"
            "test_branches_that_contradict_each_other_restore_nothing"
            "[left0-right0-BRANCHES_DISAGREE-right names sequence 8]"
        ),
    ),
    single(
        "TOLD_TO_A_RESTORED_LOG",
        "R12: an end by hand is told once, though the log was restored from a copy without it since",
        "coordinator/sweep.py",
        "            self._told.clear()\n",
        "            self._told.update()\n",
        Test("tests/engine/test_hold.py::test_an_end_by_hand_comes_to_the_log_again_when_that_was_restored_without_it"),
        Seeds(1305, 1305),
    ),
)
