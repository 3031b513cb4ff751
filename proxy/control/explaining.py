"""What this sidecar would do with a request and what it read to decide, for `postern explain`.

Deciders are pure, so a decision can be asked for without a call. Nothing is sent; a name that nobody has looked up yet is looked up, as for
a call. Secrets are left out.
"""

from base64 import b64encode
from collections.abc import Callable, Hashable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import asdict

from proxy import errors
from proxy.contract.budgets import BudgetUse
from proxy.contract.fields import read_baggage
from proxy.contract.head import Header, Headers, RequestHead
from proxy.contract.outcome import NotRetried
from proxy.contract.plan import (
    DETAIL,
    TRACE_ID,
    Cause,
    Decision,
    Edits,
    Hold,
    Op,
    Plan,
    Reply,
    RetryPolicy,
    Route,
)
from proxy.contract.recording import Facet, Read, RecordingHead
from proxy.control.ejections import WORDS
from proxy.control.plane import Control
from proxy.deciding.callee import (
    API_TOKEN_SET,
    BEARER_SET,
    BEYOND_PAGES_SET,
    DAPR_METHODS,
    FIRST_ACCESS_TABLE,
    FOREIGN_SITE_SET,
    GRPC_WEB_SET,
    HEDGED_METHODS,
    IDEMPOTENCY_SET,
    LIMIT_PATHS,
    OTLP_PATHS,
    OUT_PATHS,
    PREFLIGHT_SET,
    SERVICES,
    TRUTHY_SET,
    parse_key,
)
from proxy.deciding.external import endpoint_of
from proxy.deciding.faults import IN_TABLES, OUT_TABLES
from proxy.wire.edits import compile_edits, edit_headers, target_of
from proxy.wire.target import BadTargetError, as_forwarded, parse
from telemetry.context import extract

Json = dict[str, Any]
Query = Mapping[str, list[str]]
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})
_SECRET = frozenset({b"dapr-api-token", b"authorization", b"cookie"})
_PATHS = {
    OUT_PATHS: "paths of the API",
    SERVICES: "gRPC services",
    DAPR_METHODS: "methods of Dapr's gRPC API",
    **dict.fromkeys(range(LIMIT_PATHS, LIMIT_PATHS + 3), "paths of rates"),
    **dict.fromkeys(
        (*range(OUT_TABLES, OUT_TABLES + 3), *range(IN_TABLES, IN_TABLES + 3)), "paths of faults"
    ),
    OTLP_PATHS: "paths of OpenTelemetry's exporters",
    HEDGED_METHODS: "methods that are hedged",
}
_SETS = {
    API_TOKEN_SET: "the API's token",
    TRUTHY_SET: "words for true",
    FOREIGN_SITE_SET: "what pages of other sites say",
    BEYOND_PAGES_SET: "what no page can send",
    PREFLIGHT_SET: "what preflights say",
    GRPC_WEB_SET: "content types of gRPC-Web",
    BEARER_SET: "bearer tokens",
    IDEMPOTENCY_SET: "keys of idempotent requests",
}
_PAUSES = 3  # of a retry rule, drawn to show what they are like


