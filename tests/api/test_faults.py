"""What no rule foresees: told as such, without its text; counted, and written with its traceback."""

from __future__ import annotations

import io
from typing import NoReturn

import grpc
import httpx
import pytest

from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext, Refusals
from coordinator.api.http_app import HttpRoutes, make_app
from coordinator.telemetry import Telemetry
from tests.api.doors import read_refusal


def fail() -> NoReturn:
    raise ZeroDivisionError("a secret")


async def test_over_http_it_is_500_without_its_text() -> None:
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)
    app = make_app(HttpRoutes(Gate(), telemetry, fail, 1.0))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
        response = await http.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in response.text
    assert "ZeroDivisionError: a secret" in lines.getvalue()
    assert 'pincex_faults_total{where="http"} 1.0' in telemetry.metrics.render().decode()


async def test_over_grpc_it_is_internal_without_its_text() -> None:
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)

    async def call(_request: bytes, context: AnyContext) -> bytes:
        async with Refusals(context, telemetry):
            fail()
        return b""

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(call)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Faults", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        faulty: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Faults/Call")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await faulty(b"")
    await server.stop(None)
    refused = read_refusal(raised.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message
    assert "ZeroDivisionError: a secret" in lines.getvalue()
