"""Which exporters a Configuration asks for."""

import tomllib
from pathlib import Path

import pytest

from policies.rules.configuration import OtelConfig, TracingConfig
from proxy.control.tracing_setup import exporters, otlp, sampling_rate
from proxy.errors import ConfigError
from telemetry.stdout import StdoutExporter
from telemetry.zipkin import ZipkinExporter

ROOT = Path(__file__).parents[4]
ZIPKIN = "http://127.0.0.1:9411/api/v2/spans"


def kinds(**changes: object) -> list[type]:
    return [type(made) for made in exporters(TracingConfig(**changes), "web")]  # type: ignore[arg-type]


def test_nothing_asked_nothing_made() -> None:
    assert exporters(TracingConfig(), "web") == ()


def test_each_is_made_once_in_order() -> None:
    assert kinds(zipkin_endpoint=ZIPKIN, stdout=True) == [ZipkinExporter, StdoutExporter]


@pytest.mark.parametrize("endpoint", [None, ""])
def test_no_zipkin_endpoint_no_zipkin(endpoint: str | None) -> None:
    assert kinds(zipkin_endpoint=endpoint) == []


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x/y", "http://"])
def test_zipkin_endpoint_that_is_none_stops_the_start(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"spec\.tracing: zipkin"):
        kinds(zipkin_endpoint=endpoint)


def test_otlp_without_its_package_says_what_to_install() -> None:
    # "otlp_proto_none" is installed nowhere; the real packages may be
    with pytest.raises(ConfigError, match="opentelemetry-exporter-otlp-proto-none"):
        kinds(otel=OtelConfig(endpoint="otel:4317", protocol="none"))


@pytest.mark.parametrize(
    ("otel", "name", "options"),
    [
        (
            OtelConfig(endpoint="otel:4318", is_secure=False, protocol="http"),
            "otlp_proto_http",
            {"endpoint": "http://otel:4318/v1/traces", "headers": {}},
        ),
        (
            OtelConfig(endpoint="otel:4318", protocol="http", headers=(("k", "v"),), timeout_s=2.5),
            "otlp_proto_http",
            {"endpoint": "https://otel:4318/v1/traces", "headers": {"k": "v"}, "timeout": 2.5},
        ),
        (
            OtelConfig(endpoint="otel:4317", is_secure=False, protocol="grpc"),
            "otlp_proto_grpc",
            {"endpoint": "http://otel:4317", "headers": {}},
        ),
    ],
)
def test_otlp_is_told_where_to_send(otel: OtelConfig, name: str, options: dict[str, object]) -> None:
    assert otlp(otel) == (name, options)


def test_dev_samples_everything_unless_a_rate_is_written() -> None:
    assert sampling_rate(TracingConfig(), "dev") == 1.0
    assert sampling_rate(TracingConfig(), "daprd") == 0.0001
    assert sampling_rate(TracingConfig(sampling_rate=0.5, is_rate_given=True), "dev") == 0.5


def test_otlp_without_its_package_names_the_extra_that_brings_it() -> None:
    otel = OtelConfig(endpoint="otel:4317", protocol="grpc")
    with pytest.raises(ConfigError) as caught:
        exporters(TracingConfig(otel=otel), "cart")
    assert "pipx install '.[otlp]'" in str(caught.value)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [word.partition(">=")[0] for word in project["optional-dependencies"]["otlp"]]
    assert needed == ["opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-exporter-otlp-proto-http"]
