"""Transactions without any operation: what beginning and committing cost by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Ending
from participant_sdk.load.transfers import Operations


@dataclass(frozen=True, slots=True)
class Empty:
    """Transactions of no operation, no participant and no account.

    ``Execute`` refuses a request without operations, so each is begun and then committed, by two unary
    calls: run it with ``Empty.execute_with``.
    """

    def __iter__(self) -> Iterator[Operations]:
        return repeat(())

    def holders(self) -> Iterator[tuple[str, str]]:
        """No account at all."""
        return iter(())

    @staticmethod
    async def execute_with(client: TransactionClient, _: Operations) -> Ending:
        """Begin a transaction and commit it. ClientError as these two tell it."""
        return await (await client.begin()).commit()
