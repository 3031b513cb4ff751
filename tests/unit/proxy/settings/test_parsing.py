"""Flags and environment to settings: defaults by profile, every flag, every fault at once."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.contract.engine import Limits
from proxy.errors import ConfigError
from proxy.settings.flags import FLAGS, scan
from proxy.settings.parsing import derived_peer_port, http_port_of, parse
from proxy.settings.values import AppHealth, OwnPort, PortWish, Settings

PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
Parse = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Parse:
    """Parse flags for app `cart`, in a runtime root of the test's own."""

    def reading(*flags: str, **variables: str) -> Settings:
        env = {"POSTERN_HOME": str(tmp_path / "root"), **variables}
        return parse(["--app-id", "cart", *flags], env)

    return reading


def faults(read: Parse, *flags: str, **variables: str) -> tuple[str, ...]:
    """What is wrong with these flags."""
    with pytest.raises(ConfigError) as caught:
        read(*flags, **variables)
    return caught.value.faults


def test_production_is_the_default_profile(read: Parse) -> None:
    settings = read()
    assert settings.profile == "production"
    assert settings.mtls
    assert settings.sentry_address is None
    assert settings.http_port == PortWish(3500)
    assert settings.grpc_port == PortWish(50001)
    assert settings.metrics_port == PortWish(9090)
    assert settings.listen_addresses == ("127.0.0.1", "::1")
    assert settings.metrics_listen_address == "127.0.0.1"
    assert settings.max_body_bytes is None
    assert not settings.learn_names
    assert settings.app_port is None
    assert settings.public_port is None
    assert settings.namespace == "default"
    assert settings.trust_domain == "public"
    assert not settings.trust_domain_given
    assert (settings.engine, settings.threads, settings.keep_decisions) == ("auto", 1, True)
    assert settings.drain_s == 2.0
    assert settings.graceful_shutdown_s == 5.0
    assert settings.warnings == ()


def test_dev_profile_falls_back_to_free_ports_and_learns_names(read: Parse) -> None:
    settings = read("--profile", "dev")
    assert settings.http_port == PortWish(3500, fallback=True)
    assert settings.grpc_port == PortWish(50001, fallback=True)
    assert settings.metrics_port == PortWish(9090, fallback=True)
    assert settings.learn_names
    assert settings.mtls


def test_daprd_profile_has_daprs_defaults(read: Parse) -> None:
    settings = read("--profile=daprd")
    assert not settings.mtls
    assert settings.http_port == PortWish(3500)
    assert settings.listen_addresses == ("0.0.0.0", "::")
    assert settings.metrics_listen_address == "0.0.0.0"
    assert settings.peer_listen_address == "0.0.0.0"
    assert settings.max_body_bytes == 4 * 1024 * 1024
    assert settings.read_buffer_bytes == 16_384
    assert settings.warnings == ()


def test_profile_hint_gives_way_to_the_flag(tmp_path: Path) -> None:
    env = {"POSTERN_HOME": str(tmp_path / "root")}
    assert parse(["--app-id=a"], env, profile_hint="dev").profile == "dev"
    assert parse(["--app-id=a", "--profile=daprd"], env, profile_hint="dev").profile == "daprd"


def test_explicit_ports_have_no_fallback_and_zero_is_any(read: Parse) -> None:
    settings = read("--profile=dev", "--dapr-http-port=3600", "--dapr-grpc-port=0", "--metrics-port", "0")
    assert settings.http_port == PortWish(3600)
    assert settings.grpc_port == PortWish(0)
    assert settings.metrics_port == PortWish(0)


def test_peer_port_left_empty_is_derived_and_may_move(read: Parse) -> None:
    expected = derived_peer_port("cart", str(Path.cwd()), os.getuid(), socket.gethostname())
    assert read().peer_port == PortWish(expected, fallback=True)
    assert read("--dapr-internal-grpc-port=0").peer_port == PortWish(expected, fallback=True)
    assert read("--dapr-internal-grpc-port", "").peer_port == PortWish(expected, fallback=True)
    assert read("--dapr-internal-grpc-port=50002").peer_port == PortWish(50002)


def test_derived_peer_port_is_stable_and_in_its_range() -> None:
    assert derived_peer_port("cart", "/srv", 1000, "host") == 49064
    ports = {derived_peer_port("cart", "/srv", uid, "host") for uid in range(200)}
    assert len(ports) > 190
    assert all(47300 <= port < 47300 + 18235 for port in ports)


