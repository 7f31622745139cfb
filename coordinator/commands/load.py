"""The command load: many transactions at a system, and how it took them."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson

# The generator and what draws are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415

BALANCE_DEFAULT: Final = 1_000_000
BALANCE_MAX: Final = 10**15
ACCOUNTS_DEFAULT: Final = 1_000
# Where `pincex dev` has it.
BANK_DEFAULT: Final = "http://127.0.0.1:50071"

WorkloadName = Annotated[
    str,
    typer.Option(
        help="transfer: one account pays, at each other participant one gets; smallbank; mixed: orders, trades, money "
        "and coins over the five shipped participants; empty."
    ),
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="A closed loop: so many callers, each sends on when it was answered. 64.")
]
Rate = Annotated[
    float | None, typer.Option(min=0.01, help="An open loop: so many a second, whatever becomes of the others.")
]
InFlightMax = Annotated[
    int | None, typer.Option(min=1, help="With --rate: past so many under way, none is offered. 10,000.")
]
Duration = Annotated[str, typer.Option(metavar="DURATION", help="How long to measure, such as 30s or 5m.")]
WarmUp = Annotated[str, typer.Option(metavar="DURATION", help="How long before that, unmeasured.")]
Participants = Annotated[
    str | None,
    typer.Option(
        help="The bookkeepers, by their configured names, with commas; the first one pays. bookkeeper. "
        "mixed: bookkeeper,trading,settlement,fiat,wallet, or what these are called."
    ),
]
AccountCount = Annotated[
    int, typer.Option(help="Accounts at each participant; smallbank: customers over all of them; mixed: traders.")
]
HotSpot = Annotated[
    int | None, typer.Option(min=2, help="smallbank: the first so many customers are picked nine times of ten.")
]
Currency = Annotated[str, typer.Option(help="The currency of the accounts.")]
Decided = Annotated[bool, typer.Option("--decided", help="Count a transaction as ended when its decision is durable.")]
Prepare = Annotated[bool, typer.Option("--prepare", help="First open the accounts, and put --balance into each.")]
Balance = Annotated[int, typer.Option(min=1, max=BALANCE_MAX, help="With --prepare: how much goes into each.")]
Check = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DSN",
        help="A participant's database, once for each, as --participants has them: its invariants, and money.",
    ),
]
Bank = Annotated[
    str,
    typer.Option(
        help="mixed, with --prepare: the development system's bank, which is told of money to come; nothing for none."
    ),
]
Seed = Annotated[int, typer.Option(help="The same seed picks the same accounts in the same order.")]


def load(
    *,
    workload: WorkloadName = "transfer",
    concurrency: Concurrency = None,
    rate: Rate = None,
    in_flight_max: InFlightMax = None,
    duration: Duration = "30s",
    warm_up: WarmUp = "2s",
    participants: Participants = None,
    accounts: AccountCount = ACCOUNTS_DEFAULT,
    hot_spot: HotSpot = None,
    currency: Currency = "USD",
    decided: Decided = False,
    prepare: Prepare = False,
    balance: Balance = BALANCE_DEFAULT,
    bank: Bank = BANK_DEFAULT,
    check: Check = None,
    seed: Seed = 0,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Load a system with transactions, and print how it took them.

    At the end nothing of them may be left in doubt; with --check, money must be conserved. Ctrl-C ends it early.

    Exit codes: 0 done, and all of it holds; 1 the latencies are not true, nothing committed, or something does not
    hold, as it says; 2 bad usage or request; 3 outcomes are unknown; 4 nobody to be reached.
    """
    from coordinator.commands.load_run import Plan, run
    from participant_sdk.client_results import Wait
    from participant_sdk.load import InvalidOrderError, Order
    from participant_sdk.load.order import new_run, participants_of

    if rate is not None and concurrency is not None:
        fail("--rate and --concurrency: one or the other", ExitCode.BAD_REQUEST, as_json=as_json)
    if rate is None and in_flight_max is not None:
        fail("--in-flight-max: goes with --rate", ExitCode.BAD_REQUEST, as_json=as_json)
    try:
        order = Order(
            coordinators=_names(address),
            workload=workload,
            participants=_names(participants) if participants is not None else participants_of(workload),
            accounts=accounts,
            seconds=_seconds("--duration", duration),
            hot_spot=hot_spot or 0,
            currency=currency,
            rate_per_s=rate or 0.0,
            in_flight=concurrency or in_flight_max or 0,
            warm_up_s=_seconds("--warm-up", warm_up),
            wait=Wait.DECIDED if decided else Wait.APPLIED,
            follow_money=bool(check),
            seed=seed,
            run=new_run(),
        )
    except InvalidOrderError as error:
        fail(str(error), ExitCode.BAD_REQUEST, as_json=as_json)
    run(Plan(order, address, balance if prepare else 0, bank, tuple(check or ())), as_json=as_json)


def _names(written: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in written.split(","))


def _seconds(option: str, written: str) -> float:
    from coordinator.config_values import parse_duration
    from participant_sdk.load import InvalidOrderError

    try:
        return parse_duration(written).total_seconds()
    except ValueError as error:
        raise InvalidOrderError(option, str(error)) from error
