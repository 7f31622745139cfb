"""What participants may return, the log can keep."""

from __future__ import annotations

import pytest

from coordinator.log.columns import pack
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.outcome import BranchOutcome, decode_votes, encode_votes
from participant_sdk.ids import Xid
from participant_sdk.participant import OPERATIONS_MAX
from participant_sdk.wire import (
    FIELD_MAX_CHARS,
    MESSAGE_MAX_CHARS,
    REASON_MAX_CHARS,
    VOTE_MAX_BYTES,
    read_vote,
    write_vote,
)
from participant_sdk.xa import PREPARED, Decision

XID = Xid.make(1, 1, 1)


@pytest.mark.parametrize("character", ["x", "é", "漢", "😀", '"', "\\", "\n"])
def test_the_largest_votes_of_the_most_branches_fit_one_row(character: str) -> None:
    """A vote that was taken for a yes can always be committed, in any writing and however it is escaped."""
    left_bytes = VOTE_MAX_BYTES - MESSAGE_MAX_CHARS
    vote = PREPARED._replace(
        reason="\x01" * REASON_MAX_CHARS,
        message="\x01" * MESSAGE_MAX_CHARS,
        field="\x01" * FIELD_MAX_CHARS,
        results=(character * (left_bytes // len(character.encode())),),
    )
    assert read_vote(write_vote(vote)) == vote
    branches = tuple(BranchOutcome(f"participant-{n}".ljust(64, "x"), vote, done=False) for n in range(OPERATIONS_MAX))
    results = encode_votes(branches)
    pack([DecisionRecord(XID, Decision.COMMIT, ("left",), results=results)])
    assert decode_votes(results) == branches


def test_what_is_not_ascii_is_kept_as_it_is() -> None:
    note = '{"note":"für 漢字"}'
    votes = encode_votes((BranchOutcome("left", PREPARED._replace(results=(note,)), done=False),))
    assert "für 漢字" in votes
