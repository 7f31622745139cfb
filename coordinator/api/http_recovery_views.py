"""Recovery as JSON: plain words, times in RFC 3339, transactions as ``transaction_id``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from coordinator.doubts import InDoubt, InDoubtPage
from coordinator.hold import ReleasePlan
from coordinator.log.decision_log import Standing
from coordinator.passes import Attention, ParticipantStatus, Pass, RecoveryStatus
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import Phase
from coordinator.resolution import Forced
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch

RESTORED_SHOWN_MAX: Final = 100

Members: TypeAlias = Mapping[str, object]


def pass_json(ran: Pass) -> str:
    """One pass."""
    return json.dumps(_pass(ran))


def status_json(status: RecoveryStatus, own: int, open_heuristics: int) -> str:
    """The state of recovery; ``own`` is the incarnation that answers."""
    return json.dumps(
        {
            **_standing(status.standing),
            "log_problem": status.log_problem or None,
            "last_pass": _pass(status.last),
            "current_pass": _pass(status.current),
            "next_pass_at": _time(status.next_unix_ms),
            "participants": [_participant(each) for each in status.participants],
            "coordinators": _coordinators(status.standing, own),
            "needs_attention": [_attention(each) for each in status.attention],
            "needs_attention_count": status.attention_count,
            "open_heuristics": open_heuristics,
        }
    )


def in_doubt_json(page: InDoubtPage) -> str:
    """A page of branches in doubt."""
    return json.dumps(
        {
            "branches": [_in_doubt(each) for each in page.branches],
            "next_page_token": page.next_token or None,
            "unreachable_participants": page.unreachable,
        }
    )


def forced_json(forced: Forced, xid: Xid, participant: str) -> str:
    """What was forced, or, without an acknowledgement, would be."""
    return json.dumps(
        {
            "participant": participant,
            "branch": {"transaction_id": str(xid), "phase": None} if forced.branch is None else _branch(forced.branch),
            "acknowledgement": None if forced.ack is None else forced.ack.kind.name,
            "message": "" if forced.ack is None else forced.ack.message,
            "advice": forced.advice,
        }
    )


def retried_json(xid: Xid, phase: Phase) -> str:
    """Where a transaction stands after it was driven again."""
    return json.dumps({"transaction_id": str(xid), "phase": phase.name})


def forgotten_json(xid: Xid, participants: tuple[str, ...]) -> str:
    """Whose heuristic branches were dropped."""
    return json.dumps({"transaction_id": str(xid), "participants": participants})


def held_json(standing: Standing) -> str:
    """HOLD begun."""
    held = {key: value for key, value in _standing(standing).items() if key != "pruned_below"}
    return json.dumps(held)


def plan_json(plan: ReleasePlan, *, preview: bool) -> str:
    """What the end of HOLD restored, or would; the oldest 100 commits by name."""
    return json.dumps(
        {
            "released": not preview,
            "commits_restored": len(plan.commits),
            "rollbacks_presumed": plan.rollbacks_presumed,
            "sequences_raised": plan.sequences_raised,
            "commits": [_restored(stored) for stored in plan.commits[:RESTORED_SHOWN_MAX]],
        }
    )


def _pass(ran: Pass | None) -> Members | None:
    if ran is None:
        return None
    return {
        "recovery_type": ran.scope.name.lower(),
        "began_at": _time(ran.began_unix_ms),
        "ended_at": _time(ran.ended_unix_ms),
        "scanned": ran.scanned,
        "resolved": ran.resolved,
        "failed": ran.failed,
        "in_doubt": ran.in_doubt,
        "taken_over": ran.taken_over,
        "resumed_workflows": ran.resumed,
        "unreachable_participants": ran.unreachable,
    }


def _standing(standing: Standing | None) -> Members:
    if standing is None:
        # Not read yet: neither held nor not.
        return {"held": None, "held_since": None, "held_reason": "", "pruned_below": None}
    return {
        "held": standing.is_held,
        "held_since": _time(standing.held_since_unix_ms),
        "held_reason": standing.held_reason,
        "pruned_below": _time(standing.pruned_below_unix_ms),
    }


def _coordinators(standing: Standing | None, own: int) -> list[Members]:
    return [
        {
            "incarnation": live.number,
            "coordinator": live.coordinator,
            "address": live.address,
            "lease_left_ms": round(live.lease_left_s * 1000),
            "self": live.number == own,
        }
        for live in (standing.live if standing else ())
    ]


def _participant(status: ParticipantStatus) -> Members:
    return {
        "participant": status.participant,
        "status": "UP" if status.is_up else "DOWN",
        "reason": status.reason,
        "owed": status.owed,
        "in_doubt": status.in_doubt,
        "oldest_in_doubt_ms": status.oldest_in_doubt_ms,
        "breaker": status.breaker.name,
        "reported": status.reported,
    }


def _attention(attention: Attention) -> Members:
    return {
        "transaction_id": str(attention.xid),
        "participants": attention.participants,
        "attempts": attention.attempts,
        "decided_at": _time(attention.decided_unix_ms),
        "advice": attention.advice,
    }


def _in_doubt(found: InDoubt) -> Members:
    return {
        "participant": found.participant,
        **_branch(found.branch),
        "decision": found.state.name if found.state else None,
        "advice": found.advice,
    }


def _branch(branch: Branch) -> Members:
    return {
        "transaction_id": str(branch.xid),
        "phase": branch.phase.name,
        "heuristic": branch.heuristic.name if branch.heuristic else None,
        "reason": branch.reason,
        "vote": branch.vote.kind.name if branch.vote else None,
        "participants": branch.participants,
        "request_id": branch.request_id or None,
        "prepared_at": _time(branch.prepared_unix_ms),
    }


def _restored(stored: StoredDecision) -> Members:
    record = stored.record
    return {
        "transaction_id": str(record.xid),
        "request_id": record.request.name if record.request else None,
        "participants": record.prepared,
    }


def _time(unix_ms: int) -> str | None:
    """A time; None for 0, which stands for none."""
    if not unix_ms:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
