"""The coordinator's side of one participant: a session that is kept open, and what it carries.

Natural batching: while a frame is on its way everything else queues, and Prepares until something was answered
(``outbox``); the next frame carries all of it, up to ``batch_size`` of each kind. A session that is lost answers every
outstanding Prepare with a transient "no" (R2) and drops what was queued for phase two: the engine sends again what it
owes, on ``link_up`` and by its own timer. The same goes for what the circuit breaker lets not pass (``breaker``).

A participant that owes answers and is silent is asked for its welcome once more, which it gives
at once even while its workers are busy; without one the session is given up (``silence``).

Only asyncio's primitives, an injected clock and seeded jitter are used, so the simulator runs this very code.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn, Protocol

import structlog
from pincex.tx.v1 import resource_pb2

from participant_sdk.backoff import Backoff
from participant_sdk.breaker import COOL_DOWN_FIRST_S, Breaker, BreakerState
from participant_sdk.clock import Clock
from participant_sdk.conversation import converse
from participant_sdk.frames import (
    PREPARE_MAX_BYTES,
    BadFrameError,
    prepare_size_bytes,
    read_acks,
    read_votes,
    write_commits,
    write_prepares,
)
from participant_sdk.greetings import Greetings
from participant_sdk.hello import CLOCKS_APART, Introduction, Welcome, clocks_apart, holds_later_epoch
from participant_sdk.ids import Xid
from participant_sdk.outbox import Outbox
from participant_sdk.participant import Prepare
from participant_sdk.silence import SILENCE_S, Silence
from participant_sdk.transport import ClientStream, FrameTransport, StreamClosedError
from participant_sdk.trust import Trust
from participant_sdk.wire import REMAINING_MAX_MS, read_welcome, write_introduction
from participant_sdk.xa import Ack, Decision, Vote, XaCode, invalid, transient_no

BACKOFF_FIRST_S: Final = 0.05

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class LinkEvents(Protocol):
    """What a link tells the engine. All calls are made from the link's own tasks, never from within its methods."""

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> None:
        """Votes came, or are certain not to come (a transient "no").

        A transient "no" does not say that the branch is undone: Rollback is still owed to it, unless the vote
        is ``unsent`` and all of the branch's work was to come with that Prepare.
        Votes of forgotten transactions may come too, and the same vote twice.
        """
        ...

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        """Acknowledgements of Commit or Rollback came; of forgotten transactions too, and twice."""
        ...

    def link_up(self, participant: str, welcome: Welcome) -> None:
        """The participant has answered an introduction: what it is owed is to be sent again."""
        ...

    def link_down(self, participant: str, reason: str) -> None:
        """The session that was up is lost; votes outstanding were answered before this call."""
        ...

    def epoch_ahead(self, participant: str, epoch: int) -> None:
        """The participant holds a higher epoch than ours: we are fenced, or the log has forgotten it (R15)."""
        ...


class _RefusedError(Exception):
    """The participant refuses us, or is not who we expected. The message says why."""


class _SilentError(Exception):
    """The participant owes answers, and gives none to anything. The message says for how long."""


