"""What is told of a transaction that no coordinator holds any more: how it ended, or that it is over."""

from __future__ import annotations

from coordinator.engine import Engine
from coordinator.errors import TransactionError, UnavailableError, UnknownTransactionError, WrongPhaseError
from coordinator.inquiries import Inquiries
from coordinator.requests import Ended
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState


class Aftermath:
    """Answers calls that would go to a transaction's coordinator, once there is none."""

    def __init__(self, engine: Engine, inquiries: Inquiries) -> None:
        self._engine = engine
        self._inquiries = inquiries

    async def ended(self, xid: Xid) -> Ended:
        """How it ended, by the log (R7). A rollback that bound nothing is told as *retry* (R3).

        UnavailableError while that cannot be said; UnknownTransactionError where nothing is known of it, or
        nothing any more.
        """
        await self._check_certain(xid)
        view = await self._inquiries.transaction(xid)
        if view.outcome is None:
            # It is held here after all: taken over in between.
            raise _undecided(xid)
        is_unbound = view.outcome.decision is Decision.ROLLBACK and not view.request_id
        return Ended(view.outcome._replace(retry=True) if is_unbound else view.outcome, 0.0)

    async def too_late(self, xid: Xid) -> TransactionError:
        """The error for a call that needs it ACTIVE, which it can never be again. It tells no outcome (R19)."""
        # Where it is not known at all, this raises.
        await self._inquiries.transaction(xid)
        return WrongPhaseError(
            f"transaction {xid} is not active any more: its coordinator, incarnation {xid.incarnation}, has ended",
            code="NOT_ACTIVE",
            xid=xid,
        )

    async def _check_certain(self, xid: Xid) -> None:
        match (await self._inquiries.decision(xid)).state:
            case DecisionState.PENDING:
                raise _undecided(xid)
            case DecisionState.FORGOTTEN:
                raise UnknownTransactionError(
                    f"transaction {xid} is older than the log remembers: only its participants may know its end",
                    xid=xid,
                )
            case DecisionState.COMMIT | DecisionState.ROLLBACK:
                pass


def _undecided(xid: Xid) -> UnavailableError:
    return UnavailableError(f"transaction {xid}: how it ended cannot be said yet; ask again", xid=xid)
