"""What may be put back into a log that lost its tail, judged before anything is touched (R15)."""

from __future__ import annotations

from typing import Final

from coordinator.log.columns import pack
from coordinator.log.decision_log import BadRecordError, Incarnation, Release, ReleaseRefusedError
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

# Numbers are seconds: one that is more than a day ahead of ours was never drawn, and the next would follow it.
AHEAD_MAX: Final = 24 * 3600
SEQUENCE_MAX: Final = 2**62


def check_columns(release: Release) -> None:
    """ReleaseRefusedError for a value that the log's columns cannot keep: whoever reported it made it up."""
    for stored in release.restored:
        try:
            pack([stored.record])
        except BadRecordError as error:
            raise ReleaseRefusedError(f"transaction {stored.record.xid}: {error}") from error


def raised_sequences(release: Release, own: Incarnation) -> dict[int, int]:
    """Where each incarnation's sequence must rise to, by number.

    ReleaseRefusedError for rows that contradict each other, and for numbers that no log ever drew.
    """
    raised = dict(release.sequences)
    xids: set[Xid] = set()
    requests: dict[RequestId, Xid] = {}
    places: dict[tuple[int, int], Xid] = {}
    for stored in release.restored:
        record = stored.record
        if record.decision is not Decision.COMMIT or record.xid in xids:
            raise ReleaseRefusedError(f"transaction {record.xid}: only one COMMIT of it can be put back")
        xids.add(record.xid)
        if record.request is not None and requests.setdefault(record.request, record.xid) != record.xid:
            raise ReleaseRefusedError(
                f"transactions {requests[record.request]} and {record.xid} were both committed"
                f" for request {record.request.name!r}"
            )
        place = (stored.incarnation, stored.sequence)
        if places.setdefault(place, record.xid) != record.xid:
            raise ReleaseRefusedError(
                f"transactions {places[place]} and {record.xid} both have sequence {stored.sequence}"
                f" of incarnation {stored.incarnation}"
            )
        raised[stored.incarnation] = max(raised.get(stored.incarnation, 0), stored.sequence)
    for number, sequence in raised.items():
        if not (0 < number <= own.number + AHEAD_MAX and 0 <= sequence < SEQUENCE_MAX):
            raise ReleaseRefusedError(f"incarnation {number} with sequence {sequence} was never this log's")
    return dict(sorted(raised.items()))
