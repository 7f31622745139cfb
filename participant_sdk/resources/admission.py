"""What a Prepare must satisfy before any of its work runs: pure checks that every resource shares.

A branch that has a stored vote never gets here: the stored vote is its answer (R8).
"""

from __future__ import annotations

from typing import Final

from participant_sdk.participant import Prepare
from participant_sdk.xa import Vote, XaCode, invalid, transient_no

PREPARE_WINDOW_MS: Final = 3_600_000
CLOCK_SKEW_MAX_MS: Final = 60_000


def refusal(prepare: Prepare, *, now_s: float, unix_ms: int) -> Vote | None:
    """Refuse what came too late, is too old, or carries no work; None lets it in.

    ``now_s`` is on the clock of ``prepare.deadline_s``. The window is an hour (R10): past it, tombstones
    may have been pruned, so an xid's silence means nothing any more.
    """
    if now_s >= prepare.deadline_s:
        return late(prepare)
    age_ms = unix_ms - prepare.xid.unix_ms
    if age_ms > PREPARE_WINDOW_MS:
        return transient_no(
            "XID_TOO_OLD", f"transaction {prepare.xid} is {age_ms // 1000} s old; the prepare window is one hour"
        )
    if age_ms < -CLOCK_SKEW_MAX_MS:
        return transient_no(
            "XID_FROM_THE_FUTURE", f"transaction {prepare.xid} is {-age_ms // 1000} s ahead of this participant's clock"
        )
    if not prepare.ends_work and not prepare.operations:
        return invalid("NO_OPERATIONS", f"transaction {prepare.xid} has a branch without operations", "operations")
    return None


def late(prepare: Prepare) -> Vote:
    """Make the "no" of a branch whose deadline passed before its vote (R16)."""
    return transient_no(
        "DEADLINE_PASSED", f"transaction {prepare.xid}: its time ran out before the vote", xa_code=XaCode.RBTIMEOUT
    )


def no_such_work(prepare: Prepare, *, found_number: int, found_count: int) -> Vote | None:
    """Compare the work that Prepare ends with the work done here (R13); None where they match exactly.

    Zeros stand for no work at all. A difference is a "no", never READ_ONLY: work was lost, or done twice.
    """
    expected = (prepare.branch_number, prepare.operation_count)
    if prepare.ends_work and not prepare.operations and found_count and expected == (found_number, found_count):
        return None
    return transient_no(
        "NO_SUCH_WORK",
        f"transaction {prepare.xid}: Prepare ends branch {expected[0]} with {expected[1]} operations, "
        f"and branch {found_number} with {found_count} is here",
        xa_code=XaCode.XAER_NOTA,
    )


def request_busy(prepare: Prepare) -> Vote:
    """Make the "no" to a second branch of one request, while or after the first one lives (R3)."""
    return transient_no(
        "REQUEST_IN_PROGRESS", f"another branch of request {prepare.request_id} of {prepare.tenant} is held here"
    )
