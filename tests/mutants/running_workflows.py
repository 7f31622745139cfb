"""Mutants of workflows: compensated twice or out of order, too early, from a stale row, or forward after all."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

_JOURNAL: Final = "tests/protocol/test_workflow.py"
_RUNS: Final = "tests/engine/test_workflows.py"
_TAKEN_OVER: Final = "tests/engine/test_workflow_takeover.py"
_KEPT: Final = "tests/contract/test_workflow_log.py"

MUTANTS: Final = (
    single(
        "COMPENSATION_OUT_OF_ORDER",
        "a workflow's first step is undone first",
        "coordinator/protocol/workflow.py",
        "        for step in reversed(self._steps):\n",
        "        for step in self._steps:\n",
        Test(f"{_JOURNAL}::test_what_stands_is_undone_once_each_the_last_first_and_nothing_unknown_is"),
    ),
    single(
        "COMPENSATION_TWICE",
        "a compensation that the log has committed is run again, under a name of its own",
        "coordinator/protocol/workflow.py",
        "    if undo is not None and undo.decision is Decision.COMMIT:\n",
        "    if undo is not None and undo.decision is None:\n",
        Test(f"{_JOURNAL}::test_the_log_is_believed_and_the_rows_are_not"),
    ),
    single(
        "UNKNOWN_STEP_COMPENSATED",
        "steps are undone while one's outcome is unknown",
        "coordinator/protocol/workflow.py",
        "        if (unknown := self.unknown) is not None:\n            return Settle(unknown)\n        stands",
        "        stands",
        Test(f"{_JOURNAL}::test_what_stands_is_undone_once_each_the_last_first_and_nothing_unknown_is"),
    ),
    single(
        "UNKNOWN_STEP_LEFT_BEHIND",
        "a workflow fails without making known what its last step came to",
        "coordinator/workflows/run.py",
        "        await self._held.settle_unknown()\n        stuck = self._held.journal.failed(",
        "        stuck = self._held.journal.failed(",
        Test(f"{_RUNS}::test_a_time_out_around_a_step_fails_the_workflow_once_the_outcome_is_known"),
    ),
    single(
        "STALE_STEP_BELIEVED",
        "a workflow resumes from what its rows say of its steps, and not from the log",
        "coordinator/workflows/run.py",
        "        self._is_folded = not stored.steps\n",
        "        self._is_folded = True\n",
        Test(f"{_TAKEN_OVER}::test_a_row_that_is_stale_is_not_believed"),
    ),
    single(
        "FORWARD_AFTER_COMPENSATING",
        "the function runs again after COMPENSATING",
        "coordinator/workflows/run.py",
        "            elif record.phase is WorkflowPhase.RUNNING:\n",
        "            elif record.phase in (WorkflowPhase.RUNNING, WorkflowPhase.COMPENSATING):\n",
        Test(f"{_RUNS}::test_a_refusal_undoes_what_was_done_and_nothing_is_left"),
    ),
    Mutant(
        "COMPENSATING_NOT_DURABLE",
        "the first undo begins before COMPENSATING is durable",
        (
            Patch(
                "coordinator/workflows/run.py",
                "        # COMPENSATING is durable before the first undo.\n        return await self._held.save()\n",
                "        return None\n",
            ),
            Patch(
                "coordinator/workflows/backward.py",
                "move_step(position, StepPhase.UNDOING)\n            await held.save()\n",
                "move_step(position, StepPhase.UNDOING)\n",
            ),
        ),
        (Test(f"{_TAKEN_OVER}::test_compensations_are_not_run_twice_nor_forward_after_compensating"),),
    ),
    single(
        "PIVOT_COMPENSATED_PAST",
        "a workflow past its pivot is undone",
        "coordinator/protocol/workflow.py",
        "        if self.has_passed_pivot:\n            return Failure(",
        "        if self.has_passed_pivot and not failure:\n            return Failure(",
        Test(f"{_JOURNAL}::test_past_a_pivot_there_is_no_way_back"),
    ),
    single(
        "ANOTHER_STEP_ACCEPTED",
        "a recorded step is asked for with other operations, and goes on",
        "coordinator/protocol/workflow.py",
        "        if recorded.intention != intention:\n",
        "        if recorded.intention.kind != intention.kind:\n",
        Test(f"{_JOURNAL}::test_another_step_in_a_recorded_one_s_place_is_told"),
    ),
    single(
        "STEP_NOT_RECORDED_BEFORE",
        "a step's transaction is begun before the step is recorded",
        "coordinator/workflows/forward.py",
        "        if journal.changed:\n",
        "        if journal.changed and asked.xid:\n",
        Test(f"{_TAKEN_OVER}::test_compensations_are_not_run_twice_nor_forward_after_compensating"),
    ),
    single(
        "END_TOLD_EARLY",
        "a workflow's end is told before it is durable",
        "coordinator/workflows/held.py",
        "        record = self.journal.record\n        await self._keeper.keep(",
        "        record = self.durable = self.journal.record\n        await self._keeper.keep(",
        Test(f"{_RUNS}::test_an_end_is_told_once_it_is_durable"),
    ),
    single(
        "FENCED_OWNER_SAVES",
        "invariant 7: a fenced coordinator changes a workflow",
        "coordinator/log/sql/workflow_save.sql",
        "    WHERE incarnation = %(incarnation)s AND fenced_at IS NULL AND timeline = txlog.current_timeline()\n",
        "    WHERE incarnation = %(incarnation)s AND timeline = txlog.current_timeline()\n",
        Test(f"{_KEPT}::test_only_a_live_owner_changes_anything[postgres]"),
    ),
    single(
        "LIVE_OWNER_ROBBED",
        "a workflow is taken over before its owner is fenced",
        "coordinator/log/sql/workflow_claim.sql",
        " AND owner.fenced_at IS NOT NULL\n",
        "\n",
        Test(f"{_KEPT}::test_only_a_live_owner_changes_anything[postgres]"),
    ),
    single(
        "NEEDED_DECISION_PRUNED",
        "R14: a decision that an unfinished workflow needs is pruned",
        "coordinator/log/sql/prune.sql",
        "FROM txlog.workflows WHERE phase IN (1, 2))\n",
        "FROM txlog.workflows WHERE phase IN (3, 4))\n",
        Test(f"{_KEPT}::test_the_horizon_stays_below_what_an_unfinished_workflow_may_ask_for[postgres]"),
    ),
)