class Explainer:
    """Asks the deciders of one sidecar. `listeners`: the names of those that the app calls, by port. is_b3_read: now."""

    def __init__(
        self,
        control: Control,
        listeners: Callable[[], Mapping[int, str]],
        is_b3_read: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control = control
        self._listeners = listeners
        self._is_b3_read = is_b3_read

    def explain(self, query: Query) -> Json:
        """What would become of the request in a query: `method`, `url`, any number of `header` and `grpc`.

        With `peer` it is one that another sidecar sends, proven to be of that SPIFFE id ("": in the clear). Raises ValueError where
        there can be no such request.
        """
        method, url = query.get("method", [""])[0], query.get("url", [""])[0]
        headers = tuple(map(_header, query.get("header", [])))
        is_grpc = "grpc" in query
        if "peer" in query:
            return self._inbound(inbound_head(method, url, headers, is_grpc=is_grpc, peer=query["peer"][0]))
        listeners = self._listeners()
        return self._outbound(outbound_head(method, url, headers, is_grpc=is_grpc, listeners=listeners))

    def _outbound(self, head: RequestHead) -> Json:
        control = self._control
        tables = control.tables()
        ask = RecordingHead(head, tables)
        decision = control.decide_outbound(ask)
        view = control.outbound.view
        told = self._told(head, ask, decision)
        told["namedBy"] = control.outbound.named_by(RecordingHead(head, tables))
        told["spiffeId"] = view.own_id if view.mtls else ""
        return told

    def _inbound(self, head: RequestHead) -> Json:
        ask = RecordingHead(head, self._control.tables())
        return self._told(head, ask, self._control.inbound.decide(ask))

    def _told(self, head: RequestHead, ask: RecordingHead, decision: Decision) -> Json:
        answer = decision.then if isinstance(decision, Hold) else decision
        labels, app = answer.labels, self._control.inbound.view.app
        told: Json = {
            "appId": app.app_id,
            "namespace": app.namespace,
            "direction": labels.direction,
            "request": _request(head),
            "surface": labels.surface,
            "callee": {"appId": labels.dst, "namespace": labels.dst_namespace} if labels.dst else None,
            "access": labels.decision,
            "readAs": self._control.reading_denied(head, labels) if _is_denied(answer) else "",
            "policies": [list(policy) for policy in labels.policies],
            "trace": _trace(head, is_b3_read=self._is_b3_read()),
            "read": [_read(read, value) for read, value in zip(ask.vary, ask.key, strict=True)],
        }
        if isinstance(decision, Plan):
            return {**told, "verdict": "forwarded", **self._plan(head, decision)}
        if isinstance(decision, Hold):
            held = {"key": decision.key, "forS": decision.for_s}
            detail = self._control.explain(decision.key)
            return {**told, "verdict": "held", "held": held, "answer": _answer(decision.then, detail)}
        return {**told, "verdict": "answered", "answer": _answer(decision, "")}

    def _plan(self, head: RequestHead, plan: Plan) -> Json:
        (route, *_) = plan.routes
        return {
            "routes": [
                {
                    "cluster": route.cluster,
                    "weight": route.weight,
                    "expect": sorted(route.expect),
                    "gates": list(route.gates),
                    "edits": self._edits(route.edits, _set_outside(route)),
                    "endpoints": self._endpoints(route.cluster),
                }
                for route in plan.routes
                if route.weight  # the others are taken where the peer turns out to be a daprd
            ],
            "timeouts": {"connectS": plan.connect_s, "attemptS": plan.attempt_s, "totalS": plan.total_s},
            "retries": [_retry(policy) for policy in plan.retries],
            "hedge": None if plan.hedge is None else asdict(plan.hedge),
            "notRetried": _not_retried(head, plan),
            "budget": _budget(plan.budget),
            "gates": list(plan.gates),
            "authorizers": list(plan.authorizers),
            "breaker": self._breaker(head, plan),
            "bodyBytes": plan.body_bytes,
            "replyEdits": self._edits(plan.reply_edits),
            "upperCase": {"request": plan.upper_request, "response": plan.upper_response},
            "scopes": list(plan.scopes),
            "sends": _sends(head, route.edits, self._secret | _set_outside(route)),
        }

    def _breaker(self, head: RequestHead, plan: Plan) -> Json | None:
        """Which circuit breaker would be asked, and how it stands now; its state is none before it was asked."""
        use = plan.breaker
        if use is None:
            return None
        method = use.method if use.method is not None else as_forwarded(head.path, use.form)
        known = self._control.breakers()
        found = next((one for one in known if (one["target"], one["method"]) == (use.target, method)), {})
        return {"target": use.target, "method": method, **found}

    @property
    def _secret(self) -> frozenset[bytes]:
        return _SECRET | self._control.secret_headers()

    def _edits(self, edits: Edits, also: frozenset[bytes] = frozenset()) -> list[Json]:
        secret = self._secret | also
        return [
            {
                "op": edit.op.value,
                "name": edit.name.decode("latin-1"),
                "data": "(secret)" if edit.name in secret and edit.data else edit.data.decode("latin-1"),
            }
            for edit in edits
        ]

    def _endpoints(self, cluster: str) -> list[Json]:
        if not cluster.startswith("peer:"):
            found = self._control.external.hosts.addresses(cluster)
            return [
                {"address": address, "source": "dns", "ejectedForS": 0.0, "ejectedAs": ""}
                for address in found
            ]
        name = ".".join(parse_key(cluster))
        known: Any = self._control.naming.endpoints(name).get(name, {})
        loads = {load["address"]: load for load in known.get("loads", ())}
        return [_with_load(end, loads.get(end["address"], {})) for end in known.get("endpoints", ())]


def _with_load(end: Json, load: Mapping[str, Any]) -> Json:
    return {
        **end,
        "ejectedForS": load.get("ejectedForS", 0.0),
        "ejectedAs": WORDS.get(load.get("outlier", ""), ""),
    }


def outbound_head(
    method: str, url: str, headers: Headers, *, is_grpc: bool, listeners: Mapping[int, str]
) -> RequestHead:
    """The head of a request by the app: a URL of the sidecar's API, of a port of one callee, or one sent as to an HTTP proxy.

    listeners: names by port; without a port it is the API's. Raises ValueError.
    """
    if url.startswith("/"):
        return _head(method, url, headers, "localhost", is_grpc=is_grpc, listener=_api(is_grpc))
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not a request's URL: expected /path or http://host[:port]/path")
    host, port = parts.hostname.lower(), parts.port
    if parts.username is not None:
        headers = (*headers, (b"authorization", _basic(parts.username, parts.password or "")))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = parts.netloc.rpartition("@")[2].lower()
    if is_grpc or host in {"localhost", "127.0.0.1", "::1"} or host.endswith(".localhost"):
        listener = listeners.get(port or 0, _api(is_grpc))
        return _head(method, target, headers, authority, is_grpc=is_grpc, listener=listener)
    absolute = f"http://{authority}{target}"
    return _head(method, absolute, headers, authority, is_grpc=False, listener="http")


def inbound_head(method: str, target: str, headers: Headers, *, is_grpc: bool, peer: str) -> RequestHead:
    """The head of a request by another sidecar. Raises ValueError."""
    return _head(method, target, headers, "", is_grpc=is_grpc, listener="peer", peer=peer or None)


def _api(is_grpc: bool) -> str:
    return "grpc" if is_grpc else "http"


def _head(
    method: str,
    target: str,
    headers: Headers,
    authority: str,
    *,
    is_grpc: bool,
    listener: str,
    peer: str | None = None,
) -> RequestHead:
    if not method.isascii() or not method.isalpha():
        raise ValueError(f"{method!r} is not an HTTP method: expected one like GET or POST")
    try:
        sent = target.encode("ascii")
        found = parse(sent)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{target!r} is not a request's target: letters beyond ASCII must be escaped"
        ) from error
    except BadTargetError as error:
        raise ValueError(f"{target!r}: {error.reason}") from error
    is_socket = any(name == b"upgrade" and data.lower() == b"websocket" for name, data in headers)
    is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
    return RequestHead(
        listener=listener,
        protocol="grpc" if is_grpc else "websocket" if is_socket else "http1",
        framing="stream" if is_grpc or is_chunked else "none" if method in _BODILESS else "length",
        method="POST" if is_grpc else method,
        authority=authority,
        target=sent[found.offset :] or b"/",
        path=found.path,
        query=found.query,
        headers=headers,
        peer=peer,
        form="absolute" if found.offset else "origin",
    )


