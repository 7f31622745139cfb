"""The regression guard: the product against the limit over its own ledger, in turns, in one short run.

Never an absolute time: a machine's speed is not the product's doing, and the limit has it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from tests.benchmarks.figures import Summary
from tests.benchmarks.product import checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import APPLIED, OWN_LEDGER
from tests.benchmarks.transfers import make_limits, own_ledger, wanted

PART: Final = "guard"
ROUNDS: Final = 5

# The lowest product / own ledger that passes, by transactions in flight: half of what was measured, 0.37 at 64 and
# 0.42 at 512 (five rounds, two cores, PostgreSQL 18.4), since figures vary by a third.
LOWEST: Final[Mapping[int, float]] = {64: 0.18, 512: 0.21}


async def measure_guard(run: Run) -> None:
    """The limit and the product, in turns."""
    banks = make_limits(run)
    async with AsyncExitStack() as stack:
        ledger = await own_ledger(run, banks, stack)
        running = await stack.enter_async_context(checked_product(run))
        for _ in run.rounds(ROUNDS):
            for in_flight in LOWEST:
                run.record(await ledger.measure(run.plan.seconds, in_flight))
                run.record(await running.measure(APPLIED, wanted(run, in_flight)))
    summaries = run.summaries()[PART]
    for in_flight, reached in ratios(summaries).items():
        run.console.print(f"{in_flight} in flight: {reached:.2f} of the own ledger; {LOWEST[in_flight]} is the least")
    run.fail(fallen(summaries))


def ratios(summaries: Sequence[Summary]) -> dict[int, float]:
    """The product's rate over that of the limit, by transactions in flight, where both were measured."""
    rates = {(summary.subject, summary.in_flight): summary.per_second for summary in summaries}
    return {
        in_flight: rates[APPLIED, in_flight] / limit
        for (subject, in_flight), limit in rates.items()
        if subject == OWN_LEDGER and limit and (APPLIED, in_flight) in rates
    }


def fallen(summaries: Sequence[Summary], lowest: Mapping[int, float] = LOWEST) -> list[str]:
    """Where the product has fallen below its bound, or was not measured, a sentence each; none is well."""
    reached = ratios(summaries)
    missing = [f"{in_flight} in flight was not measured" for in_flight in lowest if in_flight not in reached]
    return missing + [
        f"{in_flight} in flight: {reached[in_flight]:.2f} of the own ledger, and {least:.2f} is the least"
        for in_flight, least in lowest.items()
        if reached.get(in_flight, least) < least
    ]
