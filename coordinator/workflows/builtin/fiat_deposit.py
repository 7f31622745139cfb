"""Bank money that came in, checked and credited to whom it is for.

Steps, and what they ask of participants::

    validate_transfer  fiat.validate_transfer     {bank_reference, currency, amount, iban?}
    check_compliance   fiat.check_compliance      {user_id, currency, amount, direction: "deposit"}
    credit_account     fiat.record_deposit        {bank_reference, currency, amount, iban?, user_id}
                       bookkeeper.open_account    {user_id, currency, if_absent}
                       bookkeeper.credit_account  {user_id, currency, amount}

The deposit is recorded and credited in one transaction, so a bank's reference is credited at most once. The
notification is fiat's: recording the deposit puts it into fiat's outbox.
"""

from __future__ import annotations

from coordinator.workflows.builtin.money import Money, Name, written
from coordinator.workflows.context import Workflow
from coordinator.workflows.definitions import workflow
from participant_sdk.currencies import FiatCurrency
from participant_sdk.operations import Parameter
from participant_sdk.parameters import Parameters, UserId


class FiatDeposit(Parameters):
    """A bank transfer, by the bank's reference; ``iban`` is the sender's, where it is to be checked."""

    user_id: UserId
    currency: FiatCurrency
    amount: Money
    bank_reference: Name
    iban: Name | None = None


@workflow("fiat_deposit", version="1", parameters=FiatDeposit)
async def fiat_deposit(wf: Workflow, deposit: FiatDeposit) -> Parameter:
    """Validate the transfer, check compliance, credit the account, notify."""
    amount = written(deposit.amount)
    transfer: dict[str, Parameter] = {
        "bank_reference": deposit.bank_reference,
        "currency": deposit.currency,
        "amount": amount,
    }
    if deposit.iban is not None:
        transfer["iban"] = deposit.iban
    account: dict[str, Parameter] = {"user_id": deposit.user_id, "currency": deposit.currency}
    money: dict[str, Parameter] = {**account, "amount": amount}
    await wf.step("validate_transfer", [("fiat", "validate_transfer", transfer)])
    await wf.step("check_compliance", [("fiat", "check_compliance", {**money, "direction": "deposit"})])
    await wf.step(
        "credit_account",
        [
            ("fiat", "record_deposit", {**transfer, "user_id": deposit.user_id}),
            ("bookkeeper", "open_account", {**account, "if_absent": True}),
            ("bookkeeper", "credit_account", money),
        ],
    )
    return {"bank_reference": deposit.bank_reference, "credited": amount, "currency": deposit.currency}
