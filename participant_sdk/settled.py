"""Parts that run side by side to their ends, each with a result or an error of its own.

Why not a plain ``TaskGroup`` whose children raise: see ``conversation``. Its error would make a
cancellation that comes while it ends be forgotten, and whoever lives on by catching errors could
never be stopped.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Value(Generic[Result]):
    """A part's result."""

    value: Result

    def get(self) -> Result:
        """The result."""
        return self.value


@dataclass(frozen=True, slots=True)
class Failure:
    """A part's error."""

    error: Exception

    def get(self) -> Any:
        """Raise the error."""
        raise self.error


async def settled(part: Coroutine[Any, Any, Result]) -> Value[Result] | Failure:
    """Run a part as a child of a group; its error is handed back, to be raised after the group's end."""
    try:
        return Value(await part)
    except Exception as error:  # noqa: BLE001 - raised by ``get``
        return Failure(error)
