"""Operations that only ask. A branch that asks does nothing else.

What it is told holds for the moment of the vote, which is READ_ONLY (R13). Beside work, nobody could say whether
the answer is from before it or after it, nor would it hold until the Commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from participant_sdk.parameters import RefusedError
from participant_sdk.xa import invalid

READS_ALONE: Final = "READS_ALONE"


def check_reads_alone(are_reads: Sequence[bool]) -> None:
    """RefusedError, naming the first operation that only asks, where others beside it do something."""
    if any(are_reads) and not all(are_reads):
        field = f"operations[{are_reads.index(True)}].operation"
        message = f"{field}: it only reads; ask in a transaction that does nothing else here"
        raise RefusedError(invalid(READS_ALONE, message, field))
