"""The bank, over HTTP: payments under idempotency keys, and what came in.

``docs/participants.md`` describes the calls. An answer that is not what was asked for proves nothing: it is
``UnclearError``, as silence is. Nothing here tries again; whoever asks has the outcome on record, or asks later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final, Literal

import httpx
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from participant_sdk.currencies import FIAT_SCALES, FiatCurrency
from participant_sdk.parameters import AMOUNT_LIMIT, is_finer
from sidecars.fiat.settings import BankSettings

PAGE_MAX: Final = 100
# More than any amount takes, and no more digits than are read exactly.
AMOUNT_MAX_CHARS: Final = 60
# By these the bank says that it will not do what was asked, however often.
_REFUSALS: Final = (400, 409, 410, 413, 415, 422)


class UnclearError(Exception):
    """The bank's answer is not known, or makes no sense: what was asked may be done, now or later."""


class BankRefusedError(Exception):
    """The bank does not take the request as it is. Somebody has to look at it."""


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """What is to be paid, under which key. The bank pays it once for each key."""

    key: str
    currency: str
    amount: Decimal
    iban: str
    account_holder: str

    def body(self) -> dict[str, str]:
        """As the bank reads it."""
        return {
            "currency": self.currency,
            "amount": f"{self.amount:.{FIAT_SCALES[self.currency]}f}",
            "iban": self.iban,
            "name": self.account_holder,
            "reference": self.key,
        }


def _decimal(value: object) -> object:
    """The number that a text is; None, which no field takes, where it is none, or longer than any amount."""
    if not isinstance(value, str) or len(value) > AMOUNT_MAX_CHARS or not value.replace(".", "", 1).isdecimal():
        return None
    return Decimal(value)


def _storable(text: str) -> str:
    """The text without the one character that PostgreSQL's texts cannot have."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


Amount = Annotated[Decimal, BeforeValidator(_decimal)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=140), AfterValidator(_storable)]


class Payment(BaseModel):
    """What came of a payment, as the bank tells it."""

    model_config = ConfigDict(frozen=True)

    payment_id: Text
    key: str
    status: Literal["executed", "rejected"]
    reason: Annotated[str, StringConstraints(max_length=500), AfterValidator(_storable)] = ""
    currency: str
    amount: Amount
    iban: str

    def is_of(self, order: PaymentOrder) -> bool:
        """Whether this is the payment that was ordered, and no other."""
        return (self.key, self.currency, self.amount, self.iban) == (
            order.key,
            order.currency,
            order.amount,
            order.iban,
        )


class IncomingTransfer(BaseModel):
    """Money that came in, under a reference that the bank gives once."""

    model_config = ConfigDict(frozen=True)

    transfer_id: Text
    reference: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")]
    currency: FiatCurrency
    amount: Amount
    iban: Text
    name: Text
    received_at: AwareDatetime

    @model_validator(mode="after")
    def _check_amount(self) -> IncomingTransfer:
        if self.amount <= 0 or self.amount >= AMOUNT_LIMIT or is_finer(self.amount, FIAT_SCALES[self.currency]):
            raise ValueError(f"{self.amount} {self.currency} is no amount")
        return self


@dataclass(frozen=True, slots=True)
class UnusableTransfer:
    """A line of the bank's list that cannot be read, and why."""

    told: JsonValue
    why: str


@dataclass(frozen=True, slots=True)
class TransferPage:
    """A piece of the bank's list, and the cursor after it."""

    transfers: Sequence[IncomingTransfer]
    unusable: Sequence[UnusableTransfer]
    following: str


class _Page(BaseModel):
    transfers: list[JsonValue]
    next: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]


class Bank:
    """A client of the bank's API."""

    def __init__(self, client: httpx.AsyncClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: BankSettings) -> AsyncGenerator[Bank]:
        """Have connections to the bank until the block ends."""
        headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token.get_secret_value()}"}
        async with httpx.AsyncClient(base_url=str(settings.url), headers=headers, timeout=settings.timeout_s) as client:
            yield cls(client, settings.timeout_s)

    async def pay(self, order: PaymentOrder) -> Payment:
        """Order a payment. UnclearError leaves it unknown; BankRefusedError says that it is not taken."""
        headers = {"Idempotency-Key": order.key}
        request = self._client.build_request("POST", "payments", json=order.body(), headers=headers)
        response = await self._ask(request, self._timeout_s)
        if response.status_code in _REFUSALS:
            raise BankRefusedError(_said(response))
        return _payment(response, order)

    async def payment(self, order: PaymentOrder) -> Payment | None:
        """What came of a payment; None where the bank does not know its key, now. UnclearError."""
        request = self._client.build_request("GET", "payments", params={"key": order.key})
        response = await self._ask(request, self._timeout_s)
        return None if response.status_code == 404 else _payment(response, order)

    async def transfers(self, after: str, wait_s: float) -> TransferPage:
        """What came in after a cursor, "" for the first; the bank may wait that long for something. UnclearError."""
        query = {"after": after or "0", "limit": str(PAGE_MAX), "wait_s": f"{wait_s:g}"}
        within_s = self._timeout_s + wait_s
        timeout = httpx.Timeout(self._timeout_s, read=within_s)
        response = await self._ask(
            self._client.build_request("GET", "transfers", params=query, timeout=timeout), within_s
        )
        try:
            page = _Page.model_validate_json(_successful(response).content)
        except ValidationError as error:
            raise UnclearError(f"the bank's list cannot be read: {error.errors()[0]['msg']}") from error
        read = [_read_transfer(told) for told in page.transfers]
        return TransferPage(
            [each for each in read if isinstance(each, IncomingTransfer)],
            [each for each in read if isinstance(each, UnusableTransfer)],
            page.next,
        )

    async def _ask(self, request: httpx.Request, within_s: float) -> httpx.Response:
        try:
            # The client's own time-outs are for each piece of an answer, and there may be many.
            async with asyncio.timeout(within_s):
                return await self._client.send(request)
        except TimeoutError as error:
            raise UnclearError(f"the bank did not answer within {within_s:g} s") from error
        except httpx.RequestError as error:
            raise UnclearError(f"the bank did not answer: {type(error).__name__}: {error}") from error


def _payment(response: httpx.Response, order: PaymentOrder) -> Payment:
    try:
        payment = Payment.model_validate_json(_successful(response).content)
    except ValidationError as error:
        raise UnclearError(f"the bank's answer cannot be read: {error.errors()[0]['msg']}") from error
    if not payment.is_of(order):
        raise UnclearError(
            f"the bank answers about another payment: {payment.key}, {payment.amount} {payment.currency}"
        )
    return payment


def _successful(response: httpx.Response) -> httpx.Response:
    if response.status_code not in (200, 201):
        raise UnclearError(_said(response))
    return response


def _said(response: httpx.Response) -> str:
    return f"the bank says {response.status_code}: {_storable(response.text[:200])}"


def _read_transfer(told: JsonValue) -> IncomingTransfer | UnusableTransfer:
    """A line of the list. One that is wrong must not keep the others back."""
    try:
        return IncomingTransfer.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return UnusableTransfer(told, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
