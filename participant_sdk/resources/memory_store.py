"""What a memory resource would have on disk: a journal of local transactions, and what a crash leaves of it.

A ``Change`` is one local transaction. ``write`` makes it visible and volatile; ``flush`` makes
durable all that was written before, after passing the gate, which a simulation delays or
never lets through. ``crash`` goes back to what was flushed, plus as many of the oldest
unflushed changes as the disk happened to have written out by itself: a prefix, because a
journal is written in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Branch


class BranchKey(NamedTuple):
    """A branch's name within one participant."""

    log_id: str
    xid: Xid


class RequestKey(NamedTuple):
    """A request's name within one participant."""

    log_id: str
    request: RequestId


class Account(NamedTuple):
    """A balance, and the part of it that prepared branches hold."""

    balance: Decimal
    held: Decimal = Decimal(0)

    @property
    def available(self) -> Decimal:
        """What no branch holds."""
        return self.balance - self.held


class Posting(NamedTuple):
    """One change of one balance: above zero credits, below debits."""

    account: str
    amount: Decimal


class StoredBranch(NamedTuple):
    """A branch and what its commit will post."""

    branch: Branch
    postings: tuple[Posting, ...] = ()


class Effect(NamedTuple):
    """What one commit posted, for whoever checks that effects happen once."""

    key: BranchKey
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One local transaction: rows to write, and the effect that goes with them (R9)."""

    branches: Mapping[BranchKey, StoredBranch] = field(default_factory=dict[BranchKey, StoredBranch])
    accounts: Mapping[str, Account] = field(default_factory=dict[str, Account])
    requests: Mapping[RequestKey, Xid | None] = field(default_factory=dict[RequestKey, "Xid | None"])
    watermarks: Mapping[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    epochs: Mapping[str, int] = field(default_factory=dict[str, int])
    effect: Effect | None = None
    pruned: tuple[BranchKey, ...] = ()


@dataclass(slots=True)
class State:
    """The rows, keyed. Mutable on purpose: a change touches a handful of many."""

    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    branches: dict[BranchKey, StoredBranch] = field(default_factory=dict[BranchKey, StoredBranch])
    requests: dict[RequestKey, Xid | None] = field(default_factory=dict[RequestKey, "Xid | None"])
    watermarks: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    epochs: dict[str, int] = field(default_factory=dict[str, int])
    effects: list[Effect] = field(default_factory=list[Effect])
    # Branches that are not kept any more, because their transactions have ended everywhere.
    pruned: dict[BranchKey, None] = field(default_factory=dict[BranchKey, None])

    def write(self, change: Change) -> None:
        """Make the change."""
        self.branches.update(change.branches)
        self.accounts.update(change.accounts)
        self.requests.update(change.requests)
        self.watermarks.update(change.watermarks)
        self.epochs.update(change.epochs)
        if change.effect is not None:
            self.effects.append(change.effect)
        for key in change.pruned:
            self.branches.pop(key, None)
            self.pruned[key] = None

    def copy(self) -> State:
        """A state with the same rows, which changes apart from this one."""
        return State(
            dict(self.accounts),
            dict(self.branches),
            dict(self.requests),
            dict(self.watermarks),
            dict(self.epochs),
            list(self.effects),
            dict(self.pruned),
        )


async def open_gate() -> None:
    """Let a flush through at once."""


class MemoryStore:
    """The disk of one memory resource; it outlives the resource that uses it.

    ``current`` is what the process sees, ``durable`` what a crash leaves. ``gate`` is awaited once in
    each flush, before anything of it is durable.
    """

    __slots__ = ("_flushing", "_gate", "_pending", "_written", "current", "durable", "opening")

    def __init__(
        self, accounts: Mapping[str, Decimal | int] | None = None, *, gate: Callable[[], Awaitable[None]] = open_gate
    ) -> None:
        self.opening = {name: Decimal(balance) for name, balance in (accounts or {}).items()}
        self.durable = State({name: Account(balance) for name, balance in self.opening.items()})
        self.current = self.durable.copy()
        self._gate = gate
        self._pending: list[Change] = []
        self._written = 0
        self._flushing = asyncio.Lock()

    @property
    def unflushed(self) -> int:
        """How many changes a crash now could lose."""
        return len(self._pending)

    def write(self, change: Change) -> None:
        """Make one change visible, atomically, and not yet durable."""
        self.current.write(change)
        self._pending.append(change)
        self._written += 1

    async def flush(self) -> None:
        """Return once everything written before the call is durable; concurrent calls share rounds.

        A cancelled call leaves its changes visible and unflushed; the next flush takes them along.
        """
        target = self._written
        async with self._flushing:
            if self._written - len(self._pending) < target:
                count = len(self._pending)
                await self._gate()
                self._settle(count)

    def crash(self, *, survivors: int = 0) -> None:
        """Lose what was not flushed, but for the oldest ``survivors`` changes (0 to ``unflushed``).

        The process that used the store must never run again; a new resource starts on what is left.
        """
        if not 0 <= survivors <= len(self._pending):
            raise ValueError(f"{survivors} changes cannot survive, {len(self._pending)} are unflushed")
        self._settle(survivors)
        self._pending.clear()
        self._written = 0
        self.current = self.durable.copy()
        # A task that the crash stopped for ever may hold the old lock.
        self._flushing = asyncio.Lock()

    def _settle(self, count: int) -> None:
        for change in self._pending[:count]:
            self.durable.write(change)
        del self._pending[:count]
