"""The claims of one coordinator's owners, by id and by owner."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from coordinator.locks.claims import Claim
from coordinator.locks.grants import Grant


class OwnClaim:
    """A claim of this coordinator. Mutable: it waits first, and is held then."""

    __slots__ = ("claim", "entered", "future", "grant", "looked", "trouble", "valid_until_s")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self.grant: Grant | None = None
        # The store has taken it: from then on beats keep it alive.
        self.entered = False
        # Since the store took it, a circle of waits through its owner was looked for.
        self.looked = False
        self.valid_until_s = 0.0
        self.trouble = ""

    def fail(self, error: Exception) -> None:
        """Tell whoever waits for it, unless it was told something before."""
        if not self.future.done():
            self.future.set_exception(error)


class OwnClaims:
    """Those that have not left. Thousands may wait at once, so nothing looks through all of them for an owner's."""

    __slots__ = ("_by_id", "_by_owner")

    def __init__(self) -> None:
        self._by_id: dict[str, OwnClaim] = {}
        self._by_owner: dict[str, dict[str, OwnClaim]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OwnClaim]:
        """Those of this moment; it may be changed meanwhile."""
        return iter(list(self._by_id.values()))

    def __contains__(self, id_: str) -> bool:
        return id_ in self._by_id

    def get(self, id_: str) -> OwnClaim | None:
        """The claim of this id; None if it has left, or is another coordinator's."""
        return self._by_id.get(id_)

    def of(self, owner: str) -> Collection[OwnClaim]:
        """An owner's claims."""
        return self._by_owner.get(owner, {}).values()

    def add(self, claim: Claim) -> OwnClaim:
        """Keep a claim."""
        own = self._by_id[claim.id] = OwnClaim(claim)
        self._by_owner.setdefault(claim.owner.name, {})[claim.id] = own
        return own

    def remove(self, id_: str) -> bool:
        """Forget a claim; whether it was here."""
        own = self._by_id.pop(id_, None)
        if own is None:
            return False
        owner = own.claim.owner.name
        del self._by_owner[owner][id_]
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        return True
