"""The sections of a Configuration beside access control."""

from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.rules.configuration import (
    AccessLogConfig,
    ConfigurationValues,
    LoggingConfig,
    MetricRule,
    NameResolutionConfig,
    OtelConfig,
)
from tests.unit.policies.writing import Json, configuration, loaded


def of(folder: Path, *specs: Json) -> ConfigurationValues:
    return loaded(folder, *(configuration(spec) for spec in specs)).configuration


def test_empty_spec_gives_the_defaults(tmp_path: Path) -> None:
    values = of(tmp_path, {})
    assert values == ConfigurationValues()
    assert values.tracing.sampling_rate == 0.0001
    assert not values.tracing.is_rate_given
    assert len(values.metrics.latency_buckets_ms) == 34


@pytest.mark.parametrize(
    ("written", "rate"),
    [("1", 1.0), (0.5, 0.5), (0, 0.0), ("7", 1.0), ("-1", 0.0), ("1e-3", 0.001), ("nan", 0.0)],
)
def test_sampling_rate_is_clamped(tmp_path: Path, written: object, rate: float) -> None:
    tracing = of(tmp_path, {"tracing": {"samplingRate": written}}).tracing
    assert (tracing.sampling_rate, tracing.is_rate_given) == (rate, True)


def test_tracing_endpoints_are_read(tmp_path: Path) -> None:
    tracing = of(
        tmp_path,
        {
            "tracing": {
                "stdout": True,
                "zipkin": {"endpointAddress": "http://localhost:9411/api/v2/spans"},
                "otel": {
                    "endpointAddress": "localhost:4317",
                    "protocol": "grpc",
                    "isSecure": False,
                    "headers": ["a=b=c", {"name": "n", "value": "v"}],
                    "timeout": "5s",
                },
            },
        },
    ).tracing
    assert tracing.stdout
    assert tracing.zipkin_endpoint == "http://localhost:9411/api/v2/spans"
    assert tracing.otel == OtelConfig(
        endpoint="localhost:4317",
        protocol="grpc",
        is_secure=False,
        headers=(("a", "b=c"), ("n", "v")),
        timeout_s=5.0,
    )


def test_metrics_win_over_metric_field_by_field(tmp_path: Path) -> None:
    metrics = of(
        tmp_path,
        {
            "metric": {"enabled": False, "http": {"excludeVerbs": True, "increasedCardinality": False}},
            "metrics": {
                "enabled": True,
                "latencyDistributionBuckets": [1, 5, 10],
                "http": {"pathMatching": ["/orders/{id}"], "increasedCardinality": True},
                "rules": [{"name": "m", "labels": [{"name": "path", "regex": {"/o/x": "/o/.+"}}]}],
            },
        },
    ).metrics
    assert metrics.enabled
    assert metrics.exclude_verbs
    assert metrics.increased_cardinality
    assert metrics.path_matching == ("/orders/{id}",)
    assert metrics.latency_buckets_ms == (1, 5, 10)
    assert metrics.rules == (MetricRule(metric="m", label="path", replacements=(("/o/x", "/o/.+"),)),)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ([{"name": "a", "enabled": True}, {"name": "b", "enabled": False}, {"name": "c"}], ("a",)),
        ([{"enabled": True}, {"name": 1, "enabled": True}, "d"], ()),
        ({"name": "a", "enabled": True}, ()),
    ],
)
def test_enabled_features_are_named_for_the_metadata(
    tmp_path: Path, written: object, names: tuple[str, ...]
) -> None:
    snapshot = loaded(tmp_path, configuration({"features": written}))
    assert snapshot.configuration.features == names
    assert any("the metadata lists those that are enabled" in text for text in snapshot.warnings)


def test_name_resolution_and_logging_are_read_and_mtls_is_told_to_be_sentrys(tmp_path: Path) -> None:
    snapshot = loaded(
        tmp_path,
        configuration(
            {
                "mtls": {
                    "enabled": True,
                    "workloadCertTTL": "24h",
                    "allowedClockSkew": "15m",
                    "sentryAddress": "h:1",
                },
                "nameResolution": {"component": "SQLite", "configuration": {"connectionString": "x.db"}},
                "logging": {"apiLogging": {"enabled": True, "obfuscateURLs": True}},
            }
        ),
    )
    values = snapshot.configuration
    warnings = "\n".join(snapshot.warnings)
    assert len(snapshot.warnings) == 4
    assert "spec.mtls.enabled: is known and has no effect in postern: `--enable-mtls` decides" in warnings
    assert "spec.mtls.workloadCertTTL" in warnings
    assert values.name_resolution == NameResolutionConfig(
        component="sqlite",
        configuration={"connectionString": "x.db"},
    )
    assert values.logging == LoggingConfig(api_enabled=True, obfuscate_urls=True)


