"""Which series a kind of call counts in: calls with equal labels share one set of slots.

The rules of what is counted where; the arithmetic of each call is in `calls`.
"""

from typing import NamedTuple

from telemetry import names
from telemetry.metrics import Meters
from telemetry.report import Call
from telemetry.series import Distribution, Value

DAPR_ERROR = "ERR_DIRECT_INVOKE"  # Dapr's one code for calls that its proxy failed

BREAKER = "circuitbreaker"  # a kind of policy, as `call.policies` has it

_CANCELLED, _UNKNOWN, _UNAVAILABLE = 1, 2, 14
_OF_POLICIES = frozenset({names.TIMEOUT_CAUSE, "breaker-open", "breaker-probing"})  # that end a call


class Kind(NamedTuple):
    """The slots of one kind of call.

    Without `duration` no call crossed the mesh. `sent` counts attempts: the edge's own first, of calls with a single attempt; none where
    nothing was sent. Times to the end are whole milliseconds, truncated, and so are those in `to_head_whole_ms`. path: the label of what
    the app is asked, for policies.
    """

    duration: tuple[Distribution, ...]
    counted: tuple[Value, ...]
    sent: tuple[Value, ...]
    to_head_ms: tuple[Distribution, ...] = ()
    to_head_whole_ms: tuple[Distribution, ...] = ()
    to_end_ms: tuple[Distribution, ...] = ()
    request_bytes: tuple[Distribution, ...] = ()
    response_bytes: tuple[Distribution, ...] = ()
    path: str = ""


def kind_of(call: Call, path: str, app_path: str, meters: Meters) -> Kind:
    """The slots for `call` and all calls with its labels; `path` is the label of its path, `app_path` of what the app was asked."""
    if not call.dst:
        return _api(call, path, meters, Kind(duration=(), counted=(), sent=()))
    src, dst = edge_name(call.src, call.src_namespace), edge_name(call.dst, call.dst_namespace)
    requests = meters.edge_requests.slot(
        src, dst, method_class(call), call.protocol, code_class(call), call.direction
    )
    kind = Kind(
        duration=(
            meters.edge_duration.slot(src, dst, call.protocol, call.direction),
            meters.routes.slot(
                *(call.direction, src, dst, call.protocol, method_class(call)),
                *(path if call.direction == "outbound" else app_path, code_class(call), call.peer_id),
                made_by(call) or "",
            ),
        ),
        counted=(requests,),
        sent=_attempt_slots(call, src, dst, meters),
        path=app_path,
    )
    return (
        _outbound(call, path, app_path, meters, kind)
        if call.direction == "outbound"
        else _inbound(call, app_path, meters, kind)
    )


def is_to_self(call: Call) -> bool:
    """Whether an app calls its own app-id: one sidecar is caller and callee, and reports one call."""
    return call.direction == "outbound" and (call.src, call.src_namespace) == (call.dst, call.dst_namespace)


def _outbound(call: Call, path: str, app_path: str, meters: Meters, kind: Kind) -> Kind:
    me, status = meters.app_id, _status_label(call)
    type_ = "streaming" if call.protocol == "websocket" else "unary"
    if not _is_apps_own(call) and (code := meters.options.error_codes.get(call.cause or "")):
        shown = DAPR_ERROR if call.surface == "dapr" else code
        failures = meters.error_codes.slot(me, shown, "service-invocation")
        kind = kind._replace(counted=(*kind.counted, failures))
    for policy in call.policies:
        labels = resiliency_labels(meters, policy, app_path, call.breaker[0] if policy[2] == BREAKER else "")
        counted = (*kind.counted, meters.resiliency_count.slot(*labels))
        if policy[2] == "timeout" and call.cause == names.TIMEOUT_CAUSE:
            counted = (*counted, meters.resiliency_activations.slot(*labels))
        kind = kind._replace(counted=counted)
    if call.not_retried == names.EMPTY_BUDGET:
        kind = kind._replace(
            counted=(
                *kind.counted,
                meters.retry_budget_exhausted.slot(edge_name(call.dst, call.dst_namespace)),
            )
        )
    if kind.sent:
        kind = kind._replace(sent=(*kind.sent, meters.req_sent.slot(me, call.dst, type_)))
    if _is_apps_own(call):
        kind = kind._replace(
            counted=(*kind.counted, meters.res_recv.slot(me, call.dst, status, type_)),
            to_head_ms=(meters.res_recv_latency.slot(me, call.dst, status),),
        )
    if is_to_self(call):
        kind = _to_app(call, app_path, meters, kind)
    return _api(call, path, meters, kind)


