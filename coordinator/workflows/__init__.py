"""Workflows: functions whose steps are transactions. What authors of workflows import is here."""

from coordinator.workflows.context import Workflow
from coordinator.workflows.definitions import Definition, workflow
from coordinator.workflows.results import StepRefused, StepResult, WorkflowFailed, result_of
from participant_sdk.parameters import Amount, Note, Parameters, UserId

__all__ = [
    "Amount",
    "Definition",
    "Note",
    "Parameters",
    "StepRefused",
    "StepResult",
    "UserId",
    "Workflow",
    "WorkflowFailed",
    "result_of",
    "workflow",
]
