"""The catalogue itself: every mutant can be made from the product's present text, and every witness is there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.copies import PARTS, ROOT
from tests.mutants.mutant import Mutant, Seeds, Test

ALL = pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
# Whose mutants there must be, whatever becomes of the catalogue.
RULES = {f"R{number}" for number in range(1, 20)}


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


def test_every_rule_of_the_protocol_is_broken_by_some_mutant() -> None:
    assert {found for mutant in MUTANTS for found in re.findall(r"\bR\d+\b", mutant.rule)} == RULES


@ALL
def test_every_patch_applies_once(mutant: Mutant) -> None:
    """The product moves on: a patch whose text is not there any more breaks nothing, so nothing need notice it."""
    texts: dict[str, str] = {}
    for patch in mutant.patches:
        assert Path(patch.path).parts[0] in PARTS
        text = texts.setdefault(patch.path, (ROOT / patch.path).read_text(encoding="utf-8"))
        assert text.count(patch.before) == 1
        changed = text.replace(patch.before, patch.after)
        assert changed != text
        if patch.path.endswith(".py"):
            ast.parse(changed)


@ALL
def test_a_mutant_has_witnesses_or_a_proof_that_it_is_harmless(mutant: Mutant) -> None:
    assert bool(mutant.witnesses) is not bool(mutant.harmless)
    assert mutant.patches


@ALL
def test_every_witness_is_there(mutant: Mutant) -> None:
    for witness in mutant.witnesses:
        match witness:
            case Seeds(first, last):
                assert 0 < first <= last
            case Test(node):
                path, *names = node.partition("[")[0].split("::")
                assert (ROOT / path).is_file()
                assert "::".join(names) in _tests_of(path) | {""}, node


@cache
def _tests_of(path: str) -> frozenset[str]:
    """The tests of a file, and its classes of tests, by pytest's names for them."""
    return frozenset(_named("", ast.parse((ROOT / path).read_text(encoding="utf-8")).body))


def _named(prefix: str, body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from _named(f"{prefix}{node.name}::", node.body)
