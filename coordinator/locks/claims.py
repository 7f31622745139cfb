"""What is asked of a lock store and what it answers: plain values, without I/O.

A claim is one call for one or many keys: it is granted all of them, or waits for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

KEYS_MAX: Final = 100
KEY_MAX_CHARS: Final = 200
WAITING_MAX: Final = 1_000
COUNTER_BITS: Final = 30
COUNTER_MAX: Final = 2**COUNTER_BITS - 1


class Mode(IntEnum):
    """How a key is held. The numbers are the wire's and the store's."""

    SHARED = 1
    EXCLUSIVE = 2


class Phase(IntEnum):
    """Where a claim stands. The numbers are the store's.

    CONDEMNED: it waited in a circle, and is the one to give way. BROKEN: an operator took its keys away.
    GONE: the store does not know it: it expired, or the store lost what it knew. FULL: it was not taken, because
    as many as may wait for one of its keys do.
    """

    WAITING = 1
    GRANTED = 2
    CONDEMNED = 3
    BROKEN = 4
    GONE = 5
    FULL = 6


class Owner(NamedTuple):
    """Whose locks they are: a transaction's (its xid's text) or a workflow's.

    Claims of one owner never wait for each other. ``born_unix_ms`` is when it began: the youngest of those that
    wait in a circle gives way.
    """

    name: str
    born_unix_ms: int


class Claim(NamedTuple):
    """One call: the keys sorted and without repetition. ``holder`` is the incarnation that keeps it alive."""

    id: str
    owner: Owner
    keys: tuple[str, ...]
    mode: Mode
    holder: int


class Standing(NamedTuple):
    """Where a claim stands. ``token`` is the fencing token of a granted one; ``why`` says why one was ended."""

    phase: Phase
    token: int = 0
    why: str = ""


class ClaimView(NamedTuple):
    """A living claim as the store sees it.

    ``place`` rises in the order of arrival. ``for_ms`` is how long it has been held, or has waited.
    """

    claim: Claim
    token: int
    place: int
    for_ms: int
    ttl_ms: int

    @property
    def is_granted(self) -> bool:
        """It holds its keys; else it waits for them."""
        return self.token > 0


GONE: Final = Standing(Phase.GONE)
WAITING: Final = Standing(Phase.WAITING)


def token_of(epoch: int, counter: int) -> int:
    """A fencing token: the epoch above, the count of grants within it below. 63 bits until the year 2242."""
    if not 0 < counter <= COUNTER_MAX or not 0 < epoch < 2 ** (63 - COUNTER_BITS):
        raise ValueError(f"no fencing token has epoch {epoch} and count {counter}")
    return epoch << COUNTER_BITS | counter


def sorted_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys as a claim has them."""
    return tuple(sorted(set(keys)))


def conflict(one: Claim, other: Claim) -> bool:
    """Whether two claims to one key exclude each other."""
    return one.owner.name != other.owner.name and Mode.EXCLUSIVE in (one.mode, other.mode)
