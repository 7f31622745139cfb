"""Mutants of the operator's hand: what may be forced, what is kept of it, and how ends add up (R11, R12, R15)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

MUTANTS: Final = (
    single(
        "FORCED_WITHOUT_A_REASON",
        "R12: a branch is forced and nobody says why",
        "coordinator/resolution.py",
        "    if not 1 <= len(reason.strip()) <= REASON_MAX_CHARS:\n",
        "    if len(reason) > REASON_MAX_CHARS:\n",
        Test("tests/engine/test_resolution.py::test_without_a_reason_or_a_known_participant_nothing_is_asked"),
    ),
    single(
        "FORCED_WITHOUT_A_REASON_THERE",
        "R12: a participant forces a branch and nobody says why",
        "participant_sdk/servicer.py",
        "            if not 1 <= len(request.reason.strip()) <= REASON_MAX_CHARS:\n",
        "            if len(request.reason) > REASON_MAX_CHARS:\n",
        Test("tests/contract/test_branch_keeping.py::test_an_operator_sees_before_he_forces_and_says_why[memory]"),
    ),
    single(
        "PREVIEW_FORCES",
        "R12: whoever only looks forces the branch",
        "participant_sdk/servicer.py",
        "            if request.preview:\n",
        "            if request.preview and not request.reason:\n",
        Test("tests/contract/test_branch_keeping.py::test_an_operator_sees_before_he_forces_and_says_why[memory]"),
    ),
    single(
        "KNOWN_DECISION_OVERRULED",
        "R12: a branch is forced though its decision is known",
        "coordinator/resolution.py",
        "        if state in (DecisionState.COMMIT, DecisionState.ROLLBACK):\n",
        "        if state is DecisionState.ROLLBACK and not xid:\n",
        Test("tests/engine/test_resolution.py::test_what_the_log_can_decide_is_not_forced"),
    ),
    single(
        "RUNNING_ONE_FORCED",
        "R12: a branch is forced of a transaction that runs",
        "coordinator/resolution.py",
        "        if running is not None:\n            raise _refuse_held(",
        "        if running is not None and running.transaction.phase in FINISHED:\n            raise _refuse_held(",
        Test("tests/engine/test_resolution.py::test_a_transaction_that_runs_is_not_forced_nor_one_that_has_ended"),
    ),
    single(
        "ANOTHERS_RUNNING_ONE_FORCED",
        "R12: a branch is forced of a transaction whose owner lives elsewhere",
        "coordinator/resolution.py",
        "owner is not None and not owner.fenced and not self._is_own(xid):\n",
        "owner is not None and owner.fenced and not self._is_own(xid):\n",
        Test("tests/engine/test_resolution.py::test_a_transaction_that_runs_is_not_forced_nor_one_that_has_ended"),
    ),
    single(
        "FORCED_WHILE_UNREAD",
        "R12: a branch is forced while the log cannot say what was decided",
        "coordinator/resolution.py",
        "        except UnavailableError as error:\n            log_id = self._engine.incarnation.log_id\n",
        "        except UnavailableError as error:\n"
        "            if error.message:\n"
        "                return\n"
        "            log_id = self._engine.incarnation.log_id\n",
        Test(
            "tests/engine/test_resolution.py::test_while_the_log_cannot_be_read_only_the_participant_itself_can_force"
        ),
    ),
    single(
        "FORCED_UNNOTED",
        "R12: a branch is forced before the operator's act and reason are in the log",
        "coordinator/resolution.py",
        "        if not is_forced:\n            await self._note_action(",
        "        if is_forced:\n            await self._note_action(",
        Test(
            "tests/engine/test_resolution.py::"
            "test_a_branch_is_forced_with_its_reason_kept_before_and_its_end_kept_after"
        ),
    ),
    single(
        "FORCED_END_NOT_KEPT",
        "R12: what was forced is reported and not in the log",
        "coordinator/resolution.py",
        "            await self._log.record_heuristics([record])\n",
        "            await self._log.record_heuristics([record][:0])\n",
        Test(
            "tests/engine/test_resolution.py::"
            "test_a_branch_is_forced_with_its_reason_kept_before_and_its_end_kept_after"
        ),
    ),
    single(
        "FORCED_TOLD_BEFORE_KEPT",
        "R12: what was forced is reported though the log did not keep it",
        "coordinator/resolution.py",
        "        except (LogUnavailableError, LogUncertainError) as error:\n"
        "            raise OutcomeUnknownError(\n"
        '                f"{participant} forced its branch',
        "        except (LogUnavailableError, LogUncertainError) as error:\n"
        "            if record:\n"
        "                return Forced(forced.branch, ack, advice.of_heuristic(xid, heuristic))\n"
        "            raise OutcomeUnknownError(\n"
        '                f"{participant} forced its branch',
        Test("tests/engine/test_resolution.py::test_a_lost_reply_is_never_success_and_the_same_again_settles_it"),
    ),
    single(
        "LOST_REPLY_IS_FORCED",
        "R12: a participant that did not answer is said to have forced its branch",
        "coordinator/resolution.py",
        "        except CallFailedError as error:\n            raise OutcomeUnknownError(\n",
        "        except CallFailedError as error:\n"
        "            if error:\n"
        "                from participant_sdk.branch import COMMITTED_BY_HAND, ROLLED_BACK_BY_HAND\n"
        "\n"
        "                is_commit = outcome is Decision.COMMIT\n"
        "                return Resolved(None, COMMITTED_BY_HAND if is_commit else ROLLED_BACK_BY_HAND)\n"
        "            raise OutcomeUnknownError(\n",
        Test("tests/engine/test_resolution.py::test_a_lost_reply_is_never_success_and_the_same_again_settles_it"),
    ),
    single(
        "ENDED_MEANWHILE_IS_FORCED",
        "R12: a branch that its decision ended meanwhile is called forced",
        "coordinator/resolution.py",
        "        if ack is None or not is_forced or heuristics.of_ack(ack.kind, Decision.ROLLBACK) is not heuristic:\n",
        "        if ack is None:\n",
        Test("tests/engine/test_resolution.py::test_a_branch_that_ends_by_itself_in_between_is_not_called_forced"),
    ),
    single(
        "FORGOTTEN_WHILE_OWED",
        "R12: a heuristic end is forgotten while the transaction's others may still end against it",
        "coordinator/resolution.py",
        "        if running is not None and running.transaction.phase not in FINISHED:\n            owed",
        "        if running is not None and running.transaction.phase in FINISHED:\n            owed",
        Test("tests/engine/test_resolution.py::test_a_heuristic_end_is_not_forgotten_while_others_are_owed"),
    ),
    single(
        "FORGOTTEN_WHILE_AWAY",
        "R12: a heuristic end is marked as forgotten that its participant has not forgotten",
        "coordinator/resolution.py",
        "        except CallFailedError as error:\n"
        "            raise UnavailableError(\n"
        '                f"{participant} cannot be told to forget',
        "        except CallFailedError as error:\n"
        "            if error:\n"
        "                return\n"
        "            raise UnavailableError(\n"
        '                f"{participant} cannot be told to forget',
        Test("tests/engine/test_resolution.py::test_nothing_is_marked_as_forgotten_while_a_participant_is_away"),
    ),
    single(
        "FORGOTTEN_LATER",
        "R12: a participant that asks to be told to forget later counts as having forgotten",
        "coordinator/resolution.py",
        "        if ack.kind is AckKind.RETRY:\n",
        "        if ack.kind is AckKind.UNKNOWN_XID:\n",
        Test(
            "tests/engine/test_resolution.py::"
            "test_nothing_is_marked_as_forgotten_while_a_participant_asks_to_be_told_later"
        ),
    ),
    single(
        "ORDINARY_ENDS_NOT_COUNTED",
        "XA: ordinary ends do not count in the sum of a transaction's ends",
        "coordinator/protocol/heuristics.py",
        "    seen = {ordinary if end is None else end for end in ends}\n",
        "    seen = {end for end in ends if end is not None} or {ordinary}\n",
        Test("tests/protocol/test_heuristics.py::test_ends_add_up_as_xa_says"),
    ),
    single(
        "HAZARD_OVER_MIXED",
        "XA: a hazard hides that branches ended both ways",
        "coordinator/protocol/heuristics.py",
        "    if Heuristic.MIXED in seen or {Heuristic.COMMIT, Heuristic.ROLLBACK} <= seen:\n",
        "    if Heuristic.HAZARD not in seen and (\n"
        "        Heuristic.MIXED in seen or {Heuristic.COMMIT, Heuristic.ROLLBACK} <= seen\n"
        "    ):\n",
        Test("tests/protocol/test_heuristics.py::test_ends_add_up_as_xa_says"),
    ),
    single(
        "END_REPORTED_AGAIN",
        "invariant 10: a heuristic end is reported again and again",
        "coordinator/heuristic_keeper.py",
        "        if key in self._told:\n            return False\n",
        "",
        Test(
            "tests/engine/test_resolution.py::test_an_end_that_was_told_when_it_was_forced_is_not_told_again_by_a_sweep"
        ),
    ),
    single(
        "COMMITTED_ONE_FORCED_BACK",
        "R12: an operator undoes what was committed",
        "participant_sdk/branch.py",
        "    (_P.COMMITTED, _C.RESOLVE_ROLLBACK): Transition(_P.COMMITTED, COMMITTED_BY_HAND),\n",
        "    (_P.COMMITTED, _C.RESOLVE_ROLLBACK): Transition(_P.ROLLED_BACK, ROLLED_BACK_BY_HAND),\n",
        Test("tests/protocol/test_branch.py::test_an_end_stands_whatever_comes"),
    ),
    single(
        "UNKNOWN_ONE_FORCED",
        "R12: a branch is forced that the participant does not know",
        "participant_sdk/branch.py",
        "    (_P.NONE, _C.RESOLVE_COMMIT): Transition(_P.NONE, UNKNOWN_XID),\n",
        "    (_P.NONE, _C.RESOLVE_COMMIT): Transition(_P.HEURISTIC, COMMITTED_BY_HAND),\n",
        Test("tests/protocol/test_branch.py::test_only_what_voted_yes_can_be_forced"),
    ),
    single(
        "ENDED_ONE_FORCED_SQL",
        "R12: an operator changes what was decided (reservation)",
        "participant_sdk/resources/reservation_migrations/0003_single_branches.sql",
        "    if was is distinct from 2 then\n",
        "    if was is null then\n",
        Test("tests/contract/test_branch_keeping.py::test_no_hand_changes_what_was_decided[reservation-3]"),
    ),
    single(
        "FORCED_THE_OTHER_WAY_SQL",
        "R12: what is forced to commit is undone (reservation)",
        "participant_sdk/resources/reservation_migrations/0003_single_branches.sql",
        "        perform apply_operations(array[number], '{}', '{}', '[]');\n",
        "        perform apply_operations('{}', array[number] || '{}', '{}', '[]');\n",
        Test(
            "tests/contract/test_branch_table.py::test_each_branch_takes_effect_once_and_only_if_committed[reservation]"
        ),
        Test("tests/contract/test_branch_keeping.py"),
    ),
    single(
        "FORCED_COMMIT_FREES_ITS_REQUEST_SQL",
        "R3: a request whose branch was forced to commit runs again (reservation)",
        "participant_sdk/resources/reservation_migrations/0006_forced_branches.sql",
        "(case heuristic when 2 then null else request_id end)",
        "(case phase when 5 then null else request_id end)",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_what_is_forced_to_rollback_frees_its_request_and_what_is_forced_to_commit_does_not[reservation]"
        ),
    ),
    Mutant(
        "FORCED_COMMIT_FREES_ITS_REQUEST_XA_SQL",
        "R3: a request whose branch was forced to commit runs again (XA)",
        (
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
                "o.request_id <> '' and (o.phase in (1, 3) or o.heuristic = 1)\n",
                "o.request_id <> '' and o.phase in (1, 3)\n",
            ),
            Patch(
                "participant_sdk/resources/postgres_xa_migrations/0008_less_for_each_branch.sql",
                "    where request_id <> '' and (phase in (1, 3) or heuristic = 1);\n",
                "    where request_id <> '' and phase in (1, 3);\n",
            ),
        ),
        (
            Test(
                "tests/contract/test_branch_keeping.py::"
                "test_what_is_forced_to_rollback_frees_its_request_and_what_is_forced_to_commit_does_not[postgres_xa]"
            ),
        ),
    ),
    single(
        "LATE_COMMIT_UNCOUNTED",
        "R15: a Commit that is acknowledged after the forced branch was forgotten leaves no watermark (in memory)",
        "participant_sdk/resources/memory.py",
        "        self._count_late(key, commit)\n",
        "",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_a_commit_that_comes_after_the_forced_one_was_forgotten_is_counted[memory]"
        ),
    ),
    single(
        "LATE_COMMIT_UNCOUNTED_SQL",
        "R15: a Commit that is acknowledged after the forced branch was forgotten leaves no watermark (reservation)",
        "participant_sdk/resources/reservation_migrations/0011_one_function.sql",
        "            perform pincex.count_late_commits(\n"
        "                log_number, worker_number, commit_xids, commit_incarnations, commit_sequences\n"
        "            );\n",
        "",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_a_commit_that_comes_after_the_forced_one_was_forgotten_is_counted[reservation]"
        ),
    ),
    single(
        "LATE_COMMIT_UNCOUNTED_XA_SQL",
        "R15: a Commit that is acknowledged after the forced branch was forgotten leaves no watermark (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0007_found_by_xid.sql",
        "= any (held) or u.xid = any (committed)\n",
        "= any (held)\n",
        Test(
            "tests/contract/test_branch_keeping.py::"
            "test_a_commit_that_comes_after_the_forced_one_was_forgotten_is_counted[postgres_xa]"
        ),
    ),
    single(
        "FORCED_WITHOUT_INTENT",
        "R12: one that is lost after it forced a branch leaves it as if it had been decided (XA)",
        "participant_sdk/resources/postgres_xa.py",
        "        await self._rows.intend(log_id, xid, heuristic, reason)\n",
        "",
        Test(
            "tests/integration/test_postgres_xa_faults.py::"
            "test_what_was_forced_is_a_heuristic_though_the_session_was_lost_before_it_was_written"
        ),
    ),
    single(
        "DECIDED_CALLED_FORCED_SQL",
        "R12: a branch that its decision ended is called forced, because somebody was about to (XA)",
        "participant_sdk/resources/postgres_xa_migrations/0006_forcing.sql",
        "            and (f.heuristic = 2 or not exists (\n",
        "            and (true or not exists (\n",
        Test(
            "tests/integration/test_postgres_xa_faults.py::"
            "test_what_was_about_to_be_forced_and_was_decided_is_no_heuristic"
        ),
    ),
    Mutant(
        "LOST_BRANCH_IS_NOBODYS_ALARM",
        "R11: neither the participant nor the coordinator minds that a branch with COMMIT is gone",
        (
            Patch(
                "participant_sdk/branch.py",
                "    (_P.NONE, _C.COMMIT): Transition(_P.NONE, HAZARD),\n",
                "    (_P.NONE, _C.COMMIT): Transition(_P.NONE, UNKNOWN_XID),\n",
            ),
            Patch(
                "coordinator/protocol/heuristics.py",
                "    if kind is AckKind.UNKNOWN_XID and decision is Decision.COMMIT:\n",
                "    if kind is AckKind.UNKNOWN_XID and decision is None:\n",
            ),
        ),
        (Test("tests/engine/test_redriving.py::test_a_branch_that_its_participant_lost_is_a_hazard_and_no_success"),),
    ),
)
