"""Mutants of what a participant promises by its votes and acknowledgements (R3, R8 to R13, R15 to R17)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "VOTE_BEFORE_FLUSH",
        "R8: a vote leaves before the branch is durable",
        "participant_sdk/resources/memory.py",
        "        await self._store.flush()\n        return Answers(",
        "        if work.commits or work.rollbacks:\n            await self._store.flush()\n        return Answers(",
        Test("tests/sdk/test_memory_resource.py::test_no_vote_leaves_before_its_flush"),
        Seeds(1, 40),
    ),
    single(
        "ACKNOWLEDGED_BEFORE_FLUSH",
        "R9: an acknowledgement leaves before the effect is durable",
        "participant_sdk/resources/memory.py",
        "        await self._store.flush()\n        return Answers(",
        "        if work.prepares:\n            await self._store.flush()\n        return Answers(",
        Test("tests/sdk/test_memory_resource.py::test_a_prepared_branch_survives_a_crash_and_can_still_commit"),
        Seeds(1, 40),
    ),
    Mutant(
        "DUPLICATE_UNFLUSHED",
        "R8: a duplicate is answered from what is not durable yet",
        (
            Patch(
                "participant_sdk/resources/memory.py",
                "        await self._store.flush()\n        return Answers(",
                "        if self._store.unflushed != unflushed:\n"
                "            await self._store.flush()\n"
                "        return Answers(",
            ),
            Patch(
                "participant_sdk/resources/memory.py",
                '        """Do a whole batch with one flush."""\n',
                '        """Do a whole batch, and flush what is new."""\n        unflushed = self._store.unflushed\n',
            ),
        ),
        (
            Test("tests/sdk/test_memory_resource.py::test_no_vote_leaves_before_its_flush"),
            Seeds(1, 40),
        ),
    ),
    single(
        "STATE_AND_EFFECT_APART",
        "R9: a branch's state and its effect change in two transactions",
        "participant_sdk/resources/memory.py",
        "            self._store.write(self._change(key, before, stored._replace(branch=branch), commit))\n",
        "            change = self._change(key, before, stored._replace(branch=branch), commit)\n"
        "            self._store.write(replace(change, accounts={}, effect=None))\n"
        "            self._store.write(Change(accounts=change.accounts, effect=change.effect))\n",
        Test("tests/sdk/test_memory_crashes.py::test_state_and_effect_of_an_end_survive_together"),
    ),
    Mutant(
        "COMMITTED_TWICE",
        "R10: a Commit that comes again takes effect again (in memory)",
        (
            Patch(
                "participant_sdk/resources/memory.py",
                "        if transition.phase is not before:\n",
                "        if transition.phase is not before or (commit is not None and before is"
                " BranchPhase.COMMITTED):\n",
            ),
            Patch(
                "participant_sdk/resources/memory.py",
                "        if before is not BranchPhase.PREPARED:\n",
                "        if before not in (BranchPhase.PREPARED, BranchPhase.COMMITTED):\n",
            ),
        ),
        (
            Test(
                "tests/contract/test_branch_table.py::test_each_branch_takes_effect_once_and_only_if_committed[memory]"
            ),
            Seeds(1, 40),
        ),
    ),
    single(
        "NO_TOMBSTONE",
        "R10: a Prepare after its Rollback is accepted",
        "participant_sdk/branch.py",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),\n",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.NONE, DONE),\n",
        Test(
            "tests/protocol/test_branch.py::"
            "test_a_rollback_before_its_prepare_leaves_a_tombstone_that_keeps_the_prepare_out"
        ),
        Seeds(1, 40),
    ),
    single(
        "OLD_PREPARE_ACCEPTED",
        "R10: a Prepare is accepted whose xid is older than the window",
        "participant_sdk/resources/admission.py",
        "    if age_ms > PREPARE_WINDOW_MS:\n",
        "    if age_ms > 10**15:\n",
        Test("tests/sdk/test_sessions.py::test_an_xid_past_the_window_is_refused"),
    ),
    single(
        "HAZARD_IS_DONE",
        "R11: Commit of a branch without a marker is success",
        "participant_sdk/branch.py",
        "    (_P.NONE, _C.COMMIT): Transition(_P.NONE, HAZARD),\n",
        "    (_P.NONE, _C.COMMIT): Transition(_P.NONE, DONE),\n",
        Test("tests/protocol/test_branch.py::test_commit_of_an_unknown_branch_is_a_hazard"),
        Seeds(1, 40),
    ),
    single(
        "ROLLED_BACK_IS_DONE",
        "R11: Commit of a branch that was rolled back is success",
        "participant_sdk/branch.py",
        "    (_P.ROLLED_BACK, _C.COMMIT): Transition(_P.ROLLED_BACK, ROLLED_BACK_BY_HAND),\n",
        "    (_P.ROLLED_BACK, _C.COMMIT): Transition(_P.ROLLED_BACK, ALREADY_DONE),\n",
        Test("tests/protocol/test_phases.py::test_the_page_is_drawn_from_the_tables"),
    ),
    single(
        "COMMITTED_ROLLED_BACK",
        "invariant 9: Rollback undoes what was committed",
        "participant_sdk/branch.py",
        "    (_P.COMMITTED, _C.ROLLBACK): Transition(_P.COMMITTED, COMMITTED_BY_HAND),\n",
        "    (_P.COMMITTED, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),\n",
        Test("tests/protocol/test_branch.py::test_an_end_stands_whatever_comes"),
    ),
    single(
        "PREPARED_EXPIRES",
        "R12: a branch that voted yes expires",
        "participant_sdk/branch.py",
        "    (_P.PREPARED, _C.EXPIRE): Transition(_P.PREPARED),\n",
        "    (_P.PREPARED, _C.EXPIRE): Transition(_P.ROLLED_BACK),\n",
        Test("tests/protocol/test_branch.py::test_what_voted_yes_does_not_expire"),
    ),
    single(
        "NO_WORK_IS_READ_ONLY",
        "R13: a Prepare without the work that it ends votes READ_ONLY",
        "participant_sdk/resources/memory.py",
        "        if prepare.ends_work or active is not None:\n",
        "        if active is not None:\n",
        Test("tests/sdk/test_memory_resource.py::test_embedded_work_must_match_what_prepare_ends"),
    ),
    single(
        "COUNT_IGNORED",
        "R13: the count of operations is ignored",
        "participant_sdk/resources/admission.py",
        "found_count and expected == (found_number, found_count):\n",
        "found_count and prepare.branch_number == found_number:\n",
        Test("tests/contract/test_branch_table.py::test_work_under_an_xid_is_prepared_only_by_an_exact_match[memory]"),
    ),
    single(
        "BRANCH_NUMBER_IGNORED",
        "R13: the branch's number is ignored",
        "participant_sdk/resources/admission.py",
        "found_count and expected == (found_number, found_count):\n",
        "found_count == prepare.operation_count:\n",
        Test("tests/contract/test_branch_table.py::test_work_under_an_xid_is_prepared_only_by_an_exact_match[memory]"),
    ),
    single(
        "TWO_LIVE_BRANCHES",
        "R3: two live branches of one request are held (in memory)",
        "participant_sdk/resources/memory.py",
        "        return request is not None and self._store.current.requests.get(request) is not None\n",
        "        return False\n",
        Test("tests/contract/test_branch_table.py::test_a_second_branch_of_a_live_request_votes_transient[memory]"),
    ),
    single(
        "WATERMARK_NOT_WRITTEN",
        "R15: the sequence of a Commit is not kept (in memory)",
        "participant_sdk/resources/memory.py",
        "        watermarks = {} if commit is None else self._mark(commit)\n",
        "        watermarks: dict[tuple[str, int], int] = {}\n",
        Test("tests/sdk/test_memory_resource.py::test_watermarks_and_finished_branches_follow_the_commits"),
        Seeds(1, 40),
    ),
    single(
        "WATERMARK_FALLS",
        "R15: a Commit with a lower sequence lowers the watermark (in memory)",
        "participant_sdk/resources/memory.py",
        "        return {mark: max(commit.sequence, self._store.current.watermarks.get(mark, 0))}\n",
        "        return {mark: commit.sequence}\n",
        Test("tests/sdk/test_memory_resource.py::test_watermarks_and_finished_branches_follow_the_commits"),
    ),
    single(
        "EPOCH_NOT_FLUSHED",
        "R15: an epoch is adopted before it is durable (in memory)",
        "participant_sdk/resources/memory.py",
        "            self._store.write(Change(epochs={log_id: epoch}))\n        await self._store.flush()\n",
        "            self._store.write(Change(epochs={log_id: epoch}))\n",
        Test("tests/sdk/test_memory_resource.py::test_an_epoch_is_adopted_durably_and_never_lowered"),
    ),
    single(
        "LATE_YES_SENT",
        "R16: a yes leaves after its deadline",
        "participant_sdk/worker.py",
        "        if now_s >= branch.deadline_s:\n            return late(branch)\n",
        "",
        Test("tests/sdk/test_workers.py::test_a_yes_that_comes_too_late_is_not_sent"),
    ),
    single(
        "LATE_PREPARE_RUN",
        "R16: a Prepare is run whose time has passed",
        "participant_sdk/resources/admission.py",
        "    if now_s >= prepare.deadline_s:\n        return late(prepare)\n",
        "",
        Test("tests/sdk/test_workers.py::test_a_prepare_that_waited_too_long_is_not_run"),
    ),
    single(
        "BAD_BRANCH_FAILS_ALL",
        "R17: one bad branch fails the batch that it travelled in",
        "participant_sdk/worker.py",
        "        while len(failed) > 1:\n",
        "        while len(failed) > 10_000:\n",
        Test("tests/sdk/test_workers.py::test_one_bad_branch_fails_alone"),
    ),
    single(
        "ENDINGS_FAIL_WITH_PREPARES",
        "R17: Commits are not done where the Prepares beside them failed",
        "participant_sdk/worker.py",
        "        endings = await self._apply(Work(work.commits, work.rollbacks))\n",
        "        endings = Answers([self._retry] * len(work.commits), [self._retry] * len(work.rollbacks))\n",
        Test("tests/sdk/test_workers.py::test_one_bad_branch_fails_alone[0]"),
    ),
    single(
        "ONE_XID_TWICE_AT_ONCE",
        "participant.py: two calls of one xid are in one batch",
        "participant_sdk/worker.py",
        "                if call.branch.xid in taken:\n",
        "                if call.branch.xid in ():\n",
        Test("tests/sdk/test_workers.py::test_an_xid_is_in_one_work_once_and_its_calls_keep_their_order"),
    ),
)