def _basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def _header(text: str) -> Header:
    name, colon, data = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"invalid header {text!r}: expected 'Name: value'")
    return name.strip().lower().encode("latin-1"), data.strip().encode("latin-1")


def _request(head: RequestHead) -> Json:
    return {
        "listener": head.listener,
        "protocol": head.protocol,
        "method": head.method,
        "authority": head.authority,
        "form": head.form,
        "path": head.path,
        "framing": head.framing,
        "peer": head.peer,
    }


def _answer(reply: Reply, detail: str) -> Json:
    message = reply.grpc_message.replace(DETAIL, detail).replace(TRACE_ID, "")
    return {
        "cause": reply.cause.value,
        "status": reply.status,
        "grpcCode": reply.grpc_code,
        "message": message.removesuffix(": "),
    }


def _trace(head: RequestHead, *, is_b3_read: bool) -> Json | None:
    """The trace that the call would go on with, and whether it is recorded; None: it would begin one."""
    parent = extract(head.headers, grpc=head.protocol == "grpc", b3=is_b3_read)
    return None if parent is None else {"traceId": f"{parent.trace_id:032x}", "sampled": parent.sampled}


def _is_denied(answer: Plan | Reply) -> bool:
    return isinstance(answer, Reply) and answer.cause is Cause.DENIED


