"""``pincex recovery`` and the operator's hand on one transaction, against a coordinator's own door."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, TypeAlias

from pincex.tx.v1 import transaction_pb2
from typer.testing import CliRunner, Result

from coordinator.cli import make_app
from tests.api.doors import NOWHERE, Doors, doors, operation, transfer
from tests.api.stuck import XID_UNKNOWN, forgotten, owed, prepared, until_finished
from tests.sdk.small_system import LEFT, LOG_ID, OPENING, RIGHT

Json: TypeAlias = "dict[str, Any]"  # pyright: ignore[reportExplicitAny]  Whatever a command prints.

BELOW: Final = "/api/v1/transactions"
ATTENTION_AFTER: Final = 3
RESOLVE: Final = ("--participant", LEFT, "--outcome", "commit", "--reason", "the bank said so")


async def run(opened: Doors, *arguments: str, text: str = "") -> Result:
    """Run a command: in a thread of its own, since it has a loop of its own."""
    command = [*arguments, "--coordinator", f"127.0.0.1:{opened.grpc_port}"]
    return await asyncio.to_thread(CliRunner().invoke, make_app(), command, input=text)


async def told(opened: Doors, *arguments: str) -> Json:
    """What a command prints in JSON, once it is done."""
    result = await run(opened, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return printed(result)


def printed(result: Result) -> Json:
    """What a command prints in JSON: the last line, since this process' own log goes to the same place."""
    read: Json = json.loads(result.stdout.splitlines()[-1])
    return read


async def get(opened: Doors, path: str) -> Json:
    answer: Json = (await opened.http.get(f"{BELOW}/{path}")).json()
    return answer


async def test_json_is_what_http_says(open_doors: Doors) -> None:
    """One spelling, whichever door an operator's script comes through."""
    xid = await owed(open_doors)
    await forgotten(open_doors)
    ran = await told(open_doors, "recovery", "trigger")
    status, by_http = await told(open_doors, "recovery", "status"), await get(open_doors, "recovery/status")
    assert by_http["last_pass"] == ran
    for each in (status, by_http):
        # What goes on between the two looks.
        assert max(stuck.pop("attempts") for stuck in each["needs_attention"]) >= ATTENTION_AFTER
        assert each["coordinators"][0].pop("lease_left_ms") > 0
        assert max(participant.pop("oldest_in_doubt_ms") for participant in each["participants"]) > 0
    assert status == by_http
    in_doubt = await told(open_doors, "recovery", "in-doubt", "--participant", LEFT)
    assert in_doubt == await get(open_doors, f"recovery/in-doubt?participant={LEFT}")
    assert await told(open_doors, "tx", "retry", xid) == {"transaction_id": xid, "phase": "COMMITTING"}


