"""How a participant by reservation keeps a branch, read back."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.resources.stored_votes import vote_of
from participant_sdk.xa import Heuristic


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of ``pincex.branches``, as ``branch.sql`` and the ``recover`` statements select it."""

    phase: int
    vote: int | None
    heuristic: int | None
    xid: UUID
    prepared_unix_ms: int | None
    incarnation: int | None
    sequence: int | None
    tenant: str | None
    request_id: str | None
    request_digest: bytes | None
    participants: str | None
    answer: str | None
    reason: str | None

    def branch(self, log_id: str) -> Branch:
        """The branch, of this log."""
        return Branch(
            log_id,
            Xid(self.xid.bytes),
            BranchPhase(self.phase),
            vote_of(self.vote, self.answer),
            heuristic=None if self.heuristic is None else Heuristic(self.heuristic),
            reason=self.reason or "",
            participants=tuple(self.participants.split(",")) if self.participants else (),
            tenant=self.tenant or "",
            request_id=self.request_id or "",
            request_digest=self.request_digest or b"",
            incarnation=self.incarnation or 0,
            sequence=self.sequence or 0,
            prepared_unix_ms=self.prepared_unix_ms or 0,
        )
