"""A bank for development: ``python -m sidecars.simulators.bank --listen host:port --folder path``.

It keeps one customer's account, the exchange's. ``docs/participants.md`` lists its calls: those of the bank itself
are ``POST /payments``, ``GET /payments?key=`` and ``GET /transfers``; what is below ``/development`` a bank has not.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from participant_sdk.currencies import SCALES
from sidecars.simulators.books import Books
from sidecars.simulators.faults import Behaviour, FaultKind
from sidecars.simulators.serving import Company, RefusedError, main, misbehaving

PAGE_MAX: Final = 1_000
WAIT_MAX_S: Final = 30.0
KEY_MAX_CHARS: Final = 128
# How far back a list begins that tells again what it has told.
TOLD_AGAIN: Final = 50

_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,2})?", re.ASCII)


def _check_amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text) or not Decimal(text):
        raise ValueError("must be an amount above zero, such as 12.50")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=140)]


class Money(BaseModel):
    """An amount, and whose account is at the other end."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    currency: Text
    amount: Annotated[str, AfterValidator(_check_amount)]
    iban: Text
    name: Text
    reference: Text

    @model_validator(mode="after")
    def _check_scale(self) -> Money:
        if self.currency not in SCALES or Decimal(self.amount).scaleb(SCALES[self.currency]) % 1:
            raise ValueError(f"amount {self.amount} {self.currency} is no amount that the bank can hold")
        return self

    def is_same(self, other: Money) -> bool:
        """Whether both are one payment; 12.5 is 12.50."""
        return self.minor == other.minor and self.model_copy(update={"amount": other.amount}) == other

    @property
    def minor(self) -> int:
        """The amount in its currency's smallest unit."""
        return int(Decimal(self.amount).scaleb(SCALES[self.currency]))


class Account(BaseModel):
    """Somebody's account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iban: Text


class Page(BaseModel):
    """Which transfers to tell: those after a cursor. If there are none yet, it is waited for them so long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100
    wait_s: Annotated[float, Field(ge=0, le=WAIT_MAX_S)] = 0.0


class Bank:
    """The calls. Each finds and leaves everything in the books."""

    def __init__(self, books: Books, behaviour: Behaviour) -> None:
        self._books = books
        self._behaviour = behaviour
        self._arrival = asyncio.Condition()

    async def pay(self, request: Request) -> Response:
        """Pay once for each key; a key that is known is told what came of it."""
        key = request.headers.get("idempotency-key", "")
        if not 1 <= len(key) <= KEY_MAX_CHARS:
            raise RefusedError(400, "KEY_MISSING", f"Idempotency-Key: 1 to {KEY_MAX_CHARS} characters")
        asked = Money.model_validate_json(await request.body())
        with self._books.transaction() as connection:
            known = connection.execute("select * from payments where idempotency_key = ?", (key,)).fetchone()
            if known is None:
                _execute(connection, key, asked)
        found = self._payment(key)
        if known is not None and not _money(known).is_same(asked):
            raise RefusedError(422, "KEY_REUSED", f"the key {key} belongs to another payment")
        return JSONResponse(found, 200 if known is not None else 201)

    async def payment(self, request: Request) -> Response:
        """What came of the payment with this key."""
        return JSONResponse(self._payment(request.query_params.get("key", "")))

    async def transfers(self, request: Request) -> Response:
        """What came in after a cursor, in order; ``next`` is the cursor to go on from."""
        page = Page.model_validate(dict(request.query_params))
        if not self._transfers(page.after, page.limit) and page.wait_s:
            await self._await_arrival(page)
        rows = self._transfers(page.after, page.limit)
        after = rows[-1]["number"] if rows else page.after
        if FaultKind.TWICE in self._behaviour.draw("transfers"):
            rows = [*rows, *self._transfers(max(0, page.after - TOLD_AGAIN), page.limit)]
        told = [{**_shown(row), "transfer_id": str(row["number"]), "received_at": row["received_at"]} for row in rows]
        return JSONResponse({"transfers": told, "next": str(after)})

    async def receive(self, request: Request) -> Response:
        """Somebody pays the exchange. The same reference again, with the same money, is the same transfer."""
        paid = Money.model_validate_json(await request.body())
        with self._books.transaction() as connection:
            known = connection.execute("select * from transfers where reference = ?", (paid.reference,)).fetchone()
            if known is None:
                _receive(connection, paid)
        if known is not None and not _money(known).is_same(paid):
            raise RefusedError(409, "REFERENCE_USED", f"the reference {paid.reference} belongs to another transfer")
        async with self._arrival:
            self._arrival.notify_all()
        return JSONResponse(paid.model_dump(), 201 if known is None else 200)

    async def close_account(self, request: Request) -> Response:
        """Have payments to an account rejected from now on."""
        account = Account.model_validate_json(await request.body())
        with self._books.transaction() as connection:
            connection.execute("insert or ignore into closed_accounts (iban) values (?)", (account.iban,))
        return JSONResponse(account.model_dump(), 201)

    async def totals(self, _: Request) -> Response:
        """What came in and went out, by currency."""
        rows = self._books.read("select * from totals order by currency")
        return JSONResponse(
            {
                row["currency"]: {
                    "in": _written(row["came"], row["currency"]),
                    "out": _written(row["went"], row["currency"]),
                    "payments": row["payments"],
                    "transfers": row["transfers"],
                }
                for row in rows
            }
        )

    def _payment(self, key: str) -> dict[str, str]:
        rows = self._books.read("select * from payments where idempotency_key = ?", key)
        if not rows:
            raise RefusedError(404, "UNKNOWN_PAYMENT", f"no payment has the key {key}")
        row = rows[0]
        said = {"payment_id": f"P{row['number']}", "key": key, "status": row["status"], "reason": row["reason"]}
        return {**_shown(row), **said}

    def _transfers(self, after: int, limit: int) -> list[sqlite3.Row]:
        return self._books.read("select * from transfers where number > ? order by number limit ?", after, limit)

    async def _await_arrival(self, page: Page) -> None:
        try:
            async with asyncio.timeout(page.wait_s), self._arrival:
                await self._arrival.wait_for(lambda: bool(self._transfers(page.after, 1)))
        except TimeoutError:
            return


