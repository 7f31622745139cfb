"""A participant that is introduced to again, because the coordinators or the horizon changed, did not come up."""

from __future__ import annotations

from structlog.testing import capture_logs

from tests.api.doors import doors, transfer
from tests.sdk.small_system import LEFT, RIGHT


async def test_coming_up_is_told_once_for_each_session() -> None:
    with capture_logs() as told:
        async with doors() as opened:
            for _ in range(5):
                for link in opened.assembly.links.values():
                    link.introduce()
                # Its frames follow the introduction's on the same session.
                await opened.stub.Execute(transfer())
    ups = [line["participant"] for line in told if line["event"] == "participant_up"]
    assert sorted(ups) == [LEFT, RIGHT]
