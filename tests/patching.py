"""Patches of the product's text that live in one process and nowhere else: an import hook compiles the patched text.

Crash points are made so, and what benchmarks withhold; mutants are made in copies of the tree (``tests.mutants``).
A patch that does not apply fails loudly: the product moved on.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

Patch = Callable[[str], str]


class PatchError(ImportError):
    """A patch does not apply: what it is put to is not there, or not once."""


def replacing(name: str, before: str, after: str) -> Patch:
    """A patch that puts ``after`` in the place of ``before``, which must be there exactly once."""

    def patch(text: str) -> str:
        if (count := text.count(before)) != 1:
            raise PatchError(f"{name} does not apply: its text is there {count} times")
        return text.replace(before, after)

    return patch


def install(patches: Mapping[str, Patch]) -> None:
    """Have these modules imported patched. PatchError if one of them is imported already."""
    for module in patches:
        if module in sys.modules:
            raise PatchError(f"{module} is imported already, unpatched")
    sys.meta_path.insert(0, _Hook(patches))


def text_of(module: str) -> str:
    """A module's source. PatchError where there is none."""
    return Path(_origin_of(module)).read_text(encoding="utf-8")


class _Patched(SourceFileLoader):
    """Loads one module from its file's text, patched."""

    def __init__(self, fullname: str, path: str, patch: Patch) -> None:
        super().__init__(fullname, path)
        self._patch = patch

    def get_code(self, fullname: str) -> CodeType:
        """Compile the patched text; nothing of it is cached."""
        text = self.get_data(self.path).decode()
        return compile(self._patch(text), self.path, "exec", dont_inherit=True)


class _Hook(MetaPathFinder):
    """Finds the patched modules, and leaves every other to Python."""

    def __init__(self, patches: Mapping[str, Patch]) -> None:
        self._patches = patches

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Name the loader of a patched module."""
        patch = self._patches.get(fullname)
        if patch is None:
            return None
        sys.meta_path.remove(self)
        try:
            origin = _origin_of(fullname)
        finally:
            sys.meta_path.insert(0, self)
        return importlib.util.spec_from_file_location(fullname, origin, loader=_Patched(fullname, origin, patch))


def _origin_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise PatchError(f"{module} is not there to be patched")
    return spec.origin
