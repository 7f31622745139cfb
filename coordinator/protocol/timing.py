"""How long a transaction waits for what, and how its repeated messages are spread."""

from __future__ import annotations

from dataclasses import dataclass

from participant_sdk.ids import Xid


@dataclass(frozen=True, slots=True)
class Timing:
    """Time-outs and backoff, in seconds. The defaults are the configuration's."""

    prepare_timeout_s: float = 30.0
    commit_timeout_s: float = 60.0
    rollback_timeout_s: float = 30.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 30.0

    def backoff_s(self, attempts: int, xid: Xid) -> float:
        """The wait before the next try: exponential with a cap.

        The xid's last bits spread it by a quarter either way, so that many transactions do not
        knock at once, and the core needs no randomness.
        """
        spread = 0.75 + (xid[-1] & 0x3F) / 128
        return min(self.retry_max_s, self.retry_initial_s * 2.0 ** min(attempts, 30)) * spread
