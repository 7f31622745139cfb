"""What must be true when every fault has healed and all has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from coordinator.protocol.effects import StoredDecision
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.resources.memory_balances import violations
from participant_sdk.resources.memory_store import MemoryStore, Posting
from participant_sdk.xa import Decision
from tests.simulation.business import postings_of
from tests.simulation.frames import short
from tests.simulation.oracle import Oracle, Told


def in_doubt(oracle: Oracle) -> list[str]:
    """Every branch that is neither committed nor rolled back, as sentences."""
    return [
        f"{name} is in doubt of {short(key.xid)}"
        for name, store in oracle.stores.items()
        for key, stored in store.durable.branches.items()
        if stored.branch.phase in (BranchPhase.PREPARED, BranchPhase.ACTIVE)
    ]


def judge(oracle: Oracle) -> None:
    """Check all that holds only at rest (invariants 1, 4 to 8, 10 and 11)."""
    oracle.check_log()
    oracle.see_hands()
    for what in _broken(oracle):
        oracle.violated(what)


def _broken(oracle: Oracle) -> Iterator[str]:
    for doubt in in_doubt(oracle):
        yield f"invariant 8: {doubt}"
    for name, store in oracle.stores.items():
        yield from (f"invariants 5 and 6: {name}: {what}" for what in violations(store.durable, store.opening))
        yield from _held(name, store)
    yield from _money(oracle)
    yield from _heuristics(oracle)
    yield from _effects_against_log(oracle)
    yield from _effects_against_told(oracle)
    yield from _requests(oracle)


def _held(name: str, store: MemoryStore) -> Iterator[str]:
    for account, state in store.durable.accounts.items():
        if state.held:
            yield f"invariant 6: {name} still holds {state.held} of {account!r}"


def unreported(oracle: Oracle) -> Iterator[str]:
    """Every branch that was ended by hand, and of which the log does not know (invariant 10)."""
    tables = oracle.tables()
    for name, store in oracle.stores.items():
        for key, stored in store.durable.branches.items():
            if stored.branch.phase is BranchPhase.HEURISTIC and (key.xid, name) not in tables.heuristics:
                yield f"invariant 10: {name} ended {short(key.xid)} by hand, and the log does not know"


def _heuristics(oracle: Oracle) -> Iterator[str]:
    yield from unreported(oracle)
    for name, store in oracle.stores.items():
        for key, stored in store.durable.branches.items():
            if stored.branch.phase is BranchPhase.HEURISTIC and (name, key.xid) not in oracle.losses.asked:
                yield f"invariant 10: {name} ended {short(key.xid)} by hand, and nobody asked for it"
    for xid, name in oracle.tables().heuristics:
        if oracle.knows(name, xid) and oracle.is_promised_at(name, xid):
            yield f"invariant 10: the log keeps a heuristic end of {short(xid)} at {name}, and there is none"


def _money(oracle: Oracle) -> Iterator[str]:
    """Money is conserved, but for transactions of which some participant lost its part, or was forced."""
    before = sum((sum(store.opening.values()) for store in oracle.stores.values()), Decimal(0))
    now = sum((a.balance for store in oracle.stores.values() for a in store.durable.accounts.values()), Decimal(0))
    uneven = sum(
        (
            posting.amount
            for store in oracle.stores.values()
            for effect in store.durable.effects
            if not oracle.losses.is_even(effect.key.xid)
            for posting in effect.postings
        ),
        Decimal(0),
    )
    if before != now - uneven:
        yield f"invariant 6: there was {before}, and there is {now}, of which {uneven} is by hand or loss"


def _effects_of(oracle: Oracle, name: str) -> dict[Xid, tuple[Posting, ...]]:
    return {effect.key.xid: effect.postings for effect in oracle.stores[name].durable.effects}


def _effects_against_log(oracle: Oracle) -> Iterator[str]:
    effects = {name: _effects_of(oracle, name) for name in oracle.stores}
    for name, of_name in effects.items():
        for xid in of_name:
            if oracle.is_promised_at(name, xid) and not _says_commit(oracle, _row_now(oracle, xid), name):
                yield f"invariant 4: {name} applied {short(xid)}, and the log does not say so"
    for xid, stored in {**oracle.losses.decisions, **oracle.decisions()}.items():
        if stored.record.decision is Decision.COMMIT:
            for name in stored.record.prepared:
                if xid not in effects[name] and oracle.is_promised_at(name, xid):
                    yield f"invariant 4: {short(xid)} committed, and {name} has not applied it"


def _row_now(oracle: Oracle, xid: Xid) -> StoredDecision | None:
    """The row as it is, or was when it was pruned: what the log lost must be there again."""
    return oracle.decisions().get(xid) or (oracle.losses.decisions[xid] if xid in oracle.losses.pruned else None)


def _says_commit(oracle: Oracle, stored: StoredDecision | None, name: str) -> bool:
    """Whether the row tells this participant COMMIT; one put back for another's sake need not, where it has pruned."""
    if stored is None or stored.record.decision is not Decision.COMMIT:
        return False
    return name in stored.record.prepared or not oracle.knows(name, stored.record.xid)


def _effects_against_told(oracle: Oracle) -> Iterator[str]:
    for told in oracle.told.values():
        yield from _told_against_effects(oracle, told)


def _told_against_effects(oracle: Oracle, told: Told) -> Iterator[str]:
    wanted = postings_of(told.intent.operations) if told.decision is Decision.COMMIT else {}
    for name, store in oracle.stores.items():
        if not oracle.is_promised_at(name, told.xid):
            continue
        found = next((effect.postings for effect in store.durable.effects if effect.key.xid == told.xid), ())
        if sorted(found) != sorted(wanted.get(name, ())):
            yield f"invariant 4: told {told.decision.name} of {short(told.xid)}, and {name} posted {found}"


def _requests(oracle: Oracle) -> Iterator[str]:
    commits: Counter[str] = Counter()
    for stored in oracle.decisions().values():
        request = stored.record.request
        if request is not None and stored.record.decision is Decision.COMMIT:
            commits[request.name] += 1
    for name, count in commits.items():
        if count > 1:
            yield f"invariant 11: {name} committed {count} times"
    for name, told in oracle.bound.items():
        if name in oracle.losses.requests:
            continue
        if commits[name] != (told.decision is Decision.COMMIT):
            yield f"invariant 11: {name} was told {told.decision.name}, and committed {commits[name]} times"
