"""The simulated network by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from pincex.tx.v1 import resource_pb2

from participant_sdk.transport import StreamClosedError
from tests.simulation.faults import Fault, Tally
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import (
    KEEPALIVE_MAX_S,
    WINDOW_FRAMES,
    CallFailedError,
    ClientSide,
    Network,
    ServerSide,
    Weather,
)
from tests.simulation.trace import Trace


class Scene:
    """A client's host and a server's, whose streams are kept here."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimulatedLoop(Random(seed))
        self.tally = Tally()
        self.trace = Trace(self.loop)
        self.network = Network(self.loop, Random(seed + 1), self.trace, self.tally)
        self.client = self.loop.spawn("client")
        self.server = self.loop.spawn("server")
        self.streams: asyncio.Queue[ServerSide] = asyncio.Queue()
        self.network.listen("server", self.server, self.streams.put_nowait)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await scenario()

        async def in_client() -> None:
            await self.loop.start(self.client, main())

        self.loop.run_until_complete(in_client())
        assert self.loop.bury() == 0

    async def connect(self) -> tuple[ClientSide, ServerSide]:
        stream = await self.network.transport("client", "server").connect()
        return stream, await self.streams.get()


def request(epoch: int) -> resource_pb2.SessionRequest:
    return resource_pb2.SessionRequest(epoch=epoch)


async def send_all(stream: ClientSide, count: int) -> None:
    for epoch in range(count):
        await stream.send(request(epoch))


async def epochs(stream: ServerSide, for_s: float) -> list[int]:
    """The epochs of all frames that arrive within a time."""
    got: list[int] = []
    try:
        async with asyncio.timeout(for_s):
            while True:
                got.append((await stream.receive()).epoch)
    except (TimeoutError, StreamClosedError):
        return got


def test_frames_arrive_in_order_as_copies() -> None:
    scene = Scene()

    async def scenario() -> None:
        client, server = await scene.connect()
        sent = request(7)
        await client.send(sent)
        await client.send(request(8))
        sent.epoch = 99
        assert await epochs(server, 1) == [7, 8]
        await server.send(resource_pb2.SessionResponse())
        assert await client.receive() == resource_pb2.SessionResponse()

    scene.run(scenario)


def test_a_sender_waits_while_the_window_is_full() -> None:
    scene = Scene()

    async def scenario() -> None:
        client, server = await scene.connect()
        sending = asyncio.create_task(send_all(client, WINDOW_FRAMES + 5))
        await asyncio.sleep(5)
        assert not sending.done()
        await server.receive()
        assert len(await epochs(server, 5)) == WINDOW_FRAMES + 4
        await sending

    scene.run(scenario)


def test_closing_is_heard_after_what_was_sent() -> None:
    scene = Scene()

    async def scenario() -> None:
        client, server = await scene.connect()
        await send_all(client, 3)
        await client.close()
        await client.close()
        assert await epochs(server, 10) == [0, 1, 2]
        with pytest.raises(StreamClosedError):
            await server.send(resource_pb2.SessionResponse())
        with pytest.raises(StreamClosedError):
            await client.receive()

    scene.run(scenario)


def test_a_host_that_is_down_refuses_and_its_streams_end() -> None:
    scene = Scene()

    async def scenario() -> None:
        client, _ = await scene.connect()
        scene.loop.crash(scene.server)
        scene.network.process_died(scene.server)
        with pytest.raises(StreamClosedError):
            await client.receive()
        with pytest.raises(StreamClosedError, match="refuses"):
            await scene.connect()

    scene.run(scenario)


def test_a_cut_breaks_streams_only_after_the_keepalive_time() -> None:
    scene = Scene()

    async def scenario() -> None:
        client, server = await scene.connect()
        scene.network.cut("client", "server")
        began_s = scene.loop.time()
        await client.send(request(1))
        assert await epochs(server, 2 * KEEPALIVE_MAX_S) == []
        with pytest.raises(StreamClosedError):
            await client.receive()
        assert scene.loop.time() - began_s > 1
        with pytest.raises(StreamClosedError, match="reached"):
            await scene.connect()
        scene.network.heal("client", "server")
        await scene.connect()

    scene.run(scenario)


def test_each_frame_fault_does_what_it_says() -> None:
    async def after_the_first(fault: Fault, scene: Scene) -> list[int]:
        client, server = await scene.connect()
        await client.send(request(0))
        assert (await server.receive()).epoch == 0
        scene.network.weather = Weather({fault: 0.3})
        sending = asyncio.create_task(send_all(client, 100))
        got = await epochs(server, 600)
        if not sending.done():
            sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return got

    outcomes: dict[Fault, list[int]] = {}
    for fault in (Fault.DROP, Fault.DUPLICATE, Fault.REORDER, Fault.BREAK, Fault.HALF_OPEN, Fault.SLOW_FRAME):
        scene = Scene()

        async def scenario(fault: Fault = fault, scene: Scene = scene) -> None:
            outcomes[fault] = await after_the_first(fault, scene)

        scene.run(scenario)
        assert scene.tally[fault] > 0
    assert len(outcomes[Fault.DROP]) < 100 and outcomes[Fault.DROP] == sorted(outcomes[Fault.DROP])
    assert len(outcomes[Fault.DUPLICATE]) > 100 and set(outcomes[Fault.DUPLICATE]) == set(range(100))
    assert sorted(outcomes[Fault.REORDER]) == list(range(100)) != outcomes[Fault.REORDER]
    assert len(outcomes[Fault.BREAK]) < 100
    assert len(outcomes[Fault.HALF_OPEN]) < 100
    assert outcomes[Fault.SLOW_FRAME] == list(range(100))


def test_a_call_is_served_in_its_process_and_its_errors_pass() -> None:
    scene = Scene()

    async def scenario() -> None:
        async def serve() -> str:
            await asyncio.sleep(1)
            return "served"

        async def fail() -> str:
            raise LookupError("no such thing")

        assert await scene.network.call("client", "server", serve, timeout_s=5) == "served"
        with pytest.raises(LookupError):
            await scene.network.call("client", "server", fail, timeout_s=5)
        with pytest.raises(CallFailedError):
            await scene.network.call("client", "nowhere", serve, timeout_s=5)

    scene.run(scenario)


@pytest.mark.parametrize("fault", [Fault.CALL_LOST, Fault.REPLY_LOST])
def test_a_lost_call_or_reply_is_a_failed_call(fault: Fault) -> None:
    scene = Scene()
    served: list[Process] = []

    async def scenario() -> None:
        async def serve() -> None:
            served.append(scene.server)

        scene.network.weather = Weather({fault: 1.0})
        with pytest.raises(CallFailedError):
            await scene.network.call("client", "server", serve, timeout_s=5)

    scene.run(scenario)
    assert bool(served) == (fault is Fault.REPLY_LOST)


def test_a_call_fails_when_its_server_dies() -> None:
    scene = Scene()

    async def scenario() -> None:
        async def serve() -> None:
            await asyncio.Event().wait()

        call = asyncio.create_task(scene.network.call("client", "server", serve, timeout_s=60))
        await asyncio.sleep(1)
        scene.loop.crash(scene.server)
        scene.network.process_died(scene.server)
        with pytest.raises(CallFailedError):
            await call
        assert scene.loop.time() < 2

    scene.run(scenario)
