"""The epoch that a participant adopted outlives its process (R15)."""

from __future__ import annotations

from participant_sdk.hello import EPOCH_STALE, Introduction
from participant_sdk.known_logs import KnownLogs
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, memory


async def test_a_participant_that_restarted_still_refuses_an_older_epoch() -> None:
    resource = memory()
    await KnownLogs(resource, clock=CLOCK).greet(Introduction(LOG_ID, "new", EPOCH + 1, EPOCH + 1), CLOCK.unix_ms())
    restarted = KnownLogs(resource, clock=CLOCK)
    welcome = await restarted.greet(Introduction(LOG_ID, "old", EPOCH, EPOCH), CLOCK.unix_ms())
    assert (welcome.refusal, welcome.epoch) == (EPOCH_STALE, EPOCH + 1)
