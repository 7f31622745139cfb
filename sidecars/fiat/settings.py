"""Where the bank and the webhook are, from the process's environment; never from a request.

``docs/participants.md`` lists the variables. One that is wrong is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.networks import AnyHttpUrl

_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


class InvalidSettingError(Exception):
    """A variable of the environment is wrong. The message names it."""


def _check_safe(url: AnyHttpUrl) -> AnyHttpUrl:
    if url.scheme != "https" and url.host not in _LOOPBACK:
        raise ValueError("must begin with https:// where it is not this machine")
    return url


Url = Annotated[AnyHttpUrl, AfterValidator(_check_safe)]


class BankSettings(BaseModel):
    """The bank. ``key_lifetime_s`` is for how long it is certain to know a payment by its key."""

    model_config = ConfigDict(frozen=True)

    url: Url
    token: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    key_lifetime_s: Annotated[float, Field(gt=0)] = 86_400.0


class WebhookSettings(BaseModel):
    """Who is told of deposits, and the secret that signs what is told."""

    model_config = ConfigDict(frozen=True)

    url: Url
    secret: Annotated[SecretStr, Field(min_length=16)]
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    attempts_max: Annotated[int, Field(ge=1, le=1_000)] = 30


Model = TypeVar("Model", bound=BaseModel)


def bank_settings(environment: Mapping[str, str]) -> BankSettings | None:
    """The bank's; None where there is no bank. InvalidSettingError."""
    return _read(BankSettings, "PINCEX_FIAT_BANK", environment)


def webhook_settings(environment: Mapping[str, str]) -> WebhookSettings | None:
    """The webhook's; None where there is none. InvalidSettingError."""
    return _read(WebhookSettings, "PINCEX_FIAT_WEBHOOK", environment)


def _read(model: type[Model], prefix: str, environment: Mapping[str, str]) -> Model | None:
    names = {name: f"{prefix}_{name.upper()}" for name in model.model_fields}
    # A variable that is empty is not set.
    found = {name: environment[variable] for name, variable in names.items() if environment.get(variable)}
    if "url" not in found:
        return None
    try:
        return model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise InvalidSettingError(f"{names[str(first['loc'][0])]}: {first['msg']}") from error
