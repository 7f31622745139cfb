"""Work that a service does itself under an xid, before Prepare asks for the vote (R13).

Each piece of work is one ``operation``: the service gets the branch's connection, inside its
transaction, and the piece counts once it ended well. Prepare ends the work only if it names the
branch's number and exactly that count. The transaction is READ COMMITTED, whatever the
database's default: Prepare writes who takes part to the branch's row, which a transaction with an
older snapshot could not mark afterwards.

A lost connection or a crash loses the work, as it must: it was never promised.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from participant_sdk.ids import BranchId
from participant_sdk.resources.postgres_branch import BranchTransaction
from participant_sdk.resources.postgres_lane import Connection


class BranchEndedError(Exception):
    """The branch has ended, or is being ended: no more work can be done under it."""


@dataclass(slots=True)
class EmbeddedWork:
    """One branch's work under way. Mutable: it counts.

    ``lease`` holds the session; closing it gives the session back, or closes it where a transaction is open.
    """

    branch: BranchId
    branch_number: int
    deadline_s: float
    transaction: BranchTransaction
    lease: AsyncExitStack = field(repr=False)
    count: int = 0
    is_busy: bool = False
    has_ended: bool = False

    @asynccontextmanager
    async def operation(self) -> AsyncGenerator[Connection]:
        """Lend the branch's connection for one operation, one at a time.

        BranchEndedError once the branch has ended, or while another operation runs. An operation that
        raises, or is cancelled, does not count, so the branch can only be rolled back.
        """
        if self.has_ended or self.is_busy:
            raise BranchEndedError(f"transaction {self.branch.xid}: its branch has ended, or is busy")
        self.is_busy = True
        try:
            yield self.transaction.session.connection
            self.count += 1
        finally:
            self.is_busy = False

    async def end(self) -> None:
        """Give the session back, rolling back what is not prepared. Idempotent."""
        self.has_ended = True
        if self.is_busy:
            # The operation that runs gets an error, and the server undoes the rest.
            await self.transaction.session.connection.close()
        await self.lease.aclose()
