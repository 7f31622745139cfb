"""A histogram of latencies, cheap to record into.

The counts lie as in an HdrHistogram of three significant digits, so recording is two shifts and
an addition, and memory is constant however long the load. The library reads them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from hdrh.histogram import HdrHistogram  # The library has no types; this module is its only user here.

LATENCY_MAX_US: Final = 10 * 60 * 1_000_000
SIGNIFICANT_DIGITS: Final = 3

# The library's layout for three digits: a bucket has 2,048 cells, of which all but the first use the upper half.
_CELL_BITS: Final = 11
_HALF_BITS: Final = _CELL_BITS - 1


class Latencies:
    """How often each latency was seen, in microseconds, up to ten minutes; longer ones count as that."""

    __slots__ = ("_cells", "_count", "_library")

    def __init__(self) -> None:
        self._library: Any = HdrHistogram(1, LATENCY_MAX_US, SIGNIFICANT_DIGITS)
        self._cells: list[int] = [0] * self._library.counts_len

    def record(self, seconds: float) -> None:
        """Count one latency; one below zero counts as zero."""
        us = int(seconds * 1_000_000)
        if not 0 <= us <= LATENCY_MAX_US:
            us = 0 if us < 0 else LATENCY_MAX_US
        shift = max(us.bit_length() - _CELL_BITS, 0)
        self._cells[(shift << _HALF_BITS) + (us >> shift)] += 1

    def percentiles_ms(self, *percentiles: float) -> tuple[float, ...]:
        """The latencies that so many percent of all seen do not exceed, in milliseconds; 0 where none was seen."""
        sums = list(accumulate(self._cells))
        return tuple([self._at(sums, percentile) for percentile in percentiles])

    def _at(self, sums: Sequence[int], percentile: float) -> float:
        total = sums[-1]
        if not total:
            return 0.0
        wanted = max(int(percentile / 100 * total + 0.5), 1)
        lowest = self._library.get_value_from_index(bisect_left(sums, wanted))
        us: int = self._library.get_highest_equivalent_value(lowest)
        return us / 1000
