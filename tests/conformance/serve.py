"""Serves a participant from parts, so that one of them can be a wrong one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import add_ResourceServiceServicer_to_server

from participant_sdk.clock import Clock
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.grpc_coordinators import GrpcCoordinators
from participant_sdk.grpc_options import SERVER_OPTIONS
from participant_sdk.inquiry import Inquiry, NoAnswerError
from participant_sdk.known_logs import KnownLogs
from participant_sdk.pruning import Pruning
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.servicer import ResourceServicer
from participant_sdk.worker import Workers
from tests.conformance.hosts import CLOCK, PATIENCE_S, Doubting, Serve

# A context's messages do not matter to what is wrong.
AnyContext = grpc.aio.ServicerContext[Any, Any]  # pyright: ignore[reportExplicitAny]


class Coordinators:
    """Asks coordinators as the product does; a wrong one asks otherwise, or hears something else.

    About what the kit put in doubt, that is: else a wrong one would fail checks of other rules, where the
    machine is so slow that their branches are in doubt.
    """

    def __init__(self, asked: GrpcCoordinators, doubting: Doubting) -> None:
        self._asked = asked
        self._doubting = doubting

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask the coordinator at an address, now or at a later look."""
        if not self._doubting.is_on_purpose:
            raise NoAnswerError("not in doubt on purpose")
        return await self.asked(address, query)

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask the coordinator at an address now."""
        return await self._asked.decision(address, query)


class UnaryServicer(ResourceServicer):
    """Serves no Session, as its Hello says."""

    async def Hello(  # noqa: N802 - the contract's name
        self, request: resource_pb2.HelloRequest, context: AnyContext
    ) -> resource_pb2.HelloResponse:
        response = await super().Hello(request, context)
        response.session = False
        return response


def served(
    *,
    servicer: type[ResourceServicer] = ResourceServicer,
    logs: type[KnownLogs] = KnownLogs,
    workers: type[Workers] = Workers,
    workers_clock: Clock = CLOCK,
    coordinators: Callable[[GrpcCoordinators, Doubting], Coordinators] = Coordinators,
) -> Serve:
    """Serve with these parts; those not named are the product's."""

    @asynccontextmanager
    async def serve(resource: MemoryResource, address: str, doubting: Doubting) -> AsyncGenerator[int]:
        known = logs(resource, clock=CLOCK)
        working = workers(resource, clock=workers_clock, count=4)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        add_ResourceServiceServicer_to_server(servicer(resource, working, known, clock=CLOCK), server)
        port = server.add_insecure_port(address)
        jitter = random.Random(0)
        async with GrpcCoordinators() as asked, asyncio.TaskGroup() as group:
            inquiry = Inquiry(
                resource,
                working,
                known,
                coordinators(asked, doubting),
                clock=CLOCK,
                jitter=jitter,
                patience_s=PATIENCE_S,
            )
            pruning = Pruning(resource, known, clock=CLOCK, jitter=jitter)
            tasks = [group.create_task(part.run()) for part in (working, inquiry, pruning)]
            await server.start()
            try:
                yield port
            finally:
                await server.stop(0)
                for task in tasks:
                    task.cancel()

    def opened(resource: MemoryResource, address: str, doubting: Doubting) -> AbstractAsyncContextManager[int]:
        return serve(resource, address, doubting)

    return opened
