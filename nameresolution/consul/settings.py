"""What `component: consul` can be told, and its checks. The keys are those of Dapr's component, the variables those of Consul's client.

Sources: https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-nr-consul/,
https://developer.hashicorp.com/consul/commands#environment-variables, https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from nameresolution.fields import Fields

COMPONENT = "consul"
Pairs: TypeAlias = tuple[tuple[str, str], ...]
_WAIT_S = 60.0  # of one blocking query: Consul's own is 5 minutes, in which a dead agent would go unnoticed
_TRUE = ("1", "t", "true")
_KEYS = (
    *("advancedRegistration", "checks", "client", "daprPortMetaKey", "meta", "queryOptions"),
    *("selfDeregister", "selfRegister", "tags", "useCache"),
)
_CLIENT = ("address", "datacenter", "httpAuth", "scheme", "tlsConfig", "token", "tokenFile", "waitTime")
_TLS = ("address", "caFile", "caPath", "certFile", "insecureSkipVerify", "keyFile")
_CHECK = (
    *("AliasNode", "AliasService", "Args", "CheckID", "DeregisterCriticalServiceAfter", "DockerContainerID"),
    *(
        "GRPC",
        "GRPCUseTLS",
        "HTTP",
        "Header",
        "Interval",
        "Method",
        "Name",
        "Notes",
        "Shell",
        "Status",
        "TCP",
    ),
    *("TLSSkipVerify", "TTL", "Timeout"),
)
_REGISTRATION = (
    *("Address", "Check", "Checks", "Connect", "EnableTagOverride", "ID", "Kind", "Meta", "Name", "Port"),
    *("Proxy", "TaggedAddresses", "Tags", "Weights"),
)
_WORDS = {"Datacenter": "dc", "Near": "near", "Filter": "filter"}  # of the query
_SWITCHES = {
    "AllowStale": "stale",
    "RequireConsistent": "consistent",
    "LocalOnly": "local-only",
    "Connect": "connect",
}
_QUERY = (
    *_WORDS,
    *_SWITCHES,
    *("MaxAge", "Namespace", "NodeMeta", "Partition", "RelayFactor", "StaleIfError", "Token", "UseCache"),
    *("WaitHash", "WaitIndex", "WaitTime"),
)


class AgentSettings(Struct, frozen=True, kw_only=True):
    """The agent: `address` is `host:port` or `unix:/path`; `headers` and `query` go with every request."""

    address: str = "127.0.0.1:8500"
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    headers: Pairs = ()
    query: Pairs = ()

    def __repr__(self) -> str:
        return f"AgentSettings({self.address})"  # tokens belong in no log


class ConsulSettings(Struct, frozen=True, kw_only=True):
    """`advanced` is a whole registration, by Consul's names; without it `checks`, `tags` and `meta` are parts of one."""

    agent: AgentSettings = AgentSettings()
    registers: bool = False
    deregisters: bool = False
    advanced: Mapping[str, object] | None = None
    checks: tuple[Mapping[str, object], ...] = ()
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = {}
    port_key: str = "DAPR_PORT"
    query: Pairs = ()
    query_headers: Pairs = ()
    wait_s: float = _WAIT_S


def parse_settings(configuration: object, env: Mapping[str, str]) -> ConsulSettings:
    """The settings in a configuration, with Consul's variables for what it leaves out. Reads the files that it names.

    Raises: ComponentConfigurationError.
    """
    fields = Fields(COMPONENT, configuration, _KEYS)
    fields.switch("useCache")  # either way: what changes is pushed, and calls ask nobody
    client = Fields(COMPONENT, fields.get("client"), _CLIENT, within="client.")
    options = Fields(COMPONENT, fields.get("queryOptions"), _QUERY, within="queryOptions.")
    advanced = _advanced(fields)
    query, headers = _query(options, is_given=fields.get("queryOptions") is not None)
    wait_s = options.seconds("WaitTime", 0.0) or _nanoseconds(client, "waitTime") or _WAIT_S
    return ConsulSettings(
        agent=_agent(client, env),
        registers=fields.switch("selfRegister") or advanced is not None,
        deregisters=fields.switch("selfDeregister"),
        advanced=advanced,
        checks=tuple(_checks(fields.get("checks"), "checks")),
        tags=fields.texts("tags", "tags"),
        meta=_texts(Fields(COMPONENT, fields.get("meta"), _names(fields.get("meta")), within="meta.")),
        port_key=fields.text("daprPortMetaKey", "DAPR_PORT"),
        query=query,
        query_headers=headers,
        wait_s=wait_s,
    )


def _agent(client: Fields, env: Mapping[str, str]) -> AgentSettings:
    scheme = client.text("scheme") or ("https" if env.get("CONSUL_HTTP_SSL", "").lower() in _TRUE else "http")
    address = client.text("address") or env.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
    named, separator, rest = address.partition("://")
    prefix = ""
    if separator:
        scheme = "https" if named == "https" else scheme
        if named not in ("http", "https", "unix"):
            raise client.fault("address", f"expected http, https or unix, got {address!r}")
        address = f"unix:{rest}" if named == "unix" else rest
    if not address.startswith("unix:"):
        address, slash, path = address.partition("/")
        prefix = f"/{path.rstrip('/')}" if slash and path else ""
        has_port = address.rpartition(":")[2].isdigit()
        address = address if has_port else f"{address}:{443 if scheme == 'https' else 80}"
    if scheme not in ("http", "https"):
        raise client.fault("scheme", f"expected http or https, got {scheme!r}")
    tls = Fields(COMPONENT, client.get("tlsConfig"), _TLS, within="client.tlsConfig.")
    headers = [("authorization", basic)] if (basic := _basic(client, env)) else []
    if token := _token(client, env):
        headers.append(("x-consul-token", token))
    query = {
        "dc": client.text("datacenter"),
        "ns": env.get("CONSUL_NAMESPACE", ""),
        "partition": env.get("CONSUL_PARTITION", ""),
    }
    server_name = tls.text("address") or env.get("CONSUL_TLS_SERVER_NAME") or address
    return AgentSettings(
        address=address,
        prefix=prefix,
        tls=_tls(tls, env) if scheme == "https" else None,
        server_name=_host(server_name),
        headers=tuple(headers),
        query=tuple((name, value) for name, value in query.items() if value),
    )


