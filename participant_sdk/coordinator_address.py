"""Where the coordinator of a configuration takes calls, as its clients find it.

Only the two keys that tell it are read; the coordinator itself checks all others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

PATH_VARIABLE: Final = "TRANSACTION_CONFIG_PATH"
LISTEN_VARIABLE: Final = "PINCEX_SERVER__GRPC"
ADVERTISE_VARIABLE: Final = "PINCEX_COORDINATOR__ADVERTISE"
LISTEN_DEFAULT: Final = "127.0.0.1:50051"
PORT_MAX: Final = 2**16 - 1

_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "[::]", "*"})  # noqa: S104 - compared with, not listened on


class InvalidAddressError(Exception):
    """The configuration does not say where its coordinator can be called. The message names file and key."""


class _Part(BaseModel):
    """A part of the file, of which the rest is not ours to judge."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Server(_Part):
    grpc: str = LISTEN_DEFAULT


class _Coordinator(_Part):
    advertise: str = ""


class _File(_Part):
    server: _Server = _Server()
    coordinator: _Coordinator = _Coordinator()


def configured_address(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The gRPC address of the coordinator that this file describes, or the one that TRANSACTION_CONFIG_PATH names.

    What it advertises goes before where it listens, and the environment before the file. InvalidAddressError.
    """
    named = path or environ.get(PATH_VARIABLE, "")
    file = _read(Path(named)) if named else _File()
    origin = str(named) or "the environment"
    advertised = environ.get(ADVERTISE_VARIABLE, file.coordinator.advertise)
    key = "coordinator.advertise" if advertised else "server.grpc"
    address = advertised or environ.get(LISTEN_VARIABLE, file.server.grpc)
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise InvalidAddressError(f"{origin}: {key} is {address!r}, which is no host:port that can be called")
    if host in _EVERYWHERE:
        raise InvalidAddressError(
            f"{origin}: {key} is {address!r}, no one host: set coordinator.advertise, or name the addresses"
        )
    return address


def _read(path: Path) -> _File:
    try:
        tree: object = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _File.model_validate({} if tree is None else tree)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidAddressError(f"the configuration {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "it"
        raise InvalidAddressError(f"the configuration {path} is refused: {key}: {first['msg']}") from error
