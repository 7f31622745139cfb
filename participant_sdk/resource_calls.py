"""The seam under what is asked of a participant one by one, beside its session: over gRPC, or simulated.

Operators' tools and recovery use it: to list branches, to look at one, to force and to forget one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.transport import FrameTransport
from participant_sdk.xa import Ack, Decision


class CallFailedError(Exception):
    """The participant could not be asked, or could not say. It tells nothing of any branch (R19)."""


class Resolved(NamedTuple):
    """A branch that was forced, or, for a preview, would be; ``ack`` is None for a preview."""

    branch: Branch | None
    ack: Ack | None


class ResourceCalls(Protocol):
    """One participant's single calls, each answered in bounded time. All raise CallFailedError."""

    async def hello(self, introduction: Introduction) -> Welcome:
        """Introduce oneself: the participant adopts the epoch durably before it reports (R15)."""
        ...

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List a page of branches; a full page means that there may be more."""
        ...

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch; None where it is not known."""
        ...

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str, *, preview: bool) -> Resolved:
        """Force a branch in doubt by an operator's hand (R12)."""
        ...

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """Drop a heuristic branch that was dealt with."""
        ...


class Access(NamedTuple):
    """The two ways to one participant: the transport of its session, and its single calls."""

    transport: FrameTransport
    calls: ResourceCalls
