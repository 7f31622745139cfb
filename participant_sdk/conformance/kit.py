"""The conformance kit: drives any participant, in any language, through the rules that concern it.

It plays a coordinator of a decision log that exists nowhere else, so it disturbs no other; it
leaves what it committed, and nothing in doubt.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2

from participant_sdk.clock import Clock, SystemClock
from participant_sdk.conformance.asked import answering
from participant_sdk.conformance.bench import Bench, Means
from participant_sdk.conformance.calls import Speaker, UnaryCalls, greeting_of
from participant_sdk.conformance.catalogue import SESSION, UNARY, Check, checks
from participant_sdk.conformance.exercise import Exercise
from participant_sdk.conformance.line import Line, shown_status
from participant_sdk.conformance.report import DeviationError, Finding, Report, SkippedError, Verdict
from participant_sdk.conformance.words import Words
from participant_sdk.ids import InvalidIdentifierError, XidSource

CHECK_TIMEOUT_S: Final = 60.0
REACH_TIMEOUT_S: Final = 10.0


class UnreachableError(Exception):
    """Nothing answers at the address."""


class Progress:
    """Told of every finding as it is made, and of how many there will be. This one does nothing."""

    def began(self, count: int, check: str) -> None:
        """A check begins; ``count`` findings will be made in all."""

    def found(self, finding: Finding) -> None:
        """A check ended."""


async def run(
    address: str,
    exercise: Exercise,
    means: Means | None = None,
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the participant at ``address`` (host:port), by unary calls and, where it is served, by Session.

    Every deviation is a finding, and so is a call that fails or takes too long. UnreachableError where nothing
    answers at the address; OSError where ``means.host`` cannot be listened on.
    """
    clock, means, progress = clock or SystemClock(), means or Means(), progress or Progress()
    began_s = time.monotonic()
    incarnation = clock.unix_ms() // 1000
    speaker = Speaker(secrets.token_hex(8), incarnation, incarnation)
    async with AsyncExitStack() as stack:
        line = Line(address)
        stack.push_async_callback(line.close)
        await _reach(line, address)
        asked = await stack.enter_async_context(answering(speaker, means.host))
        words = Words()
        calls = UnaryCalls(line, speaker, words)
        bench = Bench(exercise, line, calls, speaker, asked, means, XidSource(incarnation), clock, words)
        findings = await _Run(bench, progress).findings()
    return Report(exercise.participant, address, tuple(findings), time.monotonic() - began_s)


async def name_of(address: str) -> str:
    """Ask the participant at an address for its name. UnreachableError."""
    unix_ms = SystemClock().unix_ms()
    line = Line(address)
    try:
        await _reach(line, address)
        # Refused or welcomed, by a log of its own, its name is told.
        speaker = Speaker(secrets.token_hex(8), unix_ms // 1000, unix_ms // 1000)
        return (await line.hello(greeting_of(speaker, (), unix_ms))).participant
    except grpc.aio.AioRpcError as error:
        raise UnreachableError(f"{address}: {shown_status(error)}") from error
    except DeviationError as error:
        raise UnreachableError(f"{address}: {error}") from error
    finally:
        await line.close()


class _Run:
    """One run: every check, over every way of calling that it is made by."""

    def __init__(self, bench: Bench, progress: Progress) -> None:
        self._bench = bench
        self._progress = progress
        self._checks = checks()
        self._findings: list[Finding] = []

    async def findings(self) -> list[Finding]:
        """Make all checks."""
        is_session_served = await self._set_up()
        await self._make_all(UNARY)
        if not is_session_served:
            for check in self._checks:
                if check.over == (SESSION,):
                    self._found(check, SESSION, Verdict.SKIPPED, "Session is not served, Hello says")
            return self._findings
        async with AsyncExitStack() as stack:
            try:
                self._bench.calls = await stack.enter_async_context(self._bench.session())
            except (DeviationError, grpc.aio.AioRpcError) as error:
                for check in self._checks:
                    if SESSION in check.over:
                        self._found(check, SESSION, Verdict.FAILED, f"no session could be opened: {error}")
            else:
                await self._make_all(SESSION)
        return self._findings

    async def _set_up(self) -> bool:
        """Introduce the kit and run the exercise's ``setup``; return whether Session is served."""
        try:
            welcome = await self._bench.line.hello(self._bench.greeting())
            for operation in self._bench.exercise.setup:
                xid = self._bench.an_xid()
                if (await self._bench.prepare(xid, operation)).kind == common_pb2.VOTE_KIND_PREPARED:
                    await self._bench.commit(xid)
        except (grpc.aio.AioRpcError, DeviationError):
            # The checks will tell of it.
            return False
        return welcome.session

    async def _make_all(self, over: str) -> None:
        for check in self._checks:
            if over in check.over:
                self._progress.began(self._count(), check.name)
                await self._make(check, over)

    async def _make(self, check: Check, over: str) -> None:
        bench = self._bench
        bench.given_out.clear()
        bench.line.exchange.clear()
        limit_s = CHECK_TIMEOUT_S + bench.means.asked_within_s
        try:
            seen = await _deviation(check.run(bench), limit_s)
        except SkippedError as reason:
            self._found(check, over, Verdict.SKIPPED, str(reason))
            return
        if not seen:
            self._found(check, over, Verdict.PASSED)
            return
        self._found(check, over, Verdict.FAILED, seen, bench.line.exchange.lines())
        await _deviation(bench.clean_up(), limit_s)

    def _found(
        self, check: Check, over: str, verdict: Verdict, seen: str = "", exchanged: tuple[str, ...] = ()
    ) -> None:
        finding = Finding(check.rule, check.name, over, verdict, check.wants, seen, exchanged)
        self._findings.append(finding)
        self._progress.found(finding)

    def _count(self) -> int:
        return sum(len(check.over) for check in self._checks)


async def _reach(line: Line, address: str) -> None:
    """Wait for the connection, and no longer than for its first failure."""
    channel = line.channel
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise UnreachableError(f"{address}: the connection was refused, or failed")
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError as error:
        raise UnreachableError(f"{address}: nothing answers within {REACH_TIMEOUT_S:.0f} s") from error


async def _deviation(running: Awaitable[None], limit_s: float) -> str:
    """Await a check; return what was wrong, or nothing. SkippedError passes."""
    try:
        async with asyncio.timeout(limit_s):
            await running
    except DeviationError as error:
        return str(error) or "a deviation"
    except TimeoutError:
        return f"no end within {limit_s:.0f} s"
    except grpc.aio.AioRpcError as error:
        return f"the call failed: {shown_status(error)}"
    except InvalidIdentifierError as error:
        return f"an answer with an identifier that is none: {error}"
    return ""
