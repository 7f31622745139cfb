"""Recovery over HTTP: plain words, problems that name the field, and what OpenAPI says of it."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import httpx
import pytest
from pincex.tx.v1 import transaction_pb2

from tests.api.doors import Doors, doors, operation, transfer
from tests.api.stuck import XID_UNKNOWN, forgotten, owed, prepared, until_finished
from tests.sdk.small_system import LEFT, OPENING, RIGHT

BELOW: Final = "/api/v1/transactions"
ATTENTION_AFTER: Final = 3
REASON: Final = {"reason": "the bank said so"}
FORCE: Final = {"participant": LEFT, "outcome": "commit", **REASON}


async def post(opened: Doors, path: str, body: object) -> httpx.Response:
    """Send a body, an object or JSON text."""
    text = body if isinstance(body, str) else json.dumps(body)
    return await opened.http.post(f"{BELOW}/{path}", content=text, headers={"Content-Type": "application/json"})


async def get(opened: Doors, path: str) -> httpx.Response:
    return await opened.http.get(f"{BELOW}/{path}")


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    """A problem's status, code and field, its form checked."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["detail"]
    return answer.status_code, document["code"], document.get("field", "")


@pytest.mark.parametrize("kind", ["global", "orphans"])
async def test_trigger_answers_with_the_pass(open_doors: Doors, kind: str) -> None:
    """The spec's own request."""
    await prepared(open_doors)
    answer = await post(open_doors, "recovery/trigger", {"recovery_type": kind})
    ran = answer.json()
    assert (answer.status_code, ran["recovery_type"]) == (200, kind)
    assert (ran["scanned"], ran["resolved"], ran["failed"], ran["in_doubt"]) == (1, 1, 0, 0)
    assert ran["began_at"] <= ran["ended_at"]
    assert (await get(open_doors, "recovery/status")).json()["last_pass"] == ran
    assert not open_doors.around.held(LEFT, "a")


