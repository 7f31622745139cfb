"""The unary calls as grpcurl or another language sees them: bad input is named, nothing is an outcome by status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Branch, RecoverQuery, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import SERVICE, serving
from participant_sdk.wire import VOTE_MAX_BYTES, write_prepare
from participant_sdk.wire_branches import read_branch, read_recover, write_branch, write_recover
from participant_sdk.xa import Vote, VoteKind
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, NAME, Gate, memory, new_xid, transfer

if TYPE_CHECKING:
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub


@asynccontextmanager
async def called(resource: MemoryResource) -> AsyncGenerator[ResourceServiceAsyncStub]:
    async with (
        serving(resource, "127.0.0.1:0") as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
    ):
        yield ResourceServiceStub(channel)


async def failure(call: Awaitable[object]) -> tuple[grpc.StatusCode, list[Message]]:
    """The status and the details that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    raw = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    found: list[Message] = []
    for packed in status_pb2.Status.FromString(raw).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                found.append(message)
    return caught.value.code(), found


def commit(**changes: str | int) -> resource_pb2.CommitRequest:
    request = resource_pb2.CommitRequest(xid=str(new_xid()), log_id=LOG_ID, incarnation=EPOCH, sequence=1, epoch=EPOCH)
    for field, value in changes.items():
        setattr(request, field, value)
    return request


