"""The conformance kit: drives any participant, in any language, through the rules that concern it.

It plays a coordinator of a decision log that exists nowhere else, so it disturbs no other; it
leaves what it committed, and nothing in doubt.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.clock import Clock, SystemClock
from participant_sdk.conformance import end_checks, vote_checks
from participant_sdk.conformance.bench import Bench
from participant_sdk.conformance.calls import Calls, SessionCalls, Speaker, UnaryCalls
from participant_sdk.conformance.exercise import Exercise
from participant_sdk.conformance.report import DeviationError, Finding, Report
from participant_sdk.ids import XidSource

if TYPE_CHECKING:
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

CHECK_TIMEOUT_S: Final = 60.0
UNARY: Final = "unary"
SESSION: Final = "session"


class Check(NamedTuple):
    """One check of one rule; its docstring says what must be."""

    rule: str
    run: Callable[[Bench], Awaitable[None]]
    only_over: str = ""
    needs_read: bool = False

    def applies(self, bench: Bench, over: str) -> bool:
        """Whether it can be run at all, over this way of calling and with this exercise."""
        can_read = bench.exercise.read is not None or bench.exercise.observe is not None
        return self.only_over in ("", over) and (can_read or not self.needs_read)

    @property
    def name(self) -> str:
        """The check's name as words."""
        return self.run.__name__.replace("_", " ")


# The epoch rises in the last one, so it comes last.
CHECKS: Final = (
    Check("R10", end_checks.clocks_apart_are_refused),
    Check("R8", vote_checks.a_yes_is_prepared_and_shown),
    Check("R3", vote_checks.a_no_is_rolled_back_with_its_reason),
    Check("R3", vote_checks.invalid_parameters_are_named),
    Check("R3", vote_checks.an_unknown_operation_is_a_no),
    Check("R17", vote_checks.malformed_parameters_are_a_no),
    Check("R8", vote_checks.a_duplicate_gets_the_stored_vote),
    Check("R13", vote_checks.a_read_votes_read_only, needs_read=True),
    Check("R10", vote_checks.a_late_prepare_meets_the_tombstone),
    Check("R10", vote_checks.an_old_xid_is_refused),
    Check("R16", vote_checks.no_time_left_is_no_yes),
    Check("R13", vote_checks.work_that_was_never_done_is_xaer_nota),
    Check("R13", vote_checks.no_work_at_all_is_a_no),
    Check("R3", vote_checks.another_live_branch_of_a_request_is_transient),
    Check("R17", vote_checks.one_bad_branch_fails_nothing_else),
    Check("R17", vote_checks.a_frame_may_carry_both_halves, only_over=SESSION),
    Check("R11", end_checks.commit_of_an_unknown_branch_is_a_hazard),
    Check("R9", end_checks.a_commit_takes_effect_once),
    Check("R9", end_checks.a_rollback_takes_no_effect),
    Check("R10", end_checks.calls_in_any_order_follow_the_table),
    Check("R18", end_checks.recovery_lists_what_is_in_doubt),
    Check("R15", end_checks.finished_branches_and_watermarks_tell_the_sequence),
    Check("R12", end_checks.an_operators_hand_is_kept_until_forgotten),
    Check("R12", end_checks.a_hand_needs_a_reason_and_a_branch),
    Check("R11", end_checks.an_unknown_branch_is_shown_as_unknown),
    Check("R15", end_checks.a_lower_epoch_is_refused),
)


async def run(address: str, exercise: Exercise, *, clock: Clock | None = None) -> Report:
    """Check the participant at ``address`` (host:port), by unary calls and, where it is served, by Session.

    Every deviation is a finding, and so is a call that fails or takes too long.
    """
    clock = clock or SystemClock()
    incarnation = clock.unix_ms() // 1000
    speaker = Speaker(secrets.token_hex(8), incarnation, incarnation)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: ResourceServiceAsyncStub = ResourceServiceStub(channel)
        bench = Bench(exercise, stub, UnaryCalls(stub, speaker), speaker, XidSource(incarnation), clock)
        findings = await _findings(bench, UNARY)
        try:
            served = (await stub.Hello(end_checks.greeting(bench))).session
        except grpc.aio.AioRpcError:
            # The unary checks have told of it.
            served = False
        if served:
            async with _session(bench) as calls:
                bench.calls = calls
                findings += await _findings(bench, SESSION)
    return Report(tuple(findings))


@asynccontextmanager
async def _session(bench: Bench) -> AsyncGenerator[Calls]:
    calls = SessionCalls(bench.stub.Session(), bench.speaker)
    await calls.greet(end_checks.greeting(bench))
    try:
        yield calls
    finally:
        await calls.close()


async def _findings(bench: Bench, over: str) -> list[Finding]:
    findings: list[Finding] = []
    for check in CHECKS:
        if not check.applies(bench, over):
            continue
        seen = await _seen(bench, check)
        findings.append(Finding(check.rule, check.name, over, not seen, seen))
    return findings


async def _seen(bench: Bench, check: Check) -> str:
    """Run one check; return what was wrong, or nothing."""
    bench.given_out.clear()
    seen = await _deviation(check.run(bench))
    if seen:
        await _deviation(bench.clean_up())
    return seen


async def _deviation(running: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await running
    except DeviationError as error:
        return str(error) or "a deviation"
    except TimeoutError:
        return f"no end within {CHECK_TIMEOUT_S:.0f} s"
    except grpc.aio.AioRpcError as error:
        return f"the call failed: {error.code().name} {error.details()}"
    return ""
