"""Flags and environment -> frozen `Settings`, or every fault at once.

Three profiles give the defaults: `dev` (under `postern run`), `production` (`postern sidecar`), `daprd` (the compat name). The parser is
driven by the table in `flags`: a sidecar starts without loading a command-line framework.
"""

import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.contract.addresses import split_address
from proxy.contract.engine import Limits
from proxy.errors import ConfigError
from proxy.settings.access_log import access_log_settings
from proxy.settings.flags import Given, scan
from proxy.settings.origins import VARIABLES
from proxy.settings.otel import OTEL_VARIABLES, otel_settings, otel_warnings
from proxy.settings.otel_sdk import sdk_warnings
from proxy.settings.readers import FlagReader
from proxy.settings.values import (
    AppHealth,
    AppProtocol,
    OwnPort,
    PolicyMode,
    PortWish,
    Profile,
    RunMetadata,
    Settings,
)

PROFILES: tuple[Profile, ...] = ("dev", "production", "daprd")
POLICY_MODES: tuple[PolicyMode, ...] = ("enforce", "audit", "off")
PROTOCOLS: tuple[AppProtocol, ...] = ("http", "https", "h2c", "grpc", "grpcs")
LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - Dapr's default, under its name only
ANY_HOST = "0.0.0.0"  # noqa: S104 - peers call from other hosts; mutual TLS guards the port
DAPR_BODY_BYTES = 4 * 1024 * 1024
DAPR_HEAD_BYTES = 16 * 1024  # daprd takes 4 KiB over HTTP, and more over gRPC
HEAD_BYTES = 64 * 1024
REPLAY_BYTES = 64 * 1024
MAX_THREADS = 256
DERIVED_FROM, DERIVED_COUNT = 47300, 18235
_APP_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SERVICE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_VARIABLES = frozenset(
    {
        *VARIABLES.values(),
        *OTEL_VARIABLES,
        "SENTRY_LOCAL_IDENTITY",
        "DAPR_SENTRY_TOKEN_FILE",
        "DAPR_API_TOKEN",
        "APP_API_TOKEN",
    }
)
_TRUTHY = frozenset({"y", "yes", "true", "t", "on", "1"})


def parse(argv: Sequence[str], env: Mapping[str, str], *, profile_hint: Profile | None = None) -> Settings:
    """Settings from arguments (without the program's name) and environment. Makes the runtime root if there is none.

    Raises: ConfigError that lists every fault, one line each: the flag or variable, what was met, what is expected.
    """
    given = scan(argv)
    read = FlagReader(given, env)
    profile = read.choice("profile", PROFILES, profile_hint or "production")
    if profile != "daprd":
        read.faults[:0] = given.strays
    settings = _settings(read, profile)
    if read.faults or settings is None:
        raise ConfigError(tuple(dict.fromkeys(read.faults)))
    return settings


def derived_peer_port(app_id: str, folder: str, user_id: int, hostname: str) -> int:
    """The peer port of a sidecar that was given none: the same at each start."""
    digest = hashlib.sha256(f"{app_id}|{folder}|{user_id}|{hostname}".encode()).digest()
    return DERIVED_FROM + int.from_bytes(digest[:2], "little") % DERIVED_COUNT


