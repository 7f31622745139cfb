"""Mutants of the locks: who is granted what, tokens that only rise, who gives way, and what a lost lock means.

Of transactions, and of workflows.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Test, single

_LOCKS: Final = "coordinator/locks/locks.py"
_STORE: Final = "coordinator/locks/redis_store.py"
_TABLE: Final = "coordinator/locks/lock_table.py"
_PRELUDE: Final = "coordinator/locks/lua/prelude.lua"
_TRANSACTIONS: Final = "coordinator/locks/transaction_locks.py"
_OF_WORKFLOWS: Final = "coordinator/workflows/locking.py"
_WORK: Final = "coordinator/workflows/run.py"
_CONTRACT: Final = "tests/contract/test_lock_store.py"
_DOORS: Final = "tests/api/test_locks.py"
_HELD: Final = "tests/locks/test_locks.py"
_HELD_BY_WORKFLOWS: Final = "tests/engine/test_workflow_locks.py"
_FENCING: Final = "tests/integration/test_fencing.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    single(
        "LOCK_TIME_OUT_TAKEN_AS_ACQUIRED",
        "Locks: a time-out is no grant",
        _LOCKS,
        '            result = "unavailable" if held.trouble else "timeout"\n'
        "            raise await self._too_late(held, within_s) from None\n",
        '            result, grant = "granted", Grant(claim, 1)\n',
        Test(f"{_HELD}::TestWithAStoreThatIsThere::test_held_for_longer_than_its_ttl_it_is_still_held[memory]"),
        Test(f"{_DOORS}::TestLockKeys::test_keys_not_let_go_in_time_roll_back_with_retry"),
    ),
    single(
        "HELD_KEY_GRANTED",
        "Locks: a key that is held is granted to another",
        _TABLE,
        "        if any(excludes(claim, held.claim) for held in key.granted):\n            return True\n",
        "",
        Test(f"{_CONTRACT}::TestGranting::test_what_is_free_is_granted_and_what_is_held_waits[memory]"),
    ),
    single(
        "HELD_KEY_GRANTED_IN_REDIS",
        "Locks: a key that is held is granted to another",
        _PRELUDE,
        "    if excludes(claim, held) then return true end\n",
        "",
        Test(f"{_CONTRACT}::TestGranting::test_what_is_free_is_granted_and_what_is_held_waits[redis]"),
    ),
    single(
        "FENCING_TOKEN_REUSED_AFTER_FLUSH",
        "Locks: a store that lost what it knew begins an epoch that was never used",
        _STORE,
        'epoch = await self._epochs.draw(f"Redis may have lost the locks: {why}")',
        'epoch = await self._epochs.highest() or await self._epochs.draw(f"Redis may have lost the locks: {why}")',
        Test(f"{_CONTRACT}::TestTokens::test_a_store_that_lost_everything_gives_higher_tokens_and_knows_nobody[redis]"),
        Test(f"{_HELD}::TestRedisThatIsLost::test_flushed_again_and_again_tokens_only_rise"),
    ),
    single(
        "FENCING_TOKEN_REUSED_IN_MEMORY",
        "Locks: a store that lost what it knew begins an epoch that was never used",
        "coordinator/locks/memory.py",
        "epoch = await self._epochs.draw(",
        "epoch = await self._epochs.highest() or await self._epochs.draw(",
        Test(
            f"{_CONTRACT}::TestTokens::test_a_store_that_lost_everything_gives_higher_tokens_and_knows_nobody[memory]"
        ),
    ),
    single(
        "OVERTAKEN_EPOCH_USED",
        "Locks: an epoch runs only if no higher one was drawn before it",
        _STORE,
        "            if await self._epochs.highest() != epoch:\n                return False\n",
        "",
        Test(f"{_CONTRACT}::TestTokens::test_an_epoch_that_was_overtaken_while_it_began_is_not_used[redis]"),
    ),
    single(
        "RESTARTED_REDIS_BELIEVED",
        "Locks: what a server that restarted, or took another's place, still knows is not believed",
        _PRELUDE,
        "  if run ~= run_id() then return nil, 'it was restarted, or another server took its place' end\n",
        "",
        Test(f"{_HELD}::TestRedisThatIsLost::test_killed_and_restarted_all_is_lost_and_tokens_rise"),
    ),
    single(
        "QUEUE_OVERTAKEN",
        "Locks: nobody overtakes who excludes it",
        _TABLE,
        "return any(excludes(claim, other.claim) for other in key.waiting if other.place < entry.place)",
        "return False",
        Test(f"{_CONTRACT}::TestGranting::test_nobody_overtakes_who_excludes_it[memory]"),
    ),
    single(
        "QUEUE_OVERTAKEN_IN_REDIS",
        "Locks: nobody overtakes who excludes it",
        _PRELUDE,
        "    if excludes(claim, other) then return true end\n",
        "",
        Test(f"{_CONTRACT}::TestGranting::test_nobody_overtakes_who_excludes_it[redis]"),
    ),
    single(
        "OLDEST_GIVES_WAY",
        "Locks: the youngest of a circle gives way",
        "coordinator/locks/deadlock.py",
        "last = max(circle,",
        "last = min(circle,",
        Test("tests/locks/test_deadlock.py::test_a_circle_of_two_is_found_from_either_and_the_youngest_gives_way"),
    ),
    single(
        "DEADLOCK_NOT_LOOKED_FOR",
        "Locks: those that wait in a circle are found",
        _LOCKS,
        "        if not self.settings.deadlock_detection or len(self._claims.of(owner)) <= 1:\n",
        "        if owner:\n",
        Test(
            f"{_DOORS}::TestStepByStep::test_of_two_that_wait_for_each_other_the_youngest_is_rolled_back"
            "_and_the_other_commits"
        ),
    ),
    single(
        "VICTIM_NOT_ROLLED_BACK",
        "Locks: the transaction that gives way is rolled back with the reason DEADLOCK",
        _TRANSACTIONS,
        "            self._end(xid, error.message, error.reason)\n            raise DeadlockError(",
        "            raise DeadlockError(",
        Test(
            f"{_DOORS}::TestStepByStep::test_of_two_that_wait_for_each_other_the_youngest_is_rolled_back"
            "_and_the_other_commits"
        ),
    ),
    single(
        "LOST_LOCK_COMMITS",
        "Locks: a transaction that lost a lock before it commits is rolled back",
        _TRANSACTIONS,
        "        if running.transaction.phase is Phase.ACTIVE:\n            self._engine.set_rollback_only(",
        "        if running is None:\n            self._engine.set_rollback_only(",
        Test(f"{_DOORS}::TestOperators::test_a_broken_lock_is_free_and_its_transaction_is_rolled_back"),
    ),
    single(
        "UNREACHABLE_LOCK_BELIEVED",
        "Locks: what could not be kept alive for a TTL counts as held, and another has it by now",
        _LOCKS,
        "            if held.grant is not None and now_s >= held.valid_until_s:\n",
        "            if held.grant is None and now_s >= held.valid_until_s:\n",
        Test(f"{_HELD}::TestRedisThatIsLost::test_away_for_longer_than_the_ttl_what_is_held_counts_as_lost"),
    ),
    single(
        "PREPARED_BEFORE_ITS_LOCKS",
        "Locks: nothing is sent to participants before the keys are held",
        "coordinator/engine.py",
        "        if call.lock_keys:\n",
        "        if False:\n",
        Test(f"{_DOORS}::TestLockKeys::test_nothing_is_sent_to_participants_before_the_keys_are_held"),
    ),
    single(
        "LOCKS_KEPT_FOR_EVER",
        "Locks: they are let go when the transaction has finished",
        "coordinator/engine.py",
        "        if running.locks:\n            self._drop_locks(running)\n",
        "",
        Test(f"{_DOORS}::TestLockKeys::test_a_transaction_holds_its_keys_until_it_has_finished"),
    ),
    single(
        "LOCKS_LET_GO_AT_THE_DECISION",
        "Locks: who takes a key next finds what its last holder did",
        "coordinator/engine.py",
        "            self._take(running, recorded, now_s, stories[record.decision])\n",
        "            self._take(running, recorded, now_s, stories[record.decision])\n"
        "            if running.locks:\n                self._drop_locks(running)\n",
        Test(f"{_DOORS}::TestLockKeys::test_its_keys_are_held_for_as_long_as_a_branch_owes_its_commit"),
    ),
    single(
        "OUTDATED_TOKEN_PREPARED",
        "Locks: a participant refuses whoever held a key before its last holder that it has seen",
        "participant_sdk/resources/fencing.py",
        "outdated[at]) if at in outdated else plan",
        "outdated[at]) if False else plan",
        Test(f"{_FENCING}::test_a_token_lower_than_one_seen_is_refused_as_transient"),
    ),
    single(
        "TOKEN_CHECKED_WITHOUT_LOCK",
        "Locks: an older holder does not slip in behind a newer one",
        "participant_sdk/resources/reservation_migrations/0009_fencing.sql",
        "    perform from pincex.fencing as f where f.log = log_number and f.key = any (lock_keys)"
        " order by f.key for update;\n",
        "",
        Test(f"{_FENCING}::test_an_older_holder_does_not_slip_in_behind_a_newer_one"),
    ),
    single(
        "WORKFLOW_RUNS_UNLOCKED",
        "Locks: a workflow that did not get its keys in time counts them as held",
        _OF_WORKFLOWS,
        "            return Failure(code_of(error), error.message)\n",
        "            return None if code_of(error) else Failure(code_of(error), error.message)\n",
        Test(f"{_HELD_BY_WORKFLOWS}::test_without_its_keys_in_time_it_fails_before_any_step"),
    ),
    single(
        "WORKFLOW_REFUSAL_IGNORED",
        "Locks: a workflow begins its first step though its keys were refused",
        _WORK,
        "            if refusal is not None and self._is_unbegun:\n",
        "            if refusal is not None and not self._is_unbegun:\n",
        Test(f"{_HELD_BY_WORKFLOWS}::test_without_its_keys_in_time_it_fails_before_any_step"),
    ),
    single(
        "WORKFLOW_LETS_GO_EARLY",
        "Locks: a workflow's keys are let go before its end",
        _WORK,
        "                await self._fail(refusal, by_function=False)\n            await self._to_the_end()\n",
        "                await self._fail(refusal, by_function=False)\n        await self._to_the_end()\n",
        Test(f"{_HELD_BY_WORKFLOWS}::test_one_that_is_stuck_holds_its_keys"),
    ),
    single(
        "WORKFLOW_LOST_LOCK_IGNORED",
        "Locks: a workflow that lost its keys goes on without for good",
        _OF_WORKFLOWS,
        "            if await self._take(None) is None:\n",
        "            if self._keys:\n                return\n            if await self._take(None) is None:\n",
        Test(f"{_HELD_BY_WORKFLOWS}::test_keys_that_are_taken_from_it_are_taken_again"),
    ),
    single(
        "WORKFLOW_KEEPS_ITS_LOCKS",
        "Locks: a workflow that has ended holds its keys",
        _OF_WORKFLOWS,
        "            if self._grant is not None:\n                self._locks.release(self._grant)\n",
        "",
        Test(f"{_HELD_BY_WORKFLOWS}::test_it_begins_once_its_keys_are_granted_and_lets_them_go_at_its_end"),
    ),
    single(
        "CANCELLED_WORKFLOW_WAITS",
        "Locks: a workflow that is cancelled goes on waiting for its keys",
        _OF_WORKFLOWS,
        "        self._locks.withdraw(self._owner.name, error)\n",
        '        self._locks.withdraw("", error)\n',
        Test(f"{_HELD_BY_WORKFLOWS}::test_one_that_is_cancelled_waits_for_its_keys_no_more"),
    ),
)
