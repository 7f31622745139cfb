"""What the databases hold, against what clients were told, and against the invariants."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Final

import psycopg

from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.resources.invariants import violations
from sidecars.main import SIDECARS
from tests.crash.load import Intent
from tests.crash.processes import BANK, Cluster

_INVARIANTS: Final = {name: files("sidecars") / name / "invariants.sql" for name in SIDECARS}
# (request_id, xid) of each effect that is there.
_EFFECTS: Final[Mapping[str, str]] = {
    "bookkeeper": (
        "select e.description, b.xid::text from bookkeeper.entries e join pincex.branches b using (branch)"
        " where e.posted_at is not null and e.description like %s"
    ),
    "trading": (
        "select o.user_id, b.xid::text from trading.orders o join pincex.branches b using (branch)"
        " where o.status in (2, 3, 5) and o.user_id like %s"
    ),
    BANK: "select request, xid::text from credits where request like %s",
}
_RESERVED: Final = "select xid::text from pincex.branches where phase = 2 and xid < %s::uuid limit 5"
_PREPARED: Final = (
    "select gid from pg_prepared_xacts where database = current_database() and split_part(gid, ':', 3) < %s limit 5"
)
_UNFINISHED: Final = (
    "select d.xid::text from txlog.decisions d left join txlog.checkpoints c using (incarnation)"
    " where (d.sequence > coalesce(c.finished_through, 0) or d.xid = any (c.stragglers)) and d.xid < %s::uuid limit 5"
)
_HEURISTICS: Final = "select xid::text, participant from txlog.heuristics"

Effects = Mapping[str, Sequence[tuple[str, str]]]


def bound_of(unix_ms: int) -> str:
    """A UUID above all xids that were given out until this millisecond."""
    return f"{unix_ms + 1:012x}"[:8] + "-" + f"{unix_ms + 1:012x}"[8:] + "-0000-0000-000000000000"


def everything() -> str:
    """A UUID above all xids there are."""
    return bound_of(time.time_ns() // 1_000_000 + 1_000_000)


async def read(dsn: str, query: str, *parameters: object) -> list[tuple[str, ...]]:
    """What a query returns."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def unsettled(up: Cluster, below: str) -> list[str]:
    """What is in doubt or unfinished of transactions below this xid; nothing when all has settled."""
    found: list[str] = []
    for name in up.sidecars:
        query = _PREPARED if name == BANK else _RESERVED
        found += [f"{name}: in doubt: {row[0]}" for row in await read(up.dsns[name], query, below)]
    return found + await unfinished(up, below)


async def unfinished(up: Cluster, below: str) -> list[str]:
    """What the log calls unfinished, of transactions below this xid: the cheapest sign that not all has settled."""
    rows = await read(up.dsns["txlog"], _UNFINISHED, below)
    return [f"log: unfinished: {row[0]}" for row in rows]


async def broken_invariants(up: Cluster, *, heuristics: int = 0) -> list[str]:
    """What is broken at rest. ``heuristics``: how many heuristic ends there must be."""
    found: list[str] = []
    for name, query in _INVARIANTS.items():
        if name in up.sidecars:
            found += [f"{name}: {each}" for each in await violations(up.dsns[name], query)]
    found += await unsettled(up, everything())
    kept = await read(up.dsns["txlog"], _HEURISTICS)
    if len(kept) != heuristics:
        found.append(f"log: {len(kept)} heuristic ends, not {heuristics}: {kept[:5]}")
    return found


async def losses(up: Cluster, intents: Sequence[Intent], prefix: str) -> list[str]:
    """Where the databases disagree with what clients were told."""
    pattern = f"{prefix}-%"
    effects = {name: await read(up.dsns[name], _EFFECTS[name], pattern) for name in up.sidecars}
    return list(compare(intents, {name: [(row[0], row[1]) for row in rows] for name, rows in effects.items()}))


def compare(intents: Sequence[Intent], effects: Effects) -> Iterable[str]:
    """Every disagreement, in words; ``effects`` are each participant's (request_id, xid)."""
    xids: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, rows in effects.items():
        for request_id, xid in rows:
            xids[request_id].setdefault(name, []).append(xid)
    for intent in intents:
        yield from _judge(intent, xids.pop(intent.request_id, {}))
    for request_id in xids:
        yield f"{request_id}: nobody asked for it"


def _judge(intent: Intent, effects: Mapping[str, Sequence[str]]) -> Iterable[str]:
    name = intent.request_id
    there = {xid for found in effects.values() for xid in found}
    if len(there) > 1:
        yield f"{name}: committed {len(there)} times: {sorted(there)}"
    for participant, found in effects.items():
        if len(found) != 1:
            yield f"{name}: {len(found)} effects at {participant}"
    if effects and set(effects) != set(intent.participants):
        yield f"{name}: at {sorted(effects)}, and not at all of {intent.participants}"
    for told in intent.told:
        match told:
            case Committed() if there != {str(told.xid)}:
                yield f"{name}: told COMMITTED of {told.xid}; there: {sorted(there) or 'nothing'}"
            case RolledBack() if str(told.xid) in there:
                yield f"{name}: told ROLLED_BACK of {told.xid} ({told.reason}), and it is there"
            case RolledBack() if not told.retry and there:
                yield f"{name}: told ROLLED_BACK for good ({told.reason}); there: {sorted(there)}"
            case _:
                pass
    if intent.insists and intent.ending is None:
        yield f"{name}: never told; last heard: {intent.heard}; there: {sorted(there) or 'nothing'}"
