"""A branch forced at the participant itself, for when no coordinator can be had (R12)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from coordinator.commands import recovery_outputs
from coordinator.commands.asking import addresses_of, fail_with
from coordinator.commands.exits import ExitCode, confirm, fail
from coordinator.commands.operator_calls import asked_in_turn
from participant_sdk.client_errors import ClientError, UnavailableError
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.ids import InvalidIdentifierError, Xid, check_log_id
from participant_sdk.resource_calls import CallFailedError, Resolved
from participant_sdk.xa import Decision


@dataclass(frozen=True, slots=True)
class Forcing:
    """A branch, and what to force it to. ``at`` is the participant's address, host:port."""

    at: str
    log_id: str
    transaction_id: str
    participant: str
    outcome: Decision
    reason: str


def force(forcing: Forcing, address: str, *, preview: bool, yes: bool, as_json: bool) -> None:
    """Show the branch, and force it once that is confirmed. Refused while a coordinator can say more."""
    try:
        xid = Xid.parse(forcing.transaction_id)
        check_log_id(forcing.log_id)
    except InvalidIdentifierError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)
    asyncio.run(_force(forcing, xid, address, preview=preview, yes=yes, as_json=as_json))


async def _force(forcing: Forcing, xid: Xid, address: str, *, preview: bool, yes: bool, as_json: bool) -> None:
    await _refuse_if_answered(address, xid, as_json=as_json)
    calls = GrpcResourceCalls(forcing.at, clock=SystemClock())
    try:
        shown = await calls.resolve(forcing.log_id, xid, forcing.outcome, forcing.reason, preview=True)
        _check_known(shown, forcing, as_json=as_json)
        if preview or not as_json:
            recovery_outputs.show_at_participant(shown, forcing.participant, as_json=as_json)
        if preview:
            return
        confirm(f"Force {forcing.outcome.name} on this branch at {forcing.at}?", yes=yes, as_json=as_json)
    except CallFailedError as error:
        fail(f"{error}; nothing was changed", ExitCode.UNAVAILABLE, as_json=as_json)
    else:
        await _finish(calls, forcing, xid, as_json=as_json)
    finally:
        await calls.close()


async def _finish(calls: GrpcResourceCalls, forcing: Forcing, xid: Xid, *, as_json: bool) -> None:
    try:
        forced = await calls.resolve(forcing.log_id, xid, forcing.outcome, forcing.reason, preview=False)
    except CallFailedError as error:
        fail(f"{error}; it may be forced: look again with --preview", ExitCode.OUTCOME_UNKNOWN, as_json=as_json)
    recovery_outputs.show_at_participant(forced, forcing.participant, as_json=as_json)


def _check_known(shown: Resolved, forcing: Forcing, *, as_json: bool) -> None:
    if shown.branch is None:
        fail(
            f"the participant at {forcing.at} knows no branch of {forcing.transaction_id} in log {forcing.log_id}; "
            "nothing was changed",
            ExitCode.BAD_REQUEST,
            as_json=as_json,
        )


async def _refuse_if_answered(address: str, xid: Xid, *, as_json: bool) -> None:
    """End the command if a coordinator answers for the transaction: then it is the one to ask."""
    try:
        known = await asked_in_turn(addresses_of(address), lambda calls: calls.decision(str(xid)))
    except (TimeoutError, UnavailableError):
        # Nobody there, or nobody who can read the log: what --at is for.
        return
    except ClientError as error:
        fail_with(error, as_json=as_json)
    if known is None:
        told = "a coordinator answers: resolve it there, without --at"
    else:
        told = f"the decision is known, {known.name}: `pincex tx retry {xid}` sends it again"
    fail(f"{told}; nothing was changed", ExitCode.BAD_REQUEST, as_json=as_json, transaction_id=str(xid))
