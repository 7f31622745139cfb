"""Fiat over a real PostgreSQL: a transfer is recorded once, money leaves within limits, and only whoever is cleared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from participant_sdk.participant import Work
from participant_sdk.xa import Vote, VoteKind, XaCode
from tests.integration.participations import Participation, participating

IBAN = "DE89370400440532013000"
OTHER_IBAN = "GB29NWBK60161331926819"
PARAMETERS = "operations[0].parameters"

Asked = tuple[str, str]


@pytest.fixture
async def fiat(database: str) -> AsyncGenerator[Participation]:
    """With ada and bob cleared, and eve blocked."""
    async with participating(database, "fiat") as participation:
        for user, state in (("ada", "CLEARED"), ("bob", "CLEARED"), ("eve", "BLOCKED")):
            await participation.do(asked("set_compliance", user_id=user, state=state))
        yield participation
        assert await participation.violations() == []


def asked(operation: str, **parameters: object) -> Asked:
    return operation, json.dumps(parameters)


def deposit(reference: str, user: str = "ada", amount: str = "100.50", **more: object) -> Asked:
    money = {"currency": "EUR", "amount": amount, **more}
    return asked("record_deposit", bank_reference=reference, user_id=user, **money)


def withdraw(amount: str = "10", user: str = "ada", **more: str) -> Asked:
    money = {"currency": "EUR", "amount": amount, "iban": IBAN, "account_holder": "Ada L.", **more}
    return asked("reserve_withdrawal", user_id=user, **money)


def complete(withdrawal_id: str) -> Asked:
    return asked("complete_withdrawal", withdrawal_id=withdrawal_id)


def cancel(withdrawal_id: str) -> Asked:
    return asked("cancel_withdrawal", withdrawal_id=withdrawal_id)


def told(vote: Vote) -> tuple[str, str, bool]:
    return vote.reason, vote.field.removeprefix(f"{PARAMETERS}."), vote.transient


async def tell(fiat: Participation, *references: str, amount: str = "100.50", currency: str = "EUR") -> None:
    """What the bank's list says, as the attendant writes it."""
    for reference in references:
        await fiat.rows(
            "insert into fiat.bank_transfers (reference, transfer_id, currency, amount, iban, name, received_at)"
            " values (%s, %s, %s, %s::numeric, %s, 'Ada L.', now())",
            *(reference, f"t-{reference}", currency, amount, IBAN),
        )


async def read(fiat: Participation, operation: str, **parameters: str) -> dict[str, str]:
    vote = await fiat.vote(asked(operation, **parameters))
    assert vote.kind is VoteKind.READ_ONLY, vote
    return json.loads(vote.results[0])


async def used(fiat: Participation, user: str = "ada") -> tuple[str, str]:
    rows = await fiat.rows("select deposited, withdrawn from fiat.usage where user_id = %s", user)
    return (f"{rows[0][0].normalize():f}", f"{rows[0][1].normalize():f}") if rows else ("0", "0")


async def test_a_deposit_is_recorded_when_its_branch_is_committed(fiat: Participation) -> None:
    """Until then it is told to nobody; then its notification waits, with the money and its reference."""
    await tell(fiat, "R-1")
    assert (await read(fiat, "deposit_status", bank_reference="R-1"))["state"] == "ANNOUNCED"
    prepare = fiat.branch(deposit("R-1"))
    (vote,) = await fiat.prepare(prepare)
    assert json.loads(vote.results[0]) == {"bank_reference": "R-1"}
    assert (await read(fiat, "deposit_status", bank_reference="R-1"))["state"] == "PENDING"
    assert await fiat.rows("select reference from fiat.notifications") == []
    await fiat.commit(prepare)
    status = await read(fiat, "deposit_status", bank_reference="R-1")
    assert (status["state"], status["user_id"], status["notification"]) == ("RECORDED", "ada", "QUEUED")
    assert (status["currency"], status["amount"]) == ("EUR", "100.5")
    ((body,),) = await fiat.rows("select body from fiat.notifications")
    data = {"bank_reference": "R-1", "user_id": "ada", "currency": "EUR", "amount": "100.5"}
    assert json.loads(body)["data"] == data


