"""The parts of the benchmark, by name, in the order in which a run measures them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import guard, limit_grpc, offered, soak, transfers, workloads
from tests.benchmarks.alone import measure_alone
from tests.benchmarks.filled import measure_filled
from tests.benchmarks.flames import measure_flames
from tests.benchmarks.memory import measure_memory
from tests.benchmarks.mixed import measure_mixed
from tests.benchmarks.recovery import measure_recovery
from tests.benchmarks.run import Run


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured together, over systems of its own. Those that take long are run only when they are named."""

    what: str
    measure: Callable[[Run], Awaitable[None]]
    is_long: bool = False


PARTS: Final[Mapping[str, Part]] = {
    "transfer": Part("transfers, both waits, unary too, beside L1, L3 and the own ledger", transfers.measure_transfers),
    "grpc": Part("L4: gRPC alone", limit_grpc.measure_l4),
    "xa": Part("banks on XA, beside L2", workloads.measure_xa),
    "empty": Part("transactions without a participant", workloads.measure_empty),
    "smallbank": Part("SmallBank, uniform and with a hot spot", workloads.measure_smallbank),
    "mixed": Part("the mixed workload over the five shipped participants", measure_mixed),
    "participants": Part("2, 4 and 8 participants", workloads.measure_participants),
    "slowed": Part("beside a participant slowed by 20 ms", offered.measure_slowed),
    "offered": Part("latency against offered load", offered.measure_offered),
    "alone": Part("the coordinator's own CPU, without gRPC and PostgreSQL", measure_alone),
    "memory": Part("the coordinator's memory with 8,000 in flight", measure_memory),
    "recovery": Part("10,000 unfinished after kill -9", measure_recovery),
    "soak": Part("a long load: memory and descriptors over time", soak.measure_soak, is_long=True),
    "filled": Part("a log with millions of finished transactions", measure_filled, is_long=True),
    "flames": Part("where each microsecond goes", measure_flames, is_long=True),
    guard.PART: Part("the product against its own ledger's limit, judged", guard.measure_guard, is_long=True),
}


def defaults() -> tuple[str, ...]:
    """The parts of a run that names none."""
    return tuple(name for name, part in PARTS.items() if not part.is_long)
