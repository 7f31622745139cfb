"""Paying what is queued, once: an attendant for each currency that a node can be told of.

A payment is signed once, and stored before it is sent. From then on that text, and no other, is sent, again and
again, until the chain has confirmed it: the chain takes a transaction once, however often it is told. Nothing is
ever signed anew for a withdrawal that has a payment, since nothing proves that the first one is not paid later.

A crash before the payment is stored leaves an unsent text, which nobody has. A crash after that finds it stored. Two
processes at once take turns by an advisory lock; should it be lost, the tables let only one store a payment, and
whoever did not store does not send. No two payments spend one output: the table of inputs sees to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from importlib.resources import files
from typing import Final, NamedTuple, TypeVar

import psycopg
import structlog
from psycopg.rows import args_row

from participant_sdk.resources.postgres_lane import Lane, Session
from sidecars.sidecar import Attendant, Surroundings
from sidecars.wallet.bitcoind import (
    BitcoinNode,
    ChainError,
    ChainUnavailableError,
    Output,
    RefusedError,
    Signed,
    node_at,
)
from sidecars.wallet.settings import read_settings

# Withdrawals that are read at once. A pass goes on to the next ones: what cannot be paid must not keep others waiting.
PAGE_ROWS: Final = 500
# What is shown of a problem, at most.
PROBLEM_MAX_CHARS: Final = 500
# A payment that no block holds is sent again after so long, whatever else was heard of it.
RESEND_S: Final = 60.0
# Calls that may go without an answer in one pass before the rest waits for the next: so often of those by which
# payments are made, and so often of those by which they are followed, for neither must keep the other waiting.
UNANSWERED_MAX: Final = 3
# Payments that are looked at together: each look is a call, and a node may be far away.
LOOKED_AT_TOGETHER: Final = 16

# A withdrawal's status once its payment is stored, and nobody is known to have it.
_SIGNED: Final = 4

_FOLDER: Final = files("sidecars.wallet") / "sql"
_TO_SEND: Final = (_FOLDER / "to_send.sql").read_bytes()
_STORE: Final = (_FOLDER / "store_payment.sql").read_bytes()
_SIGNED_INPUTS: Final = (_FOLDER / "signed_inputs.sql").read_bytes()
_CONNECTED: Final = b"update wallet.hot_wallets set is_connected = %s where currency = %s"
_PROBLEM: Final = b"update wallet.withdrawals set problem = %s where withdrawal_id = %s and problem is distinct from %s"
_LOCK: Final = b"select pg_advisory_lock(hashtextextended('pincex wallet ' || %s, 0))"

Result = TypeVar("Result")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class OtherNetworkError(Exception):
    """The node is on another network than the database. Nothing is paid before that is put right."""


class _Queued(NamedTuple):
    """A withdrawal that is QUEUED, SIGNED or SENT, as ``to_send.sql`` selects it."""

    withdrawal_id: str
    status: int
    amount: Decimal
    fee: Decimal
    address: str
    txid: str | None
    raw: str | None
    problem: str | None
    # Its place in the order in which they are seen to.
    is_signed: bool
    queued_by: int
    branch: int
    operation: int


class _Patience:
    """How many calls may still go without an answer, in one pass. Mutable: it counts."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = UNANSWERED_MAX


@dataclass(slots=True)
class _Memory:
    """What a run knows beyond the tables. Mutable; losing it costs a few calls, and no payment."""

    best_block: str = ""
    sent_at_s: float = float("-inf")


def attendants() -> dict[str, Attendant]:
    """The attendants, by name."""
    # Of Bitcoin's family; the nodes of the others speak in other ways, and nothing here signs for them.
    return {f"broadcaster of {currency}": partial(broadcast, currency) for currency in ("BTC", "LTC", "BCH")}


