"""A coordinator killed in mid-commit: once after its decision, once before it; and what its successor makes of both.

The moment is held open by a lock on a row that one participant needs, so that the kill always comes between the
two things that it is to separate.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import psycopg

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.client_results import Committed, Ending
from participant_sdk.operations import OperationLike
from participant_sdk.testing import System

WITHIN_S: Final = 90.0
_LOOK_AGAIN_S: Final = 0.02
_TIMEOUT_S: Final = 80.0
_PHASES: Final = {2: "in doubt (PREPARED)", 3: "COMMITTED", 4: "ROLLED_BACK", 5: "HEURISTIC"}
_PLACING: Final[list[OperationLike]] = [
    ("bookkeeper", "lock_funds", {"user_id": "ann", "currency": "BTC", "amount": "0.5"}),
    (
        "trading",
        "place_order",
        {"user_id": "ann", "symbol": "BTC/USD", "side": "sell", "amount": "0.5", "price": "50000"},
    ),
]
_OPENING: Final[list[OperationLike]] = [
    ("bookkeeper", "open_account", {"user_id": "ann", "currency": "BTC"}),
    ("bookkeeper", "credit_account", {"user_id": "ann", "currency": "BTC", "amount": "10"}),
]

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Where the kill comes: ``held`` is locked at a participant; ``reached`` counts rows, in a database, in time."""

    request_id: str
    held: tuple[str, str]
    reached: tuple[str, str]


_AFTER: Final = _Scene(
    "demo-after",
    ("trading", "select from trading.books where symbol = 'BTC/USD' for update"),
    ("txlog", "select count(*) from txlog.decisions where request_id = %(request)s and decision = 1"),
)
_BEFORE: Final = _Scene(
    "demo-before",
    ("bookkeeper", "select from bookkeeper.accounts where user_id = 'ann' for update"),
    ("trading", "select count(*) from pincex.branches where request_id = %(request)s and phase = 2"),
)


class CrashError(Exception):
    """Recovery did not do what it must. The message says what was seen."""


async def crash(system: System, tell: Tell) -> None:
    """Show both. CrashError."""
    async with TransactionClient(system.grpc, timeout_s=_TIMEOUT_S) as client:
        if not isinstance(await client.execute(_OPENING, request_id="demo-opening"), Committed):
            raise CrashError("the account could not be opened")
        tell("Ann has an account with 10 BTC. Twice she locks 0.5 BTC and offers it for sale, both or neither.\n")
        await _killed_after(system, client, tell)
        await _killed_before(system, client, tell)
    locked, orders = await _effects(system)
    tell(f"At the end {locked} BTC are locked, for {orders} orders in the book: each transaction happened once.")
    if (locked, orders) != ("1.0", 2):
        raise CrashError(f"{locked} BTC are locked for {orders} orders, and it must be 1.0 for 2")


async def _killed_after(system: System, client: TransactionClient, tell: Tell) -> None:
    """COMMIT is in the log, the bookkeeper has applied it, trading has not been able to: it must be finished."""
    tell("1. Killed after the decision: COMMIT is in the log, and not yet applied everywhere.")
    async with asyncio.TaskGroup() as group:
        async with _held(system, *_AFTER.held):
            asking = group.create_task(_insist(client, _AFTER.request_id))
            await _until(lambda: _is_there(system, _AFTER))
            await _until(lambda: _is_phase(system, "bookkeeper", _AFTER.request_id, 3))
            await _shown(system, _AFTER.request_id, tell)
            killed_s = _kill(system, "coordinator", tell)
            # The COMMIT that trading has heard of dies with it, so that only recovery can finish the work.
            _kill(system, "trading", tell)
            await _value(system, "trading", _WAITING_ENDED, "")
        await _until(lambda: _is_phase(system, "trading", _AFTER.request_id, 3))
        tell(f"   {time.monotonic() - killed_s:.1f} s later recovery has finished what was decided:")
        await _shown(system, _AFTER.request_id, tell)
        ending = await asking
    tell(f"   Ann, who had no answer, asked again with the same request_id, and was told: {_told(ending)}.\n")
    if not isinstance(ending, Committed):
        raise CrashError(f"the decision was COMMIT, and Ann was told {_told(ending)}")


