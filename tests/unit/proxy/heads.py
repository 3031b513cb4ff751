"""Request heads, views and askings for tests of the deciders."""

import random
from typing import Any

from msgspec.structs import replace

from policies.rules.access import AccessRules, without_policy
from policies.rules.resiliency import ResiliencyRules
from proxy.contract.head import RequestHead
from proxy.contract.recording import RecordingHead, Tables
from proxy.deciding.app_plan import GRPC_WEB, AppView
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.browsers import BEYOND_PAGES, PREFLIGHT, Browsers
from proxy.deciding.callee import (
    API_TOKEN_SET,
    BEYOND_PAGES_SET,
    DAPR_METHODS,
    FOREIGN_SITE_SET,
    GRPC_WEB_SET,
    HEDGED_METHODS,
    IDEMPOTENCY_SET,
    OTLP_PATHS,
    OUT_PATHS,
    PREFLIGHT_SET,
    SERVICES,
    TRUTHY_SET,
    DaprMethods,
    OtlpPaths,
    OutPaths,
    Services,
    parse_routes,
)
from proxy.deciding.hedging import HedgedMethods
from proxy.deciding.inbound import Inbound, InboundView
from proxy.deciding.outbound import Outbound
from proxy.deciding.outbound_view import OutboundView
from proxy.deciding.repeatable import IDEMPOTENCY
from proxy.wire.target import parse
from telemetry.hosts import FOREIGN_SITES

APP = AppView(
    app_id="web",
    namespace="shop",
    protocol="http",
    authority=b"127.0.0.1:8080",
    has_port=True,
    healthy=None,
    token=None,
    gated=False,
    body_bytes=None,
)


def rules(**changes: Any) -> AccessRules:
    """Access rules of an app without a policy."""
    made = without_policy(
        profile="dev", own_app_id="web", own_namespace="shop", own_trust_domain="public", mtls=True
    )
    return replace(made, **changes)


def outbound(**changes: Any) -> Outbound:
    """The decider of app `web` in namespace `shop`, which knows `cart` and `cart.other`."""
    view = OutboundView(
        app=APP,
        trust_domain="public",
        mtls=True,
        authorizer=Authorizer(rules()),
        resiliency=ResiliencyRules(),
        known=frozenset({"peer:cart.shop", "peer:cart.other"}),
        own_ports={"own:cart": "cart"},
        sockets=frozenset(),
        routes=parse_routes(("shop.{Name}Service={name}",)),
        token_required=False,
        browsers=Browsers(hosts=("box",)),
        echoes_baggage=False,
        tells_trace=True,
        takes_otlp=True,
        forwarded=(),
        hold_s=2.0,
        learning_for_s=0.0,
        random=lambda: random.Random(1),
    )
    return Outbound(replace(view, **changes))


def inbound(**changes: Any) -> Inbound:
    """The decider for peers of `web`."""
    return Inbound(
        InboundView(app=replace(APP, **changes), authorizer=Authorizer(rules()), trust_domain="public")
    )


def tables(authorizer: Authorizer | None = None, token: bytes | None = None) -> Tables:
    """What the control plane pushes."""
    made = Tables()
    made.put_paths(OUT_PATHS, OutPaths())
    made.put_paths(SERVICES, Services())
    made.put_paths(DAPR_METHODS, DaprMethods())
    made.put_paths(OTLP_PATHS, OtlpPaths())
    made.put_set(API_TOKEN_SET, frozenset({token} if token else ()))
    made.put_set(TRUTHY_SET, frozenset({b"true"}))
    made.put_set(FOREIGN_SITE_SET, FOREIGN_SITES)
    made.put_set(BEYOND_PAGES_SET, BEYOND_PAGES)
    made.put_set(PREFLIGHT_SET, PREFLIGHT)
    made.put_set(GRPC_WEB_SET, GRPC_WEB)
    made.put_set(IDEMPOTENCY_SET, IDEMPOTENCY)
    made.put_paths(HEDGED_METHODS, HedgedMethods(frozenset({"/shop.CartService/Get"})))
    authorizer = authorizer or Authorizer(rules())
    for number, table in authorizer.tables():
        made.put_paths(number, table)
    for number, members in authorizer.sets():
        made.put_set(number, members)
    return made


def head(target: str = "/", **changes: Any) -> RequestHead:
    """A GET from the app on the HTTP port."""
    read = parse(target.encode())
    made = RequestHead(
        listener="http",
        protocol="http1",
        framing="none",
        method="GET",
        authority="localhost:3500",
        target=target.encode()[read.offset :] or b"/",
        path=read.path,
        query=read.query,
        headers=(),
        form="absolute" if read.offset else "origin",
    )
    if read.offset:
        made = replace(made, authority=read.authority.decode())
    return replace(made, **changes)


def asking(one: RequestHead, pushed: Tables | None = None) -> RecordingHead:
    """What a decider gets."""
    return RecordingHead(one, pushed or tables())
