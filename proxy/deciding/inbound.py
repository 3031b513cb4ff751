"""Turns a peer's request into a Plan to the sidecar's own app, or a Reply. Pure; the certificate names the caller, never a header."""

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.access import Protocol
from policies.rules.caller import Caller
from proxy import errors
from proxy.contract.plan import Cause, Decision, Edits, Hold, Labels, Plan, Reply, Surface
from proxy.contract.recording import LONG, MAX_KEY_BYTES, RecordingHead
from proxy.deciding.app_plan import AppView, denied, is_grpc_web, to_app, to_be_asked, without_verb
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.baggage import BaggageRules
from proxy.deciding.callee import SERVICES
from proxy.deciding.daprd import ENVELOPES, from_daprd
from proxy.deciding.limits import InboundLimits
from proxy.deciding.peer import caller_of
from proxy.deciding.sampling import SamplingRules

SCOPES = ("access", "app")


class InboundView(Struct, frozen=True, kw_only=True):
    """What a peer's request is judged by: a snapshot, replaced whole.

    trust_domain: our own. baggage: of callers in others; what their proxies let pass is not refused here. sampling: of new traces.
    """

    app: AppView
    authorizer: Authorizer
    limits: InboundLimits = InboundLimits()
    trust_domain: str = ""
    baggage: BaggageRules = BaggageRules()
    sampling: SamplingRules = SamplingRules()
    mtls: bool = True  # without, nothing proves a namespace, and callers may have found us under another

    def limits_baggage_of(self, caller: Caller | None) -> bool:
        """Whether its calls cross a trust boundary at which baggage is limited."""
        is_limited = self.baggage.allowed is not None
        return is_limited and caller is not None and caller.trust_domain != self.trust_domain


class Inbound:
    """Decides for the peer listener. Mutable state: `view`, the snapshot in force."""

    def __init__(self, view: InboundView) -> None:
        self.view = view

    def decide(self, head: RecordingHead) -> Decision:
        """The decision, with the scopes that it dies with."""
        surface: Surface = "dapr" if head.naming(b"postern-surface") == "dapr" else "own"
        found = self._decide(head, head.peer(), surface, is_translated=False)
        found = self.view.sampling.apply(head, found)
        return found if isinstance(found, Hold) else replace(found, scopes=(*found.scopes, *SCOPES))

    def decide_translated(self, head: RecordingHead) -> Decision:
        """The decision on what the translator has made of a daprd's envelope; its own socket says whose certificate came with it."""
        peer = head.naming(b"postern-peer")
        if peer == LONG:
            labels = Labels(direction="inbound", surface="dapr")
            text = f"the caller's SPIFFE id is longer than {MAX_KEY_BYTES} bytes"
            return errors.reply(Cause.UNSUPPORTED, labels, text, surface="dapr")
        found = self.view.sampling.apply(head, self._decide(head, peer, "dapr", is_translated=True))
        return found if isinstance(found, Hold) else replace(found, scopes=(*found.scopes, *SCOPES))

    def _decide(
        self, head: RecordingHead, peer: str | None, surface: Surface, *, is_translated: bool
    ) -> Decision:
        app = self.view.app
        caller = caller_of(peer)
        labels = Labels(
            direction="inbound",
            surface=surface,
            src=caller.app_id if caller else "",
            src_namespace=caller.namespace if caller else "",
            dst=app.app_id,
            dst_namespace=app.namespace,
            peer_id=peer or "",
            is_grpc_web=is_grpc_web(head, app),
        )
        refused = _misdirected(head, self.view, labels)
        if refused is None and not is_translated:
            if head.protocol() == "grpc" and head.path_class(SERVICES) == ENVELOPES:
                outer = replace(labels, dst="", dst_namespace="", is_inner=True)
                return from_daprd(app, outer, caller.trust_domain if caller else "")
            refused = _uncarriable(head, app, labels)
        refused = refused or without_verb(head, app, labels, surface)
        if refused is not None:
            return refused
        is_rpc = head.protocol() == "grpc" or is_grpc_web(head, app)
        protocol: Protocol = "grpc" if app.is_grpc else "http"
        users = self.view.authorizer.users(head, labels, surface)
        if isinstance(users, Hold | Reply):
            return users
        decision = self.view.authorizer.decide(head, caller, protocol, is_grpc=is_rpc, users=users)
        labels = replace(labels, decision=self.view.authorizer.describe(decision))
        if not decision.allowed:
            return denied(
                head,
                app,
                labels=labels,
                surface=surface,
                peer=peer or "",
                posture=self.view.authorizer.posture,
            )
        # Who calls differs from call to call, and is in no kept Plan, but where it is what such a Plan is found by.
        named = caller if is_translated else None
        rewrite: Edits = users.told
        if self.view.limits_baggage_of(caller):
            taken = self.view.baggage.take(head, labels, crosses_boundary=True)
            if isinstance(taken, Reply):
                return taken
            labels, rewrite = taken[0], (*rewrite, *taken[1])
        rates = self.view.limits.rates_of(head, caller, is_grpc=is_rpc)
        found = to_app(head, app, caller=named, labels=labels, surface=surface, rewrite=rewrite)
        if isinstance(found, Plan):
            found = self.view.limits.harming(head, caller, found)
        return to_be_asked(found, decision.authorizers, rates)


def _misdirected(head: RecordingHead, view: InboundView, labels: Labels) -> Reply | None:
    app, wanted = view.app, head.naming(b"postern-callee")
    own = f"{app.app_id}.{app.namespace}"
    if wanted is None:
        wanted = head.naming(b"dapr-callee-app-id")
        own = app.app_id
    if wanted is None or wanted == own or (not view.mtls and wanted.partition(".")[0] == app.app_id):
        return None
    text = f"this is the proxy of {app.app_id}.{app.namespace}, the call is for {wanted}"
    return errors.reply(Cause.MISDIRECTED, labels, text)


def _uncarriable(head: RecordingHead, app: AppView, labels: Labels) -> Reply | None:
    if head.protocol() == "grpc" or is_grpc_web(head, app):
        service = str(head.path_class(SERVICES))
        if service.startswith("dapr.proto.internals."):
            return errors.reply(Cause.UNSUPPORTED, labels, f"{service} is not served here")
        if not service:
            return errors.reply(Cause.UNSUPPORTED, labels, "a gRPC path is exactly /package.Service/Method")
    elif head.method() == "CONNECT":
        return errors.reply(Cause.BAD_REQUEST, labels, "CONNECT is not supported", status=501)
    elif head.peer() is None and head.naming(b"postern-callee") is None:
        # In the clear a page in a browser reaches this port as well. It can't send that header without a preflight, which has none.
        text = (
            "this port is for proxies, which name the callee in postern-callee: call the app through its proxy's API, "
            "or with the header"
        )
        return errors.reply(Cause.BAD_REQUEST, labels, text)
    return None
