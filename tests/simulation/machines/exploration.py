"""Every interleaving of a small case, breadth first, up to a depth or until nothing new can happen.

The network is the set of all that was ever sent, and any of it may arrive at any time, any number of
times, in any order. So a lost message is one that does not arrive in that interleaving, and a
duplicate one that arrives twice; neither needs a move of its own. A participant's crash before its
flush is a message that has not arrived, and after it loses nothing: take and flush are one move
here. Statements of the log may take effect at any time too, also after their sender is gone.

States are compared by a 64-bit hash of all that decides what can happen next: of a million states two
different ones would share it with a probability of about 3 in 100 million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Final, NamedTuple

from coordinator.protocol.phases import Phase
from participant_sdk.xa import PREPARED, DecisionState, Vote
from tests.simulation.machines.cluster import Cluster
from tests.simulation.machines.copying import coordinator_key, statements_key, tables_key
from tests.simulation.machines.messages import Acknowledged, Answered, Message, Prepare, Voted
from tests.simulation.machines.settling import settle

# Of how many new states one is healed and must come to rest (invariants 4 and 8).
SETTLE_EVERY: Final = 50
VIOLATIONS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A small world: its first state, and what may happen in it beside the network's and the log's moves."""

    name: str
    begin: Callable[[Cluster], None]
    participants: tuple[str, ...]
    votes: tuple[Vote, ...] = (PREPARED,)
    incarnations: int = 2
    crashes: bool = True
    # What a client does once, at any moment, as moves on a copy.
    whims: tuple[Callable[[Cluster], object], ...] = ()


Move = Callable[[Cluster], object]


class Step(NamedTuple):
    """One move, with its name for a reader."""

    name: str
    move: Move


@dataclass(slots=True)
class State:
    """A cluster, what was ever sent, which whims are left, and how it came about."""

    cluster: Cluster
    sent: dict[Message, None]
    whims: tuple[int, ...]
    path: tuple[str, ...] = ()

    def key(self) -> int:
        """The hash by which the state is known."""
        cluster = self.cluster
        return hash(
            (
                frozenset(self.sent),
                self.whims,
                tuple([coordinator_key(machine) for machine in cluster.coordinators.values()]),
                tuple([machine.key() for machine in cluster.participants.values()]),
                statements_key(cluster.statements),
                tables_key(cluster.store.tables),
                cluster.oracle.key(),
            )
        )


@dataclass(slots=True)
class Explored:
    """What an exploration saw."""

    case: str
    states: int = 0
    moves: int = 0
    depth: int = 0
    settled: int = 0
    is_complete: bool = False
    phases: dict[str, int] = field(default_factory=dict[str, int])
    violations: list[tuple[str, tuple[str, ...]]] = field(default_factory=list[tuple[str, tuple[str, ...]]])


def explore(case: Case, depth: int, states_max: int, progress: Callable[[Explored], None]) -> Explored:
    """Visit every state of a case that is reached within ``depth`` moves, or the first ``states_max``."""
    seen = Explored(case.name)
    first = _first(case)
    known = {first.key()}
    frontier = [first]
    while frontier and seen.depth < depth and not seen.violations:
        following: list[State] = []
        for state in frontier:
            for new in _successors(case, state, seen):
                key = new.key()
                if key in known:
                    continue
                known.add(key)
                seen.states = len(known)
                _judge(new, seen)
                following.append(new)
                if len(known) >= states_max:
                    return seen
        seen.depth += 1
        frontier = following
        progress(seen)
    seen.is_complete = not frontier and not seen.violations
    return seen


def _first(case: Case) -> State:
    cluster = Cluster(case.participants)
    cluster.open()
    case.begin(cluster)
    state = State(cluster, {}, tuple(range(len(case.whims))))
    _carry(state)
    return state


def _carry(state: State) -> None:
    """Put what was posted into the network; what is for a coordinator that is gone is gone too."""
    cluster = state.cluster
    for message in cluster.posted:
        # PENDING and FORGOTTEN end no doubt.
        if not isinstance(message, Answered) or message.state in (DecisionState.COMMIT, DecisionState.ROLLBACK):
            state.sent[message] = None
    cluster.posted.clear()
    gone = [
        message
        for message in state.sent
        if isinstance(message, Voted | Acknowledged) and message.receiver not in cluster.coordinators
    ]
    for message in gone:
        del state.sent[message]


