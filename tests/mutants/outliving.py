"""Mutants of leases, fences, and what one coordinator takes over from another (R4, R6, R7, R14)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "FENCES_EARLY",
        "R6: others are fenced before one's own lease was renewed unbroken for its length",
        "coordinator/incarnation.py",
        "            may_fence = unbroken_s >= self._incarnation.lease_s\n",
        "            may_fence = unbroken_s >= 0\n",
        Test(
            "tests/log/test_incarnation.py::"
            "test_nobody_is_fenced_before_ones_own_lease_was_renewed_for_its_whole_length"
        ),
    ),
    single(
        "GAP_FORGIVEN",
        "R6: a lease counts as unbroken across a gap",
        "coordinator/log/lease.py",
        "        if self._renewed_s is None or answered_s - self._renewed_s >= self._length_s:\n"
        "            self._since_s",
        "        if self._renewed_s is None:\n            self._since_s",
        Test("tests/log/test_incarnation.py::test_a_lease_is_unbroken_from_the_first_renewal_without_a_gap"),
    ),
    Mutant(
        "WALL_CLOCK_LEASE",
        "R6: a lease is measured by the coordinator's wall clock",
        (
            Patch(
                "coordinator/log/appends.py",
                "        if self.lease.age_s(self._clock.monotonic_s()) >= self._incarnation.lease_s / 6:\n",
                "        if self.lease.age_s(self._clock.unix_ms() / 1000) >= self._incarnation.lease_s / 6:\n",
            ),
            Patch(
                "coordinator/log/appends.py",
                "        began_s, generation = self._clock.monotonic_s(), self._reported.generation\n",
                "        began_s, generation = self._clock.unix_ms() / 1000, self._reported.generation\n",
            ),
            Patch(
                "coordinator/log/appends.py",
                "                self.lease.renewed(began_s, self._clock.monotonic_s())\n",
                "                self.lease.renewed(began_s, self._clock.unix_ms() / 1000)\n",
            ),
            Patch(
                "coordinator/incarnation.py",
                "self._group_commit.lease.unbroken_s(self._clock.monotonic_s())",
                "self._group_commit.lease.unbroken_s(self._clock.unix_ms() / 1000)",
            ),
        ),
        (Test("tests/log/test_wall_clock.py::test_one_whose_clock_is_set_back_renews_on"),),
    ),
    single(
        "LIVING_ONE_FENCED",
        "R6: an incarnation is fenced whose lease has not expired (in memory)",
        "coordinator/log/memory_keeping.py",
        "row.is_live and row is not own and row.lease_until_ms < now_ms and not resigned_only",
        "row.is_live and row is not own and not resigned_only",
        Test(
            "tests/contract/test_decision_log_fencing.py::"
            "test_among_those_who_are_fenced_is_none_that_lives[memory_world]"
        ),
    ),
    single(
        "LIVING_ONE_FENCED_SQL",
        "R6: an incarnation is fenced whose lease has not expired",
        "coordinator/log/sql/fence_expired.sql",
        "           AND other.fenced_at IS NULL AND other.lease_until < clock_timestamp())\n    RETURNING",
        "           AND other.fenced_at IS NULL)\n    RETURNING",
        Test(
            "tests/contract/test_decision_log_fencing.py::"
            "test_among_those_who_are_fenced_is_none_that_lives[postgres_world]"
        ),
    ),
    single(
        "APPEND_RENEWS_NOTHING",
        "R4: an append does not renew the lease (in memory)",
        "coordinator/log/memory_store.py",
        "        row.lease_until_ms = self._lease_until_ms(incarnation.lease_s)\n"
        "        row.last_sequence += advance\n",
        "        row.last_sequence += advance\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::TestTakeover::test_an_append_renews_the_lease[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "APPEND_RENEWS_NOTHING_SQL",
        "R4: an append does not renew the lease",
        "coordinator/log/sql/append.sql",
        "    SET lease_until = clock_timestamp() + make_interval(secs => $1),\n",
        "    SET lease_until = lease_until + make_interval(secs => 0 * $1),\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_an_append_renews_the_lease[postgres_world]"
        ),
    ),
    single(
        "EXPIRED_ONE_FENCES",
        "R6: one past its own lease fences others (in memory)",
        "coordinator/log/memory_keeping.py",
        "own.is_live and own.lease_until_ms > now_ms and own.timeline",
        "own.is_live and own.timeline",
        Test(
            "tests/contract/test_decision_log_fencing.py::test_one_whose_own_lease_ran_out_fences_nobody[memory_world]"
        ),
    ),
    single(
        "EXPIRED_ONE_FENCES_SQL",
        "R6: one past its own lease fences others",
        "coordinator/log/sql/fence_expired.sql",
        "      AND lease_until > clock_timestamp()\n",
        "",
        Test(
            "tests/contract/test_decision_log_fencing.py::"
            "test_one_whose_own_lease_ran_out_fences_nobody[postgres_world]"
        ),
    ),
    Mutant(
        "FENCED_ONE_FENCES",
        "invariant 7: one that is fenced fences others (in memory)",
        (
            Patch(
                "coordinator/log/memory_keeping.py",
                "        if own and own.is_live and own.lease_until_ms",
                "        if own and own.lease_until_ms",
            ),
            Patch(
                "coordinator/log/memory_keeping.py",
                "                if expired or row.fenced_by == NOBODY:\n",
                "                if expired or (row.fenced_by == NOBODY and row is not own):\n",
            ),
        ),
        (
            Test(
                "tests/contract/test_decision_log_fencing.py::"
                "test_one_that_is_fenced_within_its_lease_fences_nobody[memory_world]"
            ),
        ),
    ),
    single(
        "FENCED_ONE_FENCES_SQL",
        "invariant 7: one that is fenced fences others",
        "coordinator/log/sql/fence_expired.sql",
        "      AND fenced_at IS NULL\n      AND lease_until > clock_timestamp()\n",
        "      AND lease_until > clock_timestamp()\n",
        Test(
            "tests/contract/test_decision_log_fencing.py::"
            "test_one_that_is_fenced_within_its_lease_fences_nobody[postgres_world]"
        ),
    ),
    single(
        "OLD_TIMELINE_FENCES_SQL",
        "R6: one of another timeline fences others",
        "coordinator/log/sql/fence_expired.sql",
        "      AND lease_until > clock_timestamp()\n      AND timeline = txlog.current_timeline()\n",
        "      AND lease_until > clock_timestamp()\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_one_of_another_timeline_fences_nobody[postgres_world]"
        ),
    ),
    single(
        "TAKEN_OVER_UNFENCED",
        "R6: what an expired incarnation left is taken over before it is fenced (in memory)",
        "coordinator/log/memory_keeping.py",
        "                if expired or row.fenced_by == NOBODY:\n"
        "                    row.fenced_by = own.number\n"
        "        adopted = [incarnation.number]\n",
        "                if row.fenced_by == NOBODY:\n"
        "                    row.fenced_by = own.number\n"
        "        late = [row.number for row in rows.values() if row.is_live and row.lease_until_ms <"
        " now_ms]\n"
        "        adopted = [incarnation.number, *late]\n",
        Test(
            "tests/log/test_incarnation.py::"
            "test_nobody_is_fenced_before_ones_own_lease_was_renewed_for_its_whole_length"
        ),
        Seeds(1, 40),
    ),
    single(
        "TAKEN_OVER_UNFENCED_SQL",
        "R6: what an expired incarnation left is taken over before it is fenced",
        "coordinator/log/sql/fence_expired.sql",
        "        SELECT incarnation FROM fenced\n        UNION\n",
        "        SELECT incarnation FROM fenced\n        UNION\n"
        "        SELECT incarnation FROM txlog.incarnations WHERE lease_until < clock_timestamp()\n        UNION\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_one_whose_own_lease_expired_fences_nobody[postgres_world]"
        ),
        Test("tests/contract/test_decision_log_keeping.py"),
    ),
    single(
        "STANDBY_ANSWERS_SQL",
        "R7: what is decided is read on a server that is not the primary",
        "coordinator/log/sql/read.sql",
        "CROSS JOIN txlog.current_timeline()\n",
        "",
        Test(
            "tests/integration/test_postgres_log_server.py::"
            "TestServer::test_a_standby_answers_nothing_and_its_promotion_ends_the_incarnations"
        ),
    ),
    single(
        "VICTIMS_LEFT_BEHIND",
        "R6: what the fenced one had taken over itself is left to nobody (in memory)",
        "coordinator/log/memory_keeping.py",
        "            adopted.extend(row.number for row in rows.values() if row.fenced_by == number)\n",
        "            adopted.extend(row.number for row in rows.values() if row.fenced_by == number =="
        " incarnation.number)\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_the_fencer_answers_for_its_victims_and_for_theirs[memory_world]"
        ),
    ),
    single(
        "VICTIMS_LEFT_BEHIND_SQL",
        "R6: what the fenced one had taken over itself is left to nobody",
        "coordinator/log/sql/fence_expired.sql",
        "    FROM adopted JOIN txlog.incarnations AS victim ON victim.fenced_by = adopted.incarnation\n",
        "    FROM adopted JOIN txlog.incarnations AS victim ON victim.fenced_by = adopted.incarnation AND false\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_the_fencer_answers_for_its_victims_and_for_theirs[postgres_world]"
        ),
    ),
    single(
        "ADOPTED_UNCONFIRMED",
        "R7: what a fenced one left is handed over before a later write was confirmed",
        "coordinator/incarnation.py",
        "        await self._group_commit.confirm()\n",
        "",
        Test("tests/log/test_incarnation.py::test_what_was_adopted_is_handed_over_only_after_a_later_write"),
    ),
    single(
        "REDO_SKIPPED",
        "R6: recovery skips decided commits",
        "coordinator/recovery.py",
        "        for transaction in driven:\n",
        "        for transaction in driven[:0]:\n",
        Test("tests/engine/test_restart.py::test_a_decided_transaction_is_redone_by_the_next_incarnation"),
        Seeds(1, 40),
    ),
    single(
        "REDO_ROLLS_BACK",
        "R6: recovery rolls back what was decided COMMIT",
        "coordinator/protocol/recovery.py",
        "    transaction.decision = record.decision\n"
        "    transaction.phase = Phase.COMMITTING if record.decision is Decision.COMMIT else"
        " Phase.ROLLING_BACK\n",
        "    transaction.decision = Decision.ROLLBACK\n    transaction.phase = Phase.ROLLING_BACK\n",
        Test(
            "tests/protocol/test_recovery_fold.py::"
            "test_a_decided_commit_is_sent_to_those_who_prepared_until_they_acknowledge"
        ),
        Seeds(1, 40),
    ),
    single(
        "STRAGGLERS_LOST",
        "R14: a checkpoint calls finished what is not",
        "coordinator/log/completion.py",
        "        through = self._last if rest is None else rest - 1\n"
        "        checkpoint = Checkpoint(self._incarnation, through, frozenset(stragglers), ",
        "        through = self._last if rest is None else rest - 1\n"
        "        checkpoint = Checkpoint(self._incarnation, through, frozenset(stragglers[:0]), ",
        Test("tests/log/test_incarnation.py::test_finished_decisions_are_checkpointed_within_a_second_or_two"),
        Seeds(1, 40),
    ),
    single(
        "FRESH_ONES_LOST",
        "R14: a checkpoint calls finished what was decided just now",
        "coordinator/log/completion.py",
        "        through = self._last if rest is None else rest - 1\n",
        "        through = self._last\n",
        Test(
            "tests/log/test_incarnation.py::"
            "test_the_prefix_ends_before_the_first_fresh_decision_and_names_those_that_straggle"
        ),
        Seeds(1, 40),
    ),
    single(
        "UNFINISHED_MISREAD",
        "R14: the stragglers of a checkpoint are not read (in memory)",
        "coordinator/log/memory_tables.py",
        "            if sequence > checkpoint.finished_through or xid in checkpoint.stragglers\n",
        "            if sequence > checkpoint.finished_through\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_unfinished_are_those_above_the_checkpoint_and_its_stragglers[memory_world]"
        ),
        Seeds(1, 40),
    ),
    single(
        "UNFINISHED_MISREAD_SQL",
        "R14: the stragglers of a checkpoint are not read",
        "coordinator/log/sql/unfinished.sql",
        "    SELECT unnest(stragglers) FROM checkpoint\n",
        "    SELECT unnest(stragglers) FROM checkpoint WHERE false\n",
        Test(
            "tests/contract/test_decision_log_takeover.py::"
            "TestTakeover::test_unfinished_are_those_above_the_checkpoint_and_its_stragglers[postgres_world]"
        ),
    ),
    single(
        "LOST_TAIL_TOLD_UNCONFIRMED",
        "R7: what a participant lost is told by a row that was seen and may not be durable",
        "coordinator/lost_tails.py",
        "                await self._commit.confirm()\n",
        "                await asyncio.sleep(0)\n",
        Test("tests/engine/test_lost_tails.py::test_what_is_read_of_the_log_is_told_only_once_it_is_durable"),
    ),
    single(
        "ONE_HEURISTIC_STANDS_FOR_ANOTHER",
        "R12: a heuristic end that is kept again counts for another branch's, which is told before it is kept",
        "coordinator/protocol/transaction.py",
        "        if event.participant not in owed:\n            return NOTHING\n"
        "        self.answer.heuristics_owed = tuple([name for name in owed if name != event.participant])\n",
        "        if not owed:\n            return NOTHING\n        self.answer.heuristics_owed = owed[1:]\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[heuristics]"),
    ),
)
