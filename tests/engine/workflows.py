"""Workflows for tests, over the two participants in memory: money moves from one to the other, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

from coordinator.assembly import Assembly
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.protocol.workflow_records import StepPhase
from coordinator.workflows import Definition, Parameters, Workflow, workflow
from coordinator.workflows.transactions import RETRY_FIRST_S
from coordinator.workflows.workflows import WorkflowCall, WorkflowSettings
from participant_sdk.ids import Xid
from participant_sdk.operations import OperationLike, Parameter
from tests.engine.recovering import LEFT, OPENING, RIGHT, World

WITHIN_S: Final = 20.0


class Nothing(Parameters):
    """No parameters."""


class Sum(Parameters):
    """How much."""

    amount: str = "10"


def debit(participant: str, account: str, amount: str) -> OperationLike:
    return (participant, "debit", {"account": account, "amount": amount})


def credit(participant: str, account: str, amount: str) -> OperationLike:
    return (participant, "credit", {"account": account, "amount": amount})


def fail(participant: str) -> OperationLike:
    return (participant, "fail", {})


def read(participant: str, account: str) -> OperationLike:
    return (participant, "read", {"account": account})


async def three_steps(wf: Workflow, amount: str, *, last: OperationLike | None = None, pivot: str = "") -> None:
    """Take from the left, give to the right, and something last."""
    await wf.step("take", [debit(LEFT, "a", amount)], compensate=[credit(LEFT, "a", amount)], pivot=pivot == "take")
    await wf.step("give", [credit(RIGHT, "a", amount)], compensate=[debit(RIGHT, "a", amount)], pivot=pivot == "give")
    await wf.step("last", [last or credit(RIGHT, "b", "1")], compensate=[debit(RIGHT, "b", "1")])


@workflow("moves", version="1", parameters=Sum)
async def moves(wf: Workflow, given: Sum) -> Parameter:
    await three_steps(wf, given.amount)
    return {"moved": Decimal(given.amount)}


@workflow("refused", version="1", parameters=Sum)
async def refused(wf: Workflow, given: Sum) -> Parameter:
    await three_steps(wf, given.amount, last=fail(RIGHT))
    return None


@workflow("past_pivot", version="1", parameters=Sum)
async def past_pivot(wf: Workflow, given: Sum) -> Parameter:
    await three_steps(wf, given.amount, last=debit(RIGHT, "c", str(OPENING + 1)), pivot="give")
    return "through"


DEFINITIONS: Final = (moves, refused, past_pivot)


def settings(
    *definitions: Definition, timeout_s: float = 60.0, retry_first_s: float = RETRY_FIRST_S
) -> WorkflowSettings:
    """These workflows, and those above."""
    return WorkflowSettings({each.kind: each for each in (*DEFINITIONS, *definitions)}, timeout_s, retry_first_s)


def defined(
    function: Callable[[Workflow, Nothing], Awaitable[Parameter]], *, kind: str = "tried", version: str = "1"
) -> Definition:
    """A workflow of this function."""
    return workflow(kind, version=version, parameters=Nothing)(function)


async def begun(
    node: Assembly, kind: str = "tried", parameters: str = "{}", *, timeout_s: float = 60.0, request_id: str = ""
) -> Xid:
    stored = await node.workflows.begin(WorkflowCall(kind, parameters, timeout_s, request_id))
    return stored.record.workflow_id


async def ended(node: Assembly, workflow_id: Xid) -> StoredWorkflow:
    """The workflow, once it is finished or stuck."""
    async with asyncio.timeout(WITHIN_S):
        return await node.workflows.wait(workflow_id)


async def run(
    node: Assembly, kind: str = "tried", parameters: str = "{}", *, timeout_s: float = 60.0
) -> StoredWorkflow:
    return await ended(node, await begun(node, kind, parameters, timeout_s=timeout_s))


def phases(stored: StoredWorkflow) -> dict[str, StepPhase]:
    return {step.name: step.phase for step in stored.steps}


def balance(around: World, participant: str, account: str) -> Decimal:
    """How much an account has gained since it was opened; nothing may be held of it."""
    kept = around.stores[participant].durable.accounts[account]
    assert kept.held == 0, f"{participant} holds {kept.held} of {account}"
    return kept.balance - OPENING


def moved(around: World) -> tuple[Decimal, Decimal, Decimal]:
    """What ``three_steps`` moves: left's a, right's a, right's b."""
    return balance(around, LEFT, "a"), balance(around, RIGHT, "a"), balance(around, RIGHT, "b")
