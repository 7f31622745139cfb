"""Who waits for whom, and who gives way: over looks at a store, without one."""

from __future__ import annotations

from coordinator.locks.claims import ClaimView, Mode, token_of
from coordinator.locks.deadlock import find_victim, waits
from tests.contract.lock_worlds import claim

SHARED = Mode.SHARED


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
