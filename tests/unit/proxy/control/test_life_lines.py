"""The lines of a sidecar's life, word by word: scripts wait for them."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from policies.reloading.loading import load
from proxy.api.admin import BY_API
from proxy.control.life_lines import DaprLines, LifeLines, life_lines
from proxy.control.policy_sources import policy_sources
from proxy.settings.parsing import parse
from proxy.settings.values import Settings
from telemetry.logs import Line

PORTS = {"http": 3500, "grpc": 50001, "peer": 47301, "metrics": None}


def settings_of(*flags: str) -> Settings:
    return parse(["--app-id", "web", *flags], {"POSTERN_HOME": "/nowhere"}, profile_hint="daprd")


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.name, record.getMessage()) for record in caplog.records if isinstance(record, Line)]


@pytest.fixture
def dapr(caplog: pytest.LogCaptureFixture) -> LifeLines:
    caplog.set_level(logging.INFO)
    clock = iter((5.0, 5.0624)).__next__
    return DaprLines(settings_of("--app-port", "8080", "--dapr-listen-addresses", "127.0.0.1,[::1]"), clock)


def test_profile_says_in_whose_words() -> None:
    assert type(life_lines(settings_of())) is DaprLines
    for profile in ("dev", "production"):
        assert type(life_lines(settings_of("--profile", profile))) is LifeLines


def test_start_is_told_as_daprd_tells_it(dapr: LifeLines, caplog: pytest.LogCaptureFixture) -> None:
    dapr.starting()
    dapr.naming("")
    dapr.listening({**PORTS, "metrics": 9090}, "portable")
    dapr.waiting_for_app("127.0.0.1:8080", "refused")
    dapr.app_listens("127.0.0.1:8080")
    dapr.app_configured()
    dapr.ready()
    told = lines_of(caplog)
    runtime = [message for scope, message in told if scope == "dapr.runtime"]
    assert runtime[0].startswith("Starting Dapr Runtime -- version ")
    assert runtime[1:] == [
        "Log level set to: info",
        "standalone mode configured",
        "app id: web",
        "Initialized name resolution to mdns",
        "API gRPC server is running on port 50001",
        "HTTP server is running on port 3500",
        "metrics server started on 0.0.0.0:9090/",
        "The request body size parameter is: 4194304 bytes",
        "Internal gRPC server is running on 0.0.0.0:47301",
        "application protocol: http. waiting on port 8080.  This will block until the app is listening on that port.",
        "application discovered on port 8080",
        "Application configuration loaded",
        "dapr initialized. Status: Running. Init Elapsed 62ms",
    ]
    assert ("dapr.runtime.http", "HTTP server listening on TCP address: 127.0.0.1:3500") in told
    assert ("dapr.runtime.grpc.api", "gRPC server listening on TCP address: [::1]:50001") in told
    assert ("dapr.runtime.grpc.internal", "gRPC server listening on TCP address: 0.0.0.0:47301") in told
    assert ("dapr.runtime.http", "Enabled max body size HTTP middleware with size 4194304 bytes") in told
    off = "mTLS is disabled. Skipping certificate request and tls validation"
    assert ("dapr.runtime.security", off) in told
    assert ("postern", "listening") in told


def test_certificate_is_told_as_daprd_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = DaprLines(replace(settings_of(), mtls=True))
    lines.starting()
    lines.fetching_identity()
    until = datetime(2026, 11, 30, 12, 0, 1, 500, tzinfo=UTC)
    lines.identified(until, is_first=True)
    lines.identified(until, is_first=False)
    assert [message for scope, message in lines_of(caplog) if scope == "dapr.runtime.security"] == [
        "Fetching initial identity certificate",
        "Security is initialized successfully",
        "Successfully renewed workload cert; new cert expires on: 2026-11-30 12:00:01 +0000 UTC",
    ]


RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: upper}
spec: {type: middleware.http.uppercase, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: outside}
spec: {baseUrl: "http://127.0.0.1:9"}
"""


def test_resources_are_told_as_daprd_tells_them(
    dapr: LifeLines, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "all.yaml").write_text(RESOURCES)
    policy = load(policy_sources(settings_of("--resources-path", str(tmp_path))))
    features = replace(policy.configuration, features=("One", "Two"))
    dapr.loaded(replace(policy, configuration=features))
    assert [message for _, message in lines_of(caplog)] == [
        "loading default configuration",
        "Enabled features: One Two",
        "Loading components…",
        "Component loaded: upper (middleware.http.uppercase/v1)",
        "Waiting for all outstanding components to be processed…",
        "All outstanding components processed",
        "Loading endpoints…",
        "Found http endpoint: outside",
        "Waiting for all outstanding http endpoints to be processed…",
        "All outstanding http endpoints processed",
    ]


