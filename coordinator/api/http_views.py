"""Outcomes and transactions as JSON. On HTTP the xid is ``transaction_id``, and states are plain words.

Operations' results are JSON texts of the participants' own; they go into the answer as they
are, so that no number is rounded on its way.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from coordinator.health import Health
from coordinator.json_text import list_text, object_text, result_text
from coordinator.protocol.outcome import BranchOutcome, Outcome, xa_code_of
from coordinator.requests import Ended, StoryEvent, TransactionView
from participant_sdk.xa import Decision, Vote

_STATES: Final = {Decision.COMMIT: "COMMITTED", Decision.ROLLBACK: "ROLLED_BACK"}


def ended_json(ended: Ended) -> str:
    """The answer to ``execute``."""
    return object_text(
        [
            *_outcome_members(ended.outcome),
            ("phase", json.dumps(ended.outcome.phase.name)),
            ("duration_ms", f"{ended.duration_s * 1000:.3f}"),
            ("branches", list_text(_branch(branch) for branch in ended.outcome.branches)),
        ]
    )


def view_json(view: TransactionView) -> str:
    """Everything known of one transaction, with its story."""
    outcome = view.outcome
    members = (
        _outcome_members(outcome)
        if outcome
        else [
            ("transaction_id", json.dumps(str(view.xid))),
            ("state", json.dumps(view.phase.name)),
        ]
    )
    return object_text(
        [
            *members,
            ("phase", json.dumps(view.phase.name)),
            ("waiting_for", json.dumps(view.waiting_for)),
            ("request_id", json.dumps(view.request_id or None)),
            ("began_at", time_json(view.began_unix_ms)),
            ("deadline", time_json(view.deadline_unix_ms)),
            ("incarnation", json.dumps(view.incarnation)),
            ("sequence", json.dumps(view.sequence)),
            ("branches", list_text(_branch(branch) for branch in view.branches)),
            ("events", list_text(_event(event) for event in view.events)),
        ]
    )


def health_json(health: Health) -> str:
    """The state of the coordinator and of what it depends on."""
    return json.dumps(
        {
            "status": health.status,
            "coordinator": health.coordinator,
            "incarnation": health.incarnation,
            "stopping": health.stopping,
            "decision_log": {
                "status": "DOWN" if not health.log_is_open else "HELD" if health.held else "UP",
                "log_id": health.log_id,
                "held_reason": health.held or None,
                "problem": health.log_problem or None,
            },
            "transactions": {
                "in_flight": health.in_flight,
                "unfinished": health.unfinished,
                "needing_attention": health.needing_attention,
            },
            "participants": [
                {"name": each.name, "address": each.address, "status": "UP" if each.is_up else "DOWN"}
                for each in health.participants
            ],
        }
    )


def _outcome_members(outcome: Outcome) -> list[tuple[str, str]]:
    members = [
        ("transaction_id", json.dumps(str(outcome.xid))),
        ("state", json.dumps(_STATES[outcome.decision])),
        ("reason", json.dumps(outcome.reason)),
        ("message", json.dumps(outcome.message)),
        ("applied", json.dumps(outcome.applied)),
        ("owed", json.dumps(outcome.owed)),
        ("retry", json.dumps(outcome.retry)),
        ("replayed", json.dumps(outcome.replayed)),
    ]
    if code := xa_code_of(outcome):
        members.append(("xa_code", json.dumps(code)))
    if outcome.heuristic is not None:
        members.append(("heuristic", json.dumps(outcome.heuristic.name)))
    return members


def _branch(branch: BranchOutcome) -> str:
    members = [("participant", json.dumps(branch.participant)), *_vote_members(branch.vote)]
    members.append(("done", json.dumps(branch.done)))
    if branch.heuristic is not None:
        members.append(("heuristic", json.dumps(branch.heuristic.name)))
    return object_text(members)


def _vote_members(vote: Vote | None) -> list[tuple[str, str]]:
    if vote is None:
        return [("vote", "null")]
    members = [("vote", json.dumps(vote.kind.name))]
    if not vote.is_yes:
        members += [
            ("xa_code", json.dumps(int(vote.xa_code))),
            ("reason", json.dumps(vote.reason)),
            ("message", json.dumps(vote.message)),
            ("transient", json.dumps(vote.transient)),
        ]
    if vote.field:
        members.append(("field", json.dumps(vote.field)))
    members.append(("results", list_text(result_text(result) for result in vote.results)))
    return members


def _event(event: StoryEvent) -> str:
    return object_text(
        [
            ("time", time_json(event.unix_ms)),
            ("event", json.dumps(event.event)),
            ("participant", json.dumps(event.participant or None)),
            ("detail", json.dumps(event.detail)),
        ]
    )


def time_json(unix_ms: int | None) -> str:
    """A time in RFC 3339, or null."""
    if unix_ms is None:
        return "null"
    stamp = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return json.dumps(stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
