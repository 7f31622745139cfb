"""Transfers: money that leaves one participant and reaches others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from participant_sdk.operations import OperationLike

Operations = Sequence[OperationLike]


@dataclass(frozen=True, slots=True)
class Transfers:
    """One unit from an account at one participant to an account at another, both picked uniformly.

    Accounts are of users "0" to ``accounts`` - 1. Both may be at one participant, which then has the one branch.
    """

    debited: str
    credited: str
    accounts: int
    currency: str = "USD"
    seed: int = 0

    def __iter__(self) -> Iterator[Operations]:
        picked = random.Random(self.seed).random  # noqa: S311  Load, not secrets.
        accounts = self.accounts
        end = f'","currency":"{self.currency}","amount":"1"}}'
        while True:
            yield (
                (self.debited, "debit_account", f'{{"user_id":"{int(picked() * accounts)}{end}'),
                (self.credited, "credit_account", f'{{"user_id":"{int(picked() * accounts)}{end}'),
            )

    def holders(self) -> Iterator[tuple[str, str]]:
        """The accounts it uses: participant and user."""
        return holders_of(dict.fromkeys((self.debited, self.credited)), self.accounts)


@dataclass(frozen=True, slots=True)
class SplitTransfers:
    """From an account at the first participant, one unit to an account at each of the others.

    So N participants have N branches, and what the first pays is what the others get. Accounts as for ``Transfers``.
    """

    participants: tuple[str, ...]
    accounts: int
    currency: str = "USD"
    seed: int = 0

    def __iter__(self) -> Iterator[Operations]:
        picked = random.Random(self.seed).random  # noqa: S311  Load, not secrets.
        accounts = self.accounts
        debited, *credited = self.participants
        debit_end = f'","currency":"{self.currency}","amount":"{len(credited)}"}}'
        credit_end = f'","currency":"{self.currency}","amount":"1"}}'
        while True:
            yield (
                (debited, "debit_account", f'{{"user_id":"{int(picked() * accounts)}{debit_end}'),
                *[
                    (name, "credit_account", f'{{"user_id":"{int(picked() * accounts)}{credit_end}')
                    for name in credited
                ],
            )

    def holders(self) -> Iterator[tuple[str, str]]:
        """The accounts it uses: participant and user."""
        return holders_of(self.participants, self.accounts)


def holders_of(participants: Iterable[str], accounts: int) -> Iterator[tuple[str, str]]:
    """Users "0" to ``accounts`` - 1, at each participant."""
    return ((name, str(user)) for name in participants for user in range(accounts))
