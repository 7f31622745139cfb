"""A service of one's own: typed functions over one PostgreSQL database, served as a participant.

    service = Service("loyalty", migrations=Path(__file__).parent / "migrations")

    @service.operation("grant_points")
    async def grant_points(connection: Connection, grant: Grant) -> Points:
        ...

    asyncio.run(service.serve(dsn, "127.0.0.1:50070"))

Each function runs inside its branch's transaction, which is prepared when all of the branch's have
(``resources/postgres_xa.py``); it says no by ``RefusedError``, or by any SQL error. Inside of another
program, ``serving`` yields what also works under a transaction at once: ``async with running.work()``.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import TypeVar, cast

from pydantic import BaseModel

from participant_sdk.client_results import Enlisted
from participant_sdk.context import current_branch
from participant_sdk.ids import check_participant
from participant_sdk.interactive import current_transaction
from participant_sdk.migrations import migrate
from participant_sdk.parameters import Parameters, model_of
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import XaOperation, typed
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.server import Serving, serving

Model = TypeVar("Model", bound=Parameters)
Result = TypeVar("Result", bound=BaseModel | None)
TypedFunction = Callable[[Connection, Model], Awaitable[Result]]


class NoTransactionError(Exception):
    """The service was asked to work under a transaction, and the task is in none."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that serves on ``port``. ``serving`` holds its parts, for metrics."""

    name: str
    port: int
    serving: Serving
    resource: PostgresXaResource

    @asynccontextmanager
    async def work(self) -> AsyncGenerator[Connection]:
        """Do one operation under the task's transaction, on the branch's connection, inside its SQL transaction.

        The branch is the caller's (``context.current_branch``), or is enlisted in the task's own
        (``interactive.current_transaction``). A block that raises leaves the transaction no end but rollback.
        NoTransactionError outside of any; BranchEndedError where the branch has ended, or another block of it
        runs; ClientError where it cannot be enlisted.
        """
        branch = await self._branch()
        work = await self.resource.enlist(branch.log_id, branch.xid, branch.branch_number, branch.remaining_s)
        async with work.operation() as connection:
            yield connection

    async def _branch(self) -> Enlisted:
        named = current_branch()
        if named is not None and named.participant == self.name:
            return named
        transaction = current_transaction()
        if transaction is None:
            raise NoTransactionError(f"{self.name} works under a transaction, and this task is in none")
        return await transaction.enlist_embedded(self.name)


class Service:
    """A participant made of functions. It is filled while its module is imported, and then only read.

    ``name`` is the participant's configured name. ``migrations`` holds numbered SQL files, applied before it
    serves, in the schema of that name, with underscores for its hyphens.
    """

    def __init__(self, name: str, *, migrations: Traversable | None = None) -> None:
        self.name = check_participant(name)
        self.schema = name.replace("-", "_")
        self._migrations = migrations
        self._operations: dict[str, XaOperation] = {}

    def operation(self, name: str) -> Callable[[TypedFunction[Model, Result]], TypedFunction[Model, Result]]:
        """Serve the decorated function under this name; the function itself stays as it is.

        It takes a connection and its parameters, which are read into the model that it is annotated with. What it
        returns, a pydantic model or None, is told to the caller. TypeError for a function that is not so, or
        whose parameters cannot be read exactly; ValueError for a name that is taken.
        """
        if not name or name in self._operations:
            raise ValueError(f"{self.name}: the operation {name!r} is served already, or has no name")

        def add(function: TypedFunction[Model, Result]) -> TypedFunction[Model, Result]:
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"{name}: an async function of a connection and its parameters is wanted")
            # It is the model that the function's own type names, which a type checker has compared.
            self._operations[name] = typed(cast("type[Model]", model_of(function, 1)), function)
            return function

        return add

    @asynccontextmanager
    async def serving(
        self,
        dsn: str,
        listen: str,
        *,
        coordinators: Sequence[str] = (),
        connections: XaConnections | None = None,
    ) -> AsyncGenerator[RunningService]:
        """Bring the database up to date and serve on ``listen``, host:port, for as long as the block runs.

        ``coordinators`` are asked when in doubt, beside those that introduced themselves. MigrationError;
        PreparedTransactionsDisabledError; psycopg.OperationalError where the database cannot be reached;
        OSError where the address cannot be listened on; ValueError where nothing is served.
        """
        if not self._operations:
            raise ValueError(f"{self.name} serves no operation")
        if self._migrations is not None:
            await migrate(dsn, self._migrations, self.schema)
        async with (
            PostgresXaResource.open(self.name, dsn, dict(self._operations), connections=connections) as resource,
            serving(resource, listen, coordinators=coordinators) as served,
        ):
            yield RunningService(self.name, served.port, served, resource)

    async def serve(self, dsn: str, listen: str, *, coordinators: Sequence[str] = ()) -> None:
        """Serve until SIGTERM or SIGINT; errors as for ``serving``. Call it from the main thread."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        async with self.serving(dsn, listen, coordinators=coordinators):
            await stopping.wait()
