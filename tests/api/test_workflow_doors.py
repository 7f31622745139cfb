"""Workflows through HTTP, gRPC and the command: one spelling, exact, and every wrong thing named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import grpc
import httpx
import pytest
from pincex.tx.v1 import recovery_pb2, workflow_pb2
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceStub
from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceStub

from coordinator.workflows.builtin import definitions
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk.ids import Xid
from tests.api.doors import Doors, doors, read_refusal
from tests.api.fleet import fleet
from tests.api.test_recovery_commands import Json, printed, run, told
from tests.engine.recovering import until
from tests.engine.workflows import DEFINITIONS
from tests.sdk.small_system import RIGHT, System, system

if TYPE_CHECKING:
    from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceAsyncStub

BELOW: Final = "/api/v1/transactions"
UNKNOWN: Final = "01a22945-49ef-86b0-b274-00000000ffff"
KNOWN: Final = WorkflowSettings({**definitions(), **{each.kind: each for each in DEFINITIONS}})


@pytest.fixture
async def opened() -> AsyncIterator[Doors]:
    async with doors(workflows=KNOWN) as open_doors:
        yield open_doors


async def execute(opened: Doors, body: str, **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/json", **headers}
    return await opened.http.post(f"{BELOW}/execute-workflow", content=body, headers=sent)


def stub_of(opened: Doors) -> WorkflowServiceAsyncStub:
    return WorkflowServiceStub(opened.channel)


async def stuck(opened: Doors) -> Json:
    """A workflow that is past its pivot and was refused."""
    answer: Json = (await execute(opened, '{"workflow_type":"past_pivot","parameters":{}}')).json()
    assert answer["state"] == "STUCK"
    return answer


async def test_http_answers_when_the_workflow_has_ended(opened: Doors) -> None:
    answer = await execute(opened, '{"workflow_type":"moves","parameters":{"amount":"7.50"},"timeout_seconds":600}')
    assert answer.status_code == 200
    told_so = answer.json()
    assert (told_so["state"], told_so["failure"], told_so["stuck"]) == ("COMPLETED", None, None)
    assert '"result":{"moved":7.50}' in answer.text, "numbers are told as they were written"
    assert [(step["name"], step["state"]) for step in told_so["steps"]] == [
        ("take", "COMMITTED"),
        ("give", "COMMITTED"),
        ("last", "COMMITTED"),
    ]
    shown = await opened.http.get(f"{BELOW}/workflows/{told_so['workflow_id']}")
    assert shown.json() == told_so
    story = await opened.http.get(f"{BELOW}/status/{told_so['steps'][0]['transaction_id']}")
    assert story.json()["request_id"] == f"{told_so['workflow_id']}:take"


async def test_a_failed_workflow_is_a_result(opened: Doors) -> None:
    answer = await execute(opened, '{"workflow_type":"refused","parameters":{}}')
    assert answer.status_code == 200
    assert answer.json()["state"] == "COMPENSATED"
    assert answer.json()["failure"]["code"] == "TOLD_TO_FAIL"


async def test_who_would_rather_not_wait_is_told_where_to_look(opened: Doors) -> None:
    answer = await execute(
        opened, '{"workflow_type":"moves","parameters":{}}', Prefer="handling=lenient, respond-async; wait=5"
    )
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    where = answer.headers["Location"]
    await until_ended(opened, answer.json()["workflow_id"])
    assert (await opened.http.get(where)).json()["state"] == "COMPLETED"


async def until_ended(opened: Doors, workflow_id: str) -> workflow_pb2.Workflow:
    request = workflow_pb2.GetWorkflowRequest(workflow_id=workflow_id, wait=True)
    return (await stub_of(opened).GetWorkflow(request, timeout=20)).workflow


async def test_an_idempotency_key_runs_one_workflow(opened: Doors) -> None:
    body = '{"workflow_type":"moves","parameters":{"amount":"2"}}'
    first, again = [await execute(opened, body, **{"Idempotency-Key": "order-1"}) for _ in range(2)]
    assert first.json() == again.json()
    other = await execute(opened, body.replace('"2"', '"3"'), **{"Idempotency-Key": "order-1"})
    assert (other.status_code, other.json()["code"]) == (422, "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ('{"parameters":{}}', "workflow_type", "REQUIRED"),
        ('{"workflow_type":"moves"}', "parameters", "REQUIRED"),
        ('{"workflow_type":"","parameters":{}}', "workflow_type", "REQUIRED"),
        ('{"workflow_type":7,"parameters":{}}', "workflow_type", "TYPE"),
        ('{"workflow_type":"no_such","parameters":{}}', "workflow_type", "WORKFLOW_TYPE_UNKNOWN"),
        ('{"workflow_type":"moves","parameters":[]}', "parameters", "JSON_INVALID"),
        ('{"workflow_type":"moves","parameters":{"amount":1e400}}', "parameters.amount", "JSON_INVALID"),
        ('{"workflow_type":"moves","parameters":{"amount":NaN}}', "parameters.amount", "JSON_INVALID"),
        ('{"workflow_type":"moves","parameters":{"amount":"\\ud800"}}', "parameters.amount", "JSON_INVALID"),
        ('{"workflow_type":"moves","parameters":{"amount":1,"amount":2}}', "parameters.amount", "JSON_INVALID"),
        ('{"workflow_type":"moves","parameters":{"sum":"1"}}', "parameters.sum", "BAD_PARAMETERS"),
        ('{"workflow_type":"moves","parameters":{},"timeout_seconds":0}', "timeout_seconds", "TIMEOUT_OUT_OF_RANGE"),
        (
            '{"workflow_type":"moves","parameters":{},"timeout_seconds":2592001}',
            "timeout_seconds",
            "TIMEOUT_OUT_OF_RANGE",
        ),
        ('{"workflow_type":"moves","parameters":{},"timeout_seconds":"5"}', "timeout_seconds", "TYPE"),
        ('{"workflow_type":"moves","parameters":{},"request_id":"a b"}', "request_id", "REQUEST_ID_MALFORMED"),
        ('{"workflow_type":"moves","parameters":{},"wait":true}', "wait", "FIELD_UNKNOWN"),
        (
            (
                '{"workflow_type":"trade_execution","parameters":{"user_id":"1","symbol":"BTC/USD","side":"buy",'
                '"amount":1,"price":0}}'
            ),
            "parameters.price",
            "BAD_PARAMETERS",
        ),
        (
            (
                '{"workflow_type":"trade_execution","parameters":{"user_id":"1","symbol":"BTC/GOLD","side":"buy",'
                '"amount":1,"price":1}}'
            ),
            "parameters.symbol",
            "UNKNOWN_SYMBOL",
        ),
        (
            (
                '{"workflow_type":"fiat_deposit","parameters":{"user_id":"1","currency":"USD","amount":"x",'
                '"bank_reference":"r"}}'
            ),
            "parameters.amount",
            "BAD_PARAMETERS",
        ),
        (
            '{"workflow_type":"crypto_withdrawal","parameters":{"user_id":"1","currency":"BTC","amount":"1"}}',
            "parameters.address",
            "BAD_PARAMETERS",
        ),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_begins(opened: Doors, body: str, field: str, code: str) -> None:
    answer = await execute(opened, body)
    assert (answer.status_code, answer.json()["field"], answer.json()["code"]) == (400, field, code)
    assert not opened.around.log.tables.workflows


async def test_listing_filters_and_pages(opened: Doors) -> None:
    for kind in ("moves", "refused", "moves"):
        await execute(opened, f'{{"workflow_type":"{kind}","parameters":{{}}}}')
    stuck_one = await stuck(opened)

    async def listed(query: str) -> Json:
        answer: Json = (await opened.http.get(f"{BELOW}/workflows{query}")).json()
        return answer

    every = await listed("")
    assert [each["workflow_type"] for each in every["workflows"]] == ["past_pivot", "moves", "refused", "moves"]
    assert every["next_page_token"] is None
    first = await listed("?page_size=1&workflow_type=moves")
    second = await listed(f"?page_size=1&workflow_type=moves&page_token={first['next_page_token']}")
    assert (len(first["workflows"]), len(second["workflows"]), second["next_page_token"]) == (1, 1, None)
    assert [each["workflow_id"] for each in (await listed("?state=stuck"))["workflows"]] == [stuck_one["workflow_id"]]
    assert len((await listed("?state=COMPENSATED"))["workflows"]) == 1
    for query, field in (
        ("?state=GONE", "state"),
        ("?page_size=0", "page_size"),
        ("?page_size=1001", "page_size"),
        ("?workflow_type=%00", "workflow_type"),
        (f"?workflow_type={'a' * 65}", "workflow_type"),
        ("?page_token=x", "page_token"),
        ("?who=me", "who"),
        ("?state=stuck&state=x", "state"),
    ):
        refused = await opened.http.get(f"{BELOW}/workflows{query}")
        assert (refused.status_code, refused.json()["field"]) == (400, field), query


async def test_an_operator_retries_skips_and_is_told_what_cannot_be(opened: Doors) -> None:
    workflow_id = (await stuck(opened))["workflow_id"]
    below = f"{BELOW}/workflows/{workflow_id}"

    async def post(what: str, **body: str) -> httpx.Response:
        return await opened.http.post(f"{below}/{what}", json=body)

    for what, body, field in (
        ("retry", {}, "reason"),
        ("retry", {"reason": " "}, "reason"),
        ("skip", {"reason": "why"}, "step"),
        ("skip", {"reason": "why", "step": "A B"}, "step"),
    ):
        refused = await post(what, **body)
        assert (refused.status_code, refused.json()["field"]) == (400, field)
    cancelled = await post("cancel", reason="too late")
    assert (cancelled.status_code, cancelled.json()["code"]) == (409, "PAST_PIVOT")
    again = await post("retry", reason="once more")
    assert again.status_code == 200
    await until_ended(opened, workflow_id)
    await post("skip", reason="paid by hand", step="last")
    assert (await until_ended(opened, workflow_id)).state == workflow_pb2.WORKFLOW_STATE_COMPLETED
    late = await post("retry", reason="again")
    assert (late.status_code, late.json()["code"]) == (409, "ALREADY_FINISHED")
    unknown = await opened.http.post(f"{BELOW}/workflows/{UNKNOWN}/cancel", json={"reason": "why"})
    assert (unknown.status_code, unknown.json()["code"], unknown.json()["field"]) == (
        404,
        "WORKFLOW_UNKNOWN",
        "workflow_id",
    )
    malformed = await opened.http.get(f"{BELOW}/workflows/x")
    assert (malformed.status_code, malformed.json()["field"]) == (400, "workflow_id")


async def test_grpc_says_the_same(opened: Doors) -> None:
    stub = stub_of(opened)
    request = workflow_pb2.RunWorkflowRequest(workflow_type="moves", parameters='{"amount":"3"}', request_id="r")
    request.timeout.FromSeconds(60)
    ran = (await stub.RunWorkflow(request)).workflow
    assert (ran.state, ran.result) == (workflow_pb2.WORKFLOW_STATE_COMPLETED, '{"moved":3}')
    listed = await stub.ListWorkflows(workflow_pb2.ListWorkflowsRequest(workflow_type="moves"))
    assert list(listed.workflows) == [ran]
    needing = (
        await stub.RunWorkflow(workflow_pb2.RunWorkflowRequest(workflow_type="past_pivot", parameters="{}"))
    ).workflow
    assert needing.stuck.step == "last"
    retried = await stub.RetryWorkflow(
        workflow_pb2.RetryWorkflowRequest(workflow_id=needing.workflow_id, reason="again")
    )
    assert retried.workflow.workflow_id == needing.workflow_id
    await until_ended(opened, needing.workflow_id)
    await stub.SkipWorkflowStep(
        workflow_pb2.SkipWorkflowStepRequest(workflow_id=needing.workflow_id, step="last", reason="by hand")
    )
    assert (await until_ended(opened, needing.workflow_id)).steps[-1].state == workflow_pb2.WORKFLOW_STEP_STATE_SKIPPED


CancelRequest = workflow_pb2.CancelWorkflowRequest


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("GetWorkflow", workflow_pb2.GetWorkflowRequest(workflow_id=UNKNOWN), "NOT_FOUND", "WORKFLOW_UNKNOWN"),
        ("GetWorkflow", workflow_pb2.GetWorkflowRequest(), "INVALID_ARGUMENT", "XID_MALFORMED"),
        ("CancelWorkflow", CancelRequest(workflow_id=UNKNOWN), "INVALID_ARGUMENT", "REQUIRED"),
        ("CancelWorkflow", CancelRequest(workflow_id=UNKNOWN, reason="why"), "NOT_FOUND", "WORKFLOW_UNKNOWN"),
        ("RunWorkflow", workflow_pb2.RunWorkflowRequest(), "INVALID_ARGUMENT", "REQUIRED"),
        (
            "ListWorkflows",
            workflow_pb2.ListWorkflowsRequest(workflow_type="a\0"),
            "INVALID_ARGUMENT",
            "NAME_MALFORMED",
        ),
        (
            "ListWorkflows",
            workflow_pb2.ListWorkflowsRequest(page_size=1001),
            "INVALID_ARGUMENT",
            "PAGE_SIZE_OUT_OF_RANGE",
        ),
    ],
)
async def test_grpc_refusals_have_their_details(
    opened: Doors, method: str, request_: object, code: str, reason: str
) -> None:
    call: Callable[[object], Awaitable[object]] = getattr(stub_of(opened), method)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(request_)
    refusal = read_refusal(raised.value)
    assert (refusal.code.name, refusal.info.reason) == (code, reason)


async def test_the_command_runs_shows_lists_and_takes_a_hand(opened: Doors) -> None:
    ran = await told(
        opened, "workflow", "run", "moves", "-p", '{"amount":"4"}', "--request-id", "cli", "--timeout", "60"
    )
    assert ran["state"] == "COMPLETED"
    by_http = (await opened.http.get(f"{BELOW}/workflows/{ran['workflow_id']}")).json()
    assert ran == by_http == await told(opened, "workflow", "show", ran["workflow_id"])
    failed = await run(opened, "workflow", "run", "refused", "--parameters", "-", "--json", text="{}")
    assert (failed.exit_code, printed(failed)["state"]) == (1, "COMPENSATED")
    needing = await run(opened, "workflow", "run", "past_pivot", "-p", "{}", "--json")
    assert (needing.exit_code, printed(needing)["state"]) == (3, "STUCK")
    key = printed(needing)["workflow_id"]
    shown = await run(opened, "workflow", "show", key)
    assert all(word in shown.stdout for word in ("STUCK", "PAST_PIVOT", "give (pivot)", "REFUSED"))
    listed = await run(opened, "workflow", "list")
    assert all(word in listed.stdout for word in ("moves", "refused", key, "PAST_PIVOT last"))
    assert [each["workflow_id"] for each in await told_list(opened, "--state", "stuck")] == [key]
    refused = await run(opened, "workflow", "cancel", key, "--reason", "why", "--yes", "--json")
    assert (refused.exit_code, printed(refused)["code"]) == (2, "PAST_PIVOT")
    assert (await told(opened, "workflow", "retry", key, "--reason", "why"))["workflow_id"] == key
    await until_ended(opened, key)
    await told(opened, "workflow", "skip", key, "--step", "last", "--reason", "by hand", "--yes")
    assert (await until_ended(opened, key)).state == workflow_pb2.WORKFLOW_STATE_COMPLETED
    wrong = await run(opened, "workflow", "run", "moves", "-p", '{"sum":1}', "--json")
    assert (wrong.exit_code, printed(wrong)["field"]) == (2, "parameters.sum")
    missing = await run(opened, "workflow", "run", "moves", "-p", "@/nowhere", "--json")
    assert missing.exit_code == 2
    begun = await told(opened, "workflow", "run", "moves", "-p", "{}", "--no-wait")
    assert (await until_ended(opened, begun["workflow_id"])).state == workflow_pb2.WORKFLOW_STATE_COMPLETED


async def told_list(opened: Doors, *options: str) -> list[Json]:
    result = await run(opened, "workflow", "list", *options, "--json")
    read: list[Json] = json.loads(result.stdout.splitlines()[-1])
    return read


async def test_recovery_can_be_asked_for_workflows_alone(opened: Doors) -> None:
    ran = await told(opened, "recovery", "trigger", "--workflows")
    assert (ran["recovery_type"], ran["resumed_workflows"]) == ("workflows", 0)
    by_http = await opened.http.post(f"{BELOW}/recovery/trigger", json={"recovery_type": "workflows"})
    assert by_http.json()["recovery_type"] == "workflows"
    request = recovery_pb2.TriggerRecoveryRequest(scope=recovery_pb2.RECOVERY_SCOPE_WORKFLOWS)
    await RecoveryServiceStub(opened.channel).TriggerRecovery(request)


@pytest.fixture
async def world() -> AsyncIterator[System]:
    async with system() as around:
        yield around


async def test_any_coordinator_takes_any_call(world: System) -> None:
    """A workflow is its owner's; others send calls on, and take it over once the owner is fenced."""
    async with fleet(world) as place:
        owner, other = await place.start("a"), await place.start("b")
        world.taps[RIGHT].shut()
        body: dict[str, object] = {"workflow_type": "moves", "parameters": {"amount": "10"}, "request_id": "once"}
        begun = (
            await owner.http.post(f"{BELOW}/execute-workflow", json=body, headers={"Prefer": "respond-async"})
        ).json()
        key = begun["workflow_id"]
        shown = (await other.http.get(f"{BELOW}/workflows/{key}")).json()
        assert shown["incarnation"] == owner.incarnation.number
        retried = await other.http.post(f"{BELOW}/workflows/{key}/retry", json={"reason": "look again"})
        assert retried.status_code == 200, retried.text
        assert world.log.tables.actions[-1].action == "WORKFLOW_RETRY"
        refused = await other.http.post(f"{BELOW}/workflows/{key}/skip", json={"reason": "why", "step": "nothing"})
        assert (refused.status_code, refused.json()["code"]) == (409, "STEP_NOT_WAITED_FOR")
        waiting = asyncio.ensure_future(other.http.post(f"{BELOW}/execute-workflow", json=body))
        await until(lambda: world.log.tables.workflows[Xid.parse(key)].record.phase.name == "RUNNING")
        await owner.die()
        world.taps[RIGHT].open()
        answer = (await waiting).json()
    assert (answer["workflow_id"], answer["state"]) == (key, "COMPLETED")
    assert answer["incarnation"] == other.incarnation.number
