"""One incarnation's life in the log: its lease, the others it outlives, and its checkpoints.

The lease is renewed every third of its length, by an empty batch where nothing else was
written. Others whose lease expired are fenced only after this one's was renewed unbroken for
a whole lease time (R6); their unfinished decisions are handed over for redo. What is finished
is told to the log lazily, once a second (R14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from coordinator.log.completion import Completion
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError
from coordinator.log.group_commit import GroupCommit
from coordinator.protocol.effects import StoredDecision
from participant_sdk.clock import Clock

CHECKPOINT_PERIOD_S: Final = 1.0

_LOG: Final = structlog.get_logger(__name__)


class IncarnationLife:
    """Keeps one incarnation alive, and takes over from those that are not.

    ``on_adopted`` gets the number of a fenced incarnation and its decisions that may be
    unfinished, by sequence; each must be driven to its end, and ``finished`` called. It comes again
    if the log still calls some of them unfinished after that: a checkpoint of the dead one, or one
    whose answer was lost, may land on top of ours. It runs in the life's own task and must not
    block. The incarnation's own decisions are counted by the
    group commit; of them too, every one that was reported must be ``finished`` some day.
    """

    def __init__(
        self,
        log: DecisionLog,
        group_commit: GroupCommit,
        *,
        clock: Clock,
        on_adopted: Callable[[int, Sequence[StoredDecision]], None],
    ) -> None:
        self._log = log
        self._group_commit = group_commit
        self._incarnation = group_commit.incarnation
        self._clock = clock
        self._on_adopted = on_adopted
        # By incarnation, in order of adoption; an adopted one leaves when all of it is finished.
        self._completions: dict[int, Completion] = {self._incarnation.number: group_commit.completion}

    def finished(self, incarnation: int, sequence: int) -> None:
        """Count a decision as finished: every branch it concerns acknowledged durably. Idempotent."""
        completion = self._completions.get(incarnation)
        if completion is not None:
            completion.finished(sequence)

    async def run(self) -> None:
        """Renew, fence and checkpoint until cancelled. Failures of the log are met by the next turn."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._take_over())
            tasks.create_task(self._checkpoint())

    async def _renew(self) -> None:
        while True:
            self._group_commit.renew()
            await asyncio.sleep(self._incarnation.lease_s / 3)

    async def _take_over(self) -> None:
        while True:
            await asyncio.sleep(self._incarnation.lease_s / 3)
            if self._group_commit.lease.unbroken_s(self._clock.monotonic_s()) < self._incarnation.lease_s:
                continue
            try:
                for number in await self._log.fence_expired(self._incarnation):
                    if number not in self._completions:
                        await self._adopt(number)
            except (LogUnavailableError, LogUncertainError) as error:
                _LOG.warning("takeover_failed", incarnation=self._incarnation.number, error=str(error))

    async def _adopt(self, number: int) -> None:
        decisions = await self._log.unfinished(number)
        # The fence may be one that was found, not made, just now: what was read is not known to be durable.
        await self._group_commit.confirm()
        if not decisions:
            return
        self._completions[number] = Completion.taken_over(number, decisions)
        _LOG.info("incarnation_adopted", incarnation=number, unfinished=len(decisions))
        self._on_adopted(number, decisions)

    async def _checkpoint(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_PERIOD_S)
            await self.write_checkpoints()

    async def write_checkpoints(self) -> None:
        """Tell the log what is finished, where that changed. A failure only delays it."""
        for number, completion in list(self._completions.items()):
            checkpoint = completion.checkpoint()
            if checkpoint is not None:
                try:
                    await self._log.checkpoint(checkpoint)
                except (LogUnavailableError, LogUncertainError) as error:
                    _LOG.warning("checkpoint_failed", incarnation=number, error=str(error))
                    continue
                completion.wrote(checkpoint)
            elif number != self._incarnation.number and not len(completion):
                # Only when the checkpoint in the log says so too: some may have finished while it was written.
                del self._completions[number]
