"""How a transaction ended, as its caller is told, and as the log keeps it for a request_id."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple, Protocol

from coordinator.protocol.phases import Phase
from participant_sdk.ids import Xid
from participant_sdk.xa import PREPARED, Decision, Heuristic, Vote, VoteKind, XaCode


class Voter(Protocol):
    """Who voted what, None where no vote came."""

    @property
    def participant(self) -> str:
        """Its name."""
        ...

    @property
    def vote(self) -> Vote | None:
        """What it voted."""
        ...


class BranchOutcome(NamedTuple):
    """One branch of an outcome. ``vote`` is None where none came."""

    participant: str
    vote: Vote | None
    done: bool
    heuristic: Heuristic | None = None


class Outcome(NamedTuple):
    """How a transaction ended. A named tuple, as its branches are, because they are made for every transaction.

    ``retry`` marks a rollback that binds nothing: the same request may be sent again.
    ``replayed`` marks an answer stored by an earlier transaction with the same request_id,
    whose xid it carries.
    """

    xid: Xid
    decision: Decision
    phase: Phase
    reason: str = ""
    message: str = ""
    retry: bool = False
    branches: tuple[BranchOutcome, ...] = ()
    replayed: bool = False
    heuristic: Heuristic | None = None

    @property
    def applied(self) -> bool:
        """Every branch is where the outcome wants it."""
        return all(branch.done for branch in self.branches)

    @property
    def owed(self) -> tuple[str, ...]:
        """The participants that have not acknowledged."""
        return tuple(branch.participant for branch in self.branches if not branch.done)


def xa_code_of(outcome: Outcome) -> int:
    """XA's code of a rollback that the coordinator itself caused; 0 for any other end."""
    return _OWN_CODES.get(outcome.reason, XaCode.OK) if outcome.retry else XaCode.OK


def encode_votes(branches: Collection[Voter]) -> str:
    """Write the votes as the log's ``results``: JSON, deterministic, empty when all are a bare yes."""
    for branch in branches:
        vote = branch.vote
        if vote is not PREPARED and (vote is None or vote.results or not vote.is_yes):
            break
    else:
        return ""
    votes = [
        {"participant": b.participant}
        if b.vote is None
        else {
            "participant": b.participant,
            "kind": int(b.vote.kind),
            "xa_code": int(b.vote.xa_code),
            "reason": b.vote.reason,
            "message": b.vote.message,
            "transient": b.vote.transient,
            "field": b.vote.field,
            "results": list(b.vote.results),
        }
        for b in branches
    ]
    return json.dumps(votes, separators=(",", ":"), ensure_ascii=False)


def decode_votes(results: str) -> tuple[BranchOutcome, ...]:
    """Read what ``encode_votes`` wrote; nothing where it cannot be read. Only who ended with its vote is done."""
    if not results:
        return ()
    try:
        return tuple(_read(item) for item in json.loads(results))
    except _UNREADABLE:
        return ()


def is_readable(results: str) -> bool:
    """Whether ``decode_votes`` tells all that is there. The decision stands beside it, so it stands without it."""
    return not results or results == "[]" or bool(decode_votes(results))


def _read(item: dict[str, Any]) -> BranchOutcome:
    if "kind" not in item:
        return BranchOutcome(_text(item["participant"]), None, done=False)
    vote = Vote(
        VoteKind(item["kind"]),
        int(item["xa_code"]),
        _text(item["reason"]),
        _text(item["message"]),
        bool(item["transient"]),
        _text(item["field"]),
        tuple(_text(result) for result in item["results"]),
    )
    return BranchOutcome(_text(item["participant"]), vote, done=vote.kind in _ENDS_WITH_VOTE)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


_OWN_CODES: Final = {
    "DEADLOCK": XaCode.RBDEADLOCK,
    "LOCK_TIMEOUT": XaCode.RBTIMEOUT,
    "TIMEOUT": XaCode.RBTIMEOUT,
}
# Whatever JSON, or text that is none, makes of it.
_UNREADABLE: Final = (ValueError, TypeError, KeyError, RecursionError)
_ENDS_WITH_VOTE: Final = (VoteKind.READ_ONLY, VoteKind.ROLLED_BACK)
