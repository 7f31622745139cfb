"""COMMIT PREPARED and ROLLBACK PREPARED, and what their errors tell.

Neither carries anything, both cost a flush of their own, and both need autocommit, the same
database, and the user that prepared (or a superuser). They run over several connections, so
that flushes are shared.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import psycopg
import structlog

from participant_sdk.resources.postgres_errors import UNDEFINED_OBJECT
from participant_sdk.resources.postgres_lane import DoubtfulError, Lane
from participant_sdk.xa import Ack, AckKind, Decision, XaCode

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_VERBS: Final = {Decision.COMMIT: "COMMIT PREPARED", Decision.ROLLBACK: "ROLLBACK PREPARED"}


class Gone(Enum):
    """There is no such prepared transaction: it has ended, by somebody."""

    GONE = "gone"


async def finish(lane: Lane, gid: str, outcome: Decision) -> Ack | Gone | None:
    """End a prepared transaction: None when that is durable, GONE where there was none, RETRY for anything else.

    A cancelled caller leaves it to chance whether it has ended; ask again.
    """
    verb = _VERBS[outcome]
    try:
        async with lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(f"{verb} %s".encode(), (gid,))
    except DoubtfulError as warning:
        # The effect is there and may not have reached the standby: the next try asks, and waits for it.
        return _retry(gid, f"{verb} ended with a warning: {warning}")
    except psycopg.Error as error:
        if error.sqlstate == UNDEFINED_OBJECT:
            return Gone.GONE
        return _retry(gid, f"{error.diag.message_primary or error} (SQLSTATE {error.sqlstate})")
    if cursor.statusmessage != verb:
        return _retry(gid, f"{verb} answered {cursor.statusmessage}")
    return None


def _retry(gid: str, message: str) -> Ack:
    _log.warning("prepared_transaction_not_ended", gid=gid, message=message)
    return Ack(AckKind.RETRY, XaCode.RETRY, message)
