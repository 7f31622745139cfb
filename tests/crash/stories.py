"""What users want of the built-in workflows, each to one of its ends, and what is left then, to the last unit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from tests.crash.checks import read
from tests.crash.processes import Cluster
from tests.crash.workflow_calls import Json

Parameters = Mapping[str, str]
OUT: Final = "bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9"
ETHER_OUT: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
IBAN: Final = "DE89370400440532013000"
_HALT: Final = "update trading.symbols set status = %s where symbol = 'ETH/USD' returning symbol"
_LIMIT: Final = "update fiat.limits set deposit_max = %s::numeric where currency = 'EUR' returning currency"
_NO_LIMIT: Final = "500000"


@dataclass(frozen=True, slots=True)
class Story:
    """One workflow of one user.

    ``arrange`` makes the user and what he needs, and returns the parameters; ``judge`` asserts what is left. Where
    there is a ``turn``, it is to come about once ``turn_after`` steps have settled: what makes a later step say no.
    Until then a story is like another one that goes further, and nobody need be killed twice: so ``participants`` are
    those who have a part in it from then on.
    ``posts`` are the participants at whom something commits, ``voids`` those whose part of a refused step is undone;
    ``reads``: a step waits for something; ``undoes``: a step that committed is compensated.
    """

    kind: str
    ends: Literal["COMPLETED", "COMPENSATED"]
    participants: tuple[str, ...]
    arrange: Callable[[Cluster, str], Awaitable[Parameters]]
    judge: Callable[[Cluster, str, Json], Awaitable[None]]
    turn: Callable[[Cluster], Awaitable[None]] | None = None
    turn_after: int = 0
    posts: tuple[str, ...] = ()
    voids: tuple[str, ...] = ()
    reads: bool = False
    undoes: bool = False


async def committed(up: Cluster, *operations: tuple[str, str, Mapping[str, object]]) -> Json:
    """Have a transaction committed; sent again where that is asked for: a link may not have noticed a kill yet."""

    async def is_final() -> bool:
        nonlocal told
        told = (await up.execute(*operations)).json()
        return not told.get("retry")

    told: Json = {}
    await up.until(is_final)
    assert told["state"] == "COMMITTED", told
    return told


async def funded(up: Cluster, user: str, currency: str, amount: str) -> None:
    """Open an account with money in it."""
    account = {"user_id": user, "currency": currency}
    await committed(
        up, ("bookkeeper", "open_account", account), ("bookkeeper", "credit_account", {**account, "amount": amount})
    )


async def cleared(up: Cluster, user: str, state: str = "CLEARED") -> None:
    """Have compliance say so."""
    await committed(up, ("fiat", "set_compliance", {"user_id": user, "state": state}))


async def accounts(up: Cluster, *users: str) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    """Balance and locked money, by user and currency."""
    query = "select user_id, currency, balance, locked from bookkeeper.accounts where user_id = any (%s)"
    rows = await read(up.dsns["bookkeeper"], query, list(users))
    return {(user, currency): (Decimal(balance), Decimal(locked)) for user, currency, balance, locked in rows}


def free(amount: str) -> tuple[Decimal, Decimal]:
    """That much, and nothing of it locked."""
    return Decimal(amount), Decimal(0)


# A trade.


async def rest(up: Cluster, user: str, amount: str, price: str) -> None:
    """Have an order to sell wait in the book, with its money locked."""
    money = {"user_id": user, "currency": "BTC", "amount": amount}
    order = {"user_id": user, "symbol": "BTC/USD", "side": "sell", "amount": amount, "price": price}
    await committed(up, ("bookkeeper", "lock_funds", money), ("trading", "place_order", order))


async def _two_traders(up: Cluster, user: str) -> Parameters:
    await funded(up, user, "USD", "50000")
    await funded(up, f"{user}-other", "BTC", "1")
    await rest(up, f"{user}-other", "0.5", "40000.01")
    return {"user_id": user, "symbol": "BTC/USD", "side": "buy", "amount": "0.7", "price": "45000"}


async def _traded(up: Cluster, user: str, told: Json) -> None:
    assert told["result"]["status"] == "CANCELLED", told
    assert (told["result"]["filled"], told["result"]["used"]) == ("0.5", "20000.00"), told
    assert await accounts(up, user, f"{user}-other") == {
        (user, "USD"): free("30000"),
        (user, "BTC"): free("0.5"),
        (f"{user}-other", "USD"): free("20000"),
        (f"{user}-other", "BTC"): free("0.5"),
    }
    settled = "select status, quote_amount from settlement.trades where buyer_id = %s"
    rows = await read(up.dsns["settlement"], settled, user)
    assert [(status, Decimal(paid)) for status, paid in rows] == [(2, Decimal(20000))]
    assert len(await _orders(up, user)) == 1


async def _orders(up: Cluster, user: str) -> list[tuple[str, ...]]:
    """The user's orders that were ever in a book."""
    return await read(
        up.dsns["trading"], "select order_id from trading.orders where user_id = %s and status <> 4", user
    )


