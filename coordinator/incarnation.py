"""One incarnation's life in the log: its lease, the others it outlives, and its checkpoints.

The lease is renewed every third of its length, by an empty batch where nothing else was
written. As often it is looked how the log stands, and who left work behind: those who resigned
are taken over at once, others whose lease expired are fenced, but only after this one's was
renewed unbroken for a whole lease time (R6). Their unfinished decisions are handed over for redo.
What is finished is told to the log lazily, once a second (R14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from coordinator.log.completion import Completion
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError, Standing
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
    whose answer was lost, may land on top of ours; and with those that the end of HOLD put back. The
    incarnation's own decisions are counted by the group commit; of them too, every one that was
    reported must be ``finished`` some day.

    ``left_behind`` is set whenever one that lived does not any more: what it had not decided waits somewhere to
    be told so. Whoever sees to that clears it.

    ``on_standing`` gets the log's standing at first, and whenever HOLD, the horizon or the addresses of
    those who live changed. Both run in the life's own tasks and must not block.
    """

    def __init__(
        self,
        log: DecisionLog,
        group_commit: GroupCommit,
        *,
        clock: Clock,
        on_adopted: Callable[[int, Sequence[StoredDecision]], None],
        on_standing: Callable[[Standing], None],
    ) -> None:
        self.standing: Standing | None = None
        self.left_behind = asyncio.Event()
        self._log = log
        self._group_commit = group_commit
        self._incarnation = group_commit.incarnation
        self._clock = clock
        self._on_adopted = on_adopted
        self._on_standing = on_standing
        self._turn = asyncio.Lock()
        # Whether HOLD ended since all adopted ones were read: more may be theirs now.
        self._restored = False
        # By incarnation, in order of adoption; an adopted one leaves when all of it is finished.
        self._completions: dict[int, Completion] = {self._incarnation.number: group_commit.completion}

    def finished(self, incarnation: int, sequence: int) -> None:
        """Count a decision as finished. Idempotent."""
        completion = self._completions.get(incarnation)
        if completion is not None:
            completion.finished(sequence)

    def applied(self, incarnation: int, sequence: int, participant: str) -> None:
        """Count a decision as acknowledged durably by a participant as committed. Idempotent."""
        completion = self._completions.get(incarnation)
        if completion is not None:
            completion.applied(sequence, participant)

    async def run(self) -> None:
        """Renew, look, fence and checkpoint until cancelled. Failures of the log are met by the next turn."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._watch())
            tasks.create_task(self._checkpoint())

    async def take_over(self) -> int:
        """Look how the log stands, and adopt what others left; return how many decisions were.

        LogUnavailableError and LogUncertainError: what was done until then stays.
        """
        async with self._turn:
            await self._look()
            unbroken_s = self._group_commit.lease.unbroken_s(self._clock.monotonic_s())
            may_fence = unbroken_s >= self._incarnation.lease_s
            restored, count = self._restored, 0
            for number in await self._log.fence_expired(self._incarnation, resigned_only=not may_fence):
                if restored or number not in self._completions:
                    count += await self._adopt(number)
            if restored:
                self._restored = False
            return count

    async def resign(self) -> None:
        """Write the checkpoints, and end this incarnation: whoever comes next takes over at once.

        ``run`` and the group commit's have ended before. LogUnavailableError, LogUncertainError.
        """
        await self.write_checkpoints()
        await self._log.resign(self._incarnation)

    async def _renew(self) -> None:
        while True:
            self._group_commit.renew()
            await asyncio.sleep(self._incarnation.lease_s / 3)

    async def _watch(self) -> None:
        while True:
            try:
                await self.take_over()
            except (LogUnavailableError, LogUncertainError) as error:
                _LOG.warning("takeover_failed", incarnation=self._incarnation.number, error=str(error))
            await asyncio.sleep(self._incarnation.lease_s / 3)

    async def _look(self) -> None:
        before, now = self.standing, await self._log.standing()
        self.standing = now
        if before is not None and before.is_held and not now.is_held:
            self._restored = True
        if before is not None and any(each not in _numbers(now) for each in _numbers(before)):
            self.left_behind.set()
        if before is None or _told(before) != _told(now):
            self._on_standing(now)

    async def _adopt(self, number: int) -> int:
        unfinished = await self._log.unfinished(number)
        # The fence may be one that was found, not made, just now: what was read is not known to be durable.
        await self._group_commit.confirm()
        completion = self._completions.get(number)
        if completion is None:
            completion = Completion(number)
        decisions = completion.take_over(unfinished)
        if decisions:
            self._completions[number] = completion
            _LOG.info("incarnation_adopted", incarnation=number, unfinished=len(decisions))
            self._on_adopted(number, decisions)
        return len(decisions)

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


def _numbers(standing: Standing) -> tuple[int, ...]:
    return tuple([live.number for live in standing.live])


def _told(standing: Standing) -> tuple[object, ...]:
    addresses = tuple([live.address for live in standing.live])
    return standing.held_since_unix_ms, standing.pruned_below_unix_ms, addresses
