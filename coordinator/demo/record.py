"""What clients asked for and what they were told, on disk: one JSON object a line, in a file that only grows.

An intent is on disk before it is first sent, and an answer before its client acts on it, as with a client that may
crash itself. At the end of the day the file, not anybody's memory, is compared with the databases.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from participant_sdk.batching import Batcher

ASKED: Final = "asked"
TOLD: Final = "told"
NOTICED: Final = "noticed"


class _Line(NamedTuple):
    """A line on its way to the disk, and who waits for it."""

    text: str
    kept: asyncio.Future[None]


@dataclass(slots=True)
class Intent:
    """One request as its client knows it: what for, what exactly, and every answer that it ever got."""

    request_id: str
    what: str
    asked: dict[str, Any]  # JSON has no other type.
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def state(self) -> str:
        """How it ended, as it was told last; empty where nobody said."""
        return str(self.told[-1]["state"]) if self.told else ""


class Notice(NamedTuple):
    """What a webhook was told: under which id, what, and whether it was signed as it must be."""

    notice_id: str
    body: str
    is_signed: bool


class Record:
    """Writes the file. ``run`` must run for anything to be kept; lines that queue share a flush."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")
        self._lines = Batcher[_Line](self._write)

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            await self._lines.run()
        finally:
            self._file.close()

    async def asked(self, request_id: str, what: str, asked: Mapping[str, object]) -> None:
        """Return once the intent is on disk."""
        await self._keep({"line": ASKED, "request_id": request_id, "what": what, "asked": asked})

    async def told(self, request_id: str, state: str, **more: object) -> None:
        """Return once the answer is on disk."""
        await self._keep({"line": TOLD, "request_id": request_id, "state": state, **more})

    async def noticed(self, notice_id: str, body: str, *, is_signed: bool) -> None:
        """Return once what a webhook was told is on disk."""
        await self._keep({"line": NOTICED, "notice_id": notice_id, "body": body, "is_signed": is_signed})

    async def _keep(self, line: Mapping[str, object]) -> None:
        kept = asyncio.get_running_loop().create_future()
        self._lines.put(_Line(json.dumps(line, default=str), kept))
        await kept

    async def _write(self, lines: list[_Line]) -> None:
        await asyncio.to_thread(self._flush, "".join(f"{line.text}\n" for line in lines))
        for line in lines:
            if not line.kept.done():
                line.kept.set_result(None)

    def _flush(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fdatasync(self._file.fileno())


def intents(path: Path) -> dict[str, Intent]:
    """All intents of a file, by request_id, in the order in which they were first asked for."""
    found: dict[str, Intent] = {}
    for line in _lines(path):
        if line["line"] == ASKED:
            found.setdefault(line["request_id"], Intent(line["request_id"], line["what"], line["asked"]))
        elif line["line"] == TOLD:
            found[line["request_id"]].told.append(line)
    return found


def notices(path: Path) -> list[Notice]:
    """Everything that the webhook of a file was told, as it came."""
    lines = (line for line in _lines(path) if line["line"] == NOTICED)
    return [Notice(line["notice_id"], line["body"], line["is_signed"]) for line in lines]


def _lines(path: Path) -> Iterator[dict[str, Any]]:  # JSON has no other type.
    with path.open(encoding="utf-8") as file:
        for text in file:
            yield json.loads(text)
