"""Envoy, the mesh to compare with: two processes, one worker each, mutual TLS 1.3 between them.

Plain, or with all on: every call traced to a Zipkin, access rules at the callee, retries at the caller.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sentry.spiffe import SpiffeId
from tests.bench.certificates import CALLEE, Identity, write_identities
from tests.bench.targets import STARTUP_RUNS, Target
from tests.bench.tools import envoy_program
from tests.bench.upstreams import Upstreams
from tests.support.mesh import DAPR_APP_ID
from tests.support.ports import free_ports
from tests.support.processes import Process, Processes
from tests.support.readiness import wait_status

Config = dict[str, Any]  # Envoy's own JSON; its shape is Envoy's to check
_TYPES: Final = "type.googleapis.com/envoy.extensions"
_TLS: Final = f"{_TYPES}.transport_sockets.tls.v3"
_SINK: Final = "zipkin"
ALL_ON: Final = "envoy-all-on"


async def start_envoy(processes: Processes, folder: Path, name: str, config: Config) -> Process:
    """Start an Envoy with one worker and wait until its admin port says that it is live."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    process = await asyncio.to_thread(
        processes.start, [envoy_program(), "-c", path, *flags], name=f"envoy {name}"
    )
    admin_port = config["admin"]["address"]["socket_address"]["port_value"]
    await asyncio.to_thread(wait_status, admin_port, "/ready", 200, process)
    return process


async def start_mesh(
    processes: Processes, folder: Path, upstreams: Upstreams, *, sink_port: int | None = None
) -> Target:
    """Start the two proxies of the comparison and measure how long one takes to start. `sink_port`: all on, traced to there."""
    folder = folder / ("envoy" if sink_port is None else ALL_ON)
    folder.mkdir()
    caller, callee = write_identities(folder)
    caller_port, callee_port, first_admin, second_admin = free_ports(4)
    outward = _proxy_config(
        admin_port=first_admin,
        listeners=[
            _listener(caller_port, [_route("peer", retries=sink_port is not None)], sink_port=sink_port)
        ],
        clusters=[
            _cluster("peer", callee_port, is_http2=True, tls=_upstream_tls(caller, callee.spiffe_id)),
            *_sink(sink_port),
        ],
    )
    is_grpc = {"headers": [{"name": "content-type", "string_match": {"prefix": "application/grpc"}}]}
    inward = _proxy_config(
        admin_port=second_admin,
        listeners=[
            _listener(
                callee_port,
                [_route("grpc", is_grpc), _route("http")],
                _downstream_tls(callee, caller.spiffe_id),
                sink_port=sink_port,
                allowed=None if sink_port is None else caller.spiffe_id,
            )
        ],
        clusters=[
            _cluster("grpc", upstreams.grpc_port, is_http2=True),
            _cluster("http", upstreams.http_port, is_http2=False),
            *_sink(sink_port),
        ],
    )
    startup_s = statistics.median([await _startup_s(folder, outward) for _ in range(STARTUP_RUNS)])
    proxies = (
        await start_envoy(processes, folder, "caller", outward),
        await start_envoy(processes, folder, "callee", inward),
    )
    return Target(
        name="envoy" if sink_port is None else ALL_ON,
        ports={"grpc": caller_port, "http1": caller_port},
        proxies=lambda _: proxies,
        startup_s=startup_s,
    )


async def start_caller(
    processes: Processes, folder: Path, own: Identity, peers: Mapping[str, int]
) -> tuple[Process, int]:
    """Start a caller of many peers, app-ids by their ports; the process, and where it takes calls."""
    port, admin_port = free_ports(2)
    config = peers_config(port, admin_port, own, peers)
    return await start_envoy(processes, folder, "caller of peers", config), port


async def start_instances(
    processes: Processes, folder: Path, own: Identity, caller: Identity, apps: Mapping[str, Sequence[int]]
) -> Mapping[str, tuple[int, ...]]:
    """A proxy before each instance of some apps, all in one process; where they take calls."""
    (admin_port,) = free_ports(1)
    listeners, clusters, found = [], [], dict[str, tuple[int, ...]]()
    for app_id, app_ports in apps.items():
        ports = free_ports(len(app_ports))
        found[app_id] = tuple(ports)
        for port, app_port in zip(ports, app_ports, strict=True):
            name = f"app-{port}"
            listeners.append(_listener(port, [_route(name)], _downstream_tls(own, caller.spiffe_id)))
            clusters.append(_cluster(name, app_port, is_http2=False))
    config = _proxy_config(admin_port=admin_port, listeners=listeners, clusters=clusters)
    await start_envoy(processes, folder, "instances", config)
    return found


