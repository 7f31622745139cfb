"""All machines of one run: coordinators over one log's store, participants, and the statements on their way.

A ``Cluster`` makes single moves and judges each; who chooses the moves, and what becomes of the
messages that a move posts, is the business of ``runs`` (a seed) and ``exploration`` (all of them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from coordinator.log.decision_log import AppendStatus
from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, Heuristic, Vote
from tests.simulation.machines.coordinator import CoordinatorMachine, Statement, Timer
from tests.simulation.machines.copying import copy_coordinator, copy_tables
from tests.simulation.machines.messages import Acknowledged, Message, Voted
from tests.simulation.machines.oracle import Oracle, broken, left
from tests.simulation.machines.participant import ParticipantMachine

LOG_ID: Final = "5eed5eed5eed5eed"
LEASE_S: Final = 3.0
UNIX_MS: Final = 1_000


class StillClock:
    """The log's clock. It stands: leases expire when a move says so."""

    def monotonic_s(self) -> float:
        """No time at all."""
        return 0.0

    def unix_ms(self) -> int:
        """The one moment there is."""
        return UNIX_MS


class Cluster:
    """The state of everything. ``coordinators`` holds those that live, by incarnation."""

    __slots__ = (
        "_borrowed",
        "_borrows_oracle",
        "_borrows_tables",
        "coordinators",
        "oracle",
        "participants",
        "posted",
        "statements",
        "store",
    )

    def __init__(self, participants: Sequence[str]) -> None:
        self.store = MemoryLogStore(StillClock(), LOG_ID)
        self.coordinators: dict[int, CoordinatorMachine] = {}
        self.participants = {name: ParticipantMachine(name) for name in participants}
        self.statements: list[Statement] = []
        self.oracle = Oracle()
        # What the last moves sent, for whoever makes the moves to carry.
        self.posted: list[Message] = []
        # Machines that a copy shares with its original, by number or name, until the first of its moves on each.
        self._borrowed: set[int | str] = set()
        self._borrows_tables = False
        self._borrows_oracle = False

    def copy(self) -> Cluster:
        """An equal cluster that moves by itself; this one must not move any more. Nothing may be posted."""
        other = object.__new__(Cluster)
        other.store = self.store
        other.coordinators = dict(self.coordinators)
        other.participants = dict(self.participants)
        other.statements = list(self.statements)
        other.oracle = self.oracle
        other.posted = []
        other._borrowed = {*self.coordinators, *self.participants}
        other._borrows_tables = other._borrows_oracle = True
        return other

    def coordinator(self, number: int) -> CoordinatorMachine:
        """A living coordinator, to be moved."""
        if number in self._borrowed:
            self._borrowed.discard(number)
            self.coordinators[number] = copy_coordinator(self.coordinators[number])
        return self.coordinators[number]

    def participant(self, name: str) -> ParticipantMachine:
        """A participant, to be moved."""
        if name in self._borrowed:
            self._borrowed.discard(name)
            self.participants[name] = self.participants[name].copy()
        return self.participants[name]

    def _own_store(self) -> MemoryLogStore:
        """The log, to be written."""
        if self._borrows_tables:
            self._borrows_tables = False
            tables = copy_tables(self.store.tables)
            self.store = MemoryLogStore(StillClock(), LOG_ID)
            self.store.tables = tables
        return self.store

    def _own_oracle(self) -> Oracle:
        if self._borrows_oracle:
            self._borrows_oracle = False
            self.oracle = self.oracle.copy()
        return self.oracle

    # -- Coordinators

    def open(self) -> CoordinatorMachine:
        """Let one more coordinator draw its incarnation."""
        incarnation = self._own_store().open("c", "c", LEASE_S)
        machine = self.coordinators[incarnation.number] = CoordinatorMachine(incarnation)
        return machine

    def crash(self, number: int) -> None:
        """Kill a coordinator with -9: all that it knew is gone; its statements are on their way all the same."""
        del self.coordinators[number]

    def begin(self, number: int, participants: Sequence[str], request: str = "") -> Xid:
        """Let a client execute a transaction at a coordinator."""
        machine = self.coordinator(number)
        transaction = machine.begin(participants, request)
        self._own_oracle().enlisted[transaction.xid] = tuple(participants)
        self._collect(machine)
        return transaction.xid

    def close(self, number: int, request: str) -> None:
        """Let a client give up a request at a coordinator."""
        machine = self.coordinator(number)
        machine.close(request)
        self._collect(machine)

    def fence(self, number: int, victim: int) -> None:
        """Let a victim's lease expire, and one coordinator fence it and redo what it decided (R6)."""
        machine, rows = self.coordinator(number), self._own_store().tables.incarnations
        for row in rows.values():
            row.lease_until_ms = UNIX_MS - 1 if row.number == victim else UNIX_MS + 1
        for adopted in self._own_store().fence_expired(machine.incarnation, resigned_only=False):
            machine.adopt(adopted, self.store.unfinished(adopted))
        self._wrote()
        self._collect(machine)

    def renew(self, number: int) -> None:
        """Let a coordinator renew its lease: one that was fenced stops at once (R4); others fence and adopt."""
        machine = self.coordinator(number)
        appended = self._own_store().append(machine.incarnation, machine.sequence, (), 0)
        if appended.status is AppendStatus.FENCED:
            self.crash(number)
            return
        for adopted in self._own_store().fence_expired(machine.incarnation, resigned_only=False):
            machine.adopt(adopted, self.store.unfinished(adopted))
        self._collect(machine)

    def checkpoint(self, number: int) -> None:
        """Let a coordinator tell the log what is finished."""
        for checkpoint in self.coordinator(number).checkpoints():
            self._own_store().checkpoint(checkpoint)

    # -- Statements

    def write(self, number: int) -> bool:
        """Let a coordinator send its next append; False where it has none to send."""
        if self.coordinators[number].awaited is not None or not self.coordinators[number].queue:
            return False
        statement = self.coordinator(number).write()
        if statement is not None:
            self.statements.append(statement)
        return statement is not None

    def serve(self, at: int, *, answered: bool) -> None:
        """Let the log do a statement; its answer arrives, or is lost."""
        statement = self.statements.pop(at)
        appended = self._own_store().append(statement.owner, statement.expected, statement.records, 0)
        alive = statement.owner.number in self.coordinators
        machine = self.coordinator(statement.owner.number) if alive else None
        self._wrote()
        if not answered or machine is None or machine.awaited != statement:
            return
        machine.took(appended, self.store.read([record.xid for record in statement.records]).decisions)
        self._collect(machine)
        if machine.is_over:
            self.crash(statement.owner.number)
        elif appended.status is AppendStatus.HELD:
            self.statements.append(statement)

    def lose_answer(self, number: int) -> None:
        """Let a coordinator lose its connection while it waits for an append: it writes the same again."""
        statement = self.coordinator(number).lose_answer()
        if statement is not None:
            self.statements.append(statement)

    def look_up(self, number: int, xid: Xid) -> None:
        """Let the log tell what a transaction's request is bound to."""
        machine = self.coordinator(number)
        request = machine.transactions[xid].request
        stored = self.store.read_requests([request]).get(request) if request else None
        machine.look_up(xid, stored)
        self._collect(machine)

    def resolve(self, number: int, at: int) -> None:
        """Let a coordinator see what stands in the way of one of its records."""
        machine = self.coordinator(number)
        record = machine.conflicts[at]
        bound = self.store.read_requests([record.request]).get(record.request) if record.request else None
        machine.resolve(record, bound, self.store.read([record.xid]).decisions.get(record.xid))
        self._collect(machine)

    def keep_heuristics(self, number: int) -> None:
        """Let the log keep the heuristic ends that a coordinator has."""
        machine = self.coordinator(number)
        kept = machine.kept_heuristics()
        self._own_store().record_heuristics(kept)
        machine.heuristics_recorded(kept)
        self._collect(machine)

    # -- Messages

    def deliver(self, message: Message, vote: Vote) -> None:
        """Let a message arrive; a coordinator's that is gone is lost. A participant's answers wait for ``flush``."""
        if isinstance(message, Voted | Acknowledged):
            if message.receiver in self.coordinators:
                machine = self.coordinator(message.receiver)
                machine.take(message)
                self._collect(machine)
        else:
            self.participant(message.participant).take(message, vote)

    def flush(self, name: str) -> None:
        """Let a participant's disk catch up."""
        if self.participants[name].pending:
            for answer in self.participant(name).flush():
                self._post(answer)

    def ask(self, name: str, xid: Xid, number: int) -> None:
        """Let a participant in doubt ask a coordinator."""
        self._post(self.coordinators[number].decide(name, xid, self.store.read([xid])))

    def force(self, name: str, xid: Xid, outcome: Decision) -> None:
        """Let an operator force a branch in doubt at its participant (R12)."""
        heuristic = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
        self._own_oracle().by_hand.setdefault((name, xid), heuristic)
        self.participant(name).resolve(xid, outcome)

    # -- Moves of a coordinator's own

    def ring(self, number: int, xid: Xid, timer: Timer) -> None:
        """Let one of a transaction's timers ring."""
        machine = self.coordinator(number)
        machine.ring(xid, timer)
        self._collect(machine)

    def lose_session(self, number: int, name: str, xid: Xid) -> None:
        """Let a link lose its session while a Prepare is outstanding on it."""
        machine = self.coordinator(number)
        machine.lose_session(name, xid)
        self._collect(machine)

    def reach(self, number: int, name: str) -> None:
        """Let a link come up again."""
        machine = self.coordinator(number)
        machine.reach(name)
        self._collect(machine)

    def roll_back(self, number: int, xid: Xid) -> None:
        """Let a client change its mind."""
        machine = self.coordinator(number)
        machine.roll_back(xid)
        self._collect(machine)

    # -- Judgement

    def broken(self) -> Iterator[str]:
        """What is wrong now."""
        for machine in self.coordinators.values():
            yield from machine.wrongs
        yield from broken(self.oracle, self.store, self.participants)

    def left(self) -> Iterator[str]:
        """What is wrong at rest."""
        for machine in self.coordinators.values():
            yield from machine.wrongs
            if machine.unfinished:
                yield f"invariant 8: incarnation {machine.incarnation.number} has not finished"
        yield from left(self.oracle, self.store, self.participants)

    def _collect(self, machine: CoordinatorMachine) -> None:
        for told in machine.told:
            self._own_oracle().heard(told, self.store)
        machine.told.clear()
        for message in machine.sent:
            self._post(message)
        machine.sent.clear()

    def _post(self, message: Message) -> None:
        self._own_oracle().sent(message, self.store, self.participants)
        self.posted.append(message)

    def _wrote(self) -> None:
        self._own_oracle().wrote(self.store, self.participants)
