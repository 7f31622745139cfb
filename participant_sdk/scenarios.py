"""Scenarios: operations that are run as one transaction, and how that is expected to end.

The classes are not pytest's to collect, whatever their names begin with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import InvalidRequestError, OutcomeUnknown
from participant_sdk.client_results import Committed, Ending
from participant_sdk.operations import OperationLike

SCENARIO_TIMEOUT_DEFAULT: Final = timedelta(seconds=30)


class ScenarioStatus(StrEnum):
    """How a scenario ended; each equals its word."""

    # Committed.
    SUCCESS = "success"
    # The business said no, and nothing happened.
    ROLLED_BACK = "rolled_back"
    # The request itself is wrong, and nothing happened.
    INVALID = "invalid"
    # It may have happened.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TestScenario:
    """What to run, and the status to expect; ``expected_reason``, where given, is the reason of the "no".

    ValueError for an expectation that is no status.
    """

    __test__: ClassVar[bool] = False

    name: str
    operations: Sequence[OperationLike]
    expected_result: str = ScenarioStatus.SUCCESS
    expected_reason: str = ""
    timeout: timedelta = SCENARIO_TIMEOUT_DEFAULT

    def __post_init__(self) -> None:
        if self.expected_result not in {status.value for status in ScenarioStatus}:
            words = ", ".join(ScenarioStatus)
            raise ValueError(f"{self.name}: expected_result is one of {words}, not {self.expected_result!r}")


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """How a scenario ended. ``reason`` and ``message`` are empty for a success, ``ending`` is None without one."""

    scenario: TestScenario
    status: ScenarioStatus
    reason: str
    message: str
    ending: Ending | None
    duration_s: float

    @property
    def as_expected(self) -> bool:
        """Whether it ended as the scenario expects."""
        reason = self.scenario.expected_reason
        return self.status == self.scenario.expected_result and reason in {"", self.reason}

    def __str__(self) -> str:
        wanted = " ".join(filter(None, (self.scenario.expected_result, self.scenario.expected_reason)))
        why = f": {self.reason}: {self.message}" if self.reason else ""
        return f"{self.scenario.name}: expected {wanted}, and was {self.status}{why}"


async def played(client: TransactionClient, scenario: TestScenario) -> ScenarioResult:
    """Run the scenario. ClientError for what says nothing of it, such as a coordinator that is not there."""
    began_s = time.monotonic()

    def result(status: ScenarioStatus, reason: str, message: str, ending: Ending | None = None) -> ScenarioResult:
        return ScenarioResult(scenario, status, reason, message, ending, time.monotonic() - began_s)

    try:
        ending = await client.execute(scenario.operations, timeout_s=scenario.timeout.total_seconds())
    except InvalidRequestError as error:
        return result(ScenarioStatus.INVALID, error.reason, str(error))
    except OutcomeUnknown as error:
        return result(ScenarioStatus.UNKNOWN, error.reason, error.message)
    if isinstance(ending, Committed):
        return result(ScenarioStatus.SUCCESS, "", "", ending)
    return result(ScenarioStatus.ROLLED_BACK, ending.reason, ending.message, ending)
