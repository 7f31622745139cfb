"""Seeds of the simulation as a witness: ``python -m tests.mutants.seeds FIRST LAST`` stops at the first violation."""

from __future__ import annotations

import sys

from tests.mutants.copies import Exit
from tests.simulation.faults import draw
from tests.simulation.seeds import run_once


def main() -> int:
    """Run each seed once; what the first violation says goes to standard output."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, last + 1):
        violations = run_once(draw(seed)).violations
        if violations:
            print(f"seed {seed}: {violations[0]}")
            return Exit.NOTICED
    return Exit.SURVIVED


if __name__ == "__main__":
    sys.exit(main())
