"""What must hold after a load: nothing of it in doubt, and money conserved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pincex.tx.v1 import common_pb2, recovery_pb2

from coordinator.commands.invariants import UncheckedError, broken_invariants
from coordinator.commands.load_process import Followed
from coordinator.commands.operator_calls import LOOK_AT_MAX, OperatorCalls, asked_in_turn
from participant_sdk.client_errors import UnavailableError
from participant_sdk.ids import XID_SIZE_BYTES, Xid
from participant_sdk.load import InvalidOrderError
from participant_sdk.load.mixed import SHIPPED
from participant_sdk.load.money import committed_in, has_books, money_in

SETTLED_WITHIN_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.2

BOOKKEEPER: Final = SHIPPED.bookkeeper
# By how much a coordinator's clock may be behind ours, for its transactions to be counted.
CLOCK_SKEW_MAX_S: Final = 600

Doubts = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Books:
    """A participant's database, and which of the shipped participants it is."""

    participant: str
    service: str
    dsn: str


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
    """The participants' databases, read before a load and after it: what each committed, and bookkeepers' money."""

    def __init__(self, books: Sequence[Books], currency: str) -> None:
        self._books = books
        self._currency = currency
        self._money = Decimal(0)
        self._committed: Mapping[str, int] = {}
        self._since = Xid(bytes(XID_SIZE_BYTES))

    async def read(self) -> None:
        """Look before the load. psycopg.Error where that cannot be; InvalidOrderError for another's database."""
        for each in self._books:
            if each.service != BOOKKEEPER and not await has_books(each.dsn, each.service):
                message = f"the database given for {each.participant} has no schema {each.service}"
                raise InvalidOrderError("--check", f"{message}; they are in the order of --participants")
        self._since = Xid.make(time.time_ns() // 1_000_000 - 1000 * CLOCK_SKEW_MAX_S, 1, 0)
        self._money = await self._all_money()
        self._committed = await self._all_committed()

    async def violations(self, followed: Followed) -> list[str]:
        """What is wrong after a load that did this; nothing is sound. psycopg.Error."""
        found = [violation for each in self._books for violation in await _broken_invariants(each)]
        committed = await self._all_committed()
        for name, before in self._committed.items():
            told, more = followed.branches.get(name, 0), committed[name] - before
            if not told <= more <= told + followed.unknown:
                message = f"{name} committed {more} branches, and clients were told of {told}"
                found.append(f"COUNTS_DISAGREE: {message}")
        changed = await self._all_money() - self._money
        if not followed.least <= changed <= followed.most:
            is_known = followed.least == followed.most
            expected = f"{followed.least}" if is_known else f"{followed.least} to {followed.most}"
            found.append(
                f"MONEY_NOT_CONSERVED: the ledgers together changed by {changed} {self._currency}, "
                f"and the transactions that committed brought in {expected}"
            )
        return found

    async def _all_money(self) -> Decimal:
        dsns = [each.dsn for each in self._books if each.service == BOOKKEEPER]
        return sum([await money_in(dsn, self._currency) for dsn in dsns], Decimal(0))

    async def _all_committed(self) -> dict[str, int]:
        return {each.participant: await committed_in(each.dsn, self._since) for each in self._books}


async def _broken_invariants(books: Books) -> list[str]:
    try:
        return await broken_invariants(books.service, books.dsn)
    except UncheckedError as error:
        return [str(error)]
