"""Flags, environment and the Configuration file of `python -m sentry`, turned into frozen Settings."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from msgspec import Struct, field

from sentry.errors import IdentityError, SettingsError
from sentry.spiffe import SpiffeId, TrustDomain, sentry_id
from sentry.store import StoreNames
from sentry.template import DEFAULT_BACKDATE, DEFAULT_LEAF_TTL, MAX_BACKDATE, LeafTerms
from telemetry.durations import parse_lifetime
from telemetry.web_proxies import NO_PROXIES, WebProxies

DEFAULT_PORT: Final = 50001
DEFAULT_HEALTHZ_PORT: Final = 8080
_DAPR_CREDENTIALS: Final = Path("/var/run/secrets/dapr.io/credentials")
_MAX_LEAF_TTL: Final = timedelta(days=1)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
# Flags of Dapr's sentry that have no effect here yet; each is named once at start when it is used.
_UNUSED_FLAGS: Final = (
    "--kubeconfig",
    "--jwt-enabled",
    "--jwt-key-filename",
    "--jwks-filename",
    "--jwt-issuer",
    "--jwt-signing-algorithm",
    "--jwt-key-id",
    "--jwt-ttl",
    "--oidc-enabled",
    "--oidc-server-listen-address",
    "--oidc-server-listen-port",
    "--oidc-server-tls-enabled",
    "--oidc-server-tls-cert-file",
    "--oidc-server-tls-key-file",
    "--oidc-jwks-uri",
    "--oidc-path-prefix",
    "--oidc-allowed-hosts",
)


class TokenSource(Struct, frozen=True, kw_only=True):
    """A key set whose tokens are believed."""

    source: str
    ca: str | None = None
    refresh_s: float = 600.0
    timeout_s: float = 10.0
    max_token_lifetime_s: float | None = None
    grants_control_plane: bool = False


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the sentry process needs to know; `port` is None when only the unix socket serves."""

    spiffe_id: SpiffeId
    store: Path
    names: StoreNames = field(default_factory=StoreNames)
    allow_loose_store: bool = False
    terms: LeafTerms = field(default_factory=LeafTerms)
    listen_address: str = ""
    port: int | None = DEFAULT_PORT
    unix_socket: Path | None = None
    healthz_address: str = ""
    healthz_port: int = DEFAULT_HEALTHZ_PORT
    metrics_address: str = ""
    metrics_port: int | None = None
    metrics_tls: tuple[Path, Path] | None = None  # certificate chain and key
    allowed_hosts: tuple[str, ...] = ()
    runtime_path: Path | None = None
    exit_when_idle_s: float = 0.0
    token_sources: tuple[TokenSource, ...] = ()
    web_proxies: WebProxies = NO_PROXIES
    is_insecure: bool = False
    strict_csr: bool = False
    audit_log: Path | None = None
    log_level: str = "info"
    log_as_json: bool = False
    ready_fd: int | None = None
    unused_flags: tuple[str, ...] = ()


def parse_settings(arguments: Sequence[str], env: Mapping[str, str]) -> Settings:
    """Read flags, `NAMESPACE` from `env`, and the file of `--config`. Raises SettingsError with every fault."""
    parser = make_parser()
    flags = parser.parse_args(_as_argparse(arguments, parser))
    faults: list[str] = []
    trust_domain, terms, sources = _from_file(flags, faults)
    try:
        spiffe_id = sentry_id(
            TrustDomain.parse(flags.trust_domain or trust_domain), env.get("NAMESPACE") or "default"
        )
    except IdentityError as error:
        raise SettingsError((*faults, f"--trust-domain or NAMESPACE: {error}")) from error
    runtime_path = flags.runtime_path and flags.runtime_path.absolute()
    settings = Settings(
        spiffe_id=spiffe_id,
        store=_store_folder(flags.issuer_credentials, runtime_path, faults),
        names=StoreNames(
            anchors=flags.issuer_ca_filename,
            issuer=flags.issuer_certificate_filename,
            issuer_key=flags.issuer_key_filename,
        ),
        allow_loose_store=flags.allow_loose_store,
        terms=terms,
        listen_address=flags.listen_address,
        port=flags.port if flags.port is not None else (None if flags.unix_socket else DEFAULT_PORT),
        unix_socket=flags.unix_socket and flags.unix_socket.absolute(),
        healthz_address=flags.healthz_listen_address,
        healthz_port=flags.healthz_port,
        metrics_address=flags.metrics_listen_address,
        metrics_port=flags.metrics_port if flags.enable_metrics else None,
        metrics_tls=_metrics_tls(flags.metrics_tls_cert, flags.metrics_tls_key, faults),
        allowed_hosts=tuple(filter(None, flags.allowed_hosts.lower().replace(" ", "").split(","))),
        runtime_path=runtime_path,
        exit_when_idle_s=flags.exit_when_idle,
        token_sources=sources,
        web_proxies=WebProxies.of(env),
        is_insecure=flags.insecure_validator,
        strict_csr=flags.strict_csr,
        audit_log=flags.audit_log or (runtime_path and runtime_path / "sentry" / "audit.jsonl"),
        log_level=flags.log_level,
        log_as_json=flags.log_as_json,
        ready_fd=flags.ready_fd,
        unused_flags=tuple(flag for flag in _UNUSED_FLAGS if getattr(flags, _dest(flag)) is not None),
    )
    faults += _faults(settings, flags.mode)
    if faults:
        raise SettingsError(tuple(faults))
    return settings