def _settings(read: FlagReader, profile: Profile) -> Settings | None:
    _check_mode(read)
    app_id = _name(read)
    app_port, protocol = read.port("app-port", absent=("", "0", "-1")), _protocol(read)
    upstreams = tuple(_own_port(read, text) for text in read.given.every("upstream"))
    http, grpc = _api_ports(read, profile, app_port)
    metrics = _metrics_port(read, profile)
    peer, public = _peer_port(read, app_id), read.port("dapr-public-port", absent=("", "-1"))
    mtls = _mtls(read, profile)
    namespace = _namespace(read, mtls=mtls)
    sentry_address = _sentry_address(read, profile, mtls=mtls)
    _no_collisions(read, app_port, {"dapr-http-port": http, "dapr-grpc-port": grpc}, upstreams)
    trust_domain = read.text("trust-domain")
    anchors = _anchors(read, needed=mtls and sentry_address is not None)
    root = read.runtime_root()
    if root is None:
        return None
    return Settings(
        app_id=app_id,
        namespace=namespace,
        instance=os.urandom(16).hex(),
        profile=profile,
        run=_run(read),
        app_port=app_port,
        app_protocol=protocol,
        app_channel_address=read.host("app-channel-address", "127.0.0.1"),
        app_max_concurrency=_at_least_one(read.number("app-max-concurrency", -1)),
        app_health=_health(read),
        asks_config=_asks_config(read, profile, protocol) and app_port is not None,
        http_port=http,
        grpc_port=grpc,
        peer_port=peer,
        public_port=None if public is None else PortWish(public),
        metrics_port=metrics,
        listen_addresses=read.hosts("dapr-listen-addresses", EVERYWHERE if profile == "daprd" else LOOPBACK),
        peer_listen_address=read.host("dapr-internal-grpc-listen-address", _peer_host(profile, mtls=mtls)),
        public_listen_address=read.host("dapr-public-listen-address", ANY_HOST),
        metrics_listen_address=read.host(
            "metrics-listen-address", ANY_HOST if profile == "daprd" else "127.0.0.1"
        ),
        metrics_tls=_metrics_tls(read),
        metrics_token_file=read.file("metrics-token-file"),
        unix_domain_socket=read.folder("unix-domain-socket"),
        host_ip=read.ip("host-ip", variable="DAPR_HOST_IP"),
        upstreams=upstreams,
        routes=tuple(_route(read, text) for text in read.given.every("route")),
        grpc_services=tuple(_service(read, text) for text in read.given.every("grpc-service")),
        learn_names=profile != "production" and not read.switch("no-learn-names", default=False),
        config_paths=read.files("config"),
        resources_paths=(*read.folders("resources-path"), *read.folders("components-path")),
        config_lenient=read.switch("config-lenient", default=False),
        access_policy_mode=read.choice("access-policy-mode", POLICY_MODES, "enforce"),
        injects_faults=read.switch("enable-fault-injection", default=False),
        keep_open_calls=read.switch("keep-open-calls", default=False, variable="POSTERN_KEEP_OPEN_CALLS"),
        mtls=mtls,
        sentry_address=sentry_address,
        trust_anchors_pem=anchors,
        sentry_token_file=_token_file(read),
        sentry_local_identity=read.env.get("SENTRY_LOCAL_IDENTITY") or None,
        control_plane_trust_domain=read.or_env(
            "control-plane-trust-domain", "DAPR_CONTROLPLANE_TRUST_DOMAIN", "localhost"
        ),
        control_plane_namespace=read.or_env(
            "control-plane-namespace", "DAPR_CONTROLPLANE_NAMESPACE", "default"
        ),
        trust_domain=read.matching(
            "trust-domain", trust_domain or "public", _TRUST_DOMAIN, _TRUST_DOMAIN_SHAPE
        ),
        trust_domain_given=bool(trust_domain),
        api_token=read.env.get("DAPR_API_TOKEN") or None,
        app_api_token=read.env.get("APP_API_TOKEN") or None,
        allowed_origins=tuple(one.lower().rstrip("/") for one in read.words("allowed-origins")),
        allowed_hosts=tuple(host.lower() for host in read.words("allowed-hosts"))
        or (("*",) if profile == "daprd" else ()),
        egress=_egress(read, profile),
        max_body_bytes=_body_limit(read, profile),
        read_buffer_bytes=_head_limit(read, profile),
        limits=_limits(read),
        connect_s=read.period("connect-timeout", 5.0),
        replay_bytes=_replay_limit(read, profile),
        graceful_shutdown_s=_graceful(read),
        block_shutdown_s=read.duration("dapr-block-shutdown-duration", 0.0),
        drain_s=read.duration("drain", 2.0),
        log_level=read.log_level(),
        log_json=read.switch("log-as-json", default=False),
        log_file=read.path("log-file"),
        access_log=access_log_settings(read),
        api_logging=read.maybe_switch("enable-api-logging"),
        otel=otel_settings(read, profile),
        takes_otlp=not read.switch("no-otlp-receiver", default=False),
        tells_trace=not read.switch("no-response-traceparent", default=False),
        metrics_compat=read.switch("metrics-compat", default=profile == "daprd"),
        metrics_resiliency_paths=read.switch("metrics-resiliency-paths", default=False),
        engine=read.choice("engine", ("auto", "native", "portable"), "auto", variable="POSTERN_ENGINE"),
        threads=_threads(read),
        keep_decisions=not read.switch(
            "no-decision-cache", default=False, variable="POSTERN_NO_DECISION_CACHE"
        ),
        runtime_root=root,
        ready_fd=read.natural("ready-fd"),
        given=read.given.names,
        variables=frozenset(filter(read.env.get, _VARIABLES)),
        warnings=_warnings(read, profile, mtls=mtls),
    )


