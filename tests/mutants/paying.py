"""Mutants of fiat, the wallet and their attendants, and of trading's books: money that leaves twice, or never."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

_FIAT: Final = "sidecars/fiat/migrations/0002_reservation.sql"
_MARKED: Final = "sidecars/fiat/migrations/0003_marked_once.sql"
_CLAIM: Final = "sidecars/fiat/sql/claim_payments.sql"
_WALLET: Final = "sidecars/wallet/migrations/0002_reservation.sql"
_JUDGED: Final = "sidecars/wallet/migrations/0003_batches.sql"
_PAYMENTS: Final = "sidecars/wallet/migrations/0004_payments.sql"
_BROADCASTING: Final = "sidecars/wallet/broadcasting.py"
_UNLOCKED: Final = "tests/integration/test_judged_unlocked.py::"
_IN_FIAT: Final = "tests/integration/test_fiat.py::"
_AT_THE_BANK: Final = "tests/integration/test_fiat_bank.py::"
_IN_WALLET: Final = "tests/integration/test_wallet.py::"
_RACES: Final = "tests/integration/test_money_races.py::"
_OF_A_NODE: Final = "tests/integration/test_wallet_node_nonsense.py::"

MUTANTS: Final = (
    Mutant(
        "LIMIT_SHARED_BY_ALL_SQL",
        "Fiat: branches of one batch each have the whole day's limit, and what is written is not checked again",
        (
            Patch(
                _FIAT,
                "        when used + running > daily then fiat.no('AGAIN', 'amount', '')\n",
                "",
            ),
            Patch(_MARKED, "    if is_over then\n", "    if false then\n"),
        ),
        (Test(f"{_IN_FIAT}test_a_limit_is_shared_out_in_order_and_a_refused_one_takes_nothing"),),
    ),
    single(
        "OWN_SUM_IGNORED_SQL",
        "Fiat: a branch's own operations each have the whole day's limit",
        _FIAT,
        "        when used + own > daily then\n",
        "        when used + amount > daily then\n",
        Test(f"{_IN_FIAT}test_a_branchs_own_operations_count_together"),
    ),
    Mutant(
        "USERS_UNLOCKED_SQL",
        "Fiat: lock and check are one statement, and what is written is not checked again",
        (
            Patch(_FIAT, "    perform fiat.lock_keys(committed || undone, operations);\n", ""),
            Patch(_MARKED, "    if is_over then\n", "    if false then\n"),
        ),
        (Test(f"{_RACES}test_of_two_in_fiat_the_second_is_judged_once_the_first_is_done"),),
    ),
    single(
        "REFUSED_REFERENCE_KEPT_SQL",
        "Fiat: a refused branch leaves its deposit behind",
        _FIAT,
        "        delete from fiat.deposits as d where d.branch in (select numbers[r.at] from unnest(refused)"
        " as r (at));\n",
        "",
        Test(f"{_IN_FIAT}test_only_what_the_bank_told_is_recorded"),
        Test("tests/integration/test_fiat.py"),
    ),
    single(
        "AMOUNT_NOT_COMPARED_SQL",
        "Fiat: more is recorded than the bank told of",
        _FIAT,
        "        when told.amount <> amount then\n",
        "        when told.amount < 0 then\n",
        Test(f"{_IN_FIAT}test_only_what_the_bank_told_is_recorded"),
    ),
    single(
        "CANCELLED_STILL_COUNTS_SQL",
        "Fiat: a cancelled withdrawal counts against the day's limit for ever",
        _FIAT,
        "    if ended.user_ids is not null then\n",
        "    if false then\n",
        Test(f"{_IN_FIAT}test_a_cancelled_withdrawal_gives_the_limit_back_and_is_never_paid"),
    ),
    single(
        "CANCELLED_IS_PAID_SQL",
        "Fiat: the bank is told of a cancelled withdrawal",
        _FIAT,
        "select m.withdrawal_id from moved as m where m.status = 3\n",
        "select m.withdrawal_id from moved as m where m.status >= 3\n",
        Test(f"{_IN_FIAT}test_a_cancelled_withdrawal_gives_the_limit_back_and_is_never_paid"),
    ),
    single(
        "ENDED_TWICE_SQL",
        "Fiat: one branch completes what another is about to cancel",
        _FIAT,
        "or found.ending is not null or not is_first then\n",
        "or not is_first then\n",
        Test(f"{_IN_FIAT}test_a_withdrawal_is_reserved_completed_and_queued_once"),
    ),
    single(
        "CLAIMED_TOGETHER_SQL",
        "Fiat: a claimed payment stays due, so everybody sends it",
        _CLAIM,
        "        due_at = now() + make_interval(secs => %(lease_s)s)\n",
        "        due_at = p.due_at + make_interval(secs => 0 * %(lease_s)s)\n",
        Test(f"{_AT_THE_BANK}test_a_payment_is_claimed_by_one_sender_until_its_lease_ends"),
    ),
    single(
        "FORGOTTEN_KEY_SENT_AGAIN",
        "Fiat: a payment whose key the bank may have forgotten is sent again",
        "sidecars/fiat/payments.py",
        "            if age_s + self._settings.timeout_s > self._settings.key_lifetime_s:\n",
        "            if age_s < 0:\n",
        Test(f"{_AT_THE_BANK}test_an_old_key_that_the_bank_does_not_know_is_not_sent_again"),
    ),
    single(
        "OTHER_PAYMENT_BELIEVED",
        "Fiat: the bank's answer about another payment settles this one",
        "sidecars/fiat/bank.py",
        "    if not payment.is_of(order):\n",
        "    if not payment.payment_id:\n",
        Test(f"{_AT_THE_BANK}test_an_answer_about_something_else_proves_nothing"),
    ),
    single(
        "HOT_WALLETS_UNLOCKED_SQL",
        "Wallet: lock and check are one statement",
        _JUDGED,
        "    perform wallet.lock_keys(committed || undone, asked);\n",
        "",
        Test(f"{_RACES}test_of_two_in_the_wallet_the_second_is_judged_once_the_first_is_done"),
    ),
    single(
        "DAY_NOT_SHARED_SQL",
        "Wallet: branches of one batch each have the whole day's limit",
        _JUDGED,
        "                when s.k = 1 and s.of_day + s.running_day > (s.hot).day_max then 'AGAIN'\n",
        "",
        Test(f"{_IN_WALLET}test_branches_of_one_batch_share_a_users_day_in_order"),
    ),
    single(
        "OUTPUT_CREDITED_TWICE_SQL",
        "Wallet: a deposit that was rolled back stays",
        _WALLET,
        "    delete from wallet.deposits as d where d.branch = any (branches) and d.posted_at is null;\n",
        "",
        Test(f"{_IN_WALLET}test_a_rollback_leaves_nothing"),
    ),
    single(
        "FEE_STAYS_RESERVED_SQL",
        "Wallet: what was reserved for the chain's fee is never free again",
        _WALLET,
        "case c.status when 7 then -(c.amount + p.fee) else 0 end, -(c.amount + c.fee)\n",
        "case c.status when 7 then -(c.amount + p.fee) else 0 end, -c.amount\n",
        Test(f"{_IN_WALLET}test_a_withdrawal_from_its_reservation_to_the_books"),
    ),
    single(
        "CANCELLED_AFTER_SIGNING_SQL",
        "Wallet: a withdrawal whose payment may be sent is cancelled",
        _WALLET,
        "(asked.k = 5 and found.status > 3)",
        "(asked.k = 5 and found.status > 4)",
        Test(f"{_IN_WALLET}test_what_is_queued_can_be_cancelled_until_it_is_signed"),
    ),
    single(
        "SIGNED_WHILE_CANCELLED_SQL",
        "Wallet: a payment is stored for what a branch in doubt is about to cancel",
        _PAYMENTS,
        "    where w.withdrawal_id = named and w.status = 3 and w.changing is null and w.fee >= paid_fee\n",
        "    where w.withdrawal_id = named and w.status = 3 and w.fee >= paid_fee\n",
        Test(f"{_IN_WALLET}test_what_is_queued_can_be_cancelled_until_it_is_signed"),
    ),
    single(
        "UNSTORED_IS_SENT",
        "Wallet: a payment that another process stored first is sent too",
        _BROADCASTING,
        "        return signed if row is not None and row[0] else None\n",
        "        return signed if row is not None else None\n",
        Test(f"{_OF_A_NODE}test_what_is_cancelled_while_it_is_signed_is_not_sent"),
    ),
    single(
        "OTHER_AMOUNT_SIGNED",
        "Wallet: the node's payment is sent whatever it pays",
        "sidecars/wallet/bitcoind.py",
        "!= [amount] or len(decoded.vout) > 2:\n",
        "== [] or len(decoded.vout) > 2:\n",
        Test(f"{_OF_A_NODE}test_a_payment_of_another_amount_is_not_sent"),
    ),
    single(
        "FIRST_PAGE_ALONE",
        "Wallet: what cannot be paid keeps the others waiting",
        _BROADCASTING,
        "            page = await self._page(page[-1])\n",
        "            page = []\n",
        Test(f"{_OF_A_NODE}test_what_cannot_be_paid_does_not_keep_the_others_waiting"),
    ),
    single(
        "MATCHED_TWICE_SQL",
        "Trading: two matchers that stand at one number both record",
        "sidecars/trading/migrations/0003_matching.sql",
        "    where m.symbol = a_symbol and m.matched_sequence = matched_from\n",
        "    where m.symbol = a_symbol\n",
        Test("tests/integration/test_matching.py::test_a_matcher_that_was_overtaken_records_nothing"),
    ),
    single(
        "BOOKS_READ_WHOLE_SQL",
        "Trading: a Commit reads every open order to find those that it cancels",
        "sidecars/trading/migrations/0006_found_by_branch.sql",
        "o.status + 0 = 2",
        "o.status = 2",
        Test("tests/integration/test_batches_read_little.py"),
    ),
    single(
        "LATE_USERS_LIMIT_SQL",
        "Fiat: two batches each give the whole day's limit to a user who was cleared while they waited",
        _MARKED,
        "    if is_over then\n",
        "    if false then\n",
        Test(f"{_UNLOCKED}test_a_days_limit_in_fiat_is_one_for_a_user_who_was_cleared_meanwhile"),
    ),
    single(
        "ENDED_TWICE_UNLOCKED_SQL",
        "Fiat: what one branch completes another cancels, for neither found it there when it locked",
        _MARKED,
        "(old.ending is not null or old.status > 2)",
        "old.status > 2",
        Test(f"{_UNLOCKED}test_a_withdrawal_in_fiat_is_ended_once"),
    ),
    single(
        "CHANGED_TWICE_UNLOCKED_SQL",
        "Wallet: what one branch has sent another gives back, for neither found it there when it locked",
        "sidecars/wallet/migrations/0005_changed_once.sql",
        "        old.changing is not null\n        or not case",
        "        not case",
        Test(f"{_UNLOCKED}test_a_withdrawal_in_the_wallet_is_changed_once"),
    ),
    single(
        "CANCELLED_TWICE_UNLOCKED_SQL",
        "Trading: two branches cancel one order, for neither found it there when it locked",
        "sidecars/trading/migrations/0007_cancelled_once.sql",
        "(old.cancelling is not null or old.cancel_sequence is not null",
        "(old.cancel_sequence is not null",
        Test(f"{_UNLOCKED}test_an_order_is_cancelled_once"),
    ),
    single(
        "REVERSED_TWICE_UNLOCKED_SQL",
        "Settlement: two branches reverse one trade, for neither found it there when it locked",
        "sidecars/settlement/migrations/0003_reversed_once.sql",
        "(old.reversal is not null or old.status <> 2)",
        "old.status <> 2",
        Test(f"{_UNLOCKED}test_a_trade_is_reversed_once"),
    ),
)
