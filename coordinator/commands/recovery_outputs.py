"""What the commands of recovery print: JSON as HTTP spells it, or tables."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager

import typer
from pincex.tx.v1 import common_pb2, recovery_pb2, resource_pb2
from rich.console import Console
from rich.table import Column, Table

from coordinator.commands.outputs import wide_enough
from coordinator.commands.recovery_json import (
    branch_members,
    in_doubt_members,
    pass_members,
    plan_members,
    state_word,
    status_members,
    time_text,
    unix_time_text,
    word,
)
from participant_sdk.resource_calls import Resolved
from participant_sdk.wire_branches import write_branch


def working(what: str, *, as_json: bool) -> AbstractContextManager[object]:
    """Say on the terminal that something goes on; nothing where output is for programs."""
    return contextlib.nullcontext() if as_json else Console(stderr=True).status(what)


def show_status(status: recovery_pb2.GetRecoveryStatusResponse, *, as_json: bool) -> None:
    """Print the state of recovery."""
    if as_json:
        typer.echo(json.dumps(status_members(status)))
        return
    console = Console()
    if status.HasField("held_since"):
        console.print(f"[bold red]HOLD[/bold red] since {time_text(status.held_since)}: ", end="")
        console.print(status.held_reason, markup=False)
    if status.log_problem:
        console.print("[bold red]The decision log refuses[/bold red]: ", end="")
        console.print(status.log_problem, markup=False)
    for name, has in (("last", status.HasField("last_pass")), ("current", status.HasField("current_pass"))):
        if has:
            console.print(f"{name} pass: {_sentence(getattr(status, f'{name}_pass'))}", soft_wrap=True)
    if status.HasField("next_pass_time"):
        console.print(f"next pass: {time_text(status.next_pass_time)}")
    whole = [Column(name, no_wrap=True) for name in ("participant", "session", "breaker", "reported")]
    participants = Table(*whole, "owed", "in doubt", "oldest", "reason")
    for each in status.participants:
        participants.add_row(
            each.participant,
            "up" if each.up else "[red]DOWN[/red]",
            word(recovery_pb2.BreakerState.Name(each.breaker), "BREAKER_STATE_"),
            "yes" if each.reported else "[red]no[/red]",
            str(each.owed),
            str(each.in_doubt),
            _age(each.oldest_in_doubt_ms) if each.in_doubt else "",
            " ".join(each.reason.split()),
        )
    wide_enough(participants).print(participants)
    coordinators = Table("incarnation", "coordinator", "address", "lease left", "")
    for live in status.coordinators:
        coordinators.add_row(
            str(live.incarnation),
            live.coordinator,
            live.address,
            f"{live.lease_left_ms} ms",
            "answers" if live.self else "",
        )
    wide_enough(coordinators).print(coordinators)
    _show_attention(status)


def show_pass(ran: recovery_pb2.RecoveryPass, *, as_json: bool) -> None:
    """Print what a pass did."""
    typer.echo(json.dumps(pass_members(ran)) if as_json else _sentence(ran))


def show_in_doubt(found: recovery_pb2.ListInDoubtResponse, *, as_json: bool) -> None:
    """Print branches in doubt, and on standard error who could not be asked."""
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "branches": [in_doubt_members(each) for each in found.branches],
                    "next_page_token": found.next_page_token or None,
                    "unreachable_participants": list(found.unreachable_participants),
                }
            )
        )
        return
    whole = [Column(name, no_wrap=True) for name in ("transaction", "participant", "phase", "decision", "prepared")]
    table = Table(*whole, "what to do")
    for each in found.branches:
        branch = branch_members(each.branch)
        phase = " ".join(str(part) for part in (branch["phase"], branch["heuristic"]) if part)
        table.add_row(
            each.branch.xid,
            each.participant,
            phase,
            state_word(each.state) or "?",
            str(branch["prepared_at"]),
            each.advice,
        )
    wide_enough(table).print(table)
    if found.next_page_token:
        typer.echo("There are more: ask with a higher --limit.", err=True)
    for name in found.unreachable_participants:
        typer.echo(f"pincex: {name} could not be asked; what it holds is missing above", err=True)


def show_what_hold_stops(status: recovery_pb2.GetRecoveryStatusResponse) -> None:
    """Print which coordinators HOLD would end."""
    typer.echo("HOLD ends these coordinators; each has to be started again, and begins nothing until release:")
    for live in status.coordinators:
        typer.echo(f"  {live.coordinator} at {live.address}, incarnation {live.incarnation}")


def show_held(held: recovery_pb2.HoldResponse, *, as_json: bool) -> None:
    """Print that HOLD has begun."""
    if as_json:
        typer.echo(json.dumps({"held": True, "held_since": time_text(held.held_since)}))
    else:
        typer.echo(f"The log is in HOLD since {time_text(held.held_since)}. The way out: pincex recovery release")


def show_plan(plan: recovery_pb2.ReleaseHoldResponse, *, preview: bool, as_json: bool) -> None:
    """Print what the end of HOLD restored, or would."""
    if as_json:
        typer.echo(json.dumps(plan_members(plan, preview=preview)))
        return
    verb = "would be" if preview else "were"
    typer.echo(
        f"{plan.commits_restored} commits {verb} restored, {plan.rollbacks_presumed} branches in doubt {verb} "
        f"presumed rolled back, {plan.sequences_raised} incarnations' sequences {verb} raised."
    )
    table = Table(
        Column("transaction", no_wrap=True), "request", "participants", title="commits restored, oldest first"
    )
    for commit in plan.commits:
        table.add_row(commit.xid, commit.request_id, ", ".join(commit.participants))
    if plan.commits:
        wide_enough(table).print(table)
    if not preview:
        typer.echo("HOLD is released.")


def show_forced(forced: recovery_pb2.RecoveryServiceResolveBranchResponse, participant: str, *, as_json: bool) -> None:
    """Print a branch that was forced, or, without an acknowledgement, would be."""
    ack = forced.ack if forced.HasField("ack") else None
    _show_forced(forced.branch, participant, ack, forced.advice, as_json=as_json)


def show_at_participant(resolved: Resolved, participant: str, *, as_json: bool) -> None:
    """Print a branch that was forced at its participant, or would be."""
    branch = resource_pb2.Branch() if resolved.branch is None else write_branch(resolved.branch)
    ack = resolved.ack and common_pb2.Ack(
        kind=common_pb2.AckKind.ValueType(resolved.ack.kind), message=resolved.ack.message
    )
    advice = (
        "Nothing was changed. No coordinator could be asked, so this may go against what was decided."
        if ack is None
        else "The log learns of it when a coordinator asks this participant: look at `pincex recovery in-doubt` then."
    )
    _show_forced(branch, participant, ack, advice, as_json=as_json)


def show_retried(xid: str, phase: str, *, as_json: bool) -> None:
    """Print where a transaction stands after it was driven again."""
    typer.echo(json.dumps({"transaction_id": xid, "phase": phase}) if as_json else f"{xid} is {phase}")


def show_forgotten(xid: str, participants: Sequence[str], *, as_json: bool) -> None:
    """Print whose heuristic branches were dropped."""
    if as_json:
        typer.echo(json.dumps({"transaction_id": xid, "participants": list(participants)}))
    else:
        typer.echo(f"{xid}: forgotten at {', '.join(participants)}")


def _show_attention(status: recovery_pb2.GetRecoveryStatusResponse) -> None:
    if status.open_heuristics:
        typer.echo(
            f"Ended by hand and not forgotten: {status.open_heuristics}. Look at `pincex recovery in-doubt`, put right "
            "what differs, then `pincex tx forget`."
        )
    if not status.needs_attention_count:
        typer.echo("No transaction needs attention." if status.open_heuristics else "Nothing needs attention.")
        return
    table = Table(
        Column("transaction", no_wrap=True),
        "owed by",
        "attempts",
        "decided",
        "what to do",
        title=f"{status.needs_attention_count} need attention, oldest first",
    )
    for each in status.needs_attention:
        table.add_row(
            each.xid,
            ", ".join(each.participants),
            str(each.attempts),
            unix_time_text(each.decided_unix_ms) or "",
            each.advice,
        )
    wide_enough(table).print(table)


def _show_forced(
    branch: resource_pb2.Branch, participant: str, ack: common_pb2.Ack | None, advice: str, *, as_json: bool
) -> None:
    members = branch_members(branch)
    kind = None if ack is None else word(common_pb2.AckKind.Name(ack.kind), "ACK_KIND_")
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "participant": participant,
                    "branch": members,
                    "acknowledgement": kind,
                    "message": "" if ack is None else ack.message,
                    "advice": advice,
                }
            )
        )
        return
    table = Table("", "", show_header=False)
    table.add_row("participant", participant)
    for key, value in (members | {"participants": ", ".join(branch.participants)}).items():
        table.add_row(key.replace("_", " "), str(value or ""))
    Console().print(table)
    if ack is not None:
        typer.echo(f"{participant} answered {kind}. {ack.message}".rstrip())
    typer.echo(advice)


def _sentence(ran: recovery_pb2.RecoveryPass) -> str:
    members = pass_members(ran)
    took_ms = ran.end_time.ToMilliseconds() - ran.start_time.ToMilliseconds()
    took = f"took {took_ms} ms" if members["ended_at"] else "still runs"
    missing = ", ".join(ran.unreachable_participants)
    return (
        f"{members['recovery_type']}, began {members['began_at']}, {took}: {ran.scanned} scanned, "
        f"{ran.resolved} resolved, {ran.failed} failed, {ran.in_doubt} in doubt, {ran.taken_over} taken over"
        f"{f', {ran.resumed_workflows} workflows resumed' if ran.resumed_workflows else ''}"
        + (f"; not reached: {missing}" if missing else "")
    )


def _age(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
