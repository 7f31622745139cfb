"""All checks, each with its rule, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from participant_sdk.conformance import (
    end_checks,
    hand_checks,
    hello_checks,
    horizon_checks,
    input_checks,
    recovery_checks,
    session_checks,
    vote_checks,
    work_checks,
)
from participant_sdk.conformance.bench import Bench
from participant_sdk.conformance.doubt_checks import DoubtChecks
from participant_sdk.conformance.restart_checks import RestartChecks

UNARY: Final = "unary"
SESSION: Final = "session"

_BOTH: Final = (UNARY, SESSION)
_UNARY: Final = (UNARY,)
_SESSION: Final = (SESSION,)


class Check(NamedTuple):
    """One check of one rule; its docstring says what the rule wants. ``over`` are the ways of calling it is made by."""

    rule: str
    run: Callable[[Bench], Awaitable[None]]
    over: tuple[str, ...] = _BOTH

    @property
    def name(self) -> str:
        """The check's name as words."""
        return self.run.__name__.replace("_", " ")

    @property
    def wants(self) -> str:
        """What the rule wants, in a sentence."""
        return " ".join((self.run.__doc__ or "").split())


def checks() -> tuple[Check, ...]:
    """Make the checks of one run."""
    doubts, restarts = DoubtChecks(), RestartChecks()
    return (
        *_introductions(),
        *_votes(),
        *_endings(),
        *_recoveries(),
        *_inputs(),
        Check("R12", doubts.in_doubt_it_asks_and_follows_commit, _UNARY),
        Check("R12", doubts.in_doubt_it_asks_and_follows_rollback, _UNARY),
        Check("R12", doubts.in_doubt_it_stays_when_the_log_forgot, _UNARY),
        Check("R15", doubts.an_inquiry_says_who_asks_and_what, _UNARY),
        Check("R15", doubts.in_doubt_it_does_not_follow_an_older_epoch, _UNARY),
        Check("R12", doubts.in_doubt_it_waits_while_nothing_is_decided, _UNARY),
        Check("R12", doubts.in_doubt_it_asks_on_after_errors, _UNARY),
        Check("R15", restarts.the_epoch_survives_a_kill, _UNARY),
        Check("R8", restarts.votes_survive_a_kill, _UNARY),
        Check("R8", restarts.noes_survive_a_kill, _UNARY),
        Check("R9", restarts.acknowledgements_survive_a_kill, _UNARY),
        Check("R10", restarts.tombstones_survive_a_kill, _UNARY),
        Check("R12", restarts.an_operators_hand_survives_a_kill, _UNARY),
        Check("R15", restarts.watermarks_survive_a_kill, _UNARY),
        Check("R15", hello_checks.a_lower_epoch_is_refused),
        Check("R2", vote_checks.every_answer_is_a_word_of_the_contract),
    )


def _introductions() -> tuple[Check, ...]:
    return (
        Check("R15", hello_checks.a_hello_is_welcomed, _UNARY),
        Check("R10", hello_checks.clocks_apart_are_refused, _UNARY),
        Check("R15", hello_checks.an_implausible_epoch_is_refused, _UNARY),
        Check("R15", hello_checks.watermarks_are_the_highest_of_each_incarnation),
        Check("R15", hello_checks.watermarks_keep_step_with_commits),
    )


def _votes() -> tuple[Check, ...]:
    return (
        Check("R8", vote_checks.a_yes_is_prepared_and_shown),
        Check("R3", vote_checks.a_no_is_rolled_back_with_its_reason),
        Check("R19", vote_checks.no_status_tells_a_vote, _UNARY),
        Check("R3", vote_checks.invalid_parameters_are_named),
        Check("R3", vote_checks.an_unknown_operation_is_a_no),
        Check("R17", vote_checks.malformed_parameters_are_a_no),
        Check("R8", vote_checks.a_duplicate_gets_the_stored_vote),
        Check("R10", vote_checks.prepares_at_once_get_one_vote, _UNARY),
        Check("R13", vote_checks.a_read_votes_read_only),
        Check("R10", vote_checks.a_late_prepare_meets_the_tombstone),
        Check("R10", vote_checks.an_old_xid_is_refused),
        Check("R16", vote_checks.time_counts_from_arrival),
        Check("R16", vote_checks.no_time_left_is_no_yes),
        Check("R16", vote_checks.no_yes_leaves_after_the_deadline),
        Check("R3", vote_checks.another_live_branch_of_a_request_is_transient),
        Check("R17", vote_checks.one_bad_branch_fails_nothing_else),
        Check("R13", work_checks.work_that_was_never_done_is_xaer_nota),
        Check("R13", work_checks.no_work_at_all_is_a_no),
        Check("R13", work_checks.work_done_is_prepared_and_committed),
        Check("R13", work_checks.another_count_or_number_is_xaer_nota),
        Check("R13", work_checks.work_ends_with_its_deadline, _UNARY),
    )


def _endings() -> tuple[Check, ...]:
    return (
        Check("R11", end_checks.commit_of_an_unknown_branch_is_a_hazard),
        Check("R9", end_checks.a_commit_takes_effect),
        Check("R10", end_checks.a_commit_takes_effect_once),
        Check("R10", end_checks.commits_at_once_take_effect_once, _UNARY),
        Check("R9", end_checks.a_rollback_takes_no_effect),
        Check("R10", end_checks.calls_in_any_order_follow_the_table),
        Check("R17", session_checks.a_frame_may_carry_all_parts, _SESSION),
        Check("R17", session_checks.a_large_frame_is_answered, _SESSION),
        Check("R17", session_checks.a_bad_field_is_its_own_branchs_no, _SESSION),
        Check("R17", session_checks.a_bad_frame_ends_its_session_alone, _SESSION),
        Check("R15", session_checks.a_hello_is_answered_again, _SESSION),
        Check("R18", session_checks.a_session_is_of_one_log, _SESSION),
    )


def _recoveries() -> tuple[Check, ...]:
    return (
        Check("R15", recovery_checks.recovery_lists_what_is_in_doubt),
        Check("R18", recovery_checks.a_log_is_shown_its_own_branches),
        Check("R18", recovery_checks.one_xid_under_two_logs_is_two_branches),
        Check("R15", recovery_checks.finished_branches_are_listed_above_the_sequences),
        Check("R11", recovery_checks.an_unknown_branch_is_shown_as_unknown, _UNARY),
        Check("R12", hand_checks.a_forced_branch_is_shown_with_its_reason, _UNARY),
        Check("R12", hand_checks.a_forced_branch_is_told_until_it_is_forgotten),
        Check("R12", hand_checks.a_hand_needs_a_reason, _UNARY),
        Check("R12", hand_checks.a_known_end_is_not_forced, _UNARY),
        Check("R12", hand_checks.what_is_in_doubt_is_not_forgotten, _UNARY),
        Check("R14", horizon_checks.a_young_horizon_is_not_believed, _UNARY),
        Check("R14", horizon_checks.only_what_ended_below_the_horizon_is_dropped, _UNARY),
    )


def _inputs() -> tuple[Check, ...]:
    return (
        Check("R17", input_checks.a_prepare_with_a_bad_field_is_refused, _UNARY),
        Check("R17", input_checks.an_ending_with_a_bad_field_is_refused, _UNARY),
        Check("R17", input_checks.a_question_with_a_bad_field_is_refused, _UNARY),
        Check("R17", input_checks.the_largest_prepare_is_answered, _UNARY),
        Check("R17", input_checks.bytes_that_are_no_message_do_no_harm, _UNARY),
    )
