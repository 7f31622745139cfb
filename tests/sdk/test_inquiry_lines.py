"""What a participant in doubt logs while its own store is away: why, once at each look, and no traceback."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import psycopg
import pytest
from structlog.testing import capture_logs

from participant_sdk.branch import BranchPhase
from participant_sdk.known_logs import KnownLogs
from participant_sdk.resources.memory import MemoryResource, MemoryStore
from tests.sdk.test_inquiry import CLOCK, LOG_ID, NAME, ROLLBACK, Oracle, in_doubt, inquiring, until_phase


@pytest.mark.parametrize("error", [ConnectionError("no\ndatabase"), psycopg.OperationalError("no\ndatabase")])
async def test_a_store_that_is_away_is_a_line_without_a_traceback(error: Exception) -> None:
    """It comes again at each look, and says no more than why."""
    (line,) = await failure_lines(error)
    assert (line["log_level"], line["reason"]) == ("warning", "no database")
    assert "exc_info" not in line


async def test_what_nobody_foresaw_comes_with_its_traceback() -> None:
    (line,) = await failure_lines(ZeroDivisionError())
    assert line["log_level"] == "error"
    assert isinstance(line["exc_info"], ZeroDivisionError)


class Failing(MemoryResource):
    """Its code fails once."""

    failure: Exception | None = None

    async def log_ids(self) -> Sequence[str]:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return (LOG_ID,)


async def failure_lines(error: Exception) -> list[MutableMapping[str, object]]:
    """What is logged of one failure while a branch is brought to its end."""
    resource = Failing(NAME, MemoryStore({"a": 10, "b": 0}), CLOCK)
    resource.failure = error
    (one,) = await in_doubt(resource)
    oracle = Oracle({"c1": lambda _: ROLLBACK})
    with capture_logs() as told:
        async with inquiring(resource, KnownLogs(resource, clock=CLOCK), oracle, addresses=["c1"]):
            await until_phase(resource, one, BranchPhase.ROLLED_BACK)
    return [line for line in told if line["event"] == "inquiry_failed"]
