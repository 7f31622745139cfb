"""An asyncio event loop on virtual time, whose every choice comes from a seed.

Nothing here waits: when no callback is ready, time jumps to the next timer. Among the
processes that have something ready the seed chooses, and (if ``shuffled``) among one
process's ready callbacks too. There are no sockets, no threads and no signals.

A ``Process`` is what a machine's process would be: its callbacks carry it in their context,
so every task that one of its tasks starts belongs to it. A crashed process is *parked*: its
callbacks never run again, and nothing of it is cancelled or freed, because kill -9 runs no
``finally``. A paused one (SIGSTOP) is parked until it is resumed; time goes on meanwhile.

The same seed gives the same run under any PYTHONHASHSEED: tasks and futures hash by their
number, not by their address, so that even asyncio's own sets of them keep one order.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from enum import Enum, auto
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, TypeVarTuple, Unpack

STEPS_MAX: Final = 5_000_000
BURIAL_STEPS_MAX: Final = 1_000_000

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StuckError(Exception):
    """Nothing is ready and no timer is set, or the bound on steps was reached: the run cannot end."""


class Life(Enum):
    """Whether a process's callbacks run."""

    RUNNING = auto()
    PAUSED = auto()
    CRASHED = auto()


class Process:
    """One life of one simulated process. ``steps`` counts its callbacks that ran."""

    __slots__ = ("keep", "life", "name", "ready", "steps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = Life.RUNNING
        self.ready: deque[asyncio.Handle] = deque()
        self.steps = 0
        # What must live as long as the run, so that nothing of a crashed process is ever freed.
        self.keep: list[object] = []

    def __repr__(self) -> str:
        return f"Process({self.name}, {self.life.name})"


_current: ContextVar[Process] = ContextVar("process")


class Failure(NamedTuple):
    """An exception that nobody caught."""

    at_s: float
    process: str
    message: str
    exception: BaseException | None


class NumberedTask(asyncio.Task[T]):
    """A task that hashes by its number, so that sets of tasks have one order in every run."""

    number: int = 0
    process: Process

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future[T]):
    """A future that hashes by its number."""

    number: int = 0

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop. ``step_max_s`` bounds the virtual time that one callback takes, drawn each time."""

    def __init__(self, rng: Random, *, shuffled: bool = False, step_max_s: float = 0.0) -> None:
        super().__init__()
        self._rng = rng
        self._shuffled = shuffled
        self._step_max_s = step_max_s
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._numbers = 0
        self._runnable: list[Process] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._buried = False
        self.world = Process("world")
        self.processes: list[Process] = [self.world]
        self._stepping = self.world
        # For what must go on whatever becomes of the process that asks for it.
        self.world_context = _context_of(self.world)
        self.failures: list[Failure] = []
        self.steps = 0
        # How long all machines together were suspended: wall clocks went on, and nothing else did.
        self.slept_s = 0.0
        # Called after every step of a process but the world's; it may crash or pause it.
        self.after_step: Callable[[Process], None] = _nothing

    # -- Processes

    def spawn(self, name: str) -> Process:
        """Make a process; nothing runs in it yet."""
        process = Process(name)
        self.processes.append(process)
        return process

    def start(self, process: Process, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task within the process; what it starts belongs to the process too."""
        return self.create_task(coroutine, context=_context_of(process))

    def call_in(self, process: Process, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> asyncio.Handle:
        """Run the callback soon, as a part of the process."""
        return self.call_soon(callback, *args, context=_context_of(process))

    def crash(self, process: Process) -> None:
        """Park the process for ever: no callback of it runs again, and no ``finally``."""
        process.life = Life.CRASHED
        self._park(process)
        process.keep += [t for t in asyncio.all_tasks(self) if isinstance(t, NumberedTask) and t.process is process]

    def pause(self, process: Process) -> None:
        """Stop a running process as SIGSTOP does."""
        if process.life is Life.RUNNING:
            process.life = Life.PAUSED
            self._park(process)

    def resume(self, process: Process) -> None:
        """Let a paused process go on with all that has become due meanwhile."""
        if process.life is Life.PAUSED:
            process.life = Life.RUNNING
            if process.ready:
                self._runnable.append(process)

    def _park(self, process: Process) -> None:
        if process in self._runnable:
            self._runnable.remove(process)

    # -- What asyncio asks of a loop

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_s

    def get_debug(self) -> bool:
        """Never: debug mode reads the real clock."""
        return False

    def is_running(self) -> bool:
        """Whether this loop is the running one."""
        return events._get_running_loop() is self  # pyright: ignore[reportPrivateUsage] # The only way to ask.

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Make the callback ready, in the process that the context names."""
        context = contextvars.copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(context.get(_current, self.world), handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make the callback ready in this many virtual seconds."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make the callback ready at this virtual time."""
        context = contextvars.copy_context() if context is None else context
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self._number(), handle, context.get(_current, self.world)))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: a cancelled timer is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future whose place in sets is the same in every run."""
        future = NumberedFuture[Any](loop=self)
        future.number = self._number()
        return future

    def create_task(  # pyright: ignore[reportIncompatibleMethodOverride] # Each version of Python has its own keywords.
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Make a task of the process that the context, or else the caller, belongs to."""
        number = self._number()
        context = contextvars.copy_context() if context is None else context
        task = NumberedTask(coro, loop=self, name=str(name) if name else f"task-{number}", context=context)
        task.number = number
        task.process = context.get(_current, self.world)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught, for the harness to judge."""
        if not self._buried:
            process = self._stepping
            owner = context.get("task") or context.get("future")
            if isinstance(owner, NumberedTask):
                process = owner.process
            self.failures.append(
                Failure(self._now_s, process.name, str(context.get("message")), context.get("exception"))
            )

    # -- Running

    def run_until_complete(  # pyright: ignore[reportIncompatibleMethodOverride] # Bare generators are no coroutines.
        self, future: Awaitable[T]
    ) -> T:
        """Run until the future is done, and return its result. StuckError where that can never be."""
        with self._running():
            task = asyncio.ensure_future(future, loop=self)
            while not task.done():
                self._step()
                if self.steps > STEPS_MAX:
                    raise StuckError(f"{STEPS_MAX} steps, and no end, at {self._now_s:.3f} s")
            return task.result()

    def bury(self) -> int:
        """End the run quietly: let every pending task be cancelled, unheard. Returns how many would not end.

        Only now do the ``finally`` blocks of crashed processes run, when nothing that they
        touch means anything any more.
        """
        self._buried = True
        self.after_step = _nothing
        with self._running():
            for process in self.processes:
                if process.life is not Life.RUNNING:
                    process.life = Life.PAUSED
                    self.resume(process)
            limit = self.steps + BURIAL_STEPS_MAX
            while self.steps < limit and self._cancel_pending():
                with suppress(StuckError):
                    for _ in range(1_000):
                        self._step()
        pending = asyncio.all_tasks(self)
        for task in pending:
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue] # Quiet is asked for.
        self._timers.clear()
        self.close()
        return len(pending)

    def _cancel_pending(self) -> bool:
        """Cancel every task that is left; False when none is, or none can be moved."""
        pending = asyncio.all_tasks(self)
        for task in pending:
            task.cancel()
        return bool(pending) and bool(self._runnable or self._timers)

    @contextmanager
    def _running(self) -> Generator[None]:
        hooks = sys.get_asyncgen_hooks()
        # A generator that is dropped half-way would be closed by the collector, at no known time.
        sys.set_asyncgen_hooks(firstiter=self._generators.append, finalizer=_nothing)
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _step(self) -> None:
        """Run one ready callback; first let time pass if there is none."""
        self._ring()
        while not self._runnable:
            if not self._timers:
                raise StuckError(f"nothing is ready and no timer is set, at {self._now_s:.3f} s")
            self._now_s = max(self._now_s, self._timers[0][0])
            self._ring()
        process, handle = self._choose()
        self.steps += 1
        process.steps += 1
        self._stepping = process
        if not handle.cancelled():
            handle._run()
        if self._step_max_s:
            self._now_s += self._rng.random() * self._step_max_s
        if process is not self.world:
            self.after_step(process)

    def _ring(self) -> None:
        """Make ready every timer that is due."""
        while self._timers and self._timers[0][0] <= self._now_s:
            _, _, handle, process = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._enqueue(process, handle)

    def _enqueue(self, process: Process, handle: asyncio.Handle) -> None:
        if not process.ready and process.life is Life.RUNNING:
            self._runnable.append(process)
        process.ready.append(handle)

    def _choose(self) -> tuple[Process, asyncio.Handle]:
        at = self._rng.randrange(len(self._runnable)) if len(self._runnable) > 1 else 0
        process = self._runnable[at]
        ready = process.ready
        if self._shuffled and len(ready) > 1 and process is not self.world:
            ready.rotate(-self._rng.randrange(len(ready)))
        handle = ready.popleft()
        if not ready:
            self._runnable[at] = self._runnable[-1]
            self._runnable.pop()
        return process, handle

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def current_process(loop: SimulatedLoop) -> Process:
    """The process that the running callback belongs to."""
    return _current.get(loop.world)


def _nothing(_: object) -> None:
    """Do nothing."""


def _context_of(process: Process) -> Context:
    context = Context()
    context.run(_current.set, process)
    return context
