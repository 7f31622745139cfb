"""What an operator is told of a branch whose decision is not made: what is known of its coordinator, and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import pytest

from coordinator import advice
from coordinator.log.decision_log import LiveIncarnation, Standing
from participant_sdk.ids import Xid
from participant_sdk.xa import DecisionState
from tests.engine.recovering import LEFT, World, node, world

XID = Xid.make(1_800_000_000_000, 100, 1)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


def standing(*live: tuple[int, float], held: str = "") -> Standing:
    rows = [LiveIncarnation(number, "one", f"one:{number}", lease_left_s) for number, lease_left_s in live]
    return Standing(1 if held else 0, held, 0, tuple(rows))


@pytest.mark.parametrize(
    ("looked_up", "told"),
    [
        (
            standing((100, 2.4), (101, 3.0)),
            "incarnation 100 at one:100, has not decided yet, and has a lease for another 2 s",
        ),
        (
            standing((100, -41.7), (101, 3.0)),
            "incarnation 100 at one:100, is dead or cut off from the log: its lease expired 42 s ago",
        ),
        (standing((101, 3.0)), "incarnation 100, has ended; .* once every participant has reported"),
        (standing((99, 3.0)), "No coordinator that is known here is incarnation 100"),
        (standing((100, 2.4), held="restored"), "The log is in HOLD"),
        (None, "who lives has not been looked up yet"),
    ],
    ids=["lives", "is dead", "has ended", "is not known", "in HOLD", "nobody looked"],
)
def test_of_a_pending_one_what_is_known_of_its_coordinator_is_told(looked_up: Standing | None, told: str) -> None:
    """R6: a dead one that nobody has fenced is not said to live."""
    said = advice.of_in_doubt(XID, "fiat", DecisionState.PENDING, looked_up)
    assert re.search(told, said)


async def test_a_branch_of_a_dead_coordinator_that_nobody_has_fenced_is_shown_as_such(around: World) -> None:
    await around.leave(decided=False)
    async with node(around, lease_s=30.0) as assembly:
        (shown,) = (await assembly.resolution.list_in_doubt(LEFT, "", 10)).branches
        assert shown.state is DecisionState.PENDING
        assert "is dead or cut off from the log: its lease expired" in shown.advice
