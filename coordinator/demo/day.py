"""A trading day: users on a whole system of its own, under kills and misbehaviour, and what must be true at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Final

import httpx
import psycopg

from coordinator.commands.invariants import UncheckedError, broken_invariants
from coordinator.demo.agreement import broken_promises
from coordinator.demo.books import CurrencyBook, broken_books, currency_books
from coordinator.demo.callers import Callers, NoAnswerError, RefusedCallError
from coordinator.demo.kills import COORDINATOR, Kill, Steps, plan, strike
from coordinator.demo.misbehaviour import behave, misbehave
from coordinator.demo.outsiders import CLOSED_IBAN
from coordinator.demo.person import Person, credit_of, pay_in
from coordinator.demo.record import Intent, Notice, Record, intents, notices
from coordinator.demo.snapshot import PARTICIPANTS, Snapshot, take, unsettled
from coordinator.demo.webhook import Webhook
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.testing import System

SETTLED_WITHIN_S: Final = 180.0
# What the exchange has on the chain beforehand, out of which fees are paid.
TREASURY: Final = "5"

_LOOK_AGAIN_S: Final = 0.5
_ASKED_AGAIN: Final = 200
_BLOCK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of day. ``kills`` of each process; ``at_once`` users are at the exchange at one time."""

    users: int
    seed: int
    faults: bool
    kills: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Day:
    """What happened. ``broken`` is what does not hold, a sentence each; nothing, on a good day."""

    plan: Plan
    load_s: float
    settling_s: float
    counts: Mapping[str, int]
    kills: Sequence[Kill]
    books: Sequence[CurrencyBook]
    volumes: Mapping[str, Decimal]
    broken: Sequence[str]
    checked: Sequence[str]


@dataclass(slots=True)
class _Diary:
    """What is noted while the day goes on. Mutable: it grows."""

    kills: list[Kill] = field(default_factory=list[Kill])
    broken: list[str] = field(default_factory=list[str])


Show = Callable[[str, int, int], None]


async def trade(system: System, webhook: Webhook, wanted: Plan, show: Show) -> Day:
    """Live through a day. ``webhook`` is the system's; ``show`` is told what goes on, and how much of it is done."""
    record_path = system.data / "clients.jsonl"
    diary = _Diary()
    async with _callers(system, webhook, record_path) as callers:
        show("opening", 0, 1)
        await _open(callers)
        began_s = time.monotonic()
        await _live(callers, wanted, diary, show)
        load_s = time.monotonic() - began_s
        show("settling", 0, 1)
        began_s = time.monotonic()
        await behave(callers)
        diary.broken += await _settle(callers)
        settling_s = time.monotonic() - began_s
        show("checking", 0, 1)
        await _ask_again(callers, Random(wanted.seed), intents(record_path))  # noqa: S311 - it only picks
        snapshot = await take(callers)
        told = intents(record_path)
        diary.broken += await _check(callers, snapshot, told, notices(record_path))
    return Day(
        plan=wanted,
        load_s=load_s,
        settling_s=settling_s,
        counts=dict(sorted(callers.counts.items())),
        kills=sorted(diary.kills, key=lambda kill: kill.process),
        books=currency_books(snapshot),
        volumes=_volumes(snapshot),
        broken=diary.broken,
        checked=_CHECKED,
    )


_CHECKED: Final = (
    "money is conserved in every currency, over bank, chain and all ledgers",
    "every account is what the other four ledgers and its own transfers make it",
    "every participant's own invariants, the bank's and the chain's",
    "nothing is locked, reserved or in doubt; every order and every workflow has ended",
    "every fill is settled once, as it was filled",
    "the webhook was told of every deposit from the bank, under one id, signed, and of nothing else",
    "every branch is where its decision wants it, and every client was told what the log holds, each time",
)


@asynccontextmanager
async def _callers(system: System, webhook: Webhook, record_path: Path) -> AsyncGenerator[Callers]:
    record = Record(record_path)
    limits = httpx.Limits(max_connections=None)
    async with (
        asyncio.TaskGroup() as group,
        TransactionClient(system.grpc) as client,
        httpx.AsyncClient(base_url=system.http, limits=limits) as http,
    ):
        keeping = group.create_task(record.run())
        hearing = group.create_task(webhook.run(record))
        yield Callers(system, client, http, record)
        webhook.stop()
        await asyncio.wait([hearing])
        keeping.cancel()


async def _open(callers: Callers) -> None:
    """Before the first user comes: blocks that come quickly, a closed account at the bank, and the treasury's coins."""
    await callers.company("chain", "PUT", "/development/mining", {"block_interval_s": _BLOCK_S})
    await callers.company("bank", "POST", "/development/closed-accounts", {"iban": CLOSED_IBAN})
    await callers.must("coin deposit", "treasury", credit_of("treasury", await pay_in(callers, TREASURY)))


