"""The coordinator's side of one participant: a session that is kept open, and what it carries.

Natural batching without timers: while one frame is on its way everything else queues, and the
next frame carries all of it, up to ``batch_size`` of each kind. A session that is lost answers
every outstanding Prepare with a transient "no" (R2) and drops what was queued for phase two:
the engine sends again what it owes, on ``link_up`` and by its own timer.

Only asyncio's primitives, an injected clock and a seeded source of jitter are used, so the
simulator runs this very code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Prepare
from participant_sdk.transport import FrameTransport
from participant_sdk.xa import Ack, Decision, Vote


class LinkEvents(Protocol):
    """What a link tells the engine. All calls are made from the link's own tasks, never from within its methods."""

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> None:
        """Votes came, or are certain not to come (a transient "no").

        A transient "no" does not say that the branch is undone: Rollback is still owed to it.
        Votes of forgotten transactions may come too, and the same vote twice.
        """
        ...

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        """Acknowledgements of Commit or Rollback came; of forgotten transactions too, and twice."""
        ...

    def link_up(self, participant: str, welcome: Welcome) -> None:
        """The participant has answered an introduction: what it is owed is to be sent again."""
        ...

    def link_down(self, participant: str, reason: str) -> None:
        """The session that was up is lost; votes outstanding were answered before this call."""
        ...


class Link:
    """One participant, seen from the coordinator. ``run`` must run for anything to happen."""

    def __init__(
        self,
        name: str,
        transport: FrameTransport,
        introduction: Callable[[], Introduction],
        events: LinkEvents,
        *,
        clock: Clock,
        jitter: random.Random,
        batch_size: int = 512,
        connect_timeout_s: float = 5.0,
        backoff_cap_s: float = 5.0,
    ) -> None:
        self.name = name

    @property
    def is_up(self) -> bool:
        """A session is open and the participant has welcomed us."""
        raise NotImplementedError

    def prepare(self, branch: Prepare) -> None:
        """Queue a branch; its vote comes through ``events.voted``, a transient "no" while the link is down.

        ``branch.deadline_s`` is on this side's monotonic clock; what remains of it is computed
        when the frame leaves (R16). ``branch.log_id`` does not travel: the introduction told it.
        """
        raise NotImplementedError

    def commit(self, xid: Xid, incarnation: int, sequence: int) -> None:
        """Queue a Commit; dropped while the link is down. Queued twice, it is sent once."""
        raise NotImplementedError

    def rollback(self, xid: Xid) -> None:
        """Queue a Rollback; dropped while the link is down. A Prepare of it that has not left never will."""
        raise NotImplementedError

    def introduce(self) -> None:
        """Send the introduction again, because the log was reconnected to; the answer is a ``link_up`` (R15)."""
        raise NotImplementedError

    async def run(self) -> None:
        """Keep a session open until cancelled. Never raises for anything the participant does."""
        raise NotImplementedError
