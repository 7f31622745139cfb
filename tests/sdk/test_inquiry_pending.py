"""A transaction whose owner lives and has not decided: the branch waits for it (R12)."""

from __future__ import annotations

from participant_sdk.branch import BranchPhase
from participant_sdk.decisions import DecisionAnswer
from participant_sdk.xa import DecisionState
from tests.sdk.peers import EPOCH, memory
from tests.sdk.test_inquiry import COMMIT, Oracle, in_doubt, inquiring, known, until_phase


async def test_an_owner_that_has_not_decided_is_asked_again_and_again() -> None:
    """R7: it names itself, which is no decision however often it does."""
    resource = memory()
    (one,) = await in_doubt(resource)
    oracle = Oracle({"owner": lambda _: DecisionAnswer(DecisionState.PENDING, owner_address="owner", epoch=EPOCH)})
    async with inquiring(resource, await known(resource, ["owner"]), oracle):
        await oracle.asked_times(10)
        await until_phase(resource, one, BranchPhase.PREPARED)
        oracle.says["owner"] = lambda _: COMMIT
        await until_phase(resource, one, BranchPhase.COMMITTED)
    assert not resource.invariants()
