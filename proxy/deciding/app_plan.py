"""How a call reaches the sidecar's own app: judged, then a Plan to its port. For calls from peers and from the app to itself. Pure."""

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.access import Profile
from policies.rules.caller import Caller
from policies.rules.path_readings import readings
from proxy import errors
from proxy.contract.head import Form
from proxy.contract.plan import (
    DETAIL,
    Cause,
    Decision,
    Edit,
    Edits,
    Hold,
    Labels,
    Op,
    Plan,
    Reply,
    RetryPolicy,
    Route,
    Surface,
)
from proxy.contract.recording import RecordingHead
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.callee import APP_PIPELINE, DAPR_RUNTIME, GRPC_WEB_SET, SERVICES
from proxy.deciding.pipeline import Pipeline

APP_CLUSTER = "app"
APP_GATE = "app-concurrency"
# The server that calls OnInvoke of a gRPC app, started by the first call that needs it.
CALLBACK = "app-callback"
CALLBACK_HOLD_S = 10.0  # for that start, on a busy machine
NO_VERB = "NONE"  # the method of a call that InvokeService was given without a verb
GRPC_WEB = frozenset(
    {b"content-type: application/grpc-web*"}
)  # a pattern as `proxy.contract.plan.carries` reads it
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2
# Identity and routing headers: every copy that this proxy did not write is dropped.
STRIP: Edits = (
    *(
        Edit(op=Op.REMOVE, name=name)
        for name in (
            b"dapr-app-id",
            b"dapr-callee-app-id",
            b"destination-app-id",
            b"dapr-api-token",
            b"x-forwarded-client-cert",
        )
    ),
    Edit(op=Op.REMOVE_PREFIX, name=b"dapr-caller-"),
    Edit(op=Op.REMOVE_PREFIX, name=b"postern-"),
)
# The same for a caller that nobody proves: it is named as its own proxy names it.
_STRIP_BUT_CLAIMS: Edits = tuple(edit for edit in STRIP if edit.name != b"dapr-caller-")
# What InvokeService says of a packed message, for OnInvoke alone.
_OF_PACKED_MESSAGES: Edits = (
    Edit(op=Op.REMOVE, name=b"dapr-type-url"),
    Edit(op=Op.REMOVE, name=b"dapr-type-content-type"),
)
STRIP_REPLY: Edits = (Edit(op=Op.HOP_BY_HOP), Edit(op=Op.REMOVE_PREFIX, name=b"postern-"))


class AppView(Struct, frozen=True, kw_only=True):
    """Our own app as deciders see it. authority: what it finds in Host. healthy: None where it is not probed.

    gates: names of those that every call to it passes. gated: also that of --app-max-concurrency, where it is not gRPC.
    is_caller_claimed: without mutual TLS the app is told whom the caller's proxy says that it is of, as daprds do; it decides nothing here.
    replay_bytes: of a request body kept for another attempt. has_callback: the server that calls OnInvoke is up. pipeline: what
    requests to an HTTP app pass. hides_paths: answers tell none.
    """

    app_id: str
    namespace: str
    protocol: str
    authority: bytes
    has_port: bool
    healthy: bool | None
    token: bytes | None
    gated: bool
    gates: tuple[str, ...] = ()
    body_bytes: int | None
    is_caller_claimed: bool = False
    replay_bytes: int = 65_536
    connect_s: float = 5.0
    has_callback: bool = False
    hides_paths: bool = False
    pipeline: Pipeline = Pipeline("app", APP_PIPELINE)

    @property
    def is_grpc(self) -> bool:
        """Whether the app speaks gRPC only."""
        return self.protocol in ("grpc", "grpcs")

    @property
    def is_http1(self) -> bool:
        """Whether the app speaks HTTP/1.1."""
        return self.protocol in ("http", "https")


def is_grpc_web(head: RecordingHead, app: AppView) -> bool:
    """Whether this is a call of gRPC-Web for an app that speaks gRPC only: to others it is HTTP, and their own matter."""
    return (
        app.is_grpc
        and head.protocol() in ("http1", "http2")
        and head.method() == "POST"
        and head.carries(GRPC_WEB_SET)
    )


def is_for_callback(head: RecordingHead, app: AppView, surface: Surface) -> bool:
    """Whether this is a call that an app which speaks gRPC gets by OnInvoke."""
    return app.is_grpc and surface == "dapr" and not (head.protocol() == "grpc" or is_grpc_web(head, app))


def _may_be_a_callback(head: RecordingHead, app: AppView) -> bool:
    """Whether an app that speaks gRPC may take this for a call of Dapr's: OnInvoke has the method in its message, where no rule looks."""
    if head.protocol() == "grpc" or is_grpc_web(head, app):
        return str(head.path_class(SERVICES)).lower().startswith(DAPR_RUNTIME)
    found = readings(head.whole().path)
    return found is None or any(DAPR_RUNTIME in one.lower() for one in found)


