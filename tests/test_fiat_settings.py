"""The environment of fiat: what is wrong is named, and nothing secret goes over an open line."""

from __future__ import annotations

import pytest

from sidecars.fiat.settings import InvalidSettingError, bank_settings, webhook_settings

SECRET = {"PINCEX_FIAT_WEBHOOK_SECRET": "sixteen characters"}


def test_defaults_and_absence() -> None:
    assert bank_settings({}) is None
    assert bank_settings({"PINCEX_FIAT_BANK_URL": ""}) is None
    assert webhook_settings(SECRET) is None
    bank = bank_settings({"PINCEX_FIAT_BANK_URL": "https://bank.example/v1/", "PINCEX_FIAT_BANK_TOKEN": "t"})
    assert bank is not None
    assert (str(bank.url), bank.timeout_s, bank.key_lifetime_s) == ("https://bank.example/v1/", 10, 86_400)
    assert "'t'" not in repr(bank)
    webhook = webhook_settings({"PINCEX_FIAT_WEBHOOK_URL": "http://127.0.0.1:80/", **SECRET})
    assert webhook is not None
    assert webhook.attempts_max == 30


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PINCEX_FIAT_BANK_URL", "bank.example"),
        ("PINCEX_FIAT_BANK_URL", "ftp://bank.example"),
        ("PINCEX_FIAT_BANK_URL", "http://bank.example"),
        ("PINCEX_FIAT_BANK_TIMEOUT_S", "0"),
        ("PINCEX_FIAT_BANK_TIMEOUT_S", "soon"),
        ("PINCEX_FIAT_BANK_KEY_LIFETIME_S", "-1"),
        ("PINCEX_FIAT_WEBHOOK_URL", "http://hooks.example"),
        ("PINCEX_FIAT_WEBHOOK_SECRET", "short"),
        ("PINCEX_FIAT_WEBHOOK_SECRET", ""),
        ("PINCEX_FIAT_WEBHOOK_ATTEMPTS_MAX", "0"),
    ],
)
def test_what_is_wrong_is_named(variable: str, value: str) -> None:
    right = {"PINCEX_FIAT_BANK_URL": "https://bank.example", "PINCEX_FIAT_WEBHOOK_URL": "https://hooks.example"}
    environment = {**right, **SECRET, variable: value}
    with pytest.raises(InvalidSettingError, match=f"^{variable}: "):
        (bank_settings if "BANK" in variable else webhook_settings)(environment)