def test_what_guards_the_apis_is_told_as_daprd_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    flags = ("--allowed-origins", "https://shop.example", "--app-max-concurrency", "3")
    settings = replace(settings_of(*flags), api_token="secret")
    lines = DaprLines(settings)
    lines.listening(PORTS, "portable")
    lines.ready()
    told = lines_of(caplog)
    assert ("dapr.runtime.http", "Enabled CORS HTTP middleware") in told
    assert ("dapr.runtime.http", "Enabled token authentication on HTTP server") in told
    assert ("dapr.runtime.grpc.api", "Enabled token authentication on gRPC server") in told
    assert ("dapr.runtime", "app max concurrency set to 3") in told
    assert "secret" not in caplog.text


def test_sockets_are_told_in_the_place_of_ports(
    dapr: LifeLines, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings = replace(settings_of(), unix_domain_socket=tmp_path)
    life_lines(settings).listening({**PORTS, "http": None, "grpc": None}, "portable")
    told = lines_of(caplog)
    assert ("dapr.runtime", "HTTP server is running on a Unix Domain Socket") in told
    assert (
        "dapr.runtime.grpc.api",
        f"gRPC server listening on UNIX socket: {tmp_path}/dapr-web-grpc.socket",
    ) in told


def test_end_is_told_as_daprd_tells_it(dapr: LifeLines, caplog: pytest.LogCaptureFixture) -> None:
    dapr.app_health(healthy=True)
    dapr.app_health(healthy=False)
    dapr.leaving("SIGTERM")
    dapr.leaving(BY_API)
    dapr.aborting()
    dapr.delaying(180.0)
    dapr.delayed(healthy=True)
    dapr.delayed(healthy=False)
    dapr.stopped()
    dapr.cut(2, 5.0)
    dapr.leaving("postern stop")
    assert lines_of(caplog) == [
        ("dapr.apphealth", "App entered healthy status"),
        ("dapr.apphealth", "App entered un-healthy status"),
        ("dapr.signals", "Received signal 'terminated'; beginning shutdown"),
        ("dapr.api", "Shutdown requested via API"),
        ("dapr.api", "Force shutdown requested, exiting immediately without graceful shutdown"),
        ("dapr.runtime", "Blocking graceful shutdown for 3m0s or until app reports unhealthy..."),
        ("dapr.runtime", "Block shutdown period expired, entering shutdown..."),
        ("dapr.runtime", "App reported unhealthy, entering shutdown..."),
        ("dapr.runtime", "Dapr is shutting down"),
        ("dapr.runtime", "Dapr runtime stopped"),
        ("dapr.runtime", "Daprd shutdown gracefully"),
        ("postern", "calls were cut at shutdown"),
        ("dapr.runtime", "Graceful shutdown timeout exceeded, forcing shutdown"),
        ("postern", "shutting down"),
    ]


def test_own_lines_are_ours_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = life_lines(settings_of("--profile", "production"))
    own.starting()
    own.listening(PORTS, "native")
    own.ready()
    own.leaving("SIGTERM")
    own.stopped()
    assert lines_of(caplog) == [
        ("postern", "listening"),
        ("postern", "shutting down"),
        ("postern", "stopped"),
    ]


def test_failed_start_ends_with_daprs_words_under_its_name_alone(caplog: pytest.LogCaptureFixture) -> None:
    life_lines(settings_of("--profile", "production")).failed(("no port",))
    assert lines_of(caplog) == []
    life_lines(settings_of("--profile", "daprd")).failed(("no port", "no file"))
    assert lines_of(caplog) == [("dapr.runtime", "Fatal error from runtime: no port; no file")]
    assert caplog.records[-1].levelname == "CRITICAL"


def test_wait_for_the_app_is_told_once_even_where_there_is_none(
    dapr: LifeLines, caplog: pytest.LogCaptureFixture
) -> None:
    dapr.app_listens("127.0.0.1:8080")
    dapr.waiting_for_app("127.0.0.1:8080", "refused")
    dapr.app_listens("127.0.0.1:8080")
    kinds = [message.partition(" ")[2].partition(" ")[0] for _, message in lines_of(caplog)]
    assert kinds == ["protocol:", "discovered", "protocol:", "discovered"]
