"""One transaction from begin to outcome, through each door."""

from __future__ import annotations

import json
from decimal import Decimal

from pincex.tx.v1 import common_pb2, transaction_pb2

from tests.api.doors import Doors, operation, transfer
from tests.sdk.small_system import LEFT, OPENING, RIGHT

EXECUTE = "/api/v1/transactions/execute"


async def test_grpc_commits_and_tells_each_branch(open_doors: Doors) -> None:
    result = (await open_doors.stub.Execute(transfer())).result
    assert result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert result.phase == common_pb2.PHASE_COMMITTED
    assert result.applied
    assert [branch.participant for branch in result.branches] == [LEFT, RIGHT]
    assert all(branch.done and branch.vote.kind == common_pb2.VOTE_KIND_PREPARED for branch in result.branches)
    assert result.duration.nanos > 0
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5
    assert open_doors.around.balance(RIGHT, "b") == OPENING + 5


async def test_http_commits_and_status_tells_the_story(open_doors: Doors) -> None:
    body = {
        "operations": [
            {"service": LEFT, "operation": "transfer", "parameters": {"from": "a", "to": "b", "amount": 0.5}},
            {"service": RIGHT, "operation": "read", "parameters": {"account": "c"}},
        ],
        "timeout_seconds": 300,
    }
    response = await open_doors.http.post(EXECUTE, json=body)
    assert response.status_code == 200
    told = response.json()
    assert (told["state"], told["applied"], told["phase"]) == ("COMMITTED", True, "COMMITTED")
    assert {branch["participant"]: branch["vote"] for branch in told["branches"]} == {
        LEFT: "PREPARED",
        RIGHT: "READ_ONLY",
    }
    assert told["branches"][1]["results"] == [{"balance": "1000000", "available": "1000000"}]
    assert told["duration_ms"] > 0
    assert open_doors.around.balance(LEFT, "a") == OPENING - Decimal("0.5")
    status = await open_doors.http.get(f"/api/v1/transactions/status/{told['transaction_id']}")
    assert status.status_code == 200
    story = status.json()
    assert story["state"] == "COMMITTED"
    events = [event["event"] for event in story["events"]]
    assert events[0] == "began"
    assert {"voted", "recorded", "acknowledged"} <= set(events)


async def test_an_amount_reaches_the_participant_exactly(open_doors: Doors) -> None:
    """A JSON number never passes through a float: 0.1 + 0.2 is 0.3."""
    for amount in ("0.1", "0.2"):
        text = (
            f'{{"operations":[{{"service":"{LEFT}","operation":"transfer",'
            f'"parameters":{{"from":"a","to":"b","amount":{amount}}}}}]}}'
        )
        response = await open_doors.http.post(EXECUTE, content=text, headers={"Content-Type": "application/json"})
        assert response.json()["state"] == "COMMITTED"
    assert open_doors.around.balance(LEFT, "a") == OPENING - Decimal("0.3")


async def test_a_business_no_is_a_result_with_its_reason(open_doors: Doors) -> None:
    request = transfer(amount='"2000000"')
    result = (await open_doors.stub.Execute(request)).result
    assert result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK
    assert result.reason == "INSUFFICIENT_FUNDS"
    assert not result.retry
    body = f'{{"operations": [{{"service": "{LEFT}", "operation": "fail", "parameters": {{}}}}]}}'
    response = await open_doors.http.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert (response.json()["state"], response.json()["reason"]) == ("ROLLED_BACK", "TOLD_TO_FAIL")
    assert open_doors.nothing_held()


async def test_the_same_request_id_gets_the_same_answer(open_doors: Doors) -> None:
    """R3, over both doors: the intent is one, whichever door it comes through."""
    first = (await open_doors.stub.Execute(transfer(request_id="intent-1"))).result
    again = (await open_doors.stub.Execute(transfer(request_id="intent-1"))).result
    assert (again.xid, again.outcome, again.replayed) == (first.xid, first.outcome, True)
    body = {
        "operations": [
            {"service": name, "operation": "transfer", "parameters": {"to": "b", "from": "a", "amount": 5.0}}
            for name in (LEFT, RIGHT)
        ]
    }
    over_http = await open_doors.http.post(EXECUTE, json=body, headers={"Idempotency-Key": '"intent-1"'})
    assert over_http.json()["state"] == "COMMITTED"


async def test_the_canonical_line_is_written_once(open_doors: Doors) -> None:
    result = (await open_doors.stub.Execute(transfer())).result
    line = open_doors.line_of(result.xid)
    assert line["message"] == "Transaction committed"
    assert line["resources"] == [LEFT, RIGHT]
    assert line["operation_count"] == 2


async def test_deciding_is_enough_where_the_client_says_so(open_doors: Doors) -> None:
    open_doors.around.taps[RIGHT].open()
    request = transfer()
    request.wait = transaction_pb2.WAIT_DECIDED
    assert (await open_doors.stub.Execute(request)).result.outcome == transaction_pb2.OUTCOME_COMMITTED


async def test_health_and_metrics_tell_of_it(open_doors: Doors) -> None:
    await open_doors.stub.Execute(transfer())
    health = (await open_doors.http.get("/api/v1/transactions/health")).json()
    assert health["status"] == "UP"
    assert {each["name"]: each["status"] for each in health["participants"]} == {LEFT: "UP", RIGHT: "UP"}
    for path in ("/health/live", "/health/ready"):
        assert (await open_doors.http.get(path)).json() == {"status": "UP"}
    metrics = (await open_doors.http.get("/metrics")).text
    assert 'pincex_transactions_total{outcome="committed"} 1.0' in metrics
    assert f'pincex_phase_duration_seconds_count{{participant="{LEFT}",phase="prepare"}} 1.0' in metrics


async def test_head_tells_what_get_would(open_doors: Doors) -> None:
    """RFC 9110: the same status and headers, no content."""
    xid = (await open_doors.stub.Execute(transfer())).result.xid
    status = f"/api/v1/transactions/status/{xid}"
    for path in (status, "/api/v1/transactions/health", "/health/live", "/health/ready", "/metrics"):
        head, get = await open_doors.http.head(path), await open_doors.http.get(path)
        assert (head.status_code, head.headers["content-type"]) == (200, get.headers["content-type"])
        assert not head.content


async def test_one_operation_is_enough(open_doors: Doors) -> None:
    request = transaction_pb2.ExecuteRequest(operations=[operation()])
    assert (await open_doors.stub.Execute(request)).result.outcome == transaction_pb2.OUTCOME_COMMITTED


async def test_openapi_describes_the_body(open_doors: Doors) -> None:
    document = (await open_doors.http.get("/openapi.json")).json()
    schema = document["paths"][EXECUTE]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["operations"]
    assert json.dumps(document)
