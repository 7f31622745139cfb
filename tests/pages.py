"""The pages of docs/ as tests use them: their fenced blocks, as they are written."""

from __future__ import annotations

import re
from typing import Final

from tests.development import ROOT

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks in this language, in order; AssertionError where there is none."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = [body for written, body in _FENCE.findall(text) if written == language]
    assert found, f"{page} has no block of {language}"
    return found