def _execute(connection: sqlite3.Connection, key: str, asked: Money) -> None:
    closed = connection.execute("select iban from closed_accounts where iban = ?", (asked.iban,)).fetchone()
    status, reason = ("executed", "") if closed is None else ("rejected", "ACCOUNT_CLOSED")
    connection.execute(
        "insert into payments (idempotency_key, status, reason, currency, minor, iban, name, reference)"
        " values (?, ?, ?, ?, ?, ?, ?, ?)",
        (key, status, reason, asked.currency, asked.minor, asked.iban, asked.name, asked.reference),
    )
    if closed is None:
        connection.execute(
            "insert into postings (idempotency_key, currency, minor) values (?, ?, ?)",
            (key, asked.currency, -asked.minor),
        )


def _receive(connection: sqlite3.Connection, paid: Money) -> None:
    connection.execute(
        "insert into transfers (reference, currency, minor, iban, name, received_at) values (?, ?, ?, ?, ?, ?)",
        (paid.reference, paid.currency, paid.minor, paid.iban, paid.name, datetime.now(UTC).isoformat()),
    )
    connection.execute(
        "insert into postings (reference, currency, minor) values (?, ?, ?)",
        (paid.reference, paid.currency, paid.minor),
    )


def _money(row: sqlite3.Row) -> Money:
    return Money.model_validate(_shown(row))


def _shown(row: sqlite3.Row) -> dict[str, str]:
    shown = {name: row[name] for name in ("currency", "iban", "name", "reference")}
    return {**shown, "amount": _written(row["minor"], row["currency"])}


def _written(minor: int, currency: str) -> str:
    return f"{Decimal(minor).scaleb(-SCALES[currency]):f}"


def routes(books: Books, behaviour: Behaviour) -> Iterable[Route]:
    """The bank's calls, under its faults, and those that only development has."""
    bank = Bank(books, behaviour)
    for method, path, endpoint in (
        ("POST", "/payments", bank.pay),
        ("GET", "/payments", bank.payment),
        ("GET", "/transfers", bank.transfers),
    ):
        yield Route(path, misbehaving(behaviour, f"{method} {path}", endpoint), methods=[method])
    yield Route("/development/transfers", bank.receive, methods=["POST"])
    yield Route("/development/closed-accounts", bank.close_account, methods=["POST"])
    yield Route("/development/totals", bank.totals, methods=["GET"])


_FOLDER: Final = files("sidecars.simulators")
COMPANY: Final = Company("bank", _FOLDER / "bank_schema.sql", _FOLDER / "bank_invariants.sql", routes)

if __name__ == "__main__":
    sys.exit(main(COMPANY))
