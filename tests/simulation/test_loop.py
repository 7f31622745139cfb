"""The virtual-time loop by itself."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from random import Random

import pytest

from tests.simulation.loop import Process, SimulatedLoop, StuckError


def loop_of(seed: int, *, shuffled: bool = True) -> SimulatedLoop:
    return SimulatedLoop(Random(seed), shuffled=shuffled)


def interleaving(seed: int) -> list[str]:
    """The order in which the steps of three processes with two tasks each ran."""
    loop = loop_of(seed)
    order: list[str] = []

    async def work(name: str) -> None:
        for step in range(3):
            order.append(f"{name}{step}")
            await asyncio.sleep(0)

    async def both(name: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work(f"{name}x"))
            tasks.create_task(work(f"{name}y"))

    async def main() -> None:
        await asyncio.gather(*(loop.start(loop.spawn(name), both(name)) for name in "abc"))

    loop.run_until_complete(main())
    assert loop.bury() == 0
    return order


def test_time_jumps_to_the_next_timer() -> None:
    loop = loop_of(1)

    async def main() -> float:
        await asyncio.sleep(3_600)
        async with asyncio.timeout(10):
            await asyncio.sleep(5)
        return loop.time()

    assert loop.run_until_complete(main()) == 3_605
    loop.bury()


def test_a_timeout_fires_at_its_virtual_time() -> None:
    loop = loop_of(1)

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        return loop.time()

    assert loop.run_until_complete(main()) == 7
    loop.bury()


def test_the_seed_chooses_the_interleaving() -> None:
    assert interleaving(5) == interleaving(5)
    assert len({tuple(interleaving(seed)) for seed in range(20)}) > 10


def test_callbacks_of_one_process_keep_their_order_unless_shuffled() -> None:
    loop = loop_of(3, shuffled=False)
    seen: list[int] = []

    async def main() -> None:
        for number in range(20):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert seen == list(range(20))
    loop.bury()


def test_a_crash_runs_no_finally_until_the_burial() -> None:
    """kill -9 parks: nothing is cancelled, nothing is freed with effects."""
    loop = loop_of(1)
    effects: list[str] = []
    process = loop.spawn("victim")

    async def child() -> None:
        try:
            await asyncio.sleep(1)
            effects.append("went on")
        finally:
            effects.append("finally")

    async def victim() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(child())

    async def main() -> None:
        loop.start(process, victim())
        await asyncio.sleep(0.5)
        loop.crash(process)
        await asyncio.sleep(10)
        gc.collect()

    loop.run_until_complete(main())
    assert effects == []
    assert loop.bury() == 0
    assert effects == ["finally", "finally"]
    assert loop.failures == []


def test_a_paused_process_goes_on_with_what_became_due() -> None:
    loop = loop_of(1)
    process = loop.spawn("sleeper")
    woke: list[float] = []

    async def sleeper() -> None:
        await asyncio.sleep(1)
        woke.append(loop.time())

    async def main() -> None:
        task = loop.start(process, sleeper())
        await asyncio.sleep(0.5)
        loop.pause(process)
        await asyncio.sleep(10)
        assert woke == []
        loop.resume(process)
        await task

    loop.run_until_complete(main())
    assert woke == [10.5]
    loop.bury()


def test_a_process_owns_the_tasks_that_its_tasks_start() -> None:
    loop = loop_of(1)
    process = loop.spawn("owner")
    ran: list[str] = []

    async def grandchild() -> None:
        await asyncio.sleep(1)
        ran.append("grandchild")

    async def owner() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(grandchild())

    async def main() -> None:
        loop.start(process, owner())
        await asyncio.sleep(0.1)
        loop.crash(process)
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert ran == []
    loop.bury()


def test_after_step_may_crash_at_any_step() -> None:
    loop = loop_of(1)
    process = loop.spawn("victim")
    done: list[int] = []

    async def victim() -> None:
        for number in range(10):
            done.append(number)
            await asyncio.sleep(0)

    def crash_at_third(stepped: Process) -> None:
        if stepped.steps == 3:
            loop.crash(stepped)

    async def main() -> None:
        loop.start(process, victim())
        await asyncio.sleep(1)

    loop.after_step = crash_at_third
    loop.run_until_complete(main())
    assert done == [0, 1, 2]
    loop.bury()


def test_an_uncaught_exception_reaches_the_harness() -> None:
    loop = loop_of(1)
    process = loop.spawn("thrower")

    def throw() -> None:
        raise LookupError("nobody catches this")

    async def main() -> None:
        loop.call_in(process, throw)
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert [(failure.process, type(failure.exception)) for failure in loop.failures] == [("thrower", LookupError)]
    loop.bury()


def test_what_can_never_end_is_noticed() -> None:
    loop = loop_of(1)
    with pytest.raises(StuckError, match="no timer"):
        loop.run_until_complete(asyncio.Event().wait())
    loop.bury()


def test_sets_of_tasks_keep_one_order_under_any_hash_seed() -> None:
    """A TaskGroup cancels a set of tasks: its order must not come from addresses."""
    program = (
        "import asyncio\n"
        "from random import Random\n"
        "from tests.simulation.loop import SimulatedLoop\n"
        "loop = SimulatedLoop(Random(1))\n"
        "ballast = [object() for _ in range(hash('x') % 1000)]\n"
        "ended = []\n"
        "async def child(n):\n"
        "    try:\n"
        "        await asyncio.sleep(9)\n"
        "    finally:\n"
        "        ended.append(n)\n"
        "async def main():\n"
        "    try:\n"
        "        async with asyncio.TaskGroup() as tasks:\n"
        "            for n in range(50):\n"
        "                tasks.create_task(child(n))\n"
        "            await asyncio.sleep(1)\n"
        "            raise ValueError\n"
        "    except* ValueError:\n"
        "        pass\n"
        "loop.run_until_complete(main())\n"
        "print(ended)\n"
        "loop.bury()\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert "49" in outputs.pop()
