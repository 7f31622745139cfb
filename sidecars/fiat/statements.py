"""Fiat's statements, by the names of their files in ``sql/``."""

from __future__ import annotations

from importlib.resources import files


def statement(name: str) -> bytes:
    """The text of one."""
    return (files("sidecars.fiat") / "sql" / f"{name}.sql").read_bytes()
