"""Simulated operators: they see what a console would show, and do with the product's own calls what they see fit.

One of them is on duty in every run: it finds a log in HOLD, and after a while ends it. The others come with
the mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from random import Random
from typing import Any, Final, TypeVar

from coordinator.assembly import Assembly
from coordinator.errors import TransactionError
from coordinator.passes import Scope
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState
from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.faults import Fault, Sight
from tests.simulation.hosts import Served, Surroundings
from tests.simulation.network import CallFailedError
from tests.simulation.participants import ParticipantHost
from tests.simulation.storage import StoreFailedError

LOOK_EVERY_S: Final = (1.0, 6.0)
CALL_TIMEOUT_S: Final = 20.0
REFUSALS_PATIENT: Final = 4

Reply = TypeVar("Reply")


class Operators:
    """All operators of a run. Every act is a call over the network to a process that may die of it."""

    def __init__(
        self, around: Surroundings, coordinators: Sequence[CoordinatorHost], participants: Sequence[ParticipantHost]
    ) -> None:
        self._around = around
        self._coordinators = coordinators
        self._participants = participants
        self._rng = Random(f"{around.mix.seed}:operators")
        self._refusals = 0

    async def watch(self) -> None:
        """Be on duty, until cancelled: end HOLD, and see to branches that the log has forgotten."""
        while True:
            await asyncio.sleep(self._rng.uniform(*LOOK_EVERY_S))
            host = self._rng.choice(self._coordinators)
            if await self._ask(host, _held):
                await self._release(host)
            elif self._around.loop.slept_s:
                await self._see_to_forgotten(host)

    async def _release(self, host: CoordinatorHost) -> None:
        """End HOLD, as the runbook says; where that is refused, another look comes."""
        if self._rng.random() < 0.3:
            await self._ask(host, lambda assembly: assembly.holding.release("is it safe?", preview=True))
        plan = await self._ask(host, lambda assembly: assembly.holding.release("looked at it", preview=False))
        if plan is not None:
            self._around.tally[Sight.RELEASED] += 1
            self._refusals = 0
            return
        self._refusals += 1
        if self._refusals % REFUSALS_PATIENT == 0:
            # As the runbook begins: no old coordinator may live, and a number may have been drawn twice.
            for coordinator in self._coordinators:
                coordinator.kill()
                coordinator.start_later(self._rng.uniform(0.5, 3.0))

    async def _see_to_forgotten(self, host: CoordinatorHost) -> None:
        """Roll back what was in doubt for longer than the retention, as the runbook says, and have it forgotten."""
        page = await self._ask(host, lambda assembly: assembly.resolution.list_in_doubt("", "", 100))
        for doubt in page.branches if page is not None else ():
            name, xid = doubt.participant, doubt.branch.xid
            if doubt.state is not DecisionState.FORGOTTEN:
                continue
            if doubt.branch.phase is BranchPhase.PREPARED:
                self._around.tally[Sight.FORGOTTEN] += 1
                await self._resolve(host, name, xid, Decision.ROLLBACK, preview=False)
            else:
                await self._forget(host, xid)

    async def hold(self, rng: Random) -> None:
        """Put the log in HOLD, as one does before a restore or by mistake."""
        self._count(Fault.OPERATOR_HOLDS)
        await self._ask(rng.choice(self._coordinators), lambda assembly: assembly.holding.hold("to be sure"))

    async def resolve(self, rng: Random) -> None:
        """Ask a coordinator to force a branch; it refuses where the decision is, or will be, known."""
        host, outcome, preview = rng.choice(self._coordinators), _outcome(rng), rng.random() < 0.2
        if (branch := self._draw(rng, BranchPhase.PREPARED)) is None:
            return
        name, xid = branch
        self._count(Fault.OPERATOR_RESOLVES)
        await self._resolve(host, name, xid, outcome, preview=preview)

    async def _resolve(self, host: CoordinatorHost, name: str, xid: Xid, outcome: Decision, *, preview: bool) -> None:
        self._around.oracle.losses.asked[name, xid] = None
        await self._ask(
            host, lambda assembly: assembly.resolution.resolve(xid, name, outcome, "it has to go on", preview=preview)
        )
        self._look_at(name, xid)

    async def force(self, rng: Random) -> None:
        """Force a branch at its participant, when no coordinator can be had, or out of impatience."""
        outcome = _outcome(rng)
        if (branch := self._draw(rng, BranchPhase.PREPARED)) is None:
            return
        name, xid = branch
        self._count(Fault.OPERATOR_FORCES)
        self._around.oracle.losses.asked[name, xid] = None
        log_id = self._around.oracle.losses.log_id
        await self._at(name, lambda served: served.resource.resolve(log_id, xid, outcome, "nobody answers"))
        self._look_at(name, xid)

    async def forget(self, rng: Random) -> None:
        """Forget a heuristic end that was dealt with."""
        host = rng.choice(self._coordinators)
        if (branch := self._draw(rng, BranchPhase.HEURISTIC)) is None:
            return
        self._count(Fault.OPERATOR_FORGETS)
        await self._forget(host, branch[1])

    async def _forget(self, host: CoordinatorHost, xid: Xid) -> None:
        if await self._ask(host, lambda assembly: assembly.resolution.forget(xid, "both sides were told")):
            self._around.tally[Sight.HEURISTIC_FORGOTTEN] += 1

    async def retry(self, rng: Random) -> None:
        """Have a transaction driven again, decided or not."""
        host = rng.choice(self._coordinators)
        xids = list(self._around.oracle.enlisted)
        if xids:
            self._count(Fault.OPERATOR_RETRIES)
            xid = rng.choice(xids)
            await self._ask(host, lambda assembly: assembly.resolution.retry(xid))

    async def recover(self, rng: Random) -> None:
        """Start a pass of recovery, of any scope."""
        host, scope = rng.choice(self._coordinators), rng.choice(list(Scope))
        name = rng.choice(self._participants).name
        xids = list(self._around.oracle.enlisted)
        xid = rng.choice(xids) if xids else None
        self._count(Fault.OPERATOR_RECOVERS)
        await self._ask(host, lambda assembly: assembly.passes.trigger(scope, xid=xid, participant=name))

    def _draw(self, rng: Random, phase: BranchPhase) -> tuple[str, Xid] | None:
        branches = list(self._branches(phase))
        return rng.choice(branches) if branches else None

    def _branches(self, phase: BranchPhase) -> Iterator[tuple[str, Xid]]:
        for host in self._participants:
            for key, stored in host.store.durable.branches.items():
                if stored.branch.phase is phase:
                    yield host.name, key.xid

    def _look_at(self, name: str, xid: Xid) -> None:
        before = len(self._around.oracle.losses.hands)
        self._around.oracle.is_promised_at(name, xid)
        self._around.tally[Sight.HEURISTIC] += len(self._around.oracle.losses.hands) - before

    def _count(self, fault: Fault) -> None:
        self._around.tally[fault] += 1
        self._around.trace.note(f"fault {fault.name}")

    async def _ask(self, host: CoordinatorHost, act: Callable[[Assembly], Coroutine[Any, Any, Reply]]) -> Reply | None:
        """Act at a coordinator; None where that failed or was refused."""

        async def serve() -> Reply:
            return await act(host.opened())

        return await self._call(host.name, serve)

    async def _at(self, name: str, act: Callable[[Served], Coroutine[Any, Any, Reply]]) -> Reply | None:
        served = self._around.served

        async def serve() -> Reply:
            return await act(served[name])

        return await self._call(name, serve)

    async def _call(self, name: str, serve: Callable[[], Coroutine[Any, Any, Reply]]) -> Reply | None:
        try:
            return await self._around.network.call("operator", name, serve, timeout_s=CALL_TIMEOUT_S)
        except TransactionError as error:
            self._around.trace.note(f"refused operator {error.reason} {error.message:.120}")
        except (CallFailedError, StoreFailedError) as error:
            self._around.trace.note(f"refused operator {error!r:.120}")
        return None


async def _held(assembly: Assembly) -> bool:
    standing = assembly.passes.status().standing
    return standing is not None and standing.is_held


def _outcome(rng: Random) -> Decision:
    return rng.choice((Decision.COMMIT, Decision.ROLLBACK))
