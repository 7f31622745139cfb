"""The circuit breaker: what opens it, what it lets through, what closes it again."""

from __future__ import annotations

import random
from typing import Final

import pytest

from participant_sdk.backoff import Backoff
from participant_sdk.breaker import COOL_DOWN_FIRST_S, FAILURES_MAX, PROBE_S, Breaker, BreakerState
from participant_sdk.ids import Xid
from tests.sdk.peers import new_xid

CAP_S: Final = 4.0


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return int(self.now_s * 1000)


def breaker(clock: Hand, *, enabled: bool = True) -> Breaker:
    return Breaker(clock, Backoff(random.Random(1), first_s=COOL_DOWN_FIRST_S, cap_s=CAP_S), enabled=enabled)


def opened(clock: Hand) -> tuple[Breaker, list[Xid]]:
    """A breaker that answers opened, and the transactions that failed."""
    one, xids = breaker(clock), [new_xid() for _ in range(FAILURES_MAX)]
    for xid in xids:
        one.failed(xid, "the disk is full")
    assert one.state is BreakerState.OPEN
    return one, xids


def cool_down(clock: Hand, one: Breaker) -> float:
    waited_s = one.wait_s
    clock.now_s += waited_s
    assert one.time_up()
    assert one.state is BreakerState.HALF_OPEN
    return waited_s


def test_failures_in_a_row_open_it_and_say_why() -> None:
    one, _ = opened(Hand())
    assert one.reason == "the disk is full"
    assert not one.admits(new_xid())
    assert one.wait_s > 0


def test_a_success_in_between_begins_the_row_anew() -> None:
    one = breaker(Hand())
    for _ in range(3):
        for _ in range(FAILURES_MAX - 1):
            one.failed(new_xid(), "no")
        assert not one.succeeded()
    assert one.state is BreakerState.CLOSED


def test_one_poison_transaction_opens_nothing_however_often_it_fails() -> None:
    """R17."""
    one, poison = breaker(Hand()), new_xid()
    for _ in range(100):
        one.failed(poison, "poison")
    assert one.state is BreakerState.CLOSED


def test_one_probe_goes_through_after_the_cool_down_and_its_success_closes_it() -> None:
    clock = Hand()
    one, _ = opened(clock)
    assert not one.time_up()
    cool_down(clock, one)
    assert one.admits(new_xid())
    assert not one.admits(new_xid())
    assert one.succeeded()
    assert one.state is BreakerState.CLOSED
    assert one.reason == ""
    assert one.admits(new_xid())


def test_each_failed_probe_makes_the_next_cool_down_longer_up_to_the_cap() -> None:
    clock = Hand()
    one, _ = opened(clock)
    waits: list[float] = []
    for _ in range(6):
        waits.append(cool_down(clock, one))
        xid = new_xid()
        assert one.admits(xid)
        one.failed(xid, "still")
        assert one.state is BreakerState.OPEN
    assert waits[:3] == sorted(waits[:3])
    assert COOL_DOWN_FIRST_S / 2 <= waits[0] <= COOL_DOWN_FIRST_S
    assert CAP_S / 2 <= waits[-1] <= CAP_S


def test_a_probe_without_an_answer_has_failed() -> None:
    clock = Hand()
    one, _ = opened(clock)
    cool_down(clock, one)
    assert one.admits(new_xid())
    clock.now_s += PROBE_S
    assert not one.time_up()
    assert one.state is BreakerState.OPEN


def test_the_next_probe_is_another_transaction() -> None:
    """Else a poison one, offered first each time, would keep it open for ever (R17)."""
    clock = Hand()
    one, xids = opened(clock)
    for poison in xids:
        cool_down(clock, one)
        tried = [xid for xid in xids if one.admits(xid)]
        assert tried == [poison]
        one.failed(poison, "poison")
    # All were tried: the first again.
    cool_down(clock, one)
    assert not any(one.admits(xid) for xid in xids)
    clock.now_s += PROBE_S
    assert one.time_up()
    assert one.admits(xids[0])


def test_a_participant_that_could_not_be_reached_is_trusted_as_soon_as_it_answers() -> None:
    one = breaker(Hand())
    one.lost("it went down")
    for _ in range(FAILURES_MAX):
        one.unreached("refused")
    assert one.state is BreakerState.OPEN
    one.greeted()
    assert one.state is BreakerState.CLOSED


def test_sessions_that_do_not_last_open_it_and_a_greeting_alone_does_not_close_it() -> None:
    one = breaker(Hand())
    for _ in range(FAILURES_MAX):
        one.greeted()
        one.lost("it crashed")
    assert one.state is BreakerState.OPEN
    one.greeted()
    assert one.state is BreakerState.HALF_OPEN
    assert [one.admits(new_xid()), one.admits(new_xid())] == [True, False]


def test_sessions_that_last_are_not_counted() -> None:
    one = breaker(Hand())
    for _ in range(3 * FAILURES_MAX):
        one.lost("a restart")
        one.steady()
    assert one.state is BreakerState.CLOSED


@pytest.mark.parametrize("kind", ["unreached", "lost", "failed"])
def test_a_disabled_one_never_opens(kind: str) -> None:
    one = breaker(Hand(), enabled=False)
    for _ in range(3 * FAILURES_MAX):
        match kind:
            case "unreached":
                one.unreached("refused")
            case "lost":
                one.lost("crashed")
            case _:
                one.failed(new_xid(), "failed")
    assert one.state is BreakerState.CLOSED
    assert one.admits(new_xid())
