"""Every mutant."""

from __future__ import annotations

from typing import Final

from tests.mutants import (
    acknowledging,
    calling,
    dealing,
    deciding,
    forwarding,
    holding,
    introducing,
    keeping,
    locking,
    outliving,
    pairing,
    paying,
    preparing,
    presuming,
    promising,
    recording,
    request_ids,
    reserving,
    resolving,
    running_workflows,
    settling,
    sweeping,
)
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *acknowledging.MUTANTS,
    *calling.MUTANTS,
    *dealing.MUTANTS,
    *deciding.MUTANTS,
    *forwarding.MUTANTS,
    *holding.MUTANTS,
    *introducing.MUTANTS,
    *keeping.MUTANTS,
    *locking.MUTANTS,
    *outliving.MUTANTS,
    *pairing.MUTANTS,
    *paying.MUTANTS,
    *preparing.MUTANTS,
    *presuming.MUTANTS,
    *promising.MUTANTS,
    *recording.MUTANTS,
    *request_ids.MUTANTS,
    *reserving.MUTANTS,
    *resolving.MUTANTS,
    *running_workflows.MUTANTS,
    *settling.MUTANTS,
    *sweeping.MUTANTS,
)
