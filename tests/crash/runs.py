"""One kill at one point under load, what became of it, and how long it took until all was well again."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from tests.crash.checks import bound_of
from tests.crash.forcing import force_against_decision
from tests.crash.load import Load
from tests.crash.placing import Need, Part, Point
from tests.crash.points import named
from tests.crash.processes import Cluster, Process
from tests.crash.trials import SETTLED_WITHIN_S, Findings, trial, until_settled

HIT_WITHIN_S: Final = 20.0
# A survivor has finished so long after the kill.
SURVIVOR_WITHIN_S: Final = 10.0
NTH_MAX: Final = 12
# How long a coordinator lives in the crash loop: from its start to its takeover.
LOOP_LIFE_S: Final = (0.4, 6.0)


@dataclass(slots=True)
class Run(Findings):
    """What came of one kill at a point, at its ``nth`` hit. Times are seconds after the kill."""

    point: str = ""
    nth: int = 1
    was_hit: bool = False
    first_commit_s: float | None = None
    settled_s: float | None = None

    @property
    def is_good(self) -> bool:
        """The point was hit, and nothing is wrong."""
        return self.was_hit and not self.complaints


class Runner:
    """Kills at one point after the other in one cluster, which is whole again after each run."""

    def __init__(self, up: Cluster, name: str, seed: int) -> None:
        self._up = up
        self._name = name
        self._random = random.Random(seed)
        self._count = 0
        self._heuristics = 0

    async def run(self, point: Point) -> Run:
        """Kill at the point once, and judge. Never raises for what the product does."""
        run = Run(
            point=point.name, nth=1 if point.first or point.need is not Need.LOAD else self._random.randint(1, NTH_MAX)
        )
        async with self._trial(run) as load:
            killed_s, is_takeover = await self._kill(point, run)
            if not run.was_hit and not run.broken:
                # Whether a life comes by the point may hang on what the last one left to it: another death, then.
                killed_s, is_takeover = await self._kill(point, run)
            if run.was_hit:
                await self._measure(load, run, killed_s, is_takeover=is_takeover)
        return run

    async def kill_anything(self) -> Run:
        """kill -9 any process at any moment under load."""
        victim = self._random.choice(self._up.processes)
        run = Run(point=f"any moment: {victim.name.partition('-')[0]}", was_hit=True)
        async with self._trial(run) as load:
            await asyncio.sleep(self._random.random())
            victim.kill()
            killed_s = time.monotonic()
            victim.start()
            await self._measure(load, run, killed_s, is_takeover=False)
        return run

    async def crash_loop(self, kills: int, life_s: tuple[float, float] = LOOP_LIFE_S) -> Run:
        """Kill the coordinator in mid-commit, and then so many times while it recovers, each after such a time."""
        run = Run(point="crash loop", nth=kills)
        victim = self._up.coordinator
        async with self._trial(run) as load:
            victim.arm("COMMIT_FRAME_BEFORE", 3)
            killed_s = await victim.ended(HIT_WITHIN_S)
            run.was_hit = True
            for _ in range(kills):
                victim.start()
                await asyncio.sleep(self._random.uniform(*life_s))
                victim.kill()
                killed_s = time.monotonic()
            victim.start()
            await self._measure(load, run, killed_s, is_takeover=False)
        return run

    def _trial(self, run: Run) -> AbstractAsyncContextManager[Load]:
        self._count += 1
        seed = self._random.getrandbits(32)
        return trial(self._up, run, f"{self._name}{self._count}", seed, heuristics=self._heuristics_expected)

    def _heuristics_expected(self) -> int:
        return self._heuristics

    async def _kill(self, point: Point, run: Run) -> tuple[float, bool]:
        """Bring the process to the point; when it died, and whether another one takes over."""
        victim = self._victim(point)
        heir = victim
        if point.first:
            # Who recovers from the first death is the one that dies next: another coordinator, where there is one.
            await self._kill_first(victim, point.first)
            heir = (None if point.need is Need.START else self._other(victim)) or victim
            heir.arm(point.name, run.nth)
            if heir is victim:
                heir.start()
        else:
            heir.arm(point.name, run.nth)
        match point.need:
            case Need.STOP:
                heir.send(signal.SIGTERM)
            case Need.FORCE:
                self._heuristics += 1
                await force_against_decision(self._up, f"force{self._name}{self._count}")
            case Need.OUTAGE:
                await self._kill_first(self._up.sidecars["trading"], "VOTE_FRAME_BEFORE")
                self._up.sidecars["trading"].start()
            case Need.LOAD | Need.START:
                pass
        try:
            killed_s = await heir.ended(HIT_WITHIN_S)
        except TimeoutError:
            heir.disarm()
            self._up.start_all()
            return 0.0, False
        run.was_hit = not heir.armed.exists()
        heir.disarm()
        if not run.was_hit:
            run.broken.append(f"{heir.name} ended by itself:\n{heir.log_end()}")
        is_takeover = point.part is Part.COORDINATOR and not point.first and self._other(victim) is not None
        if not is_takeover:
            self._up.start_all()
        return killed_s, is_takeover

    async def _kill_first(self, victim: Process, point: str) -> None:
        victim.arm(named(point).name, 2)
        await victim.ended(HIT_WITHIN_S)

    def _victim(self, point: Point) -> Process:
        if point.part is Part.COORDINATOR and point.need not in (Need.LOAD, Need.START):
            # What is provoked is provoked at the first one.
            return self._up.coordinator
        if point.part is Part.COORDINATOR:
            return self._random.choice(self._up.coordinators).process
        return self._up.sidecars[point.part.value]

    def _other(self, victim: Process) -> Process | None:
        """Another coordinator than this one; None if it is a participant, or the only one."""
        coordinators = [each.process for each in self._up.coordinators]
        return next((each for each in coordinators if each is not victim), None) if victim in coordinators else None

    async def _measure(self, load: Load, run: Run, killed_s: float, *, is_takeover: bool) -> None:
        """Wait until work goes on, and until nothing of before the kill is open."""
        below = bound_of(time.time_ns() // 1_000_000 - int((time.monotonic() - killed_s) * 1000))
        async with asyncio.TaskGroup() as group:
            commit = group.create_task(load.first_commit_after(killed_s, SETTLED_WITHIN_S))
            settled = group.create_task(self._settled(load, below, killed_s))
        run.first_commit_s = commit.result() - killed_s
        run.settled_s = settled.result() - killed_s
        if is_takeover and run.settled_s > SURVIVOR_WITHIN_S:
            run.late.append(f"the survivor took {run.settled_s:.1f} s")

    async def _settled(self, load: Load, below: str, killed_s: float) -> float:
        await load.until_told(killed_s, SETTLED_WITHIN_S)
        await until_settled(self._up, below)
        return time.monotonic()
