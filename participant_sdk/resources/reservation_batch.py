"""One batch for the database: what goes in as packed columns, and what its exceptions mean.

The SQL function changes branches as ``branch.TABLE`` says and returns what it found where that was
not the ordinary case; the answers to those are looked up in the table itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.participant import Answers, Commit, Prepare, Rollback, Work
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.stored_votes import answer_of, vote_of
from participant_sdk.xa import DONE, PREPARED, RETRY, Ack, Heuristic, Vote

_STALE: Final = 0
_COMMITS: Final = 1
_ROLLBACKS: Final = 2
_PARTICIPANTS_KEPT: Final = 1_000


class Planned(NamedTuple):
    """What a branch's operations come to, before the database was asked.

    ``rows`` holds, for each operation, the members of its JSON object as the service's SQL reads it,
    without braces and without ``b``. ``vote`` is the answer if all of them can be reserved, and with no
    rows at all: a "no" to what is wrong in itself.
    """

    rows: tuple[str, ...]
    vote: Vote = PREPARED


class StaleError(Exception):
    """A Commit of the batch is of an epoch below ``epoch``, which is adopted. Nothing of the batch was done."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} is adopted")
        self.epoch = epoch


class Found(NamedTuple):
    """A row that ``pincex.apply_current`` returned: an exception."""

    part: int
    at: int
    phase: int
    heuristic: int | None
    vote: int | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One log's share of a ``Work``, its prepares planned. ``planned`` has one for each prepare."""

    commits: Sequence[Commit] = ()
    rollbacks: Sequence[Rollback] = ()
    prepares: Sequence[Prepare] = ()
    planned: Sequence[Planned] = ()

    def parameters(self, log: int, now_unix_ms: int) -> tuple[bytes, ...]:
        """The parameters of ``apply_batch.sql``."""
        commits, prepares, planned = self.commits, self.prepares, self.planned
        rows = [f'{{"b":{at},{row}}}' for at, plan in enumerate(planned, 1) for row in plan.rows]
        return (
            packed_arrays.bigint(min([commit.epoch for commit in commits], default=0)),
            packed_arrays.smallint(log),
            packed_arrays.uuids([commit.xid for commit in commits]),
            packed_arrays.bigints([commit.incarnation for commit in commits]),
            packed_arrays.bigints([commit.sequence for commit in commits]),
            packed_arrays.uuids([rollback.xid for rollback in self.rollbacks]),
            packed_arrays.uuids([prepare.xid for prepare in prepares]),
            packed_arrays.smallints([plan.vote.kind for plan in planned]),
            packed_arrays.texts([answer_of(plan.vote) for plan in planned]),
            packed_arrays.texts([prepare.tenant for prepare in prepares]),
            packed_arrays.texts([prepare.request_id or None for prepare in prepares]),
            packed_arrays.byteas([prepare.request_digest or None for prepare in prepares]),
            packed_arrays.texts([_joined(prepare.participants) for prepare in prepares]),
            packed_arrays.bigint(now_unix_ms),
            packed_arrays.jsonb(f"[{','.join(rows)}]"),
        )

    def without_stale(self, epoch: int) -> Batch:
        """The batch without its Commits of epochs below this one."""
        return replace(self, commits=[commit for commit in self.commits if commit.epoch >= epoch])

    def answers(self, found: Sequence[Found]) -> tuple[Answers, list[int]]:
        """Read the answers, and the places of prepares whose request another live branch holds.

        Nothing is stored of the latter yet. StaleError where the database refused the whole.
        """
        commits = [DONE] * len(self.commits)
        rollbacks = [DONE] * len(self.rollbacks)
        prepares = [plan.vote for plan in self.planned]
        busy: list[int] = []
        for row in found:
            at = row.at - 1
            if row.part == _STALE:
                raise StaleError(int(row.answer or 0))
            if row.part == _COMMITS:
                commits[at] = _ack(row, BranchCall.COMMIT)
            elif row.part == _ROLLBACKS:
                rollbacks[at] = _ack(row, BranchCall.ROLLBACK)
            elif row.phase == BranchPhase.NONE:
                busy.append(at)
            else:
                prepares[at] = vote_of(row.vote, row.answer)
        return Answers(commits, rollbacks, prepares), busy


def by_log(work: Work) -> dict[str, Work]:
    """Deal a batch's branches to their logs, in order; nearly always there is one."""
    named = {branch.log_id: None for part in (work.commits, work.rollbacks, work.prepares) for branch in part}
    if len(named) == 1:
        return dict.fromkeys(named, work)
    return {
        log_id: Work(
            [commit for commit in work.commits if commit.log_id == log_id],
            [rollback for rollback in work.rollbacks if rollback.log_id == log_id],
            [prepare for prepare in work.prepares if prepare.log_id == log_id],
        )
        for log_id in named
    }


def ack_of(phase: int | None, heuristic: int | None, call: BranchCall) -> Ack:
    """Look up the table's acknowledgement for what was found; None was no branch."""
    how = None if heuristic is None else Heuristic(heuristic)
    return step(BranchPhase(phase or 0), call, how).ack or RETRY


def _ack(row: Found, call: BranchCall) -> Ack:
    # The claim did not find it PREPARED, and a moment later it was: its Prepare came in between, by another process.
    if row.phase == BranchPhase.PREPARED:
        return RETRY
    return ack_of(row.phase, row.heuristic, call)


@lru_cache(maxsize=_PARTICIPANTS_KEPT)
def _joined(participants: tuple[str, ...]) -> str:
    return ",".join(participants)
