"""Who waits for whom, and who gives way when they wait in a circle: pure, over one look at the store.

An owner waits for whoever holds, or stood before it in the queue for, a key that it claims and that
the other excludes it from. A circle can close only when somebody begins to wait, for nobody is
ever granted past one that waits: so whoever begins to wait, and has claimed something before,
looks for a circle through itself.

The shortest circle is taken, for whoever stands in a longer one beside it may be there in vain.
When nobody can go on, the youngest gives way: it has done least, and when it comes again it is
older than what came meanwhile, so it is not chosen for ever.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coordinator.locks.claims import ClaimView, Mode, Owner, conflict


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


class Waits:
    """Who waits for whom in one look at the store, whose claims come by place.

    A queue of n has n²/2 waits, so they are worked out when they are asked for, and never all at once.
    """

    def __init__(self, views: Sequence[ClaimView]) -> None:
        self._waiting: dict[str, ClaimView] = {}
        self._of_owner: defaultdict[str, list[ClaimView]] = defaultdict(list)
        self._holders: defaultdict[str, list[ClaimView]] = defaultdict(list)
        self._holding: defaultdict[str, set[str]] = defaultdict(set)
        self._queues: defaultdict[str, list[ClaimView]] = defaultdict(list)
        for view in views:
            if not view.is_granted:
                self._waiting[view.claim.id] = view
                self._of_owner[view.claim.owner.name].append(view)
            for key in view.claim.keys:
                if view.is_granted:
                    self._holders[key].append(view)
                    self._holding[key].add(view.claim.owner.name)
                else:
                    self._queues[key].append(view)

    def of(self, claim_id: str) -> Iterator[Wait]:
        """What one claim waits for, those who hold a key before those who wait for it; nothing if it does not wait."""
        view = self._waiting.get(claim_id)
        return iter(()) if view is None else self._of(view, {})

    def victim(self, owner: str) -> Victim | None:
        """The one to give way of a circle that goes through this owner; None where there is no circle."""
        circle = self._circle(owner)
        if not circle:
            return None
        last = max(circle, key=lambda wait: (wait.waiter.claim.owner.born_unix_ms, wait.waiter.claim.owner.name))
        loser = last.waiter.claim.owner
        story = "; ".join(wait.words() for wait in circle)
        return Victim(last.waiter.claim.id, loser, f"deadlock: {story}; {loser.name} is the youngest and gives way")

    def _circle(self, start: str) -> list[Wait]:
        """The shortest circle of waits from an owner back to itself; empty where there is none."""
        reached_by: dict[str, Wait | None] = {start: None}
        open_ = deque([start])
        done: dict[tuple[str, Mode], int] = {}
        while open_:
            name = open_.popleft()
            for view in self._of_owner[name]:
                # What it waits for in front of itself says nothing of who waits for it there.
                for wait in self._of(view, {} if name == start else done):
                    following = wait.other.claim.owner.name
                    if following == start:
                        return _path(reached_by, wait)
                    if following not in reached_by:
                        reached_by[following] = wait
                        open_.append(following)
        return []

    def _of(self, view: ClaimView, done: dict[tuple[str, Mode], int]) -> Iterator[Wait]:
        """What a claim waits for, but for what was found before from a claim of its mode for the same key.

        ``done`` says how much that is, and is written: all who hold the key, and so many of its queue.
        """
        claim = view.claim
        for key in claim.keys:
            holders, queue = self._holders[key], self._queues[key]
            found = done.get((key, claim.mode))
            done[key, claim.mode] = found or 0
            if found is None:
                yield from (Wait(view, key, other) for other in holders if conflict(claim, other.claim))
            if claim.owner.name in self._holding[key]:
                # Whoever waits for this key waits for its owner already.
                continue
            for at in range(found or 0, len(queue)):
                if queue[at].place >= view.place:
                    break
                done[key, claim.mode] = at + 1
                if conflict(claim, queue[at].claim):
                    yield Wait(view, key, queue[at])


def _path(reached_by: dict[str, Wait | None], last: Wait) -> list[Wait]:
    """The waits from where it began, up to this one."""
    path = [last]
    while (before := reached_by[path[-1].waiter.claim.owner.name]) is not None:
        path.append(before)
    return path[::-1]
