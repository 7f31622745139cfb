"""What participants list, page by page: read to the end by passes, and shown to operators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import pytest

from coordinator.errors import InvalidRequestError
from coordinator.passes import Scope
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.resource_calls import Page
from participant_sdk.xa import DecisionState
from tests.engine.recovering import CLOCK, LEASE_S, LEFT, RIGHT, World, node, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def test_a_pass_follows_the_participants_tokens_however_short_its_pages(around: World) -> None:
    """Invariant 8: a participant whose branches are large lists fewer than were asked for, and may list none."""
    xids = [await around.leave(decided=False) for _ in range(3)]
    around.wires[LEFT].page_max = around.wires[RIGHT].page_max = 1
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert (ran.scanned, ran.resolved) == (6, 6)
        assert [around.phase(LEFT, xid) for xid in xids] == [BranchPhase.ROLLED_BACK] * 3


STRANGER = Branch("00000000000000bb", Xid.make(1, 1, 1), BranchPhase.PREPARED)


WITHOUT_END: dict[str, Callable[[str], Page]] = {
    "in no order": lambda token: Page([STRANGER], f"{token}+"),
    "of nothing": lambda token: Page((), f"{token}+"),
    "of one token": lambda _: Page((), "again"),
}


@pytest.mark.parametrize("how", WITHOUT_END)
async def test_a_list_without_end_is_not_followed(around: World, how: str) -> None:
    """Invariant 12."""
    async with node(around) as assembly:
        around.wires[LEFT].tells = WITHOUT_END[how]
        ran = await assembly.passes.trigger(Scope.ORPHANS)
        assert ran.unreachable == (LEFT,)
        listed = await assembly.resolution.list_in_doubt("", "", 10)
        assert (listed.branches, listed.unreachable) == ((), (LEFT,))


@pytest.mark.parametrize(("page_max", "limit"), [(1, 3), (2, 3), (1_000, 3), (1, 1), (2, 1), (1, 2), (3, 5), (1, 9)])
async def test_branches_in_doubt_are_listed_oldest_first_page_by_page(around: World, page_max: int, limit: int) -> None:
    """However short the participants' own pages are."""
    around.wires[LEFT].page_max, around.wires[RIGHT].page_max = page_max, 2
    xids = [await around.leave(decided=False) for _ in range(3)]
    around.log.tables.pruned_below_unix_ms = xids[0].unix_ms + 1
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        await assembly.life.take_over()
        seen: list[tuple[Xid, str]] = []
        token = ""
        for _ in range(10):
            page = await assembly.resolution.list_in_doubt("", token, limit)
            assert page.unreachable == ()
            assert len(page.branches) == limit or not page.next_token
            seen += [(each.branch.xid, each.participant) for each in page.branches]
            token = page.next_token
            if not token:
                break
        assert seen == [(xid, name) for xid in sorted(xids) for name in (LEFT, RIGHT)]
        around.wires[LEFT].page_max = around.wires[RIGHT].page_max = 1_000
        (first, second) = (await assembly.resolution.list_in_doubt("", "", 2)).branches
        assert {first.state, second.state} <= {DecisionState.FORGOTTEN, DecisionState.ROLLBACK}
        around.wires[RIGHT].is_cut = True
        alone = await assembly.resolution.list_in_doubt("", "", 10)
        assert alone.unreachable == (RIGHT,)
        assert {each.participant for each in alone.branches} == {LEFT}
        around.log_tap.fails = lambda _: True
        unread = await assembly.resolution.list_in_doubt(LEFT, "", 10)
        assert [each.state for each in unread.branches] == [None] * 3


@pytest.mark.parametrize(
    ("participant", "token", "limit", "field"),
    [
        ("nobody", "", 10, "participant"),
        ("", "nonsense", 10, "page_token"),
        ("", f"{Xid.make(1, 1, 1)}/", 10, "page_token"),
        ("", f"{Xid.make(1, 1, 1)}/{LEFT}?{LEFT}", 10, "page_token"),
        ("", "", 0, "page_size"),
        ("", "", 1001, "page_size"),
    ],
)
async def test_a_wrong_page_is_refused_by_its_field(
    around: World, participant: str, token: str, limit: int, field: str
) -> None:
    async with node(around) as assembly:
        with pytest.raises(InvalidRequestError) as wrong:
            await assembly.resolution.list_in_doubt(participant, token, limit)
        assert wrong.value.field == field
