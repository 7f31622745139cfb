"""Votes as the branches table keeps them: the kind in one column, the rest as JSON in another, null for none."""

from __future__ import annotations

import json
from typing import Any, Final

from participant_sdk.xa import PREPARED, READ_ONLY, Vote, VoteKind, XaCode, transient_no

TOMBSTONE_VOTE: Final = transient_no("ROLLED_BACK_BEFORE", "the branch was rolled back before its Prepare came")


def answer_of(vote: Vote) -> str | None:
    """Write what the vote says beyond its kind; None for a bare yes."""
    if vote is PREPARED or (vote.is_yes and not vote.results):
        return None
    if vote.is_yes:
        return json.dumps({"results": vote.results})
    return json.dumps(
        {
            "xa_code": int(vote.xa_code),
            "reason": vote.reason,
            "message": vote.message,
            "field": vote.field,
            "transient": vote.transient,
        }
    )


def vote_of(kind: int | None, answer: str | None) -> Vote:
    """Read a stored vote. A tombstone, whose kind is None, is a transient "no"."""
    if kind is None:
        return TOMBSTONE_VOTE
    # What we wrote ourselves, or the service's SQL did.
    said: dict[str, Any] = {} if answer is None else json.loads(answer)
    match VoteKind(kind):
        case VoteKind.PREPARED:
            return PREPARED._replace(results=tuple(said.get("results", ())))
        case VoteKind.READ_ONLY:
            return READ_ONLY._replace(results=tuple(said.get("results", ())))
        case VoteKind.ROLLED_BACK:
            return Vote(
                VoteKind.ROLLED_BACK,
                said.get("xa_code", XaCode.RBROLLBACK),
                said.get("reason", ""),
                said.get("message", ""),
                said.get("transient", False),
                said.get("field", ""),
            )
