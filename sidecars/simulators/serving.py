"""A simulator's process: ``python -m sidecars.simulators.bank --listen host:port --folder path``.

Its own routes go through its behaviour; beside them are ``GET`` and ``PUT /behaviour`` and ``GET /invariants``, which
do not. ``simulator_serving``, a JSON line on standard error, says that it is ready, and on which port. It serves
until SIGTERM or SIGINT. Anyone who reaches the port may call it: it is for development, on the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecars.simulators.books import Books
from sidecars.simulators.faults import Behaviour, Faults

_GRACE_S: Final = 1

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Company:
    """Who is played: a name, the books, and what is served. ``routes`` are given the books and the behaviour."""

    name: str
    schema: Traversable
    invariants: Traversable
    routes: Callable[[Books, Behaviour], Iterable[Route]]


class RefusedError(Exception):
    """The caller is at fault, and nothing was done: ``status`` and a code that never changes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def main(company: Company, arguments: Sequence[str] | None = None) -> int:
    """Play the company until told to stop. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m sidecars.simulators.{company.name}")
    parser.add_argument("--listen", required=True, help="host:port, port 0 for any")
    parser.add_argument("--folder", required=True, type=Path, help="where its books are kept")
    parser.add_argument("--seed", type=int, default=None, help="of the chance by which faults strike")
    options = parser.parse_args(arguments)
    books = Books(options.folder, company.schema, company.invariants)
    # Chance spreads faults; nothing secret is drawn from it.
    behaviour = Behaviour(random.Random(options.seed))  # noqa: S311 - as the comment above says
    try:
        asyncio.run(_serve(application(company, books, behaviour), company.name, options.listen))
    finally:
        books.close()
    return 0


def application(company: Company, books: Books, behaviour: Behaviour) -> Starlette:
    """The company's routes, and those by which it is told and checked."""

    async def tell(request: Request) -> Response:
        struck = behaviour.tell(Faults.model_validate_json(await request.body()).faults)
        return JSONResponse({**behaviour.told().model_dump(mode="json"), "struck": dict(struck)})

    async def told(_: Request) -> Response:
        return JSONResponse(behaviour.told().model_dump(mode="json"))

    async def check(_: Request) -> Response:
        return JSONResponse({"violations": books.violations()})

    return Starlette(
        routes=[
            *company.routes(books, behaviour),
            Route("/behaviour", told, methods=["GET"]),
            Route("/behaviour", tell, methods=["PUT"]),
            Route("/invariants", check, methods=["GET"]),
        ],
        exception_handlers={RefusedError: _refused, ValidationError: _invalid},
    )


def misbehaving(behaviour: Behaviour, call: str, endpoint: Endpoint) -> Endpoint:
    """The endpoint, under the faults that strike calls of this name."""

    async def answer(request: Request) -> Response:
        await request.body()
        return await behaviour.answer(call, lambda: _performed(endpoint, request))

    return answer


async def _performed(endpoint: Endpoint, request: Request) -> Response:
    """The endpoint's answer, a refusal too: what comes after it may still go wrong."""
    try:
        return await endpoint(request)
    except RefusedError as refused:
        return _refused(request, refused)
    except ValidationError as error:
        return _invalid(request, error)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - Starlette looks up by this class
    return JSONResponse({"error": error.code, "message": str(error)}, error.status)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101 - as above
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": "INVALID", "message": f"{field}: {first['msg']}", "field": field}, 400)


class _Server(uvicorn.Server):
    """uvicorn's server, leaving signals to us: it would end the process by the signal that it caught."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def _serve(app: Starlette, name: str, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    with socket.create_server((host, int(port)), backlog=1024) as listening:
        taken = listening.getsockname()[1]
        sys.stderr.write(json.dumps({"message": "simulator_serving", "company": name, "port": taken}) + "\n")
        sys.stderr.flush()
        await server.serve([listening])
