"""What a mutant is: a patch of the product's text that breaks one rule, and the witnesses that must notice it."""

from __future__ import annotations

from typing import NamedTuple


class Patch(NamedTuple):
    """A replacement in one file, named by its path in the repository; ``before`` must be there exactly once."""

    path: str
    before: str
    after: str


class Seeds(NamedTuple):
    """A witness: seeds of the simulation, run one after the other until one finds a violation."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"seeds {self.first} to {self.last}"


class Test(NamedTuple):
    """A witness: a test, by pytest's name for it; it must fail."""

    # Pytest takes it for a class of tests wherever it is imported.
    __test__ = False

    node: str

    def __str__(self) -> str:
        return self.node


Witness = Seeds | Test


class Mutant(NamedTuple):
    """One or more patches that break a rule. The witnesses are asked in order, the fastest first.

    ``harmless`` is the proof, in words, that nothing can notice it; such a one has no witnesses.
    """

    name: str
    rule: str
    patches: tuple[Patch, ...]
    witnesses: tuple[Witness, ...]
    harmless: str = ""


def single(name: str, rule: str, path: str, before: str, after: str, *witnesses: Witness) -> Mutant:
    """Make a mutant of one patch."""
    return Mutant(name, rule, (Patch(path, before, after),), witnesses)
