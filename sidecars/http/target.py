"""Whom the sidecar calls, fixed at start: three URLs, how long and how often at once, and the secret that signs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 3.0
TIMEOUT_MAX_S: Final = 60.0
CALLS_AT_ONCE: Final = 32
CALLS_AT_ONCE_MAX: Final = 1_000
# So many calls' time-outs long a call waits for its turn. Then it is not made, so a batch has an end.
TURN_CALLS: Final = 2
SECRET_MIN_BYTES: Final = 32


class InvalidTargetError(ValueError):
    """The service cannot be called so. The message names the setting."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service.

    ``timeout_s`` bounds one call as a whole, once its turn has come; ``calls_at_once`` bounds tries, and other calls
    apart.
    Plain HTTP goes to this machine only, unless ``allow_http``. An empty secret signs nothing.
    InvalidTargetError names what is wrong.
    """

    try_url: str
    confirm_url: str
    cancel_url: str
    timeout_s: float = TIMEOUT_S
    calls_at_once: int = CALLS_AT_ONCE
    secret: bytes = b""
    allow_http: bool = False

    @property
    def turn_s(self) -> float:
        """How long a call waits for its turn, at most."""
        return TURN_CALLS * self.timeout_s

    def __post_init__(self) -> None:
        for setting, url in (
            ("try-url", self.try_url),
            ("confirm-url", self.confirm_url),
            ("cancel-url", self.cancel_url),
        ):
            _check_url(setting, url, allow_http=self.allow_http)
        if not 0 < self.timeout_s <= TIMEOUT_MAX_S:
            raise InvalidTargetError(f"timeout: above 0 and at most {TIMEOUT_MAX_S:g} seconds, not {self.timeout_s:g}")
        if not 1 <= self.calls_at_once <= CALLS_AT_ONCE_MAX:
            raise InvalidTargetError(f"calls: 1 to {CALLS_AT_ONCE_MAX}, not {self.calls_at_once}")
        if self.secret and len(self.secret) < SECRET_MIN_BYTES:
            raise InvalidTargetError(f"the secret: at least {SECRET_MIN_BYTES} bytes, not {len(self.secret)}")


def _check_url(setting: str, url: str, *, allow_http: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidTargetError(f"{setting}: {url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidTargetError(f"{setting}: {url!r} is not http://host… or https://host…")
    if parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidTargetError(f"{setting}: no user, no fragment, and ASCII without spaces")
    if parts.scheme == "http" and not allow_http and not _is_this_machine(host):
        raise InvalidTargetError(f"{setting}: plain HTTP leaves this machine; use https, or allow it (--allow-http)")


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
