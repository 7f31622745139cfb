"""Coins that leave for an address on their chain.

Steps, and what they ask of participants; the withdrawal's id is the workflow's::

    validate_withdrawal   wallet.validate_withdrawal   {withdrawal_id, user_id, currency, amount, address}
    check_security        fiat.check_compliance        {user_id}
    lock_funds            bookkeeper.lock_funds        {user_id, currency, amount}
                          wallet.reserve_withdrawal    as validate_withdrawal
                          undone by bookkeeper.release_funds as locked, and wallet.cancel_withdrawal {withdrawal_id}
    broadcast_withdrawal  wallet.broadcast_withdrawal  {withdrawal_id}                    the pivot
    confirmed             wallet.withdrawal_status     {withdrawal_id}; returns {confirmations, confirmations_needed,
                                                       tx_hash}
    update_balances       wallet.confirm_withdrawal    {withdrawal_id}
                          bookkeeper.release_funds     {user_id, currency, amount}
                          bookkeeper.debit_account     {user_id, currency, amount}

Limits, the address and the whitelist are the wallet's to check, whether a user may move money at all is compliance's.
What is broadcast cannot be called back: from then on the workflow waits for the chain, for as long as that takes.
"""

from __future__ import annotations

from coordinator.workflows.builtin.money import Money, written
from coordinator.workflows.context import Workflow
from coordinator.workflows.definitions import workflow
from coordinator.workflows.results import StepResult
from participant_sdk.currencies import ChainCurrency
from participant_sdk.operations import Parameter
from participant_sdk.parameters import Note, Parameters, UserId


class CryptoWithdrawal(Parameters):
    """How much of what goes where. The chain's fee is the exchange's."""

    user_id: UserId
    currency: ChainCurrency
    amount: Money
    address: Note


@workflow("crypto_withdrawal", version="1", parameters=CryptoWithdrawal)
async def crypto_withdrawal(wf: Workflow, asked: CryptoWithdrawal) -> Parameter:
    """Validate, check security, lock, broadcast, wait for the chain, update balances."""
    named: dict[str, Parameter] = {"withdrawal_id": wf.id}
    money: dict[str, Parameter] = {
        "user_id": asked.user_id,
        "currency": asked.currency,
        "amount": written(asked.amount),
    }
    withdrawal: dict[str, Parameter] = {**named, **money, "address": asked.address}
    await wf.step("validate_withdrawal", [("wallet", "validate_withdrawal", withdrawal)])
    await wf.step("check_security", [("fiat", "check_compliance", {"user_id": asked.user_id})])
    await wf.step(
        "lock_funds",
        [("bookkeeper", "lock_funds", money), ("wallet", "reserve_withdrawal", withdrawal)],
        compensate=[("bookkeeper", "release_funds", money), ("wallet", "cancel_withdrawal", named)],
    )
    await wf.step("broadcast_withdrawal", [("wallet", "broadcast_withdrawal", named)], pivot=True)
    confirmed = await wf.until("confirmed", [("wallet", "withdrawal_status", named)], _is_confirmed)
    await wf.step(
        "update_balances",
        [
            ("wallet", "confirm_withdrawal", named),
            ("bookkeeper", "release_funds", money),
            ("bookkeeper", "debit_account", money),
        ],
    )
    return {**named, "tx_hash": confirmed.text(0, "tx_hash"), "amount": written(asked.amount)}


def _is_confirmed(told: StepResult) -> bool:
    return told.amount(0, "confirmations") >= told.amount(0, "confirmations_needed") > 0
