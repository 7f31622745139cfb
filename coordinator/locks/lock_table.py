"""The rules of granting, as a table in memory: deterministic, no I/O.

``lua/prelude.lua`` is the same for Redis. A key has those who hold it and a queue of those who
wait; nobody overtakes anybody who excludes it, so nobody starves. A claim of many keys stands in
every queue, and is granted when nothing stands before it in any.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from coordinator.locks.claims import (
    COUNTER_MAX,
    GONE,
    WAITING,
    WAITING_MAX,
    Claim,
    ClaimView,
    Mode,
    Phase,
    Standing,
    token_of,
)
from coordinator.locks.claims import conflict as excludes


@dataclass(slots=True, eq=False)
class _Entry:
    """A claim in the table; mutable, as its standing changes."""

    claim: Claim
    place: int
    since_s: float
    expires_s: float
    counter: int = 0
    ended: Standing | None = None


@dataclass(slots=True)
class _Key:
    """Who holds a key, and who waits, by place."""

    granted: list[_Entry] = field(default_factory=list[_Entry])
    waiting: list[_Entry] = field(default_factory=list[_Entry])

    def next(self) -> list[_Entry]:
        """Those of the queue who may be free, by place: the rest stands behind one who excludes it.

        Whoever's owner holds the key already, or is among those that may be free, stands behind nobody.
        """
        names = {entry.claim.owner.name for entry in self.granted}
        found: list[_Entry] = []
        is_barred = False
        for entry in self.waiting:
            if not is_barred:
                names.add(entry.claim.owner.name)
            if entry.claim.owner.name in names:
                found.append(entry)
            is_barred = is_barred or entry.claim.mode is Mode.EXCLUSIVE
        return found


class LockTable:
    """All claims of one store. Mutable: it is the store. Times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self.epoch = 0
        # The highest that ever began here: it outlives what the table forgets.
        self.highest_epoch = 0
        self.changed = asyncio.Event()
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[str, _Key] = {}
        self._counter = 0
        self._place = 0
        # Nothing expires before; it may be too early, never too late.
        self._sweep_at_s = math.inf
        # Claims whose standing others changed, by holder.
        self._news: dict[int, set[str]] = {}

    def forget(self) -> None:
        """Lose everything, as a server that is flushed does."""
        self.epoch = 0
        self._entries.clear()
        self._keys.clear()
        self._counter = self._place = 0

    def begin(self, epoch: int) -> None:
        """Begin an epoch with nothing claimed."""
        self.forget()
        self.epoch = self.highest_epoch = epoch

    @property
    def is_used_up(self) -> bool:
        """The epoch has no token left."""
        return self._counter >= COUNTER_MAX

    def claim(self, claim: Claim, ttl_s: float, now_s: float) -> Standing:
        """Do ``claim.lua``."""
        self._sweep(now_s)
        entry = self._entries.get(claim.id)
        if entry is None:
            if any(len(self._keys[key].waiting) >= WAITING_MAX for key in claim.keys if key in self._keys):
                return Standing(Phase.FULL)
            self._place += 1
            entry = self._entries[claim.id] = _Entry(claim, self._place, now_s, now_s + ttl_s)
            for key in claim.keys:
                self._keys.setdefault(key, _Key()).waiting.append(entry)
        return self._refreshed(entry, ttl_s, now_s)

    def beat(self, ids: Iterable[str], ttl_s: float, now_s: float) -> dict[str, Standing]:
        """Do ``beat.lua``."""
        self._sweep(now_s)
        found = {id_: self._entries.get(id_) for id_ in ids}
        return {id_: GONE if each is None else self._refreshed(each, ttl_s, now_s) for id_, each in found.items()}

    def release(self, ids: Collection[str], now_s: float) -> None:
        """Do ``release.lua``."""
        self._sweep(now_s)
        self._drop([entry for id_ in ids if (entry := self._entries.get(id_)) is not None], now_s)

    def condemn(self, id_: str, why: str, now_s: float) -> bool:
        """Do ``condemn.lua``."""
        self._sweep(now_s)
        entry = self._entries.get(id_)
        if entry is None or entry.counter or entry.ended is not None:
            return False
        self._end([entry], Standing(Phase.CONDEMNED, why=why), now_s)
        return True

    def break_key(self, key: str, why: str, now_s: float) -> list[Claim]:
        """Do ``break.lua``."""
        self._sweep(now_s)
        broken = list(self._keys[key].granted) if key in self._keys else []
        self._end(broken, Standing(Phase.BROKEN, why=why), now_s)
        return [entry.claim for entry in broken]

    def look(self, now_s: float) -> list[ClaimView]:
        """Do ``look.lua``."""
        self._sweep(now_s)
        living = sorted((e for e in self._entries.values() if e.ended is None), key=lambda entry: entry.place)
        return [
            ClaimView(
                each.claim,
                token_of(self.epoch, each.counter) if each.counter else 0,
                each.place,
                round((now_s - each.since_s) * 1000),
                round((each.expires_s - now_s) * 1000),
            )
            for each in living
        ]

    def take_news(self, holder: int) -> Collection[str]:
        """Claims of a holder whose standing others changed since the last call."""
        return self._news.pop(holder, set[str]())

    def _refreshed(self, entry: _Entry, ttl_s: float, now_s: float) -> Standing:
        entry.expires_s = now_s + ttl_s
        self._sweep_at_s = min(self._sweep_at_s, entry.expires_s)
        if entry.ended is not None:
            return entry.ended
        if not entry.counter and self._is_free(entry):
            self._grant(entry, now_s)
        return Standing(Phase.GRANTED, token_of(self.epoch, entry.counter)) if entry.counter else WAITING

    def _is_free(self, entry: _Entry) -> bool:
        return not any(self._is_barred(entry, self._keys[key]) for key in entry.claim.keys)

    def _is_barred(self, entry: _Entry, key: _Key) -> bool:
        claim = entry.claim
        if any(excludes(claim, held.claim) for held in key.granted):
            return True
        if any(held.claim.owner.name == claim.owner.name for held in key.granted):
            # Whoever waits for this key waits for its owner already.
            return False
        return any(excludes(claim, other.claim) for other in key.waiting if other.place < entry.place)

    def _grant(self, entry: _Entry, now_s: float) -> None:
        self._counter += 1
        entry.counter, entry.since_s = self._counter, now_s
        for name in entry.claim.keys:
            key = self._keys[name]
            key.waiting.remove(entry)
            key.granted.append(entry)

    def _sweep(self, now_s: float) -> None:
        if now_s < self._sweep_at_s:
            return
        expired = [entry for entry in self._entries.values() if entry.expires_s <= now_s]
        self._drop(expired, now_s)
        self._sweep_at_s = min([entry.expires_s for entry in self._entries.values()], default=math.inf)

    def _drop(self, entries: Collection[_Entry], now_s: float) -> None:
        for entry in entries:
            del self._entries[entry.claim.id]
        self._leave(entries, now_s)

    def _end(self, entries: Collection[_Entry], standing: Standing, now_s: float) -> None:
        for entry in entries:
            self._tell(entry)
        self._leave(entries, now_s)
        for entry in entries:
            entry.ended = standing

    def _leave(self, entries: Collection[_Entry], now_s: float) -> None:
        """Take claims out of their keys, and grant what only they stood in the way of, by place."""
        touched: set[str] = set()
        for entry in entries:
            for name in entry.claim.keys if entry.ended is None else ():
                (self._keys[name].granted if entry.counter else self._keys[name].waiting).remove(entry)
                touched.add(name)
        behind: dict[int, _Entry] = {}
        # Once for each key: many leave a long queue together.
        for name in touched:
            behind.update({other.place: other for other in self._keys[name].next()})
            if not self._keys[name].granted and not self._keys[name].waiting:
                del self._keys[name]
        for place in sorted(behind):
            entry = behind[place]
            if entry not in entries and not entry.counter and self._is_free(entry):
                self._grant(entry, now_s)
                self._tell(entry)

    def _tell(self, entry: _Entry) -> None:
        self._news.setdefault(entry.claim.holder, set()).add(entry.claim.id)
        self.changed.set()
