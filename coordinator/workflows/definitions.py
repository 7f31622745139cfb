"""What workflows there are: functions made definitions by a decorator, found in the modules that are configured."""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeVar

from coordinator.errors import InvalidRequestError
from participant_sdk.operations import Parameter
from participant_sdk.parameters import Parameters, RefusedError, read
from participant_sdk.participant import Operation

if TYPE_CHECKING:
    from coordinator.workflows.context import Workflow

KIND_FORM: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
VERSION_MAX_CHARS: Final = 64
_PATH: Final = "operations[0].parameters"

Model = TypeVar("Model", bound=Parameters)


class InvalidDefinitionError(Exception):
    """A module of workflows cannot be used. The message names it, and why."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One kind of workflow. ``check`` raises InvalidRequestError for wrong parameters; ``start`` runs the function."""

    kind: str
    version: str
    check: Callable[[str], None]
    start: Callable[[Workflow, str], Awaitable[Parameter]]


def workflow(
    kind: str, *, version: str, parameters: type[Model]
) -> Callable[[Callable[[Workflow, Model], Awaitable[Parameter]]], Definition]:
    """Make an async function the definition of a workflow; what it returns is the workflow's result.

    ``version`` names the code: give it another whenever the steps change. InvalidDefinitionError for a
    malformed ``kind`` or ``version``.
    """
    if not KIND_FORM.fullmatch(kind):
        raise InvalidDefinitionError(f"not a workflow's name (a-z first, then a-z 0-9 _, at most 64): {kind[:64]!r}")
    if not 1 <= len(version) <= VERSION_MAX_CHARS or not version.isprintable():
        raise InvalidDefinitionError(f"{kind}: a version is 1 to {VERSION_MAX_CHARS} printable characters")

    def define(function: Callable[[Workflow, Model], Awaitable[Parameter]]) -> Definition:
        def check(text: str) -> None:
            _read(parameters, text)

        async def start(context: Workflow, text: str) -> Parameter:
            return await function(context, _read(parameters, text))

        return Definition(kind, version, check, start)

    return define


def load_definitions(modules: Sequence[str], built_in: Sequence[Definition]) -> Mapping[str, Definition]:
    """All definitions by kind: those built in, and those at the top of the modules. InvalidDefinitionError."""
    found = {definition.kind: definition for definition in built_in}
    for name in modules:
        defined = _defined_in(_imported(name))
        if not defined:
            raise InvalidDefinitionError(f"workflows.modules: {name} defines no workflow")
        for definition in defined:
            if found.get(definition.kind, definition) is not definition:
                raise InvalidDefinitionError(f"workflows.modules: {name} defines {definition.kind!r}, which exists")
            found[definition.kind] = definition
    return found


def unknown_kind(kind: str, known: Mapping[str, Definition], *, field: str) -> InvalidRequestError:
    """The error for a workflow that nobody defined."""
    return InvalidRequestError(
        f"no workflow is called {kind[:64]!r}; there are: {', '.join(sorted(known)) or 'none'}",
        field=field,
        code="WORKFLOW_TYPE_UNKNOWN",
    )


def _read(model: type[Model], text: str) -> Model:
    try:
        return read(model, Operation("", "", text), 0)
    except RefusedError as refused:
        vote = refused.vote
        raise InvalidRequestError(
            vote.message.replace(_PATH, "parameters"),
            field=vote.field.replace(_PATH, "parameters"),
            code=vote.reason,
        ) from refused


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        # Whatever a module of somebody else's does when it is imported: the coordinator does not start with it.
        raise InvalidDefinitionError(
            f"workflows.modules: {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _defined_in(module: ModuleType) -> list[Definition]:
    return [value for value in vars(module).values() if isinstance(value, Definition)]
