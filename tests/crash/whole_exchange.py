"""The whole exchange as processes: a coordinator, the five participants, the bank and the chain; and its books."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx

from sidecars.main import SIDECARS
from tests.conftest import MakeDatabase
from tests.crash.checks import broken_invariants, everything, read, unfinished
from tests.crash.processes import Cluster, cluster
from tests.crash.stories import ETHER_OUT, committed

_users: Final = itertools.count(1)
HOT: Final = "40"
BLOCK_EVERY_S: Final = 0.1


@asynccontextmanager
async def whole_exchange(folder: Path, databases: MakeDatabase, **more: object) -> AsyncGenerator[Cluster]:
    """All of it, with coins in the hot wallet, and a block every tenth of a second."""
    async with cluster(folder, databases, services=tuple(SIDECARS), companies=True, more=more) as up:
        await _fill(up)
        yield up


async def _fill(up: Cluster) -> None:
    """Coins for the hot wallet: bitcoins on the chain and in the books, and ether in the books, which has no node."""
    chain = up.urls["wallet"]
    paid = await up.client.post(f"{chain}/development/deposits", json={"amount": HOT})
    mined = await up.client.put(f"{chain}/development/mining", json={"block_interval_s": BLOCK_EVERY_S})
    for answer in (paid, mined):
        answer.raise_for_status()
    await up.until(lambda: _is_bound(up))
    house = {"user_id": "house", "currency": "BTC"}
    await committed(up, ("wallet", "record_deposit", {**house, **paid.json()}))
    ether = {"amount": HOT, "tx_hash": f"0x{'1' * 64}", "output_index": 0, "address": ETHER_OUT}
    await committed(up, ("wallet", "record_deposit", {**house, "currency": "ETH", **ether}))


async def _is_bound(up: Cluster) -> bool:
    return bool(await read(up.dsns["wallet"], "select network from wallet.settings where bound_at is not null"))


async def are_companies_up(up: Cluster) -> bool:
    """Whether those who play other companies answer."""
    try:
        return all([(await up.client.get(f"{url}/invariants")).is_success for url in up.urls.values()])
    except httpx.TransportError:
        return False


def new_user() -> str:
    """A user whom nobody knows yet."""
    return f"user-{next(_users)}"


async def faults_at_rest(up: Cluster) -> list[str]:
    """What is broken, locked, reserved or unsettled anywhere, once nothing is under way."""
    if found := await unfinished(up, everything()):
        return found
    found = await broken_invariants(up)
    for name, url in up.urls.items():
        told = (await up.client.get(f"{url}/invariants")).json()["violations"]
        found += [f"whom {name} talks to: {each}" for each in told]
    locked = "select user_id, currency, locked::text from bookkeeper.accounts where locked <> 0"
    found += [f"locked: {row}" for row in await read(up.dsns["bookkeeper"], locked)]
    reserved = "select currency, reserved::text from wallet.hot_wallets where reserved <> 0"
    found += [f"reserved: {row}" for row in await read(up.dsns["wallet"], reserved)]
    held = Decimal((await up.client.get(f"{up.urls['wallet']}/development/totals")).json()["held"])
    booked = await read(up.dsns["wallet"], "select balance from wallet.hot_wallets where currency = 'BTC'")
    if Decimal(booked[0][0]) != held:
        found.append(f"the wallet's books say {booked[0][0]} BTC, the chain says {held}")
    return found


async def until_stopped(up: Cluster, within_s: float = 60.0) -> None:
    """Wait until the coordinator stands still, as it was armed to."""

    async def is_stopped() -> bool:
        return is_standing_still(up)

    await up.until(is_stopped, within_s)


def is_standing_still(up: Cluster) -> bool:
    """Whether the coordinator has been stopped, and not ended."""
    process = up.coordinator
    return process.is_running and Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "T"
