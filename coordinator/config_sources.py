"""Where a configuration comes from: a YAML or JSON file, then the environment; and its complaints."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import yaml
from pydantic import BaseModel, ValidationError

from participant_sdk import exact_json

ENVIRONMENT_PREFIX: Final = "PINCEX_"
ENVIRONMENT_SEPARATOR: Final = "__"
LOG_LEVEL_VARIABLE: Final = "LOG_LEVEL"
FILE_MAX_BYTES: Final = 64 * 1024

Tree = dict[str, object]


class InvalidConfigError(Exception):
    """The configuration cannot be used. The message names the file or variable, the key and what is allowed."""


class _StrictLoader(yaml.SafeLoader):
    """YAML without Python objects, and without the last of two equal keys winning."""


def _read_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> Tree:
    tree: Tree = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key in tree:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice or is no plain word", key_node.start_mark
            )
        tree[key] = loader.construct_object(value_node, deep=True)  # pyright: ignore[reportUnknownMemberType] PyYAML's stubs leave it open
    return tree


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _read_mapping)


def read_file(path: Path) -> Tree:
    """Read a configuration file: JSON where its name ends so, else YAML. InvalidConfigError when it cannot be."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"the configuration {path} cannot be read: {error}") from error
    if len(text) > FILE_MAX_BYTES:
        raise InvalidConfigError(f"the configuration {path} is larger than {FILE_MAX_BYTES} bytes")
    try:
        value: object = exact_json.loads(text) if path.suffix == ".json" else _load_yaml(text)
    except (yaml.YAMLError, exact_json.InvalidJsonError, RecursionError) as error:
        raise InvalidConfigError(f"the configuration {path} is malformed: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidConfigError(f"the configuration {path} is no mapping of keys to values")
    return cast(Tree, value)  # Both readers make keys of text only.


def overlay_environment(tree: Tree, environ: Mapping[str, str], sections: Sequence[str]) -> None:
    """Put the environment's values over the file's, in place. InvalidConfigError for an unknown section."""
    level = environ.get(LOG_LEVEL_VARIABLE)
    if level:
        _put(tree, ["logging", "level"], level, LOG_LEVEL_VARIABLE)
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split(ENVIRONMENT_SEPARATOR)
        if path[0] in sections:
            _put(tree, path, _read_variable(name, environ[name]), name)
        elif len(path) > 1:
            raise InvalidConfigError(f"{name}: unknown key {path[0]}; known here: {', '.join(sections)}")


def complaints(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One line for each thing that is wrong: the key, and what is allowed there."""
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in each["loc"]) or "configuration"
        match each["type"]:
            case "extra_forbidden":
                known = _known_keys(model, each["loc"][:-1])
                near = difflib.get_close_matches(str(each["loc"][-1]), known, 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                yield f"{key}: unknown key{meant}; known here: {', '.join(known)}"
            case "missing":
                yield f"{key}: required"
            case "value_error":
                yield f"{key}: {each['msg'].removeprefix('Value error, ')}"
            case _:
                yield f"{key}: {each['msg']}"


def _load_yaml(text: str) -> object:
    return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader, stricter still


def _read_variable(name: str, text: str) -> object:
    """A list or mapping is YAML or JSON; everything else is taken as it stands."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return _load_yaml(text)
    except yaml.YAMLError as error:
        raise InvalidConfigError(f"{name} is malformed: {error}") from error


def _put(tree: Tree, path: Sequence[str], value: object, source: str) -> None:
    for key in path[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise InvalidConfigError(f"{source}: {key} is no section")
        tree = cast(Tree, below)  # As above: the readers make keys of text only.
    tree[path[-1]] = value


def _known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the section at this path."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        arguments: tuple[object, ...] = getattr(annotation, "__args__", ())
        found = next(
            (each for each in (annotation, *arguments) if isinstance(each, type) and issubclass(each, BaseModel)), None
        )
        if found is None:
            return []
        model = found
    return list(model.model_fields)
