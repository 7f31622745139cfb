"""What the wallet is asked to do: withdrawals reserved, broadcast, confirmed or cancelled, and deposits recorded.

Whatever can be seen of an operation by itself is checked here, its address down to the checksum. What needs the
hot wallet, its limits or other withdrawals is for the SQL. Nothing here, and no branch, ever talks to a chain: a
committed ``broadcast_withdrawal`` leaves a row in a queue, and an attendant sends it (``broadcasting.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Final

from pydantic import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from participant_sdk.currencies import ChainCurrency, check_scale
from participant_sdk.ids import Xid
from participant_sdk.parameters import (
    BAD_PARAMETERS,
    Amount,
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
from sidecars.reads import check_reads_alone
from sidecars.wallet.addresses import CHAIN_OF, OtherChainError, read_address
from sidecars.wallet.base58 import AddressError

BAD_ADDRESS: Final = "BAD_ADDRESS"
ADDRESS_OF_OTHER_CHAIN: Final = "ADDRESS_OF_OTHER_CHAIN"

_NAME_MAX_CHARS: Final = 64
_HASH_MAX_CHARS: Final = 128
# An index is 32 bits in Bitcoin's transactions; PostgreSQL's integer has 31, and no block has room for so many.
_OUTPUTS_MAX: Final = 2**31 - 1
_INDEX: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_HEX_HASH: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_HEX_HASHES: Final = {"BTC": "", "LTC": "", "DOGE": "", "BCH": "", "ETH": "0x", "XRP": "", "ADA": "", "DOT": "0x"}


class OperationKind(IntEnum):
    """What the SQL is told to do. The numbers from BROADCAST to CANCEL are the withdrawals table's too."""

    RESERVE = 1
    VALIDATE = 2
    BROADCAST = 3
    CONFIRM = 4
    CANCEL = 5
    DEPOSIT = 6
    STATUS = 7


def _check_name(value: str) -> str:
    if not 1 <= len(value) <= _NAME_MAX_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


def _check_hash(value: str) -> str:
    if not 1 <= len(value) <= _HASH_MAX_CHARS or not value.isascii() or not value.isalnum():
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 128 ASCII letters and digits")
    return value


def _check_index(value: object) -> int:
    # Numbers arrive as decimals, exactly as they were written; as with amounts, their text will do.
    text = "" if isinstance(value, bool) else str(value)
    if not _INDEX.fullmatch(text) or int(text) > _OUTPUTS_MAX:
        raise PydanticCustomError(BAD_PARAMETERS, "must be a whole number, from 0 to 2147483647")
    return int(text)


WithdrawalId = Annotated[str, AfterValidator(_check_name)]
TransactionHash = Annotated[str, AfterValidator(_check_hash)]
OutputIndex = Annotated[int, PlainValidator(_check_index)]


class Withdrawal(Parameters):
    """Money to leave for an address. ``fee`` is the most that the chain may cost; the currency's own, if not given."""

    withdrawal_id: WithdrawalId
    user_id: UserId
    currency: ChainCurrency
    amount: Amount
    fee: Amount | None = None
    address: str


class Asked(Parameters):
    """What a withdrawal would be. With an id, that must be free too."""

    withdrawal_id: WithdrawalId | None = None
    user_id: UserId
    currency: ChainCurrency
    amount: Amount
    fee: Amount | None = None
    address: str


class Named(Parameters):
    """A withdrawal that was reserved."""

    withdrawal_id: WithdrawalId


class Deposit(Parameters):
    """Money that came: which output of which transaction, at which of our addresses, for whom."""

    user_id: UserId
    currency: ChainCurrency
    amount: Amount
    tx_hash: TransactionHash
    output_index: OutputIndex
    address: str


def _reserve(operation: Operation, index: int) -> str:
    return _withdrawal(OperationKind.RESERVE, read(Withdrawal, operation, index), index)


def _validate(operation: Operation, index: int) -> str:
    return _withdrawal(OperationKind.VALIDATE, read(Asked, operation, index), index)


def _broadcast(operation: Operation, index: int) -> str:
    return _named(OperationKind.BROADCAST, operation, index)


def _confirm(operation: Operation, index: int) -> str:
    return _named(OperationKind.CONFIRM, operation, index)


