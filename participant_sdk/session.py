"""A session, seen from the participant, above a frame stream (gRPC's or the simulation's)."""

from __future__ import annotations

from participant_sdk.clock import Clock
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Participant
from participant_sdk.transport import ServerStream
from participant_sdk.worker import Workers


class SessionServer:
    """Serves sessions of one participant: many at once, of many coordinators and logs."""

    def __init__(self, participant: Participant, workers: Workers, logs: KnownLogs, *, clock: Clock) -> None:
        self._participant = participant

    async def serve(self, stream: ServerStream) -> None:
        """Serve one session until the stream ends or the coordinator is refused.

        Answers to work under way when it ends are dropped; the work goes on. BadFrameError
        (``participant_sdk.wire``) when a frame makes no sense: the stream is to be closed.
        """
        raise NotImplementedError
