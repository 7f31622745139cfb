"""In doubt: a participant that voted yes and hears nothing asks, for ever (R12).

It never decides alone. COMMIT and ROLLBACK are applied through the workers, like any other;
PENDING is asked again; FORGOTTEN is an alert for an operator, and the branch is left alone.
Only coordinators of the branch's own log are believed (R18), and none that speaks for an older
epoch of it (R15).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, NoReturn, Protocol

import psycopg
import structlog

from participant_sdk.backoff import Backoff
from participant_sdk.branch import BranchPhase
from participant_sdk.clock import Clock
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.ids import Xid
from participant_sdk.known_logs import KnownLogs, ParticipantFailedError
from participant_sdk.participant import Branch, Commit, Participant, RecoverQuery, Rollback
from participant_sdk.wire import InvalidFieldError
from participant_sdk.worker import Workers
from participant_sdk.xa import Ack, DecisionState

BACKOFF_FIRST_S: Final = 1.0
# Of each log, in one look; and what is remembered of branches that the last look did not come to.
BRANCHES_MAX: Final = 10_000
DOUBTS_MAX: Final = 100_000
PAGE: Final = 1_000
ASKED_AT_ONCE: Final = 32

# What a store that cannot be reached raises, PostgreSQL's driver and plain sockets alike.
_STORE_AWAY: Final = (OSError, psycopg.OperationalError, psycopg.InterfaceError)

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class NoAnswerError(Exception):
    """The coordinator could not be asked, or could not say. It tells nothing of the decision (R7, R19)."""


class DecisionSource(Protocol):
    """How to ask a coordinator: over gRPC, or in the simulation."""

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask the coordinator at an address. NoAnswerError when it cannot be reached or cannot say, in bounded time."""
        ...


class _Key(NamedTuple):
    log_id: str
    xid: Xid


@dataclass(slots=True)
class _Doubt:
    """One branch in doubt. Not frozen: it is asked about again and again."""

    branch: Branch
    backoff: Backoff
    asked: int = 0
    ask_at_s: float = 0.0
    forgotten: bool = False


class _Window(NamedTuple):
    """The part of a log's branches that one look reads: above ``after``, up to ``upto``; None is no bound."""

    after: Xid | None
    upto: Xid | None

    def covers(self, xid: Xid) -> bool:
        return (self.after is None or xid > self.after) and (self.upto is None or xid <= self.upto)


@dataclass(slots=True)
class _Look:
    """One look around. Not frozen: it learns what is prepared, and which coordinators do not answer, of which log."""

    asking: asyncio.Semaphore
    found: list[tuple[Branch, float]] = field(default_factory=list[tuple[Branch, float]])
    windows: dict[str, _Window] = field(default_factory=dict[str, _Window])
    silent: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])


