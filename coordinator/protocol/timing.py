"""How long a transaction waits for what, and how its repeated messages are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from participant_sdk.ids import Xid


@dataclass(frozen=True, slots=True)
class Timing:
    """Time-outs and backoff, in seconds. The defaults are the configuration's.

    After ``attempts_max`` repetitions a decided transaction needs attention, and goes on slowly.
    """

    prepare_timeout_s: float = 30.0
    commit_timeout_s: float = 60.0
    rollback_timeout_s: float = 30.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 30.0
    attempts_max: int = 3

    def backoff_s(self, attempts: int, xid: Xid) -> float:
        """The wait before the next try: exponential with a cap, and at the cap once it needs attention."""
        if attempts >= self.attempts_max:
            return self.slow_s(xid)
        return min(self.retry_max_s, self.retry_initial_s * 2.0 ** min(attempts, 30)) * _SPREAD[xid[-1] & 0x3F]

    def slow_s(self, xid: Xid) -> float:
        """The longest wait before the next try."""
        return self.retry_max_s * _SPREAD[xid[-1] & 0x3F]


# A quarter either way, by the xid's last bits: so many transactions do not knock at once, and the core needs no
# randomness.
_SPREAD: Final = tuple([0.75 + bits / 128 for bits in range(64)])