def test_metrics_can_be_switched_off(read: Parse) -> None:
    assert read("--enable-metrics=false").metrics_port is None


@pytest.mark.parametrize("text", ["0", "", "-1"])
def test_app_port_zero_or_empty_means_no_app_channel(read: Parse, text: str) -> None:
    assert read(f"--app-port={text}").app_port is None


def test_app_flags_are_read(read: Parse) -> None:
    settings = read(
        "--app-port=8080", "--app-protocol=GRPC", "--app-channel-address=[::1]", "--app-max-concurrency=7"
    )
    assert settings.app_port == 8080
    assert settings.app_protocol == "grpc"
    assert settings.app_channel_address == "::1"
    assert settings.app_max_concurrency == 7


@pytest.mark.parametrize("text", ["-1", "0"])
def test_app_max_concurrency_not_positive_means_no_limit(read: Parse, text: str) -> None:
    assert read("--app-max-concurrency", text).app_max_concurrency is None


@pytest.mark.parametrize(("protocol", "secured"), [("http", "https"), ("grpc", "grpcs"), ("h2c", "h2c")])
def test_app_ssl_secures_the_protocol(read: Parse, protocol: str, secured: str) -> None:
    assert read("--app-ssl", f"--app-protocol={protocol}").app_protocol == secured


def test_app_health_is_off_by_default_and_has_daprs_defaults(read: Parse) -> None:
    assert read().app_health is None
    health = read("--enable-app-health-check").app_health
    assert health == AppHealth(path="/healthz", interval_s=5, timeout_s=0.5, threshold=3)


def test_app_health_values_not_positive_mean_the_default_and_the_path_gets_its_slash(read: Parse) -> None:
    health = read(
        "--enable-app-health-check=true",
        "--app-health-check-path=up",
        "--app-health-probe-interval=0",
        "--app-health-probe-timeout=-5",
        "--app-health-threshold=0",
    ).app_health
    assert health == AppHealth(path="/up", interval_s=5, timeout_s=0.5, threshold=3)


def test_app_health_timeout_beyond_the_interval_is_a_fault(read: Parse) -> None:
    flags = ("--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-probe-timeout=1001")
    assert "--app-health-probe-timeout: 1001 ms" in faults(read, *flags)[0]
    assert read(*flags[:2], "--app-health-probe-timeout=1000").app_health is not None


def test_listen_addresses_lose_their_brackets(read: Parse) -> None:
    assert read("--dapr-listen-addresses=[::1],127.0.0.1").listen_addresses == ("::1", "127.0.0.1")


def test_loopback_peer_address_is_what_naming_must_announce(read: Parse) -> None:
    assert read().advertised_host is None
    assert read("--dapr-internal-grpc-listen-address=127.0.0.1").advertised_host == "127.0.0.1"
    assert read("--dapr-internal-grpc-listen-address=[::1]").advertised_host == "::1"
    assert read(DAPR_HOST_IP="10.1.2.3").advertised_host == "10.1.2.3"


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        ((), None),
        (("--max-body-size=8Mi",), 8 * 1024 * 1024),
        (("--max-body-size=-1",), None),
        (("--max-body-size=0",), None),
        (("--dapr-http-max-request-size=2",), 2 * 1024 * 1024),
        (("--dapr-http-max-request-size=2", "--max-body-size=1Ki"), 1024),
        (("--profile=daprd", "--max-body-size=-1"), 4 * 1024 * 1024),
        (("--profile=daprd", "--max-body-size=0"), None),
    ],
)
def test_body_limit(read: Parse, flags: tuple[str, ...], limit: int | None) -> None:
    assert read(*flags).max_body_bytes == limit


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        ((), 65536),
        (("--read-buffer-size=8Ki",), 8192),
        (("--dapr-http-read-buffer-size=16",), 16384),
        (("--read-buffer-size=0",), 65536),
    ],
)
def test_head_limit(read: Parse, flags: tuple[str, ...], size: int) -> None:
    assert read(*flags).read_buffer_bytes == size


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("-1", 5.0), ("0", None), ("30", 30.0)])
def test_graceful_shutdown(read: Parse, text: str, seconds: float | None) -> None:
    assert read("--dapr-graceful-shutdown-seconds", text).graceful_shutdown_s == seconds


