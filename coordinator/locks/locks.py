"""Locks for owners of one coordinator: patience, heartbeats, deadlocks, and the signal that a lock is lost.

Every claim that is held or waited for is kept alive by one heartbeat for all. What others change
(a grant, an end) the store tells as news; a heartbeat tells the same again, so lost news costs a
third of the TTL. When the store does not answer for a whole TTL, what is held counts as lost:
somebody else may be granted it.

Losing the store loses time, never correctness or money: a transaction that finds its lock lost
before it commits is rolled back and may be sent again, and one that had begun to prepare is
protected, as without any lock, by the reservations that its participants made. Locks save the
retries that those reservations would refuse. A participant that checks fencing tokens refuses
whoever held a key before its last holder that it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

from coordinator.errors import BusyError, DeadlockError, LockTimeoutError, TransactionError, UnavailableError
from coordinator.locks.claims import Claim, ClaimView, Mode, Owner, Phase, Standing, sorted_keys
from coordinator.locks.grants import Grant
from coordinator.locks.lock_store import LockStore, LockStoreUnavailableError
from coordinator.locks.looks import Looks
from coordinator.locks.own_claims import OwnClaim, OwnClaims
from coordinator.telemetry import Telemetry
from participant_sdk.backoff import Backoff
from participant_sdk.clock import Clock

BEATS_PER_TTL: Final = 3
BEAT_AT_ONCE: Final = 250
NEWS_WITHIN_S: Final = 1.0
AGAIN_FIRST_S: Final = 0.02
AGAIN_CAP_S: Final = 0.5
VICTIMS_MAX: Final = 10
BUSY_RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LockSettings:
    """How locks are set. ``lock_timeout_s`` is for whoever names no time-out."""

    ttl_s: float = 15.0
    lock_timeout_s: float = 10.0
    deadlock_detection: bool = True


DEFAULT_LOCKS: Final = LockSettings()


class Locks:
    """The locks of one coordinator's owners. ``run`` must run for anything to be kept."""

    def __init__(
        self,
        store: LockStore,
        holder: int,
        settings: LockSettings,
        *,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self.settings = settings
        self._store = store
        self._holder = holder
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._looks = Looks(store)
        self._claims = OwnClaims()
        self._count = 0
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._left = asyncio.Event()
        # Set when there may be a claim.
        self._used = asyncio.Event()
        self._beat_soon = asyncio.Event()

    # What owners ask.

    async def acquire(
        self, owner: Owner, keys: Sequence[str], mode: Mode = Mode.EXCLUSIVE, timeout_s: float | None = None
    ) -> Grant:
        """Hold all of these keys, or none: wait for them for so long, ``lock_timeout`` where it is not said.

        LockTimeoutError, DeadlockError, BusyError (too many wait), UnavailableError (the store). A cancelled caller
        holds nothing and waits for nothing.
        """
        self._count += 1
        claim = Claim(f"{self._holder}-{self._count}", owner, sorted_keys(keys), mode, self._holder)
        held = self._claims.add(claim)
        self._used.set()
        began_s = self._clock.monotonic_s()
        within_s = self.settings.lock_timeout_s if timeout_s is None else timeout_s
        result = "cancelled"
        try:
            async with asyncio.timeout(within_s):
                await self._enter(held)
                grant = await held.future
            result = "granted"
        except TimeoutError:
            result = "unavailable" if held.trouble else "timeout"
            raise await self._too_late(held, within_s) from None
        except DeadlockError:
            result = "deadlock"
            raise
        except TransactionError as error:
            result = "full" if isinstance(error, BusyError) else "withdrawn"
            raise
        finally:
            self._telemetry.lock_waited(result, self._clock.monotonic_s() - began_s)
            if result != "granted":
                self._leave(claim.id)
        return grant

    @asynccontextmanager
    async def holding(
        self, owner: Owner, keys: Sequence[str], mode: Mode = Mode.EXCLUSIVE, timeout_s: float | None = None
    ) -> AsyncGenerator[Grant]:
        """Hold keys for the time of a block. Errors as for ``acquire``; look at ``grant.lost`` on the way."""
        grant = await self.acquire(owner, keys, mode, timeout_s)
        try:
            yield grant
        finally:
            self.release(grant)

    def release(self, grant: Grant) -> asyncio.Future[None]:
        """Let go; the future is done once the store has. It need not be awaited: without it nothing is held on to."""
        return self._leave(grant.claim.id)

    def withdraw(self, owner: str, error: TransactionError) -> None:
        """Have everything that an owner waits for fail with this error."""
        for held in self._claims.of(owner):
            if held.grant is None:
                held.fail(error)

    async def look(self) -> Sequence[ClaimView]:
        """Every claim that holds or waits, of every coordinator of this store. UnavailableError."""
        try:
            return await self._store.look()
        except LockStoreUnavailableError as error:
            raise _unavailable(error) from error

    async def break_key(self, key: str, why: str) -> Sequence[Claim]:
        """Take a key from whoever holds it, with the other keys of the same call; return those. UnavailableError."""
        try:
            return await self._store.break_key(key, why)
        except LockStoreUnavailableError as error:
            raise _unavailable(error) from error

    def count(self, *, is_granted: bool) -> int:
        """How many claims this coordinator's owners hold, or wait for."""
        return sum(1 for held in self._claims if (held.grant is not None) is is_granted)

    # What keeps them.

    async def run(self) -> None:
        """Keep claims alive, take news, send departures; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat_for_ever())
            tasks.create_task(self._hear_for_ever())
            tasks.create_task(self._depart_for_ever())

    async def close(self) -> None:
        """Let go of the store. What is held ends with its TTL, or when another coordinator finds it expired."""
        await self._store.close()

    async def _enter(self, held: OwnClaim) -> None:
        """Have the store take a claim, however often that has to be asked."""
        backoff = self._backoff()
        while not held.future.done():
            try:
                await self._claim(held)
                if not held.future.done():
                    await self._untangle(held)
            except LockStoreUnavailableError as error:
                held.trouble = str(error)
                await backoff.wait()
            else:
                return

    async def _untangle(self, held: OwnClaim) -> None:
        """Have whoever is to give way do so, while this claim's owner waits in a circle."""
        owner = held.claim.owner.name
        if not self.settings.deadlock_detection or len(self._claims.of(owner)) <= 1:
            # Who has claimed nothing else is waited for by nobody.
            held.looked = True
            return
        for _ in range(VICTIMS_MAX):
            victim = (await self._looks.next()).victim(owner)
            if victim is None:
                held.looked = True
                return
            if await self._store.condemn(victim.claim_id, victim.why):
                self._telemetry.deadlock_broken()
                if (own := self._claims.get(victim.claim_id)) is not None:
                    self._apply(own, Standing(Phase.CONDEMNED, why=victim.why), 0.0)

    def _apply(self, held: OwnClaim, standing: Standing, sent_s: float) -> None:
        """Take where a claim stands, as the store told in answer to what was sent then."""
        match standing.phase:
            case Phase.GRANTED:
                held.valid_until_s = sent_s + self.settings.ttl_s
                if held.grant is None and not held.future.done():
                    held.grant = Grant(held.claim, standing.token)
                    held.future.set_result(held.grant)
                elif held.grant is not None and held.grant.token != standing.token:
                    self._lose(held, "the store granted it anew", "lost")
            case Phase.WAITING:
                pass
            case Phase.CONDEMNED:
                held.fail(DeadlockError(standing.why))
            case Phase.FULL:
                held.fail(_full(held.claim))
            case Phase.BROKEN:
                self._lose(held, standing.why, "broken")
            case Phase.GONE:
                self._lose(held, "the lock store does not know it any more", "lost")

    def _lose(self, held: OwnClaim, why: str, cause: str) -> None:
        """What is held is lost; what waits has to be claimed again, which the next beat does."""
        if held.grant is None:
            held.entered = held.looked = False
            self._beat_soon.set()
            return
        self._leave(held.claim.id)
        if not held.grant.lost.done():
            self._telemetry.lock_lost(cause)
            held.grant.lost.set_result(why)

    def _leave(self, id_: str) -> asyncio.Future[None]:
        """Have the store forget a claim, soon."""
        if (going := self._leaving.get(id_)) is not None:
            return going
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._claims.remove(id_):
            gone.set_result(None)
            return gone
        self._leaving[id_] = gone
        self._left.set()
        return gone

    async def _depart_for_ever(self) -> None:
        backoff = self._backoff()
        while True:
            self._left.clear()
            if not self._leaving:
                await self._left.wait()
            going = dict(islice(self._leaving.items(), BEAT_AT_ONCE))
            try:
                await self._store.release(going)
            except LockStoreUnavailableError:
                # They expire by themselves as well; it is asked again because others wait.
                await backoff.wait()
                continue
            backoff.reset()
            for id_, gone in going.items():
                # What came back meanwhile, because it was claimed again on its way out, leaves again.
                if self._leaving[id_] is gone:
                    del self._leaving[id_]
                if not gone.done():
                    gone.set_result(None)

    async def _until_used(self) -> None:
        """Return once there is a claim: a store that nobody uses is left alone."""
        while not self._claims:
            self._used.clear()
            await self._used.wait()

    async def _hear_for_ever(self) -> None:
        backoff = self._backoff()
        while True:
            await self._until_used()
            try:
                told = await self._store.news(NEWS_WITHIN_S)
                await self._beat([own for id_ in told if (own := self._claims.get(id_)) is not None])
            except LockStoreUnavailableError:
                self._beat_soon.set()
                await backoff.wait()
            else:
                backoff.reset()

    async def _beat_for_ever(self) -> None:
        backoff = self._backoff()
        pause_s = self.settings.ttl_s / BEATS_PER_TTL
        while True:
            await self._until_used()
            try:
                await self._beat(list(self._claims))
                await self._enter_again()
                backoff.reset()
                wait_s = pause_s
            except LockStoreUnavailableError as error:
                self._mark(str(error))
                wait_s = min(pause_s, backoff.next_s())
            self._beat_soon.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._beat_soon.wait()
            except TimeoutError:
                continue

    async def _beat(self, claims: Collection[OwnClaim]) -> None:
        known = [held for held in claims if held.entered]
        for at in range(0, len(known), BEAT_AT_ONCE):
            part = known[at : at + BEAT_AT_ONCE]
            sent_s = self._clock.monotonic_s()
            told = await self._store.beat([held.claim.id for held in part], self.settings.ttl_s)
            for held in part:
                if held.claim.id in self._claims:
                    self._apply(held, told[held.claim.id], sent_s)

    async def _enter_again(self) -> None:
        """Claim again what waited when the store lost it, and look for circles that nobody has looked for."""
        for held in self._claims:
            if not held.entered and self._waits(held):
                await self._claim(held)
        for held in self._claims:
            if held.entered and not held.looked and self._waits(held):
                await self._untangle(held)

    def _waits(self, held: OwnClaim) -> bool:
        return held.grant is None and not held.future.done() and held.claim.id in self._claims

    async def _claim(self, held: OwnClaim) -> None:
        sent_s = self._clock.monotonic_s()
        standing = await self._store.claim(held.claim, self.settings.ttl_s)
        held.trouble, held.entered = "", True
        if held.claim.id in self._claims:
            self._apply(held, standing, sent_s)
        else:
            # It was left while it was being claimed, and perhaps in the other order at the store.
            self._leaving[held.claim.id] = asyncio.get_running_loop().create_future()
            self._left.set()

    def _mark(self, trouble: str) -> None:
        """The store does not answer: what it may have given to others by now is lost."""
        now_s = self._clock.monotonic_s()
        for held in self._claims:
            if held.grant is not None and now_s >= held.valid_until_s:
                self._lose(held, f"it could not be kept alive: {trouble}", "unreachable")

    async def _too_late(self, held: OwnClaim, within_s: float) -> LockTimeoutError | UnavailableError:
        keys = ", ".join(held.claim.keys)
        if held.trouble:
            return UnavailableError(f"the lock on {keys} was not granted within {within_s:g} s: {held.trouble}")
        return LockTimeoutError(f"the lock on {keys} was not granted within {within_s:g} s{await self._barring(held)}")

    async def _barring(self, held: OwnClaim) -> str:
        """Who stands in a claim's way, in words; nothing where that cannot be told."""
        try:
            async with asyncio.timeout(NEWS_WITHIN_S):
                found = next((await self._looks.next()).of(held.claim.id), None)
        except (LockStoreUnavailableError, TimeoutError):
            return ""
        return f": {found.words()}" if found else ""

    def _backoff(self) -> Backoff:
        return Backoff(self._random, first_s=AGAIN_FIRST_S, cap_s=AGAIN_CAP_S)


def _unavailable(error: LockStoreUnavailableError) -> UnavailableError:
    return UnavailableError(f"the lock store cannot be reached: {error}")


def _full(claim: Claim) -> BusyError:
    keys = ", ".join(claim.keys)
    return BusyError(f"as many wait for {keys} as may; send again later", retry_after_s=BUSY_RETRY_AFTER_S)
