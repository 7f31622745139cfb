"""What fiat is asked to do: bank money recorded as it comes in, reserved and sent as it goes out, and who may move it.

A withdrawal's id is the caller's, or is made from its transaction and its place in it, so a repeated Prepare tells the
same. It is also the key by which the bank knows the payment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from stdnum import iban as ibans
from stdnum.exceptions import ValidationError as InvalidNumberError

from participant_sdk.currencies import FiatCurrency, check_scale
from participant_sdk.ids import Xid
from participant_sdk.parameters import (
    BAD_PARAMETERS,
    Amount,
    Note,
    Parameters,
    RefusedError,
    UserId,
    read,
    refuse,
    unknown_operation,
)
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.xa import PREPARED
from sidecars.reads import check_reads_alone

BAD_IBAN: Final = "BAD_IBAN"

_REFERENCE_MAX_CHARS: Final = 64
# SEPA's bound for names.
_HOLDER_MAX_CHARS: Final = 70


class OperationKind(IntEnum):
    """What the SQL is told to do."""

    SET_COMPLIANCE = 1
    CHECK_COMPLIANCE = 2
    VALIDATE_TRANSFER = 3
    RECORD_DEPOSIT = 4
    RESERVE_WITHDRAWAL = 5
    COMPLETE_WITHDRAWAL = 6
    CANCEL_WITHDRAWAL = 7
    DEPOSIT_STATUS = 8
    WITHDRAWAL_STATUS = 9


class ComplianceState(IntEnum):
    """Whether a user may move money. The numbers are the users table's."""

    PENDING = 1
    CLEARED = 2
    BLOCKED = 3


class Direction(IntEnum):
    """Which limits apply. The numbers are the SQL's."""

    DEPOSIT = 1
    WITHDRAWAL = 2


def _check_reference(value: str) -> str:
    if not 1 <= len(value) <= _REFERENCE_MAX_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


def _check_holder(value: str) -> str:
    if not 1 <= len(value) <= _HOLDER_MAX_CHARS or not value.isprintable() or value != value.strip():
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 70 printable characters, without spaces around them")
    return value


def _check_iban(value: str) -> str:
    """The IBAN in its electronic form. ISO 13616: the country's length and layout, and the check digits, mod 97-10."""
    # The library takes the digits of every script, and a bank does not.
    if not value.isascii():
        raise PydanticCustomError(BAD_IBAN, "is no IBAN: it has characters that no IBAN has")
    try:
        return ibans.validate(value)
    except InvalidNumberError as error:
        raise PydanticCustomError(BAD_IBAN, "is no IBAN: {why}", {"why": str(error).rstrip(".")}) from error


Reference = Annotated[str, AfterValidator(_check_reference)]
AccountHolder = Annotated[str, AfterValidator(_check_holder)]
Iban = Annotated[str, AfterValidator(_check_iban)]


class ComplianceChange(Parameters):
    """What a user is from now on, and why."""

    user_id: UserId
    state: Literal["PENDING", "CLEARED", "BLOCKED"]
    note: Note | None = None


class ComplianceCheck(Parameters):
    """A user who must be cleared; with an amount, its limits are checked as they stand."""

    user_id: UserId
    currency: FiatCurrency | None = None
    amount: Amount | None = None
    direction: Literal["deposit", "withdrawal"] = "deposit"


class Transfer(Parameters):
    """Money that the bank is to have told of. The IBAN is the sender's."""

    bank_reference: Reference
    currency: FiatCurrency
    amount: Amount
    iban: Iban | None = None


class Deposit(Transfer):
    """Such money, and whose it becomes."""

    user_id: UserId


class Withdrawal(Parameters):
    """Money to be sent to an account."""

    withdrawal_id: Reference | None = None
    user_id: UserId
    currency: FiatCurrency
    amount: Amount
    iban: Iban
    account_holder: AccountHolder


class NamedWithdrawal(Parameters):
    """A withdrawal that was reserved."""

    withdrawal_id: Reference


class NamedTransfer(Parameters):
    """A transfer that the bank may have told of."""

    bank_reference: Reference


class _Row(NamedTuple):
    """An operation as the SQL reads it, and what it returns to the caller if its branch is prepared."""

    kind: OperationKind
    members: str = ""
    result: str = ""


def _set_compliance(_branch: str, operation: Operation, index: int) -> _Row:
    change = read(ComplianceChange, operation, index)
    note = "" if change.note is None else f',"t":{quoted(change.note)}'
    members = f'"u":{quoted(change.user_id)},"s":{ComplianceState[change.state]:d}{note}'
    return _Row(OperationKind.SET_COMPLIANCE, members)


def _check_compliance(_branch: str, operation: Operation, index: int) -> _Row:
    check = read(ComplianceCheck, operation, index)
    members = f'"u":{quoted(check.user_id)}'
    if check.amount is not None and check.currency is not None:
        check_scale(check.amount, check.currency, index, "amount")
        direction = Direction[check.direction.upper()]
        members += f',"c":"{check.currency}","a":{check.amount:f},"d":{direction:d}'
    elif check.amount is not None:
        raise refuse(index, "currency", "is missing: an amount needs one")
    elif check.currency is not None:
        raise refuse(index, "amount", "is missing: a currency is checked with one")
    return _Row(OperationKind.CHECK_COMPLIANCE, members, '{"state":"CLEARED"}')


