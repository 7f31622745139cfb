"""Recovery's messages as the commands print them in JSON: spelled as HTTP spells them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from pincex.tx.v1 import common_pb2, recovery_pb2, resource_pb2, transaction_pb2

Members: TypeAlias = dict[str, object]


def status_members(status: recovery_pb2.GetRecoveryStatusResponse) -> Members:
    """The state of recovery."""
    return {
        "held": status.HasField("held_since"),
        "held_since": time_text(status.held_since),
        "held_reason": status.held_reason,
        "log_problem": status.log_problem or None,
        "pruned_below": time_text(status.pruned_below_time),
        "last_pass": pass_members(status.last_pass) if status.HasField("last_pass") else None,
        "current_pass": pass_members(status.current_pass) if status.HasField("current_pass") else None,
        "next_pass_at": time_text(status.next_pass_time),
        "participants": [
            {
                "participant": each.participant,
                "status": "UP" if each.up else "DOWN",
                "reason": each.reason,
                "owed": each.owed,
                "in_doubt": each.in_doubt,
                "oldest_in_doubt_ms": each.oldest_in_doubt_ms,
                "breaker": word(recovery_pb2.BreakerState.Name(each.breaker), "BREAKER_STATE_"),
                "reported": each.reported,
            }
            for each in status.participants
        ],
        "coordinators": [
            {
                "incarnation": live.incarnation,
                "coordinator": live.coordinator,
                "address": live.address,
                "lease_left_ms": live.lease_left_ms,
                "self": live.self,
            }
            for live in status.coordinators
        ],
        "needs_attention": [
            {
                "transaction_id": each.xid,
                "participants": list(each.participants),
                "attempts": each.attempts,
                "decided_at": unix_time_text(each.decided_unix_ms),
                "advice": each.advice,
            }
            for each in status.needs_attention
        ],
        "needs_attention_count": status.needs_attention_count,
        "open_heuristics": status.open_heuristics,
    }


def pass_members(ran: recovery_pb2.RecoveryPass) -> Members:
    """One pass."""
    return {
        "recovery_type": word(recovery_pb2.RecoveryScope.Name(ran.scope), "RECOVERY_SCOPE_").lower(),
        "began_at": time_text(ran.start_time),
        "ended_at": time_text(ran.end_time),
        "scanned": ran.scanned,
        "resolved": ran.resolved,
        "failed": ran.failed,
        "in_doubt": ran.in_doubt,
        "taken_over": ran.taken_over,
        "resumed_workflows": ran.resumed_workflows,
        "unreachable_participants": list(ran.unreachable_participants),
    }


def in_doubt_members(found: recovery_pb2.InDoubtBranch) -> Members:
    """A branch in doubt, with what is known of its decision."""
    return {
        "participant": found.participant,
        **branch_members(found.branch),
        "decision": state_word(found.state),
        "advice": found.advice,
    }


def branch_members(branch: resource_pb2.Branch) -> Members:
    """What a participant holds of a branch."""
    vote = word(common_pb2.VoteKind.Name(branch.vote.kind), "VOTE_KIND_") if branch.HasField("vote") else None
    phase = word(common_pb2.BranchPhase.Name(branch.phase), "BRANCH_PHASE_")
    heuristic = word(common_pb2.Heuristic.Name(branch.heuristic), "HEURISTIC_")
    return {
        "transaction_id": branch.xid,
        "phase": phase or None,
        "heuristic": heuristic or None,
        "reason": branch.reason,
        "vote": vote,
        "participants": list(branch.participants),
        "request_id": branch.request_id or None,
        "prepared_at": unix_time_text(branch.prepared_unix_ms),
    }


def plan_members(plan: recovery_pb2.ReleaseHoldResponse, *, preview: bool) -> Members:
    """What the end of HOLD restored, or would."""
    return {
        "released": not preview,
        "commits_restored": plan.commits_restored,
        "rollbacks_presumed": plan.rollbacks_presumed,
        "sequences_raised": plan.sequences_raised,
        "commits": [
            {
                "transaction_id": commit.xid,
                "request_id": commit.request_id or None,
                "participants": list(commit.participants),
            }
            for commit in plan.commits
        ],
    }


def state_word(state: transaction_pb2.DecisionState.ValueType) -> str | None:
    """What is known of a decision; None for nothing."""
    return word(transaction_pb2.DecisionState.Name(state), "DECISION_STATE_") or None


def word(name: str, prefix: str) -> str:
    """An enum's word without its prefix; empty for UNSPECIFIED."""
    return name.removeprefix(prefix).replace("UNSPECIFIED", "")


def time_text(stamp: Timestamp) -> str | None:
    """A time in RFC 3339; None for none."""
    return unix_time_text(stamp.ToMilliseconds())


def unix_time_text(unix_ms: int) -> str | None:
    """A time; None for 0, which stands for none."""
    if not unix_ms:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
