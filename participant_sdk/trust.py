"""How a link trusts its participant: what sessions and answers say, told to its circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import structlog

from participant_sdk.breaker import Breaker, BreakerState
from participant_sdk.ids import Xid
from participant_sdk.worker import PARTICIPANT_FAILED
from participant_sdk.xa import DONE, PREPARED, Ack, AckKind, Vote, XaCode, transient_no

CIRCUIT_OPEN: Final = "CIRCUIT_OPEN"

# Votes that say that the participant failed, rather than anything of the branch.
_FAILURE_CODES: Final = frozenset({XaCode.XAER_RMFAIL, XaCode.RBCOMMFAIL})

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Trust:
    """One participant's. ``offer_again`` is called when what was not let pass may be sent again.

    ``admits`` tells whether a message of a transaction may leave now. ``mind`` must run for an open
    breaker to cool down.
    """

    __slots__ = ("_breaker", "_name", "_offer_again", "_wake", "admits")

    def __init__(self, name: str, breaker: Breaker, offer_again: Callable[[], None]) -> None:
        self._name = name
        self._breaker = breaker
        # The breaker's own, for it is called for every message.
        self.admits = breaker.admits
        self._offer_again = offer_again
        self._wake = asyncio.Event()

    @property
    def state(self) -> BreakerState:
        """The breaker's."""
        return self._breaker.state

    @property
    def reason(self) -> str:
        """What was last wrong; empty when all is well."""
        return self._breaker.reason

    def no(self) -> Vote:
        """The vote on a Prepare that may not leave."""
        message = f"{self._name} failed again and again: {self._breaker.reason}"
        return transient_no(CIRCUIT_OPEN, message, xa_code=XaCode.RBCOMMFAIL)

    def opened(self) -> None:
        """A session is open."""
        state = self._breaker.state
        self._breaker.greeted()
        self._note(state)

    def ended(self, *, was_up: bool, was_steady: bool, reason: str) -> None:
        """A session is lost, or could not be opened."""
        state = self._breaker.state
        if was_steady:
            self._breaker.steady()
        elif was_up:
            self._breaker.lost(reason)
        else:
            self._breaker.unreached(reason)
        self._note(state)

    def answered(self, votes: Sequence[tuple[Xid, Vote]], acks: Sequence[tuple[Xid, Ack]]) -> None:
        """A frame of answers came. One success among them is enough: the participant is well (R17)."""
        if (votes and votes[0][1] is PREPARED) or (acks and acks[0][1] is DONE):
            # As nearly always: whoever answers both is well, and the others need no look.
            self._well()
            return
        state = self._breaker.state
        failed = [(xid, vote.message) for xid, vote in votes if vote.transient and _is_failure(vote)]
        failed += [(xid, ack.message) for xid, ack in acks if ack.kind is AckKind.RETRY]
        if len(failed) < len(votes) + len(acks):
            self._well()
            return
        for xid, message in failed:
            self._breaker.failed(xid, message)
        self._note(state)

    def _well(self) -> None:
        state = self._breaker.state
        if self._breaker.succeeded():
            self._offer_again()
        self._note(state)

    async def mind(self) -> NoReturn:
        """Let a probe through when an open breaker has cooled down."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._breaker.state is not BreakerState.CLOSED:
                await asyncio.sleep(self._breaker.wait_s)
                state = self._breaker.state
                if self._breaker.time_up():
                    self._offer_again()
                self._note(state)

    def _note(self, before: BreakerState) -> None:
        state = self._breaker.state
        if state is not before:
            _log.warning("circuit_breaker", participant=self._name, state=state.name, reason=self._breaker.reason)
            self._wake.set()


def _is_failure(vote: Vote) -> bool:
    return vote.xa_code in _FAILURE_CODES or vote.reason == PARTICIPANT_FAILED
