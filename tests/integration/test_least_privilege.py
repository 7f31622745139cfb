"""Participants under a role that owns nothing and may create nothing: it can only use what migrations made."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator

import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.xa import AckKind
from tests.contract.branch_subjects import an_xid, fill_bank, prepare_of
from tests.integration.participations import participating
from tests.integration.xa_bank import balance, bank, commit, credit, rollback, run_sql, vote

ORDER = ("place_order", '{"user_id":"u","symbol":"BTC/USD","side":"sell","amount":0.5,"price":50000}')


@pytest.fixture
async def role(database: str) -> AsyncGenerator[str]:
    name = f"service_{secrets.token_hex(4)}"
    await run_sql(database, f"create role {name} login password '{name}'")
    yield name
    await run_sql(database, f"drop owned by {name}", f"drop role {name}")


async def let_use(database: str, role: str, *schemas: str) -> str:
    """Grant the use of what is in the schemas; return the role's DSN."""
    for schema in schemas:
        await run_sql(
            database,
            f"grant usage on schema {schema} to {role}",
            f"grant select, insert, update, delete on all tables in schema {schema} to {role}",
            f"grant usage on all sequences in schema {schema} to {role}",
        )
    return make_conninfo(database, user=role, password=role)


async def test_a_reservation_resource_opens_and_serves(database: str, role: str) -> None:
    async with participating(database, "trading"):
        pass
    async with participating(await let_use(database, role, "pincex", "trading"), "trading") as trading:
        kept, dropped = trading.branch(ORDER), trading.branch(ORDER)
        assert all(answer.is_yes for answer in await trading.prepare(kept, dropped))
        for kind in (AckKind.DONE, AckKind.ALREADY_DONE):
            assert [ack.kind for ack in (*await trading.commit(kept), *await trading.rollback(dropped))] == [kind] * 2


async def test_an_xa_resource_opens_and_serves(database: str, role: str) -> None:
    await fill_bank(database)
    async with bank(database):
        pass
    async with bank(await let_use(database, role, "pincex_xa", "public")) as resource:
        kept, dropped = an_xid(), an_xid()
        assert (await vote(resource, prepare_of(kept, credit("alice")))).is_yes
        assert (await vote(resource, prepare_of(dropped, credit("bob")))).is_yes
        for kind in (AckKind.DONE, AckKind.ALREADY_DONE):
            assert [(await commit(resource, kept)).kind, (await rollback(resource, dropped)).kind] == [kind] * 2
    assert await balance(database) == 101
