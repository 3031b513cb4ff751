"""A finished call -> its span: names, kinds, attributes, status, events. Pure.

Names and attributes are those of Dapr's service invocation, and OpenTelemetry's stable HTTP and RPC conventions
beside them. Attempts after the first are events named `retry`; a failure caused by a proxy is `error.type`.
"""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal

from msgspec import Struct

from telemetry import names
from telemetry.context import SpanContext
from telemetry.hosts import split_address
from telemetry.report import AttemptNote, Call

#: Characters of a path in a span.
PATH_LIMIT = 1024
#: The span of a request whose head we could not read, or whose path is hidden.
UNREADABLE = "request"
# For a name that is looked up, at limits, or for a connection: shorter waits are part of every call, and no event.
_WAIT_NS = 5_000_000
#: The scope that spans of service invocation have always had.
SCOPE = "dapr-diagnostics"


class SpanForm(Struct, frozen=True):
    """What spans say of calls. conventions: whose names attributes have. captures_query: `url.full` has the query.

    baggage: keys of members whose values are attributes.
    """

    conventions: Literal["dapr", "otel", "both"] = "both"
    captures_query: bool = False
    baggage: tuple[str, ...] = ()

    @property
    def has_dapr(self) -> bool:
        """Whether attributes have Dapr's names."""
        return self.conventions != "otel"

    @property
    def has_otel(self) -> bool:
        """Whether attributes have the names of OpenTelemetry's semantic conventions."""
        return self.conventions != "dapr"


DEFAULT_FORM = SpanForm()


class Detail(Struct):
    """What our own traces tell of a call beside its span. `cause` and `said`: as of `Call`, and so are `resolve_ns`, `queue_ns`
    and `authorize_ns`; `ended_ns`: of the call, with its body.
    """

    status: int
    grpc_code: int | None
    cause: str | None
    said: str | None
    decision: str
    peer_id: str
    policies: tuple[tuple[str, str, str, str], ...]
    bytes_in: int
    bytes_out: int
    ended_ns: int
    tried: tuple[AttemptNote, ...]
    resolve_ns: int = 0
    queue_ns: int = 0
    authorize_ns: int = 0


