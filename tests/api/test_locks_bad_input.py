"""Locks and bad input: every field that a caller may get wrong, over both doors."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pincex.tx.v1 import lock_pb2

from tests.api.doors import Doors, read_refusal, transfer
from tests.api.test_locks import EXECUTE, LOCKS, acquire, begin, locks_of


@pytest.mark.parametrize(
    ("written", "field", "code"),
    [
        ('"a"', "lock_keys", "TYPE"),
        ("[1]", "lock_keys[0]", "TYPE"),
        ('["a", ""]', "lock_keys[1]", "LOCK_KEY_MALFORMED"),
        ('[" a"]', "lock_keys[0]", "LOCK_KEY_MALFORMED"),
        ('["a\\n"]', "lock_keys[0]", "LOCK_KEY_MALFORMED"),
        (json.dumps(["k" * 201]), "lock_keys[0]", "LOCK_KEY_MALFORMED"),
        (json.dumps([f"k{n}" for n in range(101)]), "lock_keys", "LOCK_KEY_COUNT"),
    ],
)
async def test_lock_keys_of_a_body(open_doors: Doors, written: str, field: str, code: str) -> None:
    work = '[{"service": "left", "operation": "transfer", "parameters": {}}]'
    answer = await open_doors.http.post(
        EXECUTE,
        content=f'{{"operations": {work}, "lock_keys": {written}}}',
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, code, field)


@pytest.mark.parametrize(
    ("request_", "field", "code"),
    [
        (lock_pb2.AcquireRequest(xid="x", keys=["a"]), "xid", "XID_MALFORMED"),
        (lock_pb2.AcquireRequest(), "keys", "LOCK_KEY_COUNT"),
        (lock_pb2.AcquireRequest(keys=["a", "\t"]), "keys[1]", "LOCK_KEY_MALFORMED"),
        (lock_pb2.AcquireRequest(keys=["a"], mode=lock_pb2.LockMode.ValueType(7)), "mode", "LOCK_MODE_UNKNOWN"),
        (lock_pb2.AcquireRequest(keys=["a"], timeout=Duration()), "timeout", "TIMEOUT_OUT_OF_RANGE"),
        (lock_pb2.AcquireRequest(keys=["a"], timeout=Duration(seconds=3301)), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    ],
)
async def test_acquire(open_doors: Doors, request_: lock_pb2.AcquireRequest, field: str, code: str) -> None:
    request_.xid = request_.xid or await begin(open_doors)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await locks_of(open_doors).Acquire(request_)
    refused = read_refusal(raised.value)
    assert (refused.code, refused.field, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, field, code)


async def test_a_transaction_holds_at_most_a_hundred_keys(open_doors: Doors) -> None:
    xid = await begin(open_doors, *(f"k{n}" for n in range(60)))
    await acquire(open_doors, xid, *(f"k{n}" for n in range(30, 100)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await acquire(open_doors, xid, "one-more")
    assert read_refusal(raised.value).field == "keys"


@pytest.mark.parametrize("method", ["Execute", "Begin"])
async def test_lock_keys_over_grpc(open_doors: Doors, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if method == "Execute":
            request = transfer()
            request.lock_keys.append(" ")
            await open_doors.stub.Execute(request)
        else:
            await begin(open_doors, " ")
    assert read_refusal(raised.value).field == "lock_keys[0]"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
        ("page_size=x", "page_size"),
        ("page_token=%0a", "page_token"),
        ("key_prefix=%20", "key_prefix"),
        ("colour=red", "colour"),
    ],
)
async def test_the_list_over_http(open_doors: Doors, query: str, field: str) -> None:
    answer = await open_doors.http.get(f"{LOCKS}?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lock_pb2.ListLocksRequest(page_size=1001), "page_size"),
        (lock_pb2.ListLocksRequest(page_token="\n"), "page_token"),  # noqa: S106 - no password
        (lock_pb2.ListLocksRequest(key_prefix="\n"), "key_prefix"),
    ],
)
async def test_the_list_over_grpc(open_doors: Doors, request_: lock_pb2.ListLocksRequest, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await locks_of(open_doors).ListLocks(request_)
    assert read_refusal(raised.value).field == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lock_pb2.BreakLockRequest(key="", reason="why"), "key"),
        (lock_pb2.BreakLockRequest(key="a", reason=" "), "reason"),
        (lock_pb2.BreakLockRequest(key="a", reason="x" * 201), "reason"),
    ],
)
async def test_break_over_grpc(open_doors: Doors, request_: lock_pb2.BreakLockRequest, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await locks_of(open_doors).BreakLock(request_)
    assert read_refusal(raised.value).field == field


async def test_break_of_what_nobody_holds_is_refused(open_doors: Doors) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await locks_of(open_doors).BreakLock(lock_pb2.BreakLockRequest(key="a", reason="why"))
    refused = read_refusal(raised.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOCK_NOT_HELD")
    unmet = refused.details["PreconditionFailure"]
    assert isinstance(unmet, error_details_pb2.PreconditionFailure)
    assert unmet.violations[0].subject == "a lock"
    answer = await open_doors.http.request("DELETE", f"{LOCKS}/a", json={"reason": "why"})
    assert (answer.status_code, answer.json()["code"]) == (409, "LOCK_NOT_HELD")
    for body, field in (({}, "reason"), ({"reason": ""}, "reason"), ({"reason": "x", "why": 1}, "why")):
        answer = await open_doors.http.request("DELETE", f"{LOCKS}/a", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
