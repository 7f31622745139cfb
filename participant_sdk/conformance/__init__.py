"""The kit that every participant, in any language, must pass.

    report = await run("127.0.0.1:50061", read_exercise(text))

Or from a shell: ``python -m participant_sdk.conformance 127.0.0.1:50061 exercise.json``.
"""

from participant_sdk.conformance.exercise import Exercise, InvalidExerciseError, read_exercise
from participant_sdk.conformance.kit import run
from participant_sdk.conformance.report import Finding, Report

__all__ = ["Exercise", "Finding", "InvalidExerciseError", "Report", "read_exercise", "run"]
