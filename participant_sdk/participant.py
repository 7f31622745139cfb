"""The interface that a service implements to take part in transactions, in batches.

A participant gets a ``Work``: everything that queued since the last one. Commits and
rollbacks come before prepares, so that one local transaction, and so one flush, can carry
both. The promises, by the protocol's rule numbers: a vote is returned only after the
branch is durable (R8), an acknowledgement only after the effect is (R9), every call is
idempotent by branch in any order (R10), one bad branch gets its own "no" and fails nothing
else (R17).

Within one ``Work`` an xid appears at most once. The server never has two ``Work``s with one
xid under way at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.xa import Ack, Decision, Heuristic, Vote

# In one call to a coordinator, and in one branch.
OPERATIONS_MAX: Final = 100


class Operation(NamedTuple):
    """One piece of work: its service, its name there, and its parameters, one JSON object as text."""

    service: str
    name: str
    parameters: str


class FencingToken(NamedTuple):
    """What a lock's holder shows: whoever holds the key later has a higher token; sharers do not outdate each other."""

    key: str
    token: int
    shared: bool = False


class Prepare(NamedTuple):
    """A branch to prepare. A named tuple, because one is made for every branch.

    ``deadline_s`` is on the participant's monotonic clock; a vote of "yes" after it is never sent.
    ``participants`` names all of the transaction's. With ``ends_work``, the branch ends work already
    done under the xid: ``branch_number`` and ``operation_count`` must match what was done.
    """

    log_id: str
    xid: Xid
    operations: tuple[Operation, ...]
    deadline_s: float
    participants: tuple[str, ...] = ()
    tenant: str = ""
    request_id: str = ""
    request_digest: bytes = b""
    ends_work: bool = False
    branch_number: int = 0
    operation_count: int = 0
    fencing_tokens: tuple[FencingToken, ...] = ()


class Commit(NamedTuple):
    """A branch to make final: the decision's writer and its sequence there, and the epoch of who says so.

    Below the epoch adopted it takes no effect: RETRY (R15).
    """

    log_id: str
    xid: Xid
    incarnation: int
    sequence: int
    epoch: int = 0


class Rollback(NamedTuple):
    """A branch to undo.

    It needs no epoch: whatever an older epoch rolled back, no later one can have committed.
    """

    log_id: str
    xid: Xid


@dataclass(frozen=True, slots=True)
class Work:
    """One batch for a participant; any part may be empty."""

    commits: Sequence[Commit] = ()
    rollbacks: Sequence[Rollback] = ()
    prepares: Sequence[Prepare] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to a ``Work``: as many of each, in the same order."""

    commits: Sequence[Ack] = ()
    rollbacks: Sequence[Ack] = ()
    prepares: Sequence[Vote] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """What a participant holds of one branch.

    One that is PREPARED and has a ``sequence`` has durably heard COMMIT, and is about to follow it.
    """

    log_id: str
    xid: Xid
    phase: BranchPhase
    vote: Vote | None = None
    heuristic: Heuristic | None = None
    reason: str = ""
    participants: tuple[str, ...] = ()
    tenant: str = ""
    request_id: str = ""
    request_digest: bytes = b""
    incarnation: int = 0
    sequence: int = 0
    prepared_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecoverQuery:
    """Which branches to list: in doubt, or finished ones above the given sequences too.

    ``after`` is the last xid of the page before; ``limit`` is 1 to 1,000.
    """

    log_id: str
    finished: bool = False
    above: Mapping[int, int] = field(default_factory=dict[int, int])
    after: Xid | None = None
    limit: int = 100


class Participant(ABC):
    """A service's share in transactions.

    ``name`` is the configured name, ``operations`` what it serves. ``prepares_at_once`` is for one whose Prepares
    may wait for what another branch's end releases: each is then a batch of its own, and so many run side by
    side; 0 where batches are better. A subclass implements the
    three batches, what an operator asks (``branch``, ``resolve``, ``forget``) and what recovery does
    (``recover``, ``watermarks``, ``adopt_epoch``). One whose store can do all three batches in one
    local transaction overrides ``apply`` as well; one whose store outlives it, ``log_ids``.
    """

    name: str
    operations: tuple[str, ...] = ()
    prepares_at_once: int = 0

    @abstractmethod
    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        """Run and vote, one vote for each branch."""

    @abstractmethod
    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        """Make final, one acknowledgement for each branch."""

    @abstractmethod
    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        """Undo or leave a tombstone, one acknowledgement for each branch."""

    async def apply(self, work: Work) -> Answers:
        """Do a whole batch: commits, rollbacks, then prepares."""
        commits = await self.commit(work.commits) if work.commits else ()
        rollbacks = await self.rollback(work.rollbacks) if work.rollbacks else ()
        prepares = await self.prepare(work.prepares) if work.prepares else ()
        return Answers(commits, rollbacks, prepares)

    async def log_ids(self) -> Sequence[str]:
        """Every log that it holds branches of. Without it, inquiry waits until a log introduces itself."""
        return ()

    @abstractmethod
    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List branches by xid: those in doubt, and finished ones where asked."""

    @abstractmethod
    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch; None where it is not known."""

    @abstractmethod
    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        """Force a branch in doubt by an operator's hand, durably (R12)."""

    @abstractmethod
    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """Drop a heuristic branch that was dealt with."""

    @abstractmethod
    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence applied, per incarnation."""

    @abstractmethod
    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Durably adopt the epoch if it is higher; return the one held afterwards (R15).

        Adopting is a barrier, over all processes that serve the participant. Once it returns, no Commit of a
        lower epoch takes effect any more, whatever had let it in, and ``watermarks`` tells of all that did. So
        a Commit compares its epoch with the one adopted in the local transaction of its effect, and adopting
        waits for those that have begun.
        """

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:  # noqa: ARG002 - nothing to drop by default
        """Drop finished branches whose xid is older, at most ``limit``; return how many (R14).

        Their transactions have ended everywhere and no coordinator asks again. Branches in doubt, and
        heuristic ones, stay. Without it they are kept for ever.
        """
        return 0
