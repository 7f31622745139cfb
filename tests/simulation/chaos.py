"""What happens to hosts while a run is bad: crashes, pauses, cuts, an outage of the log; each kind by its own seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Final

from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.faults import EVENTS, Fault, Sight
from tests.simulation.hosts import Host, Surroundings
from tests.simulation.log_server import LogServer
from tests.simulation.loop import Process

DOWN_S: Final = (0.01, 8.0)
# A short one, or one that outlives a lease.
PAUSES_S: Final = ((0.05, 2.0), (3.5, 12.0))
CUT_S: Final = (0.1, 15.0)
OUTAGE_S: Final = (0.1, 6.0)
PAUSE_STEPS_MAX: Final = 60
FUSE_STEPS_MAX: Final = 400


Strike = Callable[[Random], Coroutine[Any, Any, None]]


class Chaos:
    """Strikes while ``run`` runs. ``stepped`` must be called after every step of every process."""

    def __init__(
        self,
        around: Surroundings,
        hosts: Sequence[Host],
        log_server: LogServer,
        others: Mapping[Fault, Strike],
    ) -> None:
        self._around = around
        self._hosts = hosts
        self._log_server = log_server
        # What others do to the world, at the rates of the mix.
        self._others = others
        self._rngs = {fault: Random(f"{around.mix.seed}:chaos:{fault.name}") for fault in EVENTS}
        self._fuses: dict[str, tuple[int, Callable[[Process], None]]] = {}
        self.crashes = 0

    async def run(self) -> None:
        """Let each kind of event of the mix happen at its rate, until cancelled."""
        strikes: Mapping[Fault, Strike] = {
            Fault.CUT_ONE_WAY: lambda rng: self._cut(rng, both=False),
            Fault.CUT_BOTH_WAYS: lambda rng: self._cut(rng, both=True),
            Fault.CRASH_COORDINATOR: lambda rng: self._crash(rng, Fault.CRASH_COORDINATOR),
            Fault.CRASH_PARTICIPANT: lambda rng: self._crash(rng, Fault.CRASH_PARTICIPANT),
            Fault.CRASH_AT_STEP: self._crash_at_step,
            Fault.PAUSE_COORDINATOR: lambda rng: self._pause(rng, Fault.PAUSE_COORDINATOR),
            Fault.PAUSE_PARTICIPANT: lambda rng: self._pause(rng, Fault.PAUSE_PARTICIPANT),
            Fault.STOP_COORDINATOR: self._stop,
            Fault.LOG_OUTAGE: self._log_outage,
            **self._others,
        }
        async with asyncio.TaskGroup() as tasks:
            for fault, strike in strikes.items():
                if rate := self._around.mix.chance(fault):
                    tasks.create_task(self._repeat(fault, rate, strike))

    def stepped(self, process: Process) -> None:
        """Strike the process if its fuse has burnt down."""
        if self._fuses and process.name in self._fuses:
            at_step, strike = self._fuses[process.name]
            if process.steps >= at_step:
                del self._fuses[process.name]
                strike(process)

    def kill(self, process: Process, rng: Random) -> None:
        """Kill the host that runs the process, and start it again in a while."""
        for host in self._hosts:
            if host.process is process:
                self.crashes += 1
                host.kill()
                host.start_later(_spread(rng, DOWN_S))

    def heal(self) -> None:
        """Undo what lasts: every host runs."""
        self._fuses.clear()
        self._log_server.is_out = False
        for host in self._hosts:
            if host.process is not None:
                self._around.loop.resume(host.process)
            host.start()

    async def _repeat(self, fault: Fault, rate: float, strike: Strike) -> None:
        rng = self._rngs[fault]
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(rng.expovariate(rate))
                tasks.create_task(strike(rng))

    def _count(self, fault: Fault) -> None:
        self._around.tally[fault] += 1
        self._around.trace.note(f"fault {fault.name}")

    async def _crash(self, rng: Random, fault: Fault) -> None:
        host = rng.choice([host for host in self._hosts if host.crash_fault is fault])
        if host.process is not None:
            self._count(fault)
            self.kill(host.process, rng)

    async def _crash_at_step(self, rng: Random) -> None:
        self.crash_in(rng.choice(self._hosts), rng.randint(1, FUSE_STEPS_MAX))

    def crash_in(self, host: Host, steps: int) -> None:
        """Kill the host's process when it has made so many more steps."""

        def crash(process: Process) -> None:
            self._count(Fault.CRASH_AT_STEP)
            self.kill(process, self._rngs[Fault.CRASH_AT_STEP])

        self._light(host, steps, crash)

    def _light(self, host: Host, steps: int, strike: Callable[[Process], None]) -> None:
        """Strike a host's process when it has made so many more steps; one strike waits for each process."""
        if host.process is not None:
            self._fuses[host.process.name] = (host.process.steps + steps, strike)

    async def _pause(self, rng: Random, fault: Fault) -> None:
        """Stop a process in the midst of its work, for a while."""
        host = rng.choice([host for host in self._hosts if host.pause_fault is fault])
        pause_s = _spread(rng, rng.choice(PAUSES_S))

        def stop(process: Process) -> None:
            self._count(fault)
            self._around.loop.pause(process)
            self._around.loop.call_later(pause_s, self._resume, host, process, context=self._around.loop.world_context)

        self._light(host, rng.randint(1, PAUSE_STEPS_MAX), stop)

    def _resume(self, host: Host, process: Process) -> None:
        if isinstance(host, CoordinatorHost) and host.process is process and host.is_fenced:
            self._around.tally[Sight.WOKE_FENCED] += 1
        self._around.loop.resume(process)

    async def _stop(self, rng: Random) -> None:
        """Tell a coordinator to stop, as SIGTERM does."""
        host = rng.choice([host for host in self._hosts if isinstance(host, CoordinatorHost)])
        if host.stop():
            self._count(Fault.STOP_COORDINATOR)

    async def _cut(self, rng: Random, *, both: bool) -> None:
        one, other = (host.name for host in rng.sample(list(self._hosts), 2))
        network = self._around.network
        self._count(Fault.CUT_BOTH_WAYS if both else Fault.CUT_ONE_WAY)
        network.cut(one, other)
        if both:
            network.cut(other, one)
        await asyncio.sleep(_spread(rng, CUT_S))
        network.heal(one, other)
        if both:
            network.heal(other, one)

    async def _log_outage(self, rng: Random) -> None:
        self._count(Fault.LOG_OUTAGE)
        self._log_server.is_out = True
        await asyncio.sleep(_spread(rng, OUTAGE_S))
        self._log_server.is_out = False


def _spread(rng: Random, bounds_s: tuple[float, float]) -> float:
    """Draw a duration whose logarithm is even: short ones as often as long ones."""
    low, high = bounds_s
    return low * (high / low) ** rng.random()
