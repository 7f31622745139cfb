"""Every operation of the bookkeeper and of settlement against every wrong parameter: a "no" that names the field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import pytest

from participant_sdk.xa import VoteKind, XaCode
from sidecars.house import FEES
from sidecars.main import SIDECARS
from tests.integration.participations import Participation, participating

PATH: Final = "operations[0].parameters"
BAD: Final = "BAD_PARAMETERS"
LONG: Final = '"' + "x" * 65 + '"'

# JSON texts that are wrong for a kind of parameter, and the reasons.
_NO_TEXT: Final = ("5", "null", "true", "[]", "{}", '""', LONG, '"a\\nb"', '"\\u0001"')
_NO_NAME: Final = (*_NO_TEXT, '"with space"', '"\u00e9"')
_NO_NUMBER: Final = ("null", "true", "[1]", "{}", '""', '"a lot"', '"1e3"', '"NaN"', '"Infinity"', '"\\u0663"', "1e20")
# These are no exact JSON, so the parameters as a whole cannot be read.
_NO_JSON: Final = ("1e400", "NaN", "Infinity", "-Infinity", "1e-39")


class Kind(NamedTuple):
    """A kind of parameter: a right value, and wrong ones with their reasons."""

    right: str
    wrong: Mapping[str, str]
    optional: bool = False


def kind(right: str, *texts: str, optional: bool = False, **reasons: str) -> Kind:
    return Kind(right, dict.fromkeys(texts, BAD) | {json.dumps(text): why for text, why in reasons.items()}, optional)


USER: Final = kind('"u"', *_NO_TEXT, '" u"')
# Not the same as the one before.
OTHER: Final = kind('"v"', *_NO_TEXT, '"u"')
CURRENCY: Final = kind('"USD"', "5", "null", "[]", usd="UNKNOWN_CURRENCY", ABC="UNKNOWN_CURRENCY")
MONEY: Final = kind("1.25", *_NO_NUMBER, "0", "-1", '"-1"', "0.001", "1.250000000001", '"0.0000000000000000001"')
NOTE: Final = kind('"for lunch"', "5", "[]", '"' + "x" * 257 + '"', '"a\\nb"', optional=True)
REASON: Final = kind('"a mistake"', "5", "null", '""', '"  "', '"' + "x" * 257 + '"', '"a\\nb"')
NAME: Final = kind('"trade-1"', *_NO_NAME)
ORDER: Final = kind('"order-1"', *[text for text in _NO_NAME if text != "null"], optional=True)
_NO_SYMBOLS: Final = ("BTCUSD", "BTC/BTC", "BTC/ABC", "ABC/USD", "BTC/USD/EUR", "btc/usd", "/")
SYMBOL: Final = kind('"BTC/USD"', "5", "null", '""', '"BTC USD"', **dict.fromkeys(_NO_SYMBOLS, "UNKNOWN_SYMBOL"))
AMOUNT: Final = kind("0.5", *_NO_NUMBER, "0", "-1", "0.000000001")
PRICE: Final = kind("2.51", *_NO_NUMBER, "0", "-1", "0.0000000000000000001")
# 0.5 at 2.51 is 1.255, rounded down to 1.25.
_NO_PAYMENT: Final = dict.fromkeys([*_NO_NUMBER, "-1", "1.255"], BAD)
PAID: Final = Kind("1.25", {**_NO_PAYMENT, "1.26": "LEGS_DISAGREE", "1.24": "LEGS_DISAGREE", "0": "LEGS_DISAGREE"})
FEE: Final = kind("0.01", *_NO_NUMBER, "-0.01", "0.001", optional=True)
FEE_SELLER: Final = kind("0", *_NO_NUMBER, "-0.01", "0.001", "1.26", optional=True)
TRUTH: Final = kind("true", "5", "null", '"true"', "[]", optional=True)

TRANSFER: Final = {
    "from_user_id": USER,
    "to_user_id": OTHER,
    "currency": CURRENCY,
    "amount": MONEY,
    "description": NOTE,
}
AT_ACCOUNT: Final = {"user_id": USER, "currency": CURRENCY}
OPERATIONS: Final[Mapping[str, Mapping[str, Mapping[str, Kind]]]] = {
    "bookkeeper": {
        "open_account": {**AT_ACCOUNT, "if_absent": TRUTH},
        "credit_account": {**AT_ACCOUNT, "amount": MONEY},
        "debit_account": {**AT_ACCOUNT, "amount": MONEY},
        "lock_funds": {**AT_ACCOUNT, "amount": MONEY},
        "release_funds": {**AT_ACCOUNT, "amount": MONEY},
        "transfer_funds": TRANSFER,
        "capture_funds": TRANSFER,
        "account_balance": AT_ACCOUNT,
    },
    "settlement": {
        "settle_trade": {
            "trade_id": NAME,
            "symbol": SYMBOL,
            "buyer_id": USER._replace(wrong={**USER.wrong, f'"{FEES}"': BAD}),
            "seller_id": OTHER._replace(wrong={**OTHER.wrong, f'"{FEES}"': BAD}),
            "amount": AMOUNT,
            "price": PRICE,
            "quote_amount": PAID,
            "fee_buyer": FEE,
            "fee_seller": FEE_SELLER,
            "buy_order_id": ORDER,
            "sell_order_id": ORDER,
        },
        "reverse_trade": {"trade_id": NAME, "reason": REASON},
        "settlement_status": {"trade_id": NAME},
        "net_position": AT_ACCOUNT,
    },
}


def written(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"


def cases(kinds: Mapping[str, Kind]) -> Iterator[tuple[str, str, str]]:
    """Parameters, the reason and the field of the "no" to them."""
    right = {name: each.right for name, each in kinds.items()}
    for name, each in kinds.items():
        field = f"{PATH}.{name}"
        if not each.optional:
            yield written({key: text for key, text in right.items() if key != name}), BAD, field
        for text, reason in each.wrong.items():
            yield written({**right, name: text}), reason, field
        for text in _NO_JSON:
            yield written({**right, name: text}), BAD, PATH
        yield written(right)[:-1] + f",{json.dumps(name)}:{each.right}}}", BAD, PATH
    yield written({**right, "more": "1"}), BAD, f"{PATH}.more"
    yield written({**right, "\u00e9": "1"}), BAD, f"{PATH}.\\xe9"
    for text in ("", "null", "[]", '"text"', "{", written(right) + "x", '{"a":"\\u0000"}', '{"a":"\\ud800"}', "[" * 40):
        yield text, BAD, PATH


async def count(participation: Participation) -> int:
    """How many rows of the service's own there are."""
    table = {"bookkeeper": "entries", "settlement": "trades"}[participation.resource.name]
    ((rows,),) = await participation.rows(f"select count(*) from {participation.resource.name}.{table}")
    return rows


