"""Transactions by the names of X/Open XA: a suite over the configured coordinators.

    async with get_transaction_manager_suite("/etc/transaction-manager/config.yaml") as suite:
        result = await suite.execute_distributed_transaction(operations, timedelta(minutes=5))

        async with suite.transaction(timeout=timedelta(minutes=10)) as txn:
            await txn.enlist(operations)        # they run when the block has ended
            await loyalty.grant_points(...)     # an embedded service, which works under the transaction at once

It is a ``TransactionClient`` (``suite.client``), with timeouts as spans of time and with scenarios.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import RolledBackError
from participant_sdk.client_results import Committed, Ending, Enlisted, RolledBack, Wait
from participant_sdk.coordinator_address import configured_address
from participant_sdk.interactive import Transaction, within
from participant_sdk.operations import OperationLike, Parameter
from participant_sdk.scenarios import ScenarioResult, TestScenario, played

TRANSACTION_TIMEOUT_DEFAULT: Final = timedelta(minutes=5)


class TransactionOperation(NamedTuple):
    """One operation, by the names of its parts; a plain tuple of the three does as well."""

    service: str
    operation: str
    parameters: dict[str, Parameter] | str


class TransactionManagerSuite:
    """Transactions at any of the coordinators at ``addresses``, host:port each.

    ``async with`` opens it, inside a running event loop, and closes it. Safe for any number of tasks of that loop.
    """

    def __init__(self, addresses: Sequence[str] | str) -> None:
        self._addresses = addresses
        self._client: TransactionClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await TransactionClient(
            self._addresses, timeout_s=TRANSACTION_TIMEOUT_DEFAULT.total_seconds()
        ).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self.client, None
        await client.__aexit__(kind, error, trace)

    @property
    def client(self) -> TransactionClient:
        """The client that does the work, for everything that has no name here. RuntimeError before it is open."""
        if self._client is None:
            raise RuntimeError("the suite is not open: use it inside of `async with suite:`")
        return self._client

    async def execute_distributed_transaction(
        self,
        operations: Sequence[OperationLike],
        timeout: timedelta | None = None,  # noqa: ASYNC109 - the coordinator keeps it, and answers what came of it
        *,
        request_id: str | None = None,
        wait: Wait = Wait.APPLIED,
    ) -> Ending:
        """Run one transaction to its ending: Committed, or RolledBack with why; see ``TransactionClient.execute``.

        InvalidRequestError names what is wrong with the request; OutcomeUnknown where nobody would say.
        """
        return await self.client.execute(operations, timeout_s=_seconds(timeout), request_id=request_id, wait=wait)

    @asynccontextmanager
    async def transaction(
        self,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - as above
        *,
        request_id: str = "",
        wait: Wait = Wait.APPLIED,
    ) -> AsyncGenerator[Transaction]:
        """Begin a transaction that is the task's own inside of the block, and ends with it.

        Left normally it is committed, and RolledBackError says that it could not be; left by an exception
        it is rolled back, and the exception raised again. OutcomeUnknown where nobody would say.
        """
        async with self.client.transaction(timeout_s=_seconds(timeout), request_id=request_id, wait=wait) as txn:
            yield txn

    async def start(self, timeout: timedelta | None = None, *, request_id: str = "") -> Transaction:  # noqa: ASYNC109 - as above
        """Begin a transaction, which the caller ends by ``commit`` or ``abort``; else it ends with its time-out."""
        return await self.client.begin(timeout_s=_seconds(timeout), request_id=request_id)

    async def enlist(self, txn: Transaction, operations: Sequence[OperationLike]) -> tuple[Enlisted, ...]:
        """Enlist the operations' services, and have the operations run when the transaction is committed.

        Errors as for ``Transaction.enlist``. A service that is embedded enlists itself when it is called.
        """
        return await txn.enlist(operations)

    async def commit(self, txn: Transaction, wait: Wait = Wait.APPLIED) -> Committed:
        """Commit. RolledBackError where a vote, or the time-out, ended it otherwise; OutcomeUnknown."""
        ending = await txn.commit(wait)
        if isinstance(ending, RolledBack):
            raise RolledBackError(ending)
        return ending

    async def abort(self, txn: Transaction, reason: str = "aborted by the client") -> Ending:
        """Roll back. Committed, if that had been decided; OutcomeUnknown where nobody would say."""
        return await txn.rollback(reason)

    async def execute_scenario(self, scenario: TestScenario) -> ScenarioResult:
        """Run a scenario's operations as one transaction, and tell how that ended against what it expects.

        No ending is an exception here, but for UnavailableError's: nothing can be said of a system that is not there.
        """
        return await played(self.client, scenario)


def get_transaction_manager_suite(
    config_path: Path | str | None = None, *, addresses: Sequence[str] = ()
) -> TransactionManagerSuite:
    """The suite of the coordinator that a configuration describes, or of the coordinators at ``addresses``.

    The file, or the one that TRANSACTION_CONFIG_PATH names, tells where its coordinator listens; where there are
    several coordinators, name them all. InvalidAddressError tells what is wrong with the file.
    """
    return TransactionManagerSuite(tuple(addresses) or (configured_address(config_path),))


def with_xa_transaction(txn: Transaction) -> AbstractContextManager[Transaction]:
    """Make it the task's transaction for the time of the block: embedded services called inside work under it."""
    return within(txn)


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()