async def broadcast(currency: str, surroundings: Surroundings) -> None:
    """Pay what is queued in a currency, and follow it, until cancelled.

    SettingError, OtherNetworkError, ChainError where the node cannot be asked which it is, or psycopg's errors.
    """
    settings = read_settings(currency, surroundings.environment)
    lane = Lane(surroundings.dsn, 1)
    try:
        async with lane.session() as session:
            await session.connection.execute(_CONNECTED, (bool(settings.url), currency))
            if not settings.url:
                await asyncio.Event().wait()
            await session.connection.execute(_LOCK, (currency,))
            await session.connection.execute("listen wallet_queued")
            async with node_at(settings.url, settings.timeout_s) as node:
                broadcaster = Broadcaster(currency, session, node, surroundings)
                await broadcaster.bind()
                while True:
                    await broadcaster.run_once()
                    await _queued_or(session.connection, settings.interval_s)
    finally:
        await lane.close()


async def _queued_or(connection: psycopg.AsyncConnection[tuple[object, ...]], interval_s: float) -> None:
    """Wait until something is queued, and for the interval at most: the chain tells nobody of its blocks."""
    async for _ in connection.notifies(timeout=interval_s, stop_after=1):
        pass


class Broadcaster:
    """One run of a currency's attendant, over one session, which holds the lock."""

    def __init__(
        self,
        currency: str,
        session: Session,
        node: BitcoinNode,
        surroundings: Surroundings,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self._currency = currency
        self._session = session
        self._node = node
        self._clock = surroundings.clock
        self._log = _log.bind(participant=surroundings.participant, currency=currency)
        self._memory = _Memory()
        self._page_rows = page_rows

    async def bind(self) -> None:
        """Bind the database to the node's network, or make sure that it is. OtherNetworkError where it is another."""
        network = await self._node.network()
        cursor = await self._session.connection.execute("select wallet.bind_network(%s::smallint)", (int(network),))
        row = await cursor.fetchone()
        if row is None or not row[0]:
            raise OtherNetworkError(f"the node for {self._currency} is on {network.name}, and this database is not")

    async def run_once(self) -> None:
        """See once to everything that is queued, signed or sent: first to what is not signed, each as it was queued."""
        page = await self._page(None)
        if not page:
            return
        paying, following = _Patience(), _Patience()
        follows = await self._is_due()
        while page:
            for withdrawal in page:
                if withdrawal.txid is None:
                    await self._try(self._pay, withdrawal, paying)
            await self._follow([each for each in page if each.txid and (follows or each.status == _SIGNED)], following)
            page = await self._page(page[-1])

    async def _try(
        self, act: Callable[[_Queued], Awaitable[Result]], withdrawal: _Queued, patience: _Patience
    ) -> Result | None:
        """Do something about a withdrawal; None where it failed, which is noted, or where patience was at its end."""
        if not patience.left:
            return None
        try:
            return await act(withdrawal)
        except ChainUnavailableError as error:
            patience.left = max(0, patience.left - 1)
            # What was found out by now may be wrong: the next pass looks at everything.
            self._memory = _Memory()
            await self._note_problem(withdrawal, error)
        except RefusedError as error:
            await self._note_problem(withdrawal, error)
        return None

    async def _page(self, last: _Queued | None) -> list[_Queued]:
        """The next withdrawals to see to, after this one."""
        parameters = {
            "currency": self._currency,
            "limit": self._page_rows,
            "is_signed": last is not None and last.is_signed,
            "queued_by": -1 if last is None else last.queued_by,
            "branch": -1 if last is None else last.branch,
            "operation": -1 if last is None else last.operation,
        }
        async with self._session.connection.cursor(row_factory=args_row(_Queued)) as cursor:
            await cursor.execute(_TO_SEND, parameters)
            return await cursor.fetchall()

    async def _is_due(self) -> bool:
        """Whether payments that were sent must be looked at: there is a new block, or it is long since."""
        try:
            best = await self._node.best_block()
        except ChainError:
            return True
        now_s = self._clock.monotonic_s()
        if best == self._memory.best_block and now_s < self._memory.sent_at_s + RESEND_S:
            return False
        self._memory = _Memory(best, now_s)
        return True

    async def _pay(self, withdrawal: _Queued) -> None:
        """Sign what is queued, store it, and send it."""
        signed = await self._sign(withdrawal)
        if signed is not None:
            await self._send(withdrawal, signed.raw)

    async def _sign(self, withdrawal: _Queued) -> Signed | None:
        """Sign a payment and store it; None where none was, or may be: nothing was sent of it then."""
        await self._keep_signed()
        signed = await self._node.sign(withdrawal.address, withdrawal.amount)
        if signed.fee > withdrawal.fee:
            message = f"the chain wants a fee of {signed.fee:f}, and {withdrawal.fee.normalize():f} is reserved for it"
            raise RefusedError("fundrawtransaction", 0, message)
        parameters = {
            "withdrawal_id": withdrawal.withdrawal_id,
            "txid": signed.txid,
            "raw": signed.raw,
            "fee": signed.fee,
            "input_txids": [each.txid for each in signed.inputs],
            "input_indexes": [each.vout for each in signed.inputs],
        }
        try:
            with self._session.confirmed():
                row = await (await self._session.connection.execute(_STORE, parameters)).fetchone()
        except psycopg.errors.UniqueViolation as error:
            await self._node.keep(signed.inputs)
            raise RefusedError("fundrawtransaction", 0, "the node spends again what another payment spends") from error
        return signed if row is not None and row[0] else None

    async def _keep_signed(self) -> None:
        """Keep the node from spending what payments spend that it has not heard of; it forgets that in a restart."""
        cursor = await self._session.connection.execute(_SIGNED_INPUTS, (self._currency,))
        outputs = [Output(txid, vout) for txid, vout in await cursor.fetchall()]
        if outputs:
            await self._node.keep(outputs)

    async def _send(self, withdrawal: _Queued, raw: str) -> None:
        await self._node.send(raw)
        await self._note_seen(withdrawal, 0)

    async def _note_seen(self, withdrawal: _Queued, confirmations: int) -> None:
        parameters = (withdrawal.withdrawal_id, confirmations)
        await self._session.connection.execute("select wallet.note_seen(%s, %s)", parameters)

    async def _follow(self, payments: Sequence[_Queued], patience: _Patience) -> None:
        """Look how deep payments are in the chain, and send those again that no block holds.

        They are looked at together, and sent one after the other: one may spend what the one before it has left.
        """
        seats = asyncio.Semaphore(LOOKED_AT_TOGETHER)

        async def look(payment: _Queued) -> int | None:
            async with seats:
                return await self._try(self._look, payment, patience)

        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(look(payment)) for payment in payments]
        for payment, looked in zip(payments, looks, strict=True):
            if looked.result() == 0:
                await self._try(self._send_again, payment, patience)

    async def _look(self, payment: _Queued) -> int:
        """How many blocks hold a payment, which is kept; 0 where none does. RefusedError where none ever will."""
        assert payment.txid is not None  # noqa: S101 - only what has one is looked at
        seen = await self._node.confirmations(payment.txid)
        if seen is not None and seen < 0:
            message = (
                f"another transaction, {-seen} blocks deep, spends what payment {payment.txid} spends:"
                " look into it by hand"
            )
            raise RefusedError("gettransaction", 0, message)
        if seen:
            await self._note_seen(payment, seen)
        return seen or 0

    async def _send_again(self, payment: _Queued) -> None:
        assert payment.raw is not None  # noqa: S101 - as with its id
        await self._send(payment, payment.raw)

    async def _note_problem(self, withdrawal: _Queued, error: ChainError) -> None:
        # PostgreSQL's texts cannot have the character 0.
        problem = str(error)[:PROBLEM_MAX_CHARS].replace("\0", "\N{REPLACEMENT CHARACTER}")
        if problem != withdrawal.problem:
            self._log.warning("withdrawal_held_up", withdrawal_id=withdrawal.withdrawal_id, problem=problem)
        parameters = (problem, withdrawal.withdrawal_id, problem)
        await self._session.connection.execute(_PROBLEM, parameters)
