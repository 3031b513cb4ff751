"""Flags of the sentry process."""

from datetime import timedelta
from pathlib import Path

import pytest

from sentry.config import Settings, parse_settings
from sentry.errors import SettingsError

ROOT = ("--runtime-path", "/run/postern")


def parse(*flags: str, **env: str) -> Settings:
    return parse_settings(flags, env)


def faults(*flags: str, **env: str) -> str:
    with pytest.raises(SettingsError) as refusal:
        parse(*flags, **env)
    return str(refusal.value)


def test_defaults_are_daprs_where_shared() -> None:
    settings = parse(*ROOT)
    assert str(settings.spiffe_id) == "spiffe://localhost/ns/default/dapr-sentry"
    assert (settings.port, settings.healthz_port) == (50001, 8080)
    assert settings.names.required == ("ca.crt", "issuer.crt", "issuer.key")
    assert settings.store == Path("/run/postern/sentry/authority")
    assert settings.audit_log == Path("/run/postern/sentry/audit.jsonl")
    assert (settings.terms.ttl, settings.terms.backdate) == (timedelta(hours=1), timedelta(seconds=60))
    assert not settings.is_insecure


def test_unix_socket_alone_closes_the_port() -> None:
    assert parse(*ROOT, "--unix-socket", "/s").port is None
    assert parse(*ROOT, "--unix-socket", "/s", "--port", "0").port == 0


def test_namespace_and_trust_domain_make_the_own_id() -> None:
    settings = parse(*ROOT, "--trust-domain", "spiffe://Prod".lower(), NAMESPACE="mesh")
    assert str(settings.spiffe_id) == "spiffe://prod/ns/mesh/dapr-sentry"


@pytest.mark.parametrize("flag", ["--insecure-validator", "--insecure-validator=true"])
def test_insecure_is_for_loopback_and_sockets_only(flag: str) -> None:
    assert "--insecure-validator" in faults(flag, "--issuer-credentials", "/c")
    assert "--insecure-validator" in faults(flag, "--issuer-credentials", "/c", "--listen-address", "0.0.0.0")
    assert parse(flag, "--issuer-credentials", "/c", "--listen-address", "127.0.0.1").is_insecure
    assert parse(flag, "--issuer-credentials", "/c", "--unix-socket", "/s").is_insecure


def test_insecure_said_false_is_off() -> None:
    assert not parse(*ROOT, "--insecure-validator=false").is_insecure


def test_no_way_of_proof_is_a_fault() -> None:
    assert "no way to prove identity" in faults("--issuer-credentials", "/c")


def test_all_faults_are_named_at_once() -> None:
    text = faults(
        "--mode", "kubernetes", "--exit-when-idle", "60", "--port", "70000", "--workload-cert-ttl", "48h"
    )
    for part in ("--mode", "--exit-when-idle", "70000", "lifetime", "--issuer-credentials", "no way"):
        assert part in text


@pytest.mark.parametrize(
    "flags", [("--nope",), ("--port", "x"), ("--workload-cert-ttl", "soon"), ("--iss", "/x")]
)
def test_flags_unknown_or_broken_are_faults(flags: tuple[str, ...]) -> None:
    assert faults(*ROOT, *flags)


def test_flags_without_effect_are_accepted_and_named() -> None:
    settings = parse(
        *ROOT, "--enable-metrics=true", "--metrics-port", "9090", "--jwt-enabled", "--oidc-enabled"
    )
    assert settings.unused_flags == ("--jwt-enabled", "--oidc-enabled")


def test_flags_may_be_written_as_go_writes_them() -> None:
    written = (
        "-runtime-path",
        "/run/postern",
        "-port=50003",
        "-strict-csr=true",
        "--log-as-json=T",
        "-log-level",
        "debug",
    )
    settings = parse(*written)
    assert (settings.port, settings.strict_csr, settings.log_as_json, settings.log_level) == (
        50003,
        True,
        True,
        "debug",
    )
    assert "-nope" in faults(*ROOT, "-nope")


@pytest.mark.parametrize(
    ("flags", "port"),
    [
        ((), None),
        (("--metrics-port", "9090"), 9090),
        (("--metrics-port", "9090", "--enable-metrics"), 9090),
        (("--metrics-port", "9090", "--enable-metrics=false"), None),
    ],
)
def test_metrics_port_is_served_when_it_is_given(flags: tuple[str, ...], port: int | None) -> None:
    assert parse(*ROOT, *flags).metrics_port == port
