"""The bookkeeper against a ledger in forty lines of Python: any batches of any branches end the same on both."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from participant_sdk.participant import Prepare, Work
from participant_sdk.xa import AckKind
from tests.integration.participations import Participation, participating

_runs = itertools.count(1)
USERS: Final = ("a", "b", "c")
LOCKED: Final = {"release_funds", "capture_funds"}
OPENS: Final = {"open_account", "open_if_absent"}
NAMES: Final = (
    *("open_account", "open_if_absent", "credit_account", "debit_account", "lock_funds", "release_funds"),
    *("transfer_funds", "capture_funds"),
)


class Act(NamedTuple):
    """An operation: what, of whom, to whom, how much. ``target`` counts where there are two parties."""

    name: str
    user: str
    target: str
    amount: int

    @property
    def parties(self) -> tuple[str, ...]:
        return (self.user, self.target) if self.name in {"transfer_funds", "capture_funds"} else (self.user,)

    @property
    def takes(self) -> tuple[str, str] | None:
        """The user and the compartment that money leaves."""
        if self.name in OPENS or self.name == "credit_account":
            return None
        return self.user, "locked" if self.name in LOCKED else "free"

    @property
    def gives(self) -> tuple[str, str] | None:
        """The user and the compartment that money reaches."""
        if self.name in OPENS or self.name == "debit_account":
            return None
        return self.parties[-1], "locked" if self.name == "lock_funds" else "free"


Branch = tuple[Act, ...]


@dataclass
class Account:
    """What is there, by compartment, what of it is promised to branches in doubt, and who opens it."""

    opened_by: int | None = None
    has: dict[str, int] = field(default_factory=lambda: {"free": 0, "locked": 0})
    promised: dict[str, int] = field(default_factory=lambda: {"free": 0, "locked": 0})


def opens_what_it_used(acts: Branch) -> bool:
    """It is wrong in itself, whatever accounts there are, and so asks for none."""
    used: set[str] = set()
    for act in acts:
        if act.name == "open_account" and act.user in used:
            return True
        used.update(act.parties)
    return False


class Ledger:
    """The model. A branch promises the most that it lacks at any of its operations, and nothing else."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def open_all(self, branches: Iterable[tuple[int, Branch]]) -> frozenset[str]:
        """Accounts are shut to others from when they are asked for; returns whose are there."""
        for number, acts in branches:
            if opens_what_it_used(acts):
                continue
            used: set[str] = set()
            for act in acts:
                if act.name in OPENS and act.user not in self.accounts and act.user not in used:
                    self.accounts[act.user] = Account(number)
                used.update(act.parties)
        return frozenset(self.accounts)

    def takes(self, number: int, acts: Branch, known: frozenset[str]) -> bool:
        """Reserve the branch, or say no."""
        if opens_what_it_used(acts):
            return False
        used: set[str] = set()
        for act in acts:
            if act.name in OPENS and act.user in used:
                continue
            for user in act.parties:
                account = self.accounts.get(user)
                if user not in known or account is None or account.opened_by not in {None, number}:
                    return False
                if act.name == "open_account" and account.opened_by != number:
                    return False
            used.update(act.parties)
        lacking = self._lacking(acts)
        for (user, compartment), amount in lacking.items():
            account = self.accounts[user]
            if account.has[compartment] - account.promised[compartment] < amount:
                return False
        for (user, compartment), amount in lacking.items():
            self.accounts[user].promised[compartment] += amount
        return True

    def end(self, number: int, acts: Branch, *, committed: bool) -> None:
        for (user, compartment), amount in self._lacking(acts).items():
            self.accounts[user].promised[compartment] -= amount
        for act in acts if committed else ():
            for place, sign in ((act.takes, -1), (act.gives, 1)):
                if place is not None:
                    self.accounts[place[0]].has[place[1]] += sign * act.amount
        self.forget(number, opened=committed)

    def forget(self, number: int, *, opened: bool) -> None:
        """The accounts that the branch was opening are open, or gone."""
        for user, account in list(self.accounts.items()):
            if account.opened_by == number:
                account.opened_by = None
                if not opened:
                    del self.accounts[user]

    @staticmethod
    def _lacking(acts: Branch) -> dict[tuple[str, str], int]:
        level: defaultdict[tuple[str, str], int] = defaultdict(int)
        lowest: defaultdict[tuple[str, str], int] = defaultdict(int)
        for act in acts:
            if act.takes is not None:
                level[act.takes] -= act.amount
                lowest[act.takes] = min(lowest[act.takes], level[act.takes])
            if act.gives is not None:
                level[act.gives] += act.amount
        return {place: -amount for place, amount in lowest.items() if amount < 0}


