"""Participants' reports, judged against the log (R15): is it as long as what they applied?

Every welcome brings the highest sequences that a participant applied. They are compared with the log's,
read after the welcome came and under one generation of the log:

- none is above the log's: the participant has reported, and COMMITs of its transactions may be written;
- one is: the log has lost its tail. It is put in HOLD, which ends this incarnation too. In HOLD already,
  the participant stays unreported; everybody is introduced to again when that ends;
- one is below what the log's checkpoints say it acknowledged: the *participant* has lost its tail. That is
  told once for each session, and the participant is told the decisions above again (``lost_tails``).

A participant that holds a higher epoch than this coordinator's reports nothing. Either this coordinator is fenced,
and its next write tells it so; or the log has lost its tail, from before that epoch on. HOLD then carries the number,
so that what is drawn after it is higher.

When the log is connected to anew every report is forgotten, and every participant is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final, Never

import structlog

from coordinator.engine import Engine
from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    DecisionLog,
    LogUnavailableError,
    LogUncertainError,
)
from coordinator.log.reported import Reported
from coordinator.lost_tails import LostTails
from coordinator.telemetry import Telemetry
from participant_sdk.backoff import Backoff
from participant_sdk.hello import Welcome
from participant_sdk.link import Link

_LOG: Final = structlog.get_logger(__name__)


class Reports:
    """Judges welcomes. ``connect`` comes once, before the first; ``run`` must run for anything to happen."""

    def __init__(
        self,
        log: DecisionLog,
        reported: Reported,
        engine: Engine,
        lost_tails: LostTails,
        *,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self._log = log
        self._reported = reported
        self._engine = engine
        self._lost_tails = lost_tails
        self._telemetry = telemetry
        self._backoff = Backoff(random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        # Not judged yet, by participant: its last welcome under the present generation.
        self._welcomes: dict[str, Welcome] = {}
        # Epochs above one's own that participants hold, by participant.
        self._epochs: dict[str, int] = {}
        self._wake = asyncio.Event()
        # What the log said a participant had acknowledged, before it was asked once more.
        self._suspected: dict[str, Mapping[int, int]] = {}
        self._alerted: dict[str, None] = {}

    def connect(self, links: Mapping[str, Link]) -> None:
        """Attach the links that introduce this coordinator."""
        self._links = links
        self._reported.whenever_turned(self.ask_again)

    @property
    def is_complete(self) -> bool:
        """Every configured participant has reported since the log was connected to last."""
        return self._reported.is_complete

    def all_in(self, participants: Sequence[str]) -> bool:
        """All of these have reported since the log was connected to last."""
        return all(self.reported(participant) for participant in participants)

    def reported(self, participant: str) -> bool:
        """This participant has reported since the log was connected to last."""
        return not self._reported.missing((participant,))

    def missing(self) -> tuple[str, ...]:
        """The configured participants that have not."""
        return self._reported.missing()

    def welcomed(self, participant: str, welcome: Welcome) -> None:
        """A participant answered an introduction that was sent since ``ask_again``."""
        if not self._reported.turn():
            self._welcomes[participant] = welcome
            self._wake.set()

    def epoch_ahead(self, participant: str, epoch: int) -> None:
        """A participant refuses this coordinator, because it has adopted a higher epoch."""
        self._epochs[participant] = epoch
        self._wake.set()

    def lost(self, participant: str) -> None:
        """The session with this participant ended: what it reported stands, and the next is another session."""
        self._suspected.pop(participant, None)
        self._alerted.pop(participant, None)

    def ask_again(self) -> None:
        """Have every participant that can be reached report anew. What has not been judged is forgotten."""
        self._welcomes.clear()
        self._suspected.clear()
        for link in self._links.values():
            link.introduce()

    async def run(self) -> None:
        """Judge what comes, until cancelled. Failures of the log are met by trying again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._judge_all())
            tasks.create_task(self._lost_tails.run())

    async def _judge_all(self) -> Never:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._welcomes or self._epochs:
                try:
                    await self._judge_epochs()
                    await self._judge_round()
                except (LogUnavailableError, LogUncertainError) as error:
                    waiting = list(self._welcomes | self._epochs)
                    _LOG.warning("reports_not_judged", participants=waiting, error=str(error))
                    await self._backoff.wait()
                else:
                    self._backoff.reset()

    async def _judge_epochs(self) -> None:
        """Put the log in HOLD if a participant holds an epoch that it has forgotten. On an error, look again."""
        if not self._epochs:
            return
        participant, epoch = max(self._epochs.items(), key=lambda held: held[1])
        own = self._engine.incarnation
        is_held = await self._log.hold_above(
            own,
            epoch,
            f"the log lost its tail: {participant} has adopted epoch {epoch}, and the log stands at epoch {own.epoch}",
        )
        if is_held:
            self._telemetry.ahead(participant)
            _LOG.critical("participant_ahead_of_log", participant=participant, epoch=epoch, log=own.epoch)
        # What came meanwhile comes again, with the next session that is refused.
        self._epochs.clear()

    async def _judge_round(self) -> None:
        """Judge all that came, against sequences that are read after it. On an error it is all there still."""
        if self._reported.turn():
            return
        generation, welcomes = self._reported.generation, dict(self._welcomes)
        sequences = await self._read_sequences(welcomes.values())
        applied = {participant: await self._log.read_applied(participant) for participant in welcomes}
        for participant, welcome in welcomes.items():
            ahead = _ahead(welcome, sequences)
            if ahead and generation == self._reported.generation:
                await self._meet_ahead(participant, welcome)
            elif self._reported.add(participant, generation):
                self._look_behind(participant, welcome, applied[participant])
            # Unless another one came meanwhile.
            if self._welcomes.get(participant) is welcome:
                del self._welcomes[participant]

    async def _read_sequences(self, welcomes: Iterable[Welcome]) -> Mapping[int, int]:
        return await self._log.read_sequences(sorted({number for each in welcomes for number in each.watermarks}))

    async def _meet_ahead(self, participant: str, welcome: Welcome) -> None:
        """Put the log in HOLD, unless it is."""
        self._reported.withdraw(participant)
        self._telemetry.ahead(participant)
        standing = await self._log.standing()
        # Read once more: a release between the two reads would have raised them.
        ahead = _ahead(welcome, await self._read_sequences([welcome]))
        if standing.is_held:
            _LOG.warning("participant_ahead_of_log_in_hold", participant=participant)
            return
        if not ahead:
            self._links[participant].introduce()
            return
        number, reported, known = ahead[0]
        _LOG.critical(
            "participant_ahead_of_log", participant=participant, incarnation=number, reported=reported, log=known
        )
        await self._log.hold(
            f"the log lost its tail: {participant} has applied sequence {reported} of incarnation {number},"
            f" and the log knows {known}"
        )

    def _look_behind(self, participant: str, welcome: Welcome, applied: Mapping[int, int]) -> None:
        """Find whether the participant lost its tail.

        1. A welcome is older than the checkpoints read after it: what it lacks may have come since.
        2. So it is asked once more, and this answer is compared with the checkpoints read before it was asked.
        """
        if participant in self._alerted:
            return
        known = self._suspected.pop(participant, None)
        behind = _behind(welcome, applied if known is None else known)
        if not behind:
            return
        if known is None:
            self._suspected[participant] = applied
            self._links[participant].introduce()
            return
        self._alerted[participant] = None
        self._telemetry.behind(participant)
        for number, (reported, acknowledged) in behind.items():
            _LOG.error(
                "participant_behind",
                participant=participant,
                incarnation=number,
                reported=reported,
                acknowledged=acknowledged,
            )
        self._lost_tails.add(participant, {number: reported for number, (reported, _) in behind.items()})


def _ahead(welcome: Welcome, sequences: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """The incarnations of which more was applied than the log knows: number, reported, known; by number."""
    return [
        (number, reported, sequences.get(number, 0))
        for number, reported in sorted(welcome.watermarks.items())
        if reported > sequences.get(number, 0)
    ]


def _behind(welcome: Welcome, applied: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """The incarnations of which less was applied than was acknowledged: reported, acknowledged; by number."""
    return {
        number: (welcome.watermarks.get(number, 0), acknowledged)
        for number, acknowledged in sorted(applied.items())
        if welcome.watermarks.get(number, 0) < acknowledged
    }
