"""Interactive transactions, intents, listing, watching and inquiries over gRPC."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.running import History
from tests.api.doors import Doors, operation, read_refusal, transfer
from tests.sdk.small_system import LEFT, OPENING

_Asked = reflection_pb2.ServerReflectionRequest
CommitRequest = transaction_pb2.TransactionServiceCommitRequest
RollbackRequest = transaction_pb2.TransactionServiceRollbackRequest


async def begin(opened: Doors, request_id: str = "") -> str:
    return (await opened.stub.Begin(transaction_pb2.BeginRequest(request_id=request_id))).xid


async def enlist(opened: Doors, xid: str, *operations: common_pb2.Operation) -> transaction_pb2.EnlistResponse:
    request = transaction_pb2.EnlistRequest(xid=xid, participant=LEFT, operations=operations)
    return await opened.stub.Enlist(request)


async def test_begin_enlist_commit(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    enlisted = await enlist(open_doors, xid, operation())
    assert (enlisted.branch_number, enlisted.log_id) == (1, open_doors.assembly.engine.incarnation.log_id)
    assert 0 < enlisted.remaining.ToTimedelta().total_seconds() <= 10
    await enlist(open_doors, xid, operation())
    result = (await open_doors.stub.Commit(CommitRequest(xid=xid))).result
    assert result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert open_doors.around.balance(LEFT, "a") == OPENING - 10


async def test_past_its_phase_a_call_says_what_the_phase_is(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    await enlist(open_doors, xid, operation())
    await open_doors.stub.Commit(CommitRequest(xid=xid))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await enlist(open_doors, xid, operation())
    refused = read_refusal(raised.value)
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    unmet = refused.details["PreconditionFailure"]
    assert isinstance(unmet, error_details_pb2.PreconditionFailure)
    assert (unmet.violations[0].type, refused.info.metadata["transaction_id"]) == ("NOT_ACTIVE", xid)


async def test_rollback_only_leaves_no_other_end(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    await enlist(open_doors, xid, operation())
    await open_doors.stub.SetRollbackOnly(transaction_pb2.SetRollbackOnlyRequest(xid=xid, reason="second thoughts"))
    result = (await open_doors.stub.Commit(CommitRequest(xid=xid))).result
    assert result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    assert "second thoughts" in result.message
    assert open_doors.nothing_held()


async def test_a_refused_parameter_is_a_result_of_commit(open_doors: Doors) -> None:
    """The commit itself is a good request: its vote of "no" names the field within the branch."""
    xid = await begin(open_doors)
    await enlist(open_doors, xid, operation(parameters='{"from": "a", "to": "b", "amount": 0}'))
    result = (await open_doors.stub.Commit(CommitRequest(xid=xid))).result
    assert result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    assert result.branches[0].vote.field == "operations[0].parameters.amount"


async def test_rollback_by_xid_and_by_request_id(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    await enlist(open_doors, xid, operation())
    result = (await open_doors.stub.Rollback(RollbackRequest(xid=xid, reason="no"))).result
    assert result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    closed = (await open_doors.stub.Rollback(RollbackRequest(request_id="given-up"))).result
    assert closed.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    late = (await open_doors.stub.Execute(transfer(request_id="given-up"))).result
    assert late.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    assert open_doors.around.balance(LEFT, "a") == OPENING


async def test_what_is_held_no_more_is_told_from_the_log(open_doors: Doors) -> None:
    """A rollback that left no record bound nothing, so the same work may be sent again (R3)."""
    xids = [await begin(open_doors) for _ in range(2)]
    for xid in xids:
        await enlist(open_doors, xid, operation())
    await open_doors.stub.Commit(CommitRequest(xid=xids[0]))
    await open_doors.stub.Rollback(RollbackRequest(xid=xids[1]))
    open_doors.assembly.engine.history = History()
    stub = open_doors.stub
    for ended in (
        [(await stub.Commit(CommitRequest(xid=xid))).result for xid in xids],
        [(await stub.Rollback(RollbackRequest(xid=xid))).result for xid in xids],
    ):
        committed, rolled_back = ended
        assert (committed.xid, committed.outcome) == (xids[0], transaction_pb2.OUTCOME_COMMITTED)
        assert (rolled_back.outcome, rolled_back.retry) == (transaction_pb2.OUTCOME_ROLLED_BACK, True)
    for xid in xids:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await enlist(open_doors, xid, operation())
        assert read_refusal(raised.value).info.reason == "NOT_ACTIVE"


async def test_enlist_takes_work_of_one_kind_for_one_participant(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    for request, field in (
        (transaction_pb2.EnlistRequest(xid=xid, participant="nobody"), "participant"),
        (transaction_pb2.EnlistRequest(xid=xid, participant="No Body"), "participant"),
        (
            transaction_pb2.EnlistRequest(xid=xid, participant=LEFT, operations=[operation("right")]),
            "operations[0].service",
        ),
        (
            transaction_pb2.EnlistRequest(xid=xid, participant=LEFT, operations=[operation()], embedded_operations=1),
            "embedded_operations",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await open_doors.stub.Enlist(request)
        assert read_refusal(raised.value).field == field


async def test_lists_are_newest_first_in_pages(open_doors: Doors) -> None:
    xids = [(await open_doors.stub.Execute(transfer())).result.xid for _ in range(5)]
    found: list[str] = []
    token = ""
    while True:
        page = await open_doors.stub.ListTransactions(
            transaction_pb2.ListTransactionsRequest(page_size=2, page_token=token)
        )
        found += [transaction.result.xid for transaction in page.transactions]
        token = page.next_page_token
        if not token:
            break
    assert found == xids[::-1]


async def test_watching_tells_each_phase_to_the_end(open_doors: Doors) -> None:
    xid = await begin(open_doors)
    await enlist(open_doors, xid, operation())
    watch = open_doors.stub.WatchTransactions(transaction_pb2.WatchTransactionsRequest(xid=xid))
    first = await watch.read()
    assert isinstance(first, transaction_pb2.WatchTransactionsResponse)
    assert first.transaction.result.phase == common_pb2.PHASE_ACTIVE
    assert first.transaction.HasField("deadline")
    await open_doors.stub.Commit(CommitRequest(xid=xid))
    phases: list[int] = []
    while isinstance(change := await watch.read(), transaction_pb2.WatchTransactionsResponse):
        phases.append(change.transaction.result.phase)
    assert phases[0] == common_pb2.PHASE_PREPARING
    assert phases[-1] == common_pb2.PHASE_COMMITTED


async def test_a_participant_in_doubt_is_answered_by_its_own_log_alone(open_doors: Doors) -> None:
    xid = (await open_doors.stub.Execute(transfer())).result.xid
    log_id = open_doors.assembly.engine.incarnation.log_id
    answer = await open_doors.stub.GetDecision(transaction_pb2.GetDecisionRequest(xid=xid, log_id=log_id))
    assert answer.decision == transaction_pb2.DECISION_STATE_COMMIT
    assert answer.sequence > 0
    assert answer.incarnation == answer.epoch == open_doors.assembly.engine.incarnation.number
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await open_doors.stub.GetDecision(transaction_pb2.GetDecisionRequest(xid=xid, log_id="f" * 16))
    refused = read_refusal(raised.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOG_MISMATCH")


async def test_health_and_reflection_are_served(open_doors: Doors) -> None:
    """grpcurl reads error details by reflection too."""
    check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
        open_doors.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
    )
    assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    reflect: grpc.aio.StreamStreamMultiCallable[_Asked, reflection_pb2.ServerReflectionResponse] = (
        open_doors.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.ErrorInfo"),
    ]
    listed, found = [response async for response in reflect(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"pincex.tx.v1.TransactionService", "pincex.tx.v1.RecoveryService"} <= names
    assert found.file_descriptor_response.file_descriptor_proto