_EGRESS = re.compile(r"(?:(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def _egress(read: FlagReader, profile: Profile) -> tuple[str, ...]:
    """Hosts of URLs; all of them are `*`."""
    hosts = tuple(host.lower() for host in read.words("egress"))
    if not hosts:
        return ("*",) if profile == "daprd" else ()
    if len(hosts) == 1 and hosts[0] in ("any", "none"):
        return ("*",) if hosts[0] == "any" else ()
    for host in hosts:
        if _EGRESS.fullmatch(host) is None or host in ("any", "none"):
            read.fault(
                "--egress",
                repr(host),
                "any, none, or hosts such as api.example.com, *.example.com, host:8443",
            )
    return hosts


_TRUST_DOMAIN_SHAPE = "a lower-case domain name of a-z, 0-9, dot, dash, underscore"
_APP_ID_SHAPE = "1 to 63 letters, digits, dashes or underscores"


def _name(read: FlagReader) -> str:
    app_id = read.text("app-id")
    if not app_id:
        read.fault("--app-id", "missing", _APP_ID_SHAPE)
        return ""
    return read.matching(
        "app-id", app_id, _APP_ID, f"{_APP_ID_SHAPE} (no dot: a dot separates app and namespace)"
    )


def _check_mode(read: FlagReader) -> None:
    if read.choice("mode", ("standalone", "kubernetes"), "standalone") == "kubernetes":
        read.fault(
            "--mode",
            "kubernetes is not built yet",
            "standalone, which knows names and peers of this host and network",
        )


def _namespace(read: FlagReader, *, mtls: bool) -> str:
    namespace = read.text("namespace") or read.env.get("NAMESPACE", "default")
    if not namespace:
        if mtls:
            read.fault("NAMESPACE", "set but empty", "a name, as mutual TLS is on and our identity holds it")
        return ""
    shape = "1 to 63 letters, digits, dots, dashes or underscores"
    return read.matching("namespace", namespace, _NAMESPACE, shape)


def _protocol(read: FlagReader) -> AppProtocol:
    protocol = read.choice("app-protocol", PROTOCOLS, "http")
    if read.switch("app-ssl", default=False):
        return "https" if protocol == "http" else "grpcs" if protocol == "grpc" else protocol
    return protocol


def _api_ports(read: FlagReader, profile: Profile, app_port: int | None) -> tuple[PortWish, PortWish]:
    return (
        _wish(read, "dapr-http-port", 3500, profile, taken=app_port),
        _wish(read, "dapr-grpc-port", 50001, profile, taken=app_port),
    )


def _metrics_port(read: FlagReader, profile: Profile) -> PortWish | None:
    if not read.switch("enable-metrics", default=True):
        read.port("metrics-port", absent=("", "-1"))
        return None
    return _wish(read, "metrics-port", 9090, profile)


def _metrics_tls(read: FlagReader) -> tuple[Path, Path] | None:
    certificate, key = read.file("metrics-tls-cert"), read.file("metrics-tls-key")
    if certificate is not None and key is not None:
        return certificate, key
    if certificate is not key:
        given, other = ("cert", "key") if key is None else ("key", "cert")
        read.fault(f"--metrics-tls-{given}", "alone", f"--metrics-tls-{other}, too")
    return None


def _wish(
    read: FlagReader, flag: str, default: int, profile: Profile, *, taken: int | None = None
) -> PortWish:
    given = read.port(flag, absent=("", "-1"))
    if given is not None:
        return PortWish(given)
    if profile == "dev":
        return PortWish(0 if default == taken else default, fallback=True)
    return PortWish(default)


def _peer_port(read: FlagReader, app_id: str) -> PortWish:
    given = read.port("dapr-internal-grpc-port", absent=("", "0", "-1"))
    if given is not None:
        return PortWish(given)
    number = derived_peer_port(app_id, str(Path.cwd()), os.getuid(), socket.gethostname())
    return PortWish(number, fallback=True)


def _peer_host(profile: Profile, *, mtls: bool) -> str:
    return "127.0.0.1" if profile == "dev" and not mtls else ANY_HOST


def _no_collisions(
    read: FlagReader, app_port: int | None, apis: Mapping[str, PortWish], upstreams: Sequence[OwnPort]
) -> None:
    taken: dict[int, str] = {} if app_port is None else {app_port: "--app-port"}
    wishes = [(f"--{flag}", wish.number) for flag, wish in apis.items() if not wish.fallback]
    for flag, number in (*wishes, *((f"--upstream {own.app}", own.port) for own in upstreams)):
        if number and number in taken:
            read.faults.append(f"{flag}: port {number} is also {taken[number]}, expected different ports")
        taken.setdefault(number, flag)
    apps = [own.app for own in upstreams if own.app]
    for app in sorted({app for app in apps if apps.count(app) > 1}):
        read.fault("--upstream", f"{app} twice", "one port for each app")


def _own_port(read: FlagReader, text: str) -> OwnPort:
    app, equals, digits = text.partition("=")
    app_id, dot, namespace = app.partition(".")
    known = _APP_ID.fullmatch(app_id) and (not dot or _NAMESPACE.fullmatch(namespace))
    if not known or (equals and not (digits.isascii() and digits.isdigit() and int(digits[:6]) <= 65535)):
        read.fault(
            "--upstream", repr(text), "app=port, such as cart=7001, or the app alone for any free port"
        )
        return OwnPort("", 0)
    return OwnPort(app, int(digits or 0))


def _route(read: FlagReader, text: str) -> str:
    service, equals, app = text.partition("=")
    if not (service and equals and app) or any(c.isspace() for c in text):
        read.fault("--route", repr(text), "service=app, such as shop.CartService=cart")
    return text


def _service(read: FlagReader, text: str) -> str:
    return read.matching(
        "grpc-service", text, _SERVICE, "the full name of a gRPC service, such as shop.CartService"
    )


def _health(read: FlagReader) -> AppHealth | None:
    interval = read.number("app-health-probe-interval", 5)
    timeout = read.number("app-health-probe-timeout", 500)
    threshold = read.number("app-health-threshold", 3)
    path = read.text("app-health-check-path") or "/healthz"
    if not read.switch("enable-app-health-check", default=False):
        return None
    interval, timeout, threshold = (
        interval if interval > 0 else 5,
        timeout if timeout > 0 else 500,
        threshold if threshold > 0 else 3,
    )
    if timeout > interval * 1000:
        expected = f"no more than --app-health-probe-interval ({interval} s)"
        read.fault("--app-health-probe-timeout", f"{timeout} ms", expected)
    return AppHealth(
        path="/" + path.removeprefix("/"), interval_s=interval, timeout_s=timeout / 1000, threshold=threshold
    )


def _asks_config(read: FlagReader, profile: Profile, protocol: AppProtocol) -> bool:
    """Nothing of the answer concerns us: apps of Dapr's users may wait for the question, and others would wonder at it."""
    left_out = read.words("disable-init-endpoints", allowed=("config", "subscribe"))
    return profile == "daprd" and protocol in ("http", "https", "h2c") and "config" not in left_out


def _mtls(read: FlagReader, profile: Profile) -> bool:
    asked = read.maybe_switch("enable-mtls")
    if not read.switch("insecure-plaintext", default=False):
        return asked if asked is not None else profile != "daprd"
    if asked:
        read.fault("--insecure-plaintext", "together with --enable-mtls", "one of them")
    return False


def _sentry_address(read: FlagReader, profile: Profile, *, mtls: bool) -> str | None:
    given = read.text("sentry-address") or None
    if given is not None:
        _check_address(read, given)
    elif mtls and profile == "daprd":
        read.fault(
            "--sentry-address", "missing", "host:port of the certificate authority, as mutual TLS is on"
        )
    return given


def _check_address(read: FlagReader, given: str) -> None:
    try:
        host, port = split_address(given)
    except ValueError:
        host, port = "", 0
    if given.startswith("unix:/") or (host and 0 < port < 65536):
        return
    read.fault("--sentry-address", repr(given), "host:port or unix:/path")


def _anchors(read: FlagReader, *, needed: bool) -> bytes | None:
    path = read.path("trust-anchors-file")
    source, pem = "DAPR_TRUST_ANCHORS", read.env.get("DAPR_TRUST_ANCHORS", "").encode()
    if path is not None:
        source, pem = "--trust-anchors-file", read.content("trust-anchors-file", path)
    if not pem:
        if needed and path is None:
            read.fault(source, "missing", "PEM roots of the mesh, as mutual TLS with --sentry-address is on")
        return None
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        read.fault(source, "no certificate in the file", "PEM roots of the mesh")
    return pem


def _token_file(read: FlagReader) -> Path | None:
    named = read.env.get("DAPR_SENTRY_TOKEN_FILE")
    if named == "":
        read.fault("DAPR_SENTRY_TOKEN_FILE", "set but empty", "the path of a token, or no such variable")
    return Path(named) if named else None


def _body_limit(read: FlagReader, profile: Profile) -> int | None:
    default = DAPR_BODY_BYTES if profile == "daprd" else None
    size = read.size("max-body-size", old="dapr-http-max-request-size", old_factor=1024 * 1024)
    if size is None or size < 0:
        return default
    return size or None  # 0: no limit


def _head_limit(read: FlagReader, profile: Profile) -> int:
    size = read.size("read-buffer-size", old="dapr-http-read-buffer-size", old_factor=1024)
    return size if size is not None and size > 0 else DAPR_HEAD_BYTES if profile == "daprd" else HEAD_BYTES


def _limits(read: FlagReader) -> Limits:
    default = Limits()
    return Limits(
        connections=read.count("max-connections", default.connections),
        streams=read.count("max-streams", default.streams),
        header_count=read.count("max-headers", default.header_count),
        head_s=read.period("head-timeout", default.head_s),
        idle_s=read.period("idle-timeout", default.idle_s),
        stall_s=read.period("stall-timeout", default.stall_s),
        ping_s=read.period("keepalive-time", default.ping_s),
        pong_s=read.period("keepalive-timeout", default.pong_s),
        replay_bytes=_replay_total(read, default.replay_bytes),
    )


def _replay_total(read: FlagReader, default: int) -> int:
    size = read.size("replay-buffer-total")
    if size is not None and size < 0:
        read.fault("--replay-buffer-total", str(size), "a size such as 64Mi, or 0 for none")
    return default if size is None or size < 0 else size


def _replay_limit(read: FlagReader, profile: Profile) -> int:
    size = read.size("replay-buffer-size")
    if size is not None and size >= 0:
        return size
    if profile != "daprd":
        return REPLAY_BYTES
    # A larger limit of bodies is no reason to hold them.
    return min(_body_limit(read, profile) or DAPR_BODY_BYTES, DAPR_BODY_BYTES)


def _threads(read: FlagReader) -> int:
    text = read.or_env("threads", "POSTERN_THREADS", "1")
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_THREADS:
        return int(text)
    where = "--threads" if read.text("threads") else "POSTERN_THREADS"
    read.fault(where, repr(text), f"a whole number from 1 to {MAX_THREADS}")
    return 1


def _graceful(read: FlagReader) -> float | None:
    seconds = read.number("dapr-graceful-shutdown-seconds", 5)
    return 5.0 if seconds < 0 else float(seconds) or None


def _at_least_one(number: int) -> int | None:
    return number if number > 0 else None


def _run(read: FlagReader) -> RunMetadata:
    return RunMetadata(
        command=read.text("run-command") or "",
        run_template=read.text("run-template") or "",
        run_template_name=read.text("run-template-name") or "",
        app_log=read.text("app-log") or "",
        sidecar_log=read.text("sidecar-log") or "",
        cli_pid=read.natural("cli-pid"),
    )


def _warnings(read: FlagReader, profile: Profile, *, mtls: bool) -> tuple[str, ...]:
    warnings = [f"--{flag.name} has no effect: {flag.about}" for flag in read.given.unbuilt()]
    if profile == "daprd":
        warnings.extend(f"ignored, as daprd does: {stray}" for stray in read.given.strays)
    warnings.extend(
        f"--allowed-origins {one!r} matches nobody: an origin is scheme://host[:port] (RFC 6454)"
        for one in read.words("allowed-origins")
        if "://" not in one and "*" not in one and one != "null"
    )
    if read.env.get("DAPR_HTTP_DISABLE_H2C", "").lower() in _TRUTHY:
        warnings.append("DAPR_HTTP_DISABLE_H2C has no effect: HTTP/2 without TLS is always accepted")
    warnings.extend(sdk_warnings(read, profile))
    warnings.extend(otel_warnings(read, profile))
    if not mtls and profile != "daprd":
        warnings.append("mutual TLS is off: peers are not authenticated, and nothing is encrypted")
    return tuple(warnings)


def http_port_of(given: Given, env: Mapping[str, str]) -> int:
    """The port of the HTTP API that `--wait` asks; raises ConfigError."""
    read = FlagReader(given, env)
    port = read.port("dapr-http-port", absent=("", "-1", "0"))
    if read.faults:
        raise ConfigError(tuple(read.faults))
    return port or 3500
