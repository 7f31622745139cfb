"""The simulated network: streams of frames and calls between hosts, on virtual time, under faults.

Frames travel as bytes, so that nothing is shared by accident. A stream keeps its order and
loses nothing, but where a fault says otherwise: the first frame each way is spared nothing. A
broken stream is heard of after a moment, or, half open, only after the keep-alive time.

A host that nothing listens on refuses. A cut passes nothing one way: streams across it break
when the keep-alive time has passed, new ones cannot be opened, calls are lost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message
from pincex.tx.v1 import resource_pb2

from participant_sdk.frames import FRAME_BYTES, PREPARE_MAX_BYTES
from participant_sdk.transport import StreamClosedError
from tests.simulation.faults import Fault, Tally
from tests.simulation.frames import describe
from tests.simulation.loop import Life, Process, SimulatedLoop, current_process
from tests.simulation.trace import Trace

FRAME_MAX_BYTES: Final = FRAME_BYTES + PREPARE_MAX_BYTES
WINDOW_FRAMES: Final = 32
KEEPALIVE_MIN_S: Final = 2.0
KEEPALIVE_MAX_S: Final = 8.0
CONNECT_TIMEOUT_S: Final = 3.0
DELAY_MIN_S: Final = 0.000_05
DELAY_MAX_S: Final = 0.002
SLOW_MIN_S: Final = 0.2
SLOW_MAX_S: Final = 5.0
ORDER_GAP_S: Final = 0.000_001

Sent = TypeVar("Sent", bound=Message)
Got = TypeVar("Got", bound=Message)
Reply = TypeVar("Reply")


class CallFailedError(Exception):
    """A call got no reply. It may or may not have been served."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely each fault is, for each frame, stream or call."""

    chances: Mapping[Fault, float] = field(default_factory=dict[Fault, float])

    def strikes(self, fault: Fault, rng: Random) -> bool:
        """Draw whether this fault happens now."""
        chance = self.chances.get(fault, 0.0)
        return chance > 0 and rng.random() < chance


CALM: Final = Weather()


class Pipe:
    """One direction of a stream: what has arrived, and how much may still be sent."""

    __slots__ = ("arrived", "changed", "last_at_s", "room", "unread")

    def __init__(self) -> None:
        self.arrived: deque[bytes] = deque()
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.last_at_s = 0.0
        self.unread = 0


class Stream(Generic[Sent, Got]):
    """One side of a stream: the seam's ClientStream or ServerStream, by its types."""

    def __init__(self, connection: Connection, process: Process, got: type[Got]) -> None:
        self._connection = connection
        self._got = got
        self.process = process
        self.closed = False
        self.inbox = Pipe()

    async def send(self, frame: Sent) -> None:
        """Send one frame, waiting while the window is full."""
        outbox = self._connection.peer_of(self).inbox
        while outbox.unread >= WINDOW_FRAMES and not self.closed:
            outbox.room.clear()
            await outbox.room.wait()
        if self.closed:
            raise StreamClosedError("the simulated stream is closed")
        self._connection.carry(self, frame)

    async def receive(self) -> Got:
        """The next frame that arrived."""
        while not self.inbox.arrived:
            if self.closed:
                raise StreamClosedError("the simulated stream is closed")
            self.inbox.changed.clear()
            await self.inbox.changed.wait()
        data = self.inbox.arrived.popleft()
        self.inbox.unread -= 1
        self.inbox.room.set()
        return self._got.FromString(data)

    async def close(self) -> None:
        """End the stream at once; the other side hears of it a little later."""
        self._connection.close(self)

    def end(self) -> None:
        """Tell this side that the stream is gone."""
        self.closed = True
        self.inbox.changed.set()
        self._connection.peer_of(self).inbox.room.set()


ClientSide = Stream[resource_pb2.SessionRequest, resource_pb2.SessionResponse]
ServerSide = Stream[resource_pb2.SessionResponse, resource_pb2.SessionRequest]
Watcher = Callable[[str, str, Message], None]


class Connection:
    """Two sides and what is between them."""

    def __init__(self, network: Network, source: str, target: str, client: Process, server: Process) -> None:
        self._network = network
        self.source = source
        self.target = target
        self.client: ClientSide = Stream(self, client, resource_pb2.SessionResponse)
        self.server: ServerSide = Stream(self, server, resource_pb2.SessionRequest)
        self.broken = False

    def peer_of(self, side: Stream[Any, Any]) -> Stream[Any, Any]:
        """The other side."""
        return self.server if side is self.client else self.client

    def hosts_from(self, side: Stream[Any, Any]) -> tuple[str, str]:
        """The side's own host, and the other one."""
        return (self.source, self.target) if side is self.client else (self.target, self.source)

    def carry(self, side: Stream[Any, Any], frame: Message) -> None:
        """Take a frame from one side towards the other, or lose it."""
        self._network.carry(self, side, frame)

    def close(self, side: Stream[Any, Any]) -> None:
        """End one side now, and the other as soon as the news arrives."""
        if side.closed:
            return
        side.end()
        self._network.tell_end(self, self.peer_of(side))


