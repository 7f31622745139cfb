"""Bad input over HTTP: problem details that name the field, never a 5xx, nothing held afterwards."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

from coordinator.api.http_json import BODY_MAX_BYTES
from participant_sdk.ids import Xid
from tests.api.doors import Doors, doors
from tests.sdk.small_system import LEFT, RIGHT

EXECUTE: Final = "/api/v1/transactions/execute"
STATUS: Final = "/api/v1/transactions/status"
JSON: Final = {"Content-Type": "application/json"}
GOOD: Final = f'{{"service": "{LEFT}", "operation": "transfer", "parameters": {{"from": "a", "to": "b", "amount": 5}}}}'


def asking(parameters: str, service: str = RIGHT, name: str = "transfer") -> str:
    """A body with a good operation at left, then this one."""
    return f'{{"operations": [{GOOD}, {{"service": "{service}", "operation": "{name}", "parameters": {parameters}}}]}}'


def amount(text: str) -> str:
    return asking(f'{{"from": "a", "to": "b", "amount": {text}}}')


def beside(more: str) -> str:
    """A good body with more members."""
    return f'{{"operations": [{GOOD}], {more}}}'


AT_THE_DOOR: Final = {
    "nothing": ("", "body", "JSON_INVALID"),
    "no JSON": ("operations=1", "body", "JSON_INVALID"),
    "cut off": ('{"operations": [', "body", "JSON_INVALID"),
    "two values": (f'{{"operations": [{GOOD}]}} {{}}', "body", "JSON_INVALID"),
    "a list": ("[]", "body", "JSON_INVALID"),
    "nested far too deeply": ("[" * 100_000, "body", "JSON_INVALID"),
    "no operations member": ("{}", "operations", "REQUIRED"),
    "operations of another type": ('{"operations": {}}', "operations", "TYPE"),
    "empty operations": ('{"operations": []}', "operations", "OPERATION_COUNT"),
    "too many operations": (f'{{"operations": [{",".join([GOOD] * 101)}]}}', "operations", "OPERATION_COUNT"),
    "too much in all": (
        f'{{"operations": [{",".join([GOOD.replace(": 5", ":".ljust(60_000) + "5")] * 5)}]}}',
        "operations",
        "OPERATIONS_TOO_LARGE",
    ),
    "an operation of another type": ('{"operations": [7]}', "operations[0]", "JSON_INVALID"),
    "operation without service": (
        '{"operations": [{"operation": "x", "parameters": {}}]}',
        "operations[0].service",
        "REQUIRED",
    ),
    "operation without parameters": (
        f'{{"operations": [{{"service": "{LEFT}", "operation": "x"}}]}}',
        "operations[0].parameters",
        "REQUIRED",
    ),
    "service of another type": (asking("{}", name="x").replace(f'"{RIGHT}"', "7"), "operations[1].service", "TYPE"),
    "unknown service": (asking("{}", "nobody"), "operations[1].service", "SERVICE_UNKNOWN"),
    "malformed operation": (asking("{}", name="Rm -rf"), "operations[1].operation", "NAME_MALFORMED"),
    "unknown member": (beside('"timeout": 5'), "timeout", "FIELD_UNKNOWN"),
    "unknown member of an operation": (
        asking("{}").replace('"parameters": {}', '"parameters": {}, "params": {}'),
        "operations[1].params",
        "FIELD_UNKNOWN",
    ),
    "a member twice": (beside('"wait": "applied", "wait": "decided"'), "wait", "JSON_INVALID"),
    "a member of an operation twice": (
        asking("{}").replace('"parameters": {}', '"parameters": {}, "parameters": {}'),
        "operations[1].parameters",
        "JSON_INVALID",
    ),
    "parameters of another type": (asking("[1]"), "operations[1].parameters", "JSON_INVALID"),
    "a parameter twice": (asking('{"to": "b", "to": "c"}'), "operations[1].parameters.to", "JSON_INVALID"),
    "NaN": (amount("NaN"), "operations[1].parameters.amount", "JSON_INVALID"),
    "1e400": (amount("1e400"), "operations[1].parameters.amount", "JSON_INVALID"),
    "too many digits": (amount("1" * 5000), "operations[1].parameters.amount", "JSON_INVALID"),
    "too deep": (asking('{"a":' * 40 + "1" + "}" * 40), "operations[1].parameters", "JSON_INVALID"),
    "too large parameters": (asking('{"a": "' + "x" * 70_000 + '"}'), "operations[1].parameters", "JSON_INVALID"),
    "a NUL": (asking('{"from": "a\\u0000"}'), "operations[1].parameters.from", "JSON_INVALID"),
    "time of another type": (beside('"timeout_seconds": "5"'), "timeout_seconds", "TYPE"),
    "true for a time": (beside('"timeout_seconds": true'), "timeout_seconds", "TYPE"),
    "no time": (beside('"timeout_seconds": 0'), "timeout_seconds", "TIMEOUT_OUT_OF_RANGE"),
    "negative time": (beside('"timeout_seconds": -1'), "timeout_seconds", "TIMEOUT_OUT_OF_RANGE"),
    "too much time": (beside('"timeout_seconds": 3301'), "timeout_seconds", "TIMEOUT_OUT_OF_RANGE"),
    "a little too much time": (beside('"timeout_seconds": 3300.001'), "timeout_seconds", "TIMEOUT_OUT_OF_RANGE"),
    "a huge exponent": (amount("1e999999999999999999999999"), "operations[1].parameters.amount", "JSON_INVALID"),
    "a minute exponent": (amount("1e-999999999999999999999"), "operations[1].parameters.amount", "JSON_INVALID"),
    "a zero with one": (amount("0e999999999999999999999"), "operations[1].parameters.amount", "JSON_INVALID"),
    "huge time": (beside('"timeout_seconds": 1e999999999999999999999999'), "timeout_seconds", "JSON_INVALID"),
    "minute time": (beside('"timeout_seconds": 1e-999999999999999999999'), "timeout_seconds", "JSON_INVALID"),
    "zero time with an exponent": (
        beside('"timeout_seconds": 0e999999999999999999999'),
        "timeout_seconds",
        "JSON_INVALID",
    ),
    "infinite time": (beside('"timeout_seconds": 1e400'), "timeout_seconds", "JSON_INVALID"),
    "request_id of another type": (beside('"request_id": 7'), "request_id", "TYPE"),
    "empty request_id": (beside('"request_id": ""'), "request_id", "REQUEST_ID_MALFORMED"),
    "request_id with a space": (beside('"request_id": "a b"'), "request_id", "REQUEST_ID_MALFORMED"),
    "unknown wait": (beside('"wait": "for ever"'), "wait", "WAIT_UNKNOWN"),
}

AT_THE_PARTICIPANT: Final = {
    "unknown operation": (asking("{}", name="steal"), "operations[1].operation"),
    "missing parameter": (asking('{"from": "a", "to": "b"}'), "operations[1].parameters.amount"),
    "extra parameter": (asking('{"from": "a", "to": "b", "amount": 1, "tip": 1}'), "operations[1].parameters.tip"),
    "wrong type": (asking('{"from": 7, "to": "b", "amount": 1}'), "operations[1].parameters.from"),
    "negative amount": (amount("-1"), "operations[1].parameters.amount"),
    "zero amount": (amount("0.00"), "operations[1].parameters.amount"),
    "over-precise amount": (amount("0.1234567890123456789"), "operations[1].parameters.amount"),
}


def problem_of(response: httpx.Response, status: int) -> dict[str, object]:
    """Read a problem document and check what each must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = response.json()
    assert problem["status"] == status
    assert all(problem[key] for key in ("type", "title", "detail", "code"))
    return problem


