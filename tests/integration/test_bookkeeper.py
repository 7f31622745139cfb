"""The bookkeeper over a real PostgreSQL: what it reserves, posts and voids, and what it refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest

from participant_sdk.ids import Xid
from participant_sdk.participant import Operation, Prepare, Work
from participant_sdk.xa import VoteKind, XaCode
from sidecars.bookkeeper.operations import SERVICE
from tests.integration.participations import LOG_ID, Participation, participating

XID = Xid.make(1, 1, 1)


@pytest.fixture
async def books(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "bookkeeper") as participation:
        yield participation
        assert await participation.violations() == []


def at(user: str, amount: str | None = None, currency: str = "USD") -> str:
    money = "" if amount is None else f',"amount":{amount}'
    return f'{{"user_id":"{user}","currency":"{currency}"{money}}}'


def transfer(source: str, target: str, amount: str, currency: str = "USD") -> tuple[str, str]:
    return (
        "transfer_funds",
        f'{{"from_user_id":"{source}","to_user_id":"{target}","currency":"{currency}","amount":{amount}}}',
    )


async def fund(books: Participation, *users: str, amount: str = "100", currency: str = "USD") -> None:
    for user in users:
        await books.do(("open_account", at(user, currency=currency)), ("credit_account", at(user, amount, currency)))


async def account(books: Participation, user: str, currency: str = "USD") -> tuple[Decimal, ...]:
    """Balance, locked, reserved, releasing; nothing where there is none."""
    rows = await books.rows(
        "select balance, locked, reserved, releasing from bookkeeper.accounts where user_id = %s and currency = %s",
        user,
        currency,
    )
    return tuple(rows[0]) if rows else ()


@pytest.mark.parametrize(
    ("operation", "reserved", "posted"),
    [
        (("credit_account", at("u", "7")), (100, 40, 0, 0), (107, 40, 0, 0)),
        (("debit_account", at("u", "7")), (100, 40, 7, 0), (93, 40, 0, 0)),
        (("lock_funds", at("u", "7")), (100, 40, 7, 0), (100, 47, 0, 0)),
        (("release_funds", at("u", "7")), (100, 40, 0, 7), (100, 33, 0, 0)),
        (transfer("u", "v", "7"), (100, 40, 7, 0), (93, 40, 0, 0)),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
async def test_an_operation_is_reserved_and_then_posted_or_voided(
    books: Participation, operation: tuple[str, str], reserved: tuple[int, ...], posted: tuple[int, ...]
) -> None:
    """The table of operations: Prepare reserves, Rollback leaves nothing, Commit posts balanced lines."""
    await fund(books, "u", "v")
    await books.do(("lock_funds", at("u", "40")))
    before = await account(books, "u")
    dropped, kept = books.branch(operation), books.branch(operation)
    await books.prepare(dropped)
    assert await account(books, "u") == reserved
    await books.rollback(dropped)
    assert await account(books, "u") == before
    await books.prepare(kept)
    assert await books.violations() == []
    await books.commit(kept)
    assert await account(books, "u") == posted
    last = "(select max(branch) from bookkeeper.lines)"
    lines = await books.rows(f"select sum(amount), count(*) from bookkeeper.lines where branch = {last}")
    assert lines == [(0, 2)]


async def test_an_account_is_opened_once_and_is_shut_until_then(books: Participation) -> None:
    """Two opens at once: one yes. What comes between is told to try again, afterwards that it exists."""
    first, second = books.branch(("open_account", at("u"))), books.branch(("open_account", at("u")))
    votes = await books.prepare(first, second)
    assert [vote.is_yes for vote in votes] == [True, False]
    assert (votes[1].reason, votes[1].transient) == ("ACCOUNT_OPENING", True)
    early = await books.vote(("credit_account", at("u", "1")))
    assert (early.reason, early.transient) == ("ACCOUNT_OPENING", True)
    await books.commit(first)
    again = await books.vote(("open_account", at("u")))
    assert (again.reason, again.transient, again.xa_code) == ("ACCOUNT_EXISTS", False, XaCode.RBROLLBACK)
    assert (await books.vote(("open_account", at("u", currency="EUR")))).is_yes


async def test_an_open_that_comes_with_the_undoing_of_another_may_come_again(books: Participation) -> None:
    """Nothing is known of the account but that another branch opened it, so the "no" must not bind."""
    one = books.branch(("open_account", at("u")))
    assert (await books.prepare(one))[0].is_yes
    opening = [("open_account", at("u")), ("credit_account", at("u", "1"))]
    answers = await books.resource.apply(Work(rollbacks=[books.rollback_of(one)], prepares=[books.branch(*opening)]))
    assert [(vote.reason, vote.transient) for vote in answers.prepares] == [("ACCOUNT_OPENING", True)]
    assert (await books.vote(*opening)).is_yes


async def test_a_credit_that_comes_with_the_undoing_of_the_open_is_refused(books: Participation) -> None:
    """As it would be a moment later: there is no such account, and it does not open one."""
    one = books.branch(("open_account", at("u")))
    await books.prepare(one)
    crediting = books.branch(("credit_account", at("u", "1")))
    answers = await books.resource.apply(Work(rollbacks=[books.rollback_of(one)], prepares=[crediting]))
    assert [(vote.reason, vote.transient) for vote in answers.prepares] == [("ACCOUNT_UNKNOWN", False)]


async def test_two_opens_from_two_workers_get_one_yes(books: Participation) -> None:
    rivals = [[books.branch(("open_account", at(f"u{each}"))) for each in range(5)] for _ in range(4)]
    answers = await asyncio.gather(*[books.resource.prepare(batch) for batch in rivals])
    for each in range(5):
        assert sum(votes[each].is_yes for votes in answers) == 1
    await asyncio.gather(*[books.rollback(*batch) for batch in rivals])
    assert await books.rows("select account from bookkeeper.accounts") == []


async def test_a_refused_branch_leaves_no_account_open(books: Participation) -> None:
    vote = await books.vote(("open_account", at("u")), ("debit_account", at("u", "1")))
    assert vote.reason == "INSUFFICIENT_FUNDS"
    assert await account(books, "u") == ()


async def test_operations_of_a_branch_act_in_order(books: Participation) -> None:
    """Later ones see earlier ones: money brought in first needs no reservation, money taken first does."""
    await fund(books, "u", "v")
    credited, locked = ("credit_account", at("w", "5")), ("lock_funds", at("w", "5"))
    all_in = books.branch(("open_account", at("w")), credited, locked, transfer("u", "w", "3"))
    assert (await books.prepare(all_in))[0].is_yes
    await books.commit(all_in)
    assert await account(books, "w") == (8, 5, 0, 0)
    through = books.branch(transfer("u", "v", "50"), transfer("v", "u", "150"), transfer("u", "v", "60"))
    assert (await books.prepare(through))[0].is_yes
    assert await account(books, "v") == (100, 0, 100, 0)
    assert await account(books, "u") == (97, 0, 50, 0)
    await books.commit(through)
    assert (await account(books, "u"))[0] + (await account(books, "v"))[0] == 197
    wrong_way = await books.vote(("debit_account", at("v", "61")), ("credit_account", at("v", "1000")))
    assert wrong_way.reason == "INSUFFICIENT_FUNDS"
    backwards = await books.vote(("credit_account", at("x", "1")), ("open_account", at("x")))
    assert (backwards.reason, backwards.field) == ("ACCOUNT_EXISTS", "operations[1].parameters.user_id")


async def test_locked_money_is_released_once_and_never_spent(books: Participation) -> None:
    await fund(books, "u")
    await books.do(("lock_funds", at("u", "60")))
    votes = await books.prepare(
        books.branch(("release_funds", at("u", "40"))),
        books.branch(("release_funds", at("u", "40"))),
        books.branch(("debit_account", at("u", "41"))),
        books.branch(("debit_account", at("u", "40"))),
    )
    assert [vote.is_yes for vote in votes] == [True, False, False, True]
    assert votes[1].message == "user u has 20 USD locked and needs 40"


async def test_a_batch_takes_no_more_than_there_is_and_no_less_than_fits(books: Participation) -> None:
    """In order of arrival; one that is too large stands in nobody's way."""
    await fund(books, "u", "v")
    amounts = ["60", "60", "500", "30", "11", "10", "1"]
    votes = await books.prepare(*[books.branch(("debit_account", at("u", amount))) for amount in amounts])
    assert [vote.is_yes for vote in votes] == [True, False, False, True, False, True, False]
    assert votes[1].message == "user u has 40 USD available and needs 60"
    assert (votes[2].reason, votes[2].field) == ("INSUFFICIENT_FUNDS", "operations[0].parameters.amount")
    both = await books.prepare(
        books.branch(transfer("v", "u", "80"), ("debit_account", at("u", "500"))),
        books.branch(transfer("v", "u", "90")),
    )
    assert [vote.is_yes for vote in both] == [False, True]


