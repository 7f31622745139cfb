"""What no linter knows of this repository: sizes, names, dead modules, stale generated files."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PRODUCT: Final = ("coordinator", "deploy", "participant_sdk", "sidecars")
MODULE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60
SQL_LINES_MAX: Final = 3

BANNED: Final = re.compile(
    r"(?:^|_)(manager|helper|helpers|util|utils|common|base|handler|processor|factory|service_impl)(?:_|$)"
)
# XA says transaction manager, and the configuration's section is called so.
ALLOWED: Final = re.compile(r"(transaction|xa)_manager")

# Modules that nothing in the product imports, since something outside starts or imports them.
ENTRY_POINTS: Final = {
    "coordinator.cli": "the command pincex, in pyproject.toml",
    "deploy.fastest_python": "make setup",
    "coordinator.log.memory": "the log's second store, which the simulator breaks",
    "participant_sdk.conformance.__main__": "python -m participant_sdk.conformance",
    "participant_sdk.faults": "for tests and drills of services",
    "participant_sdk.interceptors": "for services that embed the SDK",
    "participant_sdk.load.__main__": "python -m participant_sdk.load",
    "participant_sdk.resources.memory": "for tests of services, and the simulator",
    "participant_sdk.resources.postgres_xa": "for services with SQL of their own",
    "participant_sdk.service": "for services of one's own",
    "participant_sdk.suite": "for clients, by XA's verbs",
    "participant_sdk.testing.fixtures": "a pytest plugin, for tests of services",
    "sidecars.main": "python -m sidecars.main",
    "sidecars.simulators.bank": "python -m sidecars.simulators.bank",
    "sidecars.simulators.chain": "python -m sidecars.simulators.chain",
}

_SQL: Final = re.compile(r"\s*(select|insert|update|delete|with|create|alter|merge)\s", re.IGNORECASE)
_IGNORE: Final = re.compile(r"#\s*(?P<what>noqa|type:\s*ignore|pyright:\s*ignore)(?P<rest>.*)")
_REASONED: Final = re.compile(r"(:\s*N802|(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|\[[A-Za-z, ]+\])[\s#;:-]*\w+)")
_NUMBERED: Final = re.compile(r"(\d{3,4})_[a-z0-9_]+\.sql")
# In pieces, so that this file does not contain them.
_UNFINISHED: Final = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_WORKPLACES: Final = re.compile("|".join((r"(?<![\w.])/wo" + r"rk/\w", r"(?<![\w.`])/ro" + "ot/", r"\.\./sha" + "red")))


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(sorted(path for path in set(paths) if path.is_file()))


def modules(*tops: str) -> Iterator[Path]:
    """The Python files below these folders; not the generated ones, which have rules of their own."""
    for path in files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in tops:
            yield path


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name(path))


def snake(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()


def defined_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The classes and functions that a module defines. Its variables may hold others' nouns, as logging's handlers."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports; ``from a import b`` gives both a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(path: Path) -> str:
    return name(path).removesuffix(".py").replace("/", ".")


def test_no_module_is_longer_than_a_person_reads() -> None:
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*PRODUCT, "tests")}
    assert {path: count for path, count in lines.items() if count > MODULE_LINES_MAX} == {}


def test_no_function_is_longer_than_fits_in_the_head() -> None:
    too_long = [
        f"{name(path)}:{node.lineno} {node.name}: {length} lines"
        for path in modules(*PRODUCT, "tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_no_name_is_one_that_says_nothing() -> None:
    """A module named after nothing collects everything."""
    found = [
        f"{name(path)}:{line} {defined}"
        for path in modules(*PRODUCT)
        for line, defined in [(0, path.stem), *defined_names(tree(path))]
        if BANNED.search(ALLOWED.sub("", snake(defined)))
    ]
    assert found == []


def test_packages_only_re_export() -> None:
    """Importing a package runs nothing."""
    found: list[str] = []
    for path in modules(*PRODUCT):
        if path.name == "__init__.py":
            docstring, *rest = tree(path).body or [None]
            assert isinstance(docstring, ast.Expr), f"{name(path)} has no docstring"
            found += [f"{name(path)}:{node.lineno}" for node in rest if node is not None and not _re_exports(node)]
    assert found == []


def _re_exports(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return True
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def test_every_module_is_used() -> None:
    """By the product itself: what only tests import is dead."""
    used = {imported for path in modules(*PRODUCT) for imported in imports(path)}
    unused = [
        name(path)
        for path in modules(*PRODUCT)
        if path.name != "__init__.py" and dotted(path) not in used and dotted(path) not in ENTRY_POINTS
    ]
    assert unused == []


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_entry_points_exist(entry: str) -> None:
    assert (ROOT / f"{entry.replace('.', '/')}.py").is_file(), ENTRY_POINTS[entry]


def test_long_sql_lives_in_sql_files() -> None:
    found = [
        f"{name(path)}:{node.lineno}"
        for path in modules(*PRODUCT)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _SQL.match(node.value)
        and len(node.value.strip().splitlines()) > SQL_LINES_MAX
    ]
    assert found == []


def test_every_silenced_rule_is_named_with_a_reason() -> None:
    """Beside it, or in a comment above. N802 needs none: the contract names gRPC's methods."""
    found: list[str] = []
    for path in modules(*PRODUCT):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [
            f"{name(path)}:{number + 1} {line.strip()}"
            for number, line in enumerate(lines)
            if (match := _IGNORE.search(line))
            and not _REASONED.match(match["rest"])
            and not lines[number - 1].lstrip().startswith("#")
        ]
    assert found == []


