"""A pytest plugin: ``pytest_plugins = ["participant_sdk.testing.fixtures"]`` in the top ``conftest.py``.

It wants pytest and pytest-asyncio, and the embedded servers: ``pip install 'pincex-transactions[testing]'``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence

import pytest
import pytest_asyncio

from participant_sdk.suite import TransactionManagerSuite, get_transaction_manager_suite
from participant_sdk.testing.system import System, running_system


@pytest.fixture(scope="session")
def own_participants() -> Sequence[str]:
    """The names of participants that the tests serve themselves; override it to name some."""
    return ()


@pytest.fixture(scope="session")
def transaction_system(own_participants: Sequence[str]) -> Generator[System]:
    """A whole system for the session: PostgreSQL, Redis, the sidecars that ship, and a coordinator."""
    with running_system(participants=own_participants) as system:
        yield system


@pytest_asyncio.fixture
async def suite(transaction_system: System) -> AsyncGenerator[TransactionManagerSuite]:
    """A suite over that system's coordinator, in the test's own event loop."""
    async with get_transaction_manager_suite(addresses=[transaction_system.grpc]) as suite:
        yield suite
