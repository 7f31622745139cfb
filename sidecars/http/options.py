"""The command's options for a service behind HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sidecars.http.target import CALLS_AT_ONCE, TIMEOUT_S, InvalidTargetError, Target

SECRET_VARIABLE: Final = "PINCEX_HTTP_SECRET"  # noqa: S105 - the name of a variable


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them, in a group of their own."""
    group = parser.add_argument_group("http", "a service in another language; --name is its own then")
    for call in ("try", "confirm", "cancel"):
        group.add_argument(f"--{call}-url", default="", help=f"where to POST {call}")
    group.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds for one call")
    group.add_argument("--calls", type=int, default=CALLS_AT_ONCE, help="calls at once")
    group.add_argument("--allow-http", action="store_true", help="plain HTTP to other machines too")
    group.add_argument("--secret-file", type=Path, help=f"signs each call; the variable {SECRET_VARIABLE} does as well")


def target_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Target:
    """Read them. InvalidTargetError names the one that is wrong; OSError where the secret cannot be read."""
    if not options.name:
        raise InvalidTargetError("name: a service behind HTTP has one of its own")
    secret = environment.get(SECRET_VARIABLE, "").encode()
    if options.secret_file is not None:
        secret = options.secret_file.read_bytes().strip()
        if not secret:
            raise InvalidTargetError("secret-file: it is empty")
    return Target(
        options.try_url,
        options.confirm_url,
        options.cancel_url,
        timeout_s=options.timeout,
        calls_at_once=options.calls,
        secret=secret,
        allow_http=options.allow_http,
    )
