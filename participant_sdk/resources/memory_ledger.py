"""The business of the memory resource: accounts, amounts, and what a branch's operations would post.

    transfer {from, to, amount}    hold at ``from``, post to both on commit
    debit    {account, amount}     hold, post on commit
    credit   {account, amount}     post on commit
    read     {account}             the balance and what is available of it; changes nothing
    fail     {}                    the business says no

Amounts are above zero, decimal strings or JSON numbers, with at most 18 places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from participant_sdk.exact_json import Exact, InvalidJsonError, loads, loads_object
from participant_sdk.participant import Operation
from participant_sdk.resources.memory_store import Account, Posting
from participant_sdk.xa import Vote, business_no, invalid

AMOUNT_MAX_PLACES: Final = 18


class Plan(NamedTuple):
    """What a branch will post, and what its operations return."""

    postings: tuple[Posting, ...]
    results: tuple[str, ...]


class RefusedError(Exception):
    """The branch's vote is "no"."""

    def __init__(self, vote: Vote) -> None:
        super().__init__(vote.message)
        self.vote = vote


class _Parameters:
    """One operation's parameters, each asked for once; what is left over is refused."""

    __slots__ = ("_path", "_values")

    def __init__(self, operation: Operation, at: int) -> None:
        self._path = f"operations[{at}].parameters"
        try:
            self._values = loads_object(operation.parameters)
        except InvalidJsonError as error:
            raise RefusedError(invalid("BAD_PARAMETERS", str(error), self._path)) from error

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self._refuse(key, "must be a string that is not empty")
        return value

    def amount(self, key: str) -> Decimal:
        value = self._take(key)
        if isinstance(value, str):
            value = self._number(key, value)
        if not isinstance(value, Decimal):
            raise self._refuse(key, "must be a decimal")
        exponent = value.as_tuple().exponent
        if value <= 0 or not isinstance(exponent, int) or -exponent > AMOUNT_MAX_PLACES:
            raise self._refuse(key, f"must be above zero, with at most {AMOUNT_MAX_PLACES} places")
        return value

    def done(self) -> None:
        for key in self._values:
            raise self._refuse(key, "is not a parameter of this operation")

    def _take(self, key: str) -> Exact:
        if key not in self._values:
            raise self._refuse(key, "is missing")
        return self._values.pop(key)

    def _number(self, key: str, text: str) -> Exact:
        try:
            return loads(text)
        except InvalidJsonError as error:
            raise self._refuse(key, f"must be a decimal: {error}") from error

    def _refuse(self, key: str, what: str) -> RefusedError:
        field = f"{self._path}.{key}"
        return RefusedError(invalid("BAD_PARAMETERS", f"{field} {what}", field))


class _Draft:
    """A plan in the making over the accounts as they are now."""

    __slots__ = ("_accounts", "_holds", "postings", "results")

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self.postings: list[Posting] = []
        self._holds: dict[str, Decimal] = {}
        self.results: list[str] = []

    def account(self, name: str) -> Account:
        account = self._accounts.get(name)
        if account is None:
            raise RefusedError(business_no("UNKNOWN_ACCOUNT", f"there is no account {name!r}"))
        return account

    def debit(self, name: str, amount: Decimal) -> None:
        held = self._holds.get(name, Decimal(0)) + amount
        available = self.account(name).available
        if held > available:
            raise RefusedError(
                business_no("INSUFFICIENT_FUNDS", f"account {name!r} has {available} available, not {held}")
            )
        self._holds[name] = held
        self.postings.append(Posting(name, -amount))

    def credit(self, name: str, amount: Decimal) -> None:
        self.account(name)
        self.postings.append(Posting(name, amount))


def _transfer(draft: _Draft, parameters: _Parameters) -> str:
    source, target, amount = parameters.text("from"), parameters.text("to"), parameters.amount("amount")
    parameters.done()
    draft.debit(source, amount)
    draft.credit(target, amount)
    return ""


def _debit(draft: _Draft, parameters: _Parameters) -> str:
    account, amount = parameters.text("account"), parameters.amount("amount")
    parameters.done()
    draft.debit(account, amount)
    return ""


def _credit(draft: _Draft, parameters: _Parameters) -> str:
    account, amount = parameters.text("account"), parameters.amount("amount")
    parameters.done()
    draft.credit(account, amount)
    return ""


def _read(draft: _Draft, parameters: _Parameters) -> str:
    name = parameters.text("account")
    parameters.done()
    account = draft.account(name)
    return json.dumps({"balance": str(account.balance), "available": str(account.available)})


def _fail(_draft: _Draft, _parameters: _Parameters) -> str:
    raise RefusedError(business_no("TOLD_TO_FAIL", "the operation fail always says no"))


_OPERATIONS: Final[Mapping[str, Callable[[_Draft, _Parameters], str]]] = {
    "transfer": _transfer,
    "credit": _credit,
    "debit": _debit,
    "read": _read,
    "fail": _fail,
}
OPERATION_NAMES: Final = tuple(_OPERATIONS)


def plan(operations: Sequence[Operation], accounts: Mapping[str, Account]) -> Plan:
    """Work out what the operations would do, in order. RefusedError carries the vote of "no"."""
    draft = _Draft(accounts)
    for at, operation in enumerate(operations):
        run = _OPERATIONS.get(operation.name)
        if run is None:
            served = ", ".join(OPERATION_NAMES)
            raise RefusedError(
                invalid(
                    "UNKNOWN_OPERATION",
                    f"there is no operation {operation.name!r}; there are {served}",
                    f"operations[{at}].operation",
                )
            )
        draft.results.append(run(draft, _Parameters(operation, at)))
    results = tuple(draft.results) if any(draft.results) else ()
    return Plan(tuple(draft.postings), results)
