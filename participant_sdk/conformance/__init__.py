"""The kit that every participant, in any language, must pass.

    report = await run("127.0.0.1:50061", read_exercise(text))

Or from a shell: ``pincex conformance 127.0.0.1:50061 exercise.json``, or ``python -m participant_sdk.conformance``
where only the SDK is. See docs/conformance.md.
"""

from participant_sdk.conformance.bench import Means, WorkOrder
from participant_sdk.conformance.exercise import (
    Exercise,
    InvalidExerciseError,
    example,
    example_names,
    read_exercise,
)
from participant_sdk.conformance.kit import Progress, UnreachableError, name_of, run
from participant_sdk.conformance.report import Finding, Report, Verdict

__all__ = [
    "Exercise",
    "Finding",
    "InvalidExerciseError",
    "Means",
    "Progress",
    "Report",
    "UnreachableError",
    "Verdict",
    "WorkOrder",
    "example",
    "example_names",
    "name_of",
    "read_exercise",
    "run",
]
