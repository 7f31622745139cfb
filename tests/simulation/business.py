"""What simulated clients want: transfers between participants, some of which the business refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Final

from participant_sdk.participant import Operation
from participant_sdk.resources.memory_store import Posting

ACCOUNTS: Final = tuple(f"a{number}" for number in range(6))
OPENING: Final = Decimal(500)


def opening() -> dict[str, Decimal]:
    """Each participant's accounts as a run begins."""
    return dict.fromkeys(ACCOUNTS, OPENING)


def draw_operations(rng: Random, participants: Sequence[str]) -> tuple[Operation, ...]:
    """Draw one transaction's work: what one participant loses another gains."""
    chosen = rng.sample(list(participants), k=min(len(participants), rng.choice((2, 2, 2, 3))))
    amount = str(rng.choice((1, 7, 30, 120, 10_000)))
    operations = [
        _operation(chosen[0], "debit", account=rng.choice(ACCOUNTS), amount=amount),
        _operation(chosen[1], "credit", account=rng.choice(ACCOUNTS), amount=amount),
    ]
    if len(chosen) > 2:
        operations.append(_operation(chosen[2], "read", account=rng.choice(ACCOUNTS)))
    if rng.random() < 0.05:
        operations.append(_operation(chosen[1], "fail"))
    return tuple(operations)


def read_of(operation: Operation) -> Operation:
    """An operation at the same service that changes nothing."""
    return _operation(operation.service, "read", account=ACCOUNTS[0])


def postings_of(operations: Sequence[Operation]) -> dict[str, list[Posting]]:
    """What these operations post at each participant once they commit."""
    postings: dict[str, list[Posting]] = {}
    for operation in operations:
        parameters = json.loads(operation.parameters)
        sign = {"debit": -1, "credit": 1}.get(operation.name)
        if sign is not None:
            posting = Posting(parameters["account"], sign * Decimal(parameters["amount"]))
            postings.setdefault(operation.service, []).append(posting)
    return postings


def _operation(service: str, name: str, **parameters: str) -> Operation:
    return Operation(service, name, json.dumps(parameters))