def test_durations_are_gos(read: Parse) -> None:
    settings = read("--dapr-block-shutdown-duration=1m30s", "--drain=250ms")
    assert settings.block_shutdown_s == 90.0
    assert settings.drain_s == 0.25


def test_kubernetes_mode_is_refused_until_it_is_built(read: Parse) -> None:
    with pytest.raises(ConfigError, match="--mode: kubernetes is not built yet, expected standalone"):
        read("--mode=kubernetes", "--sentry-address=sentry:443", DAPR_TRUST_ANCHORS=PEM)


def test_upstreams_and_routes_are_read(read: Parse) -> None:
    settings = read(
        "--upstream",
        "pay=7001",
        "--upstream=stock.shop",
        "--route",
        "shop.CartService=cart",
        "--grpc-service=a.B",
    )
    assert settings.upstreams == (OwnPort("pay", 7001), OwnPort("stock.shop", 0))
    assert [own.variable for own in settings.upstreams] == ["PAY_ADDR", "STOCK_SHOP_ADDR"]
    assert settings.routes == ("shop.CartService=cart",)
    assert settings.grpc_services == ("a.B",)


@pytest.mark.parametrize("text", ["=1", "pay=x", "pay=70000", "pay=", "p a=1", "a.b.=1", "pay=-1"])
def test_upstream_of_another_form_is_a_fault(read: Parse, text: str) -> None:
    if text == "pay=":
        assert "--upstream" in faults(read, f"--upstream={text}")[0]
    else:
        assert "expected app=port" in faults(read, f"--upstream={text}")[0]


def test_upstream_given_twice_is_a_fault(read: Parse) -> None:
    assert "--upstream: pay twice" in faults(read, "--upstream=pay=1", "--upstream=pay=2")[0]


@pytest.mark.parametrize("text", ["x", "=cart", "x=", "a b=c"])
def test_route_of_another_form_is_a_fault(read: Parse, text: str) -> None:
    assert "expected service=app" in faults(read, f"--route={text}")[0]


def test_app_port_equal_to_an_api_port_is_a_fault(read: Parse) -> None:
    assert "port 3500 is also --app-port" in faults(read, "--app-port=3500")[0]
    assert "port 50001 is also --app-port" in faults(read, "--app-port=50001")[0]
    flags = ("--profile=dev", "--dapr-http-port=4000", "--app-port=4000")
    assert "port 4000 is also --app-port" in faults(read, *flags)[0]


def test_app_on_a_default_port_moves_the_api_under_dev(read: Parse) -> None:
    assert read("--profile=dev", "--app-port=3500").http_port == PortWish(0, fallback=True)


def test_upstream_port_equal_to_another_port_is_a_fault(read: Parse) -> None:
    assert "also --app-port" in faults(read, "--app-port=7001", "--upstream=pay=7001")[0]
    assert "also --upstream pay" in faults(read, "--upstream=pay=7001", "--upstream=stock=7001")[0]


def test_mutual_tls_can_be_switched_off_and_says_so(read: Parse) -> None:
    settings = read("--insecure-plaintext")
    assert not settings.mtls
    assert "mutual TLS is off" in settings.warnings[0]
    assert read("--enable-mtls=false").warnings == settings.warnings


def test_plaintext_under_dev_stays_on_loopback(read: Parse) -> None:
    assert read("--profile=dev", "--insecure-plaintext").peer_listen_address == "127.0.0.1"


def test_plaintext_together_with_mutual_tls_is_a_fault(read: Parse) -> None:
    assert "--insecure-plaintext" in faults(read, "--insecure-plaintext", "--enable-mtls")[0]


def test_remote_sentry_needs_trust_anchors(read: Parse, tmp_path: Path) -> None:
    assert "DAPR_TRUST_ANCHORS: missing" in faults(read, "--sentry-address=ca:443")[0]
    assert read("--sentry-address=ca:443", DAPR_TRUST_ANCHORS=PEM).trust_anchors_pem == PEM.encode()
    file = tmp_path / "ca.pem"
    file.write_text(PEM)
    assert read("--sentry-address=ca:443", f"--trust-anchors-file={file}").trust_anchors_pem == PEM.encode()
    assert "no certificate" in faults(read, "--sentry-address=ca:443", DAPR_TRUST_ANCHORS="x")[0]
    assert "--trust-anchors-file" in faults(read, f"--trust-anchors-file={tmp_path / 'none'}")[0]


