"""OpenTelemetry's variables."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.settings.otel import OTEL_VARIABLES
from proxy.settings.parsing import parse
from proxy.settings.values import OtelSettings, Profile
from telemetry.exporting import ExportLimits
from telemetry.otlp.target import OtlpTarget
from tests.support.web_pki import WebCa

COMMON = "OTEL_EXPORTER_OTLP_"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def read(root: Path, env: Mapping[str, str], profile: Profile = "dev") -> OtelSettings:
    return parse(["--app-id", "cart", "--runtime-path", str(root)], env, profile_hint=profile).otel


def target(root: Path, env: Mapping[str, str], profile: Profile = "dev") -> OtlpTarget:
    found = read(root, env, profile).traces
    assert found is not None
    return found


def test_nothing_said_nothing_exported(root: Path) -> None:
    found = read(root, {f"{COMMON}PROTOCOL": "grpc", f"{COMMON}HEADERS": "a=b"})
    assert found == OtelSettings(
        traces=None,
        zipkin="",
        to_stdout=False,
        exporters=(),
        metrics=None,
        metrics_every_s=60.0,
        metrics_temporality="cumulative",
        app_metrics=None,
        app_logs=None,
        named=frozenset(),
        exports_log=False,
        service_name="",
        resource=(),
        limits=ExportLimits(),
        log_limits=ExportLimits(),
    )


def test_metrics_and_logs_of_the_app_go_where_spans_go_or_where_a_variable_of_theirs_says(root: Path) -> None:
    common = {f"{COMMON}ENDPOINT": "http://c:4318/below", f"{COMMON}PROTOCOL": "http/protobuf"}
    found = read(root, common)
    assert found.app_metrics is not None
    assert found.app_logs is not None
    assert found.app_metrics.url("metrics") == "http://c:4318/below/v1/metrics"
    assert found.app_logs.url("logs") == "http://c:4318/below/v1/logs"
    assert (found.metrics, found.named) == (None, frozenset())
    found = read(
        root, {**common, f"{COMMON}LOGS_ENDPOINT": "https://logs:1/in", f"{COMMON}LOGS_HEADERS": "k=v"}
    )
    assert found.app_logs is not None
    assert (found.app_logs.url("logs"), found.app_logs.headers) == ("https://logs:1/in", (("k", "v"),))
    assert found.named == frozenset({"logs"})


def test_fault_of_a_common_variable_is_told_once(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(root, {f"{COMMON}ENDPOINT": "http://c:4317", f"{COMMON}TIMEOUT": "soon"})
    assert len(caught.value.faults) == 1


def test_exporters_by_name(root: Path) -> None:
    found = read(root, {"OTEL_TRACES_EXPORTER": "zipkin, console,own,,otlp,own"})
    assert (found.zipkin, found.to_stdout, found.exporters) == (
        "http://localhost:9411/api/v2/spans",
        True,
        ("own",),
    )
    assert found.traces is not None
    assert (found.traces.address, found.traces.is_secure) == ("localhost:4317", False)

    elsewhere = {"OTEL_EXPORTER_ZIPKIN_ENDPOINT": "https://z.example/api/v2/spans"}
    assert (
        read(root, {"OTEL_TRACES_EXPORTER": "zipkin"} | elsewhere).zipkin == "https://z.example/api/v2/spans"
    )
    assert not read(root, elsewhere).zipkin


@pytest.mark.parametrize("names", ["none", "zipkin", "console,none"])
def test_exporters_without_otlp_leave_its_variables_unused(root: Path, names: str) -> None:
    assert read(root, {"OTEL_TRACES_EXPORTER": names, f"{COMMON}ENDPOINT": "http://c:4317"}).traces is None


def test_daprd_knows_no_names_of_exporters(root: Path) -> None:
    env = {"OTEL_TRACES_EXPORTER": "zipkin,own", f"{COMMON}ENDPOINT": "http://c:4317"}
    found = read(root, env, "daprd")
    assert (found.zipkin, found.exporters, found.traces is None) == ("", (), False)


@pytest.mark.parametrize("endpoint", ["zipkin:9411", "ftp://z/", "http://", "http://z:port/"])
def test_zipkin_that_is_no_url_is_a_fault(root: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_ZIPKIN_ENDPOINT"):
        read(root, {"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_ZIPKIN_ENDPOINT": endpoint})


@pytest.mark.parametrize(
    ("endpoint", "host", "port", "is_secure"),
    [
        ("http://collector:4317", "collector", 4317, False),
        ("https://collector:4317", "collector", 4317, True),
        ("collector:4317", "collector", 4317, True),
        ("https://otlp.example", "otlp.example", 0, True),
        ("http://[::1]:9", "::1", 9, False),
    ],
)
def test_scheme_says_whether_tls_is_used(
    root: Path, endpoint: str, host: str, port: int, *, is_secure: bool
) -> None:
    found = target(root, {f"{COMMON}ENDPOINT": endpoint})
    assert (found.host, found.port, found.is_secure, found.protocol) == (host, port, is_secure, "grpc")


def test_insecure_wins_over_the_scheme_and_a_daprd_knows_nothing_else(root: Path) -> None:
    plain = {f"{COMMON}ENDPOINT": "http://c:1"}
    assert not target(root, {f"{COMMON}ENDPOINT": "https://c:1", f"{COMMON}INSECURE": "true"}).is_secure
    assert target(root, {**plain, f"{COMMON}INSECURE": "false"}).is_secure
    assert target(root, plain, "daprd").is_secure
    assert target(root, {**plain, f"{COMMON}INSECURE": "True"}, "daprd").is_secure
    assert not target(root, {**plain, f"{COMMON}INSECURE": "true"}, "daprd").is_secure


@pytest.mark.parametrize(
    ("word", "protocol", "is_json"),
    [
        ("", "grpc", False),
        ("grpc", "grpc", False),
        ("http/protobuf", "http", False),
        ("http", "http", False),
        ("http/json", "http", True),
        ("else", "grpc", False),
    ],
)
def test_protocol(root: Path, word: str, protocol: str, *, is_json: bool) -> None:
    found = target(root, {f"{COMMON}ENDPOINT": "http://c:1", f"{COMMON}PROTOCOL": word})
    assert (found.protocol, found.is_json) == (protocol, is_json)


@pytest.mark.parametrize(
    ("variable", "endpoint", "url"),
    [
        (f"{COMMON}ENDPOINT", "http://c:1", "http://c:1/v1/traces"),
        (f"{COMMON}ENDPOINT", "http://c:1/", "http://c:1/v1/traces"),
        (f"{COMMON}ENDPOINT", "http://c:1/in/", "http://c:1/in/v1/traces"),
        (f"{TRACES}ENDPOINT", "http://c:1/in", "http://c:1/in"),
        (f"{TRACES}ENDPOINT", "http://c:1", "http://c:1/v1/traces"),
    ],
)
def test_path(root: Path, variable: str, endpoint: str, url: str) -> None:
    assert target(root, {variable: endpoint, f"{COMMON}PROTOCOL": "http"}).url("traces") == url


def test_variable_of_traces_wins(root: Path) -> None:
    found = target(
        root,
        {
            f"{COMMON}ENDPOINT": "http://a:1",
            f"{TRACES}ENDPOINT": "http://b:2",
            f"{COMMON}PROTOCOL": "grpc",
            f"{TRACES}PROTOCOL": "http",
            f"{COMMON}HEADERS": "x=1",
            f"{TRACES}HEADERS": "Api-Key=a%20b, z = 2",
            f"{COMMON}TIMEOUT": "1",
            f"{TRACES}TIMEOUT": "2500",
            f"{COMMON}COMPRESSION": "gzip",
            f"{TRACES}COMPRESSION": "none",
        },
    )
    assert (found.host, found.protocol, found.timeout_s, found.is_compressed) == ("b", "http", 2.5, False)
    assert found.headers == (("Api-Key", "a b"), ("z", "2"))


def test_certificate_is_read(root: Path, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    env = {f"{COMMON}ENDPOINT": "https://c:1", f"{COMMON}CERTIFICATE": str(pem)}
    assert target(root, env).certificate_pem.startswith(b"-----BEGIN")


def test_client_certificate_is_read_by_signal(root: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    for file, pem in zip((certificate, key), WebCa().leaf(), strict=True):
        file.write_bytes(pem)
    env = {
        f"{COMMON}ENDPOINT": "https://c:1",
        f"{COMMON}CLIENT_CERTIFICATE": "/nowhere.pem",
        f"{TRACES}CLIENT_CERTIFICATE": str(certificate),
        f"{COMMON}CLIENT_KEY": str(key),
        f"{COMMON}METRICS_CLIENT_CERTIFICATE": str(certificate),
        f"{COMMON}LOGS_CLIENT_CERTIFICATE": str(certificate),
    }
    assert target(root, env).client == (str(certificate), str(key))
    with pytest.raises(ConfigError, match=f"{TRACES}CLIENT_CERTIFICATE.*in PEM"):
        read(root, {**env, f"{COMMON}CLIENT_KEY": str(certificate)})
    del env[f"{COMMON}CLIENT_KEY"]
    with pytest.raises(ConfigError, match=f"{COMMON}CLIENT_KEY.*beside that of {TRACES}CLIENT_CERTIFICATE"):
        read(root, env)


def test_resource_and_batches(root: Path) -> None:
    env = {
        "OTEL_SERVICE_NAME": "web",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment=a%2Cb",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BSP_EXPORT_TIMEOUT": "1500",
    }
    found = read(root, env)
    assert (found.service_name, found.resource) == ("web", (("deployment.environment", "a,b"),))
    assert (found.limits.queue, found.limits.batch) == (100, 100)
    assert (found.limits.flush_s, found.limits.export_s) == (0.2, 1.5)
    assert read(root, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}).service_name == "other"


def test_batches_of_log_records_have_limits_of_their_own_else_those_of_spans(root: Path) -> None:
    spans = {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    assert read(root, spans).log_limits == read(root, spans).limits
    logs = {
        "OTEL_BLRP_MAX_QUEUE_SIZE": "50",
        "OTEL_BLRP_SCHEDULE_DELAY": "1000",
        "OTEL_BLRP_EXPORT_TIMEOUT": "700",
    }
    found = read(root, {**spans, **logs})
    assert (found.limits.queue, found.limits.flush_s) == (100, 0.2)
    assert (found.log_limits.queue, found.log_limits.batch) == (50, 50)
    assert (found.log_limits.flush_s, found.log_limits.export_s) == (1.0, 0.7)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (f"{COMMON}ENDPOINT", "ftp://c:1"),
        (f"{COMMON}ENDPOINT", "http://"),
        (f"{COMMON}ENDPOINT", "http://c:port"),
        (f"{COMMON}HEADERS", "nonsense"),
        (f"{COMMON}HEADERS", "=x"),
        (f"{COMMON}HEADERS", "a=%0d%0ab"),
        (f"{COMMON}HEADERS", "a b=c"),
        (f"{COMMON}TIMEOUT", "10s"),
        (f"{COMMON}TIMEOUT", "0"),
        (f"{COMMON}CERTIFICATE", "/nowhere.pem"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
    ],
)
def test_what_is_wrong_stops_the_start(root: Path, variable: str, value: str) -> None:
    env = {f"{COMMON}ENDPOINT": "http://c:1", variable: value}
    with pytest.raises(ConfigError, match=variable):
        read(root, env)


def test_values_of_headers_are_told_nowhere(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(root, {f"{COMMON}ENDPOINT": "http://c:1", f"{COMMON}HEADERS": "key=hush\x01"})
    assert "hush" not in str(caught.value)


def test_empty_variables_say_nothing(root: Path) -> None:
    assert read(root, dict.fromkeys(OTEL_VARIABLES, "")).traces is None


def test_metrics_are_pushed_where_their_own_variable_says(root: Path) -> None:
    common = {f"{COMMON}ENDPOINT": "http://c:1", f"{COMMON}HEADERS": "k=v"}
    assert read(root, common).metrics is None
    found = read(
        root, {**common, f"{COMMON}METRICS_ENDPOINT": "http://m:2/in", "OTEL_METRIC_EXPORT_INTERVAL": "250"}
    )
    assert found.metrics is not None
    assert (found.metrics.host, found.metrics.path, found.metrics.headers) == ("m", "/in", (("k", "v"),))
    assert (found.metrics_every_s, found.metrics_temporality) == (0.25, "cumulative")
    assert found.traces is not None
    assert found.traces.host == "c"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("delta", "delta"), ("Cumulative", "cumulative"), ("LowMemory", "delta"), (" ", "cumulative")],
)
def test_temporality_of_metrics_is_read_in_any_case(root: Path, written: str, meant: str) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    assert read(root, {variable: written}).metrics_temporality == meant
    with pytest.raises(ConfigError, match=f"{variable}: 'rising', expected cumulative, delta or lowmemory"):
        read(root, {variable: "rising"})