def _api(call: Call, path: str, meters: Meters, kind: Kind) -> Kind:
    """With what the API is asked by the app, be it for other apps or for itself."""
    me, is_timed = meters.app_id, bool(call.dst) or meters.options.times_api
    if call.direction != "outbound" or call.is_inner:
        return kind
    if call.protocol == "grpc":
        if not call.dst and call.surface != "dapr":
            return kind  # neither a method of ours nor an app's
        code = _UNKNOWN if meters.options.is_compat and call.cause in _OF_POLICIES else rpc_code(call)
        rpc = (me, path, names.grpc_code_label(code))
        if is_timed and not call.dst:
            kind = kind._replace(
                request_bytes=(meters.grpc_server_received_bytes.slot(*rpc[:2]),),
                response_bytes=(meters.grpc_server_sent_bytes.slot(*rpc[:2]),),
            )
        return kind._replace(
            counted=(*kind.counted, meters.grpc_server_completed.slot(*rpc)),
            to_end_ms=(meters.grpc_server_latency.slot(*rpc),) if is_timed else (),
        )
    labels = (me, _verb(call, meters), path, _status_label(call))
    answers = (meters.http_server_responses.slot(*labels),) if meters.options.counts_answers else ()
    kind = kind._replace(counted=(*kind.counted, meters.http_server_requests.slot(*labels), *answers))
    if not is_timed:
        return kind
    return kind._replace(
        to_end_ms=(meters.http_server_latency.slot(*labels),),
        request_bytes=(*kind.request_bytes, meters.http_server_request_bytes.slot(me)),
        response_bytes=(*kind.response_bytes, meters.http_server_response_bytes.slot(me)),
    )


def _inbound(call: Call, app_path: str, meters: Meters, kind: Kind) -> Kind:
    me, is_compat = meters.app_id, meters.options.is_compat
    kind = kind._replace(counted=(*kind.counted, *_acl_slots(call, meters)))
    if is_compat and call.protocol == "grpc":
        return kind
    status = "0" if is_compat and call.cause == names.APP_DOWN_CAUSE else _status_label(call)
    received, sent = meters.req_recv.slot(me, call.src), meters.res_sent.slot(me, call.src, status)
    return _to_app(call, app_path, meters, kind._replace(counted=(*kind.counted, received, sent)))


def _to_app(call: Call, path: str, meters: Meters, kind: Kind) -> Kind:
    """With what our own app is asked over HTTP."""
    me, status = meters.app_id, _status_label(call)
    if call.protocol == "grpc" or not _is_apps_own(call):
        return kind
    verb = _verb(call, meters)
    labels = (me, verb, path, status)
    return kind._replace(
        counted=(*kind.counted, meters.http_client_completed.slot(*labels)),
        to_head_whole_ms=(meters.http_client_latency.slot(*labels),),
        request_bytes=(meters.http_client_sent_bytes.slot(me, verb, path, ""),),
        response_bytes=(meters.http_client_received_bytes.slot(me),),
    )


def resiliency_labels(
    meters: Meters, policy: tuple[str, str, str, str], path: str, status: str = ""
) -> tuple[str, ...]:
    """The labels of `dapr_resiliency_*` for a policy in force on a call that went out. status: a circuit breaker's."""
    name, namespace, kind, target = policy
    labels = (meters.app_id, name, namespace, kind, "outbound", target, status)
    return (*labels, path) if meters.options.has_resiliency_paths else labels


