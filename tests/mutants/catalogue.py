"""Every mutant."""

from __future__ import annotations

from typing import Final

from tests.mutants import deciding
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (*deciding.MUTANTS,)
