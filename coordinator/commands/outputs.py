"""What commands about transactions print."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from coordinator.commands.exits import ExitCode
from coordinator.json_text import list_text, object_text, result_text
from participant_sdk.client_results import BranchResult, Committed, Ending, RolledBack, TransactionState

TABLE_MAX_COLUMNS: Final = 10_000


def show_ending(ending: Ending, *, as_json: bool) -> ExitCode:
    """Print how a transaction ended; return the exit code for it."""
    if as_json:
        typer.echo(ending_json(ending))
    else:
        _show(ending)
    return ExitCode.DONE if isinstance(ending, Committed) else ExitCode.ROLLED_BACK


def show_state(state: TransactionState, *, as_json: bool) -> None:
    """Print everything known of one transaction."""
    if as_json:
        typer.echo(state_json(state))
        return
    console = Console()
    console.print(f"[bold]{state.xid}[/bold]  {state.phase}  {state.waiting_for}", soft_wrap=True)
    if isinstance(state.ending, RolledBack):
        console.print(f"{state.ending.reason}: {state.ending.message}", markup=False)
    if state.ending is not None and state.ending.heuristic is not None:
        console.print(f"[red]It ended by hand: {state.ending.heuristic.name}[/red]")
    console.print(_branches(state.branches))
    if not state.events:
        console.print("Its story is not kept any more: this is what the decision log holds.")
        return
    story = Table("time", "event", "participant", "detail", title="story")
    for event in state.events:
        story.add_row(event.time.isoformat(timespec="milliseconds"), event.event, event.participant, event.detail)
    console.print(story)


def show_states(states: Sequence[TransactionState], *, as_json: bool) -> None:
    """Print a list of transactions."""
    if as_json:
        typer.echo(list_text(state_json(state) for state in states))
        return
    whole = [Column(name, no_wrap=True) for name in ("transaction", "began", "phase")]
    table = Table(*whole, "participants", "reason or waiting for")
    for state in states:
        reason = state.ending.reason if isinstance(state.ending, RolledBack) else state.waiting_for
        names = ", ".join(branch.participant for branch in state.branches)
        table.add_row(str(state.xid), state.began.isoformat(timespec="milliseconds"), state.phase, names, reason)
    wide_enough(table).print(table)


def wide_enough(table: Table) -> Console:
    """A console that cuts no column that must be whole: in a narrow terminal lines go on, in a pipe each row is one."""
    console = Console()
    widths = Measurement.get(console, console.options.update(max_width=TABLE_MAX_COLUMNS), table)
    return Console(width=max(console.width, widths.minimum) if console.is_terminal else widths.maximum)


def ending_json(ending: Ending) -> str:
    """An ending as HTTP spells it."""
    members = [
        ("transaction_id", json.dumps(str(ending.xid))),
        ("state", json.dumps("COMMITTED" if isinstance(ending, Committed) else "ROLLED_BACK")),
        ("request_id", json.dumps(ending.request_id or None)),
        ("applied", json.dumps(ending.applied)),
        ("replayed", json.dumps(ending.replayed)),
        ("duration_ms", f"{ending.duration_s * 1000:.3f}"),
        ("branches", list_text(_branch_json(branch) for branch in ending.branches)),
    ]
    if ending.heuristic is not None:
        members.append(("heuristic", json.dumps(ending.heuristic.name)))
    if isinstance(ending, RolledBack):
        members[2:2] = [("reason", json.dumps(ending.reason)), ("message", json.dumps(ending.message))]
    return object_text(members)


def state_json(state: TransactionState) -> str:
    """A transaction as HTTP spells it."""
    words: Callable[[bool], str] = lambda committed: "COMMITTED" if committed else "ROLLED_BACK"  # noqa: E731
    told = words(isinstance(state.ending, Committed)) if state.ending else state.phase
    heuristic = state.ending.heuristic if state.ending else None
    return object_text(
        [
            ("transaction_id", json.dumps(str(state.xid))),
            ("state", json.dumps(told)),
            ("phase", json.dumps(state.phase)),
            ("reason", json.dumps(state.ending.reason if isinstance(state.ending, RolledBack) else "")),
            ("message", json.dumps(state.ending.message if isinstance(state.ending, RolledBack) else "")),
            ("waiting_for", json.dumps(state.waiting_for)),
            ("heuristic", json.dumps(heuristic.name if heuristic else None)),
            ("request_id", json.dumps(state.request_id or None)),
            ("began_at", json.dumps(state.began.isoformat(timespec="milliseconds"))),
            ("deadline", json.dumps(state.deadline.isoformat(timespec="milliseconds") if state.deadline else None)),
            ("branches", list_text(_branch_json(branch) for branch in state.branches)),
            (
                "events",
                json.dumps(
                    [
                        {
                            "time": event.time.isoformat(timespec="milliseconds"),
                            "event": event.event,
                            "participant": event.participant or None,
                            "detail": event.detail,
                        }
                        for event in state.events
                    ]
                ),
            ),
        ]
    )


def _show(ending: Ending) -> None:
    console = Console()
    word = "[green]COMMITTED[/green]" if isinstance(ending, Committed) else "[red]ROLLED_BACK[/red]"
    console.print(f"{word}  [bold]{ending.xid}[/bold]  {ending.duration_s * 1000:.1f} ms", soft_wrap=True)
    if isinstance(ending, RolledBack):
        console.print(f"{ending.reason}: {ending.message}", markup=False)
    if not ending.applied:
        console.print("Not applied everywhere yet; the coordinator goes on with it.")
    console.print(_branches(ending.branches))


def _branches(branches: Sequence[BranchResult]) -> Table:
    table = Table("participant", "vote", "done", "reason", "results")
    if any(branch.heuristic for branch in branches):
        table.add_column("ended by hand")
    for branch in branches:
        vote = branch.vote
        table.add_row(
            branch.participant,
            vote.kind.name if vote else "none came",
            "yes" if branch.done else "not yet",
            f"{vote.reason} {vote.message}".strip() if vote else "",
            "\n".join(vote.results) if vote else "",
            *([branch.heuristic.name] if branch.heuristic else []),
        )
    return table


def _branch_json(branch: BranchResult) -> str:
    vote = branch.vote
    members = [
        ("participant", json.dumps(branch.participant)),
        ("vote", json.dumps(vote.kind.name if vote else None)),
        ("done", json.dumps(branch.done)),
    ]
    if branch.heuristic is not None:
        members.append(("heuristic", json.dumps(branch.heuristic.name)))
    if vote is not None and not vote.is_yes:
        members += [("reason", json.dumps(vote.reason)), ("message", json.dumps(vote.message))]
    if vote is not None:
        members.append(("results", list_text(result_text(result) for result in vote.results)))
    return object_text(members)
