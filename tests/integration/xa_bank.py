"""A bank on a PostgreSQL XA resource, and short words to drive it by."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import psycopg

from participant_sdk.ids import BranchId, Xid
from participant_sdk.participant import Commit, Operation, Prepare, Rollback
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import Parameters, XaOperation
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.xa import Ack, Vote
from tests.contract.branch_subjects import BANK_OPERATIONS, LOG

OPERATIONS: Mapping[str, XaOperation] = BANK_OPERATIONS


def sql_of(text: str) -> XaOperation:
    """An operation that runs this text, whatever it is."""

    async def run(connection: Connection, _parameters: Parameters) -> str:
        await connection.execute(text.encode())
        return ""

    return run


def do(name: str, **parameters: str) -> Operation:
    return Operation("bank", name, json.dumps(parameters))


def credit(account: str = "alice", amount: str = "1") -> Operation:
    return do("credit", account=account, amount=amount)


@asynccontextmanager
async def bank(dsn: str, **more: XaOperation) -> AsyncGenerator[PostgresXaResource]:
    connections = XaConnections(work=4, finishing=2, embedded=2, lock_timeout_ms=300)
    async with PostgresXaResource.open("bank", dsn, {**OPERATIONS, **more}, connections=connections) as resource:
        yield resource


async def vote(resource: PostgresXaResource, prepare: Prepare) -> Vote:
    (answer,) = await resource.prepare([prepare])
    return answer


async def commit(resource: PostgresXaResource, xid: Xid, sequence: int = 1) -> Ack:
    (answer,) = await resource.commit([Commit(LOG, xid, 7, sequence)])
    return answer


async def rollback(resource: PostgresXaResource, xid: Xid) -> Ack:
    (answer,) = await resource.rollback([Rollback(LOG, xid)])
    return answer


async def run_sql(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements each by itself, and return the last one's rows."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = None
        for statement in statements:
            cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor is not None and cursor.description else []


async def balance(dsn: str, account: str = "alice") -> int:
    rows = await run_sql(dsn, f"select balance::integer from accounts where name = '{account}'")
    return int(str(rows[0][0]))


async def prepared_gids(dsn: str) -> list[object]:
    rows = await run_sql(dsn, "select gid from pg_prepared_xacts where database = current_database()")
    return [row[0] for row in rows]


def gid(xid: Xid) -> str:
    return BranchId(LOG, xid, "bank").gid
