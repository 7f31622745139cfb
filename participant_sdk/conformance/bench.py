"""The bench that checks work on: one participant, one way of calling it, one made-up decision log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.clock import Clock
from participant_sdk.conformance.calls import CALL_TIMEOUT_S, Calls, Decided, Speaker
from participant_sdk.conformance.exercise import Exercise
from participant_sdk.conformance.report import expect
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Operation

if TYPE_CHECKING:
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

REMAINING_MS: Final = 20_000
TENANT: Final = "conformance"


@dataclass(slots=True)
class Bench:
    """What a check has at hand. Mutable: it counts decisions.

    ``calls`` sends branches, ``stub`` everything else.
    """

    exercise: Exercise
    stub: ResourceServiceAsyncStub
    calls: Calls
    speaker: Speaker
    xids: XidSource
    clock: Clock
    sequence: int = 0
    given_out: list[Xid] = field(default_factory=list[Xid])

    def an_xid(self) -> Xid:
        """Give out an xid that was never used."""
        xid = self.xids.next(self.clock.unix_ms())
        self.given_out.append(xid)
        return xid

    async def clean_up(self) -> None:
        """Roll back what a check that failed may have left prepared: it would stand in the next one's way."""
        await self.calls.rollback(self.given_out)

    def request(self, xid: Xid, *operations: Operation, request_id: str = "") -> resource_pb2.PrepareRequest:
        """Make a Prepare that carries these operations."""
        return resource_pb2.PrepareRequest(
            xid=str(xid),
            log_id=self.speaker.log_id,
            operations=[
                common_pb2.Operation(service=it.service, operation=it.name, parameters=it.parameters)
                for it in operations
            ],
            remaining_ms=REMAINING_MS,
            participants=[self.exercise.participant, "the-other-one"],
            tenant=TENANT,
            request_id=request_id,
            request_digest=hashlib.sha256(request_id.encode()).digest() if request_id else b"",
        )

    async def prepare(self, xid: Xid, *operations: Operation) -> common_pb2.Vote:
        """Prepare one branch."""
        return (await self.calls.prepare([self.request(xid, *operations)]))[0]

    async def prepared(self, operation: Operation | None = None) -> Xid:
        """Prepare a new branch that says yes; DeviationError if it does not."""
        xid = self.an_xid()
        vote = await self.prepare(xid, operation or self.exercise.yes[0])
        expect(vote.kind == common_pb2.VOTE_KIND_PREPARED, f"the yes of the exercise got {shown(vote)}")
        return xid

    def decided(self, xid: Xid) -> Decided:
        """Make a Commit with the next sequence."""
        self.sequence += 1
        return Decided(xid, self.speaker.incarnation, self.sequence)

    async def commit(self, xid: Xid) -> common_pb2.Ack:
        """Commit one branch."""
        return (await self.calls.commit([self.decided(xid)]))[0]

    async def rollback(self, xid: Xid) -> common_pb2.Ack:
        """Roll one branch back."""
        return (await self.calls.rollback([xid]))[0]

    async def branch(self, xid: Xid) -> resource_pb2.Branch:
        """Show one branch."""
        request = resource_pb2.GetBranchRequest(xid=str(xid), log_id=self.speaker.log_id)
        return (await self.stub.GetBranch(request, timeout=CALL_TIMEOUT_S)).branch

    async def expect_phase(self, xid: Xid, phase: common_pb2.BranchPhase.ValueType) -> None:
        """Raise DeviationError unless the branch is in this phase."""
        branch = await self.branch(xid)
        seen = common_pb2.BranchPhase.Name(branch.phase)
        expect(branch.phase == phase, f"the branch is {seen}, not {common_pb2.BranchPhase.Name(phase)}")

    async def listed(self, *, finished: bool = False, above: int = 0, page_size: int = 2) -> list[resource_pb2.Branch]:
        """Read all pages of Recover. DeviationError for pages out of order or without end."""
        branches: list[resource_pb2.Branch] = []
        token = ""
        while True:
            request = resource_pb2.RecoverRequest(
                log_id=self.speaker.log_id, finished=finished, page_size=page_size, page_token=token
            )
            if above:
                request.above.add(incarnation=self.speaker.incarnation, sequence=above)
            page = await self.stub.Recover(request, timeout=CALL_TIMEOUT_S)
            expect(len(page.branches) <= page_size, f"a page of {len(page.branches)}, {page_size} were asked for")
            branches += page.branches
            xids = [branch.xid for branch in branches]
            expect(xids == sorted(set(xids)), f"pages out of order, or with a branch twice: {xids}")
            token = page.next_page_token
            if not token:
                return branches

    async def observed(self) -> Sequence[str]:
        """Run ``observe`` in a branch of its own; nothing where the exercise has none."""
        if self.exercise.observe is None:
            return ()
        vote = await self.prepare(self.an_xid(), self.exercise.observe)
        expect(vote.kind == common_pb2.VOTE_KIND_READ_ONLY, f"observe got {shown(vote)}")
        return tuple(vote.results)


def shown(vote: common_pb2.Vote) -> str:
    """Write a vote for a person."""
    name = common_pb2.VoteKind.Name(vote.kind) if vote.kind in common_pb2.VoteKind.values() else str(vote.kind)
    return f"{name} {vote.xa_code} {vote.reason} {vote.message}{' transient' if vote.transient else ''}".strip()


def shown_ack(ack: common_pb2.Ack) -> str:
    """Write an acknowledgement for a person."""
    name = common_pb2.AckKind.Name(ack.kind) if ack.kind in common_pb2.AckKind.values() else str(ack.kind)
    return f"{name} {ack.xa_code} {ack.message}".strip()


def expect_ack(ack: common_pb2.Ack, *kinds: common_pb2.AckKind.ValueType) -> None:
    """Raise DeviationError unless the acknowledgement is one of these."""
    expect(ack.kind in kinds, f"{shown_ack(ack)}, not {' or '.join(map(common_pb2.AckKind.Name, kinds))}")


def expect_no(vote: common_pb2.Vote) -> None:
    """Raise DeviationError unless the vote is a "no", in a vote or as a refused request."""
    refused = vote.kind == common_pb2.VOTE_KIND_UNSPECIFIED and vote.reason == "INVALID_ARGUMENT"
    expect(refused or vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, shown(vote))