def test_migrations_are_numbered_without_gaps() -> None:
    """They are applied in their order, forward only, and a number names one of them for ever."""
    folders = {path.parent for path in files() if path.parent.name.endswith("migrations") and path.suffix == ".sql"}
    for folder in folders:
        matches = [_NUMBERED.fullmatch(path.name) for path in sorted(folder.glob("*.sql"))]
        numbers = [int(match[1]) for match in matches if match]
        assert numbers == list(range(1, len(matches) + 1)), name(folder)


def test_nothing_is_left_for_later_and_no_workplace_is_named() -> None:
    """What is not done is an issue, not a comment; what is written here must be true everywhere."""
    found = [
        f"{name(path)}:{number} {line.strip()[:100]}"
        for path in files()
        if path.suffix in {".py", ".md", ".sql", ".proto", ".toml", ".yaml", ".yml", ".json", ".sh"}
        or path.name in {"Makefile", "run"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _UNFINISHED.search(line) or _WORKPLACES.search(line)
    ]
    assert found == []


def test_pages_name_files_that_exist() -> None:
    """A page that points at nothing was not read after the last move."""
    pointer = re.compile(
        r"`((?:coordinator|participant_sdk|sidecars|proto|tests|docs|configs)/[\w./]+)`|\]\(([\w./-]+)\)"
    )
    missing = [
        f"{name(page)}: {target}"
        for page in files()
        if page.suffix == ".md"
        for ours, linked in pointer.findall(page.read_text(encoding="utf-8"))
        if (target := ours or linked) and not (ROOT / target).exists() and not (page.parent / target).exists()
    ]
    assert missing == []


def test_generated_code_is_what_the_contract_says(tmp_path: Path) -> None:
    """Generated files are never edited, and never forgotten."""
    subprocess.run(["make", "--silent", "generate", f"INTO={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    fresh = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*_pb2*.py*")}
    proto = ROOT / "proto"
    checked_in = {
        path.relative_to(proto): path.read_bytes() for path in files() if re.search(r"_pb2\w*\.pyi?$", path.name)
    }
    assert sorted(fresh) == sorted(checked_in)
    assert [str(path) for path, content in fresh.items() if checked_in[path] != content] == []


def test_the_lock_file_knows_what_the_project_asks_for() -> None:
    """``uv lock --check`` in ``make check`` looks at all of it; this needs no network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = tomllib.loads((ROOT / "uv.lock").read_text())
    (ours,) = (package for package in locked["package"] if package["name"] == project["project"]["name"])
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    asked = project["project"]["dependencies"] + [each for extra in extras.values() for each in extra]
    known = {requirement["name"] for requirement in ours["metadata"]["requires-dist"]}
    assert {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in asked} == known