async def test_the_door_refuses_what_is_wrong_in_itself(open_doors: Doors) -> None:
    """Each names its field, and begins nothing."""
    for case, (body, field, code) in AT_THE_DOOR.items():
        problem = problem_of(await open_doors.http.post(EXECUTE, content=body, headers=JSON), 400)
        assert (problem["field"], problem["code"]) == (field, code), case
    assert open_doors.assembly.engine.unfinished == 0
    assert open_doors.nothing_held()


async def test_what_a_participant_refuses_names_the_field_of_the_request(open_doors: Doors) -> None:
    for case, (body, field) in AT_THE_PARTICIPANT.items():
        problem = problem_of(await open_doors.http.post(EXECUTE, content=body, headers=JSON), 400)
        assert (problem["field"], problem["state"]) == (field, "ROLLED_BACK"), case
        story = (await open_doors.http.get(f"{STATUS}/{problem['transaction_id']}")).json()
        assert story["state"] == "ROLLED_BACK", case
    assert open_doors.nothing_held()


async def test_a_bound_request_id_refuses_other_operations(open_doors: Doors) -> None:
    good = await open_doors.http.post(EXECUTE, content=beside('"request_id": "once"'), headers=JSON)
    assert good.json()["state"] == "COMMITTED"
    other = f'{{"operations": [{GOOD}, {GOOD}], "request_id": "once"}}'
    problem = problem_of(await open_doors.http.post(EXECUTE, content=other, headers=JSON), 422)
    assert (problem["field"], problem["code"]) == ("request_id", "REQUEST_ID_REUSED")


