"""Which exporters a Configuration and the environment ask for."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from policies.rules.configuration import OtelConfig, TracingConfig
from proxy.control.tracing_setup import (
    collectors,
    configured_target,
    exporters,
    hop_tracing,
    log_export,
    otlp_target,
    sampling_rate,
    tracer,
    with_variables,
)
from proxy.errors import ConfigError
from proxy.settings.parsing import parse
from proxy.settings.values import Profile, Settings
from telemetry.metrics import Meters
from telemetry.otlp.exporter import OtlpExporter, OtlpForwarder
from telemetry.otlp.target import OtlpTarget
from telemetry.stdout import StdoutExporter
from telemetry.zipkin import ZipkinExporter, ZipkinForwarder

ZIPKIN = "http://127.0.0.1:9411/api/v2/spans"
OTEL = OtelConfig(endpoint="otel:4317", protocol="grpc")
ENV = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def settings(
    root: Path, *flags: str, profile: Profile = "dev", env: Mapping[str, str] | None = None
) -> Settings:
    return parse(["--app-id", "web", "--runtime-path", str(root), *flags], env or {}, profile_hint=profile)


def kinds(root: Path, tracing: TracingConfig, *flags: str) -> list[type]:
    made = exporters(tracing, settings(root, *flags))
    return [type(one) for one in (*made.own, *made.app)]


def test_nothing_asked_nothing_made(root: Path) -> None:
    assert kinds(root, TracingConfig()) == []


def test_each_is_made_once_in_order(root: Path) -> None:
    tracing = TracingConfig(zipkin_endpoint=ZIPKIN, otel=OTEL, stdout=True)
    ours = [ZipkinExporter, OtlpExporter, StdoutExporter]
    assert kinds(root, tracing) == [*ours, ZipkinForwarder, OtlpForwarder]
    assert kinds(root, tracing, "--no-otlp-receiver") == ours


@pytest.mark.parametrize("endpoint", [None, ""])
def test_no_zipkin_endpoint_no_zipkin(root: Path, endpoint: str | None) -> None:
    assert kinds(root, TracingConfig(zipkin_endpoint=endpoint)) == []


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x/y", "http://"])
def test_zipkin_endpoint_that_is_none_stops_the_start(root: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"spec\.tracing: zipkin"):
        kinds(root, TracingConfig(zipkin_endpoint=endpoint))


def test_otlp_is_sent_where_the_configuration_says() -> None:
    otel = OtelConfig(
        endpoint="otel:4318", protocol="http", headers=(("k", "v"),), timeout_s=2.5, is_secure=False
    )
    assert configured_target(otel) == OtlpTarget(
        host="otel", port=4318, protocol="http", is_secure=False, headers=(("k", "v"),), timeout_s=2.5
    )
    assert configured_target(OTEL).timeout_s == 10.0


@pytest.mark.parametrize("endpoint", ["otel:port", "otel:4317/path", "[::1"])
def test_otlp_address_that_is_none_stops_the_start(root: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"spec\.tracing\.otel\.endpointAddress"):
        kinds(root, TracingConfig(otel=OtelConfig(endpoint=endpoint, protocol="grpc")))


def test_configuration_wins_over_the_environment(root: Path) -> None:
    known = settings(root, env=ENV)
    found = otlp_target(TracingConfig(), known), otlp_target(TracingConfig(otel=OTEL), known)
    assert [target and target.host for target in found] == ["c", "otel"]


def test_dev_samples_everything_unless_a_rate_is_written(root: Path) -> None:
    written = TracingConfig(sampling_rate=0.5, is_rate_given=True)
    assert sampling_rate(TracingConfig(), settings(root)) == 1.0
    assert sampling_rate(TracingConfig(), settings(root, profile="daprd")) == 0.0001
    assert sampling_rate(written, settings(root)) == 0.5


def test_collector_of_the_environment_gets_everything_unless_a_rate_is_written(root: Path) -> None:
    known = settings(root, profile="daprd", env=ENV)
    assert sampling_rate(TracingConfig(), known) == 1.0
    assert sampling_rate(TracingConfig(sampling_rate=0.5, is_rate_given=True), known) == 0.5
    assert sampling_rate(TracingConfig(otel=OTEL), known) == 0.0001


def test_sampler_of_the_environment_counts_unless_a_rate_is_written(root: Path) -> None:
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    known = settings(root, env={**ENV, **ratio})
    assert hop_tracing(TracingConfig(), known, random.Random(1)).sampler.rate == 0.25
    assert hop_tracing(TracingConfig(otel=OTEL), known, random.Random(1)).sampler.rate == 0.25
    written = TracingConfig(sampling_rate=0.5, is_rate_given=True)
    assert hop_tracing(written, known, random.Random(1)).sampler.rate == 0.5
    off = settings(root, env={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    assert sampling_rate(TracingConfig(), off) == 0.0
    on = settings(root, profile="production", env={"OTEL_TRACES_SAMPLER": "parentbased_always_on"})
    assert sampling_rate(TracingConfig(), on) == 1.0


def test_disabled_sdk_exports_nothing_that_a_configuration_or_a_variable_asks_for(root: Path) -> None:
    asked = TracingConfig(zipkin_endpoint=ZIPKIN, otel=OTEL, stdout=True)
    every = {**ENV, "OTEL_TRACES_EXPORTER": "otlp,console,zipkin_json", "OTEL_LOGS_EXPORTER": "otlp"}
    known = settings(root, "--access-log", "otlp", env={**every, "OTEL_SDK_DISABLED": "true"})
    made = exporters(asked, known)
    assert (made.own, made.app, made.relayed, made.logs) == ((), (), {}, None)
    assert (collectors(asked, known), otlp_target(asked, known)) == ({}, None)
    lines = log_export(asked, known, Meters("web"))
    assert lines is not None
    assert lines.queues == ()
    assert any("--access-log otlp has no effect" in warning for warning in known.warnings)
    assert len(exporters(asked, settings(root, env={**every, "OTEL_SDK_DISABLED": "false"})).own) == 4


def test_no_otlp_goes_to_a_port_of_ours(root: Path) -> None:
    known = settings(root, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:50001"})
    assert exporters(TracingConfig(), known, frozenset({50001})).own == ()
    assert len(exporters(TracingConfig(), known, frozenset({3500})).own) == 1
    away = settings(root, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:50001"})
    assert len(exporters(TracingConfig(), away, frozenset({50001})).app) == 1


def test_exporters_of_the_environment_join_those_of_the_configuration(root: Path) -> None:
    known = settings(root, profile="production", env={"OTEL_TRACES_EXPORTER": "zipkin,zipkin_json,console"})
    made = exporters(TracingConfig(zipkin_endpoint=ZIPKIN, otel=OTEL), known)
    assert [one.name for one in made.own] == ["zipkin", "otlp", "stdout", "zipkin_json"]
    assert with_variables(TracingConfig(zipkin_endpoint=ZIPKIN), known.otel).zipkin_endpoint == ZIPKIN
    assert sampling_rate(TracingConfig(), known) == 1.0


def test_exporter_of_the_environment_that_is_not_installed_is_told_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = exporters(TracingConfig(), settings(root, env={"OTEL_TRACES_EXPORTER": "jaeger,console"}))
    assert [one.name for one in made.own] == ["stdout"]
    assert "an exporter of OTEL_TRACES_EXPORTER is left out" in caplog.text


def test_tracer_has_a_queue_for_each(root: Path) -> None:
    made, _ = tracer(TracingConfig(zipkin_endpoint=ZIPKIN, otel=OTEL), settings(root), Meters("web"))
    assert [queue.name for queue in made.queues] == ["zipkin", "otlp", "zipkin-app", "otlp-app"]


LOGS = {"otlp-app-logs": "logs:1", "otlp-logs": "logs:1"}


def test_metrics_and_logs_of_the_app_go_to_the_collector(root: Path) -> None:
    logs = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:1"}
    known = settings(root, env={**ENV, **logs})
    common = {"otlp": "c:4317", "otlp-app": "c:4317", "otlp-app-metrics": "c:4317", **LOGS}
    assert collectors(TracingConfig(), known) == common
    written = dict.fromkeys(("otlp", "otlp-app", "otlp-app-metrics"), "otel:4317")
    assert collectors(TracingConfig(otel=OTEL), known) == {**written, **LOGS}
    assert exporters(TracingConfig(otel=OTEL), known).relayed.keys() == {"metrics", "logs"}
    assert not exporters(TracingConfig(zipkin_endpoint=ZIPKIN), settings(root)).relayed
    back = settings(root, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:50001", **logs})
    assert exporters(TracingConfig(), back, frozenset({50001})).relayed.keys() == {"logs"}
    off = settings(root, "--no-otlp-receiver", env=ENV)
    assert not exporters(TracingConfig(), off).relayed
