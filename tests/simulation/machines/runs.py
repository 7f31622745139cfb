"""One seed's run of the machines: many transactions at once, and a mix of faults; then it must come to rest.

Nothing waits here, and no time passes: what is under way lies in a bag, and the seed draws from it
what happens next. So a message overtakes any other, and a timer rings long before or after what it
is meant for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, auto
from random import Random
from typing import Final

from coordinator.protocol.phases import Phase
from participant_sdk.xa import PREPARED, READ_ONLY, Decision, Vote, business_no, transient_no
from tests.simulation.machines.cluster import Cluster
from tests.simulation.machines.messages import Message, Prepare
from tests.simulation.machines.settling import settle

NAMES: Final = ("a", "b", "c", "d")
TRANSACTIONS: Final = 100
AT_ONCE: Final = 12
LOOK_EVERY: Final = 400
MOVES_MAX: Final = 20_000
NO: Final = business_no("TOLD_TO_FAIL", "the business says no")
BUSY: Final = transient_no("BUSY", "not now")


class Trouble(IntEnum):
    """What may go wrong, or be asked for beside plain work, at each move."""

    LOSS = auto()
    DUPLICATE = auto()
    CRASH_COORDINATOR = auto()
    CRASH_PARTICIPANT = auto()
    FENCED_ALIVE = auto()
    ANSWER_LOST = auto()
    WRITTEN_LATE = auto()
    TIMER = auto()
    SESSION_LOST = auto()
    REACHED_AGAIN = auto()
    ASKED = auto()
    STALE_CHECKPOINT = auto()
    REPEATED = auto()
    CLOSED = auto()
    ROLLED_BACK = auto()
    FORCED = auto()


# How likely each is at its occasion, at the mildest and at the worst.
CHANCES: Final[dict[Trouble, tuple[float, float]]] = {
    Trouble.LOSS: (0.002, 0.2),
    Trouble.DUPLICATE: (0.005, 0.3),
    Trouble.CRASH_COORDINATOR: (0.000_5, 0.005),
    Trouble.CRASH_PARTICIPANT: (0.001, 0.02),
    Trouble.FENCED_ALIVE: (0.000_5, 0.005),
    Trouble.ANSWER_LOST: (0.01, 0.3),
    Trouble.WRITTEN_LATE: (0.01, 0.3),
    Trouble.TIMER: (0.002, 0.03),
    Trouble.SESSION_LOST: (0.001, 0.01),
    Trouble.REACHED_AGAIN: (0.001, 0.01),
    Trouble.ASKED: (0.002, 0.03),
    Trouble.STALE_CHECKPOINT: (0.01, 0.2),
    Trouble.REPEATED: (0.05, 0.5),
    Trouble.CLOSED: (0.02, 0.2),
    Trouble.ROLLED_BACK: (0.01, 0.1),
    Trouble.FORCED: (0.000_2, 0.003),
}


@dataclass(slots=True)
class Account:
    """What a run saw. Mutable: it grows."""

    seed: int
    transactions: int = 0
    moves: int = 0
    committed: int = 0
    troubles: Counter[Trouble] = field(default_factory=Counter[Trouble])
    violations: list[str] = field(default_factory=list[str])

    def add(self, other: Account) -> None:
        """Count another run's too."""
        self.transactions += other.transactions
        self.moves += other.moves
        self.committed += other.committed
        self.troubles.update(other.troubles)