async def test_a_bound_idempotency_key_is_named_as_it_was_sent(open_doors: Doors) -> None:
    headers = JSON | {"Idempotency-Key": "once"}
    bound = await open_doors.http.post(EXECUTE, content=beside('"wait": "applied"'), headers=headers)
    other = f'{{"operations": [{GOOD}, {GOOD}]}}'
    problem = problem_of(await open_doors.http.post(EXECUTE, content=other, headers=headers), 422)
    assert (problem["field"], problem["code"]) == ("Idempotency-Key", "REQUEST_ID_REUSED")
    assert problem["transaction_id"] == bound.json()["transaction_id"]


async def test_a_request_id_in_use_by_other_operations_is_told_with_a_time_to_come_again(open_doors: Doors) -> None:
    open_doors.around.taps[LEFT].shut()
    post = open_doors.http.post
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(post(EXECUTE, content=beside('"request_id": "busy"'), headers=JSON))
        while not open_doors.assembly.engine.in_flight:  # noqa: ASYNC110 - the engine has no event for its beginnings.
            await asyncio.sleep(0.001)
        other = f'{{"operations": [{GOOD}, {GOOD}], "request_id": "busy"}}'
        response = await post(EXECUTE, content=other, headers=JSON)
        problem = problem_of(response, 409)
        assert (problem["field"], problem["code"]) == ("request_id", "REQUEST_ID_IN_USE")
        assert response.headers["retry-after"] == "1"
        open_doors.around.taps[LEFT].open()
    assert first.result().json()["transaction_id"] == problem["transaction_id"]


async def test_advice_names_a_request_id_only_where_one_was_given(open_doors: Doors) -> None:
    """R3: with one, the "no" is bound to it."""
    for key, advised in ({}, False), ({"Idempotency-Key": "bad"}, True):
        problem = problem_of(await open_doors.http.post(EXECUTE, content=amount("-1"), headers=JSON | key), 400)
        assert ("request_id" in str(problem["detail"])) is advised


async def test_a_time_out_is_told_exactly(open_doors: Doors) -> None:
    body = beside('"timeout_seconds": 3300.001')
    problem = problem_of(await open_doors.http.post(EXECUTE, content=body, headers=JSON), 400)
    assert str(problem["detail"]).endswith("not 3300.001")


async def test_when_to_answer_is_read_in_any_case(open_doors: Doors) -> None:
    for wait in ("APPLIED", "Decided"):
        response = await open_doors.http.post(EXECUTE, content=beside(f'"wait": "{wait}"'), headers=JSON)
        assert response.json()["state"] == "COMMITTED"


async def test_headers_and_queries_that_leave_doubt(open_doors: Doors) -> None:
    """Two values, or a name in a place where nobody looks, must not pass for one intent or none."""
    for headers, field, code in (
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "Idempotency-Key", "HEADER_TWICE"),
        ([("Idempotency-Key", "")], "Idempotency-Key", "REQUEST_ID_MALFORMED"),
        ([("Idempotency-Key", '""')], "Idempotency-Key", "REQUEST_ID_MALFORMED"),
        ([("Content-Type", "application/json")], "Content-Type", "HEADER_TWICE"),
    ):
        response = await open_doors.http.post(
            EXECUTE, content=beside('"wait": "applied"'), headers=[*JSON.items(), *headers]
        )
        problem = problem_of(response, 400)
        assert (problem["field"], problem["code"]) == (field, code)
    for query in ("request_id=once", "request_id=", "wait"):
        response = await open_doors.http.post(f"{EXECUTE}?{query}", content=beside('"wait": "applied"'), headers=JSON)
        problem = problem_of(response, 400)
        assert (problem["field"], problem["code"]) == (query.partition("=")[0], "FIELD_UNKNOWN")
    assert open_doors.assembly.engine.unfinished == 0


async def test_an_idempotency_key_that_contradicts_the_body(open_doors: Doors) -> None:
    for key, code in (("other", "REQUEST_ID_TWICE"), ("a b", "REQUEST_ID_MALFORMED")):
        response = await open_doors.http.post(
            EXECUTE, content=beside('"request_id": "one"'), headers=JSON | {"Idempotency-Key": key}
        )
        problem = problem_of(response, 400)
        assert (problem["field"], problem["code"]) == ("Idempotency-Key", code)


async def test_bodies_of_another_type_encoding_or_size(open_doors: Doors) -> None:
    body = beside('"wait": "applied"')
    post = open_doors.http.post
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ";;;"},
        {},
        JSON | {"Content-Encoding": "gzip"},
    ):
        problem_of(await post(EXECUTE, content=body, headers=headers), 415)
    problem = problem_of(await post(EXECUTE, content=body.encode("utf-16"), headers=JSON), 400)
    assert (problem["field"], problem["code"]) == ("body", "NOT_UTF8")
    assert problem_of(await post(EXECUTE, content=b"\xff\xfe", headers=JSON), 400)["code"] == "NOT_UTF8"
    problem_of(await post(EXECUTE, content=b" " * (BODY_MAX_BYTES + 1), headers=JSON), 413)


