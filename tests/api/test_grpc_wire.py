"""What gRPC is told of an outcome: the same fields, whether it is the plain one or any other."""

from __future__ import annotations

from typing import Final

import pytest
from google.protobuf.duration_pb2 import Duration
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.api import grpc_wire
from coordinator.errors import InvalidRequestError
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import Phase
from coordinator.requests import Ended
from participant_sdk.ids import Xid
from participant_sdk.wire import write_vote
from participant_sdk.xa import PREPARED, READ_ONLY, Decision, Heuristic, business_no

XID: Final = Xid.make(1_700_000_000_000, 7, 1)
DONE: Final = BranchOutcome("payer", PREPARED, done=True)
PLAIN: Final = Outcome(
    XID, Decision.COMMIT, Phase.COMMITTED, branches=(DONE, BranchOutcome("payee", PREPARED, done=True))
)


def beside(branch: BranchOutcome) -> Outcome:
    return PLAIN._replace(branches=(DONE, branch))


# Each differs from the plain one in one thing, though not all of them come about.
OUTCOMES: Final = {
    "plain": PLAIN,
    "of nobody": PLAIN._replace(branches=()),
    "of one": PLAIN._replace(branches=(DONE,)),
    "rolled back": PLAIN._replace(decision=Decision.ROLLBACK),
    "committing": PLAIN._replace(phase=Phase.COMMITTING),
    "with a reason": PLAIN._replace(reason="WHY"),
    "with a message": PLAIN._replace(message="because"),
    "to be sent again": PLAIN._replace(retry=True),
    "replayed": PLAIN._replace(replayed=True),
    "with a heuristic end": PLAIN._replace(heuristic=Heuristic.MIXED),
    "with a branch owed": beside(DONE._replace(done=False)),
    "with a branch that was not heard": beside(DONE._replace(vote=None)),
    "with a branch that only read": beside(DONE._replace(vote=READ_ONLY)),
    "with a branch that said no": beside(DONE._replace(vote=business_no("NO", "none"))),
    "with results": beside(DONE._replace(vote=PREPARED._replace(results=("{}", "7")))),
    "with a branch that ended by hand": beside(DONE._replace(heuristic=Heuristic.COMMIT)),
}


def written(outcome: Outcome) -> transaction_pb2.TransactionResult:
    result = transaction_pb2.TransactionResult()
    grpc_wire.write_ended(Ended(outcome, 1.25), result)
    return result


def expected(outcome: Outcome) -> transaction_pb2.TransactionResult:
    """Every field, one after the other."""
    return transaction_pb2.TransactionResult(
        xid=str(outcome.xid),
        outcome=transaction_pb2.Outcome.ValueType(outcome.decision),
        phase=common_pb2.Phase.ValueType(outcome.phase),
        applied=outcome.applied,
        reason=outcome.reason,
        message=outcome.message,
        retry=outcome.retry,
        replayed=outcome.replayed,
        heuristic=common_pb2.Heuristic.ValueType(outcome.heuristic or 0),
        duration=Duration(seconds=1, nanos=250_000_000),
        branches=[
            transaction_pb2.BranchResult(
                participant=branch.participant,
                vote=None if branch.vote is None else write_vote(branch.vote),
                done=branch.done,
                heuristic=common_pb2.Heuristic.ValueType(branch.heuristic or 0),
            )
            for branch in outcome.branches
        ],
    )


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_every_field_of_an_outcome_is_told(outcome: Outcome) -> None:
    assert written(outcome) == expected(outcome)


def test_one_result_does_not_show_in_the_next() -> None:
    """Plain outcomes are copied from one message, which nobody may write into."""
    first = written(PLAIN)
    first.branches[0].participant = "another"
    first.reason = "WHY"
    assert written(PLAIN) == expected(PLAIN)


def asking(seconds: int, nanos: int) -> transaction_pb2.ExecuteRequest:
    return transaction_pb2.ExecuteRequest(timeout=Duration(seconds=seconds, nanos=nanos))


@pytest.mark.parametrize(
    ("seconds", "nanos", "read_s"),
    [(0, 1, 1e-9), (29, 999_999_999, 29.999999999), (3299, 1, 3299.000000001), (3300, 0, 3300.0)],
)
def test_a_timeout_is_read_to_the_nanosecond(seconds: int, nanos: int, read_s: float) -> None:
    assert grpc_wire.read_timeout(asking(seconds, nanos), 30.0) == read_s


def test_a_timeout_out_of_range_is_told_as_it_was_sent() -> None:
    with pytest.raises(InvalidRequestError, match=r"not 3300\.000000001$"):
        grpc_wire.read_timeout(asking(3300, 1), 30.0)


def test_no_timeout_is_the_default() -> None:
    assert grpc_wire.read_timeout(transaction_pb2.ExecuteRequest(), 30.0) == 30.0
