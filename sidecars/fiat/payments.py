"""Completed withdrawals, sent to the bank: each is paid once, however often it takes to learn that.

A payment's key is its withdrawal's id, and the bank pays once for each key. It is written down that the payment may
be at the bank before it is sent for the first time. From then on nothing but the bank's own answer ends it, and the
bank is asked about the key before the payment is sent again. A bank knows its keys for a limited time; after that an
unknown key may be one that it has forgotten, so it is not sent again but left to a person.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

import structlog
from psycopg.rows import DictRow

from sidecars.fiat.bank import Bank, BankRefusedError, Payment, PaymentOrder, UnclearError
from sidecars.fiat.outbox import Outbox, idle, pause_after_s
from sidecars.fiat.settings import BankSettings, bank_settings
from sidecars.fiat.statements import statement
from sidecars.sidecar import Surroundings

PAUSE_LONGEST_S: Final = 60.0
# From then on every attempt that learns nothing is an error in the log, not a warning.
ATTEMPTS_ALARMING: Final = 10

_PAID: Final = 3
_REJECTED: Final = 4
_STUCK: Final = 5

_SETTLE: Final = statement("settle_payment")
_POSTPONE: Final = statement("postpone_payment")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ForgottenKeyError(Exception):
    """The bank does not know the key, and may have forgotten it."""


async def pay(surroundings: Surroundings) -> None:
    """Pay what is queued, until cancelled. An attendant of fiat."""
    settings = bank_settings(surroundings.environment)
    if settings is None:
        _log.warning("bank_not_configured", participant=surroundings.participant, variable="PINCEX_FIAT_BANK_URL")
        await idle()
        return
    # Two calls to the bank, and time to write down what they said.
    lease_s = 2 * settings.timeout_s + 2
    async with (
        Outbox.open("payment", surroundings.dsn, lease_s) as outbox,
        Bank.open(settings) as bank,
    ):
        payer = Payer(outbox, bank, settings, surroundings.participant)
        async for rows in outbox.claims():
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(payer.send(row))


class Payer:
    """Sends claimed payments, and writes down what came of them."""

    def __init__(self, outbox: Outbox, bank: Bank, settings: BankSettings, participant: str) -> None:
        self._outbox = outbox
        self._bank = bank
        self._settings = settings
        self._told: structlog.stdlib.BoundLogger = _log.bind(participant=participant)

    async def send(self, row: DictRow) -> None:
        """Find out what became of the payment, or have it made."""
        order = PaymentOrder(row["withdrawal_id"], row["currency"], row["amount"], row["iban"], row["account_holder"])
        try:
            payment = await self._ended(order, row["attempts"], row["age_s"])
        except UnclearError as error:
            await self._postpone(order, row["attempts"], str(error))
        except (BankRefusedError, ForgottenKeyError) as error:
            self._told.error("payment_stuck", withdrawal_id=order.key, error=str(error))
            await self._settle(order.key, _STUCK, detail=str(error))
        else:
            await self._end(order, payment)

    async def _ended(self, order: PaymentOrder, attempts: int, age_s: float) -> Payment:
        if attempts > 1:
            known = await self._bank.payment(order)
            if known is not None:
                return known
            # The call itself takes its time-out, at most.
            if age_s + self._settings.timeout_s > self._settings.key_lifetime_s:
                raise ForgottenKeyError(f"the bank knows no payment {order.key}, first sent {age_s:.0f} s ago")
        return await self._bank.pay(order)

    async def _end(self, order: PaymentOrder, payment: Payment) -> None:
        if payment.status == "executed":
            self._told.info("withdrawal_paid", withdrawal_id=order.key, payment_id=payment.payment_id)
            await self._settle(order.key, _PAID, payment.payment_id, payment.amount)
        else:
            self._told.error("payment_rejected", withdrawal_id=order.key, reason=payment.reason)
            await self._settle(order.key, _REJECTED, payment.payment_id, detail=payment.reason)

    async def _settle(
        self, key: str, state: int, payment_id: str | None = None, paid: Decimal | None = None, detail: str = ""
    ) -> None:
        found = {"withdrawal_id": key, "state": state, "payment_id": payment_id, "paid": paid, "detail": detail}
        await self._outbox.write(_SETTLE, found)

    async def _postpone(self, order: PaymentOrder, attempts: int, detail: str) -> None:
        tell = self._told.error if attempts >= ATTEMPTS_ALARMING else self._told.warning
        tell("payment_unclear", withdrawal_id=order.key, attempts=attempts, error=detail)
        pause_s = pause_after_s(attempts, PAUSE_LONGEST_S)
        found = {"withdrawal_id": order.key, "attempts": attempts, "pause_s": pause_s, "detail": detail[:500]}
        await self._outbox.write(_POSTPONE, found)
