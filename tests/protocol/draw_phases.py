"""Draws ``docs/phases.md`` from the tables: ``python -m tests.protocol.draw_phases``."""

from __future__ import annotations

from pathlib import Path

from coordinator.protocol.phases import EDGES
from participant_sdk.branch import TABLE, BranchCall, BranchPhase, step
from participant_sdk.xa import Heuristic

HEAD = """# Phases

Drawn from the tables in `coordinator/protocol/phases.py` and `participant_sdk/branch.py` by
`python -m tests.protocol.draw_phases`; a test compares.

## A transaction, at its coordinator

"""

MIDDLE = """
## A branch, at its participant

"""

TABLE_HEAD = """
What each call does in each phase. *vote* means that the answer is the branch's stored vote.

"""


def page() -> str:
    """The whole page."""
    edges = [
        f"    {start.name} --> {end.name}: {cause.value}" for start, row in EDGES.items() for cause, end in row.items()
    ]
    moves = [
        f"    {phase.name} --> {to.phase.name}: {call.value}"
        for (phase, call), to in TABLE.items()
        if to.phase is not phase
    ]
    for heuristic in (Heuristic.COMMIT, Heuristic.ROLLBACK):
        end = step(BranchPhase.HEURISTIC, BranchCall.FORGET, heuristic).phase
        moves.append(f"    HEURISTIC --> {end.name}: Forget, forced to {heuristic.name.lower()}")
    return HEAD + mermaid(edges) + MIDDLE + mermaid(moves) + TABLE_HEAD + answers()


def mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


def answers() -> str:
    """The branch table: a row for each call, a column for each phase."""
    rows = [["call", *(phase.name for phase in BranchPhase)], ["---"] * (len(BranchPhase) + 1)]
    rows += [[call.value, *(cell(phase, call) for phase in BranchPhase)] for call in BranchCall]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(phase: BranchPhase, call: BranchCall) -> str:
    to = step(phase, call, Heuristic.COMMIT)
    answer = "*vote*" if call.name.startswith("VOTE") else "" if to.ack is None else to.ack.kind.name
    moved = f"→ {to.phase.name}" if to.phase is not phase else ""
    return " ".join(part for part in (answer, moved) if part) or "stays"


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "phases.md").write_text(page(), encoding="utf-8")
