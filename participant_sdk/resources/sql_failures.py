"""What a database's refusal means for a branch: which failures pass, and which "no" tells the others.

Source of the classes: PostgreSQL's appendix "Error Codes".
"""

from __future__ import annotations

from typing import Final

import psycopg

from participant_sdk.xa import Vote, XaCode, business_no, transient_no

_DATA_EXCEPTION: Final = "22"
_INTEGRITY_VIOLATION: Final = "23"
# Connection, resources, and the operator's hand: they say nothing of what was asked.
_UNREACHABLE: Final = ("08", "53", "57P")
# Deadlock, serialization: the same statement may well pass in a moment.
_COLLIDED: Final = ("40",)


def is_unreachable(error: psycopg.Error) -> bool:
    """Whether the database could not be asked at all, or not to the end."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_UNREACHABLE)


def is_worth_repeating(error: psycopg.Error) -> bool:
    """Whether the same call may pass if it is made again at once. Calls are idempotent by branch."""
    return is_unreachable(error) or (error.sqlstate or "").startswith(_COLLIDED)


def no_of(error: psycopg.Error) -> Vote:
    """Make the "no" of one branch that the database refused.

    A value that does not fit, or a rule of the schema, is the branch's own doing and binds; anything
    else is transient.
    """
    said = error.diag.message_primary or str(error)
    if (error.sqlstate or "").startswith((_DATA_EXCEPTION, _INTEGRITY_VIOLATION)):
        return business_no("REFUSED_BY_DATABASE", said, xa_code=XaCode.RBINTEGRITY)
    if (error.sqlstate or "").startswith(_COLLIDED):
        return transient_no("COLLISION", said, xa_code=XaCode.RBDEADLOCK)
    return transient_no("PARTICIPANT_FAILED", said, xa_code=XaCode.XAER_RMERR)
