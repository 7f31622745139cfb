"""Python's garbage collector, set for a server that makes thousands of short-lived objects a second."""

from __future__ import annotations

import gc
from typing import Final

# The default looks at the young objects after every 700 allocations; a batch makes many times that.
YOUNG_MAX: Final = 100_000
MIDDLE_EVERY: Final = 50
# A look at everything, which pauses the process, comes only after so many of the middle ones.
OLD_EVERY: Final = 1_000


def settle() -> None:
    """Set the collector, once everything that lives for ever has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, MIDDLE_EVERY, OLD_EVERY)
