"""The seam under a link: how frames travel between a coordinator and a participant.

There are two transports, gRPC and the simulation's. Everything above them is the same
code in both.
"""

from __future__ import annotations

from typing import Protocol

from pincex.tx.v1 import resource_pb2


class StreamClosedError(Exception):
    """The stream is gone. What was sent may or may not have arrived."""


class ClientStream(Protocol):
    """A session seen from the coordinator."""

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        """Send one frame, waiting while the other side is slow. StreamClosedError when it is gone."""
        ...

    async def receive(self) -> resource_pb2.SessionResponse:
        """The next frame. StreamClosedError when there will be none."""
        ...

    async def close(self) -> None:
        """End the stream at once. Idempotent."""
        ...


class ServerStream(Protocol):
    """A session seen from the participant."""

    async def send(self, frame: resource_pb2.SessionResponse) -> None:
        """Send one frame, waiting while the other side is slow. StreamClosedError when it is gone."""
        ...

    async def receive(self) -> resource_pb2.SessionRequest:
        """The next frame. StreamClosedError when there will be none."""
        ...


class FrameTransport(Protocol):
    """Opens sessions to one participant."""

    async def connect(self) -> ClientStream:
        """Open a session. StreamClosedError when the participant cannot be reached."""
        ...