def test_daprd_with_mutual_tls_needs_sentrys_address(read: Parse) -> None:
    assert "--sentry-address: missing" in faults(read, "--profile=daprd", "--enable-mtls")[0]


@pytest.mark.parametrize("text", ["sentry", "sentry:", ":443", "sentry:x", "sentry:0", "sentry:70000"])
def test_sentry_address_of_another_form_is_a_fault(read: Parse, text: str) -> None:
    assert (
        "expected host:port or unix:/path"
        in faults(read, f"--sentry-address={text}", DAPR_TRUST_ANCHORS=PEM)[0]
    )


def test_environment_is_read(read: Parse, tmp_path: Path) -> None:
    settings = read(
        NAMESPACE="shop",
        DAPR_API_TOKEN="t1",
        APP_API_TOKEN="t2",
        DAPR_CONTROLPLANE_TRUST_DOMAIN="cluster.local",
        DAPR_CONTROLPLANE_NAMESPACE="dapr-system",
        SENTRY_LOCAL_IDENTITY="other",
        DAPR_SENTRY_TOKEN_FILE=str(tmp_path / "token"),
        DAPR_HTTP_DISABLE_H2C="Yes",
        POSTERN_ENGINE="portable",
        POSTERN_THREADS="2",
        POSTERN_NO_DECISION_CACHE="true",
    )
    assert settings.namespace == "shop"
    assert (settings.api_token, settings.app_api_token) == ("t1", "t2")
    assert settings.control_plane_trust_domain == "cluster.local"
    assert settings.control_plane_namespace == "dapr-system"
    assert settings.sentry_local_identity == "other"
    assert settings.sentry_token_file == tmp_path / "token"
    assert any(warning.startswith("DAPR_HTTP_DISABLE_H2C has no effect") for warning in settings.warnings)
    assert (settings.engine, settings.threads, settings.keep_decisions) == ("portable", 2, False)
    assert settings.runtime_root == tmp_path / "root"


def test_flags_beat_the_environment(read: Parse, tmp_path: Path) -> None:
    settings = read(
        "--namespace=a",
        "--control-plane-trust-domain=b",
        "--engine=native",
        "--threads=3",
        "--no-decision-cache=false",
        "--host-ip=10.0.0.1",
        f"--runtime-path={tmp_path / 'other'}",
        NAMESPACE="x",
        DAPR_CONTROLPLANE_TRUST_DOMAIN="y",
        POSTERN_ENGINE="portable",
        POSTERN_THREADS="2",
        POSTERN_NO_DECISION_CACHE="true",
        DAPR_HOST_IP="10.0.0.2",
    )
    assert settings.namespace == "a"
    assert settings.control_plane_trust_domain == "b"
    assert (settings.engine, settings.threads, settings.keep_decisions) == ("native", 3, True)
    assert settings.host_ip == "10.0.0.1"
    assert settings.runtime_root == tmp_path / "other"


@pytest.mark.parametrize("text", ["0", "-1", "257", "two", "1.5", "1_0"])
def test_threads_out_of_range_are_a_fault_that_names_its_source(read: Parse, text: str) -> None:
    expected = f"{text!r}, expected a whole number from 1 to 256"
    assert faults(read, f"--threads={text}") == (f"--threads: {expected}",)
    assert faults(read, POSTERN_THREADS=text) == (f"POSTERN_THREADS: {expected}",)


def test_namespace_set_but_empty_stays_empty(read: Parse) -> None:
    assert read("--profile=daprd", NAMESPACE="").namespace == ""
    assert "NAMESPACE" in faults(read, NAMESPACE="")[0]


def test_token_file_variable_set_but_empty_is_a_fault(read: Parse) -> None:
    assert "DAPR_SENTRY_TOKEN_FILE" in faults(read, DAPR_SENTRY_TOKEN_FILE="")[0]


def test_secrets_stay_out_of_the_repr(read: Parse) -> None:
    settings = read(DAPR_API_TOKEN="s3cret", APP_API_TOKEN="s4cret", DAPR_TRUST_ANCHORS=PEM)
    assert not re.search(r"s3cret|s4cret|CERTIFICATE", repr(settings))


