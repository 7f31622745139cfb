"""Wrong ways to serve a right resource: at its door, with epochs and deadlines, and when in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.grpc_coordinators import GrpcCoordinators
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.inquiry import NoAnswerError
from participant_sdk.known_logs import KnownLogs
from participant_sdk.resources.admission import PREPARE_WINDOW_MS

# A wrong worker is one that looks inside.
from participant_sdk.worker import Workers, _PrepareCall  # pyright: ignore[reportPrivateUsage]
from participant_sdk.xa import DecisionState
from tests.conformance.hosts import CLOCK, Doubting
from tests.conformance.serve import AnyContext, Coordinators, UnaryServicer

# Its door.


class StatusForANo(UnaryServicer):
    """Fails the call when the business says no."""

    async def Prepare(  # noqa: N802 - the contract's name
        self, request: resource_pb2.PrepareRequest, context: AnyContext
    ) -> resource_pb2.PrepareResponse:
        response = await super().Prepare(request, context)
        if response.vote.reason == "INSUFFICIENT_FUNDS":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, response.vote.message)
        return response


class ForcesWithoutAReason(UnaryServicer):
    """Lets an operator force a branch and say nothing."""

    async def ResolveBranch(  # noqa: N802 - the contract's name
        self, request: resource_pb2.ResolveBranchRequest, context: AnyContext
    ) -> resource_pb2.ResolveBranchResponse:
        request.reason = request.reason.strip() or "none was given"
        return await super().ResolveBranch(request, context)


class ForcesAtAPreview(UnaryServicer):
    """Forces the branch when it was to show it."""

    async def ResolveBranch(  # noqa: N802 - the contract's name
        self, request: resource_pb2.ResolveBranchRequest, context: AnyContext
    ) -> resource_pb2.ResolveBranchResponse:
        request.preview = False
        return await super().ResolveBranch(request, context)


class OddCodes(UnaryServicer):
    """Acknowledges with codes of its own."""

    async def Commit(  # noqa: N802 - the contract's name
        self, request: resource_pb2.CommitRequest, context: AnyContext
    ) -> resource_pb2.CommitResponse:
        response = await super().Commit(request, context)
        if response.ack.kind == common_pb2.ACK_KIND_ALREADY_DONE:
            response.ack.xa_code = 42
        return response


class HidesItsDoubts(UnaryServicer):
    """Lists nothing at recovery."""

    async def Recover(  # noqa: N802 - the contract's name
        self, request: resource_pb2.RecoverRequest, context: AnyContext
    ) -> resource_pb2.RecoverResponse:
        response = await super().Recover(request, context)
        return resource_pb2.RecoverResponse() if not request.finished else response


class NeverTheLastPage(UnaryServicer):
    """Gives, on its last page, the token that it was asked with."""

    async def Recover(  # noqa: N802 - the contract's name
        self, request: resource_pb2.RecoverRequest, context: AnyContext
    ) -> resource_pb2.RecoverResponse:
        response = await super().Recover(request, context)
        response.next_page_token = response.next_page_token or request.page_token
        return response


class AnyPageSize(UnaryServicer):
    """Takes whatever page size it is asked for."""

    async def Recover(  # noqa: N802 - the contract's name
        self, request: resource_pb2.RecoverRequest, context: AnyContext
    ) -> resource_pb2.RecoverResponse:
        request.page_size = min(request.page_size, 1_000)
        return await super().Recover(request, context)


# Epochs, horizons, clocks.


class IgnoresEpochs(KnownLogs):
    """Believes coordinators of every epoch."""

    async def admit(self, log_id: str, epoch: int) -> int:
        await super().admit(log_id, epoch)
        return epoch


class BelievesEveryEpoch(KnownLogs):
    """Takes any number for an epoch."""

    def is_plausible(self, incarnation: int) -> bool:
        return True


class BelievesEveryHorizon(KnownLogs):
    """Drops below a horizon that Prepares may still pass."""

    def _raise_horizon(self, introduction: Introduction, now_unix_ms: int) -> None:
        self._horizons[introduction.log_id] = introduction.pruned_below_unix_ms
        self._horizon_rose.set()


class IgnoresClocks(KnownLogs):
    """Welcomes coordinators whatever their clock shows."""

    async def greet(self, introduction: Introduction, clock_unix_ms: int) -> Welcome:
        return await super().greet(introduction, self._clock.unix_ms())


# Deadlines and the prepare window.


class StoppedClock:
    """A monotonic clock that stands still, so that no deadline ever comes."""

    def monotonic_s(self) -> float:
        return 0.0

    def unix_ms(self) -> int:
        return CLOCK.unix_ms()


class TakesOldXids(Workers):
    """Prepares xids of any age."""

    def _admit(self, calls: Sequence[_PrepareCall]) -> list[_PrepareCall]:
        old = [call for call in calls if CLOCK.unix_ms() - call.branch.xid.unix_ms > PREPARE_WINDOW_MS]
        return [*super()._admit([call for call in calls if call not in old]), *old]


# In doubt.


class NeverAsks(Coordinators):
    """Waits for ever to be told."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        raise NoAnswerError("it does not ask")


class DecidesAlone(Coordinators):
    """Rolls back what it is in doubt of."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        return DecisionAnswer(DecisionState.ROLLBACK, epoch=query.epoch)


class TakesPendingForRollback(Coordinators):
    """Takes "not decided" for "rolled back"."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        answer = await super().asked(address, query)
        return replace(answer, state=DecisionState.ROLLBACK) if answer.state is DecisionState.PENDING else answer


class TakesForgottenForRollback(Coordinators):
    """Takes "the log does not remember" for "rolled back"."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        answer = await super().asked(address, query)
        return replace(answer, state=DecisionState.ROLLBACK) if answer.state is DecisionState.FORGOTTEN else answer


class FollowsOlderEpochs(Coordinators):
    """Does not look which epoch an answer is of."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        return replace(await super().asked(address, query), epoch=query.epoch)


class AsksOneCoordinator(Coordinators):
    """Asks the first coordinator that it heard of, and no other."""

    def __init__(self, asked: GrpcCoordinators, doubting: Doubting) -> None:
        super().__init__(asked, doubting)
        self._only = ""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        self._only = self._only or address
        return await super().asked(self._only, query)


class NamesNobody(Coordinators):
    """Does not say who else takes part."""

    async def asked(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        return await super().asked(address, replace(query, participants=()))
