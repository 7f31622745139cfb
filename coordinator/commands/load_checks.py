"""What must hold after a load: nothing of it in doubt, and money conserved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from pincex.tx.v1 import common_pb2, recovery_pb2

from coordinator.commands.invariants import UncheckedError, broken_invariants
from coordinator.commands.operator_calls import LOOK_AT_MAX, OperatorCalls, asked_in_turn
from participant_sdk.client_errors import UnavailableError
from participant_sdk.load.money import money_in

SETTLED_WITHIN_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.2

Doubts = frozenset[tuple[str, str]]


async def doubts(addresses: Sequence[str], participants: Sequence[str]) -> Doubts:
    """Branches in doubt now at these participants, each a participant and an xid; those of running ones, too.

    UnavailableError where one of them cannot be asked: nobody knows what it holds.
    """

    async def asked(calls: OperatorCalls) -> Doubts:
        found = [_answered(await calls.in_doubt(name, LOOK_AT_MAX)).branches for name in participants]
        return frozenset(
            (each.participant, each.branch.xid)
            for branches in found
            for each in branches
            if each.branch.phase == common_pb2.BRANCH_PHASE_PREPARED
        )

    return await asked_in_turn(addresses, asked)


async def doubts_left(addresses: Sequence[str], participants: Sequence[str], before: Doubts) -> list[str]:
    """What a load left in doubt, a sentence for each participant; ``before`` it were others, which are not its own.

    What is being finished gets some seconds; what others begin meanwhile does not count. UnavailableError and
    TimeoutError where a participant, or every coordinator, could not be asked in that time.
    """
    until_s = time.monotonic() + SETTLED_WITHIN_S
    left: Doubts | None = None
    while left is None or (left and time.monotonic() < until_s):
        try:
            found = await doubts(addresses, participants) - before
            left = found if left is None else left & found
        except (UnavailableError, TimeoutError):
            if time.monotonic() >= until_s:
                raise
        if left is None or left:
            await asyncio.sleep(LOOK_AGAIN_S)
    return [
        f"{sum(each == name for each, _ in left)} branches are left in doubt at {name}"
        for name in dict.fromkeys(each for each, _ in sorted(left))
    ]


def _answered(listed: recovery_pb2.ListInDoubtResponse) -> recovery_pb2.ListInDoubtResponse:
    if listed.unreachable_participants:
        names = ", ".join(listed.unreachable_participants)
        raise UnavailableError(f"{names} could not be asked what is in doubt there")
    return listed


class Ledgers:
    """The bookkeepers' databases, read before a load and after it."""

    def __init__(self, dsns: Sequence[str], currency: str) -> None:
        self._dsns = dsns
        self._currency = currency
        self._before = Decimal(0)

    async def read(self) -> None:
        """Add up the money before the load. psycopg.Error where that cannot be."""
        self._before = await self._money()

    async def violations(self, inflow: tuple[Decimal, Decimal]) -> list[str]:
        """What is wrong after a load that brought in from the one to the other; nothing is sound. psycopg.Error."""
        found = [violation for dsn in self._dsns for violation in await _broken_invariants(dsn)]
        changed = await self._money() - self._before
        least, most = inflow
        if not least <= changed <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            found.append(
                f"MONEY_NOT_CONSERVED: the ledgers together changed by {changed} {self._currency}, "
                f"and the transactions that committed brought in {expected}"
            )
        return found

    async def _money(self) -> Decimal:
        return sum([await money_in(dsn, self._currency) for dsn in self._dsns], Decimal(0))


async def _broken_invariants(dsn: str) -> list[str]:
    try:
        return await broken_invariants("bookkeeper", dsn)
    except UncheckedError as error:
        return [str(error)]
