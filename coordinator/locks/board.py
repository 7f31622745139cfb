"""Locks as operators see them: by key, with who holds and who waits, and the hand that breaks one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.errors import RefusedError, UnavailableError
from coordinator.incarnation import IncarnationLife
from coordinator.locks.claims import Claim, ClaimView, Mode
from coordinator.locks.locks import Locks
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError, OperatorAction
from participant_sdk.ids import InvalidIdentifierError, Xid


@dataclass(frozen=True, slots=True)
class LockClaim:
    """One call that holds a key or waits for it. ``token`` is 0 while it waits; ``xid`` None for a workflow.

    ``for_ms`` is how long it has held or waited; ``is_alive``: the incarnation that keeps it is not fenced.
    """

    owner: str
    xid: Xid | None
    mode: Mode
    token: int
    for_ms: int
    ttl_ms: int
    incarnation: int
    is_alive: bool


@dataclass(frozen=True, slots=True)
class LockedKey:
    """One key, who holds it, and who waits for it, first come first."""

    key: str
    holders: tuple[LockClaim, ...]
    waiters: tuple[LockClaim, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """What an operator took: from whom, and every key that was freed, sorted."""

    claims: tuple[LockClaim, ...]
    keys: tuple[str, ...]


class LockBoard:
    """All locks of the store, for people."""

    def __init__(self, locks: Locks, log: DecisionLog, life: IncarnationLife, own: int) -> None:
        self._locks = locks
        self._log = log
        self._life = life
        self._own = own

    async def locked_keys(self, prefix: str, after: str, limit: int) -> Sequence[LockedKey]:
        """Keys that are held or waited for, that begin so and come after this one, by name. UnavailableError."""
        claims: defaultdict[str, list[ClaimView]] = defaultdict(list)
        for view in await self._locks.look():
            for key in view.claim.keys:
                if key > after and key.startswith(prefix):
                    claims[key].append(view)
        return [self._locked(key, claims[key]) for key in sorted(claims)[:limit]]

    async def break_lock(self, key: str, reason: str) -> Broken:
        """Take a key from its holders, once that and the reason are in the log.

        RefusedError where nobody holds it; UnavailableError where the log or the store does not answer, and it may
        have been done.
        """
        held = [view for view in await self._locks.look() if view.is_granted and key in view.claim.keys]
        if not held:
            raise RefusedError(f"nobody holds a lock on {key!r}; look at `pincex locks list`", code="LOCK_NOT_HELD")
        for view in held:
            xid = _xid_of(view.claim)
            detail = f"{key} of {view.claim.owner.name}, with {', '.join(view.claim.keys)}"
            await self._record(OperatorAction("BREAK_LOCK", reason, xid, detail=detail))
        broken = await self._locks.break_key(key, f"an operator broke it: {reason}")
        freed = sorted({each for claim in broken for each in claim.keys})
        return Broken(tuple(self._claim(claim) for claim in broken), tuple(freed))

    async def _record(self, action: OperatorAction) -> None:
        try:
            await self._log.record_action(action)
        except (LogUnavailableError, LogUncertainError) as error:
            raise UnavailableError(f"the lock was not broken: the log does not keep the reason: {error}") from error

    def _locked(self, key: str, views: Sequence[ClaimView]) -> LockedKey:
        told = [(view.is_granted, self._view(view)) for view in views]
        return LockedKey(
            key,
            tuple(claim for is_granted, claim in told if is_granted),
            tuple(claim for is_granted, claim in told if not is_granted),
        )

    def _view(self, view: ClaimView) -> LockClaim:
        return self._claim(view.claim, view.token, view.for_ms, view.ttl_ms)

    def _claim(self, claim: Claim, token: int = 0, for_ms: int = 0, ttl_ms: int = 0) -> LockClaim:
        return LockClaim(
            claim.owner.name,
            _xid_of(claim),
            claim.mode,
            token,
            for_ms,
            ttl_ms,
            claim.holder,
            self._is_alive(claim.holder),
        )

    def _is_alive(self, holder: int) -> bool:
        standing = self._life.standing
        live = () if standing is None else standing.live
        return holder == self._own or any(each.number == holder for each in live)


def _xid_of(claim: Claim) -> Xid | None:
    try:
        return Xid.parse(claim.owner.name)
    except InvalidIdentifierError:
        return None