async def _a_buyer(up: Cluster, user: str) -> Parameters:
    await funded(up, user, "USD", "50000")
    await read(up.dsns["trading"], _HALT, 1)
    return {"user_id": user, "symbol": "ETH/USD", "side": "buy", "amount": "1", "price": "3000"}


async def _halt(up: Cluster) -> None:
    await read(up.dsns["trading"], _HALT, 2)


async def _not_traded(up: Cluster, user: str, told: Json) -> None:
    assert (told["failure"]["code"], told["failure"]["step"]) == ("SYMBOL_HALTED", "place_order"), told
    assert await accounts(up, user) == {(user, "USD"): free("50000")}
    assert await _orders(up, user) == []


# A deposit.


async def announced(up: Cluster, reference: str, amount: str) -> Parameters:
    """Have somebody pay the exchange, and fiat hear of it from the bank."""
    paid = {"currency": "EUR", "amount": amount, "iban": IBAN, "name": "Ann", "reference": reference}
    (await up.client.post(f"{up.urls['fiat']}/development/transfers", json=paid)).raise_for_status()

    async def is_known() -> bool:
        query = "select reference from fiat.bank_transfers where reference = %s"
        return bool(await read(up.dsns["fiat"], query, reference))

    await up.until(is_known)
    return {"currency": "EUR", "amount": amount, "bank_reference": reference, "iban": IBAN}


async def limit_deposits(up: Cluster, most: str = _NO_LIMIT) -> None:
    """Let no more euros than that come in at once, from now on."""
    assert await read(up.dsns["fiat"], _LIMIT, most) == [("EUR",)]


async def _a_depositor(up: Cluster, user: str) -> Parameters:
    await limit_deposits(up)
    await cleared(up, user)
    return {"user_id": user, **await announced(up, f"R-{user}", "125.50")}


async def _deposited(up: Cluster, user: str, told: Json) -> None:
    assert told["result"] == {"bank_reference": f"R-{user}", "credited": "125.50", "currency": "EUR"}, told
    assert await accounts(up, user) == {(user, "EUR"): free("125.50")}
    assert await _deposits(up, user) == [(f"R-{user}",)]
    told_of = "select reference from fiat.notifications where reference = %s"
    assert await read(up.dsns["fiat"], told_of, f"R-{user}") == [(f"R-{user}",)]


async def _deposits(up: Cluster, user: str) -> list[tuple[str, ...]]:
    return await read(up.dsns["fiat"], "select reference from fiat.deposits where user_id = %s", user)


async def _somebody_uncleared(up: Cluster, user: str) -> Parameters:
    await limit_deposits(up)
    return {"user_id": user, **await announced(up, f"R-{user}", "80")}


async def _not_deposited(up: Cluster, user: str, told: Json) -> None:
    assert (told["failure"]["code"], told["failure"]["step"]) == ("COMPLIANCE_PENDING", "check_compliance"), told
    await _nothing_came_in(up, user)


async def _nothing_came_in(up: Cluster, user: str) -> None:
    assert await accounts(up, user) == {}
    assert await _deposits(up, user) == []


async def _limit(up: Cluster) -> None:
    await limit_deposits(up, "100")


async def _not_credited(up: Cluster, user: str, told: Json) -> None:
    assert (told["failure"]["code"], told["failure"]["step"]) == ("LIMIT_EXCEEDED", "credit_account"), told
    await _nothing_came_in(up, user)


# A withdrawal.


def _coins(user: str) -> str:
    """An amount that no other user withdraws, so that the chain's payments tell whose they are."""
    return f"0.01{int(user.rpartition('-')[2]):06d}"


async def _a_holder(up: Cluster, user: str) -> Parameters:
    await cleared(up, user)
    await funded(up, user, "BTC", "1")
    return {"user_id": user, "currency": "BTC", "amount": _coins(user), "address": OUT}