class Run:
    """One seed's run."""

    def __init__(self, seed: int) -> None:
        self.account = Account(seed)
        rng = self._rng = Random(seed)
        self._random = rng.random
        share = rng.choice((0.2, 0.5, 0.8))
        self.chances = {
            trouble: mild * (bad / mild) ** rng.random() if rng.random() < share else 0.0
            for trouble, (mild, bad) in CHANCES.items()
        }
        self._votes = rng.choice((((PREPARED,) * 8 + (NO, READ_ONLY)), ((PREPARED,) * 4 + (NO, BUSY, READ_ONLY))))
        self._cluster = Cluster(NAMES[: rng.choice((2, 3, 3, 4))])
        self._living = rng.choice((1, 2, 2, 3))
        self._bag: list[Message] = []
        # One draw a move tells whether any of these strikes.
        causes: dict[Trouble, Callable[[], bool]] = {
            Trouble.CRASH_COORDINATOR: self._crash_coordinator,
            Trouble.FENCED_ALIVE: self._fence_alive,
            Trouble.TIMER: self._ring,
            Trouble.SESSION_LOST: self._lose_session,
            Trouble.REACHED_AGAIN: self._reach,
            Trouble.ASKED: self._ask,
            Trouble.STALE_CHECKPOINT: self._checkpoint,
            Trouble.FORCED: self._force,
        }
        self._moments = [(trouble, cause) for trouble, cause in causes.items() if self.chances[trouble]]
        self._weights = [self.chances[trouble] for trouble, _ in self._moments]
        self._any_moment = sum(self._weights)
        self._requests: list[tuple[tuple[str, ...], str]] = []
        self._names = tuple(self._cluster.participants)
        for _ in range(self._living):
            self._cluster.open()

    def run(self) -> Account:
        """Work under trouble until every transaction was begun and the bag is empty, then heal and judge."""
        account = self.account
        while account.moves < MOVES_MAX and not account.violations:
            account.moves += 1
            if not self._move():
                break
            if account.moves % LOOK_EVERY == 0:
                account.violations += self._cluster.broken()
        account.violations += self._cluster.broken()
        if not account.violations:
            account.violations += settle(self._cluster, self._bag)
        account.committed = sum(
            row.record.decision is Decision.COMMIT for row in self._cluster.store.tables.decisions.values()
        )
        return account

    # -- Moves

    def _move(self) -> bool:
        """Make one move; False when nothing is left to do."""
        cluster, bag = self._cluster, self._bag
        if self._any_moment and self._random() < self._any_moment:
            trouble, cause = self._rng.choices(self._moments, self._weights)[0]
            self.account.troubles[trouble] += cause()
        while len(cluster.coordinators) < self._living:
            self._open()
        if cluster.posted:
            bag += cluster.posted
            cluster.posted.clear()
        if bag and (len(bag) >= AT_ONCE or self._random() < 0.9):
            self._deliver()
            return True
        if self._serve_log():
            return True
        if self.account.transactions < TRANSACTIONS:
            self._begin()
            return True
        return bool(bag)

    def _open(self) -> None:
        """Open a coordinator in place of one that is gone; it fences the dead."""
        cluster = self._cluster
        number = cluster.open().incarnation.number
        for dead in [n for n in cluster.store.tables.incarnations if n not in cluster.coordinators]:
            cluster.fence(number, dead)

    def _deliver(self) -> None:
        bag = self._bag
        at = int(self._random() * len(bag))
        message = bag[at]
        if not self._strikes(Trouble.DUPLICATE):
            bag[at] = bag[-1]
            bag.pop()
            if self._strikes(Trouble.LOSS):
                return
        vote = self._vote() if type(message) is Prepare else PREPARED
        cluster = self._cluster
        cluster.deliver(message, vote)
        name = message.participant
        if cluster.participants[name].pending:
            if self._strikes(Trouble.CRASH_PARTICIPANT):
                participant = cluster.participants[name]
                participant.crash(self._rng.randint(0, len(participant.pending)))
            else:
                cluster.flush(name)

    def _vote(self) -> Vote:
        return self._votes[int(self._random() * len(self._votes))]

    def _serve_log(self) -> bool:
        """Let the log do one thing that somebody waits for; False where nobody does."""
        cluster = self._cluster
        for number, machine in list(cluster.coordinators.items()):
            for xid in list(machine.lookups):
                cluster.look_up(number, xid)
            while machine.conflicts:
                cluster.resolve(number, 0)
            if machine.heuristics:
                cluster.keep_heuristics(number)
            cluster.write(number)
        if not cluster.statements:
            # Who waits for an answer that will never come has lost its connection.
            waiting = [number for number, machine in cluster.coordinators.items() if machine.awaited]
            for number in waiting:
                cluster.lose_answer(number)
            return bool(waiting)
        at = int(self._random() * len(cluster.statements))
        number = cluster.statements[at].owner.number
        if number in cluster.coordinators and self._strikes(Trouble.WRITTEN_LATE):
            cluster.lose_answer(number)
        elif self._strikes(Trouble.ANSWER_LOST):
            cluster.serve(at, answered=False)
        else:
            cluster.serve(at, answered=True)
        return True

    def _begin(self) -> None:
        cluster = self._cluster
        number = self._one()
        self.account.transactions += 1
        if self._requests and self._strikes(Trouble.CLOSED):
            cluster.close(number, self._rng.choice(self._requests[-8:])[1])
            return
        if self._requests and self._strikes(Trouble.REPEATED):
            names, request = self._rng.choice(self._requests[-8:])
        else:
            names = tuple(self._rng.sample(self._names, self._rng.choice((2, 2, 2, len(self._names)))))
            request = f"r{self.account.transactions}" if self._random() < 0.5 else ""
            if request:
                self._requests.append((names, request))
        xid = cluster.begin(number, names, request)
        if self._strikes(Trouble.ROLLED_BACK):
            cluster.roll_back(number, xid)

    # -- Trouble that comes at any moment

    def _one(self) -> int:
        """One of the living coordinators."""
        return self._rng.choice(list(self._cluster.coordinators))

    def _crash_coordinator(self) -> bool:
        self._cluster.crash(self._one())
        if not self._cluster.coordinators:
            self._cluster.open()
        return True

    def _fence_alive(self) -> bool:
        if len(self._cluster.coordinators) < 2:
            return False
        number, victim = self._rng.sample(list(self._cluster.coordinators), 2)
        self._cluster.fence(number, victim)
        return True

    def _ring(self) -> bool:
        number = self._one()
        timers = list(self._cluster.coordinators[number].timers())
        if timers:
            self._cluster.ring(number, *self._rng.choice(timers))
        return bool(timers)

    def _lose_session(self) -> bool:
        """A link's session breaks: every Prepare outstanding on it is answered "no"."""
        name, number = self._rng.choice(self._names), self._one()
        for xid, transaction in list(self._cluster.coordinators[number].transactions.items()):
            if transaction.phase is Phase.PREPARING and name in transaction.branches.silent:
                self._cluster.lose_session(number, name, xid)
        return True

    def _reach(self) -> bool:
        self._cluster.reach(self._one(), self._rng.choice(self._names))
        return True

    def _ask(self) -> bool:
        name = self._rng.choice(self._names)
        doubts = list(self._cluster.participants[name].in_doubt())
        if doubts:
            self._cluster.ask(name, self._rng.choice(doubts), self._one())
        return bool(doubts)

    def _checkpoint(self) -> bool:
        """Write a checkpoint, and now and then have an old one land on it."""
        before = list(self._cluster.store.tables.checkpoints.values())
        self._cluster.checkpoint(self._one())
        if before and self._random() < 0.3:
            self._cluster.store.checkpoint(self._rng.choice(before))
        return True

    def _force(self) -> bool:
        name = self._rng.choice(self._names)
        doubts = list(self._cluster.participants[name].in_doubt())
        if doubts:
            self._cluster.force(name, self._rng.choice(doubts), self._rng.choice((Decision.COMMIT, Decision.ROLLBACK)))
            self._cluster.flush(name)
        return bool(doubts)

    def _strikes(self, trouble: Trouble) -> bool:
        chance = self.chances[trouble]
        if chance and self._random() < chance:
            self.account.troubles[trouble] += 1
            return True
        return False
