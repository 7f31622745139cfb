"""Mutants of captures at the bookkeeper, and of settlement."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

_LEDGER: Final = "sidecars/bookkeeper/migrations/0003_capture.sql"
_RESERVED_AT_ONCE: Final = "sidecars/bookkeeper/migrations/0005_reserve_all.sql"
_SETTLEMENT: Final = "sidecars/settlement/migrations/0002_reservation.sql"
_PLAN: Final = "sidecars/settlement/operations.py"

MUTANTS: Final = (
    single(
        "CAPTURE_OF_FREE_SQL",
        "Reservation: a capture is checked against free money, not against what is locked",
        _LEDGER,
        "            case when m.kind in (5, 7) then d.locked - d.releasing else",
        "            case when m.kind = 5 then d.locked - d.releasing else",
        Test("tests/integration/test_bookkeeper_capture.py::test_only_locked_money_is_captured"),
    ),
    single(
        "CAPTURE_STAYS_LOCKED_SQL",
        "invariant 6: captured money is taken from the balance and stays locked",
        _LEDGER,
        "case when p.kind in (5, 7) then -p.amount else 0 end as locked",
        "case when p.kind = 5 then -p.amount else 0 end as locked",
        Test("tests/integration/test_bookkeeper_capture.py::test_locked_money_is_captured_by_another_account"),
        Test("tests/integration/test_ledger_model.py::test_the_ledger_does_what_the_model_does"),
    ),
    single(
        "OPENING_TAKEN_FOR_OPEN_SQL",
        "Reservation: an account that another branch is opening counts as open",
        _LEDGER,
        "                when w.debit_opens <> 0 or w.credit_opens <> 0 then 'OPENING'\n",
        "                when w.kind > 0 and (w.debit_opens <> 0 or w.credit_opens <> 0) then 'OPENING'\n",
        Test(
            "tests/integration/test_bookkeeper_capture.py::test_an_account_that_another_branch_opens_is_not_there_yet"
        ),
    ),
    single(
        "ALL_MORE_THAN_THERE_IS_SQL",
        "Reservation: a batch is reserved at once though an account has not enough for all of it",
        _RESERVED_AT_ONCE,
        "d.reserved > a.balance - a.locked - a.reserved or ",
        "",
        Test("tests/integration/test_bookkeeper.py::test_a_batch_takes_no_more_than_there_is_and_no_less_than_fits"),
        Test("tests/integration/test_ledger_model.py::test_the_ledger_does_what_the_model_does"),
    ),
    single(
        "ALL_MORE_THAN_IS_LOCKED_SQL",
        "Reservation: a batch is reserved at once though an account has not enough locked for all of it",
        _RESERVED_AT_ONCE,
        " or d.releasing > a.locked - a.releasing\n",
        "\n",
        Test("tests/integration/test_bookkeeper_capture.py::test_only_locked_money_is_captured"),
    ),
    single(
        "ALL_THOUGH_OPENING_SQL",
        "Reservation: a batch is reserved at once though another branch is opening an account of it",
        _RESERVED_AT_ONCE,
        "                or m.debit_opening is not null or m.credit_opening is not null\n",
        "",
        Test("tests/integration/test_bookkeeper.py::test_an_account_is_opened_once_and_is_shut_until_then"),
    ),
    single(
        "REVERSED_TWICE_SQL",
        "Settlement: a trade that is settled is reversed by two branches",
        _SETTLEMENT,
        "                when t.reversal is not null then 'TRADE_BEING_REVERSED'\n",
        "",
        Test("tests/integration/test_settlement.py::test_a_reversed_trade_nets_to_nothing_and_stays_reversed"),
    ),
    Mutant(
        "TRADES_UNLOCKED_SQL",
        "Settlement: lock and check are one statement, and what is marked is not looked at again",
        (
            Patch(_SETTLEMENT, "    perform settlement.lock_trades(committed || undone, operations);\n", ""),
            Patch(
                "sidecars/settlement/migrations/0003_reversed_once.sql",
                "(old.reversal is not null or old.status <> 2)",
                "old.status <> 2",
            ),
        ),
        (Test("tests/integration/test_settlement.py::test_rivals_that_waited_for_one_trade_get_one_yes"),),
    ),
    single(
        "NEIGHBOUR_LEFT_OUT_SQL",
        "Settlement: a branch is refused for a trade that nobody took",
        _SETTLEMENT,
        "            when j.first_at in (select n.b from unfit as n) then 'AGAIN'\n",
        "",
        Test("tests/integration/test_settlement.py::test_of_a_batch_that_wants_one_trade_the_first_that_fits_has_it"),
    ),
    single(
        "REFUSED_TRADE_STAYS_SQL",
        "Settlement: a refused branch leaves a trade behind",
        _SETTLEMENT,
        "            delete from settlement.trades as t where t.branch = any (unfit_branches);\n",
        "            perform 1;\n",
        Test("tests/integration/test_settlement.py::test_of_a_batch_that_wants_one_trade_the_first_that_fits_has_it"),
    ),
    single(
        "REVERSAL_NOT_NETTED_SQL",
        "Settlement: a reversed trade stays in the positions",
        _SETTLEMENT,
        "from settlement.lines as l where l.reversal = any (branches) and l.is_reversal\n",
        "from settlement.lines as l where false and l.is_reversal\n",
        Test("tests/integration/test_settlement.py::test_a_reversed_trade_nets_to_nothing_and_stays_reversed"),
    ),
    single(
        "PAYMENT_ROUNDED_UP",
        "Settlement: fills of an order may cost more than was locked for it",
        _PLAN,
        "_PRODUCT: Final = Context(prec=160, rounding=ROUND_DOWN)\n",
        "_PRODUCT: Final = Context(prec=160)\n",
        Test("tests/integration/test_settlement.py::test_what_is_due_is_exact_and_rounded_down"),
    ),
)
