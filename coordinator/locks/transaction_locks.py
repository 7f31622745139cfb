"""Transactions' locks: taken before Prepare or step by step, let go when the transaction has finished.

A transaction is the owner of its locks by its xid, and holds them until every branch has
acknowledged, however that went. One that is chosen to give way in a circle of waits is rolled back
at once, with the reason DEADLOCK, which lets the others go on. One that loses a lock before it
commits is left no end but rollback: it believed to be alone. Afterwards a lost lock changes nothing:
the reservations of the participants hold what was promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from coordinator.engine import Engine
from coordinator.errors import (
    BusyError,
    DeadlockError,
    InvalidRequestError,
    LockLostError,
    LockTimeoutError,
    TransactionError,
    UnavailableError,
)
from coordinator.locks.claims import KEYS_MAX, Mode, Owner
from coordinator.locks.grants import Grant
from coordinator.locks.locks import Locks
from coordinator.protocol.effects import Refusal
from coordinator.protocol.phases import Phase
from coordinator.refusals import refused
from coordinator.requests import ExecuteCall
from coordinator.running import Running
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import FencingToken

# A wait ends a little before the transaction's deadline, so that it is told what was waited for.
OF_DEADLINE: Final = 0.95
STORE_UNAVAILABLE: Final = "LOCK_STORE_UNAVAILABLE"
_QUEUED_MAX: Final = 100_000


class TransactionLocks:
    """The locks of one incarnation's transactions. ``run`` must run for ``lock_keys`` to be taken."""

    def __init__(self, engine: Engine, locks: Locks, clock: Clock) -> None:
        self._engine = engine
        self._locks = locks
        self._clock = clock
        self._grants: dict[Xid, list[Grant]] = {}
        # Calls to lock and then to commit. The engine bounds what it lets in, and this by it.
        self._asked: asyncio.Queue[tuple[Xid, ExecuteCall]] = asyncio.Queue(_QUEUED_MAX)
        engine.connect_locks(self._take, self._drop)

    async def run(self) -> None:
        """Lock for transactions that named their keys, each by itself, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                xid, call = await self._asked.get()
                tasks.create_task(self._lock_and_commit(xid, call))

    async def acquire(
        self, xid: Xid, keys: Sequence[str], mode: Mode = Mode.EXCLUSIVE, timeout_s: float | None = None
    ) -> Grant:
        """Hold keys for an active transaction until it has finished.

        UnknownTransactionError, WrongPhaseError (also where it ended while it waited), InvalidRequestError (more
        keys than one may hold), LockTimeoutError, BusyError, UnavailableError; DeadlockError once it is rolled back.
        """
        running = self._active(xid)
        self._check_count(xid, keys)
        running.locks = True
        left_s = running.transaction.deadline_s - self._clock.monotonic_s()
        within_s = min(left_s * OF_DEADLINE, self._locks.settings.lock_timeout_s if timeout_s is None else timeout_s)
        running.locking = ", ".join(sorted(set(keys)))
        running.tell(self._clock.unix_ms(), "locking", "", running.locking)
        try:
            grant = await self._locks.acquire(Owner(str(xid), xid.unix_ms), keys, mode, within_s)
        except DeadlockError as error:
            self._end(xid, error.message, error.reason)
            raise DeadlockError(f"transaction {xid} is rolled back: {error.message}", xid=xid) from error
        except (LockTimeoutError, BusyError, UnavailableError) as error:
            # Told at the door with the transaction that it is about.
            error.xid = xid
            raise
        finally:
            running.locking = ""
        self._keep(self._active_or_release(xid, grant), grant)
        return grant

    async def begin(self, xid: Xid, keys: Sequence[str]) -> None:
        """Hold keys for a transaction that has just begun, or end it: errors as for ``acquire``."""
        if any(set(keys) <= set(grant.keys) for grant in self._grants.get(xid, ())):
            # Begin was asked again, because its answer was lost.
            return
        try:
            await self.acquire(xid, keys)
        except TransactionError as error:
            self._end(xid, error.message, code_of(error))
            raise

    async def release(self, xid: Xid, token: int = 0) -> list[str]:
        """Let go of what one call of a transaction locked, or of all; return the keys. Errors as of ``acquire``."""
        running = self._active(xid)
        grants = self._grants.get(xid, [])
        going = [grant for grant in grants if token in (0, grant.token)]
        self._grants[xid] = [grant for grant in grants if grant not in going]
        self._show(running)
        await asyncio.gather(*(self._locks.release(grant) for grant in going))
        return sorted({key for grant in going for key in grant.keys})

    def _take(self, running: Running, call: ExecuteCall) -> None:
        running.locks = True
        self._asked.put_nowait((running.transaction.xid, call))

    def _drop(self, running: Running) -> None:
        """The transaction has finished, and whatever it waits for it waits for in vain."""
        xid = running.transaction.xid
        self._locks.withdraw(str(xid), refused(running.transaction, Refusal.NOT_ACTIVE))
        for grant in self._grants.pop(xid, ()):
            self._locks.release(grant)

    async def _lock_and_commit(self, xid: Xid, call: ExecuteCall) -> None:
        try:
            await self.acquire(xid, call.lock_keys)
        except TransactionError as error:
            self._end(xid, error.message, code_of(error))
        else:
            self._engine.commit(xid, wait_applied=call.wait_applied)

    def _end(self, xid: Xid, message: str, code: str) -> None:
        """Roll back a transaction that does not get its locks; nothing where it ended by itself."""
        running = self._engine.find(xid)
        if running is not None and running.transaction.phase is Phase.ACTIVE:
            self._engine.rollback(xid, message, code)

    def _active(self, xid: Xid) -> Running:
        running = self._engine.held(xid)
        if running.transaction.phase is not Phase.ACTIVE:
            raise refused(running.transaction, Refusal.NOT_ACTIVE)
        return running

    def _active_or_release(self, xid: Xid, grant: Grant) -> Running:
        try:
            return self._active(xid)
        except TransactionError:
            self._locks.release(grant)
            raise

    def _check_count(self, xid: Xid, keys: Sequence[str]) -> None:
        held = {key for grant in self._grants.get(xid, ()) for key in grant.keys}
        if len(held.union(keys)) > KEYS_MAX:
            raise InvalidRequestError(
                f"a transaction holds at most {KEYS_MAX} keys; this one holds {len(held)}",
                field="keys",
                code="LOCK_KEY_COUNT",
                xid=xid,
            )

    def _keep(self, running: Running, grant: Grant) -> None:
        xid = running.transaction.xid
        self._grants.setdefault(xid, []).append(grant)
        self._show(running)
        running.tell(self._clock.unix_ms(), "locked", "", ", ".join(grant.keys))
        grant.lost.add_done_callback(lambda lost: self._lost(xid, grant, lost.result()))

    def _lost(self, xid: Xid, grant: Grant, why: str) -> None:
        running = self._engine.find(xid)
        if running is None:
            return
        keys = ", ".join(grant.keys)
        running.tell(self._clock.unix_ms(), "lock_lost", "", f"{keys}: {why}")
        if running.transaction.phase is Phase.ACTIVE:
            self._engine.set_rollback_only(xid, f"{LockLostError.reason}: the lock on {keys} was lost: {why}")

    def _show(self, running: Running) -> None:
        """Have Prepare show a token for each key, the highest; an exclusive one where there are both."""
        tokens: dict[str, FencingToken] = {}
        for grant in self._grants.get(running.transaction.xid, ()):
            for key in grant.keys:
                shared = grant.claim.mode is Mode.SHARED and tokens.get(key, _SHARED).shared
                tokens[key] = FencingToken(key, grant.token, shared)
        running.fencing_tokens = tuple(tokens.values())


_SHARED: Final = FencingToken("", 0, shared=True)


def code_of(error: TransactionError) -> str:
    """The stable reason of who did not get the locks."""
    match error:
        case DeadlockError():
            return error.reason
        case LockTimeoutError() | BusyError():
            return LockTimeoutError.reason
        case _:
            return STORE_UNAVAILABLE
