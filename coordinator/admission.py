"""The door of the engine: who may begin, and how work is shared out among branches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from coordinator.errors import BusyError, InvalidRequestError, OutcomeUnknownError, UnavailableError
from coordinator.log.decision_log import Standing
from coordinator.protocol.branches import BranchState
from participant_sdk.operations import parameters_fault
from participant_sdk.participant import OPERATIONS_MAX, Operation

# Those of a branch's operations that are done under its xid at once, and do not travel in its Prepare.
EMBEDDED_MAX: Final = 10_000
BUSY_RETRY_AFTER_S: Final = 0.1
UNFINISHED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the engine: transactions without an answer, and all that it holds."""

    max_concurrent_txns: int = 1000
    max_unfinished: int = UNFINISHED_MAX


class Admission:
    """Counts who is inside. A transaction leaves when its client has an answer, though branches may be owed."""

    __slots__ = ("_held", "_limits", "_stopped", "inside")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stopped: str | None = None
        # Why the log is in HOLD; None while it is not.
        self._held: str | None = None
        self.inside = 0

    def enter(self, unfinished: int) -> None:
        """Let one more in, or raise BusyError at a bound, UnavailableError in HOLD, OutcomeUnknownError once closed."""
        self.check_open()
        if self.inside >= self._limits.max_concurrent_txns or unfinished >= self._limits.max_unfinished:
            raise BusyError(
                f"{self.inside} transactions are in flight and {unfinished} unfinished, "
                "as many as allowed (xa_manager.max_concurrent_txns); send again later",
                retry_after_s=BUSY_RETRY_AFTER_S,
            )
        self.inside += 1

    def check_open(self) -> None:
        """Raise UnavailableError in HOLD, OutcomeUnknownError once closed."""
        if self._stopped is not None:
            raise OutcomeUnknownError(f"this coordinator has stopped: {self._stopped}; ask another")
        if self._held is not None:
            raise UnavailableError(
                f"the decision log is in HOLD, and nothing new begins: {self._held}; an operator looks at it"
                " (pincex recovery status) and ends it (pincex recovery release)"
            )

    def leave(self) -> None:
        """One client has its answer."""
        self.inside -= 1

    def heed(self, standing: Standing) -> None:
        """Let nobody in while the log is in HOLD: what began could not be decided (R15)."""
        self._held = standing.held_reason if standing.is_held else None

    def close(self, why: str) -> None:
        """Let nobody in any more."""
        self._stopped = why


def share_out(operations: Sequence[Operation], services: Collection[str]) -> dict[str, tuple[Operation, ...]]:
    """Group operations by service, one branch each, keeping their order. InvalidRequestError names the field."""
    if not operations:
        raise InvalidRequestError("a transaction needs at least one operation", field="operations")
    shares: dict[str, tuple[Operation, ...]] = {}
    for index, operation in enumerate(operations):
        service = operation.service
        if service not in services:
            raise unknown_service(service, services, field=f"operations[{index}].service")
        shares[service] = (*shares[service], operation) if service in shares else (operation,)
    return shares


def check_growth(
    branch: BranchState | None, held: Mapping[str, Sequence[Operation]], carried: Sequence[Operation], embedded: int
) -> None:
    """Bound what a branch is to hold, and its transaction's parameters in all. InvalidRequestError names the field.

    ``held`` is the whole transaction's work so far, ``carried`` and ``embedded`` is what the branch gets.
    """
    for field, count, more, most in (
        ("operations", branch.carried if branch else 0, len(carried), OPERATIONS_MAX),
        ("embedded_operations", branch.embedded if branch else 0, embedded, EMBEDDED_MAX),
    ):
        if count + more > most:
            raise InvalidRequestError(
                f"a branch has at most {most} operations; this one has {count}", field=field, code="OPERATION_COUNT"
            )
    if fault := parameters_fault([*chain.from_iterable(held.values()), *carried]):
        raise InvalidRequestError(fault, field="operations", code="OPERATIONS_TOO_LARGE")


def unknown_service(name: str, known: Collection[str], *, field: str) -> InvalidRequestError:
    """The error for a service that is not configured."""
    listed = ", ".join(sorted(known)) or "none"
    return InvalidRequestError(
        f"no participant is named {name[:64]!r}; configured are: {listed}", field=field, code="SERVICE_UNKNOWN"
    )
