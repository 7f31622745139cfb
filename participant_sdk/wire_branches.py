"""Branches and inquiries on the wire: what recovery, operators and participants in doubt say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pincex.tx.v1 import common_pb2, resource_pb2, transaction_pb2

from participant_sdk.branch import BranchPhase
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.wire import InvalidFieldError, read_log_id, read_vote, read_xid, write_vote
from participant_sdk.xa import Decision, DecisionState, Heuristic

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
# A page that would take more is cut short: what a branch's vote returned travels with it, and a page must fit into
# one message, also for a tool that takes no more than gRPC's own 4 MiB.
PAGE_MAX_BYTES: Final = 2 * 1024 * 1024

_STATES: Final = {
    transaction_pb2.DECISION_STATE_COMMIT: DecisionState.COMMIT,
    transaction_pb2.DECISION_STATE_ROLLBACK: DecisionState.ROLLBACK,
    transaction_pb2.DECISION_STATE_PENDING: DecisionState.PENDING,
    transaction_pb2.DECISION_STATE_FORGOTTEN: DecisionState.FORGOTTEN,
}


def write_branch(branch: Branch) -> resource_pb2.Branch:
    """Write what a participant holds of a branch."""
    # The enums' numbers are the wire's, by their definition.
    return resource_pb2.Branch(
        xid=str(branch.xid),
        phase=common_pb2.BranchPhase.ValueType(branch.phase),
        heuristic=common_pb2.Heuristic.ValueType(branch.heuristic or 0),
        reason=branch.reason,
        vote=None if branch.vote is None else write_vote(branch.vote),
        participants=branch.participants,
        tenant=branch.tenant,
        request_id=branch.request_id,
        request_digest=branch.request_digest,
        incarnation=branch.incarnation,
        sequence=branch.sequence,
        prepared_unix_ms=branch.prepared_unix_ms,
    )


def read_branch(message: resource_pb2.Branch, log_id: str) -> Branch:
    """Read what a participant holds of a branch. InvalidFieldError for an xid, phase or heuristic unknown here."""
    try:
        phase = BranchPhase(message.phase)
        heuristic = Heuristic(message.heuristic) if message.heuristic else None
    except ValueError as error:
        raise InvalidFieldError("phase", str(error)) from error
    return Branch(
        log_id,
        read_xid(message.xid),
        phase,
        read_vote(message.vote) if message.HasField("vote") else None,
        heuristic,
        message.reason,
        tuple(message.participants),
        message.tenant,
        message.request_id,
        message.request_digest,
        message.incarnation,
        message.sequence,
        message.prepared_unix_ms,
    )


def write_recover(query: RecoverQuery, token: str) -> resource_pb2.RecoverRequest:
    """Write which branches to list; the token is the page before's, as it came."""
    return resource_pb2.RecoverRequest(
        log_id=query.log_id,
        finished=query.finished,
        page_size=query.limit,
        page_token=token,
        above=[
            resource_pb2.Watermark(incarnation=incarnation, sequence=sequence)
            for incarnation, sequence in query.above.items()
        ],
    )


def read_recover(request: resource_pb2.RecoverRequest) -> RecoverQuery:
    """Read which branches to list; the page token is one of ``write_page``. InvalidFieldError."""
    if request.page_size > PAGE_MAX:
        raise InvalidFieldError("page_size", f"at most {PAGE_MAX}, not {request.page_size}")
    after: Xid | None = None
    if request.page_token:
        try:
            after = read_xid(request.page_token)
        except InvalidFieldError as error:
            raise InvalidFieldError("page_token", "not a token of an earlier page") from error
    return RecoverQuery(
        read_log_id(request.log_id),
        request.finished,
        {mark.incarnation: mark.sequence for mark in request.above},
        after,
        request.page_size or PAGE_DEFAULT,
    )


def write_page(branches: Sequence[Branch], limit: int) -> resource_pb2.RecoverResponse:
    """Write as many of these as a page may take in bytes, one at least, and the token of the page after.

    The token is the last xid's text. ``limit`` is how many were asked for: with so many there may be more.
    """
    page = resource_pb2.RecoverResponse()
    size_bytes = 0
    for branch in branches:
        message = write_branch(branch)
        size_bytes += message.ByteSize()
        if page.branches and size_bytes > PAGE_MAX_BYTES:
            break
        page.branches.append(message)
    if page.branches and (len(page.branches) < len(branches) or len(branches) >= limit):
        page.next_page_token = page.branches[-1].xid
    return page


def read_decision(value: common_pb2.Decision.ValueType, field: str) -> Decision:
    """Read a decision that is asked for. InvalidFieldError for none."""
    try:
        return Decision(value)
    except ValueError as error:
        raise InvalidFieldError(field, "DECISION_COMMIT or DECISION_ROLLBACK") from error


def write_decision_query(query: DecisionQuery) -> transaction_pb2.GetDecisionRequest:
    """Write an inquiry."""
    return transaction_pb2.GetDecisionRequest(
        xid=str(query.xid),
        participant=query.participant,
        participants=query.participants,
        epoch=query.epoch,
        log_id=query.log_id,
    )


def read_decision_answer(message: transaction_pb2.GetDecisionResponse) -> DecisionAnswer | None:
    """Read the answer to an inquiry; None where it says nothing that this side knows."""
    state = _STATES.get(message.decision)
    if state is None or (state is DecisionState.COMMIT and not (message.incarnation and message.sequence)):
        return None
    return DecisionAnswer(state, message.incarnation, message.sequence, message.owner_address, message.epoch)