def _attempt_slots(call: Call, src: str, dst: str, meters: Meters) -> tuple[Value, ...]:
    if not call.attempts and not _is_apps_own(call):
        return ()
    return (
        meters.edge_attempts.slot(
            src,
            dst,
            call.protocol,
            attempt_result(failure_of(call.cause, call.said, call.peer_id) or call.cause),
            call.direction,
        ),
    )


def attempt_result(cause: str | None) -> str:
    """`ok`, or the class of what failed."""
    return "ok" if cause is None else names.CAUSE_CLASSES.get(cause, cause)


def _acl_slots(call: Call, meters: Meters) -> tuple[Value, ...]:
    told = dict(word.partition("=")[::2] for word in call.decision.split())
    trust_domain, namespace = "", ""
    if call.peer_id.startswith("spiffe://"):
        trust_domain, namespace = call.peer_id[9:].partition("/")[0], call.src_namespace
    slots = meters.acl_slots(
        src=call.src,
        trust_domain=trust_domain,
        namespace=namespace,
        policy=told.get("policy", ""),
        allowed=call.cause not in ("denied", "authorizer"),
    )
    would_deny = told.get("would_deny")
    return slots if would_deny is None else (*slots, meters.acl_would_deny.slot(call.src, would_deny))


def edge_name(app_id: str, namespace: str) -> str:
    """`cart.shop` for app `cart` in namespace `shop`."""
    return f"{app_id}.{namespace}" if app_id and namespace else app_id


def method_class(call: Call) -> str:
    """The verb, `rpc` for gRPC, `websocket`, or `other` for verbs beyond RFC 9110's."""
    if call.protocol == "http":
        return call.verb if call.verb in names.HTTP_VERBS else "other"
    return "rpc" if call.protocol == "grpc" else call.protocol


def code_class(call: Call) -> str:
    """A failure made by a proxy, here or the callee's, by its cause, else `2xx` to `5xx` (gRPC codes by the status they stand for)."""
    cause = failure_of(call.cause, call.said, call.peer_id)
    if cause is not None:
        return names.CAUSE_CLASSES.get(cause, cause)
    if call.protocol == "grpc":
        return names.grpc_code_class(rpc_code(call))
    return f"{call.status // 100}xx" if call.status else "none"


def made_by(call: Call) -> str | None:
    """Whose proxy answered in the app's place: `this-proxy` or `peer-proxy`; None: the app answered."""
    if not _is_apps_own(call):
        return "this-proxy"
    return names.PEER_PROXY if call.said is not None else None


def failure_of(cause: str | None, said: str | None, peer_id: str) -> str | None:
    """Why a proxy failed a call or an attempt; None: none did. said: by the callee's, which counts where mutual TLS proved who it is."""
    if cause is not None and cause != names.STATUS_CAUSE:
        return cause
    return said if peer_id else None


def rpc_code(call: Call) -> int:
    """The gRPC status of a call, where it ended without one what its end stands for.

    Source: grpc/doc/http-grpc-status-mapping.md.
    """
    if call.grpc_code is not None:
        return call.grpc_code
    if not _is_apps_own(call):
        return _CANCELLED if call.cause == names.CALLER_LEFT_CAUSE else _UNAVAILABLE
    return names.GRPC_CODE_OF_HTTP.get(call.status, _UNKNOWN)


def _is_apps_own(call: Call) -> bool:
    """Whether the answer came from the callee's app, not from a proxy."""
    return call.cause is None or call.cause == names.STATUS_CAUSE


def _status_label(call: Call) -> str:
    return str(rpc_code(call)) if call.protocol == "grpc" else str(call.status)


def _verb(call: Call, meters: Meters) -> str:
    if not meters.options.has_verbs:
        return ""
    return call.verb if call.verb in names.HTTP_VERBS else "UNKNOWN"
