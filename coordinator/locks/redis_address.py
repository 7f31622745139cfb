"""Where the lock store's Redis is: one node, a primary that sentinels know, or a cluster.

redis://[[user]:password@]host:port[/db]                          one node
redis+sentinel://[[user]:password@]host:port,host:port/name[/db]  the primary called ``name``
redis+cluster://[[user]:password@]host:port,host:port             a cluster, by any of its nodes

``rediss`` in place of ``redis`` speaks TLS. The password is the data nodes'; sentinels are asked with the same one
only where ``?sentinel_password=`` gives it to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

_SCHEME: Final = re.compile(r"(rediss?)(?:\+(sentinel|cluster))?")
_NODE: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}
_DATABASE_MAX: Final = 10_000
_PORT_MAX: Final = 65535
LONGEST: Final = 2048


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One Redis. ``kind`` is empty for one node, else ``sentinel`` or ``cluster``; ``name`` is the sentinels'."""

    kind: str
    nodes: tuple[tuple[str, int], ...]
    username: str = ""
    password: str = ""
    database: int = 0
    name: str = ""
    sentinel_password: str = ""
    tls: bool = False


def parse_address(text: str) -> RedisAddress:
    """Read a Redis address. ValueError says what is wrong, without the password."""
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"a Redis address of at most {LONGEST} characters on one line")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("a Redis address, such as redis://:password@redis:6379/0") from error
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None:
        raise ValueError(
            "a Redis address: redis://…, redis+sentinel://… or redis+cluster://…, or rediss for TLS, "
            "such as redis://:password@redis:6379/0"
        )
    kind = scheme.group(2) or ""
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    nodes = _nodes(hosts, kind)
    name, database = _path(parts.path, kind)
    return RedisAddress(
        kind,
        nodes,
        unquote(username),
        unquote(password),
        database,
        name,
        _sentinel_password(parts.query, parts.fragment, kind),
        scheme.group(1) == "rediss",
    )


def _nodes(hosts: str, kind: str) -> tuple[tuple[str, int], ...]:
    nodes: list[tuple[str, int]] = []
    for node in hosts.split(","):
        found = _NODE.fullmatch(node)
        port = int(found.group(2) or _PORTS[kind]) if found else 0
        if found is None or not 0 < port <= _PORT_MAX:
            raise ValueError(f"hosts as host:port, port 1 to {_PORT_MAX}, with commas between them")
        nodes.append((found.group(1).strip("[]"), port))
    if not kind and len(nodes) > 1:
        raise ValueError("one host; several stand in redis+sentinel:// or redis+cluster://")
    return tuple(nodes)


def _path(path: str, kind: str) -> tuple[str, int]:
    """The sentinels' name of the primary, and the database's number."""
    segments = [unquote(segment) for segment in path.strip("/").split("/") if segment]
    name = ""
    if kind == "sentinel":
        name = segments.pop(0) if segments else ""
        if not _NAME.fullmatch(name):
            raise ValueError("the path begins with the name by which sentinels know the primary, such as /mymaster")
    if kind == "cluster" and segments:
        raise ValueError("no path: a cluster has one database")
    number = segments.pop(0) if segments else "0"
    if segments or not (number.isascii() and number.isdecimal()) or int(number[:6]) > _DATABASE_MAX:
        raise ValueError(f"the path ends with the database's number, 0 to {_DATABASE_MAX}")
    return name, int(number)


def _sentinel_password(query: str, fragment: str, kind: str) -> str:
    known = ("sentinel_password",) if kind == "sentinel" else ()
    found = dict(parse_qsl(query, keep_blank_values=True))
    if fragment or [name for name in found if name not in known]:
        raise ValueError(f"no other parameters{' than sentinel_password' if known else ''} are known")
    return found.get("sentinel_password", "")