def test_paths_must_be_there(read: Parse, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("")
    settings = read(
        f"--config={tmp_path / 'c.yaml'}", f"--resources-path={tmp_path}", f"--components-path={tmp_path}"
    )
    assert settings.config_paths == (tmp_path / "c.yaml",)
    assert settings.resources_paths == (tmp_path, tmp_path)
    found = faults(read, "--config=/none/c", "--resources-path=/none/r", "--unix-domain-socket=/none/u")
    assert len(found) == 3
    assert "--resources-path" in faults(read, f"--resources-path={tmp_path / 'c.yaml'}")[0]


def test_logging_flags_are_read(read: Parse) -> None:
    settings = read("--log-level=Warning", "--log-as-json", "--log-file=/x/y", "--enable-api-logging=false")
    assert settings.log_level == "warn"
    assert settings.log_json
    assert settings.log_file == Path("/x/y")
    assert settings.api_logging is False
    assert read().api_logging is None


def test_run_metadata_is_read(read: Parse) -> None:
    settings = read("--run-command=python app.py", "--run-template=/d.yaml", "--cli-pid=12", "--ready-fd=7")
    assert settings.run.command == "python app.py"
    assert settings.run.run_template == "/d.yaml"
    assert settings.run.cli_pid == 12
    assert settings.ready_fd == 7


def test_unbuilt_flags_are_accepted_and_named_once(read: Parse) -> None:
    settings = read("--placement-host-address=localhost", "--scheduler-host-address", "", "--profile-port=-1")
    assert settings.warnings == (
        "--placement-host-address has no effect: postern has no such building block",
    )


def test_unbuilt_flag_says_why_it_has_no_effect(read: Parse) -> None:
    given = ("--profile-port=7777", "--enable-profiling", "--control-plane-address", "dapr-api:443")
    profiles = "has no effect: postern has no Go runtime to profile"
    assert read(*given, "--profile-port=7778").warnings == (
        f"--profile-port {profiles}",
        f"--enable-profiling {profiles}",
        "--control-plane-address has no effect: resources are read from files, no operator is asked for them",
    )


@pytest.mark.parametrize("app_id", ["", "a.b", "a/b", "-a", "a-", "ä", "a b", "a" * 64])
def test_app_id_that_cannot_be_named_is_a_fault(tmp_path: Path, app_id: str) -> None:
    with pytest.raises(ConfigError, match="--app-id"):
        parse([f"--app-id={app_id}"], {"POSTERN_HOME": str(tmp_path / "root")})


@pytest.mark.parametrize("app_id", ["a", "A", "a-b_c", "0", "a" * 63])
def test_app_id_of_letters_digits_dashes_is_accepted(tmp_path: Path, app_id: str) -> None:
    assert parse([f"--app-id={app_id}"], {"POSTERN_HOME": str(tmp_path / "root")}).app_id == app_id


@pytest.mark.parametrize(
    "flag",
    [
        "--dapr-http-port=x",
        "--dapr-http-port=65536",
        "--dapr-grpc-port=-2",
        "--metrics-port=1.5",
        "--app-protocol=ftp",
        "--app-max-concurrency=x",
        "--drain=5",
        "--drain=-5s",
        "--max-body-size=x",
        "--enable-mtls=maybe",
        "--log-level=loud",
        "--mode=pod",
        "--engine=go",
        "--profile=x",
        "--host-ip=here",
        "--trust-domain=Public",
        "--dapr-listen-addresses=a b",
        "--disable-init-endpoints=all",
        "--grpc-service=1a",
    ],
)
def test_value_of_another_form_is_a_fault_that_names_the_flag_and_what_is_expected(
    read: Parse, flag: str
) -> None:
    found = faults(read, flag)
    assert len(found) == 1
    assert found[0].startswith(flag.partition("=")[0] + ": ")
    assert "expected" in found[0]


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            ["--nope", "--dapr-http-port=x", "--drain=1", "stray"], {"POSTERN_HOME": str(tmp_path / "root")}
        )
    assert len(caught.value.faults) == 5  # the missing app-id too


def test_runtime_root_that_others_can_reach_is_a_fault(read: Parse, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o755)
    assert "--runtime-path" in faults(read)[0]


@pytest.mark.parametrize("flag", [f.name for f in FLAGS.values() if f.kind == "value" and f.name != "app-id"])
def test_flag_given_empty_counts_as_not_given(read: Parse, flag: str) -> None:
    assert read(f"--{flag}=").app_id == "cart"


