"""Mutants of what a request_id is bound to, and what its client is told (R3, R5, R19)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Seeds, Test, single

MUTANTS: Final = (
    single(
        "BINDING_NOT_RECORDED",
        "R3: a business no is told and not bound",
        "coordinator/protocol/transaction.py",
        "        record = self._bind() if binds and (self.request is not None or bare) else None\n",
        "        record = self._bind() if binds and bare else None\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[request_id]"),
        Seeds(1, 40),
    ),
    single(
        "BINDING_TOLD_EARLY",
        "R3: a business no is told before its binding is durable",
        "coordinator/protocol/transaction.py",
        "        self.answer.log_owes += 1\n        return DecisionRecord(\n",
        "        return DecisionRecord(\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[request_id]"),
        Seeds(1, 40),
    ),
    single(
        "TRANSIENT_NO_BINDS",
        "R3: a transient no binds the request_id",
        "coordinator/protocol/transaction.py",
        "binds=vote.is_business_no)\n",
        "binds=True)\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[heuristics]"),
    ),
    single(
        "RETRY_BINDS",
        "R3: a transient rollback is told for good",
        "coordinator/protocol/transaction.py",
        "        self._retry = not binds\n",
        "        self._retry = False\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[heuristics]"),
        Seeds(1, 40),
    ),
    single(
        "RETRY_WITHOUT_LOOKUP",
        "R3: a client is told to send again without a look at the log",
        "coordinator/protocol/transaction.py",
        "        if self.request is None or binds:\n",
        "        if self.request is None or binds is not None:\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[request_id]"),
        Seeds(1, 40),
    ),
    single(
        "LATE_NO_IS_LOST",
        "R3: a business no that comes after a transient one does not outweigh it",
        "coordinator/protocol/transaction.py",
        "        if vote.is_business_no and self._retry and not self.answer.given:\n",
        "        if vote.is_business_no and self._retry and self.answer.given:\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[rollback]"),
    ),
    single(
        "OTHER_BODY_ACCEPTED",
        "R3: a request_id that is bound answers other operations too",
        "coordinator/protocol/transaction.py",
        "        if self.digest and stored.record.digest and self.digest != stored.record.digest:\n",
        "        if not self.xid:\n",
        Test("tests/protocol/test_transcripts.py::test_transcript_is_what_the_core_does[request_id]"),
    ),
    single(
        "TWIN_OF_ANOTHER_BODY",
        "R3: a request in flight is joined by another with other operations",
        "coordinator/intents.py",
        "        if twin.transaction.digest == digest:\n",
        "        if twin.transaction.digest:\n",
        Test("tests/engine/test_engine.py::test_the_same_request_id_with_other_operations_is_an_error"),
    ),
    single(
        "STOPPED_TELLS_ROLLED_BACK",
        "R5: a coordinator that stops tells those who wait that they were rolled back",
        "coordinator/engine.py",
        '                running.end(OutcomeUnknownError(f"transaction {xid}: {why}; ask again, any'
        ' coordinator knows", xid=xid))\n',
        "                running.end(Ended(Outcome(xid, Decision.ROLLBACK, Phase.ROLLED_BACK), 0.0))\n",
        Test("tests/engine/test_engine.py::test_a_stopped_engine_tells_nobody_that_a_transaction_was_rolled_back"),
        Seeds(1, 40),
    ),
    single(
        "CLOSED_FOR_ONE_BODY",
        "R3: an intent is closed for one body only, and another one is told that it was reused",
        "coordinator/engine.py",
        "        running.transaction.request = RequestId(tenant, request_id)\n",
        "        running.transaction.request = RequestId(tenant, request_id)\n"
        "        running.transaction.digest = bytes(32)\n",
        Test("tests/engine/test_engine.py::test_closing_an_intent_that_committed_tells_so"),
        Seeds(1, 40),
    ),
    single(
        "RESULTS_NOT_STORED",
        "R3: what the votes returned is not stored with the decision, so the same request is told less",
        "coordinator/protocol/transaction.py",
        "        results = encode_votes(self.branches.values())\n",
        '        results = ""\n',
        Test("tests/protocol/test_transaction.py::test_what_the_votes_returned_is_stored_with_the_decision"),
    ),
    single(
        "LOSER_BINDS_TOO",
        "R3: a transaction whose request is another's writes a row that binds it once more",
        "coordinator/log/group_commit.py",
        "    return DecisionRecord(record.xid, Decision.ROLLBACK, record.prepared, reason=reason)\n",
        "    return DecisionRecord(record.xid, Decision.ROLLBACK, record.prepared, record.request, reason=reason)\n",
        Test(
            "tests/log/test_group_commit.py::"
            "test_a_bound_request_answers_with_the_stored_row_after_the_own_rollback_is_durable"
        ),
    ),
    single(
        "BOUND_ROW_TOLD_UNCONFIRMED",
        "R7: what a request is bound to is told before a later write was confirmed",
        "coordinator/log/group_commit.py",
        "            self._appends.confirm(lambda: self._on_looked_up([*bound]))\n",
        "            self._on_looked_up([*bound])\n",
        Test("tests/log/test_group_commit.py::test_a_bound_request_is_told_only_after_a_later_write"),
    ),
    single(
        "OWN_ROW_TOLD_UNCONFIRMED",
        "R7: a row of one's own that was met is told before a later write was confirmed",
        "coordinator/log/group_commit.py",
        "            self._appends.confirm(lambda: self._on_recorded(met))\n",
        "            self._on_recorded(met)\n",
        Test("tests/log/test_group_commit.py::test_an_own_row_that_was_met_is_told_only_after_a_later_write"),
    ),
    single(
        "REQUEST_NOT_CARRIED",
        "R3: Prepare does not say which request its branch is of",
        "participant_sdk/wire.py",
        "        request.request_id,\n        request.request_digest,\n",
        '        "",\n        b"",\n',
        Test("tests/sdk/test_wire.py::test_a_branch_survives"),
    ),
    single(
        "NUMBERS_ROUNDED",
        "R3: requests whose numbers differ beyond a float's digits are one",
        "coordinator/canonical.py",
        '    return "\\x00" + exact_json.canonical(',
        '    return "\\x00" + (lambda number: repr(float(number)))(',
        Test("tests/test_canonical.py::test_every_digit_of_a_number_counts"),
    ),
    single(
        "STATUS_IS_AN_OUTCOME",
        "R19: a client takes a status of gRPC for an outcome",
        "participant_sdk/intents.py",
        "                case Failed():\n                    pause_s",
        "                case Failed() if not answer.nothing_begun and error_of(answer) is None:\n"
        "                    from uuid import UUID\n"
        "\n"
        "                    from participant_sdk.ids import Xid\n"
        "\n"
        "                    xid = Xid.parse(answer.xid or str(UUID(int=8 << 76 | 2 << 62)))\n"
        "                    return RolledBack(xid, answer.reason, answer.message, intent.request_id)\n"
        "                case Failed():\n"
        "                    pause_s",
        Test("tests/sdk/test_client_settling.py::test_no_status_is_an_outcome"),
    ),
)
