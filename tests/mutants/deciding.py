"""Mutants of how a transaction is decided, and when that leaves: the pure core, and what votes mean (R1, R2, R16)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "COMMIT_SENT_EARLY",
        "R1: Commit leaves before the decision is durable",
        "coordinator/protocol/transaction.py",
        "        return Step(record=record)\n",
        "        return Step(record=record, messages=self._owed_messages(Verb.COMMIT))\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
        Seeds(1, 40),
    ),
    single(
        "TOLD_EARLY",
        "R1: the client hears of COMMIT before it is durable",
        "coordinator/protocol/transaction.py",
        "        return Step(record=record)\n",
        "        return Step(record=record, reply=Outcome(self.xid, Decision.COMMIT, self.phase))\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
        Seeds(1, 40),
    ),
    single(
        "SILENCE_IS_YES",
        "R2: the deadline is taken as a yes",
        "coordinator/protocol/transaction.py",
        "                return self._time_out(now_s)\n",
        "                return self._decide()\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[time]"),
        Seeds(1, 40),
    ),
    single(
        "MAJORITY_DECIDES",
        "R2: one vote of no does not roll back",
        "coordinator/protocol/transaction.py",
        "        if vote.kind is _NO:\n",
        "        yes = [b for b in self.branches.values() if b.vote is not None and b.vote.is_yes]\n"
        "        if vote.kind is _NO and not yes:\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[heuristics]"),
        Seeds(1, 40),
    ),
    single(
        "FIRST_VOTE_DECIDES",
        "R2: COMMIT does not wait for every branch's vote",
        "coordinator/protocol/transaction.py",
        "        return self._decide() if self.branches.all_voted() else NOTHING\n",
        "        return self._decide()\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
        Seeds(1, 40),
    ),
    Mutant(
        "READ_ONLY_TOLD_COMMIT",
        "R2: a branch that voted READ_ONLY is told COMMIT",
        (
            Patch(
                "coordinator/protocol/branches.py",
                "    def prepared(self) -> tuple[str, ...]:\n"
                '        """Those that voted PREPARED: the only ones that are told COMMIT (R2)."""\n'
                "        return tuple([b.participant for b in self.values() if b.vote is not None and"
                " b.vote.kind is _PREPARED])\n",
                "    def prepared(self) -> tuple[str, ...]:\n"
                '        """Those that voted yes."""\n'
                "        return tuple([b.participant for b in self.values() if b.vote is not None and"
                " b.vote.is_yes])\n",
            ),
            Patch(
                "coordinator/protocol/branches.py",
                "self.done or vote.kind is VoteKind.READ_ONLY or vote.is_business_no\n",
                "self.done or vote.is_business_no\n",
            ),
        ),
        (
            Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
            Seeds(1, 40),
        ),
    ),
    single(
        "UNKNOWN_VOTE_IS_YES",
        "R2: a vote of an unknown kind, UNSPECIFIED among them, is a yes",
        "participant_sdk/wire.py",
        '        return transient_no("UNKNOWN_VOTE", f"a vote of an unknown kind, {message.kind}",'
        " xa_code=XaCode.RBPROTO)\n",
        "        return Vote(VoteKind.PREPARED, XaCode.OK)\n",
        Test("tests/sdk/test_nonsense.py::test_unknown_votes_and_acknowledgements_promise_nothing"),
    ),
    single(
        "FAILED_CALL_IS_YES",
        "R19: a Prepare that ended in a status of gRPC counts as a yes",
        "participant_sdk/unary_stream.py",
        '        return transient_no("CALL_FAILED", f"Prepare failed: {error}", xa_code=XaCode.RBCOMMFAIL)\n',
        "        from participant_sdk.xa import PREPARED\n\n        return PREPARED\n",
        Test("tests/sdk/test_unary_participants.py::test_a_failed_call_is_no_outcome"),
    ),
    single(
        "LOST_SESSION_VOTES_YES",
        "R2: a lost session answers the Prepares that were under way with yes",
        "participant_sdk/link.py",
        "        vote = self._unreachable(reason)\n        lost",
        "        from participant_sdk.xa import PREPARED\n\n        vote = PREPARED\n        lost",
        Test(
            "tests/sdk/test_sessions.py::test_a_lost_session_answers_every_outstanding_prepare_and_the_link_comes_back"
        ),
        Seeds(1, 40),
    ),
    Mutant(
        "DEADLINE_WHILE_DECIDING",
        "R16: the deadline rolls back while DECIDING",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "            case Phase.PREPARING if now_s >= self.prepare_by_s:\n",
                "            case Phase.DECIDING:\n"
                "                self.phase = Phase.PREPARING\n"
                "                return self._time_out(now_s)\n"
                "            case Phase.PREPARING if now_s >= self.prepare_by_s:\n",
            ),
            Patch(
                "coordinator/protocol/transaction.py",
                "        return Step(record=record)\n",
                "        return Step(record=record, wake_at_s=self.prepare_by_s)\n",
            ),
        ),
        (
            Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
            Seeds(1, 40),
        ),
    ),
    single(
        "ROLLBACK_ONLY_FORGOTTEN",
        "R2: a transaction commits that was marked rollback-only",
        "coordinator/protocol/transaction.py",
        '        if self._rollback_only is not None:\n            return self._roll_back(now_s, "ROLLBACK_ONLY"',
        '        if not self.xid:\n            return self._roll_back(now_s, "ROLLBACK_ONLY"',
        Test("tests/engine/test_engine.py::test_rollback_only_leaves_no_other_end"),
    ),
    single(
        "COMMIT_ASKED_TOO_LATE",
        "R16: a commit is begun that was asked for after the transaction's time",
        "coordinator/protocol/transaction.py",
        "        if now_s >= self.deadline_s:\n            return self._roll_back(",
        "        if now_s < 0:\n            return self._roll_back(",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[time]"),
    ),
    single(
        "MIXED_WORK_ENLISTED",
        "R13: one branch has operations that travel in Prepare, and work that was done before it",
        "coordinator/protocol/branches.py",
        "        if (branch.carried or carried) and (branch.embedded or embedded):\n",
        "        if carried < 0 and (branch.embedded or embedded):\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[interactive]"),
    ),
    single(
        "ENLISTED_TOO_LATE",
        "R13: a branch is enlisted once the transaction is not ACTIVE any more",
        "coordinator/protocol/transaction.py",
        "    def _on_enlist(self, event: events.Enlist) -> Step:\n"
        "        if self.phase is not ACTIVE:\n"
        "            return Step(refusal=Refusal.NOT_ACTIVE)\n",
        "    def _on_enlist(self, event: events.Enlist) -> Step:\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[rollback]"),
    ),
)
