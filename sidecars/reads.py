"""Operations that only ask. A branch that asks does nothing else.

What it is told holds for the moment of the vote, which is READ_ONLY (R13). Beside work, nobody could say whether
the answer is from before it or after it, nor would it hold until the Commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from participant_sdk.parameters import RefusedError
from participant_sdk.participant import Operation
from participant_sdk.xa import invalid

READS_ALONE: Final = "READS_ALONE"


def check_reads_alone(operations: Sequence[Operation], reads: Collection[str]) -> None:
    """RefusedError, naming the first operation that asks, where others beside it do something."""
    asking = [index for index, operation in enumerate(operations) if operation.name in reads]
    if asking and len(asking) < len(operations):
        field = f"operations[{asking[0]}].operation"
        message = f"{field}: {operations[asking[0]].name} only reads; ask in a transaction that does nothing else here"
        raise RefusedError(invalid(READS_ALONE, message, field))
