"""The bookkeeper's captures, openings where absent, balances and the house's accounts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest

from participant_sdk.currencies import SCALES
from participant_sdk.participant import Work
from participant_sdk.xa import VoteKind, XaCode
from sidecars.house import FEES
from tests.integration.participations import Participation, participating
from tests.integration.test_bookkeeper import account, at, fund, transfer

FIELD = "operations[0].parameters"


@pytest.fixture
async def books(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "bookkeeper") as participation:
        yield participation
        assert await participation.violations() == []


def capture(source: str, target: str, amount: str, currency: str = "USD") -> tuple[str, str]:
    return "capture_funds", transfer(source, target, amount, currency)[1]


def ensure(user: str, currency: str = "USD") -> tuple[str, str]:
    return "open_account", f'{{"user_id":"{user}","currency":"{currency}","if_absent":true}}'


async def balances(books: Participation, *users: str) -> list[dict[str, str]]:
    vote = await books.vote(*[("account_balance", at(user)) for user in users])
    assert (vote.kind, vote.xa_code) == (VoteKind.READ_ONLY, XaCode.RDONLY)
    return [json.loads(result) for result in vote.results]


async def test_locked_money_is_captured_by_another_account(books: Participation) -> None:
    """Prepare reserves it from release and other captures; Rollback leaves it locked; Commit moves it, balanced."""
    await fund(books, "u", "v")
    await books.do(("lock_funds", at("u", "40")))
    dropped, kept = books.branch(capture("u", "v", "30")), books.branch(capture("u", "v", "30"))
    await books.prepare(dropped)
    assert (await account(books, "u"), await account(books, "v")) == ((100, 40, 0, 30), (100, 0, 0, 0))
    for rival in (("release_funds", at("u", "11")), capture("u", "v", "11")):
        vote = await books.vote(rival)
        assert (vote.reason, vote.field) == ("INSUFFICIENT_FUNDS", f"{FIELD}.amount")
        assert vote.message == "user u has 10 USD locked and needs 11"
    assert await books.violations() == []
    await books.rollback(dropped)
    assert await account(books, "u") == (100, 40, 0, 0)
    await books.prepare(kept)
    await books.commit(kept)
    assert (await account(books, "u"), await account(books, "v")) == ((70, 10, 0, 0), (130, 0, 0, 0))
    lines = "select compartment, amount::integer from bookkeeper.lines where kind = 7 order by amount"
    assert await books.rows(lines) == [("locked", -30), ("free", 30)]


async def test_only_locked_money_is_captured(books: Participation) -> None:
    await fund(books, "u", "v")
    vote = await books.vote(capture("u", "v", "1"))
    assert vote.message == "user u has 0 USD locked and needs 1"
    locking = books.branch(("lock_funds", at("u", "5")), capture("u", "v", "3"), transfer("v", "u", "2"))
    assert (await books.prepare(locking))[0].is_yes
    assert await account(books, "u") == (100, 0, 5, 0)
    await books.commit(locking)
    assert (await account(books, "u"), await account(books, "v")) == ((99, 2, 0, 0), (101, 0, 0, 0))


@pytest.mark.parametrize(("users", "field"), [(("x", "u"), "from_user_id"), (("u", "x"), "to_user_id")])
async def test_a_capture_names_the_account_that_is_not_there(
    books: Participation, users: tuple[str, str], field: str
) -> None:
    await fund(books, "u")
    await books.do(("lock_funds", at("u", "5")))
    vote = await books.vote(capture(*users, "1"))
    assert (vote.reason, vote.field, vote.xa_code) == ("ACCOUNT_UNKNOWN", f"{FIELD}.{field}", XaCode.XAER_INVAL)


async def test_captures_of_a_batch_take_no_more_than_is_locked_and_no_less_than_fits(books: Participation) -> None:
    """Captures and releases draw on the same money, in order of arrival, after the commits of the batch."""
    await fund(books, "u", "v")
    locking = books.branch(("lock_funds", at("u", "60")))
    await books.prepare(locking)
    wanted = [capture("u", "v", "40"), ("release_funds", at("u", "30")), capture("u", "v", "500")]
    wanted += [capture("u", FEES, "15"), ("release_funds", at("u", "5")), ("debit_account", at("u", "40"))]
    branches = [books.branch(operation) for operation in wanted]
    answers = await books.resource.apply(Work([books.decided(locking)], [], branches))
    assert [vote.is_yes for vote in answers.prepares] == [True, False, False, True, True, True]
    await books.commit(branches[0], branches[3])
    assert await account(books, "u") == (45, 5, 40, 5)
    assert (await account(books, FEES))[0] == 15


async def test_an_account_is_opened_only_where_there_is_none(books: Participation) -> None:
    """Any number of times; the credit after it finds an account either way."""
    for amount in (5, 10):
        await books.do(ensure("u"), ("credit_account", at("u", "5")))
        assert (await account(books, "u"))[0] == amount
    opened = await books.rows("select kind, operation from bookkeeper.entries where kind <= 1")
    assert opened == [(0, 0), (0, 0)]
    assert (await books.vote(("open_account", at("u")))).reason == "ACCOUNT_EXISTS"
    assert (await books.vote(("open_account", at("u")[:-1] + ',"if_absent":false}'))).reason == "ACCOUNT_EXISTS"


async def test_undoing_an_open_where_absent_leaves_an_account_that_was_there(books: Participation) -> None:
    await fund(books, "u")
    there, new = books.branch(ensure("u")), books.branch(ensure("w"))
    assert [vote.is_yes for vote in await books.prepare(there, new)] == [True, True]
    await books.rollback(there, new)
    assert (await account(books, "u"), await account(books, "w")) == ((100, 0, 0, 0), ())
    refused = await books.vote(ensure("w"), ("debit_account", at("w", "1")))
    assert (refused.reason, await account(books, "w")) == ("INSUFFICIENT_FUNDS", ())


async def test_an_account_that_another_branch_opens_is_not_there_yet(books: Participation) -> None:
    """Nobody knows whether it will be: transient, in one batch and in two."""
    one, two, three = (books.branch(ensure("u")) for _ in range(3))
    votes = [*await books.prepare(one, two), *await books.prepare(three)]
    assert [(vote.reason, vote.transient) for vote in votes] == [("", False), *[("ACCOUNT_OPENING", True)] * 2]
    assert (await books.vote(("account_balance", at("u")))).reason == "ACCOUNT_OPENING"
    await books.commit(one)
    assert (await books.vote(ensure("u"))).is_yes


async def test_what_a_branch_has_used_it_need_not_open(books: Participation) -> None:
    """Operations act in order: an account that an earlier one needs is there, or the branch is refused."""
    await fund(books, "u")
    credit = ("credit_account", at("u", "1"))
    for operations in ((credit, ensure("u")), (ensure("u"), ensure("u"), credit)):
        assert (await books.vote(*operations)).is_yes
    for operations in ((("open_account", at("x")), ensure("x")), (ensure("y"), ensure("y"))):
        assert (await books.vote(*operations)).is_yes
    too_late = await books.vote(("credit_account", at("z", "1")), ensure("z"))
    assert (too_late.reason, too_late.field) == ("ACCOUNT_UNKNOWN", f"{FIELD}.user_id")
    twice = await books.vote(ensure("z"), ("open_account", at("z")))
    assert (twice.reason, twice.field) == ("ACCOUNT_EXISTS", "operations[1].parameters.user_id")


async def test_a_balance_tells_what_is_free_and_what_is_locked(books: Participation) -> None:
    """What branches in doubt will take is not available; the commits of the same batch are counted."""
    await fund(books, "u", "v", amount="100.50")
    await books.do(("lock_funds", at("u", "40.25")))
    taking = books.branch(("debit_account", at("u", "10")))
    await books.prepare(taking)
    assert await balances(books, "u", "v", "u") == [
        {"available": "50.25", "locked": "40.25", "balance": "100.5"},
        {"available": "100.5", "locked": "0", "balance": "100.5"},
        {"available": "50.25", "locked": "40.25", "balance": "100.5"},
    ]
    asking = books.branch(("account_balance", at("u")))
    answers = await books.resource.apply(Work([books.decided(taking)], [], [asking]))
    assert json.loads(answers.prepares[0].results[0]) == {"available": "50.25", "locked": "40.25", "balance": "90.5"}
    await books.do(("debit_account", at("u", "1")))
    assert await books.prepare(asking) == answers.prepares


async def test_a_balance_of_nobody_and_one_beside_work_are_refused(books: Participation) -> None:
    await fund(books, "u")
    good, bad = books.branch(("account_balance", at("u"))), books.branch(*[("account_balance", at(u)) for u in "ux"])
    votes = await books.prepare(bad, good)
    assert (votes[0].reason, votes[0].field) == ("ACCOUNT_UNKNOWN", "operations[1].parameters.user_id")
    assert votes[0].message == "user x has no account in USD"
    assert votes[1].kind is VoteKind.READ_ONLY
    mixed = await books.vote(("credit_account", at("u", "1")), ("account_balance", at("u")))
    assert (mixed.reason, mixed.field, mixed.xa_code) == ("READS_ALONE", "operations[1].operation", XaCode.XAER_INVAL)


async def test_the_house_has_an_account_in_every_currency(books: Participation) -> None:
    """A currency that is added without its migration fails here."""
    rows = await books.rows("select currency from bookkeeper.accounts where user_id = %s and opening is null", FEES)
    assert {currency for (currency,) in rows} == set(SCALES)