# Not frozen: one is made per sampled call, and a frozen one costs 2 µs more. Nobody changes it once recorded.
class Span(Struct):
    """One finished span. Times are epoch nanoseconds; `error` is its text, None when all went well.

    `kind` is CLIENT, SERVER, PRODUCER, CONSUMER, or "" for a span within a process. `remote_host` is an IP address or ""; `events` are
    (epoch ns, text) in order of time. `scope` is the library that made it. `detail`: for our own traces, exported nowhere.
    """

    context: SpanContext
    name: str
    kind: str
    start_ns: int
    end_ns: int
    service: str
    remote_service: str = ""
    remote_host: str = ""
    remote_port: int = 0
    attributes: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    events: tuple[tuple[int, str], ...] = ()
    detail: Detail | None = None
    scope: str = SCOPE

    def as_dict(self) -> dict[str, Any]:
        """The span as JSON values, in Zipkin's v2 form but for the case of names.

        What the admin API serves and `telemetry.tree` reads; parts that are unknown are left out.
        """
        context = self.context
        made: dict[str, Any] = {
            "traceId": f"{context.trace_id:032x}",
            "id": f"{context.span_id:016x}",
            "name": self.name,
            "timestamp": self.start_ns // 1000,
            "duration": max(1, (self.end_ns - self.start_ns) // 1000),
            "localEndpoint": {"serviceName": self.service},
        }
        if self.kind:
            made["kind"] = self.kind
        if context.parent_id:
            made["parentId"] = f"{context.parent_id:016x}"
        remote = self._remote_endpoint()
        if remote:
            made["remoteEndpoint"] = remote
        tags = dict(self.attributes)
        tags["service.name"] = self.service
        if self.scope:
            tags["otel.scope.name"] = self.scope
        if self.error is not None:
            tags["otel.status_code"] = "ERROR"
            tags["error"] = self.error
        made["tags"] = tags
        if self.events:
            made["annotations"] = [{"timestamp": at_ns // 1000, "value": text} for at_ns, text in self.events]
        return made

    def _remote_endpoint(self) -> dict[str, Any]:
        endpoint: dict[str, Any] = {}
        if self.remote_service:
            endpoint["serviceName"] = self.remote_service
        family = _address_family(self.remote_host) if self.remote_host else ""
        if family:
            endpoint[family] = self.remote_host
            if self.remote_port:
                endpoint["port"] = self.remote_port
        return endpoint


@lru_cache(maxsize=1024)
def _address_family(host: str) -> str:
    """The key that Zipkin wants the address under; "" for a name, which it has no place for."""
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        return ""


_CLOSED = frozenset({("", ""), ("closed", "closed")})  # circuit breakers that changed nothing


def span_of(call: Call, service: str, form: SpanForm = DEFAULT_FORM, route: str = "") -> Span | None:
    """The span of a call, or None for probes: a path with `/healthz` in it is never traced. route: the pattern that its path matches.

    A call without a `dst` was to our own API, or is a request that we refused, whatever it asked for: its path is the name.
    """
    path = clipped(call.path)
    if "/healthz" in path and call.dst:
        return None
    outbound = call.direction == "outbound"
    error_type = error_type_of(call)
    host, port = call.peer_address, 0
    if outbound:
        host, port = split_address(call.endpoint) if call.endpoint and call.dst else ("", 0)
    name, attributes = _described(call, path, form, outbound=outbound)
    attributes += _address_attributes(call, host, port, form, outbound=outbound)
    if route and form.has_otel:
        attributes.append((names.HTTP_ROUTE, route))
    if error_type is not None:
        attributes.append((names.ERROR_TYPE, error_type))
    if call.decision:
        attributes.append((names.POSTERN_DECISION, call.decision))
    if call.breaker not in _CLOSED:
        attributes.append((names.POSTERN_BREAKER, call.breaker[1]))
    if outbound and call.not_retried:
        attributes.append((names.POSTERN_NOT_RETRIED, call.not_retried))
    events = _events(call)
    if len(call.attempts) > 1:
        attributes.append((names.HTTP_RESEND_COUNT, str(len(call.attempts) - 1)))
    attributes += [(f"{names.BAGGAGE_PREFIX}{key}", value) for key, value in call.baggage]
    return Span(
        call.context,
        name,
        "CLIENT" if outbound else "SERVER",
        call.started_ns,
        _end_ns(call, outbound=outbound),
        service,
        call.dst if outbound else call.src,
        host,
        port,
        tuple(attributes),
        None if error_type is None else _error_text(call),
        events,
        _detail(call),
    )


def _described(call: Call, path: str, form: SpanForm, *, outbound: bool) -> tuple[str, list[tuple[str, str]]]:
    """The name of a span, and what its protocol has to say."""
    if call.protocol == "grpc":
        return path, _grpc_attributes(call, path, form, outbound=outbound)
    if not call.dst:
        return path or UNREADABLE, _api_attributes(call, path, form)
    method = method_of(path)
    attributes = (_client_attributes if outbound else _server_attributes)(call, method, form)
    return f"CallLocal/{call.dst}/{method}", attributes


def _detail(call: Call) -> Detail:
    return Detail(
        call.status,
        call.grpc_code,
        call.cause,
        call.said,
        call.decision,
        call.peer_id,
        call.policies,
        call.bytes_in,
        call.bytes_out,
        call.ended_ns,
        call.tried,
        call.resolve_ns,
        call.queue_ns,
        call.authorize_ns,
    )


def _end_ns(call: Call, *, outbound: bool) -> int:
    """A caller's HTTP span ends with the response head, unless the body failed; every other with the call."""
    if outbound and call.head_ns and call.cause is None and call.protocol != "grpc":
        return call.head_ns
    return call.ended_ns


def clipped(path: str) -> str:
    """A path as spans keep it: thousands of them stay in memory, so the end of a very long one becomes `…`."""
    return path if len(path) <= PATH_LIMIT else f"{path[: PATH_LIMIT - 1]}…"


def method_of(path: str) -> str:
    """The method name in `CallLocal/<target>/<method>`: the app's own path without its first slash."""
    if path.startswith(names.INVOKE_PREFIX):
        _, found, method = path.partition("/method/")
        if found:
            return method
    return path[1:] if path.startswith("/") else path


def _client_attributes(call: Call, method: str, form: SpanForm) -> list[tuple[str, str]]:
    verb, dst, status = call.verb, call.dst, str(call.status)
    target = path = f"/{method}"
    attributes = (
        [(names.RPC_SERVICE, names.SERVICE_INVOCATION), (names.NET_PEER_NAME, dst)] if form.has_dapr else []
    )
    attributes.append((names.PEER_SERVICE, dst))
    if form.has_dapr:
        attributes.append((names.DAPR_PROTOCOL, "http"))
    attributes.append((names.HTTP_REQUEST_METHOD, verb))
    if form.has_otel:
        attributes.append((names.URL_PATH, path))
    if call.surface == "dapr":
        target = f"/v1.0/invoke/{dst}/method/{method}"
        if form.has_dapr:
            attributes.append((names.DAPR_API, f"{verb} {target}"))
    query = f"?{clipped(call.query)}" if form.captures_query and call.query else ""
    attributes.append((names.URL_FULL, f"{target}{query}"))
    if call.status and form.has_dapr:
        attributes.append((names.DAPR_STATUS_CODE, status))
    if call.status and form.has_otel:
        attributes.append((names.HTTP_RESPONSE_STATUS_CODE, status))
    return attributes


def _api_attributes(call: Call, path: str, form: SpanForm) -> list[tuple[str, str]]:
    status = str(call.status)
    attributes = []
    if form.has_dapr:
        attributes += [(names.DAPR_PROTOCOL, "http"), (names.DAPR_API, f"{call.verb} {path}")]
        attributes.append((names.DAPR_STATUS_CODE, status))
    attributes.append((names.HTTP_REQUEST_METHOD, call.verb))
    if form.has_otel:
        attributes += [(names.URL_PATH, path), (names.HTTP_RESPONSE_STATUS_CODE, status)]
    query = f"?{clipped(call.query)}" if form.captures_query and call.query else ""
    attributes.append((names.URL_FULL, f"{path}{query}"))
    return attributes


def _server_attributes(call: Call, method: str, form: SpanForm) -> list[tuple[str, str]]:
    attributes = []
    if form.has_dapr:
        attributes += [
            (names.RPC_SERVICE, names.SERVICE_INVOCATION),
            (names.DAPR_INVOKE_METHOD, method),
        ]
    if form.has_otel:
        attributes += [(names.HTTP_REQUEST_METHOD, call.verb), (names.URL_PATH, f"/{method}")]
    if form.has_dapr and call.surface == "dapr":
        attributes += [(names.DAPR_PROTOCOL, "grpc"), (names.DAPR_API, names.CALL_LOCAL_STREAM)]
    elif form.has_dapr:
        attributes.append((names.DAPR_PROTOCOL, "http"))
    if call.status and form.has_otel:
        attributes.append((names.HTTP_RESPONSE_STATUS_CODE, str(call.status)))
    return attributes


def _grpc_attributes(call: Call, path: str, form: SpanForm, *, outbound: bool) -> list[tuple[str, str]]:
    attributes = []
    if form.has_otel:
        attributes += [
            (names.RPC_SYSTEM_NAME, "grpc"),
            (names.RPC_METHOD, path[1:] if path.startswith("/") else path),
        ]
    if not call.dst:
        pass  # a method of our own API
    elif outbound:
        if form.has_dapr:
            attributes += [(names.DAPR_APP_ID, call.dst), (names.NET_PEER_NAME, call.dst)]
        attributes.append((names.PEER_SERVICE, call.dst))
    elif form.has_dapr:
        attributes += [(names.DAPR_CALLER_APP_ID, call.src), (names.DAPR_CALLEE_APP_ID, call.dst)]
    if call.grpc_code is not None and form.has_otel:
        attributes.append((names.RPC_RESPONSE_STATUS_CODE, names.grpc_code_name(call.grpc_code)))
    return attributes


def _address_attributes(
    call: Call, host: str, port: int, form: SpanForm, *, outbound: bool
) -> list[tuple[str, str]]:
    """Addresses of the other end; by Dapr's conventions alone, those of the calling app on its HTTP calls, as `server.*`."""
    if not form.has_otel:
        host, port = "" if not outbound or call.protocol == "grpc" else call.peer_address, 0
    if not host:
        return []
    if outbound:
        ports = [(names.SERVER_PORT, str(port))] if port else []
        return [(names.SERVER_ADDRESS, host), *ports]
    return [(names.CLIENT_ADDRESS, host), (names.NETWORK_PROTOCOL_VERSION, "2")]


def error_type_of(call: Call) -> str | None:
    """`error.type`: our own cause first, then the code that the app gave; None when the span is not an error.

    A caller's span is an error from 400 on, a callee's from 500 on (the app refused, it did not fail).
    """
    cause = call.cause
    if cause is not None and cause != names.STATUS_CAUSE:
        return cause
    if call.protocol == "grpc":
        if call.grpc_code:
            return names.grpc_code_name(call.grpc_code)
    elif call.status >= (400 if call.direction == "outbound" else 500):
        return str(call.status)
    return cause


def _error_text(call: Call) -> str:
    if call.protocol == "grpc":
        text = names.grpc_code_name(call.grpc_code) if call.grpc_code else "no status"
        number = call.grpc_code or 0
    elif call.status:
        number, text = call.status, _phrase(call.status)
    else:
        number, text = 0, "no response"
    text = f"Code({number}): {text}"
    if call.cause is None or call.cause == names.STATUS_CAUSE:
        return text
    return f"{text} ({call.cause})"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _events(call: Call) -> tuple[tuple[int, str], ...]:
    """What a call waited for, its retries, and what went wrong, in order of time."""
    events = list(_waits(call))
    before: AttemptNote | None = None
    for number, attempt in enumerate(call.attempts):
        if before is not None:
            delay_ms = max(0, attempt.started_ns - before.ended_ns) // 1_000_000
            events.append(
                (
                    attempt.started_ns,
                    f"retry attempt={number + 1} reason={reason_of(before)} delay_ms={delay_ms}"
                    f" endpoint={attempt.endpoint or '-'}",
                )
            )
        before = attempt
    events.extend((at_ns, f"fault {injected}") for at_ns, injected in call.faults)
    if call.cause is not None and call.cause != names.STATUS_CAUSE:
        events.append((call.ended_ns, call.cause))
    found, left = call.breaker
    if found != left:
        events.append((call.ended_ns, f"circuit breaker {found} -> {left}"))
    return tuple(sorted(events, key=_at)) if len(events) > 1 else tuple(events)


def _at(event: tuple[int, str]) -> int:
    return event[0]


def _waits(call: Call) -> Iterator[tuple[int, str]]:
    """What was waited for before the last attempt was sent, where that took long: by the names of `telemetry.split.timings_us`."""
    if call.resolve_ns >= _WAIT_NS:
        yield call.started_ns + call.resolve_ns, f"resolve delay_ms={call.resolve_ns // 1_000_000}"
    last = call.tried[-1] if call.tried else None
    queue_ns = call.queue_ns + (last.queue_ns if last is not None else 0)
    if queue_ns >= _WAIT_NS:
        until = last.started_ns + last.queue_ns if last is not None else call.ended_ns
        yield until, f"queue delay_ms={queue_ns // 1_000_000}"
    if call.authorize_ns >= _WAIT_NS:
        until = call.tried[0].started_ns if call.tried else call.ended_ns
        yield until, f"authorize delay_ms={call.authorize_ns // 1_000_000}"
    if last is not None and (waited_ns := last.sent_ns - last.started_ns - last.queue_ns) >= _WAIT_NS:
        yield last.sent_ns, f"connect delay_ms={waited_ns // 1_000_000} endpoint={last.endpoint or '-'}"


def reason_of(attempt: AttemptNote) -> str:
    """Why an attempt was not the last: its cause, the code that it met, or `hedged`: it was given up for another beside it."""
    if attempt.cause == names.CALLER_LEFT_CAUSE:
        return "hedged"
    if attempt.cause is not None and attempt.cause != names.STATUS_CAUSE:
        return attempt.cause
    if attempt.grpc_code:
        return names.grpc_code_name(attempt.grpc_code)
    return str(attempt.status) if attempt.status else "none"
