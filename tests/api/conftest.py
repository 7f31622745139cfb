"""One coordinator's doors for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.doors import Doors, doors


@pytest.fixture
async def open_doors() -> AsyncIterator[Doors]:
    """Both doors, open."""
    async with doors() as opened:
        yield opened
