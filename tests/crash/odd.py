"""A participant that answers nonsense, until it is told to be sane."""

from __future__ import annotations

import itertools
import time
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceServicer

NAME: Final = "odd"
# A vote or an acknowledgement of a kind that this version of the contract does not know.
UNKNOWN_KIND: Final = 99
_PREPARED: Final = common_pb2.VOTE_KIND_PREPARED
_KINDS: Final = (_PREPARED, common_pb2.VOTE_KIND_UNSPECIFIED, UNKNOWN_KIND, None, _PREPARED)


class Odd(ResourceServiceServicer):
    """Votes by unary calls: yes, nothing, something unknown, an error; and acknowledges nothing properly."""

    def __init__(self) -> None:
        self.is_sane = False
        self.asked = 0
        self._kinds = itertools.cycle(_KINDS)

    async def Hello(self, request: resource_pb2.HelloRequest, context: object) -> resource_pb2.HelloResponse:  # noqa: N802
        """Welcome whoever comes."""
        return resource_pb2.HelloResponse(
            participant=NAME, clock_unix_ms=time.time_ns() // 1_000_000, epoch=request.epoch, session=False
        )

    async def Prepare(  # noqa: N802
        self,
        request: resource_pb2.PrepareRequest,
        context: grpc.aio.ServicerContext[resource_pb2.PrepareRequest, resource_pb2.PrepareResponse],
    ) -> resource_pb2.PrepareResponse:
        """Vote whatever comes next."""
        self.asked += 1
        kind = _PREPARED if self.is_sane else next(self._kinds)
        if kind is None:
            await context.abort(grpc.StatusCode.INTERNAL, "told to")
        vote = common_pb2.Vote()
        # The generated setter takes any number, as the wire does.
        vote.kind = kind  # pyright: ignore[reportAttributeAccessIssue]
        return resource_pb2.PrepareResponse(vote=vote)

    async def Commit(self, request: resource_pb2.CommitRequest, context: object) -> resource_pb2.CommitResponse:  # noqa: N802
        """Acknowledge, once sane; before, something unknown."""
        return resource_pb2.CommitResponse(ack=self._ack())

    async def Rollback(self, request: resource_pb2.RollbackRequest, context: object) -> resource_pb2.RollbackResponse:  # noqa: N802
        """As for Commit."""
        return resource_pb2.RollbackResponse(ack=self._ack())

    async def Recover(self, request: resource_pb2.RecoverRequest, context: object) -> resource_pb2.RecoverResponse:  # noqa: N802
        """Nothing is in doubt here."""
        return resource_pb2.RecoverResponse()

    def _ack(self) -> common_pb2.Ack:
        ack = common_pb2.Ack()
        ack.kind = common_pb2.ACK_KIND_DONE if self.is_sane else UNKNOWN_KIND  # pyright: ignore[reportAttributeAccessIssue]  As above.
        return ack