class Link:
    """One participant, seen from the coordinator. ``run`` must run for anything to happen.

    Cancelling ``run`` closes the session and tells the engine nothing more: its owner is leaving.
    """

    def __init__(
        self,
        name: str,
        transport: FrameTransport,
        introduction: Callable[[], Introduction],
        events: LinkEvents,
        *,
        clock: Clock,
        jitter: random.Random,
        batch_size: int = 512,
        connect_timeout_s: float = 5.0,
        backoff_cap_s: float = 5.0,
        breaker_enabled: bool = True,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.name = name
        self._transport = transport
        self._introduction = introduction
        self._events = events
        self._clock = clock
        self._batch_size = batch_size
        self._connect_timeout_s = connect_timeout_s
        self._backoff = Backoff(jitter, first_s=BACKOFF_FIRST_S, cap_s=backoff_cap_s)
        self._steady_after_s = backoff_cap_s
        cool_down = Backoff(jitter, first_s=COOL_DOWN_FIRST_S, cap_s=backoff_cap_s)
        self._trust = Trust(name, Breaker(clock, cool_down, enabled=breaker_enabled), self.introduce)
        self._silence_s = silence_s
        self._silence = Silence(clock, silence_s)
        self._outbox = Outbox()
        self._greetings = Greetings(clock)
        self._tell_next = False
        # Prepares, queued or sent, without a vote yet. A dictionary for its order.
        self._outstanding: dict[Xid, None] = {}
        self._unsent: list[tuple[Xid, Vote]] = []
        self._unsent_wake = asyncio.Event()
        self._epoch = 0
        self._is_up = False
        self._down_reason = "no session was opened yet"

    @property
    def is_up(self) -> bool:
        """A session is open and the participant has welcomed us."""
        return self._is_up

    @property
    def breaker_state(self) -> BreakerState:
        """How the participant is trusted with messages."""
        return self._trust.state

    @property
    def down_reason(self) -> str:
        """Why messages do not pass, or what was last wrong; empty when all is well."""
        return self._trust.reason if self._is_up else self._down_reason

    def prepare(self, branch: Prepare) -> None:
        """Queue a branch; its vote comes through ``events.voted``, a transient "no" while the link is down.

        ``branch.deadline_s`` is on this side's monotonic clock; what remains of it is computed
        when the frame leaves (R16). ``branch.log_id`` does not travel: the introduction told it.
        """
        if not self._is_up:
            self._vote_unsent(branch.xid, self._unreachable(self._down_reason))
        elif (size_bytes := prepare_size_bytes(branch)) > PREPARE_MAX_BYTES:
            message = f"the operations for {self.name} take more than {PREPARE_MAX_BYTES} bytes"
            self._vote_unsent(branch.xid, invalid("TOO_LARGE", message, "operations"))
        elif not self._trust.admits(branch.xid):
            self._vote_unsent(branch.xid, self._trust.no())
        elif self._outbox.prepare(branch, size_bytes):
            self._outstanding[branch.xid] = None
        else:
            self._vote_unsent(branch.xid, transient_no("PARTICIPANT_BUSY", f"too much is queued for {self.name}"))

    def commit(self, xid: Xid, incarnation: int, sequence: int) -> None:
        """Queue a Commit; dropped while the link is down or the breaker open. Queued twice, it is sent once."""
        if self._is_up and self._trust.admits(xid):
            self._outbox.commit(xid, incarnation, sequence)

    def rollback(self, xid: Xid) -> None:
        """Queue a Rollback; dropped as a Commit is. A Prepare of it that has not left never will."""
        if not self._is_up:
            return
        if self._outbox.take_back(xid):
            self._outstanding.pop(xid, None)
        if self._trust.admits(xid):
            self._outbox.rollback(xid)

    def introduce(self, *, is_told: bool = True) -> None:
        """Send the introduction again, because the log was reconnected to; the answer is a ``link_up`` (R15).

        Answers to earlier introductions are not told any more: they may report what was before. Where it is only
        that it says something new, the answer need not be told (``is_told``), and nothing is sent again for it.
        """
        if is_told or not self._is_up:
            self._greetings.outdate()
        if self._is_up:
            self._tell_next = self._tell_next or is_told
            self._outbox.introduce()

    async def run(self) -> None:
        """Keep a session open until cancelled. Never raises for anything the participant does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_unsent())
            group.create_task(self._trust.mind())
            while True:
                began_s = self._clock.monotonic_s()
                was_up, reason = await self._hold_session()
                was_steady = was_up and self._clock.monotonic_s() - began_s >= self._steady_after_s
                if was_steady:
                    self._backoff.reset()
                self._trust.ended(was_up=was_up, was_steady=was_steady, reason=reason)
                # An open breaker's cool-down goes on meanwhile, and is over when a session is open again.
                wait_s = self._backoff.next_s()
                _log.warning("participant_unreachable", participant=self.name, reason=reason, retry_in_s=wait_s)
                await asyncio.sleep(wait_s)

    async def _hold_session(self) -> tuple[bool, str]:
        """Open a session and keep it until it is lost; whether it was up, and why it is not any more."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                stream = await self._transport.connect()
        except (StreamClosedError, TimeoutError) as error:
            self._down_reason = str(error) or f"no connection within {self._connect_timeout_s} s"
            return False, self._down_reason
        try:
            return await self._converse(stream)
        finally:
            await stream.close()

    async def _converse(self, stream: ClientStream) -> tuple[bool, str]:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                welcome = await self._greet(stream)
        except (StreamClosedError, BadFrameError, _RefusedError, TimeoutError) as error:
            self._down_reason = str(error) or f"no answer to Hello within {self._connect_timeout_s} s"
            return False, self._down_reason
        self._open(welcome)
        try:
            error = await converse(
                (
                    partial(self._send_all, stream),
                    partial(self._receive_all, stream),
                    self._watch,
                    self._await_welcomes,
                ),
                StreamClosedError,
                BadFrameError,
                _RefusedError,
                _SilentError,
            )
        finally:
            self._is_up = False
            self._outbox.clear()
        self._lose(str(error))
        return True, str(error)

    async def _greet(self, stream: ClientStream) -> Welcome:
        self._greetings.begin()
        self._tell_next = True
        await stream.send(self._introduce(resource_pb2.SessionRequest()))
        frame = await stream.receive()
        if not frame.HasField("hello"):
            raise BadFrameError("the first frame is not an answer to Hello")
        return self._judge(frame.hello)

    def _introduce(self, frame: resource_pb2.SessionRequest) -> resource_pb2.SessionRequest:
        introduction = replace(self._introduction(), number=self._greetings.ask(is_told=self._tell_next))
        self._tell_next = False
        self._epoch = introduction.epoch
        frame.epoch = introduction.epoch
        frame.hello.CopyFrom(write_introduction(introduction, self._clock.unix_ms()))
        return frame

    def _judge(self, message: resource_pb2.HelloResponse) -> Welcome:
        welcome = read_welcome(message)
        if holds_later_epoch(welcome, self.name, self._epoch, self._clock.unix_ms()):
            self._events.epoch_ahead(self.name, welcome.epoch)
        if welcome.refusal:
            raise _RefusedError(f"refused: {welcome.refusal}")
        if welcome.participant != self.name:
            raise _RefusedError(f"the participant at this address is {welcome.participant[:64]!r}, not {self.name!r}")
        if clocks_apart(welcome.clock_unix_ms, self._clock.unix_ms()):
            raise _RefusedError(f"{CLOCKS_APART}: its clock is more than a minute from ours")
        if welcome.epoch != self._epoch:
            raise _RefusedError(f"it holds epoch {welcome.epoch}, we speak for {self._epoch}")
        return welcome

    def _open(self, welcome: Welcome) -> None:
        # Up before the engine hears of it: it sends from within link_up.
        self._is_up = True
        self._outbox.clear()
        self._silence.begin()
        self._trust.opened()
        if self._greetings.answered(welcome.number):
            self._events.link_up(self.name, welcome)
        else:
            # What it reports may be older than what it was last asked for.
            self.introduce()

    def _lose(self, reason: str) -> None:
        self._down_reason = reason
        vote = self._unreachable(reason)
        lost = [(xid, vote) for xid in self._outstanding]
        self._outstanding.clear()
        if lost:
            self._events.voted(self.name, lost)
        self._events.link_down(self.name, reason)

    async def _send_all(self, stream: ClientStream) -> NoReturn:
        while True:
            await self._outbox.wait()
            frame = self._next_frame()
            if frame is not None:
                await stream.send(frame)

    def _next_frame(self) -> resource_pb2.SessionRequest | None:
        """Make a frame of what is queued; None if nothing of it needs to leave any more."""
        batch = self._outbox.take(self._batch_size)
        frame = resource_pb2.SessionRequest(epoch=self._epoch)
        if batch.introduce:
            self._introduce(frame)
        prepares = self._in_time(batch.prepares)
        if prepares:
            write_prepares(frame, prepares)
        if batch.commits:
            write_commits(frame, batch.commits)
        if batch.rollbacks:
            frame.rollbacks.xids = b"".join(batch.rollbacks)
        if messages := len(prepares) + len(batch.commits) + len(batch.rollbacks):
            self._silence.sent(messages)
            self._outbox.left()
        return frame if batch.introduce or messages else None

    def _in_time(self, branches: Sequence[Prepare]) -> list[tuple[Prepare, int]]:
        """The branches with the milliseconds they have left; those with none are voted "no" here (R16)."""
        now_s = self._clock.monotonic_s()
        timed: list[tuple[Prepare, int]] = []
        for branch in branches:
            remaining_ms = math.ceil((branch.deadline_s - now_s) * 1000)
            if remaining_ms > 0:
                timed.append((branch, min(remaining_ms, REMAINING_MAX_MS)))
                continue
            self._outstanding.pop(branch.xid, None)
            message = f"the time ran out before the branch could be sent to {self.name}"
            self._vote_unsent(branch.xid, transient_no("TIMEOUT", message, xa_code=XaCode.RBTIMEOUT))
        return timed

    async def _receive_all(self, stream: ClientStream) -> NoReturn:
        while True:
            self._take(await stream.receive())

    def _take(self, frame: resource_pb2.SessionResponse) -> None:
        votes = read_votes(frame.votes)
        commit_acks, rollback_acks = read_acks(frame.commit_acks), read_acks(frame.rollback_acks)
        self._silence.heard(answers := len(votes) + len(commit_acks) + len(rollback_acks))
        if answers:
            self._outbox.answered()
        if frame.HasField("hello"):
            welcome = self._judge(frame.hello)
            if self._greetings.answered(welcome.number):
                self._events.link_up(self.name, welcome)
        if votes:
            settle = self._outstanding.pop
            for xid, _ in votes:
                settle(xid, None)
            self._events.voted(self.name, votes)
        if commit_acks:
            self._events.acknowledged(self.name, Decision.COMMIT, commit_acks)
        if rollback_acks:
            self._events.acknowledged(self.name, Decision.ROLLBACK, rollback_acks)
        self._trust.answered(votes, [*commit_acks, *rollback_acks])

    async def _watch(self) -> NoReturn:
        """Give the session up if the participant owes answers and does not even answer an introduction."""
        while True:
            await self._silence.suspected()
            self._outbox.introduce()
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._silence.broken()
            except TimeoutError as error:
                silent_s = self._silence_s + self._connect_timeout_s
                raise _SilentError(f"it owes answers, and nothing came for {silent_s:g} s") from error

    async def _await_welcomes(self) -> NoReturn:
        """Give the session up if an introduction is not answered: what the engine waits for would never come."""
        await self._greetings.overdue(self._connect_timeout_s)
        raise _SilentError(f"no answer to an introduction within {self._connect_timeout_s:g} s")

    def _unreachable(self, reason: str) -> Vote:
        return transient_no("PARTICIPANT_UNREACHABLE", f"{self.name} cannot be reached: {reason}")

    def _vote_unsent(self, xid: Xid, vote: Vote) -> None:
        self._unsent.append((xid, vote._replace(unsent=True)))
        self._unsent_wake.set()

    async def _tell_unsent(self) -> NoReturn:
        """Tell the votes of branches that never left, from a task: never from within ``prepare``."""
        while True:
            await self._unsent_wake.wait()
            self._unsent_wake.clear()
            votes, self._unsent = self._unsent, []
            self._events.voted(self.name, votes)