def _host(address: str) -> str:
    host, colon, port = address.rpartition(":")
    return (host if colon and port.isdigit() else address).strip("[]")


def _basic(client: Fields, env: Mapping[str, str]) -> str:
    auth = Fields(COMPONENT, client.get("httpAuth"), ("password", "username"), within="client.httpAuth.")
    given = client.get("httpAuth") is not None
    pair = f"{auth.text('username')}:{auth.text('password')}" if given else env.get("CONSUL_HTTP_AUTH", "")
    if not pair:
        return ""
    pair = pair if ":" in pair else f"{pair}:"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _token(client: Fields, env: Mapping[str, str]) -> str:
    """A file goes before a token, and what is configured before the environment."""
    for path, token in (
        (client.text("tokenFile"), client.text("token")),
        (env.get("CONSUL_HTTP_TOKEN_FILE", ""), env.get("CONSUL_HTTP_TOKEN", "")),
    ):
        if path:
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise client.fault("tokenFile", f"{path}: {error.strerror}") from error
        if token:
            return token
    return ""


def _tls(tls: Fields, env: Mapping[str, str]) -> ssl.SSLContext:
    ca_file = tls.text("caFile") or env.get("CONSUL_CACERT") or None
    ca_path = tls.text("caPath") or env.get("CONSUL_CAPATH") or None
    cert, key = (
        tls.text("certFile") or env.get("CONSUL_CLIENT_CERT", ""),
        tls.text("keyFile") or env.get("CONSUL_CLIENT_KEY", ""),
    )
    if bool(cert) != bool(key):
        raise tls.fault("certFile", "expected with keyFile, and it with this")
    try:
        context = ssl.create_default_context(cafile=ca_file, capath=ca_path)
        if cert:
            context.load_cert_chain(cert, key)
    except OSError as error:
        raise tls.fault("caFile", f"the files can't be used: {error}") from error
    verify = env.get("CONSUL_HTTP_SSL_VERIFY", "true").lower() in ("", *_TRUE)
    if tls.switch("insecureSkipVerify", default=not verify):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _nanoseconds(fields: Fields, field: str) -> float:
    """Seconds of a duration, of which a bare number counts nanoseconds, as in JSON of Go."""
    value = fields.get(field)
    return (
        value / 1e9 if isinstance(value, int) and not isinstance(value, bool) else fields.seconds(field, 0.0)
    )


def _query(options: Fields, *, is_given: bool) -> tuple[Pairs, Pairs]:
    """The parameters and headers of a look-up: the agent's cache unless options say otherwise."""
    if not is_given:
        return (("cached", ""),), ()
    pairs = [(name, options.text(field)) for field, name in _WORDS.items() if options.text(field)]
    pairs += [(name, "true") for field, name in _SWITCHES.items() if options.switch(field)]
    if factor := options.text("RelayFactor"):
        pairs.append(("relay-factor", factor))
    meta = options.get("NodeMeta")
    nodes = _texts(Fields(COMPONENT, meta, _names(meta), within="queryOptions.NodeMeta."))
    pairs += [("node-meta", f"{key}:{value}") for key, value in nodes.items()]
    headers = [("x-consul-token", token)] if (token := options.text("Token")) else []
    if options.switch("UseCache") and not options.switch("RequireConsistent"):
        pairs.append(("cached", ""))
        ages = {
            "max-age": _nanoseconds(options, "MaxAge"),
            "stale-if-error": _nanoseconds(options, "StaleIfError"),
        }
        control = ", ".join(f"{name}={seconds:.0f}" for name, seconds in ages.items() if seconds)
        headers += [("cache-control", control)] if control else []
    return tuple(pairs), tuple(headers)


def _advanced(fields: Fields) -> Mapping[str, object] | None:
    given = fields.get("advancedRegistration")
    if given is None:
        return None
    registration = Fields(COMPONENT, given, _REGISTRATION, within="advancedRegistration.")
    found = registration.rest()
    if not registration.text("Name"):
        raise registration.fault("Name", "expected the app-id, as others look for it")
    if found.get("Meta") is not None:
        meta = found["Meta"]
        found["Meta"] = _texts(Fields(COMPONENT, meta, _names(meta), within="advancedRegistration.Meta."))
    if found.get("Check") is not None:
        (found["Check"],) = _checks([found["Check"]], "advancedRegistration.Check")
    if found.get("Checks") is not None:
        found["Checks"] = _checks(found["Checks"], "advancedRegistration.Checks")
    return found


def _checks(given: object, where: str) -> list[Mapping[str, object]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise Fields(COMPONENT, None, ()).fault(where, "expected a list of checks")
    return [
        {("ScriptArgs" if name == "Args" else name): value for name, value in check.rest().items()}
        for number, item in enumerate(given)
        for check in [Fields(COMPONENT, item, _CHECK, within=f"{where}[{number}].")]
    ]


def _names(mapping: object) -> Iterable[str]:
    """All keys of a mapping whose keys are the user's."""
    return tuple(str(key) for key in mapping) if isinstance(mapping, Mapping) else ()


def _texts(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.rest()}
