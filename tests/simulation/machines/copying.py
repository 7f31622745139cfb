"""Copies of machines, and keys by which two equal states are known as one."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import fields, replace
from typing import Final, TypeVar, cast

from coordinator.log.completion import Completion
from coordinator.log.memory_tables import IncarnationRow, Tables
from coordinator.protocol.branches import Branches, BranchState
from coordinator.protocol.transaction import Transaction
from tests.simulation.machines.coordinator import CoordinatorMachine, Statement

Slotted = TypeVar("Slotted")

_TABLES: Final = tuple(one.name for one in fields(Tables))
_TIMES: Final = frozenset({"_timing", "deadline_s", "prepare_by_s"})


def copy_tables(tables: Tables) -> Tables:
    """The same rows, which change apart from these."""
    other = object.__new__(Tables)
    for name in _TABLES:
        value = getattr(tables, name)
        setattr(other, name, _copy_rows(value))
    return other


def _copy_rows(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copy_row(row) for key, row in cast("dict[object, object]", value).items()}
    return list(cast("list[object]", value)) if isinstance(value, list) else value


def _copy_row(row: object) -> object:
    return replace(row, decisions=dict(row.decisions)) if isinstance(row, IncarnationRow) else row


def copy_coordinator(machine: CoordinatorMachine) -> CoordinatorMachine:
    """An equal coordinator that moves by itself."""
    other = CoordinatorMachine(machine.incarnation)
    other.xids, other.awaited, other.uncertain = machine.xids, machine.awaited, machine.uncertain
    other.sequence, other.is_over = machine.sequence, machine.is_over
    other.transactions = {xid: copy_transaction(one) for xid, one in machine.transactions.items()}
    other.queue = list(machine.queue)
    other.instead = dict(machine.instead)
    other.conflicts = list(machine.conflicts)
    other.lookups = list(machine.lookups)
    other.heuristics = list(machine.heuristics)
    other.completions = {number: _copy_completion(one) for number, one in machine.completions.items()}
    other.wrongs = list(machine.wrongs)
    return other


def copy_transaction(transaction: Transaction) -> Transaction:
    """An equal transaction."""
    other = _copy_slots(transaction)
    other.answer = _copy_slots(transaction.answer)
    other.resends = _copy_slots(transaction.resends)
    other.branches = Branches((name, _copy_slots(branch)) for name, branch in transaction.branches.items())
    return other


def _copy_completion(completion: Completion) -> Completion:
    other = _copy_slots(completion)
    for name in _slots(Completion):
        value = getattr(other, name)
        if isinstance(value, dict):
            setattr(other, name, dict(cast("dict[object, object]", value)))
    return other


def _copy_slots(one: Slotted) -> Slotted:
    kind = type(one)
    other = object.__new__(kind)
    for name in _slots(kind):
        setattr(other, name, getattr(one, name))
    return other


def _slots(kind: type) -> tuple[str, ...]:
    return cast("tuple[str, ...]", vars(kind)["__slots__"])


# -- Keys


def coordinator_key(machine: CoordinatorMachine) -> object:
    """All of a coordinator that decides what can happen next."""
    return (
        machine.incarnation.number,
        machine.xids,
        _statement_key(machine.awaited),
        machine.uncertain,
        machine.sequence,
        tuple(machine.queue),
        tuple(machine.instead.items()),
        tuple(machine.conflicts),
        tuple(machine.lookups),
        tuple(machine.heuristics),
        tuple([_transaction_key(one) for one in machine.transactions.values()]),
        tuple([_completion_key(one) for one in machine.completions.values()]),
    )


def statements_key(statements: list[Statement]) -> object:
    """What is on its way to the log, in no order."""
    return tuple(sorted(hash(_statement_key(one)) for one in statements))


def _statement_key(one: Statement | None) -> object:
    return one and (one.owner.number, one.expected, one.records)


def _transaction_key(one: Transaction) -> object:
    # Times are left out, and what is only said to people; branches and the answer have keys of their own.
    own = _slots_key(one, _TIMES | {"answer", "branches", "message", "reason", "resends"})
    branches = tuple([_branch_key(branch) for branch in one.branches.values()])
    return own, _slots_key(one.answer, {"by_s"}), branches


def _branch_key(branch: BranchState) -> object:
    # What a vote says in words decides nothing.
    vote = branch.vote
    return branch.participant, vote and (vote.kind, vote.transient), branch.done, branch.heuristic


def _completion_key(completion: Completion) -> object:
    return _slots_key(completion, {"_acknowledged", "_applied", "_written"})


def _slots_key(one: object, without: AbstractSet[str]) -> object:
    return tuple([_plain(getattr(one, name)) for name in _slots(type(one)) if name not in without])


def _plain(value: object) -> object:
    return tuple(cast("dict[object, object]", value).items()) if isinstance(value, dict) else value


def tables_key(tables: Tables) -> object:
    """The log's rows; its leases are left out, since a move lets them expire."""
    return (
        tuple(tables.decisions.values()),
        tuple([(row.number, row.last_sequence, row.fenced_by) for row in tables.incarnations.values()]),
        tuple([(one.incarnation, one.finished_through, one.stragglers) for one in tables.checkpoints.values()]),
        tuple(tables.heuristics.items()),
    )