class Network:
    """All hosts, what listens on them, and the weather between them."""

    def __init__(self, loop: SimulatedLoop, rng: Random, trace: Trace, tally: Tally) -> None:
        self._loop = loop
        self._rng = rng
        self._trace = trace
        self._tally = tally
        self._listeners: dict[str, tuple[Process, Callable[[ServerSide], object]]] = {}
        self._cuts: dict[tuple[str, str], int] = {}
        self._connections: list[Connection] = []
        self._calls: list[tuple[Process, asyncio.Future[Any]]] = []
        self.weather = CALM
        self.watchers: list[Watcher] = []
        self.largest_frame_bytes = 0

    # -- Hosts

    def listen(self, host: str, process: Process, accept: Callable[[ServerSide], object] | None = None) -> None:
        """Let a process answer on this host: streams are given to ``accept``, which runs within it."""
        self._listeners[host] = (process, accept or _refuse)

    def process_died(self, process: Process) -> None:
        """Break all that the process had open, and stop listening for it."""
        self._listeners = {host: entry for host, entry in self._listeners.items() if entry[0] is not process}
        for connection in [c for c in self._connections if process in (c.client.process, c.server.process)]:
            survivor = connection.server if connection.client.process is process else connection.client
            connection.peer_of(survivor).closed = True
            self.tell_end(connection, survivor)
        for _, reply in [call for call in self._calls if call[0] is process]:
            self._fail_later(reply)

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from one host to the other. Cuts count: each is healed by itself."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1
        for connection in list(self._connections):
            if {connection.source, connection.target} == {source, target}:
                self._break(connection, self._keepalive_s(), self._keepalive_s())

    def heal(self, source: str, target: str) -> None:
        """Undo one cut."""
        self._cuts[source, target] = max(0, self._cuts.get((source, target), 0) - 1)

    def heal_all(self) -> None:
        """Undo every cut, and let the weather be calm."""
        self._cuts.clear()
        self.weather = CALM

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing passes this way."""
        return self._cuts.get((source, target), 0) > 0

    # -- Streams

    def transport(self, source: str, target: str) -> SimulatedTransport:
        """What a link on one host opens its sessions to another with."""
        return SimulatedTransport(self, source, target)

    async def connect(self, source: str, target: str) -> ClientSide:
        """Open a stream. StreamClosedError when nothing listens, or nothing passes."""
        client = current_process(self._loop)
        await asyncio.sleep(self._delay_s() * 2)
        if self.is_cut(source, target) or self.is_cut(target, source):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise StreamClosedError(f"{target} cannot be reached")
        if target not in self._listeners:
            raise StreamClosedError(f"{target} refuses")
        server, accept = self._listeners[target]
        connection = Connection(self, source, target, client, server)
        self._connections.append(connection)
        self._trace.note(f"open {source} {target}")
        self._loop.call_in(server, accept, connection.server)
        return connection.client

    def carry(self, connection: Connection, side: Stream[Any, Any], frame: Message) -> None:
        """Take one frame, let the watchers see it, and deliver it as the weather wants."""
        source, target = connection.hosts_from(side)
        data = frame.SerializeToString(deterministic=True)
        self.largest_frame_bytes = max(self.largest_frame_bytes, len(data))
        for watch in self.watchers:
            watch(source, target, frame)
        digest = hashlib.blake2b(data, digest_size=4).hexdigest()
        self._trace.note(f"send {source} {target} {len(data)} {digest}", lambda: describe(frame))
        pipe = connection.peer_of(side).inbox
        if self.is_cut(source, target) or connection.broken:
            return
        if self._strikes(Fault.DROP):
            return
        if self._strikes(Fault.BREAK):
            self._break(connection, self._delay_s(), self._delay_s())
            return
        if self._strikes(Fault.HALF_OPEN):
            ends_s = [self._delay_s(), self._keepalive_s()]
            self._rng.shuffle(ends_s)
            self._break(connection, *ends_s)
            return
        self._schedule(connection, side, pipe, data)

    def _schedule(self, connection: Connection, side: Stream[Any, Any], pipe: Pipe, data: bytes) -> None:
        at_s = self._loop.time() + self._delay_s()
        if self._strikes(Fault.SLOW_FRAME):
            at_s += self._rng.uniform(SLOW_MIN_S, SLOW_MAX_S)
        if self._strikes(Fault.REORDER):
            # It waits for a moment, and those behind it do not.
            self._at(at_s + self._rng.uniform(0, 0.05), connection, side, data)
        else:
            pipe.last_at_s = at_s = max(at_s, pipe.last_at_s + ORDER_GAP_S)
            self._at(at_s, connection, side, data)
        if self._strikes(Fault.DUPLICATE):
            self._at(at_s + self._rng.uniform(0, 0.5), connection, side, data)

    def _at(self, at_s: float, connection: Connection, side: Stream[Any, Any], data: bytes) -> None:
        receiver = connection.peer_of(side)
        receiver.inbox.unread += 1
        self._later(at_s - self._loop.time(), self._deliver, connection, receiver, data)

    def _deliver(self, connection: Connection, receiver: Stream[Any, Any], data: bytes) -> None:
        if connection.broken or receiver.closed:
            return
        receiver.inbox.arrived.append(data)
        receiver.inbox.changed.set()

    def _break(self, connection: Connection, client_s: float, server_s: float) -> None:
        """Lose all that is under way, and tell each side in its own time."""
        if connection.broken:
            return
        connection.broken = True
        self._later(client_s, self._end, connection, connection.client)
        self._later(server_s, self._end, connection, connection.server)

    def tell_end(self, connection: Connection, side: Stream[Any, Any]) -> None:
        """Tell one side that the other is gone: after what is under way, or much later where nothing passes."""
        source, target = connection.hosts_from(side)
        delay_s = max(self._delay_s(), side.inbox.last_at_s - self._loop.time() + ORDER_GAP_S)
        if self.is_cut(target, source) or self._strikes(Fault.HALF_OPEN):
            delay_s = self._keepalive_s()
        self._later(delay_s, self._end, connection, side)

    def _end(self, connection: Connection, side: Stream[Any, Any]) -> None:
        side.end()
        if connection.client.closed and connection.server.closed and connection in self._connections:
            self._connections.remove(connection)

    # -- Calls

    async def call(
        self, source: str, target: str, serve: Callable[[], Coroutine[Any, Any, Reply]], *, timeout_s: float
    ) -> Reply:
        """Have the process at a host serve a call. CallFailedError when no reply came; its own errors pass."""
        self._trace.note(f"call {source} {target}")
        reply: asyncio.Future[Reply] = self._loop.create_future()
        if not self.is_cut(source, target) and not self._strikes(Fault.CALL_LOST):
            self._later(self._delay_s(), self._serve, source, target, serve, reply)
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise CallFailedError(f"no reply from {target} within {timeout_s} s") from None

    def _serve(
        self, source: str, target: str, serve: Callable[[], Coroutine[Any, Any, Reply]], reply: asyncio.Future[Reply]
    ) -> None:
        if target not in self._listeners:
            self._fail_later(reply)
            return
        process, _ = self._listeners[target]
        self._calls.append((process, reply))

        def served(task: asyncio.Task[Reply]) -> None:
            self._calls.remove((process, reply))
            # Seen, though its caller may be gone.
            _ = task.cancelled() or task.exception()
            if process.life is Life.CRASHED or self.is_cut(target, source) or self._strikes(Fault.REPLY_LOST):
                return
            self._later(self._delay_s(), _pass_on, task, reply)

        self._loop.start(process, serve()).add_done_callback(served, context=self._loop.world_context)

    def _fail_later(self, reply: asyncio.Future[Any]) -> None:
        def fail() -> None:
            if not reply.done():
                reply.set_exception(CallFailedError("the connection is gone"))

        self._later(self._delay_s(), fail)

    # -- Chance

    def _strikes(self, fault: Fault) -> bool:
        if self.weather.strikes(fault, self._rng):
            self._tally[fault] += 1
            self._trace.note(f"fault {fault.name}")
            return True
        return False

    def _delay_s(self) -> float:
        return self._rng.uniform(DELAY_MIN_S, DELAY_MAX_S)

    def _keepalive_s(self) -> float:
        return self._rng.uniform(KEEPALIVE_MIN_S, KEEPALIVE_MAX_S)

    def _later(self, delay_s: float, callback: Callable[..., object], *args: object) -> None:
        self._loop.call_later(delay_s, callback, *args, context=self._loop.world_context)


class SimulatedTransport:
    """The seam's FrameTransport: opens sessions from one host to another."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target

    async def connect(self) -> ClientSide:
        """Open a session. StreamClosedError when the participant cannot be reached."""
        return await self._network.connect(self._source, self._target)


def _refuse(stream: ServerSide) -> None:
    """End a stream that nobody takes."""
    stream.end()


def _pass_on(task: asyncio.Task[Reply], reply: asyncio.Future[Reply]) -> None:
    """Give the caller what the served call gave."""
    if reply.done():
        return
    if task.cancelled():
        reply.set_exception(CallFailedError("the call was cancelled where it was served"))
    elif (error := task.exception()) is not None:
        reply.set_exception(error)
    else:
        reply.set_result(task.result())
