"""Whether votes and acknowledgements are words of the contract (R2, R19): all that is heard is looked at.

A coordinator takes an unknown vote for "no" and an unknown acknowledgement for none at all, so a
participant that speaks them is never understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pincex.tx.v1 import common_pb2

from participant_sdk.exact_json import InvalidJsonError, loads
from participant_sdk.wire import read_vote
from participant_sdk.xa import XaCode

_ODDITIES_MAX: Final = 10
_REASON_MAX_CHARS: Final = 64

_ACK_CODES: Final[Mapping[int, tuple[int, ...]]] = {
    common_pb2.ACK_KIND_DONE: (XaCode.OK,),
    common_pb2.ACK_KIND_ALREADY_DONE: (XaCode.OK,),
    common_pb2.ACK_KIND_UNKNOWN_XID: (XaCode.XAER_NOTA,),
    common_pb2.ACK_KIND_RETRY: (XaCode.RETRY,),
    common_pb2.ACK_KIND_HEURISTIC_COMMIT: (XaCode.HEURCOM,),
    common_pb2.ACK_KIND_HEURISTIC_ROLLBACK: (XaCode.HEURRB,),
    common_pb2.ACK_KIND_HEURISTIC_MIXED: (XaCode.HEURMIX,),
    common_pb2.ACK_KIND_HEURISTIC_HAZARD: (XaCode.HEURHAZ,),
}


class Words:
    """All that one participant said, as far as it was odd. ``oddities`` are sentences, the first few."""

    __slots__ = ("oddities",)

    def __init__(self) -> None:
        self.oddities: list[str] = []

    def heard_vote(self, vote: common_pb2.Vote) -> common_pb2.Vote:
        """Look at a vote, and return it."""
        self._note(_oddity_of_vote(vote))
        return vote

    def heard_ack(self, ack: common_pb2.Ack) -> common_pb2.Ack:
        """Look at an acknowledgement, and return it."""
        codes = _ACK_CODES.get(ack.kind)
        if codes is None:
            self._note(f"an acknowledgement of kind {ack.kind}")
        elif ack.xa_code not in codes:
            self._note(f"{shown_ack(ack)}: not the code of its kind")
        return ack

    def _note(self, oddity: str) -> None:
        if oddity and oddity not in self.oddities and len(self.oddities) < _ODDITIES_MAX:
            self.oddities.append(oddity)


def shown(vote: common_pb2.Vote) -> str:
    """Write a vote for a person."""
    name = common_pb2.VoteKind.Name(vote.kind) if vote.kind in common_pb2.VoteKind.values() else str(vote.kind)
    name = name.removeprefix("VOTE_KIND_")
    return f"{name} {vote.xa_code} {vote.reason} {vote.message}{' transient' if vote.transient else ''}".strip()


def shown_ack(ack: common_pb2.Ack) -> str:
    """Write an acknowledgement for a person."""
    name = shown_ack_kind(ack.kind)
    return f"{name} {ack.xa_code} {ack.message}".strip()


def shown_ack_kind(kind: common_pb2.AckKind.ValueType) -> str:
    """Write the kind of an acknowledgement for a person; a number where there is no such kind."""
    return common_pb2.AckKind.Name(kind).removeprefix("ACK_KIND_") if kind in common_pb2.AckKind.values() else str(kind)


def _oddity_of_vote(vote: common_pb2.Vote) -> str:
    match vote.kind:
        case common_pb2.VOTE_KIND_PREPARED:
            fits = vote.xa_code == XaCode.OK and not vote.transient
        case common_pb2.VOTE_KIND_READ_ONLY:
            fits = vote.xa_code == XaCode.RDONLY and not vote.transient
        case common_pb2.VOTE_KIND_ROLLED_BACK:
            fits = XaCode.RBROLLBACK <= vote.xa_code <= XaCode.RBTRANSIENT or vote.xa_code < 0
        case _:
            return f"a vote of kind {vote.kind}"
    if not fits:
        return f"{shown(vote)}: not a code of its kind, or a yes that is transient"
    if len(vote.reason) > _REASON_MAX_CHARS or vote.reason != vote.reason.upper():
        return f"{shown(vote)}: the reason is not a short word in capitals"
    return _oddity_of_results(vote)


def _oddity_of_results(vote: common_pb2.Vote) -> str:
    if read_vote(vote).kind != vote.kind:
        return f"{shown(vote)}: its results are out of bounds"
    for result in vote.results:
        try:
            loads(result or "{}")
        except InvalidJsonError as error:
            return f"{shown(vote)}: a result that is no JSON: {error}"
    return ""
