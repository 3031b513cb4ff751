"""The snapshots that deciders begin with, from the settings; news change them."""

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from policies.reloading.loading import PolicySnapshot
from policies.rules.configuration import TracingConfig
from proxy.contract.addresses import join_address
from proxy.contract.plan import Edit, Op
from proxy.control.heard_names import HeardNames
from proxy.deciding.app_plan import AppView
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.baggage import BaggageRules
from proxy.deciding.browsers import Browsers
from proxy.deciding.callee import ServiceRoutes
from proxy.deciding.egress import Egress
from proxy.deciding.faults import outbound_faults
from proxy.deciding.inbound import InboundView
from proxy.deciding.limits import InboundLimits
from proxy.deciding.outbound import INVOKER
from proxy.deciding.outbound_view import OutboundView
from proxy.deciding.pipeline import Pipeline
from proxy.deciding.sampling import SamplingRules, sampling_rules
from proxy.settings.values import Settings, is_loopback
from telemetry.hosts import own_names

HOLD_S = 2.2  # the cold lookup's budget is 2 s
LEARNING_S = 2.0


def outbound_view(
    settings: Settings,
    policy: PolicySnapshot,
    app: AppView,
    authorizer: Authorizer,
    *,
    heard: HeardNames,
    routes: ServiceRoutes,
    pipeline: Pipeline,
    hostname: str,
    host_ip: str,
    random: Callable[[], Random],
) -> OutboundView:
    """What is decided by for calls of the app: no name is known yet."""
    return OutboundView(
        app=app,
        trust_domain=settings.trust_domain,
        mtls=settings.mtls,
        authorizer=authorizer,
        resiliency=policy.resiliency,
        traffic=policy.traffic,
        faults=outbound_faults(policy.traffic.matching),
        apis=policy.configuration.api,
        known=frozenset(),
        heard=heard,
        own_ports={own_port_listener(own.app): own.app for own in settings.upstreams},
        sockets=frozenset(
            {INVOKER, "http", "grpc"} if settings.unix_domain_socket is not None else {INVOKER}
        ),
        routes=routes,
        token_required=settings.api_token is not None,
        browsers=browsers_of(settings, hostname),
        pipeline=pipeline,
        echoes_baggage=settings.profile == "daprd",
        baggage=baggage_rules(policy.configuration.tracing, settings),
        sampling=trace_sampling(policy.configuration.tracing, settings),
        tells_trace=settings.tells_trace,
        takes_otlp=settings.takes_otlp,
        forwarded=(
            Edit(op=Op.ADD, name=b"x-forwarded-for", data=host_ip.encode()),
            Edit(op=Op.ADD, name=b"x-forwarded-host", data=hostname.encode()),
            Edit(op=Op.ADD, name=b"forwarded", data=_forwarded(host_ip, hostname)),
        ),
        http_endpoints=policy.http_endpoints,
        egress=Egress(settings.egress),
        hold_s=HOLD_S,
        learning_for_s=LEARNING_S if settings.learn_names else 0.0,
        random=random,
    )


def inbound_view(
    settings: Settings, policy: PolicySnapshot, app: AppView, authorizer: Authorizer, limits: InboundLimits
) -> InboundView:
    """What is decided by for calls of peers."""
    view = InboundView(
        app=app, authorizer=authorizer, limits=limits, trust_domain=settings.trust_domain, mtls=settings.mtls
    )
    return inbound_tracing(view, policy.configuration.tracing, settings)


def inbound_tracing(view: InboundView, tracing: TracingConfig, settings: Settings) -> InboundView:
    """The view with what a Configuration says of traces; what a caller's proxy let pass is not refused here."""
    baggage = replace(baggage_rules(tracing, settings), is_strict=False)
    return replace(view, baggage=baggage, sampling=trace_sampling(tracing, settings))


def baggage_rules(tracing: TracingConfig, settings: Settings) -> BaggageRules:
    """What becomes of baggage: as daprd, calls with invalid baggage are refused unless a Configuration says else."""
    written, allowed = tracing.is_baggage_strict, tracing.baggage_allowed
    return BaggageRules(
        is_strict=settings.profile == "daprd" if written is None else written,
        allowed=None if allowed is None else frozenset(key.encode() for key in allowed),
    )


def trace_sampling(tracing: TracingConfig, settings: Settings) -> SamplingRules:
    """Which new traces are recorded at another rate than most."""
    return sampling_rules(tracing.rules, tracing.force_from, settings.namespace)


def browsers_of(settings: Settings, hostname: str) -> Browsers:
    """The rules of the API ports and of ports of single callees."""
    beyond = not all(is_loopback(host) for host in settings.listen_addresses)
    return Browsers(
        hosts=(*settings.allowed_hosts, *own_names(hostname, beyond=beyond)),
        origins=settings.allowed_origins,
        origins_open=settings.profile == "daprd",
    )


def own_port_listener(app: str) -> str:
    """The listener of a port of its own."""
    return f"own:{app}"


def app_view(settings: Settings, *, healthy: bool | None) -> AppView:
    """The app, without the handlers in front of it."""
    return AppView(
        app_id=settings.app_id,
        namespace=settings.namespace,
        protocol=settings.app_protocol,
        authority=join_address(settings.app_channel_address, settings.app_port or 0).encode(),
        has_port=settings.app_port is not None,
        healthy=healthy,
        token=settings.app_api_token.encode() if settings.app_api_token else None,
        gated=settings.app_max_concurrency is not None,
        body_bytes=settings.max_body_bytes,
        is_caller_claimed=settings.profile == "daprd" and not settings.mtls,
        replay_bytes=settings.replay_bytes,
        connect_s=settings.connect_s,
    )


def _forwarded(host_ip: str, hostname: str) -> bytes:
    node = f'"[{host_ip}]"' if ":" in host_ip else host_ip
    return f"for={node};by={node};host={hostname}".encode()
