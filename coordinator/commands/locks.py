"""Commands of locks: list, break."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.commands.exits import ExitCode, confirm, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson, Reason, Yes

# The client and what draws tables are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415


def list_(
    *,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many keys.")] = 100,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List locked keys by name: who holds each, since when, with which token, and who waits for it.

    Exit codes, of every command of locks: 0 done, 2 refused or not confirmed (nothing was changed),
    3 no answer came and it may have been done, 4 nobody to be reached.
    """
    from coordinator.commands import lock_outputs
    from coordinator.commands.operator_calls import ask_operator

    found = ask_operator(address, lambda calls: calls.locks(prefix, limit), as_json=as_json)
    lock_outputs.show_locks(found, as_json=as_json)


def break_(
    key: Annotated[str, typer.Argument(help="The key.")],
    *,
    reason: Reason,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Take a key from whoever holds it, with the other keys of the same call; the reason is kept for good.

    A transaction that has not begun to commit is rolled back when it tries. No money is at stake: what a
    participant has promised, it has reserved.
    """
    from coordinator.commands import lock_outputs
    from coordinator.commands.operator_calls import ask_operator

    found = ask_operator(address, lambda calls: calls.locks(key, 1), as_json=as_json)
    held = next((lock for lock in found if lock.key == key and lock.holders), None)
    if held is None:
        fail(f"nobody holds a lock on {key!r}", ExitCode.BAD_REQUEST, as_json=as_json, code="LOCK_NOT_HELD")
    if not yes and not as_json:
        lock_outputs.show_locks([held], as_json=False)
    confirm(f"Take {key!r} from {', '.join(each.owner for each in held.holders)}?", yes=yes, as_json=as_json)
    broken = ask_operator(address, lambda calls: calls.break_lock(key, reason), as_json=as_json)
    lock_outputs.show_broken(key, broken, as_json=as_json)
