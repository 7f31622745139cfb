"""Balances, holds and claims of the memory resource: how one branch changes them, and what must always be true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Branch, Prepare
from participant_sdk.resources.memory_store import Account, BranchKey, Posting, RequestKey, State, StoredBranch
from participant_sdk.xa import Heuristic


def holds_of(postings: Sequence[Posting]) -> dict[str, Decimal]:
    """What a branch with these postings holds per account: the sum of its debits."""
    holds: dict[str, Decimal] = {}
    for account, amount in postings:
        if amount < 0:
            holds[account] = holds.get(account, Decimal(0)) - amount
    return holds


def with_holds(accounts: Mapping[str, Account], postings: Sequence[Posting]) -> dict[str, Account]:
    """The accounts that change when a branch with these postings is prepared."""
    return {name: _add(accounts[name], held=held) for name, held in holds_of(postings).items()}


def without_holds(accounts: Mapping[str, Account], postings: Sequence[Posting], *, posted: bool) -> dict[str, Account]:
    """The accounts that change when a prepared branch ends: its holds go, and if ``posted``, its postings happen."""
    changed = {name: _add(accounts[name], held=-held) for name, held in holds_of(postings).items()}
    for name, amount in postings if posted else ():
        changed[name] = _add(changed.get(name, accounts[name]), balance=amount)
    return changed


def request_key(branch: Branch | Prepare) -> RequestKey | None:
    """The request that the branch works for, if it names one."""
    return RequestKey(branch.log_id, RequestId(branch.tenant, branch.request_id)) if branch.request_id else None


def claims_of(requests: Mapping[RequestKey, Xid | None], branch: Branch) -> dict[RequestKey, Xid | None]:
    """What of its request a branch claims, or gives back if it was the one to claim it (R3)."""
    request = request_key(branch)
    if request is None:
        return {}
    if branch.phase is BranchPhase.PREPARED or is_committed(branch):
        return {request: branch.xid}
    return {request: None} if requests.get(request) == branch.xid else {}


def is_committed(branch: Branch) -> bool:
    """Whether the branch's effects have happened, by decision or by hand."""
    return branch.phase is BranchPhase.COMMITTED or branch.heuristic is Heuristic.COMMIT


def violations(state: State, opening: Mapping[str, Decimal]) -> Iterator[str]:
    """Yield every way in which the state breaks its invariants, as sentences; none for a sound state.

    Balances are their opening plus the effects; each effect happened once, for a committed branch, and each
    committed branch's happened; what is held is what prepared branches hold, and never more than there is.
    """
    yield from _wrong_effects(state)
    posted: dict[str, Decimal] = dict(opening)
    for effect in state.effects:
        for name, amount in effect.postings:
            posted[name] = posted.get(name, Decimal(0)) + amount
    held: dict[str, Decimal] = {}
    for stored in state.branches.values():
        if stored.branch.phase is BranchPhase.PREPARED:
            for name, amount in holds_of(stored.postings).items():
                held[name] = held.get(name, Decimal(0)) + amount
    for name, account in state.accounts.items():
        if account.balance != posted.get(name):
            yield f"account {name!r} has {account.balance}, its effects make {posted.get(name)}"
        if account.held != held.get(name, Decimal(0)):
            yield f"account {name!r} holds {account.held}, its live branches hold {held.get(name, Decimal(0))}"
        if account.available < 0:
            yield f"account {name!r} has {account.balance} and holds {account.held}"


def _wrong_effects(state: State) -> Iterator[str]:
    happened: dict[BranchKey, int] = {}
    for effect in state.effects:
        happened[effect.key] = happened.get(effect.key, 0) + 1
    for key, times in happened.items():
        if times > 1:
            yield f"the effect of {key.xid} happened {times} times"
        if key not in state.pruned and not is_committed(state.branches[key].branch):
            yield f"the effect of {key.xid} happened, and its branch is {state.branches[key].branch.phase.name}"
    for key, stored in state.branches.items():
        if _owes_effect(stored) and key not in happened:
            yield f"the branch {key.xid} is committed, and its effect did not happen"


def _owes_effect(stored: StoredBranch) -> bool:
    return is_committed(stored.branch) and bool(stored.postings)


def _add(account: Account, *, balance: Decimal = Decimal(0), held: Decimal = Decimal(0)) -> Account:
    return Account(account.balance + balance, account.held + held)
