"""Every mutant."""

from __future__ import annotations

from typing import Final

from tests.mutants import (
    acknowledging,
    deciding,
    holding,
    keeping,
    outliving,
    preparing,
    presuming,
    promising,
    recording,
    request_ids,
    reserving,
)
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *acknowledging.MUTANTS,
    *deciding.MUTANTS,
    *holding.MUTANTS,
    *keeping.MUTANTS,
    *outliving.MUTANTS,
    *preparing.MUTANTS,
    *presuming.MUTANTS,
    *promising.MUTANTS,
    *recording.MUTANTS,
    *request_ids.MUTANTS,
    *reserving.MUTANTS,
)
