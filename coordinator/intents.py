"""Which transaction works for which request_id: a request sent twice at once runs once."""

from __future__ import annotations

from coordinator.errors import RequestInUseError, RequestReusedError
from coordinator.protocol.phases import Phase
from coordinator.running import Running
from participant_sdk.ids import RequestId, Xid


class Intents:
    """The transactions held by request_id, the latest attempt of each.

    An attempt that said *retry* stands in nobody's way: its look at the log is old (R3).
    """

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: dict[RequestId, Running] = {}

    def add(self, running: Running) -> None:
        """Remember an attempt, in place of an older one."""
        if running.transaction.request is not None:
            self._running[running.transaction.request] = running

    def remove(self, running: Running) -> None:
        """Forget an attempt that is finished."""
        request = running.transaction.request
        if request is not None and self._running.get(request) is running:
            del self._running[request]

    def twin(self, request: RequestId, digest: bytes) -> Running | None:
        """The attempt that the same request joins; None to begin one, which hears what the log binds it to.

        RequestInUseError while an interactive transaction has the id, or one with other operations that
        may yet bind nothing; RequestReusedError when it is bound to other operations.
        """
        if request not in self._running or (twin := self._current(request)) is None:
            return None
        xid = twin.transaction.xid
        if twin.transaction.phase is Phase.ACTIVE:
            raise RequestInUseError(f"the request_id is in use by the interactive transaction {xid}", xid=xid)
        if twin.transaction.digest == digest:
            return twin
        if twin.is_bound_elsewhere:
            # Not to this digest's operations; perhaps to those that are asked for now. The log tells.
            return None
        if twin.has_bound:
            raise RequestReusedError(f"the request_id is bound to transaction {xid} with other operations", xid=xid)
        raise RequestInUseError(f"the request_id is in use by transaction {xid} with other operations", xid=xid)

    def begun(self, request: RequestId, call_id: str) -> Xid | None:
        """The transaction that this very call of Begin began, and that is untouched yet; None to begin one.

        So a Begin whose reply was lost may be sent again. Another caller with the same request_id must not
        get it: two would enlist the same work. RequestInUseError for it.
        """
        twin = self._current(request)
        if twin is None or twin.is_bound_elsewhere:
            return None
        is_same_call = bool(call_id) and twin.call_id == call_id
        if is_same_call and twin.transaction.phase is Phase.ACTIVE and not twin.transaction.branches:
            return twin.transaction.xid
        xid = twin.transaction.xid
        raise RequestInUseError(f"the request_id is in use by transaction {xid}, which has not ended", xid=xid)

    def _current(self, request: RequestId) -> Running | None:
        running = self._running.get(request)
        return None if running is None or running.said_retry else running