def test_instances_differ(read: Parse) -> None:
    first, second = read().instance, read().instance
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second


def test_wait_port_is_read_without_the_other_flags() -> None:
    assert http_port_of(scan([]), {}) == 3500
    assert http_port_of(scan(["--dapr-http-port=3600"]), {}) == 3600
    with pytest.raises(ConfigError):
        http_port_of(scan(["--dapr-http-port=x"]), {})


def test_limits_are_the_engines_own_unless_flags_move_them() -> None:
    assert parse(["--app-id", "a"], {}).limits == Limits()
    flags = ("--max-connections=5", "--max-streams=7", "--max-headers=50", "--head-timeout=3s")
    replays = ("--replay-buffer-size=1Mi", "--replay-buffer-total=8Mi")
    times = ("--idle-timeout=1m", "--stall-timeout=20s", "--keepalive-time=4s", "--keepalive-timeout=2s")
    settings = parse(["--app-id=a", *flags, *times, "--connect-timeout=1500ms", *replays], {})
    assert settings.limits == Limits(
        connections=5,
        streams=7,
        header_count=50,
        head_s=3.0,
        idle_s=60.0,
        stall_s=20.0,
        ping_s=4.0,
        pong_s=2.0,
        replay_bytes=8 << 20,
    )
    assert (settings.connect_s, settings.replay_bytes) == (1.5, 1 << 20)


@pytest.mark.parametrize(
    "flag",
    [
        *("--max-connections=0", "--max-streams=-1", "--idle-timeout=0s", "--connect-timeout=x"),
        *("--replay-buffer-total=-1", "--replay-buffer-total=many"),
    ],
)
def test_limit_that_would_stop_everything_is_a_fault(flag: str) -> None:
    with pytest.raises(ConfigError, match=flag.partition("=")[0]):
        parse(["--app-id=a", flag], {})


def test_no_room_for_replays_is_a_setting() -> None:
    assert parse(["--app-id=a", "--replay-buffer-total=0"], {}).limits.replay_bytes == 0


def test_origins_and_hosts_are_compared_as_browsers_write_them(read: Parse) -> None:
    settings = read(
        "--app-id=a",
        "--allowed-origins=https://Shop.example/, http://*.test, null, shop.example",
        "--allowed-hosts=Box.example",
    )
    assert settings.allowed_origins[:2] == ("https://shop.example", "http://*.test")
    assert settings.allowed_hosts == ("box.example",)
    (warning,) = [text for text in settings.warnings if "--allowed-origins" in text]
    assert "'shop.example' matches nobody" in warning
    assert read("--app-id=a", "--profile=daprd").allowed_hosts == ("*",)
    assert read("--app-id=a", "--profile=daprd", "--allowed-hosts=x").allowed_hosts == ("x",)


@pytest.mark.parametrize(
    ("flags", "hosts"),
    [
        ((), ()),
        (("--profile=daprd",), ("*",)),
        (("--profile=daprd", "--egress=none"), ()),
        (("--egress=any",), ("*",)),
        (
            ("--egress=API.example, *.shop.test,[::1]:80,h:8443",),
            ("api.example", "*.shop.test", "[::1]:80", "h:8443"),
        ),
    ],
)
def test_egress_is_none_unless_hosts_are_given_or_as_daprd(
    read: Parse, flags: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    assert read("--app-id=a", *flags).egress == hosts


@pytest.mark.parametrize("given", ["*", "https://h", "h/path", "any,h", "a.*.b", "h:x"])
def test_egress_that_is_no_host_is_a_fault(given: str) -> None:
    with pytest.raises(ConfigError, match="--egress"):
        parse(["--app-id=a", f"--egress={given}"], {})


def test_words_that_belong_to_no_flag_are_ignored_under_the_name_daprd(tmp_path: Path) -> None:
    """Dapr's commands empty a flag that a runtime is too old for, and leave its value."""
    words = ["--app-id=a", "", "localhost:50006", f"--runtime-path={tmp_path / 'root'}"]
    warnings = parse([*words, "--profile=daprd"], {}).warnings
    assert any("ignored, as daprd does: 'localhost:50006'" in warning for warning in warnings)
    with pytest.raises(ConfigError, match="unexpected argument"):
        parse(words, {})