async def test_a_rollback_frees_the_reference_and_the_days_limit(fiat: Participation) -> None:
    await tell(fiat, "R-1")
    prepare = fiat.branch(deposit("R-1"), withdraw("7", withdrawal_id="W-1"))
    await fiat.prepare(prepare)
    assert await used(fiat) == ("100.5", "7")
    assert told(await fiat.vote(deposit("R-1", "bob"))) == ("REFERENCE_IN_DOUBT", "bank_reference", True)
    assert told(await fiat.vote(withdraw(withdrawal_id="W-1"))) == ("WITHDRAWAL_IN_DOUBT", "withdrawal_id", True)
    await fiat.rollback(prepare)
    assert await used(fiat) == ("0", "0")
    await fiat.do(deposit("R-1", "bob"), withdraw("7", "bob", withdrawal_id="W-1"))
    assert await used(fiat, "bob") == ("100.5", "7")
    vote = await fiat.vote(deposit("R-1"))
    assert told(vote) == ("REFERENCE_USED", "bank_reference", False)
    assert vote.xa_code == XaCode.RBROLLBACK
    assert told(await fiat.vote(withdraw(withdrawal_id="W-1"))) == ("WITHDRAWAL_EXISTS", "withdrawal_id", False)


async def test_of_a_batch_one_gets_the_reference(fiat: Participation) -> None:
    """The others vote transient: the first may yet be rolled back. A branch that asks twice itself is refused."""
    await tell(fiat, "R-1", "R-2")
    branches = [fiat.branch(deposit("R-1", user)) for user in ("ada", "bob", "ada")]
    twice = fiat.branch(deposit("R-2"), deposit("R-2"))
    votes = await fiat.prepare(*branches, twice, fiat.branch(deposit("R-2", "bob")))
    assert [vote.is_yes for vote in votes] == [True, False, False, False, False]
    assert [(vote.reason, vote.transient) for vote in votes[1:]] == [
        ("REFERENCE_IN_DOUBT", True),
        ("REFERENCE_IN_DOUBT", True),
        ("REFERENCE_REPEATED", False),
        ("REFERENCE_IN_DOUBT", True),
    ]
    # Nothing is left of those that were refused.
    assert await fiat.rows("select reference, user_id from fiat.deposits") == [("R-1", "ada")]
    assert (await fiat.vote(deposit("R-2", "bob"))).is_yes


async def test_of_workers_at_once_one_gets_the_reference_and_the_limit_holds(fiat: Participation) -> None:
    """Lock and check are two statements: 250 000 a day, in withdrawals of 60 000, are four."""
    await tell(fiat, "R-1")
    lanes = [[fiat.branch(deposit("R-1", user)), fiat.branch(withdraw("60000"))] for user in ("ada", "bob") * 4]
    votes = [vote for lane in await asyncio.gather(*[fiat.prepare(*lane) for lane in lanes]) for vote in lane]
    assert sum(vote.is_yes for vote in votes[::2]) == 1
    assert sum(vote.is_yes for vote in votes[1::2]) == 4
    assert {vote.reason for vote in votes[1::2] if not vote.is_yes} == {"DAILY_LIMIT_EXCEEDED"}
    assert (await used(fiat))[1] == "240000"


async def test_a_limit_is_shared_out_in_order_and_a_refused_one_takes_nothing(fiat: Participation) -> None:
    """A running sum counts what is refused for another reason, too: what comes after is looked at again."""
    asked_for = [withdraw("100000"), withdraw("100000", iban=IBAN), withdraw("90000"), withdraw("50000"), withdraw("1")]
    branches = [fiat.branch(each) for each in asked_for]
    branches.insert(0, fiat.branch(withdraw("100000"), complete("nothing")))
    votes = await fiat.prepare(*branches)
    assert [vote.is_yes for vote in votes] == [False, True, True, False, True, False]
    assert [vote.reason for vote in votes if not vote.is_yes] == [
        "UNKNOWN_WITHDRAWAL",
        "DAILY_LIMIT_EXCEEDED",
        "DAILY_LIMIT_EXCEEDED",
    ]
    assert (await used(fiat))[1] == "250000"


async def test_a_branchs_own_operations_count_together(fiat: Participation) -> None:
    vote = await fiat.vote(withdraw("100000"), withdraw("100000"), withdraw("50000.01"))
    assert (vote.reason, vote.field) == ("DAILY_LIMIT_EXCEEDED", "operations[2].parameters.amount")
    assert (await fiat.vote(withdraw("100000"), withdraw("100000"), withdraw("50000"))).is_yes


