"""Kills, with -9, at moments drawn from the seed: each while the day goes on, and how long until the first success."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from coordinator.demo.callers import Callers
from participant_sdk.operations import Parameter

COORDINATOR: Final = "coordinator"

# Kills come in this part of the day's steps: under load, the first and the last too.
_FROM: Final = 0.02
_TO: Final = 0.85
_LOOK_AGAIN_S: Final = 0.05
# Asked for what it does not have, the wallet says no with a reason: that is an answer, too.
_READS: Final[Mapping[str, tuple[str, Mapping[str, Parameter]]]] = {
    "bookkeeper": ("account_balance", {"user_id": "house:fees", "currency": "USD"}),
    "trading": ("order_book", {"symbol": "BTC/USD"}),
    "settlement": ("net_position", {"user_id": "nobody", "currency": "USD"}),
    "fiat": ("deposit_status", {"bank_reference": "none"}),
    "wallet": ("withdrawal_status", {"withdrawal_id": "none"}),
}


class Steps:
    """How far the day is. Mutable: it counts."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.done = 0
        self._wakers: dict[int, asyncio.Event] = {}

    def step_done(self) -> None:
        """Count one."""
        self.done += 1
        if (waker := self._wakers.pop(self.done, None)) is not None:
            waker.set()

    async def reached(self, share: float) -> None:
        """Return when so much of the day is over."""
        wanted = max(1, int(share * self.planned))
        if wanted > self.done:
            await self._wakers.setdefault(wanted, asyncio.Event()).wait()


@dataclass(frozen=True, slots=True)
class Kill:
    """A process killed, how far the day was, and the seconds until what needs it succeeded again."""

    process: str
    at_share: float
    recovered_s: float


def plan(processes: Sequence[str], each: int, random: Random) -> list[tuple[float, str]]:
    """Which process is killed when, as shares of the day: every one ``each`` times, in random order."""
    victims = [name for name in processes for _ in range(each)]
    random.shuffle(victims)
    return list(zip(sorted(random.uniform(_FROM, _TO) for _ in victims), victims, strict=True))


async def strike(callers: Callers, steps: Steps, share: float, process: str) -> Kill:
    """Kill the process when so much of the day is over, and wait for the first success afterwards."""
    await steps.reached(share)
    pid = await _running(callers.system.data / "logs" / f"{process}.pid")
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    await _succeed(callers, process)
    return Kill(process, share, time.monotonic() - began_s)


async def _running(pid_file: Path) -> int:
    """The process, once it runs: it may be down from the kill before."""
    while not (pid_file.exists() and (text := pid_file.read_text().strip())):  # noqa: ASYNC110, ASYNC240 - another process has no event
        await asyncio.sleep(_LOOK_AGAIN_S)
    return int(text)


async def _succeed(callers: Callers, process: str) -> None:
    if process in callers.system.simulators:
        await callers.company(process, "GET", "/development/totals")
    else:
        name = "settlement" if process == COORDINATOR else process
        operation, parameters = _READS[name]
        await callers.probe(name, operation, parameters)
