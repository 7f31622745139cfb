"""The simulated chain, and a wallet whose payments go to it, as tests have them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.crash.nursery import Forked, fork
from tests.integration.companies import Company, playing, until
from tests.integration.participations import Participation, participating

OUT = "bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9"
OTHER_OUT = "2MxFajLApXpYk4VodBSZSt7rw8y4ryABkfA"


async def rpc(chain: Company, method: str, *params: object, expect: int = 200) -> Any:
    """Call the node as anybody may, and return the result, or the error where that is expected."""
    call = {"jsonrpc": "1.0", "id": "test", "method": method, "params": params}
    reply = await chain.ask("POST", "/", call, expect=(expect,))
    return reply["result"] if expect == 200 else reply["error"]


async def mine(chain: Company, blocks: int = 1) -> None:
    """Blocks, now; the first takes what waits."""
    await rpc(chain, "generatetoaddress", blocks, OUT)


async def fill(chain: Company, amount: str, address: str | None = None) -> dict[str, Any]:
    """Money from outside, in a block."""
    paid = await chain.ask("POST", "/development/deposits", {"amount": amount, "address": address})
    await mine(chain)
    return paid


@asynccontextmanager
async def chain_by_hand(folder: Path) -> AsyncGenerator[Company]:
    """A chain where blocks come only when they are asked for."""
    async with playing("chain", folder) as chain:
        await chain.ask("PUT", "/development/mining", {"block_interval_s": 0})
        yield chain


class World:
    """A chain, the wallet's process beside it, and the wallet's operations on the same database. Mutable."""

    def __init__(self, chain: Company, wallet: Participation, dsn: str, log: Path) -> None:
        self.chain = chain
        self.wallet = wallet
        self._dsn = dsn
        self._log = log
        self._process: Forked | None = None

    async def start(self, **environment: str) -> None:
        """Start the wallet's process, and wait until it is bound to the chain's network."""
        command = ("sidecars.main", "wallet", "--dsn", self._dsn, "--listen", "127.0.0.1:0")
        settings = {"PINCEX_WALLET_CHAIN_URL": self.chain.url, "PINCEX_WALLET_CHAIN_INTERVAL_S": "0.05", **environment}
        self._log.write_bytes(b"")
        self._process = fork(command, self._log, settings)
        await until(self._is_bound)

    async def kill(self) -> list[dict[str, Any]]:
        """kill -9; what it had logged."""
        assert self._process is not None
        self._process.kill()
        await self._process.ended()
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]

    async def _is_bound(self) -> bool:
        return await self.wallet.rows("select network from wallet.settings where bound_at is not null") == [(8,)]

    async def deposit(self, amount: str) -> None:
        """Money for the hot wallet, on the chain and in the books."""
        paid = await fill(self.chain, amount)
        parameters = {"user_id": "house", "currency": "BTC", **paid}
        await self.wallet.do(("record_deposit", json.dumps(parameters)))

    async def queue(self, withdrawal_id: str, amount: str = "1", address: str = OUT, **more: str) -> None:
        """A withdrawal, reserved and broadcast by two committed transactions."""
        parameters = {"withdrawal_id": withdrawal_id, "user_id": withdrawal_id, "currency": "BTC"}
        asked = {**parameters, "amount": amount, "address": address, **more}
        await self.wallet.do(("reserve_withdrawal", json.dumps(asked)))
        await self.wallet.do(("broadcast_withdrawal", json.dumps({"withdrawal_id": withdrawal_id})))

    async def complete(self, withdrawal_id: str) -> None:
        """Wait until the chain has confirmed a withdrawal, and finish it in the books."""
        await self.until_status(withdrawal_id, "CONFIRMED")
        await self.wallet.do(("confirm_withdrawal", json.dumps({"withdrawal_id": withdrawal_id})))

    async def status(self, withdrawal_id: str) -> dict[str, Any]:
        """What ``withdrawal_status`` tells."""
        vote = await self.wallet.vote(("withdrawal_status", json.dumps({"withdrawal_id": withdrawal_id})))
        return json.loads(vote.results[0])

    async def until_status(self, withdrawal_id: str, *wanted: str) -> dict[str, Any]:
        """Wait until it is one of these."""

        async def is_there() -> bool:
            return (await self.status(withdrawal_id))["status"] in wanted

        await until(is_there)
        return await self.status(withdrawal_id)

    async def until_problem(self, withdrawal_id: str, part: str) -> dict[str, Any]:
        """Wait until it is held up by a problem that says this."""

        async def is_there() -> bool:
            return part in ((await self.status(withdrawal_id))["problem"] or "")

        await until(is_there)
        return await self.status(withdrawal_id)

    async def paid(self) -> list[tuple[str, str]]:
        """What the chain has paid to others: address and amount, sorted."""
        payments = (await self.chain.ask("GET", "/development/payments"))["payments"]
        return sorted((each["address"], each["amount"]) for each in payments)

    async def books_agree(self) -> bool:
        """Whether the hot wallet has, by our books, what the chain says, and nothing is reserved."""
        held = (await self.chain.ask("GET", "/development/totals"))["held"]
        rows = await self.wallet.rows(
            "select balance = %s::numeric and reserved = 0 from wallet.hot_wallets where currency = 'BTC'", held
        )
        return bool(rows[0][0])


@asynccontextmanager
async def world(folder: Path, dsn: str) -> AsyncGenerator[World]:
    """A world with 100 BTC; at its end the wallet and the chain are sound, each by its own invariants."""
    async with chain_by_hand(folder) as chain, participating(dsn, "wallet") as wallet:
        made = World(chain, wallet, dsn, folder / "wallet.log")
        await made.start()
        try:
            await made.deposit("100")
            yield made
            assert await wallet.violations() == []
        finally:
            await made.kill()
