"""Who waits for whom, and who gives way when they wait in a circle: pure, over one look at the store.

An owner waits for whoever holds, or stood before it in the queue for, a key that it claims and that
the other excludes it from. A circle can close only when somebody begins to wait, for nobody is
ever granted past one that waits: so whoever begins to wait, and has claimed something before,
looks for a circle through itself.

When nobody can go on, the youngest gives way: it has done least, and when it comes again it is
older than what came meanwhile, so it is not chosen for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from coordinator.locks.claims import ClaimView, Owner, conflict


class Wait(NamedTuple):
    """One owner waits for another: with which claim, for which key, and whether the other holds it or waits too."""

    waiter: ClaimView
    key: str
    other: ClaimView

    def words(self) -> str:
        """The wait in a few words, for a person."""
        how = "held by" if self.other.is_granted else "claimed before by"
        return f"{self.waiter.claim.owner.name} waits for {self.key!r} {how} {self.other.claim.owner.name}"


class Victim(NamedTuple):
    """Whose claim gives way, and a sentence that says who waited for whom."""

    claim_id: str
    owner: Owner
    why: str


def waits(views: Sequence[ClaimView]) -> list[Wait]:
    """Every wait, by the place of who waits, then of whom it waits for."""
    claims: defaultdict[str, list[ClaimView]] = defaultdict(list)
    for view in views:
        for key in view.claim.keys:
            claims[key].append(view)
    return [wait for view in views if not view.is_granted for wait in _waits_of(view, claims)]


def find_victim(views: Sequence[ClaimView], owner: str) -> Victim | None:
    """The one to give way of a circle that goes through this owner; None where there is no circle."""
    edges: defaultdict[str, dict[str, Wait]] = defaultdict(dict)
    for wait in waits(views):
        edges[wait.waiter.claim.owner.name].setdefault(wait.other.claim.owner.name, wait)
    circle = _circle(edges, owner)
    if not circle:
        return None
    victim = max(circle, key=lambda wait: (wait.waiter.claim.owner.born_unix_ms, wait.waiter.claim.owner.name))
    loser = victim.waiter.claim.owner
    story = "; ".join(wait.words() for wait in circle)
    return Victim(victim.waiter.claim.id, loser, f"deadlock: {story}; {loser.name} is the youngest and gives way")


def _waits_of(view: ClaimView, claims: Mapping[str, Sequence[ClaimView]]) -> Iterator[Wait]:
    claim = view.claim
    for key in claim.keys:
        others = claims[key]
        is_held_by_owner = any(each.is_granted and each.claim.owner.name == claim.owner.name for each in others)
        for other in others:
            is_before = other.is_granted or (other.place < view.place and not is_held_by_owner)
            if is_before and conflict(claim, other.claim):
                yield Wait(view, key, other)


def _circle(edges: Mapping[str, Mapping[str, Wait]], start: str) -> list[Wait]:
    """A circle of waits from an owner back to itself, found without recursion; empty where there is none."""
    path: list[Wait] = []
    open_: list[Iterator[Wait]] = [iter(list(edges.get(start, {}).values()))]
    seen = {start}
    while open_:
        wait = next(open_[-1], None)
        if wait is None:
            open_.pop()
            if path:
                path.pop()
            continue
        following = wait.other.claim.owner.name
        if following == start:
            return [*path, wait]
        if following not in seen:
            seen.add(following)
            path.append(wait)
            open_.append(iter(list(edges.get(following, {}).values())))
    return []
