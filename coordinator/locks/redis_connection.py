"""The one place that talks to redis-py: scripts to a node, a sentinels' primary, or a cluster.

redis-py leaves many of its types open; here they are closed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from coordinator.locks.lock_store import LockStoreUnavailableError
from coordinator.locks.redis_address import RedisAddress

ANSWER_WITHIN_S: Final = 2.0
_SCRIPTS: Final = files("coordinator.locks") / "lua"

Reply = Any  # A script's reply is bytes, integers and lists of them, as the script's own text says.


class RedisConnection:
    """Connections to one Redis, made when they are needed. ``LockStoreUnavailableError`` where it does not answer."""

    def __init__(self, address: RedisAddress, *, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._client, self._sentinel = _client(address, answer_within_s)
        prelude = (_SCRIPTS / "prelude.lua").read_text()
        self._scripts: Final = {
            entry.name.removesuffix(".lua"): (prelude + entry.read_text()).encode()
            for entry in _SCRIPTS.iterdir()
            if entry.name.endswith(".lua") and entry.name != "prelude.lua"
        }
        # The name by which Redis knows a script, and no secret: it asks for SHA-1.
        self._names: Final = {
            name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in self._scripts.items()
        }

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Reply:
        """Run a script, atomically, giving the server its text where it does not know it."""
        with _asking():
            try:
                return await self._client.evalsha(self._names[script], len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._client.eval(self._scripts[script], len(keys), *keys, *arguments)

    async def pop(self, key: str, within_s: float) -> list[str]:
        """Wait for a list to have something, and take it out; nothing when nothing came in time."""
        with _asking():
            found = await self._client.blpop([key], timeout=within_s)
        if found is None:
            return []
        with _asking():
            more = await self._client.lpop(key, 1000)
        return [item.decode() for item in (found[1], *(more or ()))]

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.aclose()
        for sentinel in self._sentinel.sentinels if self._sentinel else ():
            await sentinel.aclose()


@contextmanager
def _asking() -> Generator[None]:
    """Translate what goes wrong within the block, and see to it that a cancellation gets through.

    redis-py sends by ``asyncio.wait_for``, which before Python 3.12 swallows a cancellation that comes just when the
    sending is done: the task would go on as if nobody had cancelled it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except _UNAVAILABLE as error:
        if task is None or task.cancelling() <= before:
            raise LockStoreUnavailableError(f"Redis does not answer: {error or type(error).__name__}") from error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


_UNAVAILABLE: Final = (RedisError, RedisClusterException, OSError, TimeoutError)


def _client(address: RedisAddress, answer_within_s: float) -> tuple[Any, Sentinel | None]:
    """The client for a kind of Redis, untyped: the kinds share no type but their commands."""
    options: dict[str, Any] = {
        "username": address.username or None,
        "password": address.password or None,
        "ssl": address.tls,
        "socket_timeout": answer_within_s,
        "socket_connect_timeout": answer_within_s,
        # Whoever asks knows better whether to ask again.
        "retry": Retry(NoBackoff(), 0),
    }
    match address.kind:
        case "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.nodes]
            # Where a slot has moved, it looks again where to.
            options["retry"] = Retry(NoBackoff(), 2)
            return RedisCluster(startup_nodes=nodes, **options), None
        case "sentinel":
            asked = {"socket_timeout": answer_within_s, "password": address.sentinel_password or None}
            sentinel = Sentinel(list(address.nodes), sentinel_kwargs=asked, **options)
            client: Redis = sentinel.master_for(address.name, db=address.database)  # pyright: ignore[reportUnknownMemberType]  Its options are untyped.
            return client, sentinel
        case _:
            host, port = address.nodes[0]
            return Redis(host=host, port=port, db=address.database, **options), None
