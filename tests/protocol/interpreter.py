"""Runs a transcript: lines of events go in, each step's effects come out as lines of text.

A transcript is a file of blocks. A block's first line is an event, with ``at=`` for the time in
seconds; the indented lines under it are what the step asked for. See ``transcripts/``.
"""

from __future__ import annotations

import shlex

from coordinator.protocol import events
from coordinator.protocol.effects import DecisionRecord, Step, StoredDecision
from coordinator.protocol.outcome import Outcome
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import (
    PREPARED,
    READ_ONLY,
    Ack,
    AckKind,
    Decision,
    business_no,
    invalid,
    transient_no,
)

XID = Xid.make(1_700_000_000_000, 7, 1)
OTHER = Xid.make(1_700_000_000_000, 6, 9)
DIGEST = b"\x01" * 32
TIMING = Timing(prepare_timeout_s=30, commit_timeout_s=60, rollback_timeout_s=30, retry_initial_s=1, retry_max_s=8)

VOTES = {
    "PREPARED": PREPARED,
    "READ_ONLY": READ_ONLY,
    "NO": business_no("INSUFFICIENT_FUNDS", "needs 5 BTC, has 3"),
    "INVALID": invalid("AMOUNT_INVALID", "must be above 0", "operations[0].parameters.amount"),
    "TRANSIENT": transient_no("PARTICIPANT_UNREACHABLE", "no session"),
    "UNSENT": transient_no("PARTICIPANT_UNREACHABLE", "no session")._replace(unsent=True),
}


class Interpreter:
    """One transaction, driven by words."""

    def __init__(self, *, request_id: str = "", deadline_s: float = 300) -> None:
        request = RequestId("default", request_id) if request_id else None
        self.tx = Transaction(XID, deadline_s, TIMING, request=request, digest=DIGEST if request else b"")

    def run(self, line: str) -> list[str]:
        """Feed the event of this line; return the effects as lines."""
        words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        verb, *names = [word for word in words if "=" not in word]
        step = self.tx.step(self.event(verb, names, options), float(options.get("at", "0")))
        return [*self.describe(step), f"phase {self.tx.phase.name}"]

    # One case for each kind of event.
    def event(  # noqa: C901, PLR0911, PLR0912
        self, verb: str, names: list[str], options: dict[str, str]
    ) -> events.Event:
        """The event that a line names."""
        match verb:
            case "enlist":
                return events.Enlist(names[0], int(options.get("carried", 1)), int(options.get("embedded", 0)))
            case "rollback-only":
                return events.SetRollbackOnly(names[0])
            case "commit":
                return events.CommitAsked(options.get("wait", "applied") == "applied")
            case "rollback":
                return events.RollbackAsked(names[0])
            case "close-intent":
                return events.Close("INTENT_CLOSED", names[0])
            case "vote":
                return events.Voted(names[0], VOTES[names[1]])
            case "ack":
                return events.Acknowledged(names[0], Ack(AckKind[names[1]]))
            case "recorded":
                return events.Recorded(7, int(options.get("sequence", 1)), stored(options.get("stored")))
            case "looked-up":
                return events.LookedUp(stored(options.get("stored")))
            case "heuristic-recorded":
                return events.HeuristicRecorded(names[0])
            case "reachable":
                return events.Reachable(names[0])
            case "woken":
                return events.Woken()
            case _:
                raise AssertionError(f"no such event: {verb}")

    def describe(self, step: Step) -> list[str]:
        """The effects of a step, one line each."""
        lines = [f"send {send.verb.name} to {send.participant}" for send in step.messages]
        if step.record is not None:
            lines.append(f"record {describe_record(step.record)}")
        if step.lookup:
            lines.append("look up the request")
        lines += [f"keep heuristic {h.heuristic.name} of {h.participant}" for h in step.heuristics]
        if step.reply is not None:
            lines.append(f"reply {describe_outcome(step.reply)}")
        if step.refusal is not None:
            lines.append(f"refuse {step.refusal.name}")
        if step.wake_at_s is not None:
            lines.append(f"wake at {step.wake_at_s:.2f}")
        if step.finished:
            lines.append("finished")
        return lines


def stored(kind: str | None) -> StoredDecision | None:
    """A row of the log under the same request_id: ``COMMIT``, ``ROLLBACK``, or with other operations or none."""
    if kind is None:
        return None
    if kind == "OWN":
        return StoredDecision(DecisionRecord(XID, Decision.ROLLBACK, reason="RECORD_REFUSED"), 7, 2, 0)
    decision, _, digest = kind.partition("/")
    digests = {"": DIGEST, "other": b"\x02" * 32, "closed": b""}
    record = DecisionRecord(OTHER, Decision[decision], ("a",), RequestId("default", "r"), digests[digest], "BOUND")
    return StoredDecision(record, 6, 4, 0)


def describe_record(record: DecisionRecord) -> str:
    words = [record.decision.name]
    if record.prepared:
        words.append(f"prepared={','.join(record.prepared)}")
    if record.request is not None:
        words.append(f"request={record.request.name}")
    if record.reason:
        words.append(f"reason={record.reason}")
    return " ".join(words)


def describe_outcome(outcome: Outcome) -> str:
    words = [outcome.decision.name]
    words += [flag for flag in ("retry", "replayed", "applied") if getattr(outcome, flag)]
    if outcome.owed:
        words.append(f"owed={','.join(outcome.owed)}")
    if outcome.reason:
        words.append(f"reason={outcome.reason}")
    if outcome.heuristic is not None:
        words.append(f"heuristic={outcome.heuristic.name}")
    return " ".join(words)
