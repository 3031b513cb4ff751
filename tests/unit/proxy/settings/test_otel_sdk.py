"""OpenTelemetry's variables about the SDK as a whole."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.settings.parsing import parse
from proxy.settings.values import Profile, Settings
from tests.support.web_pki import WebCa

SAMPLER, ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
METRICS = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def read(root: Path, env: Mapping[str, str], profile: Profile = "dev") -> Settings:
    return parse(["--app-id", "cart", "--runtime-path", str(root)], env, profile_hint=profile)


def warned(root: Path, env: Mapping[str, str], profile: Profile = "dev") -> list[str]:
    return [text for text in read(root, env, profile).warnings if "OTEL" in text]


@pytest.mark.parametrize(
    ("name", "argument", "rate"),
    [
        ("", "", None),
        ("always_on", "", 1.0),
        ("always_off", "", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("parentbased_always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("parentbased_traceidratio", "0.5", 0.5),
        ("parentbased_traceidratio", "", 1.0),
        (" ParentBased_Always_Off ", "", 0.0),
        ("jaeger_remote", "endpoint=http://j:1", None),
    ],
)
def test_sampler_by_name(root: Path, name: str, argument: str, rate: float | None) -> None:
    assert read(root, {SAMPLER: name, ARGUMENT: argument}).otel.sampling_rate == rate


@pytest.mark.parametrize("name", ["sometimes", "parentbased_", "parentbased_parentbased_always_on"])
def test_sampler_of_no_kind_is_a_fault(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{SAMPLER}: '{name}', expected always_on, "):
        read(root, {SAMPLER: name})


@pytest.mark.parametrize("argument", ["often", "-0.1", "1.01", "nan", "inf"])
def test_ratio_that_is_none_is_a_fault_where_it_counts(root: Path, argument: str) -> None:
    with pytest.raises(ConfigError, match=f"{ARGUMENT}: '{argument}', expected a number from 0 to 1"):
        read(root, {SAMPLER: "traceidratio", ARGUMENT: argument})
    told = warned(root, {SAMPLER: "parentbased_always_on", ARGUMENT: argument})
    assert told == [f"{ARGUMENT} has no effect: {SAMPLER} does not name traceidratio"]


def test_sampler_that_is_another_than_its_name_says_is_told(root: Path) -> None:
    assert warned(root, {SAMPLER: "parentbased_traceidratio", ARGUMENT: "0.5"}) == []
    (told,) = warned(root, {SAMPLER: "always_on"})
    assert f"{SAMPLER}: always_on is taken as parentbased_always_on" in told
    (told,) = warned(root, {SAMPLER: "xray"})
    assert f"{SAMPLER}: xray has no effect" in told


@pytest.mark.parametrize(
    ("value", "disabled"), [("", False), ("false", False), ("true", True), ("TRUE", True)]
)
def test_sdk_is_disabled_by_true_alone(root: Path, value: str, disabled: bool) -> None:
    found = read(root, {"OTEL_SDK_DISABLED": value, **METRICS, "OTEL_LOGS_EXPORTER": "otlp"}).otel
    assert (found.is_disabled, found.metrics is None, found.app_logs is None) == (disabled,) * 3
    assert found.exports_log is not disabled
    with pytest.raises(ConfigError, match="OTEL_SDK_DISABLED: 'yes', expected true or false"):
        read(root, {"OTEL_SDK_DISABLED": "yes"})


@pytest.mark.parametrize(
    ("names", "pushes"), [("otlp", True), ("prometheus, OTLP", True), ("none", False), ("prometheus", False)]
)
def test_metrics_are_not_pushed_where_exporters_are_named_without_otlp(
    root: Path, names: str, pushes: bool
) -> None:
    env = {"OTEL_METRICS_EXPORTER": names, **METRICS}
    found = read(root, env).otel
    assert (found.metrics is not None, found.app_metrics is not None) == (pushes, True)
    assert warned(root, env) == []


@pytest.mark.parametrize("names", ["otlp", "console"])
def test_exporter_of_metrics_that_changes_nothing_is_told(root: Path, names: str) -> None:
    (told,) = warned(root, {"OTEL_METRICS_EXPORTER": names})
    assert f"OTEL_METRICS_EXPORTER: {names} has no effect" in told


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_PROPAGATORS",
    ],
)
@pytest.mark.parametrize("profile", ["production", "daprd"])
def test_variable_without_effect_is_told_once(root: Path, variable: str, profile: Profile) -> None:
    (told,) = warned(root, {variable: "anything"}, profile)
    assert told.startswith(f"{variable} has no effect: ")
    assert warned(root, {variable: " "}, profile) == []


def test_daprd_reads_none_of_them_and_says_so(root: Path) -> None:
    env = {
        SAMPLER: "sometimes",
        ARGUMENT: "often",
        "OTEL_SDK_DISABLED": "perhaps",
        "OTEL_METRICS_EXPORTER": "none",
    }
    found = read(root, {**env, **METRICS}, "daprd").otel
    assert (found.sampling_rate, found.is_disabled, found.metrics is None) == (None, False, False)
    assert [told.split()[0] for told in warned(root, env, "daprd")] == list(env)


@pytest.mark.parametrize("endpoint", ["", "http://c:1"])
def test_client_certificate_that_no_collector_is_shown_is_told(
    root: Path, tmp_path: Path, endpoint: str
) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    for file, pem in zip((certificate, key), WebCa().leaf(), strict=True):
        file.write_bytes(pem)
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key),
    }
    (told,) = warned(root, env)
    assert told.startswith("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE has no effect: no collector")
    assert warned(root, {**env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c:1"}) == []
