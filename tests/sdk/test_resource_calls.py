"""R17: listing branches of which some cannot be read, by tokens that are the participant's, over real gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceServicer
from structlog.testing import capture_logs

from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.ids import Xid
from participant_sdk.participant import RecoverQuery
from participant_sdk.resource_calls import EMPTY_PAGES_MAX, TOKEN_MAX_CHARS, CallFailedError, Listing
from tests.sdk.peers import CLOCK, LOG_ID, hosted, new_xid

if TYPE_CHECKING:
    import grpc

UNKNOWN_PHASE = common_pb2.BranchPhase.ValueType(77)


class Lister(ResourceServiceServicer):
    """A participant that lists what it is given, page by page; its tokens count down what is left."""

    def __init__(self, branches: Sequence[resource_pb2.Branch], tokens: str = "{}") -> None:
        self._branches = branches
        self._tokens = tokens

    async def Recover(  # type: ignore[override]  # noqa: N802 - the stubs know the blocking kind only
        self,
        request: resource_pb2.RecoverRequest,
        context: grpc.aio.ServicerContext[resource_pb2.RecoverRequest, resource_pb2.RecoverResponse],
    ) -> resource_pb2.RecoverResponse:
        left = self._branches[-int(request.page_token) :] if request.page_token else self._branches
        page, after = left[: request.page_size], left[request.page_size :]
        token = self._tokens.format(len(after)) if after else ""
        return resource_pb2.RecoverResponse(branches=page, next_page_token=token)


def good() -> resource_pb2.Branch:
    return resource_pb2.Branch(xid=str(new_xid()), phase=common_pb2.BRANCH_PHASE_PREPARED)


def bad() -> resource_pb2.Branch:
    return resource_pb2.Branch(xid=str(new_xid()), phase=UNKNOWN_PHASE)


def nameless() -> resource_pb2.Branch:
    return resource_pb2.Branch(xid="no xid", phase=common_pb2.BRANCH_PHASE_PREPARED)


async def listed(
    branches: Sequence[resource_pb2.Branch], limit: int, *, finished: bool = False, tokens: str = "{}"
) -> list[Xid]:
    """Page through all of it, as a sweep does."""
    servicer = Lister(branches, tokens)  # pyright: ignore[reportAbstractUsage]  Nothing but Recover is asked.
    async with hosted(servicer) as port:
        calls = GrpcResourceCalls(f"127.0.0.1:{port}", clock=CLOCK)
        found: list[Xid] = []
        try:
            listing = Listing(calls, RecoverQuery(LOG_ID, finished, limit=limit))
            while not listing.is_over:
                found += [branch.xid for branch in await listing.page()]
            return found
        finally:
            await calls.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_one_that_cannot_be_read_hides_none_of_those_after_it(limit: int) -> None:
    branches = [good(), bad(), nameless(), good(), bad(), bad(), bad(), good(), good(), nameless()]
    with capture_logs() as lines:
        found = await listed(branches, limit)
    assert [str(xid) for xid in found] == [branches[place].xid for place in (0, 3, 7, 8)]
    assert {line["log_level"] for line in lines if line["event"] == "branches_unreadable"} == {"error"}


async def test_a_finished_one_that_cannot_be_read_is_not_passed_over() -> None:
    """R15: a commit that is not restored would be lost."""
    with pytest.raises(CallFailedError, match="cannot be read"):
        await listed([good(), bad()], 100, finished=True)


@pytest.mark.parametrize(
    ("branches", "tokens", "why"),
    [
        ([bad() for _ in range(EMPTY_PAGES_MAX + 2)], "{}", "can be read"),
        ([good() for _ in range(3)][::-1], "{}", "in no order"),
        ([bad() for _ in range(3)], "2", "the same page token"),
        ([good() for _ in range(3)], "0" * TOKEN_MAX_CHARS + "{}", "a page token of more than"),
    ],
)
async def test_a_list_that_leads_nowhere_is_not_followed(
    branches: list[resource_pb2.Branch], tokens: str, why: str
) -> None:
    """Invariant 12."""
    with pytest.raises(CallFailedError, match=why):
        await listed(branches, 1, tokens=tokens)
