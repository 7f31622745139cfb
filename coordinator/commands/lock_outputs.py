"""What the commands of locks print: JSON as HTTP spells it, or tables."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer
from pincex.tx.v1 import lock_pb2
from rich.console import Console
from rich.table import Table

from coordinator.commands.outputs import wide_enough


def show_locks(locks: Sequence[lock_pb2.Lock], *, as_json: bool) -> None:
    """Print locked keys."""
    if as_json:
        typer.echo(json.dumps({"locks": [_members(lock) for lock in locks]}))
        return
    if not locks:
        Console().print("Nothing is locked.")
        return
    table = Table("key", "", "owner", "mode", "for", "TTL", "token", "owner alive")
    for lock in locks:
        for what, claims in (("held by", lock.holders), ("awaited by", lock.waiters)):
            for claim in claims:
                table.add_row(
                    lock.key,
                    what,
                    claim.owner,
                    _mode(claim),
                    _seconds(claim.elapsed.ToMilliseconds()),
                    _seconds(claim.ttl.ToMilliseconds()),
                    str(claim.token or ""),
                    "yes" if claim.owner_alive else "[red]no[/red]",
                )
    wide_enough(table).print(table)


def show_broken(key: str, broken: lock_pb2.BreakLockResponse, *, as_json: bool) -> None:
    """Print what was taken."""
    if as_json:
        taken = [
            {"owner": each.owner, "transaction_id": each.xid or None, "owner_alive": each.owner_alive}
            for each in broken.broken
        ]
        typer.echo(json.dumps({"key": key, "broken": taken, "keys": list(broken.keys)}))
        return
    owners = ", ".join(each.owner for each in broken.broken) or "nobody: it was let go meanwhile"
    Console().print(f"Taken from {owners}; free are: {', '.join(broken.keys)}", markup=False, soft_wrap=True)


def _members(lock: lock_pb2.Lock) -> dict[str, object]:
    holders = [{**_claim(each), "token": str(each.token)} for each in lock.holders]
    return {"key": lock.key, "holders": holders, "waiters": [_claim(each) for each in lock.waiters]}


def _claim(claim: lock_pb2.LockClaim) -> dict[str, object]:
    return {
        "owner": claim.owner,
        "transaction_id": claim.xid or None,
        "mode": _mode(claim),
        "for_ms": claim.elapsed.ToMilliseconds(),
        "ttl_ms": claim.ttl.ToMilliseconds(),
        "incarnation": claim.incarnation,
        "owner_alive": claim.owner_alive,
    }


def _mode(claim: lock_pb2.LockClaim) -> str:
    return lock_pb2.LockMode.Name(claim.mode).removeprefix("LOCK_MODE_")


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"
