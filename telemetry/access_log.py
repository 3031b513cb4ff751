"""What a line says of one call: the facts of the access log and of taps, and Dapr's API log (the caller's, through `logs`)."""

from collections.abc import Callable, Mapping
from typing import Any

from telemetry import names
from telemetry.kinds import made_by, rpc_code
from telemetry.logs import Logger, format_time
from telemetry.report import Call

HTTP_SCOPE = "dapr.runtime.http-info"
GRPC_SCOPE = "dapr.runtime.grpc.api-info"
CLOSED = "reason=api-list"  # the decision on a gRPC method that `spec.api` closes


def access_fields(call: Call) -> dict[str, Any]:
    """What an access line says of a call; no header, no query, no body."""
    context = call.context
    return {
        "time": format_time(call.ended_ns),
        "direction": call.direction,
        "src": call.src,
        "src_namespace": call.src_namespace,
        "dst": call.dst,
        "dst_namespace": call.dst_namespace,
        "peer": call.peer_id,
        "protocol": call.protocol,
        "verb": call.verb,
        "path": call.path,
        "status": call.status,
        "grpc_code": None if call.grpc_code is None else names.grpc_code_name(call.grpc_code),
        "cause": call.cause or call.said,
        "made_by": made_by(call),
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
        "duration_us": (call.ended_ns - call.started_ns) // 1000,
        "ttfb_us": (call.head_ns - call.started_ns) // 1000 if call.head_ns else None,
        "attempts": max(len(call.attempts), 1),
        "not_retried": call.not_retried or None,
        "endpoint": call.endpoint,
        "decision": call.decision,
        "policies": [f"{name}/{kind}" for name, _, kind, _ in call.policies],
        "breaker": call.breaker[1] or None,
        "fault": ",".join(names for _, names in call.faults) or None,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "sampled": context.sampled,
    }


#: Dapr's names of its own endpoints, where URLs are obfuscated.
ENDPOINTS = {
    ("GET", "/v1.0/healthz"): "Healthz",
    ("GET", "/v1.0/healthz/outbound"): "HealthzOutbound",
    ("GET", "/v1.0/metadata"): "GetMetadata",
    ("PUT", "/v1.0/metadata/{key}"): "PutMetadata",
    ("POST", "/v1.0/shutdown"): "Shutdown",
}
_HEALTH = frozenset({"Healthz", "HealthzOutbound"})
_GRPC_HEALTH = "/grpc.health.v1.Health/Check"
_METADATA = "/v1.0/metadata/"


def _endpoint(call: Call, target: str) -> str:
    """Dapr's name of an endpoint of the proxy's own API; empty for calls to apps, and for other paths."""
    if call.dst:
        return ""
    path = target.rstrip("/")
    if path.startswith(_METADATA):
        path = f"{_METADATA}{{key}}"
    return ENDPOINTS.get((call.verb, path), "")


class ApiLog:
    """Dapr's API log: one info line per call of the app, also to the proxy's own API; none for peers' calls, without the API token, or
    for gRPC methods that `spec.api` closes.

    `obfuscate` replaces the path by the callee (`InvokeService/b`) or the endpoint's name; what names neither is an invocation, too.
    """

    def __init__(
        self,
        get_logger: Callable[[str], Logger],
        *,
        obfuscate: bool = False,
        omit_health_checks: bool = False,
    ) -> None:
        self._http = get_logger(HTTP_SCOPE)
        self._grpc = get_logger(GRPC_SCOPE)
        self._obfuscate = obfuscate
        self._omit_health_checks = omit_health_checks

    def __call__(self, call: Call, target: str, user_agent: str, trace: Mapping[str, str]) -> None:
        """Logs a call that came from the app. target: its path as the app sent it, without the query. trace: as of `call_fields`."""
        if (
            call.direction != "outbound"
            or call.cause == names.UNAUTHENTICATED_CAUSE
            or call.decision == CLOSED
        ):
            return
        endpoint = _endpoint(call, target)
        if self._omit_health_checks and (endpoint in _HEALTH or (not call.dst and target == _GRPC_HEALTH)):
            return
        duration_ms = (call.ended_ns - call.started_ns) // 1_000_000
        sent = {"useragent": user_agent} if user_agent else {}
        if call.protocol == "grpc":
            code = rpc_code(call)
            self._grpc.info(
                "gRPC API Called", method=target, code=code, duration=duration_ms, **sent, **trace
            )
            return
        method = f"{call.verb} {target}"
        if self._obfuscate:
            method = f"InvokeService/{call.dst}" if call.dst else endpoint or "InvokeService"
        self._http.info(
            "HTTP API Called",
            method=method,
            code=call.status,
            duration=duration_ms,
            size=call.bytes_out,
            **sent,
            **trace,
        )
