"""The phase table, and the pages drawn from the tables."""

from __future__ import annotations

from pathlib import Path

from coordinator.protocol.phases import EDGES, FINISHED, Cause, Phase
from participant_sdk.branch import TABLE, BranchCall, BranchPhase
from tests.protocol.draw_phases import page

DOCS = Path(__file__).parents[2] / "docs" / "phases.md"


def test_the_page_is_drawn_from_the_tables() -> None:
    """``python -m tests.protocol.draw_phases`` draws it anew."""
    assert DOCS.read_text(encoding="utf-8") == page()


def test_nothing_leads_from_committing_to_rolling_back_or_back() -> None:
    def reached(phase: Phase) -> set[Phase]:
        return {phase}.union(*(reached(nxt) for nxt in EDGES[phase].values()))

    committed, rolled_back = {Phase.COMMITTING, Phase.COMMITTED}, {Phase.ROLLING_BACK, Phase.ROLLED_BACK}
    assert not reached(Phase.COMMITTING) & rolled_back
    assert not reached(Phase.ROLLING_BACK) & committed
    assert reached(Phase.ACTIVE) == set(Phase)


def test_every_phase_has_its_edges_and_every_cause_is_used() -> None:
    assert set(EDGES) == set(Phase)
    assert {cause for edges in EDGES.values() for cause in edges} == set(Cause)
    assert all(not EDGES[phase] for phase in FINISHED)


def test_a_branch_is_committed_only_from_prepared() -> None:
    """Invariant 9: Commit takes effect only after Prepare."""
    into = {(phase, call) for (phase, call), to in TABLE.items() if to.phase is BranchPhase.COMMITTED != phase}
    assert into == {(BranchPhase.PREPARED, BranchCall.COMMIT)}