async def test_a_withdrawal_is_reserved_completed_and_queued_once(fiat: Participation) -> None:
    reserve = fiat.branch(withdraw("12.34"))
    (vote,) = await fiat.prepare(reserve)
    withdrawal_id = json.loads(vote.results[0])["withdrawal_id"]
    assert withdrawal_id == f"{reserve.log_id}-{reserve.xid}-0"
    assert told(await fiat.vote(complete(withdrawal_id))) == ("WITHDRAWAL_IN_DOUBT", "withdrawal_id", True)
    await fiat.commit(reserve)
    assert (await read(fiat, "withdrawal_status", withdrawal_id=withdrawal_id))["state"] == "RESERVED"
    rivals = [fiat.branch(complete(withdrawal_id)), fiat.branch(cancel(withdrawal_id))]
    votes = await fiat.prepare(*rivals)
    assert [each.is_yes for each in votes] == [True, False]
    assert told(votes[1]) == ("WITHDRAWAL_IN_DOUBT", "withdrawal_id", True)
    assert told(await fiat.vote(cancel(withdrawal_id))) == ("WITHDRAWAL_IN_DOUBT", "withdrawal_id", True)
    assert await fiat.rows("select withdrawal_id from fiat.payments") == []
    await fiat.rollback(rivals[0])
    await fiat.do(complete(withdrawal_id))
    status = await read(fiat, "withdrawal_status", withdrawal_id=withdrawal_id)
    assert (status["state"], status["payment"], status["amount"]) == ("COMPLETED", "QUEUED", "12.34")
    assert await fiat.rows("select withdrawal_id, state from fiat.payments") == [(withdrawal_id, 1)]
    assert told(await fiat.vote(complete(withdrawal_id))) == ("WITHDRAWAL_COMPLETED", "withdrawal_id", False)
    assert told(await fiat.vote(cancel(withdrawal_id))) == ("WITHDRAWAL_COMPLETED", "withdrawal_id", False)


async def test_a_cancelled_withdrawal_gives_the_limit_back_and_is_never_paid(fiat: Participation) -> None:
    await fiat.do(withdraw("40", withdrawal_id="W-1"))
    await fiat.do(cancel("W-1"))
    assert (await used(fiat))[1] == "0"
    assert told(await fiat.vote(complete("W-1"))) == ("WITHDRAWAL_CANCELLED", "withdrawal_id", False)
    assert await fiat.rows("select withdrawal_id from fiat.payments") == []


async def test_one_branch_may_reserve_and_complete(fiat: Participation) -> None:
    """In that order; committed it is queued, rolled back nothing remains."""
    whole = [withdraw("5", withdrawal_id="W-1"), complete("W-1")]
    prepare = fiat.branch(*whole)
    assert (await fiat.prepare(prepare))[0].is_yes
    await fiat.rollback(prepare)
    assert await fiat.rows("select withdrawal_id from fiat.withdrawals") == []
    vote = await fiat.vote(*whole[::-1])
    assert (vote.reason, vote.field) == ("UNKNOWN_WITHDRAWAL", "operations[0].parameters.withdrawal_id")
    vote = await fiat.vote(*whole, cancel("W-1"))
    assert (vote.reason, vote.field) == ("WITHDRAWAL_REPEATED", "operations[2].parameters.withdrawal_id")
    await fiat.do(*whole)
    assert await fiat.rows("select withdrawal_id from fiat.payments") == [("W-1",)]


async def test_a_rollback_and_a_new_prepare_in_one_batch(fiat: Participation) -> None:
    """The freed limit is there for what comes in the same batch."""
    first = fiat.branch(withdraw("100000"), withdraw("100000"), withdraw("50000"))
    await fiat.prepare(first)
    second = fiat.branch(withdraw("100000"))
    answers = await fiat.resource.apply(Work(rollbacks=[fiat.rollback_of(first)], prepares=[second]))
    assert answers.prepares[0].is_yes
    assert (await used(fiat))[1] == "100000"