async def start_balancer(
    processes: Processes,
    folder: Path,
    own: Identity,
    callee: Identity,
    apps: Mapping[str, Sequence[int]],
    *,
    policy: str,
) -> tuple[Process, int]:
    """A caller of apps of several instances: ports by app-id. policy: Envoy's `lb_policy`. The process, and where it takes calls."""
    port, admin_port = free_ports(2)
    tls = _upstream_tls(own, callee.spiffe_id)
    config = _proxy_config(
        admin_port=admin_port,
        listeners=[_listener(port, [{"match": {"prefix": "/"}, "route": {"cluster_header": DAPR_APP_ID}}])],
        clusters=[
            {**_cluster(app_id, *ports, is_http2=True, tls=tls), "lb_policy": policy}
            for app_id, ports in apps.items()
        ],
    )
    return await start_envoy(processes, folder, f"caller by {policy}", config), port


def peers_config(port: int, admin_port: int, own: Identity, peers: Mapping[str, int]) -> Config:
    """A cluster for each peer, found by the header that names it: one look-up, where a route for each would be tried in turn."""
    return _proxy_config(
        admin_port=admin_port,
        listeners=[_listener(port, [{"match": {"prefix": "/"}, "route": {"cluster_header": DAPR_APP_ID}}])],
        clusters=[
            _cluster(app_id, peer_port, is_http2=True, tls=_upstream_tls(own, _spiffe_id(app_id)))
            for app_id, peer_port in peers.items()
        ],
    )


def _spiffe_id(app_id: str) -> str:
    return str(SpiffeId(CALLEE.trust_domain, CALLEE.namespace, app_id))


async def _startup_s(folder: Path, config: Config) -> float:
    processes = Processes()
    try:
        began = time.perf_counter()
        await start_envoy(processes, folder, "startup", config)
        return time.perf_counter() - began
    finally:
        await processes.aclose()


def _proxy_config(*, admin_port: int, listeners: list[Config], clusters: list[Config]) -> Config:
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _address(port: int) -> Config:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(
    port: int,
    routes: list[Config],
    tls: Config | None = None,
    *,
    sink_port: int | None = None,
    allowed: str | None = None,
) -> Config:
    """`allowed`: the one identity that the access rules let in."""
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        **({} if sink_port is None else {"tracing": _tracing()}),
        "http_filters": [
            *([] if allowed is None else [_access_rules(allowed)]),
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    chain: Config = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = tls
    return {"address": _address(port), "filter_chains": [chain]}


def _tracing() -> Config:
    every = {"value": 100}
    provider = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": _SINK,
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    }
    return {
        "random_sampling": every,
        "overall_sampling": every,
        "provider": {"name": "zipkin", "typed_config": provider},
    }


def _access_rules(allowed: str) -> Config:
    principal = {"authenticated": {"principal_name": {"exact": allowed}}}
    paths = [{"url_path": {"path": {"prefix": prefix}}} for prefix in ("/bench.Echo/", "/items/")]
    rules = {
        "action": "ALLOW",
        "policies": {"caller": {"permissions": paths, "principals": [principal]}},
    }
    filters = f"{_TYPES}.filters.http.rbac.v3.RBAC"
    return {"name": "rbac", "typed_config": {"@type": filters, "rules": rules}}


def _sink(port: int | None) -> list[Config]:
    return [] if port is None else [_cluster(_SINK, port, is_http2=False)]


def _route(cluster: str, match: Config | None = None, *, retries: bool = False) -> Config:
    policy = {"retry_policy": {"retry_on": "unavailable,connect-failure,refused-stream", "num_retries": 3}}
    return {
        "match": {"prefix": "/", **(match or {})},
        "route": {"cluster": cluster, **(policy if retries else {})},
    }


def _cluster(name: str, *ports: int, is_http2: bool, tls: Config | None = None) -> Config:
    options = "http2_protocol_options" if is_http2 else "http_protocol_options"
    cluster: Config = {
        "name": name,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {options: {}},
            }
        },
    }
    if tls is not None:
        cluster["transport_socket"] = tls
    return cluster


def _common_tls(own: Identity, peer_id: str) -> Config:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {"certificate_chain": {"filename": str(own.chain)}, "private_key": {"filename": str(own.key)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(own.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer_id}}],
        },
    }


def _upstream_tls(own: Identity, peer_id: str) -> Config:
    context = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": _common_tls(own, peer_id)}
    return {"name": "tls", "typed_config": context}


def _downstream_tls(own: Identity, peer_id: str) -> Config:
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _common_tls(own, peer_id),
    }
    return {"name": "tls", "typed_config": context}
