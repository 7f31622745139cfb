"""Pairs: two lines of defence are down at once, and what only both of them together keep out must be seen.

Each half has a mutant of its own with a witness of its own; here the oracle of the whole is asked.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test

MUTANTS: Final = (
    Mutant(
        "REQUEST_COMMITS_TWICE",
        "R3: neither the participants nor the log mind that one request has two transactions",
        (
            Patch(
                "participant_sdk/resources/memory.py",
                "        return request is not None and self._store.current.requests.get(request) is not None\n",
                "        return False\n",
            ),
            Patch(
                "coordinator/log/memory_store.py",
                "            if bound or record.xid in self.tables.decisions:\n",
                "            if record.xid in self.tables.decisions:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "LOST_TAIL_UNSEEN",
        "R15: neither a sequence that went back nor a participant that is ahead tells of a lost tail",
        (
            Patch(
                "coordinator/reports.py",
                "        if reported > sequences.get(number, 0)\n",
                "        if reported > sequences.get(number, 0) + 2**62\n",
            ),
            Patch(
                "coordinator/log/appends.py",
                "            await self._log.hold(message)\n",
                "            await self._log.standing()\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "PRESUMED_AFTER_A_LOSS",
        "R15: ROLLBACK is presumed in HOLD and before the participants reported",
        (
            Patch(
                "coordinator/log/inquiry.py",
                "    return DecisionState.PENDING if snapshot.held else DecisionState.ROLLBACK\n",
                "    return DecisionState.ROLLBACK\n",
            ),
            Patch(
                "coordinator/log/inquiry.py",
                "    if state is DecisionState.ROLLBACK and unreported:\n",
                "    if state is None:\n",
            ),
        ),
        (Test("tests/engine/test_hold.py::test_in_hold_nothing_is_presumed_and_nothing_begins"),),
    ),
    Mutant(
        "WRITTEN_TO_A_RESTORED_LOG",
        "R15: COMMIT is written before the reports, first of all over a new connection, in HOLD too",
        (
            Patch(
                "coordinator/log/appends.py",
                "        going: list[DecisionRecord] = []\n",
                "        return batch, []\n        going: list[DecisionRecord] = []\n",
            ),
            Patch(
                "coordinator/log/memory.py",
                "        if not self._is_connected and (records or burned):\n",
                "        if not self._is_connected and burned < 0:\n",
            ),
            Patch(
                "coordinator/log/memory_store.py",
                "        return AppendStatus.HELD if self.tables.held and advance else AppendStatus.WRITTEN\n",
                "        return AppendStatus.WRITTEN\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "DOUBT_WITHOUT_END",
        "R12: a participant in doubt does not ask, and no pass tells it",
        (
            Patch(
                "participant_sdk/inquiry.py",
                "                if now_s >= doubt.ask_at_s:\n",
                "                if now_s < 0:\n",
            ),
            Patch(
                "coordinator/sweep.py",
                "        doubtful = [branch for branch in branches if branch.phase is BranchPhase.PREPARED]\n",
                "        doubtful = [branch for branch in branches if branch.phase is BranchPhase.NONE]\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "TWO_OWNERS_WRITE",
        "R4: neither fence nor sequence stops one of two coordinators that hold one incarnation",
        (
            Patch(
                "coordinator/log/memory_store.py",
                "        if not row.is_live:\n            return AppendStatus.FENCED\n",
                "",
            ),
            Patch(
                "coordinator/log/memory_store.py",
                "        if row.last_sequence != expected:\n            return",
                "        if expected < 0:\n            return",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "LATE_PREPARE_WITHOUT_A_TOMBSTONE",
        "R10: tombstones are dropped early, and Prepares of any age are let in",
        (
            Patch(
                "participant_sdk/known_logs.py",
                "        if horizon > now_unix_ms - HORIZON_AGE_MIN_MS:\n",
                "        if horizon > now_unix_ms:\n",
            ),
            Patch(
                "participant_sdk/resources/admission.py",
                "    if age_ms > PREPARE_WINDOW_MS:\n",
                "    if age_ms > PREPARE_WINDOW_MS * 1_000_000:\n",
            ),
        ),
        (Test("tests/sdk/test_pruning.py::test_a_horizon_that_is_too_young_or_in_the_future_is_not_believed"),),
    ),
    Mutant(
        "LATE_YES_COUNTS",
        "R16: a yes leaves after its deadline, and the coordinator's own deadline does not roll back",
        (
            Patch(
                "participant_sdk/worker.py",
                "        if now_s >= branch.deadline_s:\n            return late(branch)\n",
                "",
            ),
            Patch(
                "coordinator/protocol/transaction.py",
                "            case Phase.PREPARING if now_s >= self.prepare_by_s:\n",
                "            case Phase.PREPARING if now_s >= self.prepare_by_s + 2.0**40:\n",
            ),
        ),
        (
            Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[time]"),
            Seeds(1, 40),
        ),
    ),
    Mutant(
        "REDO_LEFT_TO_NOBODY",
        "R6: recovery skips decided commits, and whoever is in doubt is not told by a pass either",
        (
            Patch(
                "coordinator/recovery.py",
                "        for transaction in driven:\n",
                "        for transaction in driven[:0]:\n",
            ),
            Patch(
                "coordinator/sweep.py",
                "        doubtful = [branch for branch in branches if branch.phase is BranchPhase.PREPARED]\n",
                "        doubtful = [branch for branch in branches if branch.phase is BranchPhase.NONE]\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
)