def _metrics_tls(certificate: Path | None, key: Path | None, faults: list[str]) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        given, other = ("cert", "key") if key is None else ("key", "cert")
        faults.append(f"--metrics-tls-{given}: needs --metrics-tls-{other}")
    return None if certificate is None or key is None else (certificate.absolute(), key.absolute())


def _faults(settings: Settings, mode: str) -> list[str]:
    faults = []
    if mode != "standalone":
        faults.append(f"--mode {mode}: only standalone is built")
    if settings.is_insecure and settings.port is not None and settings.listen_address not in _LOOPBACK:
        faults.append("--insecure-validator: needs --listen-address 127.0.0.1 or a unix socket alone")
    if not (settings.is_insecure or settings.token_sources or settings.runtime_path):
        faults.append(
            "no way to prove identity: give --runtime-path, a config with spec.mtls.tokenValidators, "
            "or --insecure-validator"
        )
    if settings.exit_when_idle_s and settings.runtime_path is None:
        faults.append("--exit-when-idle: needs --runtime-path, whose registry tells who is running")
    if not timedelta(seconds=1) <= settings.terms.ttl <= _MAX_LEAF_TTL:
        faults.append("workload certificate lifetime: expected 1 s to 24 h")
    if not timedelta() <= settings.terms.backdate <= MAX_BACKDATE:
        faults.append("allowed clock skew: expected 0 to 15 m")
    ports = (settings.port or 0, settings.healthz_port, settings.metrics_port or 0)
    faults.extend(f"port {port}: expected 0 to 65535" for port in ports if not 0 <= port <= 65535)
    return faults


def _store_folder(given: Path | None, runtime_path: Path | None, faults: list[str]) -> Path:
    if given is not None:
        return given.absolute()
    if runtime_path is not None:
        return runtime_path / "sentry" / "authority"
    if not _DAPR_CREDENTIALS.is_dir():
        faults.append("--issuer-credentials: needed, or --runtime-path")
    return _DAPR_CREDENTIALS


def _from_file(
    flags: argparse.Namespace, faults: list[str]
) -> tuple[str, LeafTerms, tuple[TokenSource, ...]]:
    trust_domain, ttl, skew = "localhost", flags.workload_cert_ttl, flags.allowed_clock_skew
    sources: tuple[TokenSource, ...] = ()
    if flags.config is not None:
        from sentry.schema import read_mtls  # noqa: PLC0415 -- YAML is costly, only with a file

        try:
            mtls = read_mtls(flags.config)
        except SettingsError as error:
            faults.extend(error.faults)
        else:
            trust_domain = mtls.control_plane_trust_domain or trust_domain
            ttl = ttl or mtls.workload_cert_ttl
            skew = skew if skew is not None else mtls.allowed_clock_skew
            sources = tuple(
                TokenSource(
                    source=validator.options.source,
                    ca=validator.options.ca_certificate,
                    refresh_s=max(1.0, validator.options.min_refresh_interval.total_seconds()),
                    timeout_s=min(10.0, max(0.001, validator.options.request_timeout.total_seconds())),
                    max_token_lifetime_s=None
                    if validator.options.max_token_lifetime is None
                    else validator.options.max_token_lifetime.total_seconds(),
                    grants_control_plane=validator.options.allow_control_plane,
                )
                for validator in mtls.token_validators
            )
    terms = LeafTerms(ttl=ttl or DEFAULT_LEAF_TTL, backdate=DEFAULT_BACKDATE if skew is None else skew)
    return trust_domain, terms, sources


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError((message,))


