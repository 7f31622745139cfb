"""What links tell, on its way to the engine: timed, counted, and shown to whoever else waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from coordinator.awaited import Awaited
from coordinator.engine import Engine
from coordinator.protocol.effects import Verb
from coordinator.reports import Reports
from coordinator.returns import Returns
from coordinator.telemetry import Telemetry
from participant_sdk.hello import Welcome
from participant_sdk.ids import Xid
from participant_sdk.xa import Ack, Decision, Vote

_LOG: Final = structlog.get_logger(__name__)


class MeasuredEvents:
    """Times every answer of a participant on its way to the engine, and has its welcomes judged.

    A Prepare is counted from the transaction's begin, which sends it; phase two from the decision.
    """

    __slots__ = ("_awaited", "_engine", "_reports", "_returns", "_telemetry", "_up")

    def __init__(
        self, engine: Engine, reports: Reports, awaited: Awaited, returns: Returns, telemetry: Telemetry
    ) -> None:
        self._awaited = awaited
        self._engine = engine
        self._reports = reports
        self._returns = returns
        self._telemetry = telemetry
        self._up: set[str] = set()

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> None:
        """Votes came."""
        self._telemetry.batch("votes", len(votes), participant)
        taken_s = self._engine.answered.voted(participant, votes)
        self._telemetry.phase(Verb.PREPARE, participant).observe_all(taken_s)

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        """Acknowledgements came."""
        phase = Verb.COMMIT if verb is Decision.COMMIT else Verb.ROLLBACK
        self._telemetry.batch("acknowledgements", len(acks), participant)
        taken_s = self._engine.answered.acknowledged(participant, verb, acks)
        self._telemetry.phase(phase, participant).observe_all(taken_s)
        self._awaited.acknowledged(participant, verb, acks)

    def link_up(self, participant: str, welcome: Welcome) -> None:
        """A participant answered an introduction: the first of its session, or one that came since."""
        is_back = participant not in self._up
        if is_back:
            self._up.add(participant)
            _LOG.info("participant_up", participant=participant, epoch=welcome.epoch)
        self._reports.welcomed(participant, welcome)
        self._engine.link_up(participant)
        if is_back:
            self._returns.back(participant)

    def link_down(self, participant: str, reason: str) -> None:
        """A session was lost."""
        self._up.discard(participant)
        self._reports.lost(participant)
        self._engine.link_down(participant, reason)

    def epoch_ahead(self, participant: str, epoch: int) -> None:
        """A participant holds a higher epoch than this coordinator's."""
        self._reports.epoch_ahead(participant, epoch)
