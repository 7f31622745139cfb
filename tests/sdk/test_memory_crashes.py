"""A crash in the midst of an end: the memory resource keeps it whole or not at all (R9)."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit, Rollback, Work
from participant_sdk.xa import VoteKind
from tests.sdk.test_memory_resource import LOG, Bank, Gate, an_xid, prepare, transfer


@pytest.mark.parametrize("is_commit", [True, False])
async def test_state_and_effect_of_an_end_survive_together(is_commit: bool) -> None:
    """However much of what was written reached the disk."""
    for survivors in count():
        gate = Gate()
        gate.open.set()
        bank, xid = Bank(gate), an_xid()
        assert (await bank.vote(prepare(xid, transfer("60")))).kind is VoteKind.PREPARED
        gate.open.clear()
        gate.reached.clear()
        work = Work(commits=[Commit(LOG, xid, 7, 1)]) if is_commit else Work(rollbacks=[Rollback(LOG, xid)])
        ending = asyncio.ensure_future(bank.resource.apply(work))
        await gate.reached.wait()
        if survivors > bank.store.unflushed:
            ending.cancel()
            return
        bank.crash(survivors)
        ending.cancel()
        branch = await bank.resource.branch(LOG, xid)
        assert branch is not None
        is_ended = branch.phase is not BranchPhase.PREPARED
        assert is_ended is (survivors > 0)
        assert bank.resource.invariants() == []
        assert dict(await bank.resource.watermarks(LOG)) == ({7: 1} if is_ended and is_commit else {})