async def test_a_preview_in_json_is_what_http_says(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    shown = await told(open_doors, "tx", "resolve", xid, *RESOLVE, "--preview")
    body = {"participant": LEFT, "outcome": "commit", "reason": "the bank said so", "preview": True}
    assert shown == (await open_doors.http.post(f"{BELOW}/{xid}/resolve", json=body)).json()
    forced = await told(open_doors, "tx", "resolve", xid, *RESOLVE, "--yes")
    again = (await open_doors.http.post(f"{BELOW}/{xid}/resolve", json={**body, "preview": False})).json()
    assert forced == again
    forgot = await told(open_doors, "tx", "forget", xid, "--reason", "booked by hand", "--yes")
    again = (await open_doors.http.post(f"{BELOW}/{xid}/forget", json={"reason": "again"})).json()
    assert forgot == again


async def test_status_shows_what_is_stuck_and_what_to_do(open_doors: Doors) -> None:
    result = await run(open_doors, "recovery", "status")
    assert result.exit_code == 0
    assert "Nothing needs attention." in result.stdout
    xid = await owed(open_doors)
    result = await run(open_doors, "recovery", "trigger")
    assert "global, began " in result.stdout
    result = await run(open_doors, "recovery", "status")
    assert all(each in result.stdout for each in (LEFT, RIGHT, xid, f"pincex tx retry {xid}", "last pass: global"))


async def test_trigger_takes_one_thing_to_look_at(open_doors: Doors) -> None:
    xid = await owed(open_doors)
    open_doors.around.taps[RIGHT].open()
    for option, kind in (
        (("--transaction", xid), "transaction"),
        (("--participant", RIGHT), "participant"),
        (("--orphans",), "orphans"),
    ):
        assert (await told(open_doors, "recovery", "trigger", *option))["recovery_type"] == kind
    await until_finished(open_doors, xid)
    both = await run(open_doors, "recovery", "trigger", "--orphans", "--participant", LEFT, "--json")
    assert (both.exit_code, "one of" in printed(both)["error"]) == (2, True)


async def test_in_doubt_lists_more_than_a_page(open_doors: Doors) -> None:
    xids = sorted([str(await forgotten(open_doors)) for _ in range(3)])
    found = await told(open_doors, "recovery", "in-doubt", "--limit", "2")
    assert [each["transaction_id"] for each in found["branches"]] == xids[:2]
    assert found["next_page_token"]
    result = await run(open_doors, "recovery", "in-doubt")
    assert all(xid in result.stdout for xid in xids)
    assert "FORGOTTEN" in result.stdout


async def test_in_doubt_says_whose_branches_are_missing() -> None:
    async with doors(absent="gone") as opened:
        result = await run(opened, "recovery", "in-doubt")
        assert result.exit_code == 0
        assert "gone could not be asked" in result.stderr


async def test_resolve_shows_asks_and_forces(open_doors: Doors) -> None:
    """What it will touch is shown before anybody is asked, and nothing is forced without a yes."""
    xid = str(await forgotten(open_doors))
    for text in ("n\n", ""):
        result = await run(open_doors, "tx", "resolve", xid, *RESOLVE, text=text)
        assert result.exit_code == 2
        assert "PREPARED" in result.stdout
        assert "nothing was changed" in result.stderr
    unasked = await run(open_doors, "tx", "resolve", xid, *RESOLVE, "--json")
    assert (unasked.exit_code, "--yes" in printed(unasked)["error"]) == (2, True)
    assert open_doors.around.balance(LEFT, "a") == OPENING
    result = await run(open_doors, "tx", "resolve", xid, *RESOLVE, text="y\n")
    assert result.exit_code == 0
    assert "left answered HEURISTIC_COMMIT" in result.stdout
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5


async def test_forget_shows_asks_and_forgets(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    await told(open_doors, "tx", "resolve", xid, *RESOLVE, "--yes")
    reason = ("--reason", "booked by hand")
    refused = await run(open_doors, "tx", "forget", xid, *reason, text="n\n")
    assert refused.exit_code == 2
    assert "HEURISTIC" in refused.stdout
    result = await run(open_doors, "tx", "forget", xid, *reason, text="y\n")
    assert (result.exit_code, f"{xid}: forgotten at {LEFT}" in result.stdout) == (0, True)


async def test_rollback_undoes_what_is_open_and_says_so_otherwise(open_doors: Doors) -> None:
    begun = (await open_doors.stub.Begin(transaction_pb2.BeginRequest())).xid
    await open_doors.stub.Enlist(transaction_pb2.EnlistRequest(xid=begun, participant=LEFT, operations=[operation()]))
    undone = await told(open_doors, "tx", "rollback", begun, "--reason", "by hand")
    assert (undone["state"], "by hand" in undone["message"]) == ("ROLLED_BACK", True)
    done = (await open_doors.stub.Execute(transfer())).result.xid
    result = await run(open_doors, "tx", "rollback", done, "--json")
    assert (result.exit_code, printed(result)["state"]) == (2, "COMMITTED")


async def test_hold_shows_whom_it_ends_and_asks() -> None:
    async with doors() as opened:
        reason = ("--reason", "restored from a backup")
        await told(opened, "recovery", "trigger")
        refused = await run(opened, "recovery", "hold", *reason, text="n\n")
        assert (refused.exit_code, opened.around.log.tables.held) == (2, "")
        assert f"incarnation {opened.assembly.engine.incarnation.number}" in refused.stdout
        result = await run(opened, "recovery", "hold", *reason, text="y\n")
        assert result.exit_code == 0
        assert "pincex recovery release" in result.stdout
        assert opened.around.log.tables.held == "restored from a backup"
        async with asyncio.timeout(10):
            await opened.ended.wait()


async def test_release_shows_its_plan_and_asks() -> None:
    async with doors(held="restored") as opened:
        await prepared(opened)
        await told(opened, "recovery", "trigger")
        status = await run(opened, "recovery", "status")
        assert "HOLD" in status.stdout
        assert "restored" in status.stdout
        reason = ("--reason", "everybody was polled")
        for arguments, text, code in (((*reason, "--preview"), "", 0), (reason, "n\n", 2)):
            result = await run(opened, "recovery", "release", *arguments, text=text)
            assert result.exit_code == code
            assert "1 branches in doubt would be presumed rolled back" in result.stdout
            assert opened.around.log.tables.held
        result = await run(opened, "recovery", "release", *reason, text="y\n")
        assert result.exit_code == 0
        assert "HOLD is released." in result.stdout
        assert not opened.around.log.tables.held
        refused = await run(opened, "recovery", "release", *reason, "--yes", "--json")
        assert (refused.exit_code, printed(refused)["code"]) == (2, "NOT_HELD")


async def test_refusals_have_their_exit_codes(open_doors: Doors) -> None:
    """2 for what the coordinator refuses, 4 where it cannot; the reason is in the JSON."""
    finished = (await open_doors.stub.Execute(transfer())).result.xid
    for arguments, code, reason in (
        (("tx", "resolve", finished, *RESOLVE, "--yes"), 2, "ALREADY_FINISHED"),
        (("tx", "resolve", "nonsense", *RESOLVE, "--yes"), 2, "XID_MALFORMED"),
        (("tx", "forget", finished, "--reason", "r", "--yes"), 2, "NOT_HEURISTIC"),
        (("tx", "forget", finished, "--reason", " ", "--yes"), 2, "REQUIRED"),
        (("tx", "retry", XID_UNKNOWN), 2, "TRANSACTION_UNKNOWN"),
        (("recovery", "in-doubt", "--participant", "nobody"), 2, "SERVICE_UNKNOWN"),
    ):
        result = await run(open_doors, *arguments, "--json")
        assert (result.exit_code, printed(result)["code"]) == (code, reason), arguments
    open_doors.wire.is_cut = True
    for arguments in (("tx", "retry", XID_UNKNOWN), ("recovery", "hold", "--reason", "r", "--yes")):
        result = await run(open_doors, *arguments, "--json")
        assert (result.exit_code, printed(result)["code"]) == (4, "UNAVAILABLE"), arguments
    open_doors.wire.is_cut = False


def test_a_reason_has_to_be_given() -> None:
    """Before anything is sent."""
    for arguments in (
        ("tx", "resolve", XID_UNKNOWN, "--participant", LEFT, "--outcome", "commit"),
        ("tx", "forget", XID_UNKNOWN),
        ("recovery", "hold"),
        ("recovery", "release"),
    ):
        result = CliRunner().invoke(make_app(), arguments)
        assert (result.exit_code, "--reason" in result.stderr) == (2, True)
    word = ("tx", "resolve", XID_UNKNOWN, "--participant", LEFT, "--outcome", "both", "--reason", "r")
    assert CliRunner().invoke(make_app(), word).exit_code == 2


def test_nobody_to_be_reached_ends_with_4() -> None:
    for arguments in (("recovery", "status"), ("tx", "retry", XID_UNKNOWN)):
        result = CliRunner().invoke(make_app(), [*arguments, "--address", NOWHERE])
        assert result.exit_code == 4
        assert "nothing was sent" in result.stderr


async def test_the_next_coordinator_is_asked_where_one_is_gone(open_doors: Doors) -> None:
    command = ["recovery", "status", "--json", "--address", f"{NOWHERE},127.0.0.1:{open_doors.grpc_port}"]
    result = await asyncio.to_thread(CliRunner().invoke, make_app(), command)
    assert result.exit_code == 0


async def test_the_next_coordinator_is_asked_where_one_cannot_do_it(open_doors: Doors) -> None:
    """Without its log one knows nothing, and another one does."""
    xid = (await open_doors.stub.Execute(transfer())).result.xid
    async with doors() as without:
        without.wire.is_cut = True
        both = f"127.0.0.1:{without.grpc_port},127.0.0.1:{open_doors.grpc_port}"
        command = ["tx", "retry", xid, "--json", "--address", both]
        result = await asyncio.to_thread(CliRunner().invoke, make_app(), command)
        assert (result.exit_code, printed(result)["phase"]) == (0, "COMMITTED")
        without.wire.is_cut = False


async def at_participant(opened: Doors, xid: str, *more: str, coordinator: str = NOWHERE, text: str = "") -> Result:
    """Resolve a branch at its participant."""
    at = ("--at", opened.around.addresses[LEFT], "--coordinator", coordinator)
    command = ["tx", "resolve", xid, *RESOLVE, *at, *more]
    return await asyncio.to_thread(CliRunner().invoke, make_app(), command, input=text)


async def test_without_a_coordinator_a_branch_is_forced_at_its_participant(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    needed = await at_participant(open_doors, xid)
    assert (needed.exit_code, "--log-id" in needed.stderr) == (2, True)
    log = ("--log-id", LOG_ID)
    shown = await at_participant(open_doors, xid, *log, "--preview", "--json")
    assert printed(shown)["branch"]["phase"] == "PREPARED"
    unsure = await at_participant(open_doors, xid, *log, text="n\n")
    assert (unsure.exit_code, open_doors.around.balance(LEFT, "a")) == (2, OPENING)
    forced = await at_participant(open_doors, xid, *log, "--yes", "--json")
    assert printed(forced)["acknowledgement"] == "HEURISTIC_COMMIT"
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5
    # The next sweep tells the log of it (R12).
    await told(open_doors, "recovery", "trigger")
    (kept,) = open_doors.around.log.tables.heuristics.values()
    assert (str(kept.xid), kept.participant, kept.message) == (xid, LEFT, "the bank said so")


async def test_at_a_participant_nothing_is_guessed(open_doors: Doors) -> None:
    """Not of another log's branch, nor of one that is not there, nor where nobody answers."""
    xid = str(await forgotten(open_doors))
    for arguments, code, message in (
        (("--log-id", "0123456789abcdef"), 2, "knows no branch"),
        (("--log-id", "x"), 2, "not a log id"),
        (("--log-id", LOG_ID, "--at", NOWHERE), 4, "nothing was changed"),
    ):
        result = await at_participant(open_doors, xid, *arguments, "--yes")
        assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert open_doors.around.balance(LEFT, "a") == OPENING


async def test_at_a_participant_a_coordinator_goes_before(open_doors: Doors) -> None:
    """One that answers knows more: a decision that is known is never overruled (R12)."""
    coordinator = f"127.0.0.1:{open_doors.grpc_port}"
    log = ("--log-id", LOG_ID, "--yes")
    decided, unknown = str(await prepared(open_doors)), str(await forgotten(open_doors))
    open_doors.around.log.tables.pruned_below_unix_ms = 0
    result = await at_participant(open_doors, decided, *log, coordinator=coordinator)
    assert (result.exit_code, "the decision is known, ROLLBACK" in result.stderr) == (2, True)
    open_doors.around.log.tables.pruned_below_unix_ms = 2**47
    result = await at_participant(open_doors, unknown, *log, coordinator=coordinator)
    assert (result.exit_code, "without --at" in result.stderr) == (2, True)
    # Without its log it knows nothing either.
    open_doors.wire.is_cut = True
    result = await at_participant(open_doors, unknown, *log, coordinator=coordinator)
    assert result.exit_code == 0
    open_doors.wire.is_cut = False
