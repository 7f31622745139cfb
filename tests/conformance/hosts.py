"""A participant in memory that can be killed and started again, and the exercise for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from participant_sdk.clock import SystemClock
from participant_sdk.conformance import Exercise, Means, Progress, Report, WorkOrder, run
from participant_sdk.participant import Answers, Operation, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_ledger import OPERATION_NAMES
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving

NAME: Final = "bank"
ACCOUNTS: Final = ("alice", "bob", "carol")
CLOCK: Final = SystemClock()
SLOW_S: Final = 0.4
EXPIRES_EVERY_S: Final = 0.1
PATIENCE_S: Final = 0.5
# How long a participant has to ask: it does so within two seconds, but where many share a slow machine.
ASKED_WITHIN_S: Final = 30.0

# The checks of a participant in doubt.
DOUBTS: Final = (
    "in doubt it asks and follows commit",
    "in doubt it asks and follows rollback",
    "in doubt it stays when the log forgot",
    "an inquiry says who asks and what",
    "in doubt it does not follow an older epoch",
    "in doubt it waits while nothing is decided",
    "in doubt it asks on after errors",
)


class Doubting(Progress):
    """Knows whether the kit puts the participant in doubt on purpose.

    On a slow machine, branches of other checks are in doubt too, for longer than the host's patience.
    Where nobody says which check begins, every doubt may be on purpose.
    """

    def __init__(self) -> None:
        self.is_on_purpose = True

    def began(self, count: int, check: str) -> None:
        """A check begins."""
        self.is_on_purpose = check in DOUBTS


# What serves a participant at host:port until the block ends.
Serve = Callable[[MemoryResource, str, Doubting], AbstractAsyncContextManager[int]]


def do(name: str, **parameters: str) -> Operation:
    return Operation(NAME, name, json.dumps(parameters))


BANK: Final = Exercise(
    NAME,
    yes=tuple(do("credit", account=account, amount="1") for account in ACCOUNTS),
    no=do("debit", account="alice", amount="1000000000"),
    invalid=do("credit", account="alice", amount="a lot"),
    observe=do("read", account="alice"),
    slow=do("slow_credit", account="alice", amount="1"),
)


class Bank(MemoryResource):
    """Accounts in memory, with one operation that takes its time."""

    operations = (*OPERATION_NAMES, "slow_credit")

    async def apply(self, work: Work) -> Answers:
        """Do a batch, the slow ones slowly."""
        prepares = list(work.prepares)
        for at, prepare in enumerate(prepares):
            if any(operation.name == "slow_credit" for operation in prepare.operations):
                await asyncio.sleep(SLOW_S)
                quick = tuple(each._replace(name=each.name.removeprefix("slow_")) for each in prepare.operations)
                prepares[at] = prepare._replace(operations=quick)
        return await super().apply(Work(work.commits, work.rollbacks, prepares))


@asynccontextmanager
async def by_the_sdk(resource: MemoryResource, address: str, doubting: Doubting) -> AsyncGenerator[int]:
    """Serve as services do, but asking soon."""
    async with serving(resource, address, worker_count=4, patience_s=PATIENCE_S, grace_s=0.0) as served:
        yield served.port


class Host:
    """One participant's process, as far as there can be one within another: its store survives a kill."""

    def __init__(self, kind: type[MemoryResource], serve: Serve = by_the_sdk) -> None:
        self.doubting = Doubting()
        self.store = MemoryStore(dict.fromkeys(ACCOUNTS, 100))
        self._kind = kind
        self._serve = serve
        self._resource = self._born()
        self._port = 0
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it serves, the same after a restart."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Begin to serve."""
        self._ending, up = asyncio.Event(), asyncio.Event()
        self._living = asyncio.create_task(self._live(up))
        await up.wait()

    async def stop(self) -> None:
        """Stop serving."""
        self._ending.set()
        assert self._living is not None
        await self._living

    async def restart(self) -> None:
        """Lose what was not flushed, and serve again at the same address."""
        await self.stop()
        self.store.crash()
        self._resource = self._born()
        await self.start()

    async def work(self, order: WorkOrder) -> None:
        """Do one operation under a branch, as an embedded service does."""
        deadline_s = CLOCK.monotonic_s() + order.remaining_ms / 1000
        self._resource.begin(order.log_id, order.xid, order.branch_number, deadline_s)
        self._resource.do(order.log_id, order.xid, BANK.yes[0])

    def violations(self) -> list[str]:
        """Broken invariants of its books."""
        return self._resource.invariants()

    def _born(self) -> MemoryResource:
        return self._kind(NAME, self.store, CLOCK)

    async def _live(self, up: asyncio.Event) -> None:
        async with self._serve(self._resource, self.address, self.doubting) as port, asyncio.TaskGroup() as group:
            self._port = port
            expiring = group.create_task(self._expire())
            up.set()
            await self._ending.wait()
            expiring.cancel()

    async def _expire(self) -> None:
        while True:
            await self._resource.expire()
            await asyncio.sleep(EXPIRES_EVERY_S)


async def judged(
    kind: type[MemoryResource], serve: Serve = by_the_sdk, asked_within_s: float = ASKED_WITHIN_S
) -> tuple[Report, Host]:
    """Run the kit, with all its means, on one kind of participant."""
    host = Host(kind, serve)
    await host.start()
    try:
        means = Means(host.restart, host.work, asked_within_s)
        return await run(host.address, BANK, means, progress=host.doubting), host
    finally:
        await host.stop()
