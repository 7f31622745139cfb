"""Where a crash point stands in the product's text, and the text with it put in.

A place is named by its module, its function, and the beginning of one statement there; the
call goes before that statement, after it, or at the function's beginning. Only what stands
there once will do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import groupby
from operator import attrgetter

from tests.patching import Patch, PatchError


class Where(Enum):
    """On which side of its statement a point is. ``ENTRY`` is the function's beginning, and has no statement."""

    BEFORE = auto()
    AFTER = auto()
    ENTRY = auto()


class Part(Enum):
    """Which process a point belongs to."""

    COORDINATOR = "coordinator"
    RESERVATION = "trading"
    XA = "bank"
    # Whoever plays another company.
    COMPANY = "chain"


class Need(Enum):
    """What it takes to come by a point, beside load."""

    LOAD = auto()
    # The process is told to stop.
    STOP = auto()
    # The process is started anew: another coordinator that lives does not come by.
    START = auto()
    # An operator forces a branch against the decision that is coming.
    FORCE = auto()
    # A participant dies in doubt: what it was asked fails for now, and it asks when it is back.
    OUTAGE = auto()


@dataclass(frozen=True, slots=True)
class Point:
    """A moment at which a process is killed.

    ``when`` is an expression of the place's own variables; without it every passing is a hit.
    ``delay_s`` kills so long after the hit, while what follows is under way. ``first`` names the
    point at which the process dies before: this one is then met in the recovery from that.
    """

    name: str
    part: Part
    module: str
    function: str
    where: Where
    anchor: str = ""
    when: str = ""
    delay_s: float = 0.0
    first: str = ""
    need: Need = Need.LOAD


def patches_of(points: Sequence[Point]) -> dict[str, Patch]:
    """A patch for each module that has points."""
    by_module = sorted(points, key=attrgetter("module"))
    return {module: partial(put, list(group)) for module, group in groupby(by_module, attrgetter("module"))}


def put(points: Sequence[Point], text: str) -> str:
    """The text of a module with its points in it. PatchError names the first that does not apply."""
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    placed = [(*_line_of(point, tree, lines), point) for point in points]
    # From the end, so that the numbers of the lines before stay true.
    for number, indent, point in sorted(placed, key=lambda place: (-place[0], place[2].name)):
        lines.insert(number, f"{' ' * indent}{_call(point)}\n")
    return "".join(lines)


def _call(point: Point) -> str:
    condition = f"if {point.when}: " if point.when else ""
    return f'{condition}__import__("tests.crash.trigger", fromlist=["hit"]).hit("{point.name}", {point.delay_s})'


def _line_of(point: Point, tree: ast.Module, lines: Sequence[str]) -> tuple[int, int]:
    """After how many lines the call goes, and how far it is indented."""
    function = _function(point, tree)
    _check_names(point, function)
    if point.where is Where.ENTRY:
        first = function.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(function.body) > 1:
            first = function.body[1]
        return first.lineno - 1, first.col_offset
    found = [node for node in _statements(function) if lines[node.lineno - 1].strip().startswith(point.anchor)]
    if len(found) != 1:
        raise PatchError(f"{point.name} does not apply: {point.module} has its statement {len(found)} times")
    (statement,) = found
    if point.where is Where.BEFORE:
        return statement.lineno - 1, statement.col_offset
    if isinstance(statement, ast.Return | ast.Raise) or statement.end_lineno is None:
        raise PatchError(f"{point.name} does not apply: nothing comes after its statement")
    return statement.end_lineno, statement.col_offset


def _check_names(point: Point, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """What the condition looks at must be the function's own."""
    arguments = function.args
    bound = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    condition = ast.parse(point.when or "True")
    for node in (*ast.walk(function), *ast.walk(condition)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    names = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)} - bound - {"any"}
    if names:
        raise PatchError(f"{point.name} does not apply: {point.function} has no {', '.join(sorted(names))}")


def _function(point: Point, tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef:
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    scope: list[ast.stmt] = tree.body
    *classes, name = point.function.split(".")
    for each in classes:
        scope = [child for node in scope if isinstance(node, ast.ClassDef) and node.name == each for child in node.body]
    found = [n for n in scope if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name]
    if len(found) != 1:
        raise PatchError(f"{point.name} does not apply: {point.module} has {point.function} {len(found)} times")
    return found[0]


def _statements(function: ast.AST) -> Iterator[ast.stmt]:
    """The statements within, but those of functions within."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from _statements(node)