async def test_trigger_takes_a_participant_or_a_transaction(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    open_doors.around.taps[RIGHT].open()
    body = {"recovery_type": "participant", "participant": RIGHT}
    assert (await post(open_doors, "recovery/trigger", body)).json()["recovery_type"] == "participant"
    body = {"recovery_type": "transaction", "transaction_id": xid}
    assert (await post(open_doors, "recovery/trigger", body)).json()["recovery_type"] == "transaction"
    await until_finished(open_doors, xid)


async def test_status_is_in_plain_words(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    await post(open_doors, "recovery/trigger", {"recovery_type": "global"})
    status = (await get(open_doors, "recovery/status")).json()
    assert (status["held"], status["held_since"], status["current_pass"]) == (False, None, None)
    (stuck,) = status["needs_attention"]
    assert (stuck["transaction_id"], stuck["participants"]) == (xid, [RIGHT])
    assert stuck["attempts"] >= ATTENTION_AFTER
    assert f"pincex tx retry {xid}" in stuck["advice"]
    left, right = status["participants"]
    assert (left["participant"], left["status"], left["breaker"], left["reported"]) == (LEFT, "UP", "CLOSED", True)
    assert (left["owed"], right["owed"]) == (0, 1)
    (live,) = status["coordinators"]
    assert (live["incarnation"], live["self"]) == (open_doors.assembly.engine.incarnation.number, True)


async def test_a_forgotten_branch_is_listed_resolved_and_forgotten(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    (found,) = (await get(open_doors, "recovery/in-doubt")).json()["branches"]
    assert (found["transaction_id"], found["participant"], found["phase"]) == (xid, LEFT, "PREPARED")
    assert (found["decision"], found["heuristic"], found["vote"]) == ("FORGOTTEN", None, "PREPARED")

    shown = (await post(open_doors, f"{xid}/resolve", {**FORCE, "preview": True})).json()
    assert (shown["branch"]["phase"], shown["acknowledgement"]) == ("PREPARED", None)
    assert open_doors.around.balance(LEFT, "a") == OPENING
    forced = (await post(open_doors, f"{xid}/resolve", FORCE)).json()
    assert (forced["branch"]["phase"], forced["branch"]["heuristic"]) == ("HEURISTIC", "COMMIT")
    assert (forced["acknowledgement"], forced["branch"]["reason"]) == ("HEURISTIC_COMMIT", "the bank said so")
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5

    (found,) = (await get(open_doors, f"recovery/in-doubt?participant={LEFT}&page_size=7")).json()["branches"]
    assert (found["phase"], found["heuristic"]) == ("HEURISTIC", "COMMIT")
    forgot = (await post(open_doors, f"{xid}/forget", REASON)).json()
    assert forgot == {"transaction_id": xid, "participants": [LEFT]}
    assert (await get(open_doors, "recovery/in-doubt")).json()["branches"] == []


async def test_branches_in_doubt_come_in_pages(open_doors: Doors) -> None:
    xids = sorted([str(await forgotten(open_doors, name)) for name in (LEFT, RIGHT, LEFT)])
    first = (await get(open_doors, "recovery/in-doubt?page_size=2")).json()
    token = httpx.QueryParams({"page_size": "2", "page_token": first["next_page_token"]})
    second = (await get(open_doors, f"recovery/in-doubt?{token}")).json()
    assert second["next_page_token"] is None
    assert [each["transaction_id"] for each in first["branches"] + second["branches"]] == xids


async def test_retry_needs_no_body(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    answer = await open_doors.http.post(f"{BELOW}/{xid}/retry")
    assert answer.json() == {"transaction_id": xid, "phase": "COMMITTING"}
    open_doors.around.taps[RIGHT].open()
    await until_finished(open_doors, xid)
    assert (await post(open_doors, f"{xid}/retry", {})).json()["phase"] == "COMMITTED"


async def test_rollback_by_id_undoes_what_is_open(open_doors: Doors) -> None:
    """And tells how a finished one ended, which it does not change."""
    begun = (await open_doors.stub.Begin(transaction_pb2.BeginRequest())).xid
    enlist = transaction_pb2.EnlistRequest(xid=begun, participant=LEFT, operations=[operation()])
    await open_doors.stub.Enlist(enlist)
    undone = (await post(open_doors, f"{begun}/rollback", REASON)).json()
    assert (undone["transaction_id"], undone["state"]) == (begun, "ROLLED_BACK")
    assert "the bank said so" in undone["message"]
    done = (await open_doors.stub.Execute(transfer())).result.xid
    told = (await open_doors.http.post(f"{BELOW}/{done}/rollback")).json()
    assert told["state"] == "COMMITTED"
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5


async def test_hold_ends_this_coordinator_and_is_told_first() -> None:
    async with doors() as opened:
        held = (await post(opened, "recovery/hold", REASON)).json()
        assert (held["held"], held["held_reason"]) == (True, "the bank said so")
        assert held["held_since"]
        async with asyncio.timeout(10):
            await opened.ended.wait()


async def test_release_is_previewed_first() -> None:
    async with doors(held="restored") as opened:
        await prepared(opened)
        preview = (await post(opened, "recovery/release", {**REASON, "preview": True})).json()
        assert (preview["released"], preview["commits_restored"], preview["rollbacks_presumed"]) == (False, 0, 1)
        released = (await post(opened, "recovery/release", REASON)).json()
        assert released == {**preview, "released": True}
        assert not opened.around.log.tables.held


AT_THE_DOOR: Final[dict[str, tuple[str, object, str, str]]] = {
    "no body": ("recovery/trigger", "", "body", "JSON_INVALID"),
    "a list": ("recovery/trigger", [], "body", "JSON_INVALID"),
    "no type": ("recovery/trigger", {}, "recovery_type", "REQUIRED"),
    "another type": ("recovery/trigger", {"recovery_type": "all"}, "recovery_type", "SCOPE_UNKNOWN"),
    "a type that is no text": ("recovery/trigger", {"recovery_type": 1}, "recovery_type", "TYPE"),
    "a type twice": (
        "recovery/trigger",
        '{"recovery_type": "global", "recovery_type": "global"}',
        "recovery_type",
        "JSON_INVALID",
    ),
    "something unknown": ("recovery/trigger", {"recovery_type": "global", "scope": 1}, "scope", "FIELD_UNKNOWN"),
    "no transaction": ("recovery/trigger", {"recovery_type": "transaction"}, "transaction_id", "REQUIRED"),
    "a malformed transaction": (
        "recovery/trigger",
        {"recovery_type": "transaction", "transaction_id": "x"},
        "transaction_id",
        "XID_MALFORMED",
    ),
    "no participant": ("recovery/trigger", {"recovery_type": "participant"}, "participant", "REQUIRED"),
    "an empty participant": (
        "recovery/trigger",
        {"recovery_type": "participant", "participant": ""},
        "participant",
        "EMPTY",
    ),
    "an unknown participant": (
        "recovery/trigger",
        {"recovery_type": "participant", "participant": "nobody"},
        "participant",
        "SERVICE_UNKNOWN",
    ),
    "a transaction for all": (
        "recovery/trigger",
        {"recovery_type": "global", "transaction_id": XID_UNKNOWN},
        "transaction_id",
        "FIELD_UNEXPECTED",
    ),
    "hold without reason": ("recovery/hold", {}, "reason", "REQUIRED"),
    "hold with a blank reason": ("recovery/hold", {"reason": " "}, "reason", "REQUIRED"),
    "hold with a preview": ("recovery/hold", {"reason": "r", "preview": True}, "preview", "FIELD_UNKNOWN"),
    "release without reason": ("recovery/release", {"preview": True}, "reason", "REQUIRED"),
    "release with a preview of another type": (
        "recovery/release",
        {"reason": "r", "preview": "yes"},
        "preview",
        "TYPE",
    ),
    "retry of no transaction": ("x/retry", {}, "transaction_id", "XID_MALFORMED"),
    "retry with something": (f"{XID_UNKNOWN}/retry", {"force": True}, "force", "FIELD_UNKNOWN"),
    "resolve of no transaction": ("x/resolve", FORCE, "transaction_id", "XID_MALFORMED"),
    "resolve without participant": (f"{XID_UNKNOWN}/resolve", {"outcome": "commit"}, "participant", "REQUIRED"),
    "resolve at nobody": (
        f"{XID_UNKNOWN}/resolve",
        {**FORCE, "participant": "nobody"},
        "participant",
        "SERVICE_UNKNOWN",
    ),
    "resolve at no name": (
        f"{XID_UNKNOWN}/resolve",
        {**FORCE, "participant": "No Body"},
        "participant",
        "NAME_MALFORMED",
    ),
    "resolve to another outcome": (
        f"{XID_UNKNOWN}/resolve",
        {**FORCE, "outcome": "COMMIT"},
        "outcome",
        "NOT_AN_OUTCOME",
    ),
    "resolve without reason": (
        f"{XID_UNKNOWN}/resolve",
        {"participant": LEFT, "outcome": "commit"},
        "reason",
        "REQUIRED",
    ),
    "resolve with an empty reason": (f"{XID_UNKNOWN}/resolve", {**FORCE, "reason": ""}, "reason", "REQUIRED"),
    "resolve with a long reason": (
        f"{XID_UNKNOWN}/resolve",
        {**FORCE, "reason": "x" * 201},
        "reason",
        "REASON_MALFORMED",
    ),
    "resolve with a preview of another type": (f"{XID_UNKNOWN}/resolve", {**FORCE, "preview": 1}, "preview", "TYPE"),
    "forget without reason": (f"{XID_UNKNOWN}/forget", {}, "reason", "REQUIRED"),
    "forget of no transaction": ("x/forget", REASON, "transaction_id", "XID_MALFORMED"),
    "rollback of no transaction": ("x/rollback", {}, "transaction_id", "XID_MALFORMED"),
    "rollback with something": (f"{XID_UNKNOWN}/rollback", {"why": "r"}, "why", "FIELD_UNKNOWN"),
    "rollback with an empty reason": (f"{XID_UNKNOWN}/rollback", {"reason": ""}, "reason", "EMPTY"),
}


@pytest.mark.parametrize("name", AT_THE_DOOR)
async def test_a_bad_request_names_its_field(open_doors: Doors, name: str) -> None:
    path, body, field, code = AT_THE_DOOR[name]
    assert problem(await post(open_doors, path, body)) == (400, code, field)
    assert not open_doors.around.log.tables.held


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("page_size=1001", "page_size", ""),
        ("page_size=0", "page_size", ""),
        ("page_size=-1", "page_size", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_size=many", "page_size", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_size=%D9%A3", "page_size", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_token=next", "page_token", ""),
        (f"page_token={XID_UNKNOWN}", "page_token", ""),
        ("participant=nobody", "participant", "SERVICE_UNKNOWN"),
        ("participant=No+Body", "participant", "NAME_MALFORMED"),
        ("page_size=1&page_size=2", "page_size", "FIELD_TWICE"),
        ("limit=1", "limit", "FIELD_UNKNOWN"),
    ],
)
async def test_a_bad_page_names_its_parameter(open_doors: Doors, query: str, field: str, code: str) -> None:
    status, told, named = problem(await get(open_doors, f"recovery/in-doubt?{query}"))
    assert (status, named) == (400, field)
    assert told == code or not code


async def test_a_body_of_another_kind_is_refused(open_doors: Doors) -> None:
    """One without a type is taken for none only where it is empty."""
    for path in (f"{XID_UNKNOWN}/retry", "recovery/hold"):
        answer = await open_doors.http.post(f"{BELOW}/{path}", content=b"reason=1")
        assert problem(answer) == (415, "CONTENT_TYPE_UNSUPPORTED", "Content-Type")


async def test_the_state_of_things_is_a_conflict(open_doors: Doors) -> None:
    finished = (await open_doors.stub.Execute(transfer())).result.xid
    live, undriven = await owed(open_doors), str(await prepared(open_doors))
    for path, body, code in (
        (f"{finished}/resolve", FORCE, "ALREADY_FINISHED"),
        (f"{finished}/forget", REASON, "NOT_HEURISTIC"),
        (f"{live}/resolve", FORCE, "TRANSACTION_LIVE"),
        (f"{undriven}/resolve", FORCE, "DECISION_KNOWN"),
        ("recovery/release", REASON, "NOT_HELD"),
    ):
        answer = await post(open_doors, path, body)
        assert problem(answer) == (409, code, "")
        assert answer.json().get("transaction_id", path) in path
    assert problem(await post(open_doors, f"{live}/forget", REASON)) == (409, "TRANSACTION_LIVE", "")


async def test_what_is_not_in_doubt_there_is_a_conflict(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    assert problem(await post(open_doors, f"{xid}/resolve", {**FORCE, "participant": RIGHT})) == (
        409,
        "NOT_IN_DOUBT",
        "",
    )


async def test_an_unknown_transaction_is_not_found(open_doors: Doors) -> None:
    """Its incarnation was never drawn by this log, and is above all that were."""
    xid = "01890000-0000-8fff-bfff-fc0000000001"
    for path in (f"{xid}/retry", f"{xid}/rollback"):
        assert problem(await post(open_doors, path, {})) == (404, "TRANSACTION_UNKNOWN", "transaction_id")
    assert problem(await post(open_doors, f"{xid}/resolve", FORCE)) == (404, "TRANSACTION_UNKNOWN", "transaction_id")


async def test_release_waits_for_every_participant() -> None:
    async with doors(held="restored", absent="gone") as opened:
        answer = await post(opened, "recovery/release", REASON)
        assert problem(answer) == (409, "PARTICIPANTS_MISSING", "")
        assert "gone" in answer.json()["detail"]
        assert (await get(opened, "recovery/in-doubt")).json()["unreachable_participants"] == ["gone"]


async def test_without_its_log_it_is_unavailable(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    open_doors.wire.is_cut = True
    for path, body in ((f"{xid}/resolve", FORCE), (f"{xid}/retry", {}), ("recovery/hold", REASON)):
        answer = await post(open_doors, path, body)
        assert problem(answer) == (503, "UNAVAILABLE", "")
        assert answer.headers["retry-after"]
    (found,) = (await get(open_doors, "recovery/in-doubt")).json()["branches"]
    assert found["decision"] is None
    open_doors.wire.is_cut = False


async def test_every_route_is_in_openapi(open_doors: Doors) -> None:
    """With its body's members, so that a console and a fuzzer know what to send."""
    paths = (await open_doors.http.get("/openapi.json")).json()["paths"]
    posts = {path.removeprefix(f"{BELOW}/"): each["post"] for path, each in paths.items() if "post" in each}
    members = {
        path: sorted(each["requestBody"]["content"]["application/json"]["schema"]["properties"])
        for path, each in posts.items()
        if each["tags"] == ["recovery"]
    }
    assert members == {
        "recovery/trigger": ["participant", "recovery_type", "transaction_id"],
        "recovery/hold": ["reason"],
        "recovery/release": ["preview", "reason"],
        "{transaction_id}/retry": [],
        "{transaction_id}/resolve": ["outcome", "participant", "preview", "reason"],
        "{transaction_id}/forget": ["reason"],
        "{transaction_id}/rollback": ["reason"],
    }
    in_doubt = paths[f"{BELOW}/recovery/in-doubt"]["get"]["parameters"]
    assert [each["name"] for each in in_doubt] == ["participant", "page_size", "page_token"]
    assert f"{BELOW}/recovery/status" in paths
