"""Brings the service what it is owed: confirms and cancels, again and again until it has done them.

What is owed is in the journal, with when it is due. A call is made first and recorded as done
afterwards, so a crash in between repeats it: the service's handlers are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

import psycopg
import structlog

from sidecars.http.journal import Journal, Owed
from sidecars.http.service import Service

PAGE: Final = 256
LOOK_EVERY_S: Final = 1.0
# While the database is away.
PAUSE_S: Final = 2.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Courier:
    """One participant's. ``run`` must run for what nobody asks about to be brought."""

    def __init__(self, name: str, journal: Journal, service: Service) -> None:
        self._name = name
        self._journal = journal
        self._service = service
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at once: something has come to be owed."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Bring what is due until cancelled, first of all what was owed when the last process ended."""
        is_reclaimed = False
        while True:
            taken = 0
            try:
                if not is_reclaimed:
                    await self._journal.reclaim()
                    is_reclaimed = True
                self._wake.clear()
                owed = await self._journal.take(PAGE)
                taken = len(owed)
                await self.bring(owed)
            except psycopg.Error as error:
                # What is owed is durable, and found again.
                _log.warning("courier_failed", participant=self._name, error=" ".join(str(error).split()))
                await asyncio.sleep(PAUSE_S)
                continue
            if taken < PAGE:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), LOOK_EVERY_S)

    async def bring(self, owed: Sequence[Owed]) -> dict[Owed, str]:
        """Make these calls once, side by side; return what is still owed, with why.

        What is not returned was done, and is durably known to be. psycopg.Error: whatever was done is not known.
        """
        if not owed:
            return {}
        answers = await asyncio.gather(*[self._service.end(each) for each in owed])
        faults = {each: fault for each, fault in zip(owed, answers, strict=True) if fault}
        done = [each for each in owed if each not in faults]
        if done:
            await self._journal.settle(done)
        if faults:
            await self._journal.postpone(faults)
            # One line for a page: a service that is down fails every call alike.
            first = next(iter(faults))
            _log.warning(
                "service_owed",
                participant=self._name,
                calls=len(faults),
                transaction_id=str(first.xid),
                error=faults[first],
            )
        return faults
