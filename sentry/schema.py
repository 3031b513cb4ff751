"""The `spec.mtls` section of a Configuration document, as sentry reads it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct, ValidationError, convert, field

from sentry.errors import SettingsError
from telemetry.durations import parse_lifetime


class Duration(timedelta):
    """A span of time that is written as Go writes it."""


class TokenValidatorOptions(Struct, frozen=True, rename="camel"):
    """Where the keys of tokens come from.

    Ours are `maxTokenLifetime`, what a token's `exp` less `iat` may be (none: what its issuer chose), and `allowControlPlane`: whether
    these tokens may prove the control plane's own identities, such as `dapr-operator`.
    """

    source: str
    ca_certificate: str | None = None
    min_refresh_interval: Duration = Duration(minutes=10)
    request_timeout: Duration = Duration(seconds=30)
    max_token_lifetime: Duration | None = None
    allow_control_plane: bool = False


class TokenValidator(Struct, frozen=True):
    """One entry of `tokenValidators`; `jwks` is the only name there is, in any case."""

    name: str
    options: TokenValidatorOptions

    def __post_init__(self) -> None:
        """Raise ValueError for another name."""
        if self.name.lower() != "jwks":
            raise ValueError(f"name: expected jwks, got {self.name!r}")


class Mtls(Struct, frozen=True, rename="camel"):
    """`spec.mtls`."""

    workload_cert_ttl: Duration | None = field(name="workloadCertTTL", default=None)
    allowed_clock_skew: Duration | None = None
    control_plane_trust_domain: str | None = None
    token_validators: tuple[TokenValidator, ...] = ()


def read_mtls(path: Path) -> Mtls:
    """The section of the Configuration in `path`; empty if it has none, or the file is empty. Raises SettingsError."""
    try:
        document: Any = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError((f"{path}: can't be read: {error.strerror}",)) from error
    except yaml.YAMLError as error:
        raise SettingsError((f"{path}: not YAML: {error}",)) from error
    except RecursionError as error:
        raise SettingsError((f"{path}: nested too deeply",)) from error
    if document is None:
        return Mtls()
    if not isinstance(document, dict) or document.get("kind") != "Configuration":
        raise SettingsError((f"{path}: expected one document of kind Configuration",))
    spec = document.get("spec") or {}
    section = (spec.get("mtls") or {}) if isinstance(spec, dict) else {}
    try:
        return convert(section, Mtls, dec_hook=_duration)
    except ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise SettingsError((f"{path}: spec.mtls{place.rstrip('`')}: {problem}",)) from error


def _duration(kind: type, value: object) -> Duration:
    assert kind is Duration
    return Duration(seconds=parse_lifetime(str(value)).total_seconds())