async def _live(callers: Callers, wanted: Plan, diary: _Diary, show: Show) -> None:
    steps = Steps(0)

    def step_done() -> None:
        steps.step_done()
        show("trading", steps.done, steps.planned)

    people = [Person(number, wanted.users, wanted.seed, callers, step_done) for number in range(wanted.users)]
    steps.planned = sum(person.steps for person in people)
    # Chance decides when faults strike; nothing secret is drawn from it.
    random = Random(wanted.seed)  # noqa: S311 - as the comment above says
    seats = asyncio.Semaphore(wanted.at_once)
    async with asyncio.TaskGroup() as group:
        striking = [
            group.create_task(_strike(callers, steps, share, process, diary))
            for share, process in _kills(callers.system, wanted, random)
        ]
        misbehaving = group.create_task(misbehave(callers, random)) if wanted.faults else None
        living = [group.create_task(_one(person, seats, steps, diary)) for person in people]
        await asyncio.wait(living)
        if striking:
            await asyncio.wait(striking)
        if misbehaving is not None:
            misbehaving.cancel()


def _kills(system: System, wanted: Plan, random: Random) -> list[tuple[float, str]]:
    if not wanted.faults or not wanted.kills:
        return []
    return plan((COORDINATOR, *PARTICIPANTS, *system.simulators), wanted.kills, random)


async def _strike(callers: Callers, steps: Steps, share: float, process: str, diary: _Diary) -> None:
    try:
        diary.kills.append(await strike(callers, steps, share, process))
    except (NoAnswerError, RefusedCallError, ClientError) as error:
        diary.broken.append(f"NOT_BACK {process}: {error}")


async def _one(person: Person, seats: asyncio.Semaphore, steps: Steps, diary: _Diary) -> None:
    """One user's day. What it could not go through is noted, and the others go on."""
    async with seats:
        try:
            await person.live()
        except (NoAnswerError, RefusedCallError, ClientError) as error:
            diary.broken.append(f"DAY_CUT_SHORT {person.user_id}: {error!r}")
    for _ in range(person.steps - person.steps_done):
        steps.step_done()


async def _settle(callers: Callers) -> list[str]:
    """Wait until nothing is under way, give back what the bank has rejected, and tell what is still not settled."""
    left: list[str] = []
    until_s = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < until_s:
        try:
            left = await unsettled(callers.system)
        except psycopg.OperationalError as error:
            left = [f"a database cannot be asked: {error}"]
        if not left:
            await _give_back(callers)
            return []
        await asyncio.sleep(_LOOK_AGAIN_S)
    return [f"NOT_SETTLED in {SETTLED_WITHIN_S:g} s: {each}" for each in left]


async def _give_back(callers: Callers) -> None:
    """What the bank has rejected was debited: the exchange's people credit it again."""
    for move in (await take(callers)).bank_moves:
        if move.kind == "REJECTED":
            money = {"user_id": move.user_id, "currency": move.currency, "amount": f"{-move.amount:f}"}
            await callers.must("given back", f"back:{move.name}", [("bookkeeper", "credit_account", money)])


async def _ask_again(callers: Callers, random: Random, told: Mapping[str, Intent]) -> None:
    """Send some of the day's requests once more: the answers must be the same (invariant 11)."""
    ended = [intent for intent in told.values() if "operations" in intent.asked and intent.told]
    for intent in random.sample(ended, min(_ASKED_AGAIN, len(ended))):
        operations = [(service, name, given) for service, name, given in intent.asked["operations"]]
        await callers.ask_again(intent.request_id, operations)


async def _check(
    callers: Callers, snapshot: Snapshot, told: Mapping[str, Intent], heard: Sequence[Notice]
) -> list[str]:
    """Everything that must hold now, and does not."""
    broken = [*broken_books(snapshot, told), *broken_promises(snapshot, told, heard)]
    broken += [f"NOT_SETTLED {each}" for each in await unsettled(callers.system)]
    for name in PARTICIPANTS:
        try:
            found = await broken_invariants(name, callers.system.databases[name])
        except UncheckedError as error:
            found = [f"not checked: {error}"]
        broken += [f"INVARIANT {name}: {each}" for each in found]
    for name in callers.system.simulators:
        found = (await callers.company(name, "GET", "/invariants"))["violations"]
        broken += [f"INVARIANT {name}: {each}" for each in found]
    return broken


def _volumes(snapshot: Snapshot) -> dict[str, Decimal]:
    """What was traded, by symbol, in the base currency."""
    volumes: dict[str, Decimal] = {}
    for fill in snapshot.fills:
        volumes[fill.symbol] = volumes.get(fill.symbol, Decimal(0)) + fill.amount
    return dict(sorted(volumes.items()))