async def test_money_on_its_way_in_cannot_be_spent_yet(books: Participation) -> None:
    await fund(books, "u", "v")
    coming, spending = books.branch(transfer("u", "v", "100")), books.branch(("debit_account", at("v", "101")))
    assert [vote.is_yes for vote in await books.prepare(coming, spending)] == [True, False]
    later = books.branch(("debit_account", at("v", "101")))
    answers = await books.resource.apply(Work(commits=[books.decided(coming)], prepares=[later]))
    assert answers.prepares[0].is_yes


async def test_amounts_are_exact_to_the_last_place(books: Participation) -> None:
    most = "99999999999999999999.999999999999999999"
    await fund(books, "u", amount=most, currency="ETH")
    await fund(books, "v", amount=f'"{most}"', currency="ETH")
    assert (await books.do(transfer("u", "v", "0.000000000000000001", "ETH"))).is_yes
    await books.do(
        ("debit_account", at("u", "99999999999999999999.999999999999999997", "ETH")),
        ("credit_account", at("u", "0.000000000000000002", "ETH")),
        ("debit_account", at("u", "0.000000000000000003", "ETH")),
    )
    assert await account(books, "u", "ETH") == (0, 0, 0, 0)
    assert (await account(books, "v", "ETH"))[0] == 10**20


