"""Simulated clients: they send, lose replies, send again, give up; what they were told the oracle keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from coordinator.errors import BusyError, OutcomeUnknownError, TransactionError, UnavailableError
from coordinator.requests import Ended
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from tests.simulation.business import draw_operations, read_of
from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host, Surroundings
from tests.simulation.network import CallFailedError
from tests.simulation.oracle import Intent
from tests.simulation.participants import ParticipantHost

PATIENCE_S: Final = 15.0
IMPATIENCE_S: Final = (0.005, 1.0)
TIMEOUT_S: Final = (0.5, 8.0)
ATTEMPTS_MAX: Final = 4
PAUSE_MAX_S: Final = 1.0
SETTLE_PAUSE_MAX_S: Final = 8.0
INTERACTIVE_SHARE: Final = 0.15
NAMED_SHARE: Final = 0.6
EMBEDDED_SHARE: Final = 0.35

Reply = TypeVar("Reply")


class Client:
    """One client with its share of the run's transactions, one after the other.

    ``unsettled`` collects the named intents whose end the client does not know.
    """

    def __init__(
        self,
        name: str,
        around: Surroundings,
        coordinators: Sequence[CoordinatorHost],
        participants: Sequence[ParticipantHost],
    ) -> None:
        self.name = name
        self.unsettled: list[Intent] = []
        # The intents of which work was done under the xid.
        self._embedded: dict[int, None] = {}
        self._around = around
        self._coordinators = coordinators
        self._participants = {host.name: host for host in participants}
        self._rng = Random(f"{around.mix.seed}:{name}")

    async def run(self, numbers: Iterator[int]) -> None:
        """Pursue one intent for each number; other clients draw from the same numbers."""
        names = list(self._participants)
        for number in numbers:
            named = self._rng.random() < NAMED_SHARE
            intent = Intent(number, draw_operations(self._rng, names), f"request-{number}" if named else "")
            if not await self._pursue_as_drawn(intent) and named:
                self.unsettled.append(intent)
            await asyncio.sleep(self._rng.uniform(0, PAUSE_MAX_S))

    async def settle(self, intent: Intent) -> None:
        """Ask until the intent has an end: by sending it again, or by closing it.

        A branch of it that an operator forced to commit keeps it from ever running again, and so it is closed;
        as is one whose work was embedded: sent whole, it would be another request to the log.
        """
        prefers_closing = self._rng.random() < 0.4 or intent.number in self._embedded
        pause_s = PAUSE_MAX_S / 2
        while True:
            closes = prefers_closing or self._around.oracle.is_forced(intent.request_id)
            ended = await self._ask(
                lambda host, closes=closes: (
                    host.close_intent(intent)
                    if closes
                    else host.execute(intent, timeout_s=TIMEOUT_S[1], wait_applied=True)
                ),
                PATIENCE_S,
            )
            if ended is not None and not ended.outcome.retry:
                return
            pause_s = min(SETTLE_PAUSE_MAX_S, pause_s * 2)
            await asyncio.sleep(self._rng.uniform(0, pause_s))

    async def _pursue_as_drawn(self, intent: Intent) -> bool:
        """Pursue once, twice at the same time, or step by step; whether the end is known."""
        if self._rng.random() < INTERACTIVE_SHARE:
            return await self._converse(intent)
        if intent.request_id and self._strikes(Fault.CLIENT_REPEATS):
            async with asyncio.TaskGroup() as both:
                twins = [both.create_task(self._pursue(intent)) for _ in range(2)]
            return any(twin.result() for twin in twins)
        return await self._pursue(intent)

    async def _pursue(self, intent: Intent) -> bool:
        """Execute, and again after what is not an end; whether the end is known."""
        for _ in range(ATTEMPTS_MAX):
            impatient = self._strikes(Fault.CLIENT_GIVES_UP)
            patience_s = self._rng.uniform(*IMPATIENCE_S) if impatient else PATIENCE_S
            timeout_s = self._rng.uniform(*TIMEOUT_S)
            waits = self._rng.random() < 0.7
            ended = await self._ask(
                lambda host, timeout_s=timeout_s, waits=waits: host.execute(
                    intent, timeout_s=timeout_s, wait_applied=waits
                ),
                patience_s,
            )
            if ended is not None and not ended.outcome.retry:
                return True
            if impatient or not intent.request_id:
                return False
            await asyncio.sleep(self._rng.uniform(0, PAUSE_MAX_S))
        return False

    async def _converse(self, intent: Intent) -> bool:
        """Begin, enlist and commit by separate calls; sometimes change one's mind, or walk away."""
        host = self._rng.choice(self._coordinators)
        xid = await self._call(host, lambda: host.begin(intent, self._rng.uniform(*TIMEOUT_S)), PATIENCE_S)
        if xid is None:
            return False
        for service in dict.fromkeys(operation.service for operation in intent.operations):
            operations = [operation for operation in intent.operations if operation.service == service]
            embeds = self._rng.random() < EMBEDDED_SHARE
            if embeds:
                self._embedded[intent.number] = None
            if not await (self._embed if embeds else self._enlist)(host, xid, operations):
                return False
        return await self._finish(host, intent, xid)

    async def _enlist(self, host: CoordinatorHost, xid: Xid, operations: Sequence[Operation]) -> bool:
        """Add operations that travel in Prepare; whether all of them are in."""
        for operation in operations:
            if await self._call(host, lambda operation=operation: _done(partial(host.enlist, xid, operation))) is None:
                return False
            await asyncio.sleep(self._rng.uniform(0, 0.05))
        return True

    async def _embed(self, host: CoordinatorHost, xid: Xid, operations: Sequence[Operation]) -> bool:
        """Announce work, and have the participant do it under the xid; whether it was announced.

        Whether it was done is found by Prepare, which counts.
        """
        participant = self._participants[operations[0].service]
        enlisted = await self._call(host, lambda: host.enlist_embedded(xid, participant.name, len(operations)))
        if enlisted is None:
            return False
        await self._call(participant, lambda: participant.work(xid, enlisted, operations))
        self._around.oracle.embedded[xid] = None
        return True

    async def _finish(self, host: CoordinatorHost, intent: Intent, xid: Xid) -> bool:
        whim = self._rng.random()
        if whim < 0.1:
            return False
        if whim < 0.2:
            ended = await self._call(host, lambda: host.rollback(intent, xid))
        elif whim < 0.3:
            await self._call(host, lambda: _done(partial(host.set_rollback_only, xid)))
            ended = await self._call(host, lambda: host.commit(intent, xid))
        elif self._strikes(Fault.CLIENT_MEDDLES):
            async with asyncio.TaskGroup() as at_once:
                committing = at_once.create_task(self._call(host, lambda: host.commit(intent, xid)))
                at_once.create_task(self._meddle(host, intent, xid))
            ended = committing.result()
        else:
            ended = await self._call(host, lambda: host.commit(intent, xid))
        return ended is not None and not ended.outcome.retry

    async def _meddle(self, host: CoordinatorHost, intent: Intent, xid: Xid) -> None:
        """Send what comes too late, soon and later: it changes nothing, but where Rollback is in time."""
        for wait_s in (0.003, 0.003, 0.01, 0.02, 0.1, 1.0, 5.0):
            await asyncio.sleep(self._rng.uniform(0, wait_s))
            whim = self._rng.random()
            if whim < 0.45:
                # It may be in time after all, so it changes nothing; but the request is another one then.
                self._embedded[intent.number] = None
                await self._call(host, lambda: _done(partial(host.enlist, xid, read_of(intent.operations[0]))))
            elif whim < 0.85:
                await self._call(host, lambda: _done(partial(host.set_rollback_only, xid)))
            else:
                await self._call(host, lambda: host.rollback(intent, xid))

    async def _ask(
        self, ask: Callable[[CoordinatorHost], Coroutine[Any, Any, Ended]], patience_s: float
    ) -> Ended | None:
        host = self._rng.choice(self._coordinators)
        return await self._call(host, lambda: ask(host), patience_s)

    async def _call(
        self, host: Host, serve: Callable[[], Coroutine[Any, Any, Reply]], patience_s: float = PATIENCE_S
    ) -> Reply | None:
        """Call a process; None where no end came: the call failed, or an error says so."""
        try:
            return await self._around.network.call(self.name, host.name, serve, timeout_s=patience_s)
        except CallFailedError:
            return None
        except (BusyError, UnavailableError, OutcomeUnknownError) as error:
            self._around.trace.note(f"refused {self.name} {error.reason}")
            return None
        except TransactionError as error:
            # A lost enlist or a passed deadline shows as a wrong phase or an unknown transaction.
            self._around.trace.note(f"refused {self.name} {error.reason} {error.message:.80}")
            return None

    def _strikes(self, fault: Fault) -> bool:
        if self._rng.random() < self._around.mix.chance(fault):
            self._around.tally[fault] += 1
            return True
        return False


async def _done(call: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Tell a call that returns nothing from one that failed."""
    await call()
    return True