async def test_only_whoever_is_cleared_moves_money(fiat: Participation) -> None:
    """Nobody is cleared until somebody says so; one who is blocked meanwhile cannot complete, but may cancel."""
    await tell(fiat, "R-1")
    for user, reason in (("eve", "USER_BLOCKED"), ("nobody", "COMPLIANCE_PENDING")):
        for refused in (deposit("R-1", user), withdraw("1", user), asked("check_compliance", user_id=user)):
            vote = await fiat.vote(refused)
            assert told(vote) == (reason, "user_id", False)
            assert vote.is_business_no
    assert (await read(fiat, "check_compliance", user_id="ada")) == {"state": "CLEARED"}
    await fiat.do(withdraw("1", withdrawal_id="W-1"))
    await fiat.do(asked("set_compliance", user_id="ada", state="BLOCKED", note="asked for by the court"))
    assert told(await fiat.vote(complete("W-1"))) == ("USER_BLOCKED", "withdrawal_id", False)
    await fiat.do(cancel("W-1"))
    kept = "select state, note from fiat.compliance_changes where user_id = 'ada' order by branch"
    assert await fiat.rows(kept) == [(2, None), (3, "asked for by the court")]


async def test_a_user_is_changed_by_one_branch_at_a_time(fiat: Participation) -> None:
    def change(state: str) -> Asked:
        return asked("set_compliance", user_id="ada", state=state)

    one, two = (fiat.branch(change(state)) for state in ("BLOCKED", "PENDING"))
    votes = await fiat.prepare(one, two, fiat.branch(change("BLOCKED"), change("CLEARED")))
    assert [vote.is_yes for vote in votes] == [True, False, False]
    assert told(votes[1]) == ("COMPLIANCE_IN_DOUBT", "user_id", True)
    assert (votes[2].reason, votes[2].transient) == ("COMPLIANCE_REPEATED", False)
    assert told(await fiat.vote(change("PENDING"))) == ("COMPLIANCE_IN_DOUBT", "user_id", True)
    # It counts once it is committed.
    assert (await fiat.vote(withdraw("1"))).is_yes
    await fiat.rollback(one)
    assert (await fiat.vote(withdraw("1"))).is_yes


async def test_only_what_the_bank_told_is_recorded(fiat: Participation) -> None:
    await tell(fiat, "R-1")
    for parameters, reason, field in (
        ({"reference": "R-0"}, "TRANSFER_UNKNOWN", "bank_reference"),
        ({"reference": "R-1", "amount": "100.51"}, "TRANSFER_MISMATCH", "amount"),
        ({"reference": "R-1", "currency": "USD"}, "TRANSFER_MISMATCH", "currency"),
        ({"reference": "R-1", "iban": OTHER_IBAN}, "TRANSFER_MISMATCH", "iban"),
    ):
        assert told(await fiat.vote(deposit(**parameters))) == (reason, field, False)
    assert await fiat.rows("select reference from fiat.deposits") == []
    valid = {"bank_reference": "R-1", "currency": "EUR", "amount": "100.5", "iban": "DE89 3704 0044 0532 0130 00"}
    assert await read(fiat, "validate_transfer", **valid) == {"valid": True}
    assert told(await fiat.vote(asked("validate_transfer", **{**valid, "amount": "1"})))[0] == "TRANSFER_MISMATCH"
    # Checked and recorded in one branch, it is not in its own way.
    await fiat.do(asked("validate_transfer", **valid), deposit("R-1"))
    assert told(await fiat.vote(asked("validate_transfer", **valid)))[0] == "REFERENCE_USED"


async def test_a_check_with_an_amount_looks_at_the_limits_and_takes_nothing(fiat: Participation) -> None:
    check = {"user_id": "ada", "currency": "EUR", "amount": "100000", "direction": "withdrawal"}
    await fiat.do(withdraw("100000"), withdraw("100000"))
    assert told(await fiat.vote(asked("check_compliance", **check))) == ("DAILY_LIMIT_EXCEEDED", "amount", False)
    assert await read(fiat, "check_compliance", **{**check, "amount": "50000"}) == {"state": "CLEARED"}
    assert await read(fiat, "check_compliance", **{**check, "direction": "deposit"}) == {"state": "CLEARED"}
    assert (await used(fiat))[1] == "200000"


async def test_reads_tell_of_what_is_not_there_and_stand_alone(fiat: Participation) -> None:
    nothing = {"bank_reference": "R-9", "state": "UNKNOWN"}
    assert await read(fiat, "deposit_status", bank_reference="R-9") == nothing
    assert (await read(fiat, "withdrawal_status", withdrawal_id="W-9"))["state"] == "UNKNOWN"
    vote = await fiat.vote(withdraw("1"), asked("deposit_status", bank_reference="R-9"))
    assert (vote.reason, vote.field) == ("READS_ALONE", "operations[1].operation")
