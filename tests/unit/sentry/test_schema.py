"""`spec.mtls` of a Configuration, as sentry reads it."""

from datetime import timedelta
from pathlib import Path

import pytest

from sentry.config import parse_settings
from sentry.errors import SettingsError
from sentry.schema import read_mtls

WHOLE = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: daprsystem}
spec:
  mtls:
    enabled: true
    workloadCertTTL: 12h
    allowedClockSkew: 15m
    controlPlaneTrustDomain: mesh.example
    tokenValidators:
    - name: JWKS
      options: {source: /keys.json, minRefreshInterval: 2m, requestTimeout: 5s}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_section_is_read_whole(tmp_path: Path) -> None:
    mtls = read_mtls(written(tmp_path, WHOLE))
    assert (mtls.workload_cert_ttl, mtls.allowed_clock_skew) == (timedelta(hours=12), timedelta(minutes=15))
    assert mtls.control_plane_trust_domain == "mesh.example"
    assert mtls.token_validators[0].options.source == "/keys.json"


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "kind: Configuration", "kind: Configuration\nspec: {mtls: }"]
)
def test_section_left_out_is_empty(tmp_path: Path, text: str) -> None:
    assert read_mtls(written(tmp_path, text)).token_validators == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kind: Component", "kind Configuration"),
        ("- a", "kind Configuration"),
        ("a: [", "not YAML"),
        ("[" * 50_000, "nested too deeply"),
        ("kind: Configuration\nspec: {mtls: {workloadCertTTL: soon}}", "workloadCertTTL"),
        ("kind: Configuration\nspec: {mtls: {tokenValidators: [{name: x, options: {source: y}}]}}", "name"),
        ("kind: Configuration\nspec: {mtls: {tokenValidators: [{name: jwks, options: {}}]}}", "source"),
        ("kind: Configuration\nspec: {mtls: 5}", "mtls"),
    ],
)
def test_section_that_is_wrong_names_the_field(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        read_mtls(written(tmp_path, text))


def test_file_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none"):
        read_mtls(tmp_path / "none.yaml")


def test_settings_take_the_file_and_flags_win(tmp_path: Path) -> None:
    path = str(written(tmp_path, WHOLE))
    flags = ("--runtime-path", "/r", "--config", path)
    settings = parse_settings(flags, {})
    assert settings.spiffe_id.trust_domain == "mesh.example"
    assert settings.terms.ttl == timedelta(hours=12)
    assert (settings.token_sources[0].refresh_s, settings.token_sources[0].timeout_s) == (120.0, 5.0)
    told = parse_settings((*flags, "--trust-domain", "other", "--workload-cert-ttl", "30m"), {})
    assert (told.spiffe_id.trust_domain, told.terms.ttl) == ("other", timedelta(minutes=30))


def test_settings_report_the_files_faults_beside_the_flags(tmp_path: Path) -> None:
    path = str(written(tmp_path, "kind: Component"))
    with pytest.raises(SettingsError) as refusal:
        parse_settings(("--runtime-path", "/r", "--config", path, "--port", "99999"), {})
    assert len(refusal.value.faults) == 2