class Inquiry:
    """Brings one participant's branches in doubt to their end.

    ``in_doubt`` and ``oldest_ms`` describe what the last looks found, ``forgotten`` counts branches that
    no log remembers, ``failures`` how often the participant itself failed, or asking did unforeseen.
    """

    def __init__(
        self,
        participant: Participant,
        workers: Workers,
        logs: KnownLogs,
        source: DecisionSource,
        *,
        clock: Clock,
        jitter: random.Random,
        addresses: Sequence[str] = (),
        patience_s: float = 5.0,
        backoff_cap_s: float = 30.0,
    ) -> None:
        self.in_doubt = 0
        self.oldest_ms = 0
        self.forgotten = 0
        self.failures = 0
        self._participant = participant
        self._workers = workers
        self._logs = logs
        self._source = source
        self._clock = clock
        self._jitter = jitter
        self._addresses = tuple(addresses)
        self._patience_s = patience_s
        self._backoff_cap_s = backoff_cap_s
        self._doubts: dict[_Key, _Doubt] = {}
        # How far the last look at each log came; the first look, at start, has no patience.
        self._windows: dict[str, _Window] = {}

    async def run(self) -> NoReturn:
        """Look for branches in doubt, at once and then steadily, and ask about each, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - asking must go on for ever
                # The participant's own code may raise anything while its store is away. Nothing was
                # decided by it: the branches stay in doubt, and the next look finds them again.
                self._note_failure(error)
            await asyncio.sleep(self._patience_s / 2)

    async def look(self) -> None:
        """Look once, and ask about every branch whose time has come."""
        look = _Look(asyncio.Semaphore(ASKED_AT_ONCE))
        for log_id in dict.fromkeys([*await self._participant.log_ids(), *self._logs.log_ids]):
            await self._read_window(log_id, look)
        self._windows = look.windows
        doubts = self._doubts_of(look)
        # What is not in doubt any more is forgotten here; what this look did not come to is kept.
        others = {key: doubt for key, doubt in self._doubts.items() if self._is_beyond(key, look)}
        self._doubts = {**dict(islice(others.items(), DOUBTS_MAX)), **doubts}
        self.in_doubt = len(self._doubts)
        oldest_unix_ms = min((doubt.branch.prepared_unix_ms for doubt in self._doubts.values()), default=None)
        self.oldest_ms = 0 if oldest_unix_ms is None else max(0, self._clock.unix_ms() - oldest_unix_ms)
        now_s = self._clock.monotonic_s()
        async with asyncio.TaskGroup() as group:
            for doubt in doubts.values():
                if now_s >= doubt.ask_at_s:
                    group.create_task(self._settle(doubt, look))

    async def _read_window(self, log_id: str, look: _Look) -> None:
        """Read a log's prepared branches by xid: at most about ``BRANCHES_MAX``, from where the last look stopped.

        So branches that nobody can end do not keep the younger ones from being asked about.
        """
        last = self._windows.get(log_id)
        patience_ms = 0 if last is None else self._patience_s * 1000
        start = after = upto = None if last is None else last.upto
        for _ in range(BRANCHES_MAX // PAGE):
            page = await self._participant.recover(RecoverQuery(log_id, after=after, limit=PAGE))
            look.found += [(branch, patience_ms) for branch in page if branch.phase is BranchPhase.PREPARED]
            if len(page) < PAGE:
                upto = None
                break
            upto = after = page[-1].xid
        look.windows[log_id] = _Window(start, upto)

    def _doubts_of(self, look: _Look) -> dict[_Key, _Doubt]:
        """The branches found whose time has come, with what is remembered of each."""
        doubts: dict[_Key, _Doubt] = {}
        now_ms = self._clock.unix_ms()
        for branch, patience_ms in look.found:
            key = _Key(branch.log_id, branch.xid)
            known = self._doubts.get(key)
            if known is not None or now_ms - branch.prepared_unix_ms >= patience_ms:
                doubts[key] = known or _Doubt(
                    branch, Backoff(self._jitter, first_s=BACKOFF_FIRST_S, cap_s=self._backoff_cap_s)
                )
        return doubts

    def _is_beyond(self, key: _Key, look: _Look) -> bool:
        window = look.windows.get(key.log_id)
        return window is not None and not window.covers(key.xid)

    async def _settle(self, doubt: _Doubt, look: _Look) -> None:
        """Ask about one branch and follow the answer. It never raises.

        In Python 3.11 a task group that ends because of a child's error forgets that it was cancelled,
        and ``run`` would go on for ever.
        """
        try:
            async with look.asking:
                answer = await self._ask(doubt, look)
            if answer is not None:
                self._apply(doubt, answer)
        except Exception as error:  # noqa: BLE001 - as in ``run``; the others are asked about all the same
            self._note_failure(error)
        finally:
            doubt.asked += 1
            doubt.ask_at_s = self._clock.monotonic_s() + doubt.backoff.next_s()

    def _note_failure(self, error: Exception) -> None:
        """Count and tell it: a store that is away in one line, for it comes again at each look."""
        self.failures += 1
        if isinstance(error, _STORE_AWAY):
            reason = " ".join(str(error).split()) or type(error).__name__
            _log.warning("inquiry_failed", participant=self._participant.name, reason=reason)
        else:
            _log.error("inquiry_failed", participant=self._participant.name, exc_info=error)

    async def _ask(self, doubt: _Doubt, look: _Look) -> DecisionAnswer | None:
        """Ask one coordinator after the other, the owner as soon as one names it; None if nobody can say."""
        addresses = self._turn(doubt)
        asked: dict[str, None] = {}
        while addresses:
            address = addresses.pop(0)
            if address in asked or (address, doubt.branch.log_id) in look.silent:
                continue
            asked[address] = None
            answer = await self._ask_one(address, doubt.branch, look)
            if answer is None:
                continue
            if answer.state is not DecisionState.PENDING:
                return answer
            if answer.owner_address in asked:
                # The owner lives and has not decided: the others would say the same.
                return None
            if answer.owner_address:
                addresses.insert(0, answer.owner_address)
            # Without an owner it is this coordinator that cannot say yet; another one may.
        return None

    def _turn(self, doubt: _Doubt) -> list[str]:
        """The addresses to ask, beginning with another one each time."""
        known = list(dict.fromkeys([*self._addresses, *self._logs.addresses(doubt.branch.log_id)]))
        start = doubt.asked % len(known) if known else 0
        return known[start:] + known[:start]

    async def _ask_one(self, address: str, branch: Branch, look: _Look) -> DecisionAnswer | None:
        log_id = branch.log_id
        query = DecisionQuery(log_id, branch.xid, self._participant.name, branch.participants, self._logs.epoch(log_id))
        try:
            answer = await self._source.decision(address, query)
            held = await self._logs.admit(log_id, answer.epoch)
        except NoAnswerError as error:
            # Not asked again at this look, so that one that is gone does not delay every branch.
            look.silent[address, log_id] = None
            _log.info("no_answer", participant=self._participant.name, address=address, reason=str(error))
            return None
        except InvalidFieldError as error:
            _log.warning("bad_answer", participant=self._participant.name, address=address, reason=str(error))
            return None
        except ParticipantFailedError as error:
            _log.warning("inquiry_failed", participant=self._participant.name, reason=str(error))
            return None
        if not self._logs.is_plausible(answer.incarnation):
            _log.warning("bad_answer", participant=self._participant.name, address=address, reason="its incarnation")
            return None
        if answer.epoch < held:
            _log.warning("stale_answer", participant=self._participant.name, address=address, epoch=answer.epoch)
            return None
        return answer

    def _apply(self, doubt: _Doubt, answer: DecisionAnswer) -> None:
        branch = doubt.branch
        match answer.state:
            case DecisionState.COMMIT:
                commit = Commit(branch.log_id, branch.xid, answer.incarnation, answer.sequence, answer.epoch)
                self._workers.commit(commit, self._committed)
            case DecisionState.ROLLBACK:
                self._workers.rollback(Rollback(branch.log_id, branch.xid), self._rolled_back)
            case DecisionState.FORGOTTEN:
                self._alert(doubt)
            case DecisionState.PENDING:
                # Asked again at its time.
                pass

    def _alert(self, doubt: _Doubt) -> None:
        if not doubt.forgotten:
            doubt.forgotten = True
            self.forgotten += 1
            _log.error(
                "branch_forgotten",
                transaction_id=str(doubt.branch.xid),
                participant=self._participant.name,
                todo="no log remembers this transaction: an operator must resolve the branch",
            )

    def _committed(self, xid: Xid, ack: Ack) -> None:
        self._told(xid, ack, "COMMIT")

    def _rolled_back(self, xid: Xid, ack: Ack) -> None:
        self._told(xid, ack, "ROLLBACK")

    def _told(self, xid: Xid, ack: Ack, decision: str) -> None:
        _log.info(
            "doubt_ended",
            transaction_id=str(xid),
            participant=self._participant.name,
            decision=decision,
            acknowledgement=ack.kind.name,
        )
