"""The workflow's journal: what may follow what, and what is undone, in every order of outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.protocol.workflow import (
    NONDETERMINISTIC,
    PAST_PIVOT,
    Bound,
    Journal,
    Over,
    Settle,
    Undo,
    WorkflowStateError,
    fold,
)
from coordinator.protocol.workflow_records import (
    FINISHED,
    MAY_FOLLOW,
    STEP_MAY_FOLLOW,
    Failure,
    Intention,
    StepKind,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    WorkflowRecord,
    request_name,
    undo_name,
)
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision

KEY = Xid.make(1_800_000_000_000, 7, 1)
RECORD = WorkflowRecord(KEY, "moves", "3", "{}", None, b"", 7, 1_800_000_060_000)
FAILED = Failure("INSUFFICIENT_FUNDS", "there is no more", "third")
LOG_SAYS = (None, Decision.COMMIT, Decision.ROLLBACK)


def intention(name: str, *, pivot: bool = False, read: bool = False, undo: bool = True) -> Intention:
    kind = StepKind.READ if read else StepKind.TRANSACTION
    return Intention(name, kind, name.encode(), "undo" if undo and not read else "", pivot)


def step(position: int, phase: StepPhase = StepPhase.ASKED, **more: bool) -> StepRecord:
    return StepRecord(position, intention(f"s{position}", **more), phase)


def compensating(*steps: StepRecord) -> Journal:
    return Journal(replace(RECORD, phase=WorkflowPhase.COMPENSATING), steps)


def test_nothing_leads_back_and_finished_is_finished() -> None:
    assert set(MAY_FOLLOW) == set(WorkflowPhase)
    assert WorkflowPhase.RUNNING not in itertools.chain.from_iterable(MAY_FOLLOW.values())
    assert all(not MAY_FOLLOW[phase] for phase in FINISHED)
    assert set(STEP_MAY_FOLLOW) == set(StepPhase)
    # What has committed can only be undone, and once.
    assert STEP_MAY_FOLLOW[StepPhase.COMMITTED] == {StepPhase.UNDOING}
    assert not STEP_MAY_FOLLOW[StepPhase.UNDONE]


@pytest.mark.parametrize(("before", "after"), list(itertools.product(WorkflowPhase, repeat=2)))
def test_only_what_may_follow_follows(before: WorkflowPhase, after: WorkflowPhase) -> None:
    journal = Journal(replace(RECORD, phase=before))
    if after in MAY_FOLLOW[before]:
        journal.move(after)
        assert journal.record.phase is after
    else:
        with pytest.raises(WorkflowStateError):
            journal.move(after)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(StepPhase, repeat=2)))
def test_only_what_may_follow_follows_at_a_step(before: StepPhase, after: StepPhase) -> None:
    journal = compensating(step(1, before))
    if after in STEP_MAY_FOLLOW[before]:
        assert journal.move_step(1, after).phase is after
        assert journal.changed == {1}
    else:
        with pytest.raises(WorkflowStateError):
            journal.move_step(1, after)


@pytest.mark.parametrize("told", list(itertools.product(LOG_SAYS, repeat=4)))
def test_the_log_is_believed_and_the_rows_are_not(told: tuple[Decision | None, ...]) -> None:
    """Every row's phase against every answer of the log, for two steps and their compensations."""
    names = [make(KEY, step(position)) for position in (1, 2) for make in (request_name, undo_name)]
    bound = {
        name: Bound(decision, Xid.make(1, 7, at + 1), "WHY")
        for at, (name, decision) in enumerate(zip(names, told, strict=True))
        if decision is not None
    }
    believed = {
        None: StepPhase.ASKED,
        Decision.ROLLBACK: StepPhase.REFUSED,
        Decision.COMMIT: StepPhase.COMMITTED,
    }
    for rows in itertools.product(StepPhase, repeat=2):
        folded = fold(RECORD, [step(2, rows[1]), step(1, rows[0])], bound)
        assert [each.position for each in folded] == [1, 2]
        for each, stored, (forward, undo) in zip(folded, rows, (told[:2], told[2:]), strict=True):
            by_hand = stored in (StepPhase.SKIPPED, StepPhase.LEFT)
            is_undone = forward is Decision.COMMIT and undo is Decision.COMMIT
            assert each.phase is (stored if by_hand else StepPhase.UNDONE if is_undone else believed[forward])


def test_what_was_read_is_what_its_row_says() -> None:
    row = replace(step(1, StepPhase.COMMITTED, read=True), results="[1]")
    assert fold(RECORD, [row], {}) == (row,)


def test_rounds_have_request_ids_of_their_own() -> None:
    again = replace(step(1), round=2, undo_round=3)
    assert request_name(KEY, step(1)) == f"{KEY}:s1"
    assert undo_name(KEY, step(1)) == f"{KEY}:s1:undo"
    assert (request_name(KEY, again), undo_name(KEY, again)) == (f"{KEY}:s1#2", f"{KEY}:s1:undo#3")


phases = st.lists(st.sampled_from(list(StepPhase)), max_size=7)


