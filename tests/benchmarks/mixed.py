"""The mixed workload over the five participants that ship with the system, each a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import psycopg

from participant_sdk.client import TransactionClient
from participant_sdk.load import Mixed, Operations
from participant_sdk.load.mixed import ADDRESS, ALL, BANK_AMOUNT, BANK_DEPOSITS, COIN, IBAN, SHIPPED
from participant_sdk.load.mixed_preparation import Preparation
from participant_sdk.load.order import TRANSFERS_MAX
from tests.benchmarks.ledgers import CURRENCY, SQL, START_BALANCE, Kind, Ledger, make_schema
from tests.benchmarks.loading import WARM_UP_S, Load
from tests.benchmarks.product import checked
from tests.benchmarks.run import Run

ROUNDS: Final = 2
IN_FLIGHT: Final = (64, 512)
# Preparing more takes longer than measuring.
TRADERS_MAX: Final = 2_000
# More than any machine has done yet: no measurement is to run out of bank transfers.
RATE_MAX_PER_S: Final = 5_000
MIXED: Final = "mixed"

# Each participant is asked for something, so every link is up.
_FIRST: Final[Operations] = [
    ("bookkeeper", "open_account", {"user_id": "first", "currency": CURRENCY}),
    ("fiat", "set_compliance", {"user_id": "first", "state": "CLEARED"}),
    ("trading", "order_book", {"symbol": f"{COIN}/{CURRENCY}"}),
    ("settlement", "net_position", {"user_id": "first", "currency": CURRENCY}),
    (
        "wallet",
        "record_deposit",
        {
            "user_id": "first",
            "currency": COIN,
            "amount": "1",
            "output_index": 0,
            "tx_hash": f"0x{0:064x}",
            "address": ADDRESS,
        },
    ),
]


async def measure_mixed(run: Run) -> None:
    """Prepare users, and load all five participants at once."""
    ledgers = [Ledger(name, run.database(name), Kind(name)) for name in SHIPPED]
    for ledger in ledgers:
        await make_schema(ledger.dsn, ledger.kind)
    (fiat,) = [ledger.dsn for ledger in ledgers if ledger.kind is Kind.FIAT]
    traders = min(run.plan.accounts, TRADERS_MAX)
    async with checked(run, ledgers, run.database("txlog"), _FIRST, closed=False) as running:
        async with TransactionClient(running.address) as client:
            users = Mixed(SHIPPED, traders, currency=CURRENCY, run="preparation")
            running.told += await Preparation(client.execute, users, START_BALANCE).prepare(lambda _: None)
        wanted = int(RATE_MAX_PER_S * (run.plan.seconds + WARM_UP_S) * BANK_DEPOSITS / ALL)
        transfers = min(wanted, TRANSFERS_MAX)
        for number in run.rounds(ROUNDS):
            for in_flight in IN_FLIGHT:
                name = f"round{number}with{in_flight}"
                load = Load(
                    tuple(SHIPPED),
                    traders,
                    in_flight,
                    run.plan.seconds,
                    workload="mixed",
                    may_refuse=True,
                    run=name,
                    transfers=transfers,
                )
                await _tell_of(fiat, Mixed(SHIPPED, traders, transfers, CURRENCY, run=name))
                figure = await running.measure(MIXED, load)
                # They do different work, so what each costs is of interest.
                run.record(replace(figure, values={f"{each} µs": figure.cpu_us[each] for each in SHIPPED}))


async def _tell_of(dsn: str, mixed: Mixed) -> None:
    """What fiat would have read from a bank."""
    references = [mixed.bank_reference(number) for number in range(mixed.transfers)]
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(
            (SQL / "transfers.sql").read_bytes(),
            {"references": references, "currency": CURRENCY, "amount": BANK_AMOUNT, "iban": IBAN},
        )