async def _withdrawn(up: Cluster, user: str, told: Json) -> None:
    assert await accounts(up, user) == {(user, "BTC"): free(str(1 - Decimal(_coins(user))))}
    assert await _withdrawals(up, user) == [(told["workflow_id"], 7)]
    paid = [each for each in await payments(up) if Decimal(each["amount"]) == Decimal(_coins(user))]
    assert [(each["address"], each["tx_hash"]) for each in paid] == [(OUT, told["result"]["tx_hash"])]


async def payments(up: Cluster) -> list[Json]:
    """What the chain has paid to others."""
    told: list[Json] = (await up.client.get(f"{up.urls['wallet']}/development/payments")).json()["payments"]
    return told


async def _withdrawals(up: Cluster, user: str) -> list[tuple[str, ...]]:
    query = "select withdrawal_id, status from wallet.withdrawals where user_id = %s"
    return await read(up.dsns["wallet"], query, user)


async def _a_holder_of_ether(up: Cluster, user: str) -> Parameters:
    """Whose coin has no node, so nothing can be broadcast."""
    await cleared(up, user)
    await funded(up, user, "ETH", "3")
    return {"user_id": user, "currency": "ETH", "amount": "1.25", "address": ETHER_OUT}


async def _not_withdrawn(up: Cluster, user: str, told: Json) -> None:
    assert (told["failure"]["code"], told["failure"]["step"]) == ("CHAIN_NOT_CONNECTED", "broadcast_withdrawal"), told
    assert await accounts(up, user) == {(user, "ETH"): free("3")}
    assert await _withdrawals(up, user) == [(told["workflow_id"], 8)]


async def _somebody_short(up: Cluster, user: str) -> Parameters:
    """Whose coins do not suffice: the wallet reserves what the bookkeeper refuses."""
    await cleared(up, user)
    await funded(up, user, "BTC", "0.005")
    return {"user_id": user, "currency": "BTC", "amount": _coins(user), "address": OUT}


async def _not_locked(up: Cluster, user: str, told: Json) -> None:
    assert (told["failure"]["code"], told["failure"]["step"]) == ("INSUFFICIENT_FUNDS", "lock_funds"), told
    assert await accounts(up, user) == {(user, "BTC"): free("0.005")}
    assert await _withdrawals(up, user) == []
    assert Decimal(_coins(user)) not in [Decimal(each["amount"]) for each in await payments(up)]


_TRADERS: Final = ("bookkeeper", "trading", "settlement")
_HOLDERS: Final = ("bookkeeper", "wallet")
STORIES: Final[Mapping[str, Story]] = {
    "trade": Story(
        "trade_execution",
        "COMPLETED",
        _TRADERS,
        _two_traders,
        _traded,
        posts=_TRADERS,
        reads=True,
    ),
    "trade-refused": Story(
        "trade_execution",
        "COMPENSATED",
        _TRADERS[:2],
        _a_buyer,
        _not_traded,
        turn=_halt,
        turn_after=2,
        posts=("bookkeeper",),
        undoes=True,
    ),
    "deposit": Story(
        "fiat_deposit",
        "COMPLETED",
        ("bookkeeper", "fiat", "bank"),
        _a_depositor,
        _deposited,
        posts=("bookkeeper", "fiat"),
    ),
    "deposit-refused": Story(
        "fiat_deposit", "COMPENSATED", ("fiat",), _somebody_uncleared, _not_deposited, turn_after=1
    ),
    "deposit-limited": Story(
        "fiat_deposit",
        "COMPENSATED",
        ("bookkeeper", "fiat"),
        _a_depositor,
        _not_credited,
        turn=_limit,
        turn_after=2,
        voids=("bookkeeper",),
    ),
    "withdrawal": Story(
        "crypto_withdrawal",
        "COMPLETED",
        ("bookkeeper", "fiat", "wallet", "chain"),
        _a_holder,
        _withdrawn,
        posts=("bookkeeper", "wallet"),
        reads=True,
    ),
    "withdrawal-refused": Story(
        "crypto_withdrawal",
        "COMPENSATED",
        _HOLDERS,
        _a_holder_of_ether,
        _not_withdrawn,
        turn_after=3,
        posts=_HOLDERS,
        undoes=True,
    ),
    "withdrawal-short": Story(
        "crypto_withdrawal", "COMPENSATED", _HOLDERS, _somebody_short, _not_locked, turn_after=2, voids=("wallet",)
    ),
}
