"""A coordinator's process that stops leaves the log so that the next one has nothing to wait for."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.api.test_daemon import EXECUTE, coordinator, transfer
from tests.integration.log_observer import observing
from tests.sdk.small_system import LEFT, RIGHT, system


async def test_a_process_that_stops_resigns_with_all_that_is_finished(tmp_path: Path, database: str) -> None:
    """R14: nothing is driven again; R6: no lease has to expire first; R15: what was acknowledged is kept."""
    async with system() as around, coordinator(tmp_path, database, around) as running:
        await running.until_up()
        for _ in range(3):
            assert (await running.http.post(EXECUTE, json=transfer())).json()["state"] == "COMMITTED"
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
    async with observing(database) as observer:
        assert await observer.ask(b"SELECT fenced_by, last_sequence FROM txlog.incarnations") == [(0, 3)]
        assert await observer.ask(b"SELECT finished_through, cardinality(stragglers) FROM txlog.checkpoints") == [
            (3, 0)
        ]
        applied = await observer.ask(b"SELECT participant, sequence FROM txlog.applied ORDER BY participant")
        assert applied == [(LEFT, 3), (RIGHT, 3)]
