"""The bench that checks work on: one participant, one way of calling it, one made-up decision log."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.clock import Clock
from participant_sdk.conformance.asked import Asked
from participant_sdk.conformance.calls import REFUSED, Calls, Decided, SessionCalls, Speaker, UnaryCalls, greeting_of
from participant_sdk.conformance.exercise import UNIQUE, Exercise
from participant_sdk.conformance.line import Line
from participant_sdk.conformance.report import expect
from participant_sdk.conformance.words import Words, shown, shown_ack, shown_ack_kind
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Operation
from participant_sdk.resource_calls import EMPTY_PAGES_MAX, TOKEN_MAX_CHARS

REMAINING_MS: Final = 20_000
TENANT: Final = "conformance"
OTHER: Final = "the-other-one"
LOOK_AGAIN_S: Final = 0.05


class WorkOrder(NamedTuple):
    """The branch that a service is asked to do one operation under, as a caller's headers would name it (R13)."""

    log_id: str
    xid: Xid
    participant: str
    branch_number: int
    remaining_ms: int


@dataclass(frozen=True, slots=True)
class Means:
    """What the kit may do beside calling.

    ``restart`` kills the participant as kill -9 does, starts it again at the same address, and returns. ``work``
    has the service do one operation under a branch, and returns when that is done. ``asked_within_s`` is
    how long a branch may be in doubt before it is asked about. ``host`` is where the kit's own coordinators
    listen: the participant must be able to reach it.
    """

    restart: Callable[[], Awaitable[None]] | None = None
    work: Callable[[WorkOrder], Awaitable[None]] | None = None
    asked_within_s: float = 60.0
    host: str = "127.0.0.1"