def _validate_transfer(_branch: str, operation: Operation, index: int) -> _Row:
    transfer = read(Transfer, operation, index)
    return _Row(OperationKind.VALIDATE_TRANSFER, _told(transfer, index), '{"valid":true}')


def _record_deposit(_branch: str, operation: Operation, index: int) -> _Row:
    deposit = read(Deposit, operation, index)
    members = f'{_told(deposit, index)},"u":{quoted(deposit.user_id)},"d":{Direction.DEPOSIT:d}'
    return _Row(OperationKind.RECORD_DEPOSIT, members, f'{{"bank_reference":{quoted(deposit.bank_reference)}}}')


def _told(transfer: Transfer, index: int) -> str:
    check_scale(transfer.amount, transfer.currency, index, "amount")
    sender = "" if transfer.iban is None else f',"n":"{transfer.iban}"'
    return f'"i":{quoted(transfer.bank_reference)},"c":"{transfer.currency}","a":{transfer.amount:f}{sender}'


def _reserve_withdrawal(branch: str, operation: Operation, index: int) -> _Row:
    asked = read(Withdrawal, operation, index)
    check_scale(asked.amount, asked.currency, index, "amount")
    withdrawal_id = quoted(asked.withdrawal_id or f"{branch}-{index}")
    members = (
        f'"i":{withdrawal_id},"u":{quoted(asked.user_id)},"c":"{asked.currency}","a":{asked.amount:f},'
        f'"n":"{asked.iban}","h":{quoted(asked.account_holder)},"d":{Direction.WITHDRAWAL:d}'
    )
    return _Row(OperationKind.RESERVE_WITHDRAWAL, members, f'{{"withdrawal_id":{withdrawal_id}}}')


def _complete_withdrawal(_branch: str, operation: Operation, index: int) -> _Row:
    return _Row(OperationKind.COMPLETE_WITHDRAWAL, _named(operation, index))


def _cancel_withdrawal(_branch: str, operation: Operation, index: int) -> _Row:
    return _Row(OperationKind.CANCEL_WITHDRAWAL, _named(operation, index))


def _withdrawal_status(_branch: str, operation: Operation, index: int) -> _Row:
    return _Row(OperationKind.WITHDRAWAL_STATUS, _named(operation, index))


def _deposit_status(_branch: str, operation: Operation, index: int) -> _Row:
    named = read(NamedTransfer, operation, index)
    return _Row(OperationKind.DEPOSIT_STATUS, f'"i":{quoted(named.bank_reference)}')


def _named(operation: Operation, index: int) -> str:
    return f'"i":{quoted(read(NamedWithdrawal, operation, index).withdrawal_id)}'


_OPERATIONS: Final[Mapping[str, Callable[[str, Operation, int], _Row]]] = {
    "validate_transfer": _validate_transfer,
    "record_deposit": _record_deposit,
    "reserve_withdrawal": _reserve_withdrawal,
    "complete_withdrawal": _complete_withdrawal,
    "cancel_withdrawal": _cancel_withdrawal,
    "check_compliance": _check_compliance,
    "set_compliance": _set_compliance,
    "deposit_status": _deposit_status,
    "withdrawal_status": _withdrawal_status,
}
OPERATION_NAMES: Final = tuple(_OPERATIONS)
_CHECKS: Final = (OperationKind.CHECK_COMPLIANCE, OperationKind.VALIDATE_TRANSFER)
_READS: Final = (OperationKind.DEPOSIT_STATUS, OperationKind.WITHDRAWAL_STATUS)


def plan(log_id: str, xid: Xid, operations: Sequence[Operation]) -> Planned:
    """Work out a branch's rows and the ids of its withdrawals, or the "no" to what is wrong in itself."""
    # Two logs may give out the same xid, and a withdrawal's id is one for all of them (R18).
    branch = f"{log_id}-{xid}"
    try:
        rows = [_row(branch, operation, index) for index, operation in enumerate(operations)]
        if any(row.kind not in _CHECKS and row.kind not in _READS for row in rows):
            check_reads_alone([row.kind in _READS for row in rows])
    except RefusedError as error:
        return Planned((), error.vote)
    results = tuple(row.result for row in rows)
    vote = PREPARED._replace(results=results) if any(results) else PREPARED
    written = tuple(f'"o":{index},"k":{row.kind:d},{row.members}' for index, row in enumerate(rows))
    return Planned(written, vote)


def _row(branch: str, operation: Operation, index: int) -> _Row:
    read_row = _OPERATIONS.get(operation.name)
    if read_row is None:
        raise unknown_operation(operation, index, OPERATION_NAMES)
    return read_row(branch, operation, index)


SERVICE: Final = ReservationService(
    schema="fiat",
    migrations=files("sidecars.fiat") / "migrations",
    invariants=files("sidecars.fiat") / "invariants.sql",
    operations=OPERATION_NAMES,
    plan=plan,
)