def _cancel(operation: Operation, index: int) -> str:
    return _named(OperationKind.CANCEL, operation, index)


def _status(operation: Operation, index: int) -> str:
    return _named(OperationKind.STATUS, operation, index)


def _named(kind: OperationKind, operation: Operation, index: int) -> str:
    return f'"o":{index},"k":{kind:d},"w":{quoted(read(Named, operation, index).withdrawal_id)}'


def _withdrawal(kind: OperationKind, asked: Withdrawal | Asked, index: int) -> str:
    address = _address(asked.address, asked.currency, index)
    check_scale(asked.amount, asked.currency, index, "amount")
    if asked.fee is not None:
        check_scale(asked.fee, asked.currency, index, "fee")
    named = "null" if asked.withdrawal_id is None else quoted(asked.withdrawal_id)
    fee = "null" if asked.fee is None else f"{asked.fee:f}"
    return (
        f'"o":{index},"k":{kind:d},"w":{named},"u":{quoted(asked.user_id)},"c":"{asked.currency}",'
        f'"a":{asked.amount:f},"f":{fee},{address}'
    )


def _deposit(operation: Operation, index: int) -> str:
    deposit = read(Deposit, operation, index)
    address = _address(deposit.address, deposit.currency, index)
    check_scale(deposit.amount, deposit.currency, index, "amount")
    tx_hash = _transaction_hash(deposit.tx_hash, CHAIN_OF[deposit.currency], index)
    return (
        f'"o":{index},"k":{OperationKind.DEPOSIT:d},"u":{quoted(deposit.user_id)},"c":"{deposit.currency}",'
        f'"a":{deposit.amount:f},"t":{quoted(tx_hash)},"x":{deposit.output_index},{address}'
    )


def _address(text: str, currency: str, index: int) -> str:
    """Read the address as ``d``, its canonical form, and ``n``, the sum of its networks' numbers."""
    try:
        address = read_address(text, currency)
    except OtherChainError as error:
        raise refuse(index, "address", str(error), reason=ADDRESS_OF_OTHER_CHAIN) from error
    except AddressError as error:
        raise refuse(
            index, "address", f"is no address of {CHAIN_OF[currency]}: it {error}", reason=BAD_ADDRESS
        ) from error
    return f'"d":{quoted(address.text)},"n":{address.networks:d}'


def _transaction_hash(text: str, chain: str, index: int) -> str:
    """Read the hash in its one canonical form, so that the same transaction is never recorded as two."""
    prefix = _HEX_HASHES.get(chain)
    if prefix is None:
        return text
    if not text.startswith(prefix) or not _HEX_HASH.fullmatch(text.removeprefix(prefix)):
        raise refuse(index, "tx_hash", f"must be {prefix and '0x and '}64 hexadecimal digits on {chain}")
    return text.lower()


_OPERATIONS: Final[Mapping[str, Callable[[Operation, int], str]]] = {
    "validate_withdrawal": _validate,
    "reserve_withdrawal": _reserve,
    "broadcast_withdrawal": _broadcast,
    "confirm_withdrawal": _confirm,
    "cancel_withdrawal": _cancel,
    "record_deposit": _deposit,
    "withdrawal_status": _status,
}
OPERATION_NAMES: Final = tuple(_OPERATIONS)
_READS: Final = ("withdrawal_status",)


def plan(_log_id: str, _xid: Xid, operations: Sequence[Operation]) -> Planned:
    """Work out a branch's rows, or the "no" to what is wrong in itself."""
    try:
        rows = tuple(_row(operation, index) for index, operation in enumerate(operations))
        # Only a branch that is READ_ONLY has results that the SQL looked up.
        check_reads_alone([operation.name in _READS for operation in operations])
    except RefusedError as error:
        return Planned((), error.vote)
    return Planned(rows)


def _row(operation: Operation, index: int) -> str:
    read_row = _OPERATIONS.get(operation.name)
    if read_row is None:
        raise unknown_operation(operation, index, OPERATION_NAMES)
    return read_row(operation, index)


SERVICE: Final = ReservationService(
    schema="wallet",
    migrations=files("sidecars.wallet") / "migrations",
    invariants=files("sidecars.wallet") / "invariants.sql",
    operations=OPERATION_NAMES,
    plan=plan,
)
