"""One request_id, sent in many ways: the same operations are the same request, and nothing else is (R3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import canonical
from coordinator.engine import Engine
from coordinator.errors import RequestReusedError
from participant_sdk.participant import Operation
from participant_sdk.xa import Decision
from tests.engine.recovering import until
from tests.engine.test_engine import call, connected, credit
from tests.sdk.small_system import LEFT, RIGHT, System, coordinator, system

REQUEST = "pay-7"
OPERATIONS = st.builds(
    Operation,
    st.sampled_from([LEFT, RIGHT]),
    st.sampled_from(["read", "credit"]),
    st.sampled_from(['{"account":"a","amount":"1"}', '{"amount":"1.0","account":"a"}', '{"account":"b","amount":1}']),
)


@pytest.fixture
async def world() -> AsyncGenerator[System]:
    async with system() as around:
        yield around


def commit_interactively(engine: Engine, groups: Sequence[tuple[str, Sequence[Operation]]]) -> bytes:
    """The digest of a transaction whose operations were enlisted so, group by group."""
    xid = engine.begin(30.0, "default", f"r{engine.unfinished}")
    for participant, operations in groups:
        engine.enlist(xid, participant, operations, 0)
    engine.commit(xid)
    running = engine.find(xid)
    assert running is not None
    return running.transaction.digest


def grouped(operations: Sequence[Operation], cuts: Sequence[bool]) -> list[tuple[str, list[Operation]]]:
    """Consecutive operations of one service, cut apart where the cuts say so too."""
    groups: list[tuple[str, list[Operation]]] = []
    for operation, cut in zip(operations, cuts, strict=True):
        if cut or not groups or groups[-1][0] != operation.service:
            groups.append((operation.service, []))
        groups[-1][1].append(operation)
    return groups


async def test_operations_have_one_digest_however_they_are_enlisted(world: System) -> None:
    """Whole by Execute or one by one by Enlist; whatever comes between the operations of one service."""
    async with coordinator(world, max_concurrent_txns=10_000) as node:

        @settings(max_examples=200, deadline=None)
        @given(st.data())
        def same(data: st.DataObject) -> None:
            operations = data.draw(st.lists(OPERATIONS, min_size=1, max_size=8))
            shuffled = data.draw(interleavings(operations))
            cuts = data.draw(st.lists(st.booleans(), min_size=len(operations), max_size=len(operations)))
            asked = commit_interactively(node.engine, grouped(shuffled, cuts))
            assert asked == canonical.digest(operations) == canonical.digest(shuffled)

        same()


@st.composite
def interleavings(draw: st.DrawFn, operations: Sequence[Operation]) -> list[Operation]:
    """The same operations, in order within each service, and in any order among services."""
    services = draw(st.permutations([operation.service for operation in operations]))
    queues = {name: [each for each in operations if each.service == name] for name in (LEFT, RIGHT)}
    return [queues[name].pop(0) for name in services]


async def test_an_attempt_that_lost_its_request_to_another_says_nothing_of_the_others_operations(
    world: System,
) -> None:
    """It is held while its rollback is owed. Whoever asks for what the log did bind gets that answer."""
    async with coordinator(world) as one, coordinator(world) as other:
        await connected(one)
        await connected(other)
        mine, theirs = call(credit(LEFT), request_id=REQUEST), call(credit(RIGHT), request_id=REQUEST)
        world.taps[LEFT].shut()
        lost = one.engine.execute(mine)
        bound = await other.engine.execute(theirs)
        assert bound.outcome.decision is Decision.COMMIT
        # Its vote gets through, and not its rollback.
        world.taps[LEFT].open()
        world.taps[LEFT].shut_after(1)
        attempt = one.engine.find(one.engine.views()[0].xid)
        assert attempt is not None
        await until(lambda: attempt.is_bound_elsewhere)
        again = await one.engine.execute(theirs)
        assert (again.outcome.decision, again.outcome.xid) == (Decision.COMMIT, bound.outcome.xid)
        assert again.outcome.replayed
        assert not lost.done()
        world.taps[LEFT].open()
        for asked in (lost, one.engine.execute(mine)):
            with pytest.raises(RequestReusedError):
                await asked
    assert world.effects(LEFT) == 0
    assert world.effects(RIGHT) == 1


async def test_what_binds_nothing_in_the_end_is_not_told_to_have_bound(world: System) -> None:
    """A rollback without a digest matches any operations: a closed intent, and what was never asked to commit."""
    async with coordinator(world) as node:
        await connected(node)
        engine = node.engine
        xid = engine.begin(30.0, "default", REQUEST)
        engine.enlist(xid, LEFT, [credit(LEFT)], 0)
        assert (await engine.rollback(xid, "changed my mind")).outcome.retry
        done = await engine.execute(call(credit(RIGHT), request_id=REQUEST))
        assert done.outcome.decision is Decision.COMMIT
        closed = await engine.close_intent("default", REQUEST, "too late")
        assert closed.outcome.decision is Decision.COMMIT
        await engine.close_intent("default", "pay-8", "not wanted")
        for operations in (credit(LEFT), credit(RIGHT)):
            told = await engine.execute(call(operations, request_id="pay-8"))
            assert (told.outcome.decision, told.outcome.retry) == (Decision.ROLLBACK, False)
