"""How far the waits between two tries grow."""

from __future__ import annotations

from coordinator.protocol.timing import Timing
from participant_sdk.ids import Xid

XID = Xid(bytes(16))


def test_waits_grow_to_their_cap_and_no_further() -> None:
    """Invariant 12: however many tries are allowed before an operator is asked for attention."""
    timing = Timing(retry_initial_s=1.0, retry_max_s=30.0, attempts_max=100)
    waits_s = [timing.backoff_s(attempts, XID) for attempts in range(100)]
    assert waits_s == sorted(waits_s)
    assert waits_s[0] < waits_s[-1] == timing.slow_s(XID)
