"""Every participant finds what a batch needs by its indexes, however few rows the planner believes there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest

from participant_sdk.participant import Prepare, Work
from tests.integration.participations import Participation, participating
from tests.integration.test_fiat import IBAN
from tests.integration.test_wallet import BTC

Asked = tuple[str, str]

ROWS: Final = 5_000
BRANCHES: Final = 10
# Far more than a batch of so many branches needs of any table, and far less than reading one of them whole.
READ_MAX: Final = 1_500


def asked(operation: str, **parameters: object) -> Asked:
    return operation, json.dumps(parameters)


class Service(NamedTuple):
    """``seeds`` are done before the planner looks, ``growth`` after; of ``batch`` each is asked for many times."""

    name: str
    seeds: Sequence[Asked]
    growth: Sequence[str]
    batch: Sequence[Asked]


_SERIES: Final = f"generate_series(1, {ROWS}) as g"
_ADA: Final = {"user_id": "ada", "currency": "EUR"}
_TRADE: Final = {"symbol": "BTC/USD", "buyer_id": "ada", "seller_id": "bob", "amount": "1", "price": "2"}
_ORDER: Final = {"user_id": "ada", "symbol": "BTC/USD", "side": "buy", "amount": "1", "price": "2"}
_BTC: Final = {"user_id": "ada", "currency": "BTC", "address": BTC}

SERVICES: Final = (
    Service(
        "bookkeeper",
        [
            asked("open_account", **_ADA),
            asked("open_account", user_id="bob", currency="EUR"),
            asked("credit_account", **_ADA, amount="100"),
        ],
        [
            f"insert into bookkeeper.accounts (user_id, currency, opening) select g::text, 'EUR', -g from {_SERIES}",
            (
                "insert into bookkeeper.entries (branch, kind, operation, debit_account, credit_account, amount, draw)"
                f" select -g, 2, 0, 0, a.account, 1, 0 from {_SERIES}, bookkeeper.accounts as a where a.user_id = 'bob'"
            ),
        ],
        [
            asked("lock_funds", **_ADA, amount="1"),
            asked("transfer_funds", from_user_id="ada", to_user_id="bob", currency="EUR", amount="1"),
            asked("open_account", user_id="new@", currency="EUR", if_absent=True),
        ],
    ),
    Service(
        "settlement",
        [asked("settle_trade", trade_id="seed", quote_amount="2", **_TRADE)],
        [
            (
                "insert into settlement.trades (trade_id, branch, reversal, reversal_reason, operation, status,"
                " quote_scale, amount, price, quote_amount, fee_buyer, fee_seller, buyer_id, seller_id, base, quote,"
                " settled_at)"
                f" select 'g' || g, -g, -g, 'because', 0, 2, 2, 1, 2, 2, 0, 0, 'ada', 'bob', 'BTC', 'USD', now()"
                f" from {_SERIES}"
            ),
            f"insert into settlement.positions (user_id, currency, net) select g::text, 'USD', 1 from {_SERIES}",
        ],
        [
            asked("settle_trade", trade_id="T@", quote_amount="2", **_TRADE),
            asked("reverse_trade", trade_id="seed", reason="because"),
        ],
    ),
    Service(
        "trading",
        [asked("place_order", **_ORDER, client_order_id="seed")],
        [
            (
                "insert into trading.orders (branch, operation, side, type, status, sequence, cancelling, amount,"
                " price, order_id, user_id, symbol)"
                f" select -g, 0, 2, 1, 2, 1000 + g, -g, 1, 3, 'g' || g, 'ada', 'ETH/USD' from {_SERIES}"
            ),
            (
                "insert into trading.client_orders (user_id, client_order_id, branch, operation)"
                f" select 'ada', 'g' || g, -g, 0 from {_SERIES}"
            ),
        ],
        [
            asked("place_order", **_ORDER, client_order_id="C@"),
            asked("place_order", **_ORDER),
            asked("cancel_order", order_id="g7"),
        ],
    ),
    Service(
        "fiat",
        [
            asked("set_compliance", user_id="ada", state="CLEARED"),
            asked("set_compliance", user_id="bob", state="CLEARED"),
        ],
        [
            f"insert into fiat.users (user_id, state, changing) select 'g' || g, 2, -g from {_SERIES}",
            (
                "insert into fiat.compliance_changes (branch, operation, user_id, state)"
                f" select -g, 0, 'g' || g, 2 from {_SERIES}"
            ),
            f"insert into fiat.usage (user_id, currency, day) select 'g' || g, 'EUR', now() from {_SERIES}",
            (
                "insert into fiat.bank_transfers (reference, transfer_id, currency, amount, iban, name, received_at)"
                f" select 'R' || g, 't' || g, 'EUR', 1, '{IBAN}', 'A', now() from {_SERIES}"
            ),
            (
                "insert into fiat.deposits (branch, operation, user_id, currency, amount, reference, day)"
                f" select -g, 0, 'g' || g, 'EUR', 1, 'g' || g, now() from {_SERIES}"
            ),
            (
                "insert into fiat.withdrawals (branch, operation, status, ending, ending_as, user_id, currency, amount,"
                " withdrawal_id, iban, account_holder, day)"
                f" select -g, 0, 2, case when g > 100 then -g end, case when g > 100 then 3 end, 'g' || g, 'EUR', 1,"
                f" 'g' || g, '{IBAN}', 'A', now() from {_SERIES}"
            ),
            f"insert into fiat.payments (withdrawal_id, state) select 'p' || g, 2 from {_SERIES}",
            f"insert into fiat.notifications (reference, body) select 'g' || g, '' from {_SERIES}",
        ],
        [
            asked("record_deposit", bank_reference="R@", amount="1", **_ADA),
            asked("reserve_withdrawal", withdrawal_id="W@", amount="1", iban=IBAN, account_holder="A", **_ADA),
            asked("complete_withdrawal", withdrawal_id="g@"),
            asked("set_compliance", user_id="new@", state="CLEARED"),
            asked("check_compliance", amount="1", **_ADA),
        ],
    ),
    Service(
        "wallet",
        [asked("record_deposit", amount="40", tx_hash="ab" * 32, output_index=0, **_BTC)],
        [
            (
                "insert into wallet.withdrawals (branch, operation, status, changing, change, amount, fee, day,"
                " withdrawal_id, user_id, currency, address)"
                " select -g, 0, 2, case when g > 100 then -g end, case when g > 100 then 5 end, 1, 1, now(),"
                f" 'g' || g, 'g' || g, 'BTC', 'there' from {_SERIES}"
            ),
            (
                "insert into wallet.payments (withdrawal_id, currency, txid, raw, fee)"
                f" select 'g' || g, 'BTC', g::text, '', 0 from {_SERIES}"
            ),
            (
                "insert into wallet.deposits (branch, operation, output_index, amount, tx_hash, currency, user_id,"
                " address)"
                f" select -g, 0, 0, 1, g::text, 'BTC', 'ada', 'there' from {_SERIES}"
            ),
            f"insert into wallet.whitelist (user_id, currency, address) select 'g' || g, 'BTC', 'there' from {_SERIES}",
            "update wallet.hot_wallets set is_connected = true, reserved = 0 where currency = 'BTC'",
        ],
        [
            asked("record_deposit", amount="1", tx_hash="@" * 64, output_index=1, **_BTC),
            asked("reserve_withdrawal", withdrawal_id="W@", amount="1", **_BTC),
            asked("broadcast_withdrawal", withdrawal_id="g@"),
        ],
    ),
)


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
async def test_a_batch_reads_little_however_few_rows_the_planner_believes_in(service: Service, database: str) -> None:
    """Tables that grew since they were analyzed are neither read whole nor compared with each branch."""
    async with participating(database, service.name, connections=1) as participant:
        await participant.do(*service.seeds)
        await participant.rows("analyze")
        for statement in service.growth:
            await participant.rows(statement)
        before = await reads(participant)
        votes = [await a_round(participant, service.batch, lap) for lap in range(2)]
        assert min(votes) > 0, votes
    # The sessions are closed, and so have told what they read.
    after = await reads(participant)
    much = {name: read - before[name] for name, read in after.items() if read - before[name] > READ_MAX}
    assert not much


async def a_round(participant: Participation, batch: Sequence[Asked], lap: int) -> int:
    """Prepare many branches, then commit half of them and roll back the others in a batch that prepares more."""
    first = [branch for place in range(BRANCHES) for branch in branches(participant, batch, 2 * lap, place)]
    second = [branch for place in range(BRANCHES) for branch in branches(participant, batch, 2 * lap + 1, place)]
    votes = await participant.prepare(*first)
    kept = [branch for branch, vote in zip(first, votes, strict=True) if vote.is_yes]
    middle = len(kept) // 2
    commits = [participant.decided(branch) for branch in kept[:middle]]
    rollbacks = [participant.rollback_of(branch) for branch in kept[middle:]]
    await participant.resource.apply(Work(commits=commits, rollbacks=rollbacks, prepares=second))
    await participant.rollback(*second)
    return sum(vote.is_yes for vote in votes)


def branches(participant: Participation, batch: Sequence[Asked], lap: int, place: int) -> list[Prepare]:
    number = str(lap * BRANCHES + place + 1)
    digit = "0123456789abcdef"[lap]
    return [
        participant.branch((name, parameters.replace("@" * 64, digit + number.rjust(63, "0")).replace("@", number)))
        for name, parameters in batch
    ]


async def reads(participant: Participation) -> dict[str, int]:
    """Rows and index entries read so far, by table and index of the service's."""
    tables = "select relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where schemaname = %s"
    indexes = "select indexrelname, idx_tup_read from pg_stat_user_indexes where schemaname = %s"
    schema = participant.resource.name
    return dict(await participant.rows(tables, schema)) | dict(await participant.rows(indexes, schema))
