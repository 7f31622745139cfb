"""Clients that send transactions and keep what they were told. They live in a process that nobody kills.

Each intent has a name, its ``request_id``, which its effects carry: in the bookkeeper's
description, as the orders' user and in the bank's rows. So what a client was told can be
compared with what the databases hold, past the product. A client insists, with pauses, until it
is told for good: COMMITTED, or ROLLED_BACK without *retry*.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from participant_sdk.client_errors import Failed, error_of
from participant_sdk.client_results import Committed, Ending, RolledBack, Wait
from participant_sdk.client_wire import read_ending, set_timeout, write_execute
from participant_sdk.coordinators import Coordinators, client_backoff
from participant_sdk.participant import Operation

CLIENTS: Final = 16
CHANNELS: Final = 8
PAUSE_S: Final = 0.05
# One try: the coordinator's own time-out, and how long a client listens for its answer.
TRY_S: Final = 5.0
REPLY_S: Final = 8.0
TILL: Final = "till"
SHOP: Final = "shop"
CURRENCY: Final = "USD"
# More than the till has.
TOO_MUCH: Final = "900000000"
STOCK: Final = "100000000"


@dataclass(slots=True)
class Intent:
    """One thing that a client wants, and all that it was told of it. Not frozen: it is told several times.

    ``insists``: it sends until it is told for good.
    """

    request_id: str
    participants: tuple[str, ...]
    operations: tuple[Operation, ...]
    began_s: float
    told: list[Ending] = field(default_factory=list[Ending])
    heard: str = ""
    ended_s: float = 0.0
    insists: bool = True

    @property
    def ending(self) -> Ending | None:
        """What it was told for good; None while it was not."""
        final = [each for each in self.told if not (isinstance(each, RolledBack) and each.retry)]
        return final[-1] if final else None


class Load:
    """Sixteen clients in closed loops, for the time between ``start`` and ``stop``.

    ``intents`` are all there were, in order of their beginning; ``last_commit_s`` of those that began after
    ``mark`` is when the first was told COMMITTED.
    """

    def __init__(self, addresses: Sequence[str], participants: Sequence[str], prefix: str, seed: int) -> None:
        self.intents: list[Intent] = []
        self.committed = 0
        # Clients begin at one coordinator or the other, and stay with it while it answers.
        self._coordinators = [Coordinators(addresses) for _ in range(CHANNELS)]
        self._participants = tuple(participants)
        self._prefix = prefix
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, clients: int = CLIENTS) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(self._client(self._coordinators[number % CHANNELS])) for number in range(clients)
        ]

    async def stop(self, within_s: float) -> None:
        """Begin nothing more, and wait until every client was told; those that are not in time give up."""
        self._stopping.set()
        _, late = await asyncio.wait(self._tasks, timeout=within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        for coordinators in self._coordinators:
            await coordinators.close()

    async def until_committed(self, count: int, within_s: float) -> None:
        """Wait until so many were told COMMITTED. TimeoutError."""
        async with asyncio.timeout(within_s):
            while self.committed < count:
                self._progress.clear()
                await self._progress.wait()

    async def first_commit_after(self, moment_s: float, within_s: float) -> float:
        """When the first intent that began after this moment was told COMMITTED. TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                for intent in reversed(self.intents):
                    if intent.began_s < moment_s:
                        break
                    if isinstance(intent.ending, Committed):
                        return min(
                            each.ended_s
                            for each in self.intents
                            if each.began_s >= moment_s and isinstance(each.ending, Committed)
                        )
                self._progress.clear()
                await self._progress.wait()

    async def until_told(self, moment_s: float, within_s: float) -> None:
        """Wait until all that began before this moment were told for good. TimeoutError."""
        async with asyncio.timeout(within_s):
            while any(each.ending is None for each in self.intents if each.began_s < moment_s):
                self._progress.clear()
                await self._progress.wait()

    async def _client(self, coordinators: Coordinators) -> None:
        while not self._stopping.is_set():
            intent = self._next()
            self.intents.append(intent)
            if self._random.random() < 0.05:
                # Two callers of one intent: one effect, and both are told the same.
                await asyncio.gather(*[self._insist(intent, each) for each in (coordinators, self._coordinators[0])])
            else:
                await self._insist(intent, coordinators)
            await asyncio.sleep(PAUSE_S)

    def _next(self) -> Intent:
        request_id = f"{self._prefix}-{len(self.intents)}"
        shares = self._random.choice((2, len(self._participants)))
        chosen = sorted(self._random.sample(self._participants, shares))
        too_much = self._random.random() < 0.15
        operations = [self._operation(each, request_id, too_much=too_much) for each in chosen]
        return Intent(request_id, tuple(chosen), tuple(operations), time.monotonic())

    def _operation(self, participant: str, request_id: str, *, too_much: bool) -> Operation:
        match participant:
            case "bookkeeper":
                amount = TOO_MUCH if too_much else "1"
                parameters = (
                    f'{{"from_user_id":"{TILL}","to_user_id":"{SHOP}","currency":"{CURRENCY}",'
                    f'"amount":"{amount}","description":"{request_id}"}}'
                )
                return Operation(participant, "transfer_funds", parameters)
            case "trading":
                amount = "10000" if too_much else "0.01"
                parameters = (
                    f'{{"user_id":"{request_id}","symbol":"BTC/USD","side":"sell","amount":"{amount}","price":"50000"}}'
                )
                return Operation(participant, "place_order", parameters)
            case _:
                name = self._random.choice(("credit", "credit_told"))
                return Operation(participant, name, f'{{"request":"{request_id}","amount":"1"}}')

    async def _insist(self, intent: Intent, coordinators: Coordinators) -> None:
        request = write_execute(intent.operations, intent.request_id, Wait.APPLIED)
        set_timeout(request.timeout, TRY_S)
        backoff = client_backoff()
        while True:
            answer = await coordinators.ask(
                lambda stub: stub.Execute, request, REPLY_S, lambda reply: read_ending(reply.result, intent.request_id)
            )
            if isinstance(answer, Failed):
                intent.heard = f"{answer}"
                assert error_of(answer) is None, f"{intent.request_id}: {answer}"
            else:
                intent.told.append(answer)
                if isinstance(answer, Committed) or not answer.retry:
                    break
            await asyncio.sleep(backoff.next_s())
        intent.ended_s = intent.ended_s or time.monotonic()
        self.committed += isinstance(answer, Committed)
        self._progress.set()
