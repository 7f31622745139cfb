"""The conformance kit passes the shipped participants, and catches wrong ones."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.conformance import Exercise, InvalidExerciseError, Report, read_exercise, run
from participant_sdk.ids import Xid
from participant_sdk.participant import (
    Answers,
    Branch,
    Commit,
    Operation,
    Participant,
    RecoverQuery,
    Work,
)
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import BranchKey, Change, MemoryStore
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.server import serving
from participant_sdk.xa import DONE, PREPARED, READ_ONLY, Vote, VoteKind, transient_no
from sidecars.bookkeeper import operations as bookkeeper
from sidecars.trading import operations as trading
from tests.contract.branch_subjects import BANK_OPERATIONS, LOG, an_xid, fill_bank, prepare_of

ACCOUNTS = ("alice", "bob", "carol")
CLOCK = SystemClock()


def do(name: str, **parameters: str) -> Operation:
    return Operation("bank", name, json.dumps(parameters))


BANK = Exercise(
    "bank",
    yes=tuple(do("credit", account=account, amount="1") for account in ACCOUNTS),
    no=do("debit", account="alice", amount="1000000000"),
    invalid=do("credit", account="alice", amount="a lot"),
    observe=do("read", account="alice"),
)


async def check(participant: Participant, exercise: Exercise = BANK) -> Report:
    async with serving(participant, "127.0.0.1:0", worker_count=4, patience_s=600.0, grace_s=0.1) as served:
        return await run(f"127.0.0.1:{served.port}", exercise)


def a_store() -> MemoryStore:
    return MemoryStore(dict.fromkeys(ACCOUNTS, 100))


async def test_the_memory_resource_conforms() -> None:
    store = a_store()
    resource = MemoryResource("bank", store, CLOCK)
    report = await check(resource)
    assert report.passed, report.text()
    assert {finding.over for finding in report.findings} == {"unary", "session"}
    assert resource.invariants() == []
    assert all(account.held == 0 for account in store.durable.accounts.values())


async def test_the_postgres_xa_resource_conforms(database: str) -> None:
    await fill_bank(database)
    async with PostgresXaResource.open("bank", database, BANK_OPERATIONS) as resource:
        report = await check(resource)
    assert report.passed, report.text()


def at(service: str, name: str, **parameters: str) -> Operation:
    return Operation(service, name, json.dumps(parameters))


async def test_the_bookkeeper_conforms(database: str) -> None:
    users = ("ann", "ben", "cas")

    def ask(name: str, user: str, amount: str) -> Operation:
        return at("bookkeeper", name, user_id=user, currency="USD", amount=amount)

    exercise = Exercise(
        "bookkeeper",
        yes=tuple(ask("credit_account", user, "1.00") for user in users),
        no=ask("debit_account", "ann", "1000000.00"),
        invalid=ask("credit_account", "ann", "a lot"),
    )
    openings = tuple(at("bookkeeper", "open_account", user_id=user, currency="USD") for user in users)
    async with ReservationResource.open("bookkeeper", bookkeeper.SERVICE, database, CLOCK) as resource:
        xid = an_xid()
        assert (await resource.prepare([prepare_of(xid, *openings)]))[0].is_yes
        assert await resource.commit([Commit(LOG, xid, 7, 1)]) == [DONE]
        report = await check(resource, exercise)
    assert report.passed, report.text()


async def test_trading_conforms(database: str) -> None:
    order = {"user_id": "ann", "symbol": "BTC/USD", "side": "buy", "amount": "1", "price": "100"}
    exercise = Exercise(
        "trading",
        yes=tuple(at("trading", "place_order", **{**order, "amount": amount}) for amount in ("1", "2", "3")),
        no=at("trading", "cancel_order", order_id="no-such-order"),
        invalid=at("trading", "place_order", **{**order, "side": "hold"}),
        read=at("trading", "validate_order", **order),
    )
    async with ReservationResource.open("trading", trading.SERVICE, database, CLOCK) as resource:
        report = await check(resource, exercise)
    assert report.passed, report.text()


class TakesUnknownCommits(MemoryResource):
    """Acknowledges what it never heard of."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        return replace(answers, commits=[DONE for _ in work.commits])


class LeavesNoTombstone(MemoryResource):
    """Says DONE to a Rollback of an unknown branch, and forgets it."""

    async def apply(self, work: Work) -> Answers:
        known = [it for it in work.rollbacks if await self.branch(it.log_id, it.xid) is not None]
        answers = await super().apply(replace(work, rollbacks=known))
        acks = dict(zip(known, answers.rollbacks, strict=True))
        return replace(answers, rollbacks=[acks.get(it, DONE) for it in work.rollbacks])


class RunsTwice(MemoryResource):
    """Runs a second Prepare as if it were the first."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes: list[Vote] = []
        for prepare, vote in zip(work.prepares, answers.prepares, strict=True):
            is_no = prepare.operations == (BANK.no,)
            votes.append(transient_no("AGAIN", "it ran again") if is_no and vote.is_yes else vote)
        return replace(answers, prepares=votes)


class PostsTwice(MemoryResource):
    """Takes effect again at a second Commit."""

    async def apply(self, work: Work) -> Answers:
        for commit in work.commits:
            stored = self._store.current.branches.get(BranchKey(commit.log_id, commit.xid))
            if stored is not None and stored.branch.phase is BranchPhase.COMMITTED:
                accounts = dict(self._store.current.accounts)
                for name, amount in stored.postings:
                    accounts[name] = accounts[name]._replace(balance=accounts[name].balance + amount)
                self._store.write(Change(accounts=accounts))
        return await super().apply(work)


class PreparesNothing(MemoryResource):
    """Votes READ_ONLY on work that it never saw."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes = [
            READ_ONLY if prepare.ends_work else vote
            for prepare, vote in zip(work.prepares, answers.prepares, strict=True)
        ]
        return replace(answers, prepares=votes)


