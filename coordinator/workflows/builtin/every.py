"""The built-in workflows, together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.workflows.builtin.crypto_withdrawal import crypto_withdrawal
from coordinator.workflows.builtin.fiat_deposit import fiat_deposit
from coordinator.workflows.builtin.trade_execution import trade_execution
from coordinator.workflows.definitions import Definition

BUILT_IN: Final[tuple[Definition, ...]] = (crypto_withdrawal, fiat_deposit, trade_execution)


def definitions() -> Mapping[str, Definition]:
    """All of them, by kind."""
    return {definition.kind: definition for definition in BUILT_IN}
