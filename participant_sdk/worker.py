"""A participant's workers: everything from all sessions and calls, in natural batches.

Branches are dealt to workers by xid, so that one xid is never in two ``Work``s at once and the
order of its calls holds.
"""

from __future__ import annotations

from collections.abc import Callable

from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import Commit, Participant, Prepare, Rollback
from participant_sdk.xa import Ack, Vote

VoteReply = Callable[[Xid, Vote], None]
AckReply = Callable[[Xid, Ack], None]


class Workers:
    """The workers of one participant. ``run`` must run for anything to be answered."""

    def __init__(
        self,
        participant: Participant,
        *,
        clock: Clock,
        count: int = 2,
        batch_size: int = 512,
    ) -> None:
        self.participant = participant

    def prepare(self, branch: Prepare, reply: VoteReply) -> None:
        """Queue a Prepare; its vote goes to ``reply``, later. A full queue is a transient "no"."""
        raise NotImplementedError

    def commit(self, branch: Commit, reply: AckReply) -> None:
        """Queue a Commit; its acknowledgement goes to ``reply``, later. A full queue is RETRY."""
        raise NotImplementedError

    def rollback(self, branch: Rollback, reply: AckReply) -> None:
        """Queue a Rollback; its acknowledgement goes to ``reply``, later. A full queue is RETRY."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work until cancelled; what the participant raises is answered, counted and survived."""
        raise NotImplementedError
