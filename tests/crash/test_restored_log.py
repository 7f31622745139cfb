"""R15: the log goes back in time under load; it is noticed, held, and released as the runbook says."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from coordinator.embedded import EmbeddedPostgres
from participant_sdk.client_results import Committed
from tests.crash.checks import read
from tests.crash.load import Intent, Load
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster
from tests.crash.restoring import RestorableLog
from tests.crash.trials import WITHIN_S, Findings, go_on, supervised, trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

CLIENTS: Final = 8
REASON: Final = ("--reason", "every participant answered")
LOST: Final = "the log lost its tail"
_BIND: Final = (
    "INSERT INTO txlog.decisions (xid, incarnation, sequence, decision, tenant, request_id, reason)"
    " SELECT gen_random_uuid(), incarnation, 0, 2, 'default', %s, 'INSUFFICIENT_FUNDS' FROM txlog.incarnations"
    " ORDER BY incarnation LIMIT 1 RETURNING xid::text"
)
_numbers: Final = itertools.count(1)

Told = Mapping[str, Any]  # pyright: ignore[reportExplicitAny]  What a command prints, as JSON.


@pytest.fixture(scope="module")
def log(server_folder: Path) -> Iterator[RestorableLog]:
    """The log's own server."""
    folder = server_folder / "restored"
    folder.mkdir(mode=0o711)
    server = RestorableLog(folder)
    yield server
    server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(
    log: RestorableLog, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Cluster]:
    """Two coordinators, two sidecars and the bank, with money in the till."""
    names: list[str] = []

    async def database(name: str) -> str:
        if name == "txlog":
            return await asyncio.to_thread(log.create_database, name)
        names.append(f"restored_{name}")
        return await asyncio.to_thread(postgres.create_database, names[-1])

    async with cluster(tmp_path_factory.mktemp("cluster"), database, coordinators=2, bank=True) as running:
        await fill_till(running)
        yield running
    for name in names:
        await asyncio.to_thread(postgres.drop_database, name)


@asynccontextmanager
async def drill(up: Cluster) -> AsyncGenerator[Load]:
    """Load for the time of the block, which sees to the coordinators; nothing is wrong at its end."""
    findings = Findings()
    number = next(_numbers)
    async with trial(up, findings, f"restored{number}", number, clients=CLIENTS) as load:
        yield load
    assert findings.intents > 0
    assert not findings.complaints, "\n".join(findings.complaints)


async def test_a_snapshot_is_put_back_and_nobody_says_so(up: Cluster, log: RestorableLog) -> None:
    """Coordinators that live through it find out by themselves; a participant that is missing keeps HOLD."""
    async with drill(up) as load, supervised(up):
        copy = await asyncio.to_thread(log.back_up)
        await go_on(load)
        told = committed(load)
        await asyncio.to_thread(log.put_back, copy)
        await asyncio.to_thread(log.start)
        assert LOST in await held(up)
        up.proxies["trading"].cut(refuse=True)
        code, refused = await pincex(up, "recovery", "release", *REASON, "--yes")
        assert (code, "trading: " in refused["error"]) == (2, True), refused
        up.proxies["trading"].restore()
        await until_reachable(up, "trading")
        assert "pincex_participants_ahead_total{" in await metrics(up)
        await release(up, load, told)


async def test_a_restore_is_announced_before_any_coordinator_comes_to_it(up: Cluster, log: RestorableLog) -> None:
    """HOLD by SQL, on the restored copy itself: it is the first thing that anybody reads there."""
    why = "restored from the copy of this morning"
    async with drill(up) as load, supervised(up):
        copy = await asyncio.to_thread(log.back_up)
        await go_on(load)
        told = committed(load)
        await asyncio.to_thread(log.put_back, copy)
        await asyncio.to_thread(log.hold_before_anybody_comes, "txlog", why)
        await asyncio.to_thread(log.start)
        assert await held(up) == why
        await release(up, load, told)


async def test_a_point_in_time_recovery_begins_a_timeline_without_the_tail(up: Cluster, log: RestorableLog) -> None:
    """The old timeline's incarnations end, and what is missing on the new one is noticed by the watermarks."""
    async with drill(up) as load, supervised(up):
        ((before,),) = await read(up.dsns["txlog"], "select txlog.current_timeline()")
        copy = await asyncio.to_thread(log.back_up)
        await go_on(load)
        told = committed(load)
        await asyncio.to_thread(log.put_back, copy, at_point_in_time=True)
        await asyncio.to_thread(log.start)
        assert LOST in await held(up)
        assert await read(up.dsns["txlog"], "select txlog.current_timeline() > %s", before) == [(True,)]
        await release(up, load, told)


async def test_a_dump_is_restored_on_a_fresh_server(up: Cluster, log: RestorableLog) -> None:
    """Another server, whose timeline is the first again; the coordinators know it by the same address."""
    async with drill(up) as load, supervised(up):
        dump = await asyncio.to_thread(log.dump, "txlog")
        await go_on(load)
        told = committed(load)
        await asyncio.to_thread(log.move, dump, "txlog")
        await asyncio.to_thread(log.start)
        assert LOST in await held(up)
        await release(up, load, told)


async def test_coordinators_that_were_stopped_meanwhile_notice_when_they_start(up: Cluster, log: RestorableLog) -> None:
    """Nobody remembers what was written: only participants' watermarks show it."""
    async with drill(up) as load:
        async with supervised(up):
            copy = await asyncio.to_thread(log.back_up)
            await go_on(load)
        told = committed(load)
        await stop_coordinators(up)
        await asyncio.to_thread(log.put_back, copy)
        await asyncio.to_thread(log.start)
        async with supervised(up):
            assert LOST in await held(up)
            await release(up, load, told)


