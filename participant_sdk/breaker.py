"""A circuit breaker for one participant: pure, but for a clock and a seeded backoff that come in.

    CLOSED ──(failures in a row)──▶ OPEN ──(cool-down)──▶ HALF_OPEN ──(success)──▶ CLOSED
                                      ▲                       │
                                      └───────(failure)───────┘

What counts is failures of the participant, not of its business: a session that cannot be opened
or does not last, and answers that say "I failed". One transaction counts once, however often it
fails: a poison one opens nothing by itself (R17). Any other answer, a "no" too, is a success.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from participant_sdk.backoff import Backoff
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

# So many different transactions, or sessions, failing in a row open it.
FAILURES_MAX: Final = 5
COOL_DOWN_FIRST_S: Final = 0.5
# A probe without an answer for so long has failed.
PROBE_S: Final = 5.0
# Probes that failed are remembered, so that the next is another transaction; at most so many.
TRIED_MAX: Final = 1_000


class BreakerState(Enum):
    """How a participant is trusted with messages."""

    CLOSED = "messages pass"
    OPEN = "nothing is sent, because it failed again and again"
    HALF_OPEN = "one message is tried"


class Breaker:
    """One participant's breaker. A disabled one is always CLOSED.

    ``reason`` says what the last failure was, empty after a success.
    """

    __slots__ = (
        "_clock",
        "_cool_down",
        "_failed",
        "_is_enabled",
        "_lost",
        "_probe",
        "_refused",
        "_tried",
        "_unreached",
        "_until_s",
        "reason",
        "state",
    )

    def __init__(self, clock: Clock, cool_down: Backoff, *, enabled: bool = True) -> None:
        self.state = BreakerState.CLOSED
        self.reason = ""
        self._clock = clock
        self._cool_down = cool_down
        self._is_enabled = enabled
        self._unreached = 0
        self._lost = 0
        # Dictionaries for their order; the first is never larger than FAILURES_MAX.
        self._failed: dict[Xid, None] = {}
        self._tried: dict[Xid, None] = {}
        self._probe: Xid | None = None
        self._refused = False
        self._until_s = 0.0

    @property
    def wait_s(self) -> float:
        """Until the cool-down is over, or a probe without an answer has failed; 0 when it is."""
        return max(0.0, self._until_s - self._clock.monotonic_s())

    def admits(self, xid: Xid) -> bool:
        """Whether a message of this transaction may leave; HALF_OPEN, the first one not tried before may."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN or self._probe is not None:
            return False
        if xid in self._tried:
            self._refused = True
            return False
        self._probe = xid
        self._refused = False
        self._tried[xid] = None
        if len(self._tried) > TRIED_MAX:
            del self._tried[next(iter(self._tried))]
        self._until_s = self._clock.monotonic_s() + PROBE_S
        return True

    def unreached(self, reason: str) -> None:
        """No session could be opened."""
        self._unreached += 1
        self._note(reason)

    def lost(self, reason: str) -> None:
        """A session was lost soon after it was opened."""
        self._lost += 1
        self._note(reason)

    def failed(self, xid: Xid, reason: str) -> None:
        """The participant answered a message with a failure of its own."""
        if len(self._failed) < FAILURES_MAX:
            self._failed[xid] = None
        self._note(reason)

    def steady(self) -> None:
        """A session lasted long enough: earlier losses say nothing of the next."""
        self._lost = 0

    def greeted(self) -> None:
        """A session is open. It was all that was missing, unless messages or sessions had failed as well."""
        self._unreached = 0
        if self.state is BreakerState.CLOSED:
            return
        if self._answer_failures < FAILURES_MAX:
            self._close()
        else:
            self._half_open()

    def succeeded(self) -> bool:
        """An answer came that shows the participant well; True if that closed the breaker."""
        if self._failed or self._lost:
            self._failed.clear()
            self._lost = 0
        if self.state is BreakerState.CLOSED:
            return False
        self._close()
        return True

    def time_up(self) -> bool:
        """Go on after ``wait_s``; True if messages should be offered again, because one may pass now."""
        if self.wait_s > 0 or self.state is BreakerState.CLOSED:
            return False
        if self.state is BreakerState.HALF_OPEN and self._probe is not None:
            self._open("a probe was not answered")
            return False
        if self.state is BreakerState.HALF_OPEN and not self._refused:
            self._until_s = self._clock.monotonic_s() + PROBE_S
            return False
        self._half_open()
        return True

    @property
    def _answer_failures(self) -> int:
        return len(self._failed) + self._lost

    def _note(self, reason: str) -> None:
        self.reason = reason
        if not self._is_enabled or self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.HALF_OPEN or max(self._unreached, self._answer_failures) >= FAILURES_MAX:
            self._open(reason)

    def _open(self, reason: str) -> None:
        self.state = BreakerState.OPEN
        self.reason = reason
        self._probe = None
        self._until_s = self._clock.monotonic_s() + self._cool_down.next_s()

    def _half_open(self) -> None:
        if self._refused:
            # All that was offered had been tried: begin again with the first.
            self._tried.clear()
        self.state = BreakerState.HALF_OPEN
        self._probe = None
        self._refused = False
        self._until_s = self._clock.monotonic_s() + PROBE_S

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self.reason = ""
        self._failed.clear()
        self._tried.clear()
        self._lost = 0
        self._probe = None
        self._refused = False
        self._cool_down.reset()
