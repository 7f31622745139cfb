"""Mutants of what is owed after the decision, and when it counts as done (R9, R11, R12, R14, R16)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Seeds, Test, single

MUTANTS: Final = (
    single(
        "UNKNOWN_ACK_IS_DONE",
        "R9: an acknowledgement of an unknown kind counts as done",
        "participant_sdk/wire.py",
        'return Ack(AckKind.RETRY, XaCode.RETRY, f"an acknowledgement of an unknown kind',
        'return Ack(AckKind.DONE, XaCode.OK, f"an acknowledgement of an unknown kind',
        Test("tests/sdk/test_nonsense.py::test_unknown_votes_and_acknowledgements_promise_nothing"),
    ),
    single(
        "FAILED_CALL_IS_DONE",
        "R19: a Commit that ended in a status of gRPC counts as done",
        "participant_sdk/unary_stream.py",
        "        return _retry(str(error))\n",
        "        return Ack(AckKind.DONE, XaCode.OK)\n",
        Test("tests/sdk/test_unary_participants.py::test_a_failed_call_is_no_outcome"),
    ),
    single(
        "FINISHED_EARLY",
        "R14: a decision counts as finished before every branch acknowledged",
        "coordinator/protocol/transaction.py",
        "        finished = all_done and self.answer.is_free()\n",
        "        finished = self.answer.is_free() and self.answer.given\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
        Seeds(1, 40),
    ),
    single(
        "RETRY_COUNTS_AS_DONE",
        "R9: an acknowledgement of RETRY ends the branch",
        "coordinator/protocol/branches.py",
        "        if ack.kind is _RETRY:\n            return False\n",
        "",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[time]"),
        Seeds(1, 40),
    ),
    single(
        "UNKNOWN_BRANCH_IS_DONE",
        "R11: Commit of a branch that the participant does not know counts as done",
        "coordinator/protocol/heuristics.py",
        "    if kind is AckKind.UNKNOWN_XID and decision is Decision.COMMIT:\n",
        "    if kind is AckKind.UNKNOWN_XID and decision is None:\n",
        Test("tests/protocol/test_heuristics.py::test_commit_of_an_unknown_branch_is_a_hazard_and_rollback_is_not"),
    ),
    single(
        "HEURISTIC_TOLD_EARLY",
        "R12: a heuristic end is told before it is stored",
        "coordinator/protocol/answer.py",
        "        return not self.log_owes and not self.heuristics_owed\n",
        "        return not self.log_owes\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[heuristics]"),
    ),
    single(
        "RETRY_WITHOUT_A_CAP",
        "invariant 12: the waits between tries grow without a cap",
        "coordinator/protocol/timing.py",
        "        return min(self.retry_max_s, self.retry_initial_s * 2.0 ** min(attempts, 30)) * _SPREAD[",
        "        return self.retry_initial_s * 2.0 ** min(attempts, 30) * _SPREAD[",
        Test("tests/protocol/test_timing.py::test_waits_grow_to_their_cap_and_no_further"),
    ),
    single(
        "RETRY_WITHOUT_A_PAUSE",
        "invariant 12: what is owed is told again and again without a pause",
        "coordinator/protocol/resends.py",
        "        self.at_s = now_s + self._timing.backoff_s(self.attempts, self._xid)\n",
        "        self.at_s = now_s\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[commit]"),
    ),
    single(
        "QUEUES_WITHOUT_A_BOUND",
        "invariant 12: a queue takes whatever comes",
        "participant_sdk/batching.py",
        "        elif len(self._queue) >= self._bound:\n",
        "        elif len(self._queue) < 0:\n",
        Test("tests/sdk/test_workers.py::test_a_full_queue_is_said_at_once_and_promises_nothing"),
    ),
    single(
        "EVERYBODY_LET_IN",
        "invariant 12: more transactions are let in than are allowed",
        "coordinator/admission.py",
        "        if self.inside >= self._limits.max_concurrent_txns or unfinished >= self._limits.max_unfinished:\n",
        "        if self.inside < 0:\n",
        Test("tests/engine/test_engine.py::test_more_than_allowed_in_flight_is_refused_with_a_time_to_come_again"),
    ),
    single(
        "LET_IN_DURING_HOLD",
        "R15: new transactions begin in HOLD",
        "coordinator/admission.py",
        "        if self._held is not None:\n",
        "        if self._held is not None and not unfinished + 1:\n",
        Test("tests/engine/test_hold.py::test_in_hold_nothing_is_presumed_and_nothing_begins"),
    ),
    single(
        "STOPPED_ONE_BEGINS",
        "invariant 7: a coordinator whose incarnation has ended begins transactions",
        "coordinator/admission.py",
        "        if self._stopped is not None:\n",
        "        if self._stopped is not None and not unfinished + 1:\n",
        Test("tests/engine/test_engine.py::test_a_stopped_engine_tells_nobody_that_a_transaction_was_rolled_back"),
        Test("tests/engine/test_engine.py"),
    ),
    single(
        "GIVES_UP",
        "R12: past its attempts a decided transaction is not told any more",
        "coordinator/protocol/transaction.py",
        "        return self._settle(now_s, messages=self._owed_messages(_TELLING[self.phase]), attention=attention)\n",
        "        messages = self._owed_messages(_TELLING[self.phase])\n"
        "        if self.resends.attempts > self._timing.attempts_max:\n"
        "            messages = ()\n"
        "        return self._settle(now_s, messages=messages, attention=attention)\n",
        Test(
            "tests/protocol/test_transaction.py::"
            "test_after_so_many_repetitions_it_asks_for_attention_once_and_goes_on_slowly"
        ),
    ),
    single(
        "CANCELLATION_STOPS",
        "R16: a caller that gives up takes its transaction along",
        "coordinator/engine.py",
        "        self.submit(call, told)\n        return future\n",
        "        before = set(self._running)\n"
        "        self.submit(call, told)\n"
        "        begun = [xid for xid in self._running if xid not in before]\n"
        "        future.add_done_callback(lambda end: [self._running.pop(xid, None) for xid in begun]"
        " if end.cancelled() else None)\n"
        "        return future\n",
        Test("tests/engine/test_engine.py::test_a_caller_that_gives_up_does_not_stop_phase_two"),
    ),
)