async def test_a_copy_from_before_the_last_hold_is_put_back(up: Cluster, log: RestorableLog) -> None:
    """Participants hold an epoch that the copy has forgotten, and hear nobody who speaks for an older one."""
    async with drill(up) as load:
        async with supervised(up):
            copy = await asyncio.to_thread(log.back_up)
            code, begun = await pincex(up, "recovery", "hold", "--reason", "a drill", "--yes")
            assert (code, begun["held"]) == (0, True), begun
            assert await held(up) == "a drill"
            code, done = await pincex(up, "recovery", "release", *REASON, "--yes")
            assert (code, done["commits_restored"]) == (0, 0), done
            await go_on(load)
        told = committed(load)
        await stop_coordinators(up)
        await asyncio.to_thread(log.put_back, copy)
        await asyncio.to_thread(log.start)
        async with supervised(up):
            assert "has adopted epoch" in await held(up)
            await release(up, load, told)


async def test_a_request_that_was_bound_again_is_unbound_by_hand(up: Cluster, log: RestorableLog) -> None:
    """Somebody wrote to the restored log before it was held: the release says so, and the operator decides."""
    async with drill(up) as load, supervised(up):
        copy = await asyncio.to_thread(log.back_up)
        await go_on(load)
        told = committed(load)
        await asyncio.to_thread(log.put_back, copy)
        await asyncio.to_thread(log.hold_before_anybody_comes, "txlog", "a copy that somebody wrote to")
        await asyncio.to_thread(log.start)
        await held(up)
        _, preview = await pincex(up, "recovery", "release", *REASON, "--preview")
        request = next(each["request_id"] for each in preview["commits"] if each["request_id"])
        ((bound,),) = await read(up.dsns["txlog"], _BIND, request)
        code, refused = await pincex(up, "recovery", "release", *REASON, "--preview")
        assert code == 2
        assert f"{request!r}, which is bound to transaction {bound}" in refused["error"]
        by_hand = f"SELECT txlog.unbind('{bound}', 'it was rolled back, and did nothing')"
        assert await asyncio.to_thread(log.ask, "txlog", by_hand) == request
        await release(up, load, told)


async def stop_coordinators(up: Cluster) -> None:
    """Have every coordinator end in good order."""
    for each in up.coordinators:
        each.process.send(signal.SIGTERM)
    for each in up.coordinators:
        await each.process.ended(WITHIN_S)


def committed(load: Load) -> list[Intent]:
    """All that were told COMMITTED so far."""
    return [intent for intent in load.intents if isinstance(intent.ending, Committed)]


async def held(up: Cluster) -> str:
    """Wait until the first coordinator was started again and is in HOLD; why it is, as the command tells."""

    async def is_held() -> bool:
        try:
            answer = await up.client.get(_url(up, "recovery/status"))
        except httpx.TransportError:
            return False
        if not answer.is_success:
            return False
        status = answer.json()
        return status["held"] and any(each["self"] for each in status["coordinators"])

    await up.until(is_held)
    code, status = await pincex(up, "recovery", "status")
    assert (code, status["held"]) == (0, True)
    return status["held_reason"]


async def until_reachable(up: Cluster, participant: str) -> None:
    """Wait until the first coordinator has a session with this participant."""

    async def is_up() -> bool:
        status = (await up.client.get(_url(up, "recovery/status"))).json()
        return all(each["status"] == "UP" for each in status["participants"] if each["participant"] == participant)

    await up.until(is_up)


async def release(up: Cluster, load: Load, told: Sequence[Intent]) -> None:
    """Look, release, and go on; whoever was told COMMITTED before is told the same again."""
    code, preview = await pincex(up, "recovery", "release", *REASON, "--preview")
    assert (code, preview["released"]) == (0, False), preview
    assert preview["commits_restored"] > 0
    code, done = await pincex(up, "recovery", "release", *REASON, "--yes")
    assert (code, done["released"]) == (0, True), done
    assert done["commits_restored"] == preview["commits_restored"]
    await go_on(load)
    asked = [asyncio.create_task(ask_again(up, intent)) for intent in told]
    assert [each for each in await asyncio.gather(*asked) if each] == []


async def ask_again(up: Cluster, intent: Intent) -> str:
    """Send it once more; what is wrong with the answer, nothing if it is the one given before."""
    assert isinstance(intent.ending, Committed)
    operations = [(each.service, each.name, json.loads(each.parameters)) for each in intent.operations]
    last = ""

    async def is_told() -> bool:
        nonlocal last
        answer = await up.execute(*operations, request_id=intent.request_id)
        last = answer.text
        # A coordinator looks once a second whether HOLD is over.
        return answer.is_success

    await up.until(is_told, WITHIN_S)
    result = json.loads(last)
    same = (result["state"], result["transaction_id"]) == ("COMMITTED", str(intent.ending.xid))
    return "" if same else f"{intent.request_id} was told {intent.ending.xid}, and now {last}"


async def pincex(up: Cluster, *arguments: str) -> tuple[int, Told]:
    """Run the command as an operator does; its exit code, and what it printed."""
    address = ("--json", "--coordinator", up.coordinators[0].grpc)
    command = (sys.executable, "-m", "coordinator.cli", *arguments, *address)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(WITHIN_S):
        printed, _ = await process.communicate()
    return process.returncode or 0, json.loads(printed)


async def metrics(up: Cluster) -> str:
    """The first coordinator's."""
    return (await up.client.get(f"http://{up.coordinators[0].http}/metrics")).text


def _url(up: Cluster, path: str) -> str:
    return f"http://{up.coordinators[0].http}/api/v1/transactions/{path}"