def test_access_log_is_read(tmp_path: Path) -> None:
    log = {"format": "verb,path", "headers": ["x-a"], "minStatus": 400, "slowerThan": "250ms", "sample": 10}
    found = of(tmp_path, {"logging": {"accessLog": log}}).logging.access
    assert found == AccessLogConfig(
        format="verb,path", headers=("x-a",), min_status=400, slower_s=0.25, sample=10
    )


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ({"minStatus": 1000}, "minStatus: `1000` is not a status"),
        ({"sample": 0}, "sample: `0` is not a sampling rate"),
    ],
)
def test_access_log_beyond_bounds_is_a_fault(tmp_path: Path, log: Json, fault: str) -> None:
    with pytest.raises(DocumentError, match=f"spec.logging.accessLog.{fault}"):
        loaded(tmp_path, configuration({"logging": {"accessLog": log}}))


def test_later_file_is_laid_over_the_earlier(tmp_path: Path) -> None:
    values = of(
        tmp_path,
        {
            "tracing": {"samplingRate": "1", "zipkin": {"endpointAddress": "http://a/x"}},
            "metrics": {"recordErrorCodes": True},
        },
        {"tracing": {"zipkin": {"endpointAddress": "http://b/x"}}},
        {"accessControl": {"defaultAction": "deny"}},
    )
    assert values.tracing.sampling_rate == 1.0
    assert values.tracing.zipkin_endpoint == "http://b/x"
    assert values.metrics.record_error_codes is True


@pytest.mark.parametrize(
    "section",
    ["features", "secrets", "components", "workflow", "wasm"],
)
def test_section_without_effect_is_named_once(tmp_path: Path, section: str) -> None:
    warnings = loaded(tmp_path, configuration({section: {"any": ["thing"]}})).warnings
    assert [section in warning for warning in warnings] == [True]


@pytest.mark.parametrize(
    ("spec", "fault", "is_forgiven"),
    [
        ({"tracing": {"samplingRate": "often"}}, "samplingRate: `often` is not a sampling rate", True),
        ({"tracing": {"otel": {"endpointAddress": "h:1"}}}, "has no protocol", True),
        ({"tracing": {"otel": {"endpointAddress": "http://h:1", "protocol": "http"}}}, "has a scheme", True),
        (
            {"tracing": {"otel": {"endpointAddress": "h:1", "protocol": "grpc", "headers": ["x"]}}},
            "key=value",
            True,
        ),
        ({"mtls": {"workloadCertTTL": 24}}, "`24` has no unit", True),
        ({"tracing": {"sampling": 1}}, "did you mean samplingRate?", True),
        ({"newThing": {}}, "unknown key", True),
        ({"tracing": {"otel": {"endpointAddress": "h:1", "protocol": "udp"}}}, "`udp` is unknown", False),
        ({"tracing": {"zipkin": {"endpointAddress": "localhost:9411"}}}, "is not a URL", False),
        ({"tracing": {"zipkin": {"endpointAddress": "http://h:x/"}}}, "is not a URL", False),
        ({"tracing": {"stdout": "true"}}, "is not a boolean", False),
        ({"mtls": {"allowedClockSkew": "long"}}, "is not a duration", False),
        ({"metrics": {"latencyDistributionBuckets": [5, 1]}}, "ascending", False),
        (
            {"metrics": {"rules": [{"name": "m", "labels": [{"name": "l", "regex": {"x": "("}}]}]}},
            "regular",
            False,
        ),
        ({"acessControl": {"defaultAction": "deny"}}, "did you mean accessControl?", False),
        ({"accesscontrol": {}}, "did you mean accessControl?", False),
        ({"security": {"policies": []}}, "unknown key", False),
    ],
)
def test_fault_is_told_and_forgiven_only_where_that_is_safe(
    tmp_path: Path,
    spec: Json,
    fault: str,
    is_forgiven: bool,
) -> None:
    text = configuration(spec)
    with pytest.raises(DocumentError) as caught:
        loaded(tmp_path, text)
    assert fault in str(caught.value)
    if is_forgiven:
        assert fault in "\n".join(loaded(tmp_path, text, lenient=True).warnings)
    else:
        with pytest.raises(DocumentError):
            loaded(tmp_path, text, lenient=True)


def test_name_resolution_of_another_version_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="unknown version `v2` of mdns"):
        of(tmp_path, {"nameResolution": {"component": "mdns", "version": "v2"}})
