"""Every operation of fiat against every wrong parameter: a "no" with a stable reason and the field's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from participant_sdk.xa import VoteKind, XaCode
from sidecars.fiat.operations import OPERATION_NAMES
from tests.integration.participations import participating

IBAN = "DE89370400440532013000"
RIGHT: Final[dict[str, dict[str, object]]] = {
    "validate_transfer": {"bank_reference": "R-1", "currency": "EUR", "amount": "1.50", "iban": IBAN},
    "record_deposit": {"bank_reference": "R-1", "currency": "EUR", "amount": "1.50", "iban": IBAN, "user_id": "ada"},
    "reserve_withdrawal": {
        "withdrawal_id": "W-1",
        "user_id": "ada",
        "currency": "EUR",
        "amount": "1.50",
        "iban": IBAN,
        "account_holder": "Ada L.",
    },
    "complete_withdrawal": {"withdrawal_id": "W-1"},
    "cancel_withdrawal": {"withdrawal_id": "W-1"},
    "check_compliance": {"user_id": "ada", "currency": "EUR", "amount": "1.50", "direction": "deposit"},
    "set_compliance": {"user_id": "ada", "state": "CLEARED", "note": "passport seen"},
    "deposit_status": {"bank_reference": "R-1"},
    "withdrawal_status": {"withdrawal_id": "W-1"},
}
OPTIONAL: Final = {"iban", "withdrawal_id", "direction", "note"}
# What no parameter of this name may be; the reason is BAD_PARAMETERS but where it says otherwise.
WRONG: Final[dict[str, tuple[object, ...]]] = {
    "bank_reference": ("", "with space", "R" * 65, "R\n1", "Ü-1", 7, None, ["R-1"]),
    "withdrawal_id": ("", "with space", "W" * 65, "W\u0001", 7, ["W-1"]),
    "user_id": ("", " ada", "a" * 65, "a\nb", 7, None, {}),
    "amount": ("0", "-1", "1.505", "1e3", "NaN", "a lot", "", 10**20, True, [], "0." + "0" * 39 + "1"),
    "state": ("cleared", "", 2, None),
    "direction": ("sideways", 1),
    "note": ("n" * 257, "two\nlines", 7),
    "account_holder": ("", " Ada", "a" * 71, "A\tB", 7, None),
    "currency": (7, None, []),
    "iban": (7, []),
}
CURRENCIES: Final = ("XYZ", "", "eur", "BTC", "USDT")
# Wrong check digits, an unknown country, too short, too long, letters where digits belong, other writing.
IBANS: Final = (
    *("DE88370400440532013000", "DE8937040044053201300", "DE893704004405320130000", "XX89370400440532013000"),
    *(
        "GB29NWBK6016133192681X",
        "",
        "not an IBAN",
        "DE89",
        "\uff24\uff2589370400440532013000",
        # Right but for the digits, which are Arabic.
        "DE\u0668\u0669370400440532013000",
        "DE89370400440532013001",
        "1" * 500,
    ),
)


# Without an amount a check asks for the state alone, and a withdrawal gets an id without being given one.
ENOUGH: Final = {"reserve_withdrawal": ("withdrawal_id",), "check_compliance": ("direction",)}
UNREADABLE: Final = ("[]", "", "{", '{"user_id":"a","user_id":"b"}', '{"amount":NaN}')


class Case(NamedTuple):
    """An operation, its parameters as they are sent, and what must be said against them."""

    operation: str
    body: str
    reason: str
    field: str


def changed(operation: str, field: str, value: object, reason: str = "BAD_PARAMETERS") -> Case:
    return Case(operation, json.dumps({**RIGHT[operation], field: value}), reason, field)


def cases(operation: str) -> Iterator[Case]:
    right = RIGHT[operation]
    yield changed(operation, "more", 1)
    for body in UNREADABLE:
        yield Case(operation, body, "BAD_PARAMETERS", "")
    for name in right:
        for wrong in WRONG[name]:
            yield changed(operation, name, wrong)
        if name not in OPTIONAL or (name == "withdrawal_id" and operation not in ENOUGH):
            left = {key: value for key, value in right.items() if key != name}
            yield Case(operation, json.dumps(left), "BAD_PARAMETERS", name)
    if "iban" in right:
        yield from (changed(operation, "iban", iban, "BAD_IBAN") for iban in IBANS)
    if "currency" in right:
        yield from (changed(operation, "currency", currency, "UNKNOWN_CURRENCY") for currency in CURRENCIES)
        # The yen has no places.
        yield Case(operation, json.dumps({**right, "currency": "JPY"}), "BAD_PARAMETERS", "amount")


async def test_every_wrong_parameter_of_every_operation_is_named(database: str) -> None:
    found = [case for operation in RIGHT for case in cases(operation)]
    assert {case.operation for case in found} == set(OPERATION_NAMES)
    assert len(found) > 200
    async with participating(database, "fiat") as fiat:
        votes = await fiat.prepare(*[fiat.branch((case.operation, case.body)) for case in found])
        for case, vote in zip(found, votes, strict=True):
            path = "operations[0].parameters" + (f".{case.field}" if case.field else "")
            assert (vote.kind, vote.xa_code, vote.transient) == (VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, False)
            assert (vote.reason, vote.field) == (case.reason, path), (case, vote)
            assert vote.message.startswith(path)
        for table in ("users", "deposits", "withdrawals", "compliance_changes"):
            assert await fiat.rows(f"select * from fiat.{table}") == []


async def test_a_limit_that_is_passed_is_named(database: str) -> None:
    """Of a single transaction and of the day, of either direction; and a currency that is closed."""
    money = {"user_id": "ada", "currency": "EUR", "amount": "1"}
    async with participating(database, "fiat") as fiat:
        await fiat.do(("set_compliance", '{"user_id":"ada","state":"CLEARED"}'))
        await fiat.rows("update fiat.limits set withdrawal_min = 5, deposit_day = 600000 where currency = 'EUR'")
        await fiat.rows("delete from fiat.limits where currency = 'AUD'")
        for other, reason, field in (
            ({"amount": "500000.01"}, "LIMIT_EXCEEDED", "amount"),
            ({"amount": "4.99", "direction": "withdrawal"}, "LIMIT_EXCEEDED", "amount"),
            ({"amount": "100000.01", "direction": "withdrawal"}, "LIMIT_EXCEEDED", "amount"),
            ({"currency": "AUD"}, "CURRENCY_CLOSED", "currency"),
        ):
            vote = await fiat.vote(("check_compliance", json.dumps({**money, **other})))
            assert (vote.reason, vote.field) == (reason, f"operations[0].parameters.{field}")
            assert vote.is_business_no
            assert vote.xa_code == XaCode.RBROLLBACK


async def test_an_operation_that_is_not_served_is_named(database: str) -> None:
    async with participating(database, "fiat") as fiat:
        vote = await fiat.vote(("print_money", "{}"))
        assert (vote.reason, vote.field) == ("UNKNOWN_OPERATION", "operations[0].operation")