def unsupported(app: AppView, head: RecordingHead, surface: Surface) -> tuple[Cause, str] | None:
    """Why this call can't be given to the app at all."""
    protocol = head.protocol()
    who = f"{app.app_id}.{app.namespace}"
    if not app.has_port:
        return Cause.APP_DOWN, f"{who} accepts no calls: its proxy was started without --app-port"
    if app.healthy is False:
        return Cause.APP_UNHEALTHY, f"{who}: app is not in a healthy state: its health probes fail"
    if app.is_grpc and not is_for_callback(head, app, surface) and _may_be_a_callback(head, app):
        text = f"Dapr's callbacks of {who} are called by its own proxy alone; use InvokeService, or HTTP"
        return Cause.UNSUPPORTED, text
    if protocol == "grpc" and app.is_http1:
        return Cause.UNSUPPORTED, f"{who} speaks {app.protocol}, not gRPC; set --app-protocol grpc if it does"
    if protocol == "websocket" and not app.is_http1:
        return Cause.UNSUPPORTED, f"{who} speaks {app.protocol}: WebSockets need an HTTP/1.1 app"
    return None


def to_app(
    head: RecordingHead,
    app: AppView,
    *,
    caller: Caller | None,
    labels: Labels,
    surface: Surface,
    rewrite: Edits,
    form: Form = "sent",
    is_told: bool = True,
) -> Decision:
    """The Plan to our own app for a caller that may; `rewrite`: edits of the target, which make it of this form.

    caller: the app itself; None: the peer, whose name each call's own certificate gives, never a kept Plan.
    is_told: the app is told who calls whom.
    """
    refused = unsupported(app, head, surface)
    if refused is not None:
        cause, text = refused
        return errors.reply(cause, labels, text, surface=surface, callee=app.app_id)

    def given(rewrite: Edits) -> Plan | Hold:
        return _given(
            head, app, caller=caller, labels=labels, surface=surface, rewrite=rewrite, is_told=is_told
        )

    # To any other app gRPC passes the pipeline too: whoever says that a call is gRPC could go round a guard.
    return given(rewrite) if app.is_grpc else app.pipeline.carry(head, form, labels, rewrite, given)


def _given(
    head: RecordingHead,
    app: AppView,
    *,
    caller: Caller | None,
    labels: Labels,
    surface: Surface,
    rewrite: Edits,
    is_told: bool,
) -> Plan | Hold:
    web = is_grpc_web(head, app)
    grpc = head.protocol() == "grpc" or web
    by_callback = is_for_callback(head, app, surface)
    if by_callback and not app.has_callback:
        text = "the server that calls AppCallback/OnInvoke did not start in time, see the log of this proxy"
        then = errors.reply(Cause.NOT_READY, labels, text, surface=surface, callee=app.app_id)
        return Hold(key=CALLBACK, for_s=CALLBACK_HOLD_S, then=then)
    takes_claim = caller is None and app.is_caller_claimed
    edits = [
        Edit(op=Op.HOP_BY_HOP),
        *(_STRIP_BUT_CLAIMS if takes_claim else STRIP),
        *rewrite,
        Edit(op=Op.AUTHORITY, data=app.authority),
        Edit(op=Op.TRACE),
    ]
    edits.append(Edit(op=Op.DEADLINE))
    if surface == "dapr" and not grpc and not by_callback:
        edits.extend(_OF_PACKED_MESSAGES)
    if web:
        edits.append(Edit(op=Op.GRPC_WEB))
    elif app.is_grpc and not grpc and not by_callback:
        edits.append(Edit(op=Op.HTTP_ONLY))
    if is_told:
        if caller is not None:
            edits.extend(naming_caller(caller.app_id, caller.namespace))
        elif not takes_claim:
            edits.append(Edit(op=Op.CALLER))
        edits.append(Edit(op=Op.SET, name=b"dapr-callee-app-id", data=app.app_id.encode()))
    if app.token is not None:
        edits.append(Edit(op=Op.SET, name=b"dapr-api-token", data=app.token))
    hint = _SPEAKS_GRPC.format(protocol=app.protocol) if app.is_grpc and not grpc and not by_callback else ""
    return Plan(
        labels=labels,
        routes=(Route(cluster=CALLBACK if by_callback else APP_CLUSTER, edits=tuple(edits)),),
        retries=() if by_callback else resent(head, grpc=grpc),
        gates=(*app.gates, APP_GATE) if app.gated and not grpc else app.gates,
        connect_s=app.connect_s,
        body_bytes=app.body_bytes,
        reply_edits=STRIP_REPLY[:1] if by_callback else STRIP_REPLY,  # what our own server says is kept
        local_replies=CauseReplies(
            labels, surface, f"{app.app_id}.{app.namespace}", app.app_id, end="app", hint=hint
        ),
    )