async def test_paths_and_methods_that_are_not_there(open_doors: Doors) -> None:
    http = open_doors.http
    assert problem_of(await http.get("/nothing/here"), 404)["code"] == "PATH_UNKNOWN"
    assert problem_of(await http.get(f"{EXECUTE}/"), 404)["code"] == "PATH_UNKNOWN"
    assert problem_of(await http.get("/%ff%fe"), 404)["code"] == "PATH_UNKNOWN"
    response = await http.delete(EXECUTE)
    assert problem_of(response, 405)["code"] == "METHOD_NOT_ALLOWED"
    assert response.headers["allow"] == "POST"


async def test_transactions_that_are_none_or_unknown(open_doors: Doors) -> None:
    for text in ("nonsense", "01890000-0000-4000-8000-000000000001", "%00", "x" * 1000):
        problem = problem_of(await open_doors.http.get(f"{STATUS}/{text}"), 400)
        assert (problem["field"], problem["code"]) == ("transaction_id", "XID_MALFORMED")
    own = open_doors.assembly.engine.incarnation
    for xid in (Xid.make(1, 1, 1), Xid.make(1, own.number, 77)):
        problem = problem_of(await open_doors.http.get(f"{STATUS}/{xid}"), 404)
        assert (problem["field"], problem["code"]) == ("transaction_id", "TRANSACTION_UNKNOWN")
        assert own.address not in str(problem["detail"])


async def test_requests_that_are_no_http(open_doors: Doors) -> None:
    """Whatever arrives, the next caller is served."""
    for raw in (b"\x00\xff\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", open_doors.http_port)
        writer.write(raw)
        answer = await reader.readline()
        assert b" 4" in answer or not answer
        writer.close()
        await writer.wait_closed()
    assert (await open_doors.http.get("/health/live")).status_code == 200


async def test_a_connection_without_a_whole_head_is_closed() -> None:
    """Neither silence, nor a head that drips, nor a second one that does keeps a place for ever."""
    async with doors(idle_s=1) as opened, asyncio.TaskGroup() as tasks:
        for first in (b"", b"GET /health/live HTT", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /he"):
            tasks.create_task(_until_closed(opened.http_port, first))


async def test_a_request_that_takes_its_time_is_not_cut_off() -> None:
    """The bound is for heads: who waits for an answer waits for the transaction."""
    async with doors(idle_s=1) as opened:
        opened.around.taps[LEFT].shut()
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(opened.http.post(EXECUTE, content=beside('"wait": "applied"'), headers=JSON))
            tasks.create_task(_until_closed(opened.http_port, b"GET /he")).add_done_callback(
                lambda _: opened.around.taps[LEFT].open()
            )
        assert slow.result().json()["state"] == "COMMITTED"


async def _until_closed(port: int, first: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    async with asyncio.timeout(10):
        answers = await reader.read()
    assert (b"200 OK" in answers) is (b"\r\n\r\n" in first)
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_within_its_body_harms_nobody(open_doors: Doors) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", open_doors.http_port)
    head = f"POST {EXECUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    writer.write(f"{head}\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    response = await open_doors.http.post(EXECUTE, content=beside('"wait": "applied"'), headers=JSON)
    assert response.json()["state"] == "COMMITTED"
    assert "Unforeseen" not in open_doors.lines.getvalue()


async def test_too_many_in_flight_is_told_with_a_time_to_come_again() -> None:
    async with doors(max_concurrent_txns=1) as opened:
        opened.around.taps[LEFT].shut()
        body = beside('"wait": "applied"')
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(opened.http.post(EXECUTE, content=body, headers=JSON))
            while not opened.assembly.engine.in_flight:  # noqa: ASYNC110 - the engine has no event for its beginnings.
                await asyncio.sleep(0.001)
            response = await opened.http.post(EXECUTE, content=body, headers=JSON)
            assert problem_of(response, 429)["code"] == "TOO_MANY_TRANSACTIONS"
            assert response.headers["retry-after"] == "1"
            opened.around.taps[LEFT].open()
        assert first.result().json()["state"] == "COMMITTED"


async def test_a_stopping_coordinator_sends_callers_elsewhere(open_doors: Doors) -> None:
    open_doors.gate.close()
    response = await open_doors.http.post(EXECUTE, content=beside('"wait": "applied"'), headers=JSON)
    assert problem_of(response, 503)["code"] == "UNAVAILABLE"
    assert response.headers["retry-after"] == "1"