async def _killed_before(system: System, client: TransactionClient, tell: Tell) -> None:
    """Trading has promised, the bookkeeper has not been able to: no decision, so it must come to nothing."""
    tell("2. Killed before the decision: trading has voted, and waits in doubt.")
    async with asyncio.TaskGroup() as group:
        async with _held(system, *_BEFORE.held):
            asking = group.create_task(_once(client, _BEFORE.request_id))
            await _until(lambda: _is_there(system, _BEFORE))
            await _shown(system, _BEFORE.request_id, tell)
            killed_s = _kill(system, "coordinator", tell)
            asking.cancel()
        await _until(lambda: _is_phase(system, "trading", _BEFORE.request_id, 4))
        tell(
            f"   {time.monotonic() - killed_s:.1f} s later: no record means ROLLBACK, once the dead one is fenced (R7):"
        )
        await _shown(system, _BEFORE.request_id, tell)
    ending = await _insist(client, _BEFORE.request_id)
    tell(f"   Ann asks again with the same request_id. Nothing had happened, so it happens now: {_told(ending)}.\n")
    if not isinstance(ending, Committed):
        raise CrashError(f"nothing stood in the way, and Ann was told {_told(ending)}")


async def _insist(client: TransactionClient, request_id: str) -> Ending:
    """Send until there is an ending, under one request_id."""
    until_s = time.monotonic() + WITHIN_S
    while True:
        try:
            return await client.execute(_PLACING, request_id=request_id)
        except ClientError:
            if time.monotonic() > until_s:
                raise


async def _once(client: TransactionClient, request_id: str) -> None:
    await client.execute(_PLACING, request_id=request_id)


def _kill(system: System, process: str, tell: Tell) -> float:
    """Kill a process; when that was."""
    pid = int((system.data / "logs" / f"{process}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    tell(f"   kill -9 {pid}, {process}")
    return time.monotonic()


@asynccontextmanager
async def _held(system: System, participant: str, query: str) -> AsyncGenerator[None]:
    """Hold what the query locks, at a participant, for the time of the block."""
    async with await psycopg.AsyncConnection.connect(system.databases[participant]) as connection:
        await connection.execute(query.encode())
        yield
        await connection.rollback()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds. CrashError where it does not in time."""
    until_s = time.monotonic() + WITHIN_S
    while not await condition():
        if time.monotonic() > until_s:
            raise CrashError(f"it did not come to pass in {WITHIN_S:g} s")
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _is_there(system: System, scene: _Scene) -> bool:
    database, query = scene.reached
    return (await _value(system, database, query, scene.request_id)) not in {0, None}


async def _is_phase(system: System, participant: str, request_id: str, phase: int) -> bool:
    return await _value(system, participant, _PHASE, request_id) == phase


async def _shown(system: System, request_id: str, tell: Tell) -> None:
    """What the log and both participants hold of a request now."""
    decision = await _value(system, "txlog", _DECISION, request_id)
    tell(f"     decision log: {decision or 'no record'}")
    for participant in ("bookkeeper", "trading"):
        phase = await _value(system, participant, _PHASE, request_id)
        tell(f"     {participant + ':':<13} {_PHASES[phase] if isinstance(phase, int) else 'nothing'}")


async def _effects(system: System) -> tuple[str, int]:
    """What is locked for Ann, and how many orders she has."""
    locked = await _value(system, "bookkeeper", "select sum(a.locked) from bookkeeper.accounts as a", "")
    orders = await _value(system, "trading", "select count(*) from trading.orders as o where o.status = 2", "")
    return f"{Decimal(str(locked)):.1f}", int(str(orders))


async def _value(system: System, database: str, query: str, request_id: str) -> object:
    """The first value of the first row; None where there is none."""
    async with await psycopg.AsyncConnection.connect(system.databases[database]) as connection:
        row = await (await connection.execute(query.encode(), {"request": request_id})).fetchone()
        return row[0] if row else None


def _told(ending: Ending) -> str:
    return "COMMITTED" if isinstance(ending, Committed) else f"ROLLED_BACK, {ending.reason}"


_WAITING_ENDED: Final = (
    "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
    " where a.datname = current_database() and a.wait_event_type = 'Lock'"
)
_PHASE: Final = (
    "select b.phase from pincex.branches as b where b.request_id = %(request)s order by b.branch desc limit 1"
)
_DECISION: Final = (
    "select (array['COMMIT', 'ROLLBACK'])[d.decision] from txlog.decisions as d where d.request_id = %(request)s"
)