@dataclass(slots=True)
class Bench:
    """What a check has at hand. Mutable: it counts decisions.

    ``calls`` sends branches, ``line`` everything else.
    """

    exercise: Exercise
    line: Line
    calls: Calls
    speaker: Speaker
    asked: Asked
    means: Means
    xids: XidSource
    clock: Clock
    words: Words
    sequence: int = 0
    given_out: list[Xid] = field(default_factory=list[Xid])

    def an_xid(self) -> Xid:
        """Give out an xid that was never used."""
        xid = self.xids.next(self.clock.unix_ms())
        self.given_out.append(xid)
        return xid

    async def clean_up(self) -> None:
        """Roll back what a check that failed may have left prepared: it would stand in the next one's way."""
        await self.unary.rollback(self.given_out)

    @property
    def unary(self) -> UnaryCalls:
        """Unary calls, whichever ``calls`` are."""
        return UnaryCalls(self.line, self.speaker, self.words)

    def of_log(self, log_id: str) -> Bench:
        """A bench at which another log speaks, in unary calls."""
        speaker = replace(self.speaker, log_id=log_id)
        return replace(self, speaker=speaker, calls=UnaryCalls(self.line, speaker, self.words), sequence=0)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[SessionCalls]:
        """Open a session of its own for the time of the block. DeviationError if it is refused."""
        calls = SessionCalls(self.line.stub.Session(), self.line, self.speaker, self.words)
        try:
            welcome = await calls.hello(self.greeting())
            expect(not welcome.refusal, f"the session was refused: {welcome.refusal}")
            yield calls
        finally:
            await calls.close()

    def greeting(self) -> resource_pb2.HelloRequest:
        """Make an introduction."""
        return greeting_of(self.speaker, self.asked.addresses, self.clock.unix_ms())

    def request(self, xid: Xid, *operations: Operation, request_id: str = "") -> resource_pb2.PrepareRequest:
        """Make a Prepare that carries these operations."""
        branch = f"{self.speaker.log_id}-{xid}"
        return resource_pb2.PrepareRequest(
            xid=str(xid),
            log_id=self.speaker.log_id,
            operations=[
                common_pb2.Operation(
                    service=it.service, operation=it.name, parameters=it.parameters.replace(UNIQUE, f"{branch}-{at}")
                )
                for at, it in enumerate(operations)
            ],
            remaining_ms=REMAINING_MS,
            participants=[self.exercise.participant, OTHER],
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
        await self.prepare_yes(xid, operation or self.exercise.yes[0])
        return xid

    async def prepare_yes(self, xid: Xid, operation: Operation) -> common_pb2.Vote:
        """Prepare one branch that says yes; DeviationError if it does not."""
        vote = await self.prepare(xid, operation)
        expect(vote.kind == common_pb2.VOTE_KIND_PREPARED, f"the yes of the exercise got {shown(vote)}")
        return vote

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
        return (await self.line.branch(request)).branch

    async def expect_phase(self, xid: Xid, *phases: common_pb2.BranchPhase.ValueType, where: str = "") -> None:
        """Raise DeviationError unless the branch is in one of these phases."""
        branch = await self.branch(xid)
        names = " or ".join(common_pb2.BranchPhase.Name(phase).removeprefix("BRANCH_PHASE_") for phase in phases)
        expect(branch.phase in phases, f"{where}the branch is {shown_phase(branch)}, not {names}")

    async def comes_to(self, xid: Xid, phase: common_pb2.BranchPhase.ValueType, within_s: float) -> bool:
        """Wait for the branch to come to this phase; whether it did. It is asked for, for lack of an event."""
        ends_s = time.monotonic() + within_s
        while (await self.branch(xid)).phase != phase:
            if time.monotonic() >= ends_s:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def listed(
        self, *, finished: bool = False, above: Sequence[tuple[int, int]] = (), page_size: int = 2
    ) -> list[resource_pb2.Branch]:
        """Read all pages of Recover, by their tokens. DeviationError for pages out of order or without end."""
        branches: list[resource_pb2.Branch] = []
        token = ""
        empty = 0
        while True:
            request = resource_pb2.RecoverRequest(
                log_id=self.speaker.log_id, finished=finished, page_size=page_size, page_token=token
            )
            for incarnation, sequence in above:
                request.above.add(incarnation=incarnation, sequence=sequence)
            page = await self.line.recover(request)
            expect(len(page.branches) <= page_size, f"a page of {len(page.branches)}, {page_size} were asked for")
            branches += page.branches
            xids = [branch.xid for branch in branches]
            expect(xids == sorted(set(xids)), f"pages out of order, or with a branch twice: {xids}")
            if not page.next_page_token:
                return branches
            expect(page.next_page_token != token, "a page's token is the one that it was asked for by: there is no end")
            token = page.next_page_token
            expect(len(token) <= TOKEN_MAX_CHARS, f"a page token of {len(token)} characters, of {TOKEN_MAX_CHARS}")
            empty = 0 if page.branches else empty + 1
            expect(empty <= EMPTY_PAGES_MAX, f"{empty} pages in a row with nothing on them, and still no end")

    async def marks(self) -> dict[int, int]:
        """The watermarks that a Hello is answered with."""
        hello = await self.calls.hello(self.greeting())
        expect(not hello.refusal, f"Hello was refused: {hello.refusal}")
        return {mark.incarnation: mark.sequence for mark in hello.watermarks}

    async def observed(self) -> Sequence[str]:
        """Run ``observe`` in a branch of its own; nothing where the exercise has none."""
        if self.exercise.observe is None:
            return ()
        vote = await self.prepare(self.an_xid(), self.exercise.observe)
        expect(vote.kind == common_pb2.VOTE_KIND_READ_ONLY, f"observe got {shown(vote)}")
        return tuple(vote.results)


def shown_phase(branch: resource_pb2.Branch) -> str:
    """Write a branch's phase for a person."""
    if branch.phase not in common_pb2.BranchPhase.values():
        return str(branch.phase)
    return common_pb2.BranchPhase.Name(branch.phase).removeprefix("BRANCH_PHASE_")


def expect_ack(ack: common_pb2.Ack, *kinds: common_pb2.AckKind.ValueType) -> None:
    """Raise DeviationError unless the acknowledgement is one of these."""
    expect(ack.kind in kinds, f"{shown_ack(ack)}, not {' or '.join(map(shown_ack_kind, kinds))}")


def expect_no(vote: common_pb2.Vote) -> None:
    """Raise DeviationError unless the vote is a "no", in a vote or as a refused request."""
    refused = vote.kind == common_pb2.VOTE_KIND_UNSPECIFIED and vote.reason == REFUSED
    expect(refused or vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, shown(vote))