def prepare(**changes: str | bytes | int) -> resource_pb2.PrepareRequest:
    branch = transfer()
    request = resource_pb2.PrepareRequest(xid=str(branch.xid), log_id=LOG_ID)
    write_prepare(request, branch, 30_000)
    for field, value in changes.items():
        setattr(request, field, value)
    return request


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (prepare(xid=""), "xid"),
        (prepare(xid="00000000-0000-4000-8000-000000000000"), "xid"),
        (prepare(log_id="x"), "log_id"),
        (prepare(remaining_ms=0), "remaining_ms"),
        (prepare(remaining_ms=3_600_001), "remaining_ms"),
        (prepare(request_id="with space"), "request_id"),
        (prepare(request_id="r", request_digest=b"short"), "request_digest"),
        (prepare(tenant="t" * 65), "tenant"),
        (prepare(ends_work=True), "ends_work"),
        (commit(sequence=0), "sequence"),
        (commit(sequence=2**63), "sequence"),
        (commit(incarnation=0), "incarnation"),
        (resource_pb2.RollbackRequest(log_id=LOG_ID, xid="nonsense"), "xid"),
        (resource_pb2.HelloRequest(log_id=LOG_ID, coordinator="c", epoch=1), "incarnation"),
        (resource_pb2.HelloRequest(log_id=LOG_ID, coordinator="c", incarnation=1), "epoch"),
        (resource_pb2.HelloRequest(log_id=LOG_ID, incarnation=1, epoch=1), "coordinator"),
        (
            resource_pb2.HelloRequest(
                log_id=LOG_ID, coordinator="c", incarnation=1, epoch=1, coordinator_addresses=[""]
            ),
            "coordinator_addresses",
        ),
        (resource_pb2.RecoverRequest(log_id=LOG_ID, page_size=1001), "page_size"),
        (resource_pb2.RecoverRequest(log_id=LOG_ID, page_token="x"), "page_token"),  # noqa: S106 - no secret
        (resource_pb2.ResolveBranchRequest(log_id=LOG_ID, xid=str(new_xid()), reason="r"), "outcome"),
        (
            resource_pb2.ResolveBranchRequest(
                log_id=LOG_ID, xid=str(new_xid()), outcome=common_pb2.DECISION_COMMIT, reason=" "
            ),
            "reason",
        ),
        (resource_pb2.ForgetRequest(log_id=LOG_ID), "xid"),
        (resource_pb2.GetBranchRequest(xid=str(new_xid())), "log_id"),
    ],
)
async def test_a_bad_field_is_named(request_: Message, field: str) -> None:
    """INVALID_ARGUMENT with ErrorInfo and BadRequest; the participant is left alone."""
    resource = memory()
    async with called(resource) as stub:
        method = getattr(stub, type(request_).__name__.removesuffix("Request"))
        code, details = await failure(method(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = details
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert info.reason == "INVALID_FIELD"
    assert bad.field_violations[0].field == field
    assert not resource.invariants()


async def test_a_branch_by_hand() -> None:
    """Prepare, look, preview, force, look again, forget: what an operator does with grpcurl (R12)."""
    async with called(memory()) as stub:
        request = prepare()
        assert (await stub.Prepare(request)).vote.kind == common_pb2.VOTE_KIND_PREPARED
        # A duplicate gets the stored vote (R8).
        assert (await stub.Prepare(request)).vote.kind == common_pb2.VOTE_KIND_PREPARED
        named = {"xid": request.xid, "log_id": LOG_ID}
        shown = await stub.GetBranch(resource_pb2.GetBranchRequest(**named))
        assert shown.branch.phase == common_pb2.BRANCH_PHASE_PREPARED
        force = resource_pb2.ResolveBranchRequest(
            **named, outcome=common_pb2.DECISION_COMMIT, reason="ticket 7", preview=True
        )
        assert (await stub.ResolveBranch(force)).branch.phase == common_pb2.BRANCH_PHASE_PREPARED
        force.preview = False
        forced = await stub.ResolveBranch(force)
        assert forced.ack.kind == common_pb2.ACK_KIND_HEURISTIC_COMMIT
        assert (forced.branch.heuristic, forced.branch.reason) == (common_pb2.HEURISTIC_COMMIT, "ticket 7")
        assert (await stub.Forget(resource_pb2.ForgetRequest(**named))).ack.kind == common_pb2.ACK_KIND_DONE
        unknown = await stub.GetBranch(resource_pb2.GetBranchRequest(xid=str(new_xid()), log_id=LOG_ID))
        assert unknown.branch.phase == common_pb2.BRANCH_PHASE_UNSPECIFIED


async def test_a_stale_epoch_gets_retry() -> None:
    """R15, in the unary calls too."""
    resource = memory()
    await resource.adopt_epoch(LOG_ID, EPOCH + 1)
    async with called(resource) as stub:
        assert (await stub.Commit(commit())).ack.kind == common_pb2.ACK_KIND_RETRY
        stale = resource_pb2.RollbackRequest(xid=str(new_xid()), log_id=LOG_ID, epoch=EPOCH)
        assert (await stub.Rollback(stale)).ack.kind == common_pb2.ACK_KIND_RETRY


async def test_a_commit_of_an_unknown_branch_is_a_hazard() -> None:
    """R11: no marker is never success."""
    async with called(memory()) as stub:
        assert (await stub.Commit(commit())).ack.kind == common_pb2.ACK_KIND_HEURISTIC_HAZARD


async def test_recover_lists_page_by_page() -> None:
    """Every branch in doubt is listed once, in the order of xids."""
    resource = memory()
    branches = [transfer() for _ in range(5)]
    await resource.apply(Work(prepares=branches))
    listed: list[str] = []
    async with called(resource) as stub:
        request = resource_pb2.RecoverRequest(log_id=LOG_ID, page_size=2)
        while True:
            page = await stub.Recover(request)
            listed += [branch.xid for branch in page.branches]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert listed == [str(branch.xid) for branch in branches]


class Laden(MemoryResource):
    """Its branches carry as much as a vote may return."""

    held = tuple(sorted(new_xid() for _ in range(500)))

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        vote = Vote(VoteKind.PREPARED, results=("x" * (VOTE_MAX_BYTES - 100),))
        later = [xid for xid in self.held if query.after is None or xid > query.after]
        return [Branch(LOG_ID, xid, BranchPhase.COMMITTED, vote) for xid in later[: query.limit]]


async def test_recover_lists_branches_of_any_size() -> None:
    """R15, R17: they do not fit into one message, of gRPC's own 4 MiB or of ours, and hide none of those after them."""
    listed: list[str] = []
    async with called(Laden(NAME, MemoryStore(), CLOCK)) as stub:
        request = resource_pb2.RecoverRequest(log_id=LOG_ID, finished=True, page_size=1_000)
        while True:
            page = await stub.Recover(request)
            listed += [branch.xid for branch in page.branches]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert listed == [str(xid) for xid in Laden.held]


class Failing(MemoryResource):
    """Its store is away."""

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        raise ConnectionError("no database")

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        raise ConnectionError("no database")


async def test_a_participant_without_its_store_is_unavailable() -> None:
    """Whatever a service's own code raises is UNAVAILABLE with RetryInfo: no outcome, and no traceback."""
    async with called(Failing(NAME, MemoryStore(), CLOCK)) as stub:
        for call in (stub.Recover(resource_pb2.RecoverRequest(log_id=LOG_ID)), stub.Commit(commit())):
            code, (info, retry) = await failure(call)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert isinstance(info, error_details_pb2.ErrorInfo)
            assert isinstance(retry, error_details_pb2.RetryInfo)
            assert info.reason == "PARTICIPANT_FAILED"


async def test_a_cancelled_prepare_goes_on() -> None:
    """A caller that goes away leaves the branch to its own end."""
    gate = Gate()
    resource = memory(MemoryStore({"a": 10, "b": 0}, gate=gate))
    gate.shut()
    async with called(resource) as stub:
        request = prepare()
        call = stub.Prepare(request)
        await gate.reached.wait()
        call.cancel()
        gate.open.set()
        # A duplicate waits behind the first, and gets the stored vote.
        assert (await stub.Prepare(request)).vote.kind == common_pb2.VOTE_KIND_PREPARED
        shown = await stub.GetBranch(resource_pb2.GetBranchRequest(xid=request.xid, log_id=LOG_ID))
        assert shown.branch.phase == common_pb2.BRANCH_PHASE_PREPARED
    assert not resource.invariants()


async def test_health_and_reflection_are_served() -> None:
    """grpcurl needs both, and google.rpc's details to print rich errors."""
    async with serving(memory(), "127.0.0.1:0") as served:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            status = await check(health_pb2.HealthCheckRequest(service=SERVICE))
            assert status.status == health_pb2.HealthCheckResponse.SERVING
        services = await asyncio.to_thread(reflected, served.port)
    assert SERVICE in services


def reflected(port: int) -> Sequence[str]:
    """What a tool learns from reflection, over the synchronous client that grpcio brings."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert database.FindFileContainingSymbol("google.rpc.BadRequest").package == "google.rpc"
        return database.get_services()


async def test_an_address_that_is_taken_is_an_error_at_start() -> None:
    async with serving(memory(), "127.0.0.1:0") as served:
        with pytest.raises(OSError, match="cannot listen"):
            async with serving(memory(), f"127.0.0.1:{served.port}"):
                pass


def test_branches_and_queries_survive_the_wire() -> None:
    """What one side writes is what the other reads."""
    query = RecoverQuery(LOG_ID, finished=True, above={EPOCH: 3}, after=new_xid(), limit=7)
    assert read_recover(write_recover(query, str(query.after))) == query
    bare = RecoverQuery(LOG_ID)
    assert read_recover(write_recover(bare, "")) == bare


async def test_a_branch_survives_the_wire() -> None:
    resource = memory()
    one = transfer()
    await resource.apply(Work(prepares=[one]))
    branch = await resource.branch(LOG_ID, one.xid)
    assert branch is not None
    assert read_branch(write_branch(branch), LOG_ID) == branch
