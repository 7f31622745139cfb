"""The seam under what is asked of a participant one by one, beside its session: over gRPC, or simulated.

Operators' tools and recovery use it: to list branches, to look at one, to force and to forget one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.transport import FrameTransport
from participant_sdk.xa import Ack, Decision

# Longer tokens are no tokens: they travel to operators' tools and back.
TOKEN_MAX_CHARS: Final = 1_000
# So many pages in a row may show nothing, for lack of branches that can be read.
EMPTY_PAGES_MAX: Final = 20


class CallFailedError(Exception):
    """The participant could not be asked, or could not say. It tells nothing of any branch (R19)."""


class Resolved(NamedTuple):
    """A branch that was forced, or, for a preview, would be; ``ack`` is None for a preview."""

    branch: Branch | None
    ack: Ack | None


class Page(NamedTuple):
    """Branches by xid, and the token of the page after, empty on the last. Only the token says which is the last."""

    branches: Sequence[Branch]
    next_token: str = ""


class ResourceCalls(Protocol):
    """One participant's single calls, each answered in bounded time. All raise CallFailedError."""

    async def hello(self, introduction: Introduction) -> Welcome:
        """Introduce oneself: the participant adopts the epoch durably before it reports (R15)."""
        ...

    async def recover(self, query: RecoverQuery, token: str = "") -> Page:
        """List a page of branches, as many as ``query.limit`` at most.

        ``token`` is the page before's, and nobody's but the participant's to read; empty for the first page.
        ``query.after`` is not sent.
        """
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


class Listing:
    """A participant's whole list, page by page: ``is_over`` once the last was read.

    However the participant pages, it ends: every page must lead on.
    """

    def __init__(self, calls: ResourceCalls, query: RecoverQuery) -> None:
        self.is_over = False
        self._calls = calls
        self._query = query
        self._token = ""
        self._asked: str | None = None
        self._last: Xid | None = None
        self._empty = 0

    async def page(self) -> Sequence[Branch]:
        """Read the next page, which may be short, or empty. CallFailedError, also for one that does not lead on."""
        if self._token == self._asked:
            raise CallFailedError("it gives the same page token again, so its list has no end")
        branches, following = await self._calls.recover(self._query, self._token)
        self._asked, self._token, self.is_over = self._token, following, not following
        if branches:
            if self._last is not None and branches[-1].xid <= self._last:
                raise CallFailedError("it lists its branches in no order")
            self._last, self._empty = branches[-1].xid, 0
        elif following:
            self._empty += 1
            if self._empty > EMPTY_PAGES_MAX:
                raise CallFailedError(f"more than {EMPTY_PAGES_MAX} pages in a row without a branch that can be read")
        return branches


class Access(NamedTuple):
    """The two ways to one participant: the transport of its session, and its single calls."""

    transport: FrameTransport
    calls: ResourceCalls
