"""A workflow's locks: held for as long as it runs, taken again by whoever takes it over, and whenever they are lost.

Locks save retries; money is guarded by the reservations of the steps' participants. So only a workflow that has done
nothing yet fails for want of its locks. One that has begun a step must end what it began: it waits a while, goes on
without, and has them again as soon as they are to be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import structlog

from coordinator.errors import TransactionError
from coordinator.locks.claims import Owner
from coordinator.locks.grants import Grant
from coordinator.locks.locks import Locks
from coordinator.locks.transaction_locks import code_of
from coordinator.protocol.workflow_records import Failure
from participant_sdk.backoff import Backoff
from participant_sdk.ids import Xid

_AGAIN_FIRST_S: Final = 0.05
_AGAIN_CAP_S: Final = 5.0

_LOG: Final = structlog.get_logger(__name__)


class WorkflowLocks:
    """One workflow's keys, in this coordinator. Mutable: ``_grant`` is what it holds now."""

    def __init__(self, locks: Locks, workflow_id: Xid, keys: Sequence[str], random: Random) -> None:
        self._locks = locks
        self._owner = Owner(str(workflow_id), workflow_id.unix_ms)
        self._keys = keys
        self._random = random
        self._grant: Grant | None = None

    @asynccontextmanager
    async def holding(self, within_s: float | None) -> AsyncGenerator[Failure | None]:
        """Hold the keys for the time of the block; None, or why they were not granted within so long.

        Without ``within_s`` it is ``lock_timeout``. In the block they are taken whenever they are not held.
        """
        if not self._keys:
            yield None
            return
        refusal = await self._take(within_s)
        keeping = asyncio.ensure_future(self._keep())
        try:
            yield refusal
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            if self._grant is not None:
                self._locks.release(self._grant)

    def withdraw(self, error: TransactionError) -> None:
        """Have it wait for its keys no more."""
        self._locks.withdraw(self._owner.name, error)

    async def _take(self, within_s: float | None) -> Failure | None:
        try:
            self._grant = await self._locks.acquire(self._owner, self._keys, timeout_s=within_s)
        except TransactionError as error:
            return Failure(code_of(error), error.message)
        return None

    async def _keep(self) -> None:
        """Take the keys again whenever they are lost, until cancelled."""
        backoff = Backoff(self._random, first_s=_AGAIN_FIRST_S, cap_s=_AGAIN_CAP_S)
        while True:
            if self._grant is not None:
                # Not awaited itself: who is cancelled would cancel it.
                await asyncio.wait({self._grant.lost})
                _LOG.warning("workflow_lock_lost", workflow_id=self._owner.name, reason=self._grant.lost.result())
                self._grant = None
            if await self._take(None) is None:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_s())
