"""The two lock stores as worlds of one shape, and coordinators that claim in either."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Protocol

from coordinator.embedded.redis import EmbeddedRedis
from coordinator.locks.claims import Claim, Mode, Owner, Phase, Standing
from coordinator.locks.epochs import Epochs
from coordinator.locks.lock_store import LockStore
from coordinator.locks.lock_table import LockTable
from coordinator.locks.memory import MemoryLockStore
from coordinator.locks.redis_address import parse_address
from coordinator.locks.redis_connection import RedisConnection
from coordinator.locks.redis_store import RedisLockStore
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.clock import SystemClock

LOG_ID = "0123456789abcdef"
TTL_S = 30.0
SHORT_TTL_S = 0.05


class LockWorld(Protocol):
    """One store, seen from outside."""

    log: MemoryLog

    def handle(self, holder: int = 1, held_up_by: asyncio.Event | None = None) -> LockStore:
        """A coordinator's way to the store; ``held_up_by`` holds it up each time that it has drawn an epoch."""
        ...

    async def lose(self) -> None:
        """Have the store forget everything."""
        ...

    async def close(self) -> None: ...


class MemoryLockWorld:
    def __init__(self) -> None:
        self.log = _log()
        self._table = LockTable()

    def handle(self, holder: int = 1, held_up_by: asyncio.Event | None = None) -> LockStore:
        return MemoryLockStore(self._table, holder, _epochs(self.log, held_up_by), SystemClock())

    async def lose(self) -> None:
        self._table.forget()

    async def close(self) -> None: ...


class RedisLockWorld:
    """Each world is a log of its own within one Redis."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        self.log = _log()
        self._dsn = redis.dsn
        self._log_id = random.randbytes(8).hex()
        self._handles: list[LockStore] = []

    def handle(self, holder: int = 1, held_up_by: asyncio.Event | None = None) -> LockStore:
        connection = RedisConnection(parse_address(self._dsn))
        epochs = _epochs(self.log, held_up_by)
        store = RedisLockStore(connection, self._log_id, holder, epochs, random.Random(holder))
        self._handles.append(store)
        return store

    async def lose(self) -> None:
        await flush(self._dsn)

    async def close(self) -> None:
        for handle in self._handles:
            await handle.close()


async def flush(dsn: str) -> None:
    """FLUSHALL, over a connection of its own."""
    await command(dsn, "FLUSHALL")


async def command(dsn: str, *words: str) -> bytes:
    """Say something to a Redis as a person would, and return its first line."""
    address = parse_address(dsn)
    host, port = address.nodes[0]
    reader, writer = await asyncio.open_connection(host, port)
    answers: list[bytes] = []
    for line in (f"AUTH {address.password}", " ".join(words)):
        writer.write(f"{line}\r\n".encode())
        await writer.drain()
        answers.append(await reader.readline())
        assert not answers[-1].startswith(b"-"), answers[-1]
    writer.close()
    await writer.wait_closed()
    return answers[-1]


def claim(id_: str, owner: str, *keys: str, mode: Mode = Mode.EXCLUSIVE, born: int = 1, holder: int = 1) -> Claim:
    return Claim(id_, Owner(owner, born), tuple(sorted(keys)), mode, holder)


async def phases(store: LockStore, *ids: str) -> list[Phase]:
    told = await store.beat(ids, TTL_S)
    return [told[id_].phase for id_ in ids]


async def granted(store: LockStore, asked: Claim, ttl_s: float = TTL_S) -> int:
    """Claim what is free; return its token."""
    standing = await store.claim(asked, ttl_s)
    assert standing.phase is Phase.GRANTED
    return standing.token


async def until_phase(store: LockStore, id_: str, wanted: Phase) -> Standing:
    """Beat until a claim stands so: others' expire meanwhile."""
    async with asyncio.timeout(10):
        while (standing := (await store.beat([id_], TTL_S))[id_]).phase is not wanted:  # noqa: ASYNC110 - expiry has no event
            await asyncio.sleep(SHORT_TTL_S / 5)
    return standing


async def heard(store: LockStore) -> Collection[str]:
    """The next news, which must come."""
    async with asyncio.timeout(10):
        while not (told := await store.news(1.0)):
            pass
    return told


def _log() -> MemoryLog:
    return MemoryLog(MemoryLogStore(SystemClock(), LOG_ID))


class _HeldUp(Epochs):
    """Epochs that are drawn, and told only once the gate is open."""

    def __init__(self, log: MemoryLog, gate: asyncio.Event) -> None:
        super().__init__(log)
        self._gate = gate

    async def draw(self, reason: str) -> int:
        epoch = await super().draw(reason)
        await self._gate.wait()
        return epoch


def _epochs(log: MemoryLog, gate: asyncio.Event | None) -> Epochs:
    return Epochs(log) if gate is None else _HeldUp(log, gate)
