"""A participant's single calls, over the simulated network."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.known_logs import ParticipantFailedError
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resource_calls import CallFailedError, Page, Resolved
from participant_sdk.xa import Ack, Decision
from tests.simulation import network
from tests.simulation.hosts import Served, Surroundings
from tests.simulation.storage import StoreFailedError

CALL_TIMEOUT_S: Final = 5.0

Reply = TypeVar("Reply")


class SimulatedCalls:
    """The calls from one host to one participant's."""

    def __init__(self, source: str, target: str, around: Surroundings, clock: Clock) -> None:
        self._source = source
        self._target = target
        self._around = around
        self._clock = clock

    async def hello(self, introduction: Introduction) -> Welcome:
        """Introduce oneself."""
        now_unix_ms = self._clock.unix_ms()
        return await self._call(lambda served: served.logs.greet(introduction, now_unix_ms))

    async def recover(self, query: RecoverQuery, token: str = "") -> Page:
        """List a page of branches; its token is the last one's xid."""
        after = Xid.parse(token) if token else None

        async def listed(served: Served) -> Page:
            branches = await served.resource.recover(replace(query, after=after))
            return Page(branches, str(branches[-1].xid) if len(branches) >= query.limit else "")

        return await self._call(listed)

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch."""
        return await self._call(lambda served: served.resource.branch(log_id, xid))

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str, *, preview: bool) -> Resolved:
        """Force a branch in doubt by an operator's hand."""

        async def force(served: Served) -> Resolved:
            ack = None if preview else await served.resource.resolve(log_id, xid, outcome, reason)
            return Resolved(await served.resource.branch(log_id, xid), ack)

        return await self._call(force)

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """Drop a heuristic branch that was dealt with."""
        return await self._call(lambda served: served.resource.forget(log_id, xid))

    async def _call(self, ask: Callable[[Served], Coroutine[Any, Any, Reply]]) -> Reply:
        served = self._around.served

        async def serve() -> Reply:
            try:
                return await ask(served[self._target])
            except (StoreFailedError, ParticipantFailedError) as error:
                raise CallFailedError(str(error)) from error

        try:
            return await self._around.network.call(self._source, self._target, serve, timeout_s=CALL_TIMEOUT_S)
        except network.CallFailedError as error:
            raise CallFailedError(str(error)) from error