def make_parser() -> argparse.ArgumentParser:
    """The flags, for the process and for the reference page."""
    parser = _Parser(
        prog="postern sentry",
        usage="postern sentry [flags]",
        description="postern's certificate authority. Flags of Dapr's sentry that have no effect here are taken and named once.",
        allow_abbrev=False,
    )
    names = StoreNames()
    text, path, number = {"type": str}, {"type": Path}, {"type": int}
    for flag, kind, default, about in (
        ("--config", path, None, "Configuration file with spec.mtls"),
        ("--issuer-credentials", path, None, "folder of anchors, issuer certificate and key"),
        ("--issuer-ca-filename", text, names.anchors, "the trust anchors' file in it (%(default)s)"),
        (
            "--issuer-certificate-filename",
            text,
            names.issuer,
            "the issuer certificate's file in it (%(default)s)",
        ),
        ("--issuer-key-filename", text, names.issuer_key, "the issuer key's file in it (%(default)s)"),
        ("--trust-domain", text, None, "trust domain of the authority's own identity"),
        ("--port", number, None, f"TCP port ({DEFAULT_PORT}); with --unix-socket, none by default"),
        ("--listen-address", text, "", "address of the TCP port (all)"),
        ("--unix-socket", path, None, "path of a unix socket to listen on"),
        ("--healthz-port", number, DEFAULT_HEALTHZ_PORT, "health checks over HTTP (%(default)s)"),
        ("--healthz-listen-address", text, "", "address of the health port (all)"),
        ("--metrics-port", number, None, "Prometheus metrics; none by default, 0: any free port"),
        ("--metrics-listen-address", text, "127.0.0.1", "address of the metrics port (%(default)s)"),
        (
            "--metrics-tls-cert",
            path,
            None,
            "serve metrics over TLS with this PEM chain; read again when it changes",
        ),
        ("--metrics-tls-key", path, None, "its key"),
        ("--enable-metrics", {"type": _boolean}, True, "false: no metrics, whatever the port"),
        (
            "--allowed-hosts",
            text,
            "",
            "comma-separated names, besides this machine's own, by which the health and metrics ports may be requested",
        ),
        ("--mode", text, "standalone", "standalone, the only mode so far"),
        ("--runtime-path", path, None, "where this user's sidecars meet; their join tokens are honoured"),
        (
            "--exit-when-idle",
            {"type": float},
            0.0,
            "seconds without a sidecar here after which to end; 0: never",
        ),
        ("--workload-cert-ttl", {"type": _duration}, None, "life of a workload's certificate, as 1h"),
        ("--allowed-clock-skew", {"type": _duration}, None, "how far a certificate is dated back, as 15m"),
        ("--audit-log", path, None, "file that gets a line for each certificate"),
        ("--log-level", text, "info", "debug, info, warn or error (%(default)s)"),
        ("--ready-fd", number, None, "descriptor that is told the addresses once it listens"),
    ):
        # Go's switches need no value: a bare `--enable-metrics` is true.
        bare: Any = {"nargs": "?", "const": True} if default is True else {}
        parser.add_argument(
            flag, default=default, metavar=flag.rsplit("-", 1)[-1].upper(), help=about, **kind, **bare
        )
    for flag, about in (
        ("--insecure-validator", "sign for anybody who asks; for tests"),
        ("--strict-csr", "refuse requests that hold more than a key"),
        (
            "--allow-loose-store",
            "accept credentials that others may read or replace, as Dapr's sentry does, with a warning",
        ),
        ("--log-as-json", "log one JSON object a line"),
    ):
        parser.add_argument(flag, action="store_true", help=about)
    for flag in _UNUSED_FLAGS:
        parser.add_argument(flag, nargs="?", const="", default=None, help=argparse.SUPPRESS)
    return parser


def _as_argparse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Go's ways of writing flags: one dash or two, and `--flag=true` or `--flag=false` for switches."""
    known = {option for action in parser._actions for option in action.option_strings}
    switches = {"--insecure-validator", "--strict-csr", "--allow-loose-store", "--log-as-json"}
    written = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if f"-{name}" in known and name not in known:
            name = f"-{name}"
        if name not in switches or not equals:
            written.append(f"{name}{equals}{value}")
        elif _boolean(value):
            written.append(name)
    return written


def _boolean(text: str) -> bool:
    """A boolean as Go reads it (strconv.ParseBool)."""
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        try:
            return parse_lifetime(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error


def _dest(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
