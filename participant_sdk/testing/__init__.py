"""What tests of a service need: the conformance kit, scenarios, and a whole system in a process of its own.

``participant_sdk.testing.fixtures`` is the pytest plugin over it; see docs/testing-your-service.md.
"""

from participant_sdk.conformance import Exercise, Means, Report, WorkOrder, read_exercise, run
from participant_sdk.scenarios import ScenarioResult, ScenarioStatus, TestScenario
from participant_sdk.testing.system import StartError, System, running_system

__all__ = [
    "Exercise",
    "Means",
    "Report",
    "ScenarioResult",
    "ScenarioStatus",
    "StartError",
    "System",
    "TestScenario",
    "WorkOrder",
    "read_exercise",
    "run",
    "running_system",
]
