"""How the wallet reaches its nodes: environment variables, read once at the attendant's start.

``PINCEX_WALLET_CHAIN_URL`` is the BTC node's URL, ``http://user:password@host:port/wallet/name``;
``PINCEX_WALLET_CHAIN_URL_LTC`` and ``…_BCH`` are the others'. What is not set is not connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

URL_VARIABLE: Final = "PINCEX_WALLET_CHAIN_URL"
INTERVAL_VARIABLE: Final = "PINCEX_WALLET_CHAIN_INTERVAL_S"
TIMEOUT_VARIABLE: Final = "PINCEX_WALLET_CHAIN_TIMEOUT_S"

_INTERVAL_DEFAULT_S: Final = 1.0
_TIMEOUT_DEFAULT_S: Final = 15.0
_SECONDS_MIN: Final = 0.01
_SECONDS_MAX: Final = 600.0


class SettingError(ValueError):
    """An environment variable's value cannot be used. The message names it, and what it may be."""


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """One currency's node; without a URL there is none. How often it is looked at, and how long an answer may take."""

    url: str
    interval_s: float
    timeout_s: float


def read_settings(currency: str, environment: Mapping[str, str]) -> ChainSettings:
    """Read one currency's settings. SettingError."""
    variable = URL_VARIABLE if currency == "BTC" else f"{URL_VARIABLE}_{currency}"
    return ChainSettings(
        _url(variable, environment.get(variable, "")),
        _seconds(INTERVAL_VARIABLE, environment.get(INTERVAL_VARIABLE, ""), _INTERVAL_DEFAULT_S),
        _seconds(TIMEOUT_VARIABLE, environment.get(TIMEOUT_VARIABLE, ""), _TIMEOUT_DEFAULT_S),
    )


def _url(variable: str, text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        # Not the text, which may hold a password.
        raise SettingError(f"{variable} is no URL: {error}") from error
    if text and (url.scheme not in ("http", "https") or not url.host):
        raise SettingError(f"{variable} must be a URL such as http://user:password@host:8332/wallet/hot")
    return text


def _seconds(variable: str, text: str, default_s: float) -> float:
    try:
        seconds = float(text) if text else default_s
    except ValueError as error:
        raise SettingError(f"{variable} is {text!r}, and must be a number of seconds") from error
    if not _SECONDS_MIN <= seconds <= _SECONDS_MAX:
        raise SettingError(f"{variable} is {text}, and must be from {_SECONDS_MIN} to {_SECONDS_MAX:g} seconds")
    return seconds
