"""Keeps what changes of workflows: many in one statement, written again until it is known to be there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

import structlog

from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    BadRecordError,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
)
from coordinator.log.workflow_log import WorkflowChange, WorkflowLog
from participant_sdk.backoff import Backoff
from participant_sdk.batching import Batcher
from participant_sdk.ids import Xid

BATCH_MAX: Final = 64

_LOG: Final = structlog.get_logger(__name__)


class NotOurs(Exception):  # noqa: N818 - nothing is wrong: others have taken the workflow over
    """Nothing was kept: the workflow is another incarnation's, or this one is fenced."""


class _Entry(NamedTuple):
    change: WorkflowChange
    kept: asyncio.Future[None]


class WorkflowKeeper:
    """The way to the log for changes of workflows that run here. ``run`` must run for anything to happen."""

    def __init__(self, log: WorkflowLog, incarnation: Incarnation, random: Random) -> None:
        self._log = log
        self._incarnation = incarnation
        self._backoff = Backoff(random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        self._queue: Batcher[_Entry] = Batcher(self._write_all, cap=BATCH_MAX)

    async def keep(self, change: WorkflowChange) -> None:
        """Return once the change is durable. NotOurs; BadRecordError for a value that the log refuses.

        Changes of one workflow are kept in their order. A cancelled caller's change is kept all the same.
        """
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Entry(change, kept))
        await kept

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run()

    async def _write_all(self, batch: list[_Entry]) -> None:
        """Write a batch in rounds, of one workflow one change in each: a statement takes a row once."""
        while batch:
            first = {entry.change.record.workflow_id: entry for entry in reversed(batch)}
            this_round = [entry for entry in batch if first[entry.change.record.workflow_id] is entry]
            await self._write(this_round)
            batch = [entry for entry in batch if first[entry.change.record.workflow_id] is not entry]

    async def _write(self, batch: list[_Entry]) -> None:
        while True:
            try:
                saved = set(await self._log.save(self._incarnation, [entry.change for entry in batch]))
            except (LogUnavailableError, LogUncertainError) as error:
                _LOG.warning("workflows_not_kept", error=str(error))
                await self._backoff.wait()
            except BadRecordError as error:
                return await self._refused(batch, error)
            else:
                self._backoff.reset()
                return _tell(batch, saved)

    async def _refused(self, batch: list[_Entry], error: BadRecordError) -> None:
        """One bad row gets its own "no" (R17): each goes by itself."""
        if len(batch) > 1:
            for entry in batch:
                await self._write([entry])
        elif not batch[0].kept.done():
            batch[0].kept.set_exception(error)


def _tell(batch: Sequence[_Entry], saved: set[Xid]) -> None:
    for change, kept in batch:
        if kept.done():
            continue
        if change.record.workflow_id in saved:
            kept.set_result(None)
        else:
            kept.set_exception(NotOurs(str(change.record.workflow_id)))
