"""The `spec.mtls` section of a Configuration document, as sentry reads it. pydantic stays in here."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sentry.errors import SettingsError

_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> timedelta:
    """Go's duration text without sign, such as `24h` or `1h30m`. Raises ValueError."""
    if text == "0":
        return timedelta()
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected a duration such as 24h or 15m, met {text!r}")
    try:
        return timedelta(seconds=sum(float(number) * _UNIT_S[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(f"duration {text!r} is too long") from error


Duration = Annotated[timedelta, BeforeValidator(lambda value: parse_duration(str(value)))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TokenValidatorOptions(_Section):
    """Where the keys of tokens come from. `maxTokenLifetime` is ours: what a token's `exp` less `iat` may be."""

    source: str
    ca_certificate: str | None = Field(default=None, alias="caCertificate")
    min_refresh_interval: Duration = Field(default=timedelta(minutes=10), alias="minRefreshInterval")
    request_timeout: Duration = Field(default=timedelta(seconds=30), alias="requestTimeout")
    max_token_lifetime: Duration = Field(default=timedelta(minutes=10), alias="maxTokenLifetime")


class TokenValidator(_Section):
    """One entry of `tokenValidators`; `jwks` is the only name there is."""

    name: Annotated[str, BeforeValidator(lambda value: str(value).lower())] = Field(pattern="^jwks$")
    options: TokenValidatorOptions


class Mtls(_Section):
    """`spec.mtls`."""

    workload_cert_ttl: Duration | None = Field(default=None, alias="workloadCertTTL")
    allowed_clock_skew: Duration | None = Field(default=None, alias="allowedClockSkew")
    control_plane_trust_domain: str | None = Field(default=None, alias="controlPlaneTrustDomain")
    token_validators: tuple[TokenValidator, ...] = Field(default=(), alias="tokenValidators")


def read_mtls(path: Path) -> Mtls:
    """The section of the Configuration in `path`; empty if it has none. Raises SettingsError."""
    try:
        document: Any = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError((f"{path}: can't be read: {error.strerror}",)) from error
    except yaml.YAMLError as error:
        raise SettingsError((f"{path}: not YAML: {error}",)) from error
    if not isinstance(document, dict) or document.get("kind") != "Configuration":
        raise SettingsError((f"{path}: expected one document of kind Configuration",))
    spec = document.get("spec") or {}
    section = (spec.get("mtls") or {}) if isinstance(spec, dict) else {}
    try:
        return Mtls.model_validate(section)
    except ValidationError as error:
        faults = tuple(
            f"{path}: spec.mtls.{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise SettingsError(faults) from error
