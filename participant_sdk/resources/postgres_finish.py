"""COMMIT PREPARED and ROLLBACK PREPARED, and what their errors tell.

Neither carries anything, both cost a flush of their own, and both need autocommit, the same
database, and the user that prepared (or a superuser). They are dealt out to several connections, so that
flushes are shared, and each connection is sent all of its share at once: whatever their number, a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Final

import psycopg
import structlog

from participant_sdk.resources.postgres_errors import UNDEFINED_OBJECT
from participant_sdk.resources.postgres_lane import DoubtfulError, Lane
from participant_sdk.settled import settled
from participant_sdk.xa import Ack, AckKind, Decision, XaCode

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

# Fewer than these are not worth another connection's round trip.
SHARE_MIN: Final = 2

_VERBS: Final = {Decision.COMMIT: "COMMIT PREPARED", Decision.ROLLBACK: "ROLLBACK PREPARED"}


class Gone(Enum):
    """There is no such prepared transaction: it has ended, by somebody."""

    GONE = "gone"


async def finish(lane: Lane, gids: Sequence[str], outcome: Decision) -> list[Ack | Gone | None]:
    """End prepared transactions: None where that is durable, GONE where there was none, RETRY for anything else.

    A cancelled caller leaves it to chance which of them have ended; ask again.
    """
    if not gids:
        return []
    shares = min(lane.size, -(-len(gids) // SHARE_MIN))
    if shares == 1:
        return await _finish_share(lane, gids, outcome)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(settled(_finish_share(lane, gids[first::shares], outcome))) for first in range(shares)
        ]
    ended: list[Ack | Gone | None] = [None] * len(gids)
    for first, task in enumerate(tasks):
        ended[first::shares] = task.result().get()
    return ended


async def _finish_share(lane: Lane, gids: Sequence[str], outcome: Decision) -> list[Ack | Gone | None]:
    """End them one after the other on one session, sent all at once."""
    verb = _VERBS[outcome]
    try:
        async with lane.session() as session:
            with session.confirmed():
                ended = await session.end_each([f"{verb} '{gid}'" for gid in gids])
    except DoubtfulError as warning:
        # The effects are there and may not have reached the standby: the next try asks, and waits for it.
        return [_retry(gid, f"{verb} ended with a warning: {warning}") for gid in gids]
    except psycopg.Error as error:
        # There is no session, or none any more: whatever its code, it tells nothing of any of them.
        return [_failed(gid, error) for gid in gids]
    return [_read(gid, verb, tag) for gid, tag in zip(gids, ended, strict=True)]


def _read(gid: str, verb: str, ended: str | psycopg.Error) -> Ack | Gone | None:
    """What the tag of a statement, or its error, tells of the one that it was to end."""
    if isinstance(ended, psycopg.Error):
        return Gone.GONE if ended.sqlstate == UNDEFINED_OBJECT else _failed(gid, ended)
    return None if ended == verb else _retry(gid, f"{verb} answered {ended}")


def _failed(gid: str, error: psycopg.Error) -> Ack:
    return _retry(gid, f"{error.diag.message_primary or error} (SQLSTATE {error.sqlstate})")


def _retry(gid: str, message: str) -> Ack:
    _log.warning("prepared_transaction_not_ended", gid=gid, message=message)
    return Ack(AckKind.RETRY, XaCode.RETRY, message)
