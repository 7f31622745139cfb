"""The simulator on the product: seeds that must pass, traces that must agree, defects that must be noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.copies import TreeCopy
from tests.mutants.mutant import Seeds
from tests.simulation.faults import LOSSES, Fault, draw
from tests.simulation.rest import in_doubt
from tests.simulation.seeds import kept_seeds, run_once, run_seed
from tests.simulation.world import World

pytestmark = pytest.mark.uncounted

FEW_SEEDS = (1, 2, 3, 4)
# What the protocol stands on; ``python -m tests.mutants --simulation`` asks the seeds about all that they notice.
BROKEN_RULES = ("COMMIT_SENT_EARLY", "TOLD_EARLY", "VOTE_BEFORE_FLUSH")


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_a_seed_shows_no_violation_and_one_trace(seed: int) -> None:
    """Each seed runs twice: the same trace, and every invariant held."""
    verdict = run_seed(seed)
    assert verdict.violations == ()
    assert verdict.result.transactions >= 50
    assert verdict.result.committed > 0


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_once_failed_stays_mended(seed: int) -> None:
    assert run_once(draw(seed)).violations == ()


def test_the_trace_is_the_same_under_any_hash_seed() -> None:
    """Nothing in the product may iterate over a set, or the order of its work is the hash seed's."""
    program = (
        "from tests.simulation.faults import draw\n"
        "from tests.simulation.seeds import run_once\n"
        "print(*(run_once(draw(seed)).digest for seed in (5, 6, 7)))\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


@pytest.fixture(scope="module")
def tree() -> Iterator[TreeCopy]:
    with TreeCopy.made() as copy:
        yield copy


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_a_broken_rule_is_noticed(tree: TreeCopy, name: str) -> None:
    """The oracle sees: a few seeds of a product that breaks one rule show a violation."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    with tree.patched(mutant.patches):
        testimony = tree.ask(Seeds(1, 5))
    assert testimony.noticed, testimony.what


def test_a_mix_is_drawn_by_its_seed_and_shrinks_by_kinds() -> None:
    mix = draw(11)
    assert mix == draw(11) != draw(12)
    assert mix.chances
    first = next(iter(mix.chances))
    assert mix.without(first).chance(first) == 0
    assert first.name in mix.describe()


def test_a_mix_shrinks_by_transactions_clients_and_hosts() -> None:
    mix = draw(11)
    assert any(less.transactions < mix.transactions for less in mix.smaller())
    assert any(less.participants < mix.participants for less in mix.smaller())
    assert all(less.transactions >= 5 and less.participants >= 2 and less.clients >= 1 for less in mix.smaller())


def test_a_seed_draws_one_database_at_most_that_loses_its_tail() -> None:
    assert all(sum(fault in draw(seed).chances for fault in LOSSES) <= 1 for seed in range(200))


def test_every_kind_of_fault_is_drawn_by_some_seed() -> None:
    drawn = {fault for seed in range(100) for fault in draw(seed).chances}
    assert drawn == set(Fault)


def test_a_whole_run_ends_with_nothing_in_doubt_and_all_money_there() -> None:
    """Where no store is restored and no branch forced, all of it is there, and not only what is left of it."""
    mix = draw(8)
    for fault in (*LOSSES, Fault.OPERATOR_FORCES, Fault.OPERATOR_RESOLVES):
        mix = mix.without(fault)
    world = World(mix)
    result = world.run()
    assert result.violations == ()
    assert in_doubt(world.oracle) == []
    accounts = [account for host in world.participants for account in host.store.durable.accounts.values()]
    assert sum(account.balance for account in accounts) == sum(
        balance for host in world.participants for balance in host.store.opening.values()
    )
    assert all(account.held == 0 for account in accounts)