def _successors(case: Case, state: State, seen: Explored) -> Iterator[State]:
    for step in _steps(case, state):
        new = State(state.cluster.copy(), dict(state.sent), state.whims, (*state.path, step.name))
        step.move(new.cluster)
        for number in list(new.cluster.coordinators):
            new.cluster.write(number)
        for name in new.cluster.participants:
            new.cluster.flush(name)
        if step.name.startswith("whim"):
            at = int(step.name.split()[1])
            new.whims = tuple(one for one in state.whims if one != at)
        _carry(new)
        seen.moves += 1
        yield new


def _judge(state: State, seen: Explored) -> None:
    for machine in state.cluster.coordinators.values():
        for transaction in machine.transactions.values():
            name = transaction.phase.name
            seen.phases[name] = seen.phases.get(name, 0) + 1
    wrong = list(state.cluster.broken())
    if not wrong and seen.states % SETTLE_EVERY == 0:
        seen.settled += 1
        wrong = settle(state.cluster.copy(), state.sent)
    for what in wrong[:1] if len(seen.violations) < VIOLATIONS_MAX else ():
        seen.violations.append((what, state.path))


def _steps(case: Case, state: State) -> Iterator[Step]:
    cluster = state.cluster
    yield from _arrivals(case, state)
    for at, statement in enumerate(cluster.statements):
        number = statement.owner.number
        yield Step(f"log does append of {number}", methodcaller("serve", at, answered=True))
        if number in cluster.coordinators:
            yield Step(f"log does append of {number}, answer lost", methodcaller("serve", at, answered=False))
    for number in cluster.coordinators:
        yield from _log_of(cluster, number)
        yield from _of_coordinator(case, cluster, number)
    for name, participant in cluster.participants.items():
        for xid in participant.in_doubt():
            for number in cluster.coordinators:
                yield Step(f"{name} asks {number} about {xid.sequence}", methodcaller("ask", name, xid, number))
    if len(cluster.store.tables.incarnations) < case.incarnations:
        yield Step("another coordinator opens", methodcaller("open"))
    for at in state.whims:
        yield Step(f"whim {at}", case.whims[at])


def _arrivals(case: Case, state: State) -> Iterator[Step]:
    for message in state.sent:
        name = f"{type(message).__name__} of {message.xid.sequence} at {message.participant}"
        if isinstance(message, Prepare):
            for vote in case.votes:
                yield Step(f"{name}: {vote.kind.name}", methodcaller("deliver", message, vote))
        else:
            yield Step(name, methodcaller("deliver", message, PREPARED))


def _log_of(cluster: Cluster, number: int) -> Iterator[Step]:
    """What the log may answer a coordinator, beside its appends."""
    machine = cluster.coordinators[number]
    # One copy under way and one more are enough: a third finds what the second found.
    copies = sum(statement.owner.number == number for statement in cluster.statements)
    if machine.awaited is not None and (copies < 1 or (copies < 2 and not machine.uncertain)):
        yield Step(f"{number} loses the log's answer", methodcaller("lose_answer", number))
    for xid in machine.lookups:
        yield Step(f"log looks up for {xid.sequence}", methodcaller("look_up", number, xid))
    for at in range(len(machine.conflicts)):
        yield Step(f"{number} resolves a conflict", methodcaller("resolve", number, at))
    if machine.heuristics:
        yield Step(f"{number} keeps heuristics", methodcaller("keep_heuristics", number))
    for victim, row in cluster.store.tables.incarnations.items():
        if victim != number and row.fenced_by is None:
            yield Step(f"{number} fences {victim}", methodcaller("fence", number, victim))


def _of_coordinator(case: Case, cluster: Cluster, number: int) -> Iterator[Step]:
    machine = cluster.coordinators[number]
    for xid, timer in machine.timers():
        yield Step(f"{timer.name} of {xid.sequence} rings", methodcaller("ring", number, xid, timer))
    for xid, transaction in machine.transactions.items():
        if transaction.phase is Phase.PREPARING:
            for name in transaction.branches.silent:
                lose = methodcaller("lose_session", number, name, xid)
                yield Step(f"{number} loses {name}'s session with {xid.sequence}", lose)
    if case.crashes:
        yield Step(f"{number} crashes", methodcaller("crash", number))
