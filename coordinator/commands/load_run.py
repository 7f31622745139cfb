"""A load from its order to its exit code: look first, prepare, generate, check, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

import psycopg
import typer

from coordinator.commands.asking import addresses_of, answered
from coordinator.commands.exits import ExitCode, fail
from coordinator.commands.load_bank import announce_transfers
from coordinator.commands.load_checks import Books, Doubts, Ledgers, doubts, doubts_left
from coordinator.commands.load_outputs import Display, Ended, show_load
from coordinator.commands.load_process import Generated, GeneratorError, generate
from coordinator.commands.operator_calls import OperatorCalls, asked_in_turn
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError, UnavailableError
from participant_sdk.load import InvalidOrderError, Mixed, OpenReport, Order
from participant_sdk.load.accounts import ACCOUNT_UNKNOWN, Accounts, PreparationError
from participant_sdk.load.mixed_preparation import Preparation
from participant_sdk.load.order import EMPTY

_EXIT_CODES: Final = {4: ExitCode.UNAVAILABLE, 2: ExitCode.BAD_REQUEST}


@dataclass(frozen=True, slots=True)
class Plan:
    """A load, and what comes before and after it: ``balance`` above 0 prepares accounts, ``dsns`` are checked.

    ``bank``: the development system's, if bank money is to come in.
    """

    order: Order
    address: str
    balance: int
    bank: str
    dsns: tuple[str, ...]

    @property
    def addresses(self) -> list[str]:
        """The coordinators'."""
        return addresses_of(self.address)

    @property
    def participants(self) -> Sequence[str]:
        """Those that will be asked for anything."""
        return () if self.order.workload == EMPTY else self.order.participants


def run(plan: Plan, *, as_json: bool) -> NoReturn:
    """Carry out a plan, print what came of it, and end the command."""
    try:
        ended = answered(lambda: _carry_out(plan), plan.address, as_json=as_json)
    except PreparationError as error:
        fail(f"--prepare: {error}", ExitCode.BAD_REQUEST, as_json=as_json)
    except psycopg.Error as error:
        fail(f"--check: {' '.join(str(error).split())}", ExitCode.BAD_REQUEST, as_json=as_json)
    except GeneratorError as error:
        fail(_why(error), _EXIT_CODES.get(error.exit_code, ExitCode.OUTCOME_UNKNOWN), as_json=as_json)
    show_load(plan.order, ended, as_json=as_json)
    raise typer.Exit(_exit_code(ended))


async def _carry_out(plan: Plan) -> Ended:
    await asked_in_turn(plan.addresses, lambda calls: _check_participants(calls, plan.participants))
    if plan.dsns and len(plan.dsns) != len(plan.participants):
        counts = f"{len(plan.dsns)} databases of {len(plan.participants)} participants"
        raise InvalidOrderError("--check", f"{counts}; it takes that of each, or none")
    books = [Books(*each) for each in zip(plan.participants, plan.order.services, plan.dsns, strict=False)]
    ledgers = Ledgers(books, plan.order.currency)
    await ledgers.read()
    with Display() as display:
        if plan.balance:
            plan = await _prepare(plan, display)
            await ledgers.read()
        before = await doubts(plan.addresses, plan.participants)
        display.begin(plan.order.workload, plan.order.warm_up_s + plan.order.seconds)
        generated = await generate(plan.order, display.tell)
        display.begin("checking")
        return await _checked(plan, generated, before, ledgers)


async def _check_participants(calls: OperatorCalls, wanted: Sequence[str]) -> None:
    """InvalidOrderError for a participant that is not configured, UnavailableError for one that is down."""
    status = await calls.status()
    configured = {each.participant: each for each in status.participants}
    for name in wanted:
        if name not in configured:
            known = ", ".join(sorted(configured)) or "none"
            raise InvalidOrderError("--participants", f"{name!r} is not configured; there are {known}")
        if not configured[name].up:
            reason = " ".join(configured[name].reason.split())
            raise UnavailableError(f"the participant {name} is down: {reason or 'no session to it is open'}")


async def _prepare(plan: Plan, display: Display) -> Plan:
    """Open and fund the workload's accounts. What the load can count on besides stands in the plan returned."""
    transfers = await _announce(plan, display) if plan.bank else 0
    order = replace(plan.order, transfers=transfers)
    workload = order.make_workload()
    async with TransactionClient(plan.addresses) as client:
        if isinstance(workload, Mixed):
            preparation = Preparation(client.execute, workload, plan.balance)
            display.begin("preparing accounts", preparation.users)
            await preparation.prepare(display.advance)
            if transfers:
                display.begin("waiting for the bank's transfers")
                await preparation.await_transfers()
        else:
            display.begin("preparing accounts", sum(1 for _ in workload.holders()))
            await Accounts(client.execute, order.currency, plan.balance).prepare(workload.holders(), display.advance)
    return replace(plan, order=order)


async def _announce(plan: Plan, display: Display) -> int:
    """Have the development system's bank tell of as many transfers as the load may record; how many these are."""
    wanted = plan.order.transfers_wanted
    workload = replace(plan.order, transfers=wanted).make_workload()
    if not isinstance(workload, Mixed):
        return 0
    display.begin("money coming to the bank", wanted)
    await announce_transfers(plan.bank, workload, display.advance)
    return wanted


async def _checked(plan: Plan, generated: Generated, before: Doubts, ledgers: Ledgers) -> Ended:
    """What must hold now. What cannot be asked does not hold."""
    checked = [f"nothing is left in doubt at {', '.join(plan.participants)}"] if plan.participants else []
    try:
        violations = await doubts_left(plan.addresses, plan.participants, before)
    except (ClientError, TimeoutError) as error:
        violations = [f"the coordinator does not tell what is left in doubt: {error or 'no answer'}"]
    if violations:
        checked.clear()
    if generated.followed is not None:
        try:
            broken = await ledgers.violations(generated.followed)
        except psycopg.Error as error:
            broken = [f"the ledgers cannot be read: {' '.join(str(error).split())}"]
        if not broken:
            money = f"money over all of them ({plan.order.currency})"
            checked.append(f"the ledgers' own invariants, counts of branches, and {money}")
        violations += broken
    if not generated.report.committed:
        violations.append("nothing committed")
    return Ended(generated.report, tuple(checked), tuple(violations))


def _why(error: GeneratorError) -> str:
    if error.exit_code < 0:
        return "the load generator was stopped before it could report; what was under way then may have committed"
    hint = "; --prepare opens the accounts" if str(error).startswith(ACCOUNT_UNKNOWN) else ""
    return f"{error}{hint}"


def _exit_code(ended: Ended) -> ExitCode:
    report = ended.report
    if ended.violations or (isinstance(report, OpenReport) and not report.trustworthy):
        return ExitCode.ROLLED_BACK
    return ExitCode.OUTCOME_UNKNOWN if report.unknown else ExitCode.DONE