def _set_outside(route: Route) -> frozenset[bytes]:
    """Fields that an HTTPEndpoint sets: keys of services, as a rule."""
    if endpoint_of(route.cluster) is None:
        return frozenset()
    return frozenset(edit.name for edit in route.edits if edit.op is Op.SET)


def _retry(policy: RetryPolicy) -> Json:
    drawn = policy.delays_s()
    pauses = []
    for _ in range(min(_PAUSES, (policy.attempts or _PAUSES + 1) - 1)):
        try:
            pauses.append(round(next(drawn), 3))
        except StopIteration:
            break
    return {
        "attempts": policy.attempts,
        "on": sorted(cause.value for cause in policy.on),
        "httpCodes": None if policy.http_codes is None else sorted(policy.http_codes),
        "grpcCodes": None if policy.grpc_codes is None else sorted(policy.grpc_codes),
        "withinS": policy.within_s,
        "inner": policy.is_inner,
        "heedsAnswer": policy.heeds_answer,
        "pausesS": pauses,
    }


def _not_retried(head: RequestHead, plan: Plan) -> list[Json]:
    """What would not be retried of a call, and why: as its span would say it."""
    if not plan.retries:
        is_stream = head.framing == "stream" and head.protocol != "grpc"
        why = NotRetried.STREAMING if is_stream else NotRetried.NOT_COVERED
        return [{"why": why.value, "what": "any failure"}]
    told: list[Json] = [{"why": NotRetried.NOT_COVERED.value, "what": "any other failure"}]
    if head.framing != "none":
        what = f"a request with a body of more than {plan.replay_bytes} bytes"
        told.append({"why": NotRetried.BODY.value, "what": what})
    if not _retries_denials(head, plan):
        what = "a call that an access policy of the callee denies"
        told.append({"why": NotRetried.DENIED.value, "what": what})
    return [*told, {"why": NotRetried.BEGUN.value, "what": "an answer that breaks off"}]


def _retries_denials(head: RequestHead, plan: Plan) -> bool:
    """Whether a rule speaks of a denial; one that names no statuses does under the name `daprd` alone, and towards no peer's proxy."""
    if plan.denials_fail or not plan.routes[0].cluster.startswith("peer:"):
        return True
    denied = errors.ANSWERS[Cause.DENIED]
    if head.protocol == "grpc":
        return any(denied.grpc in (policy.grpc_codes or ()) for policy in plan.retries)
    return any(denied.status in (policy.http_codes or ()) for policy in plan.retries)


def _budget(use: BudgetUse | None) -> Json | None:
    return None if use is None else {"target": use.target, **asdict(use.rule)}


def _sends(head: RequestHead, edits: Edits, secret: frozenset[bytes]) -> Json:
    """The request as it goes on, as far as the other side's decision can turn on it."""
    compiled = compile_edits(edits)
    headers = edit_headers(compiled, head.headers)
    if compiled.baggage and (valid := read_baggage(head.headers)[1]):
        headers.append((b"baggage", valid))
    shown = [f"{n.decode('latin-1')}: {d.decode('latin-1')}" for n, d in headers if n not in secret]
    target = target_of(compiled, head).decode("latin-1")
    return {"method": head.method, "target": target, "headers": shown, "grpc": head.protocol == "grpc"}


def _plain(value: Hashable) -> object:
    if isinstance(value, tuple | frozenset):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | bool | int | None) else str(value)


def _read(read: Read, value: Hashable) -> Json:
    told: Json = {"facet": read.facet.value, "value": _plain(value)}
    if read.name:
        told["name"] = read.name.decode("latin-1")
    if read.facet is Facet.PATH and read.table is not None:
        told["table"] = _PATHS.get(
            read.table, "paths of a pipeline" if read.table < FIRST_ACCESS_TABLE else "access rules"
        )
    elif read.table is not None:
        told["table"] = _SETS.get(read.table, "values that rules ask for")
    return told
