"""Participants to try, each with operations that say yes, no and "nothing changed", and ways into every phase."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString, NamedTuple

import psycopg

from participant_sdk.branch import BranchCall, BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Commit, Operation, Participant, Prepare, Rollback
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.resources.postgres_operations import Statement
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.xa import Ack, Decision, Vote
from sidecars.http.participant import HttpParticipant
from sidecars.http.planning import INVARIANTS
from sidecars.trading import operations as trading
from tests.http_sidecar.inventory import inventory, target_at


class Business(NamedTuple):
    """Operations that say yes, no, and "nothing changed"."""

    yes: Operation
    no: Operation
    read: Operation


LOG: Final = "0123456789abcdef"
INCARNATION: Final = 7

_CLOCK: Final = SystemClock()
_XIDS: Final = XidSource(INCARNATION)

YES: Final = Operation("bank", "credit", '{"account":"alice","amount":"1"}')
NO: Final = Operation("bank", "debit", '{"account":"alice","amount":"1000000"}')
READ: Final = Operation("bank", "read", '{"account":"alice"}')
BANK: Final = Business(YES, NO, READ)
_ORDER: Final = '{"user_id":"alice","symbol":"BTC/USD","side":"buy","amount":"1","price":"100"}'
TRADING: Final = Business(
    Operation("trading", "place_order", _ORDER),
    Operation("trading", "cancel_order", '{"order_id":"no-such-order"}'),
    Operation("trading", "validate_order", _ORDER),
)
_SKU: Final = '{"sku":"bolt","quantity":1}'
INVENTORY: Final = Business(
    Operation("inventory", "restock", _SKU),
    Operation("inventory", "reserve", '{"sku":"bolt","quantity":1000000}'),
    Operation("inventory", "stock_level", '{"sku":"bolt"}'),
)


def an_xid() -> Xid:
    return _XIDS.next(_CLOCK.unix_ms())


def prepare_of(xid: Xid, *operations: Operation, request_id: str = "") -> Prepare:
    deadline_s = _CLOCK.monotonic_s() + 20
    return Prepare(LOG, xid, operations, deadline_s, ("bank",), "default", request_id)


@dataclass(frozen=True, slots=True)
class Subject:
    """One participant. ``enlist`` begins work under an xid, with number 1; ``expire`` ends what is late.

    ``effects`` counts, past the participant, how often a yes took effect. Without ``has_work`` there is
    none before Prepare.
    """

    participant: Participant
    enlist: Callable[[Xid, float], Awaitable[None]]
    expire: Callable[[], Awaitable[int]]
    effects: Callable[[], Awaitable[int]]
    business: Business = BANK
    has_work: bool = True

    async def vote(self, prepare: Prepare) -> Vote:
        (vote,) = await self.participant.prepare([prepare])
        return vote

    async def commit(self, xid: Xid, sequence: int = 1) -> Ack:
        (ack,) = await self.participant.commit([Commit(LOG, xid, INCARNATION, sequence)])
        return ack

    async def rollback(self, xid: Xid) -> Ack:
        (ack,) = await self.participant.rollback([Rollback(LOG, xid)])
        return ack

    async def phase(self, xid: Xid) -> BranchPhase:
        branch = await self.participant.branch(LOG, xid)
        return BranchPhase.NONE if branch is None else branch.phase

    async def bring_to(self, phase: BranchPhase, xid: Xid, forced: Decision = Decision.COMMIT) -> None:
        """Bring a new branch into a phase."""
        match phase:
            case BranchPhase.NONE:
                return
            case BranchPhase.ACTIVE:
                await self.enlist(xid, 20.0)
                return
            case BranchPhase.ROLLED_BACK:
                await self.rollback(xid)
                return
            case _:
                await self.vote(prepare_of(xid, self.business.yes))
        if phase is BranchPhase.COMMITTED:
            await self.commit(xid)
        elif phase is BranchPhase.HEURISTIC:
            await self.participant.resolve(LOG, xid, forced, "tried by hand")

    async def do(self, call: BranchCall, xid: Xid, *, ends_work: bool) -> Ack | Vote | None:
        """Make a call; None for those without an answer."""
        operations = {
            BranchCall.VOTE_PREPARED: self.business.yes,
            BranchCall.VOTE_READ_ONLY: self.business.read,
            BranchCall.VOTE_ROLLED_BACK: self.business.no,
        }
        match call:
            case BranchCall.ENLIST | BranchCall.EXPIRE:
                raise AssertionError("has no answer of its own")
            case BranchCall.VOTE_PREPARED | BranchCall.VOTE_READ_ONLY | BranchCall.VOTE_ROLLED_BACK:
                prepare = prepare_of(xid, operations[call])
                if ends_work:
                    prepare = prepare._replace(operations=(), ends_work=True, branch_number=9, operation_count=9)
                return await self.vote(prepare)
            case BranchCall.COMMIT:
                return await self.commit(xid)
            case BranchCall.ROLLBACK:
                return await self.rollback(xid)
            case BranchCall.RESOLVE_COMMIT:
                return await self.participant.resolve(LOG, xid, Decision.COMMIT, "tried by hand")
            case BranchCall.RESOLVE_ROLLBACK:
                return await self.participant.resolve(LOG, xid, Decision.ROLLBACK, "tried by hand")
            case BranchCall.FORGET:
                return await self.participant.forget(LOG, xid)


@asynccontextmanager
async def memory_bank() -> AsyncGenerator[Subject]:
    store = MemoryStore({"alice": 100, "bob": 100})
    resource = MemoryResource("bank", store, _CLOCK)

    async def enlist(xid: Xid, remaining_s: float) -> None:
        resource.begin(LOG, xid, 1, _CLOCK.monotonic_s() + remaining_s)
        resource.do(LOG, xid, YES)

    async def effects() -> int:
        return int(store.durable.accounts["alice"].balance) - 100

    yield Subject(resource, enlist, resource.expire, effects)
    assert resource.invariants() == []


BANK_SQL: Final = """
create table accounts (name text primary key, balance numeric not null check (balance >= 0));
insert into accounts values ('alice', 100), ('bob', 100), ('carol', 100);
"""

BANK_OPERATIONS: Final = {
    "credit": Statement("update accounts set balance = balance + %(amount)s where name = %(account)s"),
    "debit": Statement("update accounts set balance = balance - %(amount)s where name = %(account)s"),
    "read": Statement(
        "select json_build_object('balance', balance::text) from accounts where name = %(account)s", returns=True
    ),
}


async def fill_bank(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(BANK_SQL)


@asynccontextmanager
async def xa_bank(dsn: str) -> AsyncGenerator[Subject]:
    await fill_bank(dsn)
    async with PostgresXaResource.open("bank", dsn, BANK_OPERATIONS) as resource:

        async def enlist(xid: Xid, remaining_s: float) -> None:
            work = await resource.enlist(LOG, xid, 1, remaining_s)
            async with work.operation() as connection:
                await connection.execute("update accounts set balance = balance + 1 where name = 'alice'")

        async def effects() -> int:
            return await _number(dsn, "select balance::integer - 100 from accounts where name = 'alice'")

        yield Subject(resource, enlist, resource.expire, effects)


@asynccontextmanager
async def http_inventory(dsn: str, folder: Path) -> AsyncGenerator[Subject]:
    """The example service in Go behind the HTTP sidecar."""
    async with (
        inventory(folder) as service,
        HttpParticipant.open("inventory", target_at(service.address), dsn, _CLOCK, connections=2) as participant,
    ):

        async def enlist(_xid: Xid, _remaining_s: float) -> None:
            raise AssertionError("there is no work before Prepare")

        async def expire() -> int:
            return 0

        async def effects() -> int:
            return service.ends()["confirmed"]

        yield Subject(participant, enlist, expire, effects, INVENTORY, has_work=False)
        assert service.ends()["held"] == await _number(dsn, "select count(*)::integer from http.held where state = 2")
    assert await violations(dsn, INVARIANTS) == []


@asynccontextmanager
async def reservation_book(dsn: str) -> AsyncGenerator[Subject]:
    async with ReservationResource.open("trading", trading.SERVICE, dsn, _CLOCK) as resource:

        async def enlist(_xid: Xid, _remaining_s: float) -> None:
            raise AssertionError("there is no work before Prepare")

        async def expire() -> int:
            return 0

        async def effects() -> int:
            return await _number(dsn, "select count(*)::integer from trading.orders where status = 2")

        yield Subject(resource, enlist, expire, effects, TRADING, has_work=False)
    assert await violations(dsn, trading.SERVICE.invariants) == []


async def _number(dsn: str, query: LiteralString) -> int:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return int(row[0])
