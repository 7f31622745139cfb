"""Every operation of the wallet against every wrong parameter: a "no" with a stable reason and the field's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from participant_sdk.xa import VoteKind, XaCode
from sidecars.wallet.operations import OPERATION_NAMES
from tests.integration.participations import participating

BTC = "bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv"
NAMED: Final[dict[str, object]] = {"withdrawal_id": "W-1"}
ASKED: Final[dict[str, object]] = {
    **NAMED,
    "user_id": "ada",
    "currency": "BTC",
    "amount": "1.5",
    "fee": "0.0005",
    "address": BTC,
}
RIGHT: Final[dict[str, dict[str, object]]] = {
    "validate_withdrawal": ASKED,
    "reserve_withdrawal": ASKED,
    "broadcast_withdrawal": NAMED,
    "confirm_withdrawal": NAMED,
    "cancel_withdrawal": NAMED,
    "record_deposit": {
        "user_id": "ada",
        "currency": "BTC",
        "amount": "1.5",
        "address": BTC,
        "tx_hash": "ab" * 32,
        "output_index": 0,
    },
    "withdrawal_status": NAMED,
}
OPTIONAL: Final = {
    ("validate_withdrawal", "withdrawal_id"),
    ("validate_withdrawal", "fee"),
    ("reserve_withdrawal", "fee"),
}
_AMOUNTS: Final[tuple[object, ...]] = (
    "0",
    "-1",
    "1.000000001",
    "1e3",
    "NaN",
    "a lot",
    "",
    10**20,
    True,
    [],
    "0." + "0" * 39 + "1",
)
# What no parameter of this name may be; the reason is BAD_PARAMETERS.
WRONG: Final[dict[str, tuple[object, ...]]] = {
    "withdrawal_id": ("", "with space", "W" * 65, "W\u0001", "Ü", 7, ["W-1"]),
    "user_id": ("", " ada", "a" * 65, "a\nb", 7, None, {}),
    "amount": (*_AMOUNTS, None),
    "fee": _AMOUNTS,
    "currency": (7, None, []),
    "address": (7, None, [BTC]),
    "tx_hash": ("", "ab" * 31, "ab" * 33, "zz" * 32, "0x" + "ab" * 32, "ab" * 65, 7, None),
    "output_index": (-1, 1.5, "", "first", "\u0663", 2**31, 10**11, True, None, []),
}
CURRENCIES: Final = ("XYZ", "", "btc", "EUR", "USD")
# For BTC: a wrong character, mixed case, wrong witness lengths and versions, the wrong checksum for the version,
# base 58 with a wrong check or version, a key, and what is no address at all.
BAD_ADDRESSES: Final = (
    *("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhx", "bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lHV", "bc1pw5dgrnzv"),
    *("BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P", "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R"),
    *("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "bc1gmk9yu", "bc1"),
    *(
        "1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mp",
        "5JuW2AMDYu4xVwRG9DZW18VbzQrGcd5RCgb99sS6ehJsNQXu5b9",
        "",
        "my wallet",
        "1" * 500,
    ),
    *("b\u04411qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv", "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty"),
)
OTHER_CHAINS: Final = {
    "ltc1qg42tkwuuxefutzxezdkdel39gfstuap288mfea": "LTC",
    "LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1": "LTC",
    "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L": "DOGE",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed": "ETH",
    "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh": "XRP",
    "bitcoincash:qp63uahgrxged4z5jswyt5dn5v3lzsem6cy4spdc2h": "BCH",
    "addr1vx2fxv2umyhttkxyxp8x0dlpdt3k6cwng5pxj3jhsydzers66hrl8": "ADA",
    "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5": "DOT",
    "So11111111111111111111111111111111111111112": "SOL",
}
BODIES: Final = (
    "[]",
    "",
    "{",
    "null",
    '{"withdrawal_id":"a","withdrawal_id":"b"}',
    '{"amount":NaN}',
    '{"amount":1e400}',
)

Case = tuple[str, str, str]


def cases(operation: str) -> Iterator[Case]:
    """Bodies that are wrong in one way, with the reason and the field of the "no"."""
    right = RIGHT[operation]

    def changed(**changes: object) -> str:
        return json.dumps({**right, **changes})

    yield changed(more=1), "BAD_PARAMETERS", "more"
    for name in right:
        if (operation, name) not in OPTIONAL:
            yield json.dumps({key: value for key, value in right.items() if key != name}), "BAD_PARAMETERS", name
        for wrong in WRONG[name]:
            yield changed(**{name: wrong}), "BAD_PARAMETERS", name
    for body in BODIES:
        yield body, "BAD_PARAMETERS", ""
    if "address" in right:
        for currency in CURRENCIES:
            yield changed(currency=currency), "UNKNOWN_CURRENCY", "currency"
        for address in BAD_ADDRESSES:
            yield changed(address=address), "BAD_ADDRESS", "address"
        for address in OTHER_CHAINS:
            yield changed(address=address), "ADDRESS_OF_OTHER_CHAIN", "address"
        # As fine as bitcoins are divided, and finer than an XRP is.
        ripple = "r4FTvnahbUfhe1WK2EK5Jz4cNvdFvT8Dzt"
        yield changed(currency="XRP", address=ripple, amount="0.00000001"), "BAD_PARAMETERS", "amount"
    else:
        yield changed(withdrawal_id="W-7"), "UNKNOWN_WITHDRAWAL", "withdrawal_id"


def test_every_operation_is_in_the_table() -> None:
    assert set(RIGHT) == set(OPERATION_NAMES)


async def test_every_wrong_parameter_of_every_operation_is_named(database: str) -> None:
    asked = [(operation, *case) for operation in RIGHT for case in cases(operation)]
    async with participating(database, "wallet") as wallet:
        votes = await wallet.prepare(*[wallet.branch((operation, body)) for operation, body, _, _ in asked])
        for (operation, body, reason, field), vote in zip(asked, votes, strict=True):
            path = "operations[0].parameters" + (f".{field}" if field else "")
            assert (vote.kind, vote.xa_code, vote.transient) == (VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, False), body
            assert (vote.reason, vote.field) == (reason, path), (operation, body, vote)
            assert vote.message.startswith(path)
        for table in ("withdrawals", "deposits", "payments"):
            assert await wallet.rows(f"select * from wallet.{table}") == []
    assert len(asked) > 200


async def test_an_address_of_another_chain_is_refused_by_its_name(database: str) -> None:
    async with participating(database, "wallet") as wallet:
        for address, chain in OTHER_CHAINS.items():
            vote = await wallet.vote(("reserve_withdrawal", json.dumps({**ASKED, "address": address})))
            assert vote.message == f"operations[0].parameters.address is an address of {chain}, not of BTC"


async def test_an_operation_that_is_not_served_is_named(database: str) -> None:
    async with participating(database, "wallet") as wallet:
        vote = await wallet.vote(("print_money", "{}"))
        assert (vote.reason, vote.field) == ("UNKNOWN_OPERATION", "operations[0].operation")
