from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.protocol.heuristics import XA_CODE_OF, merge, of_ack
from participant_sdk.xa import AckKind, Decision, Heuristic, XaCode

ENDS = st.lists(st.sampled_from([None, *Heuristic]), max_size=5)


@pytest.mark.parametrize(
    ("decision", "ends", "merged"),
    [
        (Decision.COMMIT, [], None),
        (Decision.COMMIT, [None, None], None),
        (Decision.COMMIT, [Heuristic.COMMIT, None], Heuristic.COMMIT),
        (Decision.COMMIT, [Heuristic.ROLLBACK], Heuristic.ROLLBACK),
        (Decision.COMMIT, [Heuristic.ROLLBACK, None], Heuristic.MIXED),
        (Decision.ROLLBACK, [Heuristic.ROLLBACK, None], Heuristic.ROLLBACK),
        (Decision.ROLLBACK, [Heuristic.COMMIT, None], Heuristic.MIXED),
        (Decision.COMMIT, [Heuristic.HAZARD, None], Heuristic.HAZARD),
        (Decision.COMMIT, [Heuristic.HAZARD, Heuristic.ROLLBACK, None], Heuristic.MIXED),
        (Decision.COMMIT, [Heuristic.MIXED, Heuristic.HAZARD], Heuristic.MIXED),
    ],
)
def test_ends_add_up_as_xa_says(decision: Decision, ends: list[Heuristic | None], merged: Heuristic | None) -> None:
    assert merge(decision, ends) is merged


@given(ENDS, st.sampled_from(list(Decision)))
def test_the_sum_is_a_function_of_the_set(ends: list[Heuristic | None], decision: Decision) -> None:
    assert merge(decision, ends) is merge(decision, [*reversed(ends), *ends])


def test_commit_of_an_unknown_branch_is_a_hazard_and_rollback_is_not() -> None:
    """R11."""
    assert of_ack(AckKind.UNKNOWN_XID, Decision.COMMIT) is Heuristic.HAZARD
    assert of_ack(AckKind.UNKNOWN_XID, Decision.ROLLBACK) is None
    assert of_ack(AckKind.DONE, Decision.COMMIT) is None
    assert of_ack(AckKind.HEURISTIC_MIXED, Decision.COMMIT) is Heuristic.MIXED


def test_every_heuristic_has_its_xa_code() -> None:
    assert XA_CODE_OF == {
        Heuristic.COMMIT: XaCode.HEURCOM,
        Heuristic.ROLLBACK: XaCode.HEURRB,
        Heuristic.MIXED: XaCode.HEURMIX,
        Heuristic.HAZARD: XaCode.HEURHAZ,
    }