class FailsTheBatch(MemoryResource):
    """Lets one bad branch fail all that travel with it."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        if all(vote.is_yes for vote in answers.prepares):
            return answers
        return replace(answers, prepares=[transient_no("BATCH_FAILED", "one was bad") for _ in work.prepares])


class SaysYesToAll(MemoryResource):
    """Votes PREPARED whatever the business says."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        return replace(answers, prepares=[PREPARED for _ in work.prepares])


class HidesItsDoubts(MemoryResource):
    """Lists nothing at recovery."""

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        return []


class ForgetsTheHand(MemoryResource):
    """Shows nothing of a branch that was forced."""

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        branch = await super().branch(log_id, xid)
        return None if branch and branch.phase is BranchPhase.HEURISTIC else branch


class KeepsNoWatermark(MemoryResource):
    """Reports no sequence."""

    async def watermarks(self, log_id: str) -> dict[int, int]:
        return {}


class VotesBareNoes(MemoryResource):
    """Says no without a reason, and calls it transient."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(work)
        votes = [
            vote._replace(reason="", transient=True) if vote.kind is VoteKind.ROLLED_BACK else vote
            for vote in answers.prepares
        ]
        return replace(answers, prepares=votes)


class LosesCommits(MemoryResource):
    """Acknowledges a Commit and does nothing."""

    async def apply(self, work: Work) -> Answers:
        answers = await super().apply(replace(work, commits=()))
        return replace(answers, commits=[DONE for _ in work.commits])


@pytest.mark.parametrize(
    ("wrong", "check_name"),
    [
        (TakesUnknownCommits, "commit of an unknown branch is a hazard"),
        (LeavesNoTombstone, "a late prepare meets the tombstone"),
        (RunsTwice, "a duplicate gets the stored vote"),
        (PostsTwice, "a commit takes effect once"),
        (PreparesNothing, "work that was never done is xaer nota"),
        (FailsTheBatch, "one bad branch fails nothing else"),
        (SaysYesToAll, "a no is rolled back with its reason"),
        (HidesItsDoubts, "recovery lists what is in doubt"),
        (ForgetsTheHand, "an operators hand is kept until forgotten"),
        (KeepsNoWatermark, "finished branches and watermarks tell the sequence"),
        (VotesBareNoes, "a no is rolled back with its reason"),
        (LosesCommits, "a commit takes effect once"),
    ],
)
async def test_a_wrong_participant_is_caught(wrong: type[MemoryResource], check_name: str) -> None:
    report = await check(wrong("bank", a_store(), CLOCK))
    caught = [finding for finding in report.failed if finding.check == check_name]
    assert caught, report.text()
    assert caught[0].seen


async def test_a_participant_that_cannot_be_reached_fails_every_check() -> None:
    report = await run("127.0.0.1:9", BANK)
    assert len(report.failed) == len(report.findings) > 20
    assert "UNAVAILABLE" in report.failed[0].seen


def test_an_exercise_is_read_from_json() -> None:
    credit = {"operation": "credit", "parameters": {"account": "alice", "amount": "1"}}
    written = {"participant": "bank", "yes": [credit] * 3, "no": credit, "invalid": credit}
    exercise = read_exercise(json.dumps(written))
    assert exercise.yes[0] == do("credit", account="alice", amount="1")
    assert exercise.observe is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"participant": "No Name"}, "participant"),
        ({"yes": []}, "yes"),
        ({"yes": "credit"}, "yes"),
        ({"no": None}, "no"),
        ({"maybe": 1}, "maybe"),
    ],
)
def test_a_wrong_exercise_names_the_key(change: dict[str, object], key: str) -> None:
    credit = {"operation": "credit"}
    written = {"participant": "bank", "yes": [credit] * 3, "no": credit, "invalid": credit, **change}
    with pytest.raises(InvalidExerciseError, match=f"^{key}"):
        read_exercise(json.dumps(written))


async def test_the_kit_is_a_command(tmp_path: Path) -> None:
    """For participants in any language: a report, and an exit code."""
    bank = {"operation": "credit", "parameters": {"account": "alice", "amount": "1"}}
    debit = {"operation": "debit", "parameters": {"account": "alice", "amount": "1000000000"}}
    bad = {"operation": "credit", "parameters": {"account": "alice"}}
    exercise = tmp_path / "exercise.json"
    exercise.write_text(json.dumps({"participant": "bank", "yes": [bank] * 3, "no": debit, "invalid": bad}))
    for kind, code in ((MemoryResource, 0), (HidesItsDoubts, 1)):
        participant = kind("bank", a_store(), CLOCK)
        async with serving(participant, "127.0.0.1:0", patience_s=600.0, grace_s=0.1) as served:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "participant_sdk.conformance", f"127.0.0.1:{served.port}", str(exercise)),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
        assert process.returncode == code, output.decode()
        assert ("FAIL R18" in output.decode()) is (code == 1)
        assert "checks passed" in output.decode()