@given(phases, st.lists(st.booleans(), min_size=7, max_size=7))
def test_what_stands_is_undone_once_each_the_last_first_and_nothing_unknown_is(
    phases: list[StepPhase], undoable: list[bool]
) -> None:
    steps = [step(at, phase, undo=undoable[at - 1]) for at, phase in enumerate(phases, 1)]
    journal = compensating(*steps)
    undone: list[int] = []
    while not isinstance(todo := journal.todo(), Over):
        position = todo.step.position
        match todo:
            case Settle():
                assert not undone
                journal.move_step(position, StepPhase.COMMITTED)
            case Undo(step=standing):
                assert journal.unknown is None
                if standing.phase is StepPhase.COMMITTED:
                    journal.move_step(position, StepPhase.UNDOING)
                journal.move_step(position, StepPhase.UNDONE)
                undone.append(position)
    stood = (StepPhase.ASKED, StepPhase.COMMITTED, StepPhase.UNDOING)
    wanted = [at for at, phase in enumerate(phases, 1) if phase in stood and undoable[at - 1]]
    assert undone == sorted(wanted, reverse=True)


def test_a_step_out_of_turn_is_not_undone() -> None:
    journal = compensating(step(1, StepPhase.COMMITTED), step(2, StepPhase.COMMITTED))
    with pytest.raises(WorkflowStateError):
        journal.move_step(1, StepPhase.UNDOING)


def test_a_run_asks_for_what_is_recorded_and_then_for_more() -> None:
    journal = Journal(RECORD, (step(1, StepPhase.COMMITTED),))
    journal.begin_run()
    assert journal.ask(intention("s1"), 5) == step(1, StepPhase.COMMITTED)
    asked = journal.ask(intention("s2"), 5)
    assert asked == replace(step(2), began_unix_ms=5)
    assert (journal.changed, journal.named("s2"), journal.named("s9")) == ({2}, asked, None)
    with pytest.raises(WorkflowStateError):
        journal.ask(intention("s3"), 5)
    journal.move_step(2, StepPhase.COMMITTED)
    with pytest.raises(ValueError, match="asked for before"):
        journal.ask(intention("s2"), 5)
    assert journal.returned("1", 9) is None
    assert (journal.record.phase, journal.record.ended_unix_ms) == (WorkflowPhase.COMPLETED, 9)


@pytest.mark.parametrize(
    "other",
    [
        intention("else"),
        intention("s1", pivot=True),
        intention("s1", undo=False),
        replace(intention("s1"), digest=b"other"),
        replace(intention("s1"), kind=StepKind.READ),
    ],
    ids=["name", "pivot", "compensation", "operations", "kind"],
)
def test_another_step_in_a_recorded_one_s_place_is_told(other: Intention) -> None:
    journal = Journal(RECORD, (step(1, StepPhase.COMMITTED),))
    journal.begin_run()
    told = journal.ask(other, 5)
    assert isinstance(told, Failure)
    assert (told.code, told.step) == (NONDETERMINISTIC, "s1")
    assert "version 3" in told.message


def test_a_function_that_leaves_recorded_steps_out_is_told() -> None:
    ends: list[Callable[[Journal], Failure | None]] = [
        lambda journal: journal.returned("", 1),
        lambda journal: journal.failed(FAILED, by_function=True),
    ]
    for end in ends:
        journal = Journal(RECORD, (step(1, StepPhase.COMMITTED),))
        journal.begin_run()
        told = end(journal)
        assert told is not None
        assert told.code == NONDETERMINISTIC
        assert journal.record.phase is WorkflowPhase.RUNNING


def test_who_ends_a_run_from_outside_need_not_have_seen_it_all() -> None:
    journal = Journal(RECORD, (step(1, StepPhase.COMMITTED),))
    journal.begin_run()
    assert journal.failed(FAILED, by_function=False) is None
    assert (journal.record.phase, journal.record.failure) == (WorkflowPhase.COMPENSATING, FAILED)


def test_nothing_ends_while_an_outcome_is_unknown() -> None:
    journal = Journal(RECORD)
    journal.begin_run()
    journal.ask(intention("s1"), 5)
    assert journal.has_abandoned_step
    with pytest.raises(WorkflowStateError):
        journal.returned("", 1)
    with pytest.raises(WorkflowStateError):
        journal.failed(FAILED, by_function=False)


@pytest.mark.parametrize("phase", [StepPhase.COMMITTED, StepPhase.SKIPPED, StepPhase.REFUSED])
def test_past_a_pivot_there_is_no_way_back(phase: StepPhase) -> None:
    """A pivot that was refused was not passed; one that an operator skipped counts as passed."""
    journal = Journal(RECORD, (step(1, StepPhase.COMMITTED), step(2, phase, pivot=True)))
    told = journal.failed(FAILED, by_function=False)
    if phase is StepPhase.REFUSED:
        assert told is None
    else:
        assert told is not None
        assert (told.code, told.step) == (PAST_PIVOT, FAILED.step)
        assert journal.record.phase is WorkflowPhase.RUNNING


@pytest.mark.parametrize("phase", [each for each in WorkflowPhase if each is not WorkflowPhase.RUNNING])
def test_nothing_runs_forward_but_what_is_running(phase: WorkflowPhase) -> None:
    journal = Journal(replace(RECORD, phase=phase))
    with pytest.raises(WorkflowStateError):
        journal.begin_run()
    with pytest.raises(WorkflowStateError):
        journal.ask(intention("s1"), 5)
    assert journal.record.is_finished is (phase in FINISHED)


def test_only_what_is_compensating_is_undone() -> None:
    with pytest.raises(WorkflowStateError):
        Journal(RECORD).todo()


def test_a_read_needs_no_settling() -> None:
    journal = compensating(step(1, read=True))
    assert journal.todo() == Over()
    assert journal.steps == (step(1, read=True),)
