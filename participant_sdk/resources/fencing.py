"""Fencing tokens in a reservation's database: whoever held a lock before its last holder seen is refused.

A lock may be lost without its holder knowing. Its token then tells: the next holder's is higher.
The check and the branch share one local transaction, and the key's row stays locked until it is
durable, so an older holder cannot slip in behind a newer one. Only branches that show tokens pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

import psycopg

from participant_sdk.participant import Prepare
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.reservation_batch import Batch, Planned
from participant_sdk.xa import Vote, transient_no

FENCED: Final = "FENCED"
_FENCE: Final = (files("participant_sdk.resources") / "reservation_sql" / "fence.sql").read_bytes()


def shows_tokens(branches: Sequence[Prepare]) -> bool:
    """Whether one of the branches shows a token."""
    return any(branch.fencing_tokens for branch in branches)


async def fence(cursor: psycopg.AsyncCursor[Any], log: int, batch: Batch, now_unix_ms: int) -> Batch:
    """Keep the tokens of a batch, and make the branches that show outdated ones a "no"; in an open transaction."""
    shown = [(at, token) for at, branch in enumerate(batch.prepares) for token in branch.fencing_tokens]
    parameters = {
        "log": log,
        "places": [at for at, _ in shown],
        "keys": packed_arrays.texts([token.key for _, token in shown]),
        "tokens": packed_arrays.bigints([token.token for _, token in shown]),
        "shared": [token.shared for _, token in shown],
        "now_unix_ms": now_unix_ms,
    }
    await cursor.execute(_FENCE, parameters)
    outdated: dict[int, Vote] = {at: _no(key, token) for at, key, token in await cursor.fetchall()}
    planned = [Planned((), outdated[at]) if at in outdated else plan for at, plan in enumerate(batch.planned)]
    return replace(batch, planned=planned)


def _no(key: str, token: int) -> Vote:
    return transient_no(FENCED, f"the lock on {key!r} was lost: whoever holds it since has shown token {token} here")