PARAMETERS = "operations[0].parameters"
AMOUNTS = ["0", "-1", '"-1"', '"1e3"', '"NaN"', '"\\u0663"', '""', "true", "null", "[1]", "1e20"]
WRONG = [
    ("mint", "{}", "UNKNOWN_OPERATION", "operations[0].operation"),
    ("lock_funds", "[]", "BAD_PARAMETERS", PARAMETERS),
    ("lock_funds", '{"user_id":"u","user_id":"u"}', "BAD_PARAMETERS", PARAMETERS),
    ("lock_funds", at("u", "NaN"), "BAD_PARAMETERS", PARAMETERS),
    ("lock_funds", at("u", "1e400"), "BAD_PARAMETERS", PARAMETERS),
    ("lock_funds", at("u"), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    ("lock_funds", at("u", '1,"more":1'), "BAD_PARAMETERS", f"{PARAMETERS}.more"),
    ("lock_funds", at("u", '1,"\u00e9":1'), "BAD_PARAMETERS", f"{PARAMETERS}.\\xe9"),
    *[("lock_funds", at("u", amount), "BAD_PARAMETERS", f"{PARAMETERS}.amount") for amount in AMOUNTS],
    ("lock_funds", at("u", "0.001"), "BAD_PARAMETERS", f"{PARAMETERS}.amount"),
    ("lock_funds", at("u", "1", "ABC"), "UNKNOWN_CURRENCY", f"{PARAMETERS}.currency"),
    ("open_account", '{"user_id":5,"currency":"USD"}', "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    ("open_account", at("u\\n"), "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    ("open_account", at(""), "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    ("open_account", at("u" * 65), "BAD_PARAMETERS", f"{PARAMETERS}.user_id"),
    (*transfer("u", "u", "1"), "BAD_PARAMETERS", f"{PARAMETERS}.to_user_id"),
    ("lock_funds", at("nobody", "1"), "ACCOUNT_UNKNOWN", f"{PARAMETERS}.user_id"),
    ("credit_account", at("nobody", "1"), "ACCOUNT_UNKNOWN", f"{PARAMETERS}.user_id"),
    (*transfer("nobody", "u", "1"), "ACCOUNT_UNKNOWN", f"{PARAMETERS}.from_user_id"),
    (*transfer("u", "nobody", "1"), "ACCOUNT_UNKNOWN", f"{PARAMETERS}.to_user_id"),
]


async def test_what_is_wrong_in_itself_is_refused_by_name(books: Participation) -> None:
    """Bad input: a "no" that names the field, nothing reserved, and the rest of the batch unharmed."""
    await fund(books, "u")
    good = books.branch(("lock_funds", at("u", "1")))
    bad = [books.branch((operation, parameters)) for operation, parameters, _, _ in WRONG]
    votes = await books.prepare(good, *bad)
    assert votes[0].is_yes
    told = [(vote.kind, vote.xa_code, vote.transient, vote.reason, vote.field) for vote in votes[1:]]
    wanted = [(VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, False, reason, field) for _, _, reason, field in WRONG]
    assert told == wanted
    assert [vote.message.encode() for vote in votes[1:] if not vote.message] == []
    assert await books.prepare(*bad) == votes[1:]
    assert await account(books, "u") == (100, 0, 1, 0)


@pytest.mark.parametrize("amount", ["0.5", '"0.5"', "0.50000000000000000000000", "5e-1", '"00.5"'])
def test_an_amount_may_be_written_in_any_exact_way(amount: str) -> None:
    planned = SERVICE.plan(LOG_ID, XID, [Operation("bookkeeper", "lock_funds", at("u", amount, "BTC"))])
    assert planned.vote.is_yes
    assert Decimal(planned.rows[0].partition('"a":')[2].partition(",")[0]) == Decimal("0.5")


async def test_a_storm_of_branches_leaves_the_books_right(books: Participation) -> None:
    """Invariant 6, over random work from four workers: checked while branches are in doubt, and afterwards."""
    rng = random.Random(20)
    users = [f"u{each}" for each in range(6)]
    await fund(books, *users, amount="50")

    def operation() -> tuple[str, str]:
        user, other = rng.sample(users, 2)
        amount = str(rng.randint(1, 30))
        name = rng.choice(["credit_account", "debit_account", "lock_funds", "release_funds", "transfer_funds"])
        return transfer(user, other, amount) if name == "transfer_funds" else (name, at(user, amount))

    live: list[Prepare] = []
    yes, no = 0, 0
    for _ in range(15):
        rng.shuffle(live)
        ended, live = live[: len(live) // 2], live[len(live) // 2 :]
        works: list[Work] = []
        for lane in range(4):
            mine = ended[lane::4]
            fresh = [books.branch(*[operation() for _ in range(rng.randint(1, 3))]) for _ in range(8)]
            commits, rollbacks = mine[::2], mine[1::2]
            works.append(
                Work(
                    [books.decided(prepare) for prepare in commits],
                    [books.rollback_of(prepare) for prepare in rollbacks],
                    fresh,
                )
            )
        for work, answers in zip(works, await asyncio.gather(*map(books.resource.apply, works)), strict=True):
            assert all(ack.kind == 1 for ack in (*answers.commits, *answers.rollbacks))
            voted = list(zip(work.prepares, answers.prepares, strict=True))
            live += [prepare for prepare, vote in voted if vote.is_yes]
            yes += sum(vote.is_yes for _, vote in voted)
            no += sum(not vote.is_yes for _, vote in voted)
            assert all(vote.reason == "INSUFFICIENT_FUNDS" for _, vote in voted if not vote.is_yes)
        assert await books.violations() == []
    assert yes > 50
    assert no > 50
    await books.rollback(*live)
    assert await books.rows("select sum(reserved), sum(releasing) from bookkeeper.accounts") == [(0, 0)]
