"""What the engine sends: each message of a step to the link of its participant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog

from coordinator.protocol.effects import Send, Verb
from coordinator.running import Running
from participant_sdk.breaker import BreakerState
from participant_sdk.clock import Clock
from participant_sdk.link import Link

_LOG: Final = structlog.get_logger(__name__)


_PREPARE: Final = Verb.PREPARE
_COMMIT: Final = Verb.COMMIT


class Outgoing:
    """The links by participant. Sending never waits and never fails: what is lost is owed, and sent again."""

    __slots__ = ("_clock", "_links", "_log_id")

    def __init__(self, links: Mapping[str, Link], log_id: str, clock: Clock) -> None:
        self._links = links
        self._log_id = log_id
        self._clock = clock

    def send(self, running: Running, messages: Sequence[Send]) -> None:
        """Queue each message at its link."""
        tx = running.transaction
        participants = tuple(tx.branches)
        for verb, participant in messages:
            link = self._links.get(participant)
            if link is None:
                self._tell_unconfigured(running, participant)
            elif verb is _COMMIT:
                link.commit(tx.xid, tx.incarnation, tx.sequence)
            elif verb is _PREPARE:
                link.prepare(running.share_of(participant, participants, self._log_id))
            else:
                link.rollback(tx.xid)
        if tx.decision is None:
            # Prepare has been handed over, and with it the work.
            running.drop_operations()

    def _tell_unconfigured(self, running: Running, participant: str) -> None:
        """The configuration has lost a participant that an older decision names: it stays owed, and visible."""
        running.tell(self._clock.unix_ms(), "unconfigured", participant, "no such participant is configured")
        _LOG.error("participant_unconfigured", transaction_id=str(running.transaction.xid), participant=participant)

    def is_blocked(self, participants: Iterable[str]) -> bool:
        """Whether every one of them is cut off by its circuit breaker, so that nothing sent would leave."""
        links = [self._links.get(name) for name in participants]
        return bool(links) and all(link is not None and link.breaker_state is BreakerState.OPEN for link in links)
