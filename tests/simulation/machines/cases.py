"""The small cases that are explored whole: each is one transaction, or two attempts at one request."""

from __future__ import annotations

from typing import Final

from participant_sdk.xa import PREPARED, READ_ONLY, business_no
from tests.simulation.machines.cluster import Cluster
from tests.simulation.machines.exploration import Case

NO: Final = business_no("TOLD_TO_FAIL", "the business says no")
TWO: Final = ("a", "b")
THREE: Final = ("a", "b", "c")
REQUEST: Final = "r"


def _first(cluster: Cluster) -> int:
    return next(iter(cluster.coordinators), 0)


def _last(cluster: Cluster) -> int:
    return max(cluster.coordinators, default=0)


def _one(cluster: Cluster) -> None:
    cluster.begin(_first(cluster), tuple(cluster.participants))


def _named(cluster: Cluster) -> None:
    cluster.begin(_first(cluster), tuple(cluster.participants), REQUEST)


def _again(cluster: Cluster) -> None:
    """The client sends the same request to whoever opened last."""
    if number := _last(cluster):
        cluster.begin(number, tuple(cluster.participants), REQUEST)


def _close(cluster: Cluster) -> None:
    """The client gives the request up at whoever opened last."""
    if number := _last(cluster):
        cluster.close(number, REQUEST)


CASES: Final = (
    Case("one transaction, two participants", _one, TWO, votes=(PREPARED, NO)),
    Case("one transaction, two participants, one may be read-only", _one, TWO, votes=(PREPARED, READ_ONLY)),
    # A coordinator that crashes is one that never moves again, so its crash need not be a move.
    Case("one transaction, three participants", _one, THREE, crashes=False),
    Case("a request, and again elsewhere", _named, TWO, votes=(PREPARED,), whims=(_again,)),
    Case(
        "a request that the business may refuse, and again elsewhere", _named, TWO[:1], (PREPARED, NO), whims=(_again,)
    ),
    Case("a request, and its client gives it up", _named, TWO, whims=(_close,)),
)
