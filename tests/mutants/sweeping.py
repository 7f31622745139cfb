"""Mutants of passes, sweeps and lists: what branches in doubt are told, and what is left alone (R7, R11, R15, R18)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "OTHER_LOGS_BRANCH_SWEPT",
        "R18: a sweep tells branches of another log what this one decided",
        "coordinator/sweep.py",
        "        return branch.log_id == self._engine.incarnation.log_id\n",
        "        return bool(branch.log_id)\n",
        Test("tests/engine/test_passes.py::test_branches_of_another_log_are_left_alone"),
    ),
    single(
        "OTHER_LOGS_BRANCH_LISTED",
        "R18: branches of another log are listed as this one's",
        "coordinator/doubts.py",
        "[branch for branch in page if branch.log_id == log_id]\n",
        "list(page)\n",
        Test("tests/engine/test_passes.py::test_branches_of_another_log_are_left_alone"),
    ),
    single(
        "OTHER_LOGS_COMMIT_RESTORED",
        "R18: the release takes branches of another log for its own",
        "coordinator/hold.py",
        "            branches += [branch for branch in page if branch.log_id == log_id]\n",
        "            branches += page\n",
        Test(
            "tests/engine/test_hold.py::"
            "test_the_release_reads_every_page_and_takes_no_branch_of_another_log_for_its_own"
        ),
    ),
    single(
        "FORGOTTEN_ONE_SWEPT",
        "R7: a sweep rolls back what the log has forgotten",
        "coordinator/sweep.py",
        "                swept.leave(branch, LeftAlone.FORGOTTEN)\n",
        "                link.rollback(branch.xid)\n",
        Test("tests/engine/test_passes.py::test_what_the_log_has_forgotten_is_left_to_an_operator"),
    ),
    Mutant(
        "UNDECIDED_ONE_SWEPT",
        "R7: a sweep rolls back what is not decided",
        (
            Patch(
                "coordinator/sweep.py",
                "            case None | DecisionState.PENDING:\n                swept.waiting += 1\n",
                "            case None:\n                swept.waiting += 1\n",
            ),
            Patch(
                "coordinator/sweep.py",
                "            case DecisionState.ROLLBACK:\n                round_",
                "            case DecisionState.ROLLBACK | DecisionState.PENDING:\n                round_",
            ),
        ),
        (
            Test("tests/engine/test_passes.py::test_in_hold_nothing_is_presumed_and_nothing_pruned"),
            Seeds(1, 40),
        ),
    ),
    single(
        "UNREAD_ONE_SWEPT",
        "R7: a sweep rolls back what the log could not be asked about",
        "coordinator/sweep.py",
        "        except TransactionError:\n            return None\n",
        "        except TransactionError:\n            return DecisionAnswer(DecisionState.ROLLBACK)\n",
        Test("tests/engine/test_passes.py::test_a_log_that_cannot_be_read_is_no_answer"),
        Seeds(1, 40),
    ),
    single(
        "COMMIT_SWEPT_AWAY",
        "R6: a sweep rolls back what was decided COMMIT",
        "coordinator/sweep.py",
        "                link.commit(branch.xid, answer.incarnation, answer.sequence)\n",
        "                link.rollback(branch.xid)\n",
        Test("tests/engine/test_passes.py::test_an_orphan_whose_commit_is_in_the_log_is_committed"),
        Seeds(1, 40),
    ),
    single(
        "LATER_ONE_WAITED_FOR",
        "R18: branches of an incarnation that was never drawn are waited for, and shown to nobody",
        "coordinator/sweep.py",
        "            return frozenset(later) - frozenset(await self._log.read_sequences(list(later)))\n",
        "            return frozenset(later) & frozenset()\n",
        Test("tests/engine/test_passes.py::test_xids_that_nobody_gave_out_are_left_alone_and_shown"),
    ),
    single(
        "FIRST_PAGE_SWEPT",
        "invariant 8: a sweep ends with a participant's first page",
        "coordinator/sweep.py",
        "        while not listing.is_over:\n",
        "        for _ in range(1):\n",
        Test("tests/engine/test_passes.py::test_a_pass_reads_a_participants_branches_to_the_last_page"),
    ),
    single(
        "FIRST_PAGE_POLLED",
        "R15: the release ends with a participant's first page",
        "coordinator/hold.py",
        "        while not listing.is_over:\n",
        "        while last is None and not listing.is_over:\n",
        Test(
            "tests/engine/test_hold.py::"
            "test_the_release_reads_every_page_and_takes_no_branch_of_another_log_for_its_own"
        ),
    ),
    single(
        "SHORT_PAGE_TAKEN_FOR_THE_LAST",
        "R15, invariant 8: a page that is short ends the list, whatever the participant's token says",
        "participant_sdk/resource_calls.py",
        "self._asked, self._token, self.is_over = self._token, following, not following\n",
        "self._asked, self._token, self.is_over = self._token, following, len(branches) < self._query.limit\n",
        Test("tests/engine/test_hold.py::test_the_release_reads_on_where_a_page_is_short"),
        Test("tests/engine/test_listed.py::test_a_pass_follows_the_participants_tokens_however_short_its_pages"),
    ),
    single(
        "ENDLESS_LIST_FOLLOWED",
        "invariant 12: a participant that gives the same page token again is asked for ever",
        "participant_sdk/resource_calls.py",
        "        if self._token == self._asked:\n",
        "        if self._token == self._asked and not self._token:\n",
        Test("tests/sdk/test_resource_calls.py::test_a_list_that_leads_nowhere_is_not_followed"),
    ),
    single(
        "PAGE_OF_ANY_SIZE",
        "R15, R17: large branches of one participant keep the rest of its list from being read",
        "participant_sdk/wire_branches.py",
        "        if page.branches and size_bytes > PAGE_MAX_BYTES:\n",
        "        if page.branches and size_bytes < 0:\n",
        Test("tests/sdk/test_servicer.py::test_recover_lists_branches_of_any_size"),
    ),
    single(
        "END_BY_HAND_UNSEEN",
        "R12: an end forced at the participant itself never comes to the log",
        "coordinator/sweep.py",
        "            if branch.phase is not BranchPhase.HEURISTIC or key in self._told or not",
        "            if branch.phase is not BranchPhase.HEURISTIC or key not in self._told or not",
        Test(
            "tests/engine/test_resolution.py::"
            "test_an_end_forced_at_the_participant_itself_comes_to_the_log_once_and_stays_until_forgotten"
        ),
        Seeds(1, 40),
    ),
    single(
        "ONLY_THE_DOUBTFUL_TOLD_AGAIN",
        "R11: a participant that lost a committed branch is not told COMMIT again, so nobody finds out",
        "coordinator/redriving.py",
        "                    tasks.create_task(self._visits.tell(visit, stored))\n",
        "                    tasks.create_task(self._look_at(xid, visit))\n",
        Test("tests/engine/test_redriving.py::test_a_branch_that_its_participant_lost_is_a_hazard_and_no_success"),
    ),
    single(
        "LISTED_PAGE_LEFT_EARLY",
        "R12: branches in doubt are shown to nobody where a participant's page is shown in two",
        "coordinator/doubts.py",
        "            if last is not None and last > shown:\n",
        "            if last is not None and last < shown:\n",
        Test("tests/engine/test_listed.py::test_branches_in_doubt_are_listed_oldest_first_page_by_page"),
    ),
    single(
        "END_THAT_THE_LOG_KEEPS_UNLISTED",
        "R12: an end by hand that only the log remembers is shown to nobody",
        "coordinator/doubts.py",
        "        while len(found) < limit:\n",
        "        while len(found) < limit < 0:\n",
        Test("tests/api/test_recovery_grpc.py::test_an_end_that_only_the_log_remembers_is_shown_until_forgotten"),
    ),
    single(
        "RUNNING_ONE_TOLD_ROLLBACK",
        "R7: an inquiry about a transaction that runs here is answered ROLLBACK",
        "coordinator/inquiries.py",
        "                return DecisionAnswer(DecisionState.PENDING, owner_address=own.address, epoch=own.epoch)\n",
        "                return DecisionAnswer(DecisionState.ROLLBACK, epoch=own.epoch)\n",
        Test(
            "tests/engine/test_resolution.py::test_who_asks_about_a_transaction_that_runs_here_is_to_ask_again_and_here"
        ),
        Seeds(1, 40),
    ),
    single(
        "PRESUMED_TOLD_EARLY",
        "R7: ROLLBACK of one's own xid without a trace is told before it is on record",
        "coordinator/inquiries.py",
        "        if tx.reason == PRESUMED and not tx.sequence:\n",
        "        if tx.reason == PRESUMED and not tx.xid:\n",
        Test("tests/engine/test_resolution.py::test_rollback_of_our_own_without_a_trace_is_told_once_it_is_on_record"),
    ),
    single(
        "NEVER_GIVEN_OUT_DECIDED",
        "R7: an xid of our own incarnation that was never given out gets a decision",
        "coordinator/inquiries.py",
        "        if not self._engine.gave(xid):\n            return DecisionAnswer(DecisionState.FORGOTTEN",
        "        if not xid:\n            return DecisionAnswer(DecisionState.FORGOTTEN",
        Test("tests/engine/test_resolution.py::test_an_xid_of_our_own_that_was_never_given_out_gets_no_decision"),
    ),
    single(
        "UNKNOWN_INCARNATION_HAS_ENDED",
        "R7: an incarnation above one's own that the log does not know counts as fenced",
        "coordinator/log/inquiry.py",
        "    ended = xid.incarnation < own.number if owner is None else owner.fenced\n",
        "    ended = owner is None or owner.fenced\n",
        Test("tests/log/test_inquiry.py::test_no_row_means_rollback_only_when_fenced_young_and_not_held"),
    ),
    single(
        "STRANGER_HAS_REPORTED",
        "R15: a participant that is not configured counts as one that reported",
        "coordinator/log/reported.py",
        "        return tuple(name for name in names if name in self._missing or name not in self.participants)\n",
        "        return tuple(name for name in names if name in self._missing)\n",
        Test("tests/log/test_waiting_commits.py::test_a_participant_that_is_not_configured_has_never_reported"),
    ),
    single(
        "PARTICIPANTS_NOT_STORED",
        "R15: a branch does not keep who takes part, so nobody can wait for their reports (in memory)",
        "participant_sdk/resources/memory.py",
        "            participants=prepare.participants,\n",
        "            participants=(),\n",
        Test(
            "tests/contract/test_branch_keeping.py::test_everything_committed_above_the_sequences_is_listed_page_by_page"
        ),
    ),
    single(
        "NO_BINDS_UNREPORTED",
        "R15: a no is bound to a request whose COMMIT the log may have lost",
        "coordinator/log/appends.py",
        "        if record.decision is not Decision.COMMIT and not binds:\n",
        "        if record.decision is not Decision.COMMIT:\n",
        Test("tests/engine/test_hold.py::test_a_no_is_bound_to_no_request_whose_commit_may_be_lost"),
        Seeds(1, 40),
    ),
    single(
        "ROLLBACK_SENT_AS_LOST_COMMIT_SQL",
        "invariant 1: to a participant that lost its tail, rollbacks are sent as commits",
        "coordinator/log/sql/commits_above.sql",
        "      AND decision = 1\n",
        "",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestAcknowledged::test_commits_above_sequences_come_in_order_and_in_pages[postgres_world]"
        ),
    ),
    single(
        "ROLLBACK_SENT_AS_LOST_COMMIT",
        "invariant 1: to a participant that lost its tail, rollbacks are sent as commits (in memory)",
        "coordinator/log/memory_store.py",
        "            if row.record.decision is Decision.COMMIT\n            and participant",
        "            if participant",
        Test(
            "tests/contract/test_decision_log_keeping.py::"
            "TestAcknowledged::test_commits_above_sequences_come_in_order_and_in_pages[memory_world]"
        ),
    ),
    single(
        "LOST_TAIL_TOLD_ONCE",
        "R15: a participant that lost its tail is told once, whether it acknowledges or not",
        "coordinator/lost_tails.py",
        "                left = {xid: left[xid] for xid in round_.left}\n",
        "                left = {xid: left[xid] for xid in round_.left if not xid}\n",
        Test(
            "tests/engine/test_lost_tails.py::test_what_a_participant_cannot_do_now_is_told_again_over_the_same_session"
        ),
    ),
    single(
        "HORIZON_STANDS_STILL",
        "R14: nothing is ever dropped from the log",
        "coordinator/recovery_passes.py",
        "        await self._ask_log(self._keep_house(), run, end_s)\n",
        "",
        Test("tests/engine/test_passes.py::test_what_has_ended_everywhere_is_pruned_after_its_retention"),
    ),
    Mutant(
        "INVENTED_ONE_SWEPT",
        "R18: a sweep rolls back branches of xids that nobody gave out",
        (
            Patch(
                "coordinator/sweep.py",
                "        if branch.xid.incarnation == self._engine.incarnation.number and not"
                " self._engine.gave(branch.xid):\n",
                "        if not branch.xid:\n",
            ),
            Patch(
                "coordinator/inquiries.py",
                "        if not self._engine.gave(xid):\n            return DecisionAnswer(DecisionState.FORGOTTEN",
                "        if not xid:\n            return DecisionAnswer(DecisionState.FORGOTTEN",
            ),
        ),
        (Test("tests/engine/test_passes.py::test_xids_that_nobody_gave_out_are_left_alone_and_shown"),),
    ),
    Mutant(
        "RUNNING_ONE_SWEPT",
        "R7: a sweep rolls back branches of transactions that run",
        (
            Patch(
                "coordinator/sweep.py",
                "        if running is not None and running.transaction.phase not in FINISHED:\n"
                "            self._leave_to_engine",
                "        if running is not None and running.transaction.phase in FINISHED:\n"
                "            self._leave_to_engine",
            ),
            Patch(
                "coordinator/inquiries.py",
                "                return DecisionAnswer(DecisionState.PENDING, owner_address=own.address,"
                " epoch=own.epoch)\n",
                "                return DecisionAnswer(DecisionState.ROLLBACK, epoch=own.epoch)\n",
            ),
        ),
        (
            Test("tests/engine/test_passes.py::test_a_running_transactions_branch_is_left_alone"),
            Seeds(1, 40),
        ),
    ),
)
