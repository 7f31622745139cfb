"""What PostgreSQL's errors mean: for a branch's vote, and for what was asked.

Source: PostgreSQL 18, appendix A, "PostgreSQL Error Codes". Only what the business says binds a
request; a fault of the participant or of its operations does not, for it says nothing of the
business, and another try after the repair may succeed.
"""

from __future__ import annotations

from typing import Final

import psycopg

from participant_sdk.xa import Vote, XaCode, business_no, invalid, transient_no

UNDEFINED_OBJECT: Final = "42704"
DUPLICATE_OBJECT: Final = "42710"
CHANGED_NOTHING: Final = "PXRO1"
EPOCH_IS_HIGHER: Final = "PXEP1"

EXPIRED_VOTE: Final = transient_no(
    "DEADLINE_PASSED", "the branch's time ran out before its vote", xa_code=XaCode.RBTIMEOUT
)
IN_PROGRESS_VOTE: Final = transient_no("BRANCH_BUSY", "another session of the participant is at work on the branch")

# The connection's own, and the ends of a session: by an operator, by another backend's crash, by the server's
# end, with its database, by an idle time-out, by one within a transaction.
_SESSION_ENDED: Final = ("08", "57P", "25P03")
_OUT_OF_RESOURCES: Final = "53"
# Deadlock, serialization: the same statement may well pass in a moment.
_COLLIDED: Final = "40"

_TRANSIENT: Final = {
    "40001": ("SERIALIZATION_FAILURE", XaCode.RBTRANSIENT),
    "40P01": ("DEADLOCK", XaCode.RBDEADLOCK),
    "55P03": ("LOCK_TIMEOUT", XaCode.RBTRANSIENT),
    "57014": ("STATEMENT_TIMEOUT", XaCode.RBTIMEOUT),
    "53200": ("OUT_OF_MEMORY_OR_PREPARED_SLOTS", XaCode.RBTRANSIENT),
    "55000": ("PREPARED_TRANSACTIONS_DISABLED", XaCode.XAER_RMERR),
    "42710": ("GID_IN_USE", XaCode.XAER_DUPID),
    "0A000": ("NOT_PREPARABLE", XaCode.RBPROTO),
    "42501": ("PERMISSION_DENIED", XaCode.XAER_RMERR),
    "25006": ("READ_ONLY_SERVER", XaCode.XAER_RMFAIL),
    "PXTX1": ("TRANSACTION_ENDED_BY_OPERATION", XaCode.RBPROTO),
    "PXSC1": ("SYNCHRONOUS_COMMIT_OFF", XaCode.RBPROTO),
    "PXEN1": ("BRANCH_ENDED", XaCode.RBTRANSIENT),
}
_TRANSIENT_CLASSES: Final = {
    "08": ("CONNECTION_LOST", XaCode.XAER_RMFAIL),
    "53": ("OUT_OF_RESOURCES", XaCode.RBTRANSIENT),
    "57": ("SERVER_SHUTTING_DOWN", XaCode.XAER_RMFAIL),
    "58": ("SYSTEM_ERROR", XaCode.XAER_RMERR),
}


def no_of(error: psycopg.Error, field: str) -> Vote:
    """Translate an error that undid a branch into its vote. ``field`` names the operation it came from."""
    sqlstate = error.sqlstate or ""
    message = error.diag.message_primary or str(error)
    if sqlstate == "PXNO1":
        return business_no(error.diag.message_detail or "REFUSED", message)
    if sqlstate == "P0001":
        return business_no("REFUSED", message)
    if sqlstate.startswith("23"):
        return business_no("INTEGRITY", message, xa_code=XaCode.RBINTEGRITY)
    if sqlstate.startswith("22") or (not sqlstate and isinstance(error, psycopg.DataError)):
        return invalid("BAD_PARAMETERS", message, field)
    fallback = _TRANSIENT_CLASSES.get(sqlstate[:2], ("OPERATION_FAILED", XaCode.XAER_RMERR))
    reason, xa_code = _TRANSIENT.get(sqlstate, fallback)
    return transient_no(reason, f"{message} (SQLSTATE {sqlstate or 'none'})", xa_code=xa_code)


def is_connection_lost(error: psycopg.Error) -> bool:
    """Whether the error says that the session is gone, and nothing of what its last statement did."""
    if error.sqlstate is None:
        # Without one, the error is the driver's: of the connection, or of what it was given to send.
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_SESSION_ENDED)


def is_unreachable(error: psycopg.Error) -> bool:
    """Whether the database could not be asked at all, or not to the end; no branch is to blame."""
    return is_connection_lost(error) or (error.sqlstate or "").startswith(_OUT_OF_RESOURCES)


def is_worth_repeating(error: psycopg.Error) -> bool:
    """Whether the same call may pass if it is made again at once. Calls are idempotent by branch."""
    return is_unreachable(error) or (error.sqlstate or "").startswith(_COLLIDED)