def to_be_asked(found: Decision, authorizers: tuple[str, ...], gates: tuple[str, ...] = ()) -> Decision:
    """The same decision, of a call that passes these gates first, and that access policies have these authorizers asked about."""
    if not isinstance(found, Plan) or not (authorizers or gates):
        return found
    return replace(found, gates=(*gates, *found.gates), authorizers=(*authorizers, *found.authorizers))


def naming_caller(app_id: str, namespace: str) -> Edits:
    """What tells an app who calls it."""
    return (
        Edit(op=Op.SET, name=b"dapr-caller-app-id", data=app_id.encode()),
        Edit(op=Op.SET, name=b"dapr-caller-namespace", data=namespace.encode()),
    )


def without_verb(head: RecordingHead, app: AppView, labels: Labels, surface: Surface) -> Reply | None:
    """The refusal of a call of InvokeService that has no verb, where the app speaks HTTP.

    It comes before the access rules: one that names verbs would deny the call without saying what is wrong.
    """
    if surface != "dapr" or app.is_grpc or head.protocol() == "grpc" or head.method() != NO_VERB:
        return None
    text = f"{app.app_id}.{app.namespace} speaks {app.protocol}: set http_extension.verb to GET, POST or another one except CONNECT"
    return errors.reply(Cause.UNSUPPORTED, labels, text, surface=surface, callee=app.app_id)


def to_callback(app: AppView) -> Plan:
    """The Plan for OnInvoke, which was judged as the HTTP call that it is made for."""
    labels = Labels(direction="inbound", src=app.app_id, src_namespace=app.namespace)
    edits = (Edit(op=Op.HOP_BY_HOP), Edit(op=Op.AUTHORITY, data=app.authority), Edit(op=Op.DEADLINE))
    return Plan(
        labels=labels,
        routes=(Route(cluster=APP_CLUSTER, edits=edits),),
        retries=(_at_once(frozenset({Cause.REFUSED}), attempts=4),),
        connect_s=app.connect_s,
        reply_edits=STRIP_REPLY,
        local_replies=CauseReplies(
            *(labels, "own", f"{app.app_id}.{app.namespace}", app.app_id),
            end="app",
            hint=f"; is --app-protocol {app.protocol} right?",
        ),
        scopes=("app",),
    )


def resent(head: RecordingHead, *, grpc: bool) -> tuple[RetryPolicy, ...]:
    """A server that closed kept connections just as they were used never saw the call; one that broke off may have: once, where safe."""
    unseen = _at_once(frozenset({Cause.REFUSED}), attempts=4)
    if not grpc and head.framing() == "none" and head.method() in IDEMPOTENT:
        return (unseen, _at_once(frozenset({Cause.RESET_EARLY}), attempts=2))
    return (unseen,)


def _at_once(on: frozenset[Cause], *, attempts: int) -> RetryPolicy:
    return RetryPolicy(
        attempts=attempts,
        on=on,
        grpc_codes=frozenset(),
        delays_s=lambda: iter((0.0,) * (attempts - 1)),
        is_inner=True,
    )


def denied(
    head: RecordingHead,
    app: AppView,
    *,
    labels: Labels,
    surface: Surface,
    peer: str,
    posture: Profile | None = None,
) -> Reply:
    """The answer to a caller that may not; the rule is in the labels only, for our own log.

    posture: the profile that denied, where no policy is written: there is no rule to keep, and a way out to tell.
    """
    verb = "" if head.protocol() == "grpc" else f" verb: {head.method()}"
    is_hidden = (
        app.hides_paths and head.protocol() != "grpc" and not labels.is_grpc_web
    )  # whose paths are names
    operation = "(hidden)" if is_hidden else DETAIL
    asked = f"id: {peer or 'anonymous'} operation: {operation}{verb}"
    text = f"access control policy has denied access to {asked}"
    if posture is not None:
        does, otherwise = _POSTURES[posture]
        text = (
            f"access denied to {asked}: {app.app_id}.{app.namespace} has no access policy, and without one its profile {does} "
            f"(reason=no-policy, profile {posture}): give its proxy a policy with --config{otherwise}"
        )
    http = f"rpc error: code = PermissionDenied desc = {text}" if surface == "dapr" else text
    found = errors.reply(Cause.DENIED, labels, http, surface=surface, callee=app.app_id)
    return replace(found, grpc_message=text)


# `daprd` admits everybody where there is no policy.
_POSTURES = {
    "production": ("denies everybody", ", or start it with --profile dev, which admits its own namespace"),
    "dev": ("admits its own namespace alone", ""),
}


_SPEAKS_GRPC = (
    "; the call came as HTTP, and the app speaks gRPC (--app-protocol {protocol}): call its gRPC methods, "
    "or set --app-protocol to http or h2c if it speaks HTTP. An app that implements Dapr's AppCallback/OnInvoke "
    "gets calls made with the header dapr-app-id or a path of Dapr's API"
)
