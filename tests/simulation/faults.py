"""The kinds of fault, how many of each happened, and the mix that one seed draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final


class Fault(Enum):
    """A kind of fault. The name is how a mix is printed and shrunk."""

    # The network.
    SLOW_FRAME = "a frame takes seconds"
    DROP = "a frame is lost on a living stream"
    DUPLICATE = "a frame arrives twice"
    REORDER = "a frame overtakes another"
    BREAK = "a stream breaks, and both sides hear of it"
    HALF_OPEN = "a stream breaks, and one side hears of it much later"
    CUT_ONE_WAY = "nothing passes from one host to another"
    CUT_BOTH_WAYS = "nothing passes between two hosts"
    CALL_LOST = "a call is lost before it is served"
    REPLY_LOST = "a call is served, and its reply is lost"
    # Processes.
    CRASH_COORDINATOR = "a coordinator is killed"
    CRASH_PARTICIPANT = "a participant is killed"
    CRASH_AT_STEP = "a process is killed at a chosen step of its own"
    CRASH_IN_FLUSH = "a process is killed while its store or log flushes"
    PAUSE_COORDINATOR = "a coordinator is stopped for a while"
    PAUSE_PARTICIPANT = "a participant is stopped for a while"
    STOP_COORDINATOR = "a coordinator is told to stop, and resigns"
    SLEEP = "every machine is suspended for two hours"
    CLOCK_SKEW = "a process's wall clock is seconds off"
    # The log.
    LOG_SLOW = "a statement of the log takes 300 ms or 2 s"
    LOG_FAILED = "a statement of the log fails, and did nothing"
    LOG_ANSWER_LOST = "a statement of the log is done, and its answer is lost"
    LOG_LATE = "a statement of the log whose answer was lost is done a little later"
    LOG_OUTAGE = "the log cannot be reached for seconds"
    LOG_RECONNECT = "every connection to the log breaks"
    LOG_CLOCK = "the log's clock jumps by seconds"
    LOG_FAILOVER = "the log fails over to its synchronous standby: what no write confirmed may be gone"
    LOG_PROMOTED = "the log is recovered to a moment seconds ago, on a new timeline"
    LOG_RESTORED = "the log is restored from a copy seconds old, and nobody says so"
    LOG_RESTORED_HELD = "the log is restored from a copy seconds old, in HOLD"
    # A participant's store.
    STORE_SLOW = "a flush of a store takes 300 ms or 2 s"
    STORE_FAILED = "a local transaction of a store fails"
    STORE_RESTORED = "a participant is restored from a copy seconds old"
    # Operators.
    OPERATOR_HOLDS = "an operator puts a sound log in HOLD"
    OPERATOR_RESOLVES = "an operator asks a coordinator to force a branch"
    OPERATOR_FORCES = "an operator forces a branch at its participant"
    OPERATOR_FORGETS = "an operator forgets a heuristic end"
    OPERATOR_RETRIES = "an operator has a transaction driven again"
    OPERATOR_RECOVERS = "an operator starts a pass of recovery"
    # Clients.
    CLIENT_REPEATS = "a client sends a request_id again while the first may be under way"
    CLIENT_GIVES_UP = "a client stops waiting"
    CLIENT_MEDDLES = "a client changes a transaction whose commit is under way, or over"


class Sight(Enum):
    """What is not drawn but comes about, and must come about over many seeds, or its rule is not tried."""

    WOKE_FENCED = "a stopped coordinator went on after it had been fenced"
    DRAWN_TWICE = "two processes drew one incarnation's number, the log having lost the first one's"
    DECISION_LOST = "a decision that was durable was lost with the log's tail"
    LOST_WAS_APPLIED = "a participant had applied what the log lost"
    LOST_WAS_NOT = "nobody had applied what the log lost, or it was a rollback"
    UNCONFIRMED_LOST = "a decision that was visible and not confirmed was lost by a failover"
    COMMIT_RESTORED = "a lost commit came back from participants"
    HELD = "the log was in HOLD"
    RELEASED = "HOLD was ended by an operator"
    PRUNED = "a decision was dropped after its retention"
    BRANCH_PRUNED = "a participant dropped a branch below the horizon"
    BRANCH_LOST = "a participant lost a branch that it had voted on"
    END_LOST = "a participant lost the end of a branch that it still knows as prepared"
    BEHIND_ALERTED = "a coordinator noticed a participant behind what it had acknowledged"
    FORGOTTEN = "a branch was in doubt for longer than the retention"
    HEURISTIC = "a branch was ended by hand"
    HEURISTIC_FORGOTTEN = "a branch's end by hand was forgotten"
    EMBEDDED = "a transaction committed work done under its xid"
    RESIGNED = "an incarnation ended by its own will"


# Longer than a Prepare is let in, as any must be, and shorter than a sleep.
SHORT_RETENTION_S: Final = 4_000.0
LONG_RETENTION_S: Final = 7 * 86_400.0
SLEEP_S: Final = 7_200.0

Tally = Counter[Fault | Sight]

# For each frame, stream or call: how likely, at the mildest and at the worst.
WEATHER: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.SLOW_FRAME: (0.002, 0.05),
    Fault.DROP: (0.005, 0.15),
    Fault.DUPLICATE: (0.01, 0.3),
    Fault.REORDER: (0.01, 0.3),
    Fault.BREAK: (0.002, 0.03),
    Fault.HALF_OPEN: (0.001, 0.01),
    Fault.CALL_LOST: (0.01, 0.2),
    Fault.REPLY_LOST: (0.01, 0.2),
}
# For each statement or flush.
STORAGE: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.LOG_SLOW: (0.005, 0.1),
    Fault.LOG_FAILED: (0.005, 0.1),
    Fault.LOG_ANSWER_LOST: (0.005, 0.1),
    Fault.LOG_LATE: (0.005, 0.1),
    Fault.STORE_SLOW: (0.005, 0.1),
    Fault.STORE_FAILED: (0.005, 0.1),
    Fault.CRASH_IN_FLUSH: (0.002, 0.02),
}
# For each second of the run.
EVENTS: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.CUT_ONE_WAY: (0.05, 0.3),
    Fault.CUT_BOTH_WAYS: (0.05, 0.3),
    Fault.CRASH_COORDINATOR: (0.05, 0.4),
    Fault.CRASH_PARTICIPANT: (0.05, 0.4),
    Fault.CRASH_AT_STEP: (0.1, 0.6),
    Fault.PAUSE_COORDINATOR: (0.05, 0.3),
    Fault.PAUSE_PARTICIPANT: (0.05, 0.3),
    Fault.STOP_COORDINATOR: (0.02, 0.1),
    Fault.SLEEP: (0.01, 0.06),
    Fault.LOG_OUTAGE: (0.02, 0.1),
    Fault.LOG_RECONNECT: (0.02, 0.2),
    Fault.LOG_CLOCK: (0.02, 0.1),
    Fault.LOG_FAILOVER: (0.03, 0.15),
    Fault.LOG_PROMOTED: (0.02, 0.06),
    Fault.LOG_RESTORED: (0.02, 0.06),
    Fault.LOG_RESTORED_HELD: (0.02, 0.06),
    Fault.STORE_RESTORED: (0.02, 0.1),
    Fault.OPERATOR_HOLDS: (0.01, 0.05),
    Fault.OPERATOR_RESOLVES: (0.1, 0.5),
    Fault.OPERATOR_FORCES: (0.05, 0.3),
    Fault.OPERATOR_FORGETS: (0.1, 0.5),
    Fault.OPERATOR_RETRIES: (0.1, 0.5),
    Fault.OPERATOR_RECOVERS: (0.1, 0.5),
}
# Of these a seed draws at most one: the promises are about one database that loses its tail, not about two.
LOSSES: Final = (Fault.LOG_PROMOTED, Fault.LOG_RESTORED, Fault.LOG_RESTORED_HELD, Fault.STORE_RESTORED)
# For each intent of a client.
CLIENTS: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.CLIENT_REPEATS: (0.05, 0.5),
    Fault.CLIENT_GIVES_UP: (0.05, 0.5),
    Fault.CLIENT_MEDDLES: (0.2, 1.0),
}


@dataclass(frozen=True, slots=True)
class Mix:
    """One seed's options: how large the world is, and how likely each kind of fault."""

    seed: int
    chances: Mapping[Fault, float]
    coordinators: int
    participants: int
    clients: int
    transactions: int
    shuffled: bool
    step_max_s: float
    flush_s: float
    batch_size: int
    retention_s: float = LONG_RETENTION_S
    # Hosts, and the step of their first process at which each is killed.
    kills: tuple[tuple[str, int], ...] = ()

    def without(self, fault: Fault) -> Mix:
        """The same mix, but for one kind of fault."""
        return replace(self, chances={kind: chance for kind, chance in self.chances.items() if kind is not fault})

    def smaller(self) -> Iterator[Mix]:
        """Mixes with less of everything else: transactions, clients, participants, coordinators."""
        for name, least in (("transactions", 5), ("clients", 1), ("coordinators", 1), ("participants", 2)):
            now: int = getattr(self, name)
            for less in (least, (now + least) // 2, now - 1):
                if least <= less < now:
                    yield replace(self, **{name: less})

    def chance(self, fault: Fault) -> float:
        """How likely the fault is; its table above says for each what. 0 for a fault that is not in the mix."""
        return self.chances.get(fault, 0.0)

    def describe(self) -> str:
        """All options in one line."""
        faults = ", ".join(f"{fault.name} {chance:.3g}" for fault, chance in self.chances.items()) or "none"
        order = "shuffled" if self.shuffled else "in order"
        return (
            f"seed {self.seed}: {self.coordinators} coordinators, {self.participants} participants, "
            f"{self.clients} clients, {self.transactions} transactions, batches of {self.batch_size}, "
            f"{order}, {self.flush_s * 1000:g} ms flushes, {self.retention_s:g} s of retention; faults: {faults}"
            + "".join(f"; {host} killed at step {step}" for host, step in self.kills)
        )


def plain(*, kills: tuple[tuple[str, int], ...] = ()) -> Mix:
    """A small world without chance: a few transactions one after the other, and the kills asked for."""
    return Mix(
        seed=0,
        chances={},
        coordinators=2,
        participants=3,
        clients=1,
        transactions=4,
        shuffled=False,
        step_max_s=0.0,
        flush_s=0.01,
        batch_size=512,
        kills=kills,
    )


def draw(seed: int) -> Mix:
    """Draw a seed's mix: each kind of fault is in or out, mild or bad, so that no seed hides behind another's noise."""
    rng = Random(f"{seed}:mix")
    share = rng.choice((0.15, 0.35, 0.6))
    chances: dict[Fault, float] = {}
    for fault, (mild, bad) in {**WEATHER, **STORAGE, **EVENTS, **CLIENTS, Fault.CLOCK_SKEW: (0.2, 1.0)}.items():
        chance = mild * (bad / mild) ** rng.random()
        if rng.random() < share:
            chances[fault] = chance
    kept = rng.choice(LOSSES)
    for fault in LOSSES:
        if fault is not kept:
            chances.pop(fault, None)
    return Mix(
        seed,
        chances,
        coordinators=rng.choice((1, 2, 2, 3)),
        participants=rng.choice((2, 3, 4)),
        clients=rng.choice((4, 8, 16)),
        transactions=rng.choice((55, 65, 80)),
        shuffled=rng.random() < 0.5,
        step_max_s=rng.choice((0.0, 0.000_02, 0.000_2)),
        flush_s=rng.choice((0.000_2, 0.002, 0.01, 0.01)),
        batch_size=rng.choice((1, 3, 512)),
        retention_s=rng.choice((LONG_RETENTION_S, SHORT_RETENTION_S, SHORT_RETENTION_S)),
    )