def test_the_table_has_every_operation() -> None:
    assert {name: tuple(table) for name, table in OPERATIONS.items()} == {
        name: SIDECARS[name].service.operations for name in OPERATIONS
    }


@pytest.mark.parametrize(
    ("service", "operation"), [(service, operation) for service, table in OPERATIONS.items() for operation in table]
)
async def test_every_wrong_parameter_is_refused_by_name(database: str, service: str, operation: str) -> None:
    """All in one batch, with a right one that they do not harm; each again gets the same; nothing is reserved."""
    kinds = OPERATIONS[service][operation]
    table = list(cases(kinds))
    async with participating(database, service) as participation:
        bad = [participation.branch((operation, parameters)) for parameters, _, _ in table]
        right = participation.branch((operation, written({name: each.right for name, each in kinds.items()})))
        votes = list(await participation.prepare(*bad, right))
        # The right one may want an account that is not there, or a trade: it is judged, not refused.
        assert votes.pop().reason not in {BAD, "UNKNOWN_OPERATION"}
        told = [
            (parameters, vote.kind, vote.xa_code, vote.transient, vote.reason, vote.field)
            for (parameters, _, _), vote in zip(table, votes, strict=True)
        ]
        assert told == [
            (parameters, VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, False, reason, field)
            for parameters, reason, field in table
        ]
        assert all(vote.message.isascii() and vote.message.startswith(vote.field) for vote in votes)
        assert list(await participation.prepare(*bad)) == votes
        await participation.rollback(right)
        assert await count(participation) == 0
        assert await participation.violations() == []


@pytest.mark.parametrize("service", OPERATIONS)
async def test_an_operation_that_is_not_served_is_named(database: str, service: str) -> None:
    async with participating(database, service) as participation:
        vote = await participation.vote(("mint", "{}"))
        assert (vote.reason, vote.field) == ("UNKNOWN_OPERATION", "operations[0].operation")
        assert all(name in vote.message for name in OPERATIONS[service])
