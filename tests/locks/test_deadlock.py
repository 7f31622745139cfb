"""Who waits for whom, and who gives way: over looks at a store, without one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from coordinator.locks.claims import ClaimView, Mode, conflict, token_of
from coordinator.locks.deadlock import Victim, Wait, Waits
from coordinator.locks.lock_table import LockTable
from tests.contract.lock_worlds import claim

SHARED = Mode.SHARED


def find_victim(views: Sequence[ClaimView], owner: str) -> Victim | None:
    return Waits(views).victim(owner)


def waits(views: Sequence[ClaimView]) -> list[Wait]:
    found = Waits(views)
    return [wait for view in views for wait in found.of(view.claim.id)]


def holds(place: int, owner: str, *keys: str, born: int = 1, mode: Mode = Mode.EXCLUSIVE) -> ClaimView:
    return ClaimView(claim(f"{owner}{place}", owner, *keys, born=born, mode=mode), token_of(1, place), place, 0, 0)


def awaits(place: int, owner: str, *keys: str, born: int = 1, mode: Mode = Mode.EXCLUSIVE) -> ClaimView:
    return ClaimView(claim(f"{owner}{place}", owner, *keys, born=born, mode=mode), 0, place, 0, 0)


def test_a_circle_of_two_is_found_from_either_and_the_youngest_gives_way() -> None:
    views = [
        holds(1, "A", "k", born=1),
        holds(2, "B", "l", born=2),
        awaits(3, "A", "l", born=1),
        awaits(4, "B", "k", born=2),
    ]
    for owner in "AB":
        victim = find_victim(views, owner)
        assert victim is not None
        assert (victim.claim_id, victim.owner.name) == ("B4", "B")
        assert "A waits for 'l' held by B" in victim.why
        assert "B waits for 'k' held by A" in victim.why
        assert "B is the youngest" in victim.why


def test_of_the_same_age_the_higher_name_gives_way_whoever_looks() -> None:
    views = [holds(1, "A", "k"), holds(2, "B", "l"), awaits(3, "A", "l"), awaits(4, "B", "k")]
    found = [find_victim(views, owner) for owner in "AB"]
    assert [each.owner.name for each in found if each] == ["B", "B"]


def test_a_long_circle_is_found_among_others_that_wait() -> None:
    names = [f"T{number:02}" for number in range(40)]
    views = [holds(at + 1, name, f"k{at}", born=at) for at, name in enumerate(names)]
    views += [
        awaits(100 + at, name, f"k{(at + 1) % len(names)}", f"free{at}", born=at) for at, name in enumerate(names)
    ]
    views += [awaits(200 + at, f"W{at}", "k0", born=1000 + at) for at in range(20)]
    victim = find_victim(views, "T07")
    assert victim is not None
    assert victim.owner.name == "T39"
    assert find_victim(views, "W3") is None


def test_a_queue_is_no_circle() -> None:
    views = [holds(1, "A", "k"), awaits(2, "B", "k"), awaits(3, "C", "k")]
    assert [find_victim(views, owner) for owner in "ABC"] == [None, None, None]
    assert [(wait.waiter.claim.owner.name, wait.other.claim.owner.name) for wait in waits(views)] == [
        ("B", "A"),
        ("C", "A"),
        ("C", "B"),
    ]


def test_a_circle_through_the_queue_counts() -> None:
    """B waits behind C, which came before it and waits for A, which waits for B."""
    views = [
        holds(1, "A", "k", born=1),
        holds(2, "B", "l", born=2),
        awaits(3, "C", "k", "m", born=3),
        awaits(4, "B", "m", born=2),
        awaits(5, "A", "l", born=1),
    ]
    victim = find_victim(views, "A")
    assert victim is not None
    assert victim.owner.name == "C"
    assert "B waits for 'm' claimed before by C" in victim.why


def test_two_sharers_that_both_want_the_key_alone_wait_in_a_circle() -> None:
    views = [
        holds(1, "A", "k", mode=SHARED),
        holds(2, "B", "k", mode=SHARED),
        awaits(3, "A", "k"),
        awaits(4, "B", "k"),
    ]
    victim = find_victim(views, "B")
    assert victim is not None
    assert victim.claim_id == "B4"


def test_a_holder_waits_for_nobody_in_the_queue_of_its_own_key() -> None:
    views = [
        holds(1, "A", "k", mode=SHARED),
        holds(2, "B", "k", mode=SHARED),
        awaits(3, "C", "k"),
        awaits(4, "A", "k"),
    ]
    assert [wait.other.claim.owner.name for wait in waits(views) if wait.waiter.claim.owner.name == "A"] == ["B"]
    assert find_victim(views, "A") is None


def test_owners_do_not_wait_for_themselves_and_sharers_not_for_each_other() -> None:
    views = [
        holds(1, "A", "k"),
        awaits(2, "A", "k"),
        holds(3, "B", "l", mode=SHARED),
        awaits(4, "C", "l", mode=SHARED),
    ]
    assert waits(views) == []


def test_the_shortest_circle_is_taken_so_that_nobody_gives_way_in_vain() -> None:
    """Whoever stands in the queue between the two waits in a longer circle; to end it would help nobody."""
    views = [holds(1, "A", "k", born=1), holds(2, "B", "l", born=2)]
    views += [awaits(10 + at, f"Q{at}", "k", born=100 + at) for at in range(20)]
    views += [awaits(50, "B", "k", born=2), awaits(51, "A", "l", born=1)]
    for owner in "AB":
        victim = find_victim(views, owner)
        assert victim is not None
        assert victim.claim_id == "B50"


def test_what_random_owners_wait_for_is_found_as_by_looking_at_every_pair() -> None:
    """The search leaves out what it has seen: against one that leaves out nothing, over many tables."""
    circles = 0
    for seed in range(400):
        rng = random.Random(seed)
        table = LockTable()
        table.begin(1)
        for at in range(rng.randrange(4, 16)):
            keys = rng.sample("klmn", rng.randrange(1, 4))
            table.claim(claim(f"c{at}", rng.choice("ABCDE"), *keys, mode=rng.choice(list(Mode)), born=at), 60.0, 0.0)
        views = table.look(0.0)
        edges = every_wait(views)
        for owner in "ABCDE":
            victim = find_victim(views, owner)
            length = circle_length(edges, owner)
            assert (0 if victim is None else victim.why.count(" waits for ")) == length, (seed, owner)
            circles += length > 0
    assert circles > 100


def test_a_long_queue_is_searched_in_as_many_steps_as_it_is_long() -> None:
    """Each pair of a queue would be half a million steps for a thousand, while nothing else of the coordinator runs."""

    class Counted(str):
        __slots__ = ()
        compared = 0

        def __ne__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__ne__(self, other)

        __hash__ = str.__hash__

    views = [holds(1, Counted("A"), "k"), holds(2, Counted("B"), "l")]
    views += [
        awaits(10 + at, Counted(f"Q{at}"), "k", mode=mode) for at, mode in enumerate([Mode.EXCLUSIVE, SHARED] * 200)
    ]
    views += [awaits(1000, Counted("B"), "k")]
    assert find_victim(views, "B") is None
    assert 400 <= Counted.compared <= 5 * len(views)


def every_wait(views: Sequence[ClaimView]) -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for view in views:
        for key in view.claim.keys if not view.is_granted else ():
            others = [other for other in views if key in other.claim.keys]
            is_holder = any(other.is_granted and other.claim.owner.name == view.claim.owner.name for other in others)
            names = {
                other.claim.owner.name
                for other in others
                if conflict(view.claim, other.claim)
                and (other.is_granted or (other.place < view.place and not is_holder))
            }
            edges.setdefault(view.claim.owner.name, set()).update(names)
    return edges


def circle_length(edges: dict[str, set[str]], owner: str) -> int:
    """How many waits the shortest circle through an owner has; 0 where there is none."""
    reached, length = {owner}, 0
    while reached:
        length += 1
        reached = {following for name in reached for following in edges.get(name, ())}
        if owner in reached:
            return length
        if length > len(edges):
            return 0
    return 0