OPEN_C_IF_ABSENT: Final = Act("open_if_absent", "c", "a", 1)
OPEN_C: Final = Act("open_account", "c", "a", 1)
PAIRS: Final = tuple(itertools.permutations(USERS, 2))


def act_of(name: str, users: tuple[str, str], amount: int) -> Act:
    return Act(name, *users, amount)


acts = st.builds(act_of, st.sampled_from(NAMES), st.sampled_from(PAIRS), st.integers(1, 9))
branches = st.lists(acts, min_size=1, max_size=4).map(tuple)
# What begins, and of what is in doubt by then: what ends, and how.
batches = st.tuples(st.lists(branches, max_size=6), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=4))


@pytest.fixture
async def books(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "bookkeeper") as participation:
        yield participation


def operation(act: Act, run: int) -> tuple[str, str]:
    user, target = f"{act.user}{run}", f"{act.target}{run}"
    name = "open_account" if act.name in OPENS else act.name
    who = {"from_user_id": user, "to_user_id": target} if len(act.parties) > 1 else {"user_id": user}
    how = {} if act.name in OPENS else {"amount": str(act.amount)}
    absent = {"if_absent": True} if act.name == "open_if_absent" else {}
    return name, json.dumps({**who, "currency": "JPY", **how, **absent})


async def kept(books: Participation, run: int) -> dict[str, tuple[Decimal, ...]]:
    figures = "balance - locked, locked, reserved, releasing"
    rows = await books.rows(
        f"select user_id, {figures} from bookkeeper.accounts where user_id = any (%s)",
        [f"{user}{run}" for user in USERS],
    )
    return {user.removesuffix(str(run)): tuple(found) for user, *found in rows}


def modelled(ledger: Ledger) -> dict[str, tuple[int, ...]]:
    return {user: (*account.has.values(), *account.promised.values()) for user, account in ledger.accounts.items()}


# Not shrunk: every try is a story on a real database, and a story is short enough to be read as it is.
@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(funds=[2, 2], story=[([(OPEN_C_IF_ABSENT, OPEN_C), (OPEN_C,)], [])])
@given(funds=st.lists(st.integers(2, 30), min_size=2, max_size=2), story=st.lists(batches, min_size=1, max_size=5))
async def test_the_ledger_does_what_the_model_does(
    books: Participation, funds: Sequence[int], story: Sequence[tuple[list[Branch], list[tuple[int, bool]]]]
) -> None:
    """Votes, balances, locked money and reservations are equal after every batch; the invariants hold in the end."""
    run, ledger = next(_runs), Ledger()
    live: dict[int, tuple[Prepare, Branch]] = {}
    numbers = itertools.count(1)
    opening = [
        # Half of it is locked, so that there is something to capture.
        (
            Act("open_account", user, "", 0),
            Act("credit_account", user, "", amount),
            Act("lock_funds", user, "", amount // 2),
        )
        for user, amount in zip(USERS[:2], funds, strict=True)
    ]
    for begun, endings in [(opening, []), ([], [(0, True), (0, True)]), *story]:
        fresh = {next(numbers): acts for acts in begun}
        known = ledger.open_all(fresh.items())
        ended: dict[int, bool] = {}
        for at, committed in endings:
            candidates = [number for number in live if number not in ended]
            if candidates:
                ended[candidates[at % len(candidates)]] = committed
        for number, committed in ended.items():
            ledger.end(number, live[number][1], committed=committed)
        prepares = {number: books.branch(*[operation(act, run) for act in acts]) for number, acts in fresh.items()}
        work = Work(
            [books.decided(live[number][0]) for number, committed in ended.items() if committed],
            [books.rollback_of(live[number][0]) for number, committed in ended.items() if not committed],
            list(prepares.values()),
        )
        answers = await books.resource.apply(work)
        assert all(ack.kind is AckKind.DONE for ack in (*answers.commits, *answers.rollbacks))
        live = {number: each for number, each in live.items() if number not in ended}
        taken = {number: ledger.takes(number, acts, known) for number, acts in fresh.items()}
        for number, is_taken in taken.items():
            if is_taken:
                live[number] = prepares[number], fresh[number]
            else:
                ledger.forget(number, opened=False)
        told = dict(zip(fresh, answers.prepares, strict=True))
        assert {number: vote.is_yes for number, vote in told.items()} == taken, told
        assert await kept(books, run) == modelled(ledger)
        for vote in answers.prepares:
            event(vote.reason or "yes")
    assert await books.violations() == []
