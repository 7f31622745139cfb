"""Mutants of what no record means, who may say so, and who is believed (R7, R12, R15, R18)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds, Test, single

MUTANTS: Final = (
    single(
        "ROLLBACK_WHILE_LIVE",
        "R7: an inquiry answers ROLLBACK while the incarnation lives",
        "coordinator/log/inquiry.py",
        "    if not ended:\n        return DecisionState.PENDING\n",
        "    if not ended:\n        return DecisionState.ROLLBACK\n",
        Test("tests/log/test_inquiry.py::test_no_row_means_rollback_only_when_fenced_young_and_not_held"),
        Seeds(1, 40),
    ),
    single(
        "NO_RECORD_IS_COMMIT",
        "R7: no record is taken as COMMIT",
        "coordinator/log/inquiry.py",
        "    return DecisionState.PENDING if snapshot.held else DecisionState.ROLLBACK\n",
        "    return DecisionState.PENDING if snapshot.held else DecisionState.COMMIT\n",
        Test("tests/log/test_inquiry.py::test_no_row_means_rollback_only_when_fenced_young_and_not_held"),
        Seeds(1, 40),
    ),
    single(
        "PRESUMED_IN_HOLD",
        "R15: ROLLBACK is presumed in HOLD",
        "coordinator/log/inquiry.py",
        "    return DecisionState.PENDING if snapshot.held else DecisionState.ROLLBACK\n",
        "    return DecisionState.ROLLBACK\n",
        Test("tests/log/test_inquiry.py::test_no_row_means_rollback_only_when_fenced_young_and_not_held"),
    ),
    single(
        "FORGOTTEN_IS_ROLLBACK",
        "R7: an xid below the pruning horizon is presumed ROLLBACK",
        "coordinator/log/inquiry.py",
        "    if forgettable:\n        return DecisionState.FORGOTTEN\n    return",
        "    return",
        Test("tests/log/test_inquiry.py::test_no_row_means_rollback_only_when_fenced_young_and_not_held"),
    ),
    single(
        "PRESUMED_BEFORE_REPORTS",
        "R15: ROLLBACK is presumed before the participants reported",
        "coordinator/log/inquiry.py",
        "    if state is DecisionState.ROLLBACK and unreported:\n",
        "    if state is None:\n",
        Test("tests/log/test_inquiry.py::test_rollback_is_not_presumed_before_every_participant_has_reported"),
    ),
    single(
        "TOLD_BEFORE_CONFIRMED",
        "R7: an answer is given before a later write was confirmed",
        "coordinator/log/appends.py",
        "        self._unconfirmed.append(then)\n        self._wake.set()\n",
        "        then()\n",
        Test("tests/log/test_inquiry.py::test_an_answer_that_ends_a_doubt_waits_for_a_write_that_began_after_the_read"),
    ),
    single(
        "CONFIRMED_BY_AN_EARLIER_WRITE",
        "R7: an answer is given once a write is confirmed that began before the read",
        "coordinator/log/appends.py",
        "        for then in confirming:\n            then()\n",
        "        for then in (*confirming, *self._unconfirmed):\n            then()\n        self._unconfirmed = []\n",
        Test("tests/log/test_inquiry.py::test_an_answer_that_ends_a_doubt_waits_for_a_write_that_began_after_the_read"),
    ),
    single(
        "ANOTHER_GENERATIONS_ANSWER",
        "R15: an answer is given that a write to another log confirmed",
        "coordinator/log/group_commit.py",
        "        is_same = generation == self._reported.generation\n        for item, answer in answers:\n",
        "        is_same = True\n        for item, answer in answers:\n",
        Test("tests/log/test_inquiry.py::test_an_answer_that_a_new_connection_confirms_is_asked_for_again"),
    ),
    single(
        "REPORTS_OF_ANOTHER_GENERATION",
        "R15: a snapshot is judged by reports about another log",
        "coordinator/log/group_commit.py",
        "            unreported = missing if is_same else item.participants or self._reported.participants\n",
        "            unreported = missing\n",
        Test("tests/log/test_inquiry.py::test_a_snapshot_of_an_earlier_connection_is_not_judged_by_later_reports"),
    ),
    single(
        "FAILED_READ_IS_AN_ANSWER",
        "R7: a read that failed answers like one that found nothing",
        "coordinator/log/group_commit.py",
        "        except LogUnavailableError as error:\n"
        "            for item in items:\n"
        "                if not item.answer.done():\n"
        "                    item.answer.set_exception(LogUnavailableError(str(error)))\n"
        "            return\n",
        "        except LogUnavailableError:\n"
        "            from coordinator.log.decision_log import Snapshot\n"
        "\n"
        "            snapshot = Snapshot({}, {}, 0, held=False)\n",
        Test("tests/log/test_inquiry.py::test_a_failed_read_is_no_answer"),
    ),
    single(
        "TWO_SNAPSHOTS",
        "R7: record and fence are read in two snapshots (in memory)",
        "coordinator/log/memory.py",
        '        return await self._read("read", lambda: self._store.read(xids))\n',
        '        decisions = (await self._read("read", lambda: self._store.read(xids))).decisions\n'
        '        return replace(await self._read("read", lambda: self._store.read(xids)),'
        " decisions=decisions)\n",
        Test("tests/log/test_snapshots.py::test_record_and_fence_are_of_one_moment"),
    ),
    Mutant(
        "TWO_SNAPSHOTS_SQL",
        "R7: record and fence are read in two snapshots",
        (
            Patch(
                "coordinator/log/postgres.py",
                "        incarnations = [xid.incarnation for xid in xids]\n        rows =",
                "        incarnations = [xid.incarnation for xid in xids]\n"
                "        listed = {stored.record.xid: stored for stored in await self.list_decisions(None,"
                " 1000)}\n"
                "        rows =",
            ),
            Patch(
                "coordinator/log/postgres.py",
                "            {stored.record.xid: stored for stored in decisions},\n",
                "            {xid: listed[xid] for xid in xids if xid in listed},\n",
            ),
            Patch(
                "coordinator/log/postgres.py",
                "        decisions = (stored_decision(row[7:]) for row in rows if row[7] is not None)\n",
                "",
            ),
        ),
        (Test("tests/integration/test_postgres_log_snapshot.py::test_record_and_fence_are_of_one_moment"),),
    ),
    single(
        "OWN_XID_LEFT_PENDING",
        "R7: a live owner asked about an xid of its own without a trace never decides it",
        "coordinator/inquiries.py",
        "        if answer.state is not DecisionState.PENDING or answer.held or xid.incarnation != own.number:\n",
        "        if xid:\n",
        Test("tests/engine/test_resolution.py::test_of_our_own_without_a_trace_the_log_is_told_first"),
    ),
    single(
        "OTHER_LOGS_XID_ANSWERED",
        "R18: an inquiry about another log's transaction is answered",
        "coordinator/api/grpc_transaction.py",
        '            if request.log_id not in {"", log_id}:\n',
        "            if not log_id:\n",
        Test("tests/api/test_interactive.py::test_a_participant_in_doubt_is_answered_by_its_own_log_alone"),
    ),
    single(
        "DECIDES_ALONE",
        "R12: a branch in doubt rolls itself back",
        "participant_sdk/inquiry.py",
        "                # The owner lives and has not decided: the others would say the same.\n"
        "                return None\n",
        "                return DecisionAnswer(DecisionState.ROLLBACK, epoch=answer.epoch)\n",
        Test("tests/sdk/test_inquiry_pending.py::test_an_owner_that_has_not_decided_is_asked_again_and_again"),
        Seeds(1, 40),
    ),
    single(
        "COMMITS_ALONE",
        "R12: a branch in doubt commits itself",
        "participant_sdk/inquiry.py",
        "                # The owner lives and has not decided: the others would say the same.\n"
        "                return None\n",
        "                return DecisionAnswer(DecisionState.COMMIT, doubt.branch.xid.incarnation, 1,"
        " epoch=answer.epoch)\n",
        Test("tests/sdk/test_inquiry_pending.py::test_an_owner_that_has_not_decided_is_asked_again_and_again"),
        Seeds(1, 40),
    ),
    single(
        "NO_ANSWER_IS_ROLLBACK",
        "R12: a branch in doubt that nobody answers rolls itself back",
        "participant_sdk/inquiry.py",
        "            # Without an owner it is this coordinator that cannot say yet; another one may.\n"
        "        return None\n",
        "            # Without an owner it is this coordinator that cannot say yet; another one may.\n"
        "        return DecisionAnswer(DecisionState.ROLLBACK)\n",
        Test("tests/sdk/test_inquiry.py::test_each_coordinator_of_the_latest_introduction_is_asked_in_turn"),
        Seeds(1, 40),
    ),
    single(
        "FORGOTTEN_ROLLS_BACK",
        "R7: a branch whose transaction is forgotten rolls itself back",
        "participant_sdk/inquiry.py",
        "            case DecisionState.ROLLBACK:\n",
        "            case DecisionState.ROLLBACK | DecisionState.FORGOTTEN:\n",
        Test("tests/sdk/test_inquiry.py::test_a_forgotten_transaction_is_an_alert_and_left_alone"),
    ),
    single(
        "NEVER_ASKS",
        "R12: a branch in doubt does not ask",
        "participant_sdk/inquiry.py",
        "                if now_s >= doubt.ask_at_s:\n",
        "                if now_s < 0:\n",
        Test("tests/sdk/test_inquiry.py::test_commit_and_rollback_are_followed"),
    ),
    single(
        "OLDER_EPOCH_BELIEVED",
        "R15: an answer of an older epoch is believed",
        "participant_sdk/inquiry.py",
        "        if answer.epoch < held:\n",
        "        if answer.epoch < 0:\n",
        Test("tests/sdk/test_inquiry.py::test_an_answer_of_an_older_epoch_is_not_believed"),
    ),
    single(
        "OLDER_EPOCH_OBEYED",
        "R15: a coordinator of an older epoch is obeyed",
        "participant_sdk/session.py",
        "        stale = frame.epoch < await self._admit(frame.epoch)\n",
        "        stale = await self._admit(frame.epoch) < 0\n",
        Test("tests/sdk/test_sessions.py::test_a_coordinator_of_an_older_epoch_gets_retry_and_changes_nothing"),
    ),
    single(
        "EPOCH_KEPT_IN_MEMORY",
        "R15: an epoch is adopted for this life of the participant only",
        "participant_sdk/known_logs.py",
        "            adopted = await self._participant.adopt_epoch(log_id, epoch)\n",
        "            adopted = epoch\n",
        Test("tests/sdk/test_epochs_outlive.py::test_a_participant_that_restarted_still_refuses_an_older_epoch"),
    ),
    single(
        "EPOCH_GOES_BACK",
        "R15: an epoch is lowered by an older coordinator (reservation)",
        "participant_sdk/resources/reservation_migrations/0005_epochs.sql",
        "greatest(l.epoch, a_epoch)",
        "a_epoch",
        Test("tests/integration/test_reservation.py::test_an_epoch_only_rises"),
    ),
    single(
        "IMPLAUSIBLE_EPOCH_ADOPTED",
        "R15: an epoch that no log can have drawn shuts out every true coordinator",
        "participant_sdk/known_logs.py",
        "        return is_plausible(incarnation, self._clock.unix_ms())\n",
        "        return incarnation >= 0\n",
        Test(
            "tests/sdk/test_implausible.py::"
            "test_an_introduction_from_the_far_future_is_refused_and_shuts_nobody_out[epoch]"
        ),
    ),
)
