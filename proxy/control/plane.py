"""The control plane of one sidecar: turns news (names, policies, identity, the app's state, routes) into snapshots and pushes them.

Runs on the loop; every handler is short and never awaits. Deciders see only what is pushed here.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from nameresolution.directory import Directory
from nameresolution.host_registry import Entry
from nameresolution.resolver import AppName, EndpointSet
from policies.reloading.loading import PolicySnapshot
from policies.rules.access import Protocol
from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.caller import Caller
from policies.rules.resiliency import ResiliencyRules
from proxy.contract.addresses import join_address
from proxy.contract.engine import Cluster, Engine, PeerLeaf, TlsIdentity, Upstream
from proxy.contract.gates import ConcurrencyGate
from proxy.contract.head import FROM_DAPRD, Headers, RequestHead
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Decision, Hold, Labels
from proxy.contract.recording import RecordingHead, Tables
from proxy.control.app_watch import AppWatch
from proxy.control.authorizing.authorizers import Authorizers
from proxy.control.authorizing.question import own_party
from proxy.control.breakers import breakers_status, push_breakers
from proxy.control.external import ExternalClusters
from proxy.control.first_views import app_view, baggage_rules, inbound_tracing, inbound_view, outbound_view
from proxy.control.heard_names import Claimed, HeardNames
from proxy.control.limit_gates import INBOUND, LimitGates
from proxy.control.naming_status import NamingStatus
from proxy.control.pushed_tables import NAMING, PushedTables
from proxy.control.remote_fetch import RemoteFetch
from proxy.control.traffic import peer_cluster
from proxy.deciding.app_plan import APP_CLUSTER, APP_GATE, CALLBACK, AppView, to_callback
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.browsers import as_headers
from proxy.deciding.callee import (
    APP_PIPELINE,
    HTTP_PIPELINE,
    parse_callee,
    parse_key,
    parse_routes,
)
from proxy.deciding.daprd import TO_DAPRD
from proxy.deciding.faults import outbound_faults
from proxy.deciding.inbound import Inbound
from proxy.deciding.limits import InboundLimits, gates_of, inbound_limits, target_of
from proxy.deciding.naming import SERVICES_HOLD
from proxy.deciding.outbound import DAPR_API, OTLP, OWN_API, SPELLINGS, Outbound
from proxy.deciding.peer import admitted_leaf
from proxy.deciding.pipeline import Pipeline
from proxy.settings.values import Settings
from sentry.client import Svid
from telemetry.hosts import origin_of
from telemetry.web_proxies import NO_PROXIES, WebProxies

AGAIN_HOLD_S = 0.5  # nobody answered a whole lookup, and whoever appeared since would have been heard: time for a question or two


class Control:
    """Owns the snapshots behind both deciders; mutable state is theirs, and the learnt claims."""

    def __init__(
        self,
        settings: Settings,
        policy: PolicySnapshot,
        directory: Directory,
        hostname: str,
        host_ip: str,
        *,
        now: Callable[[], float] = time.time,
        want_dapr_api: Callable[[], None] = lambda: None,
        want_callback: Callable[[], None] = lambda: None,
        remote: RemoteFetch,
        own_ports: Callable[[], frozenset[int]] = frozenset,
        web_proxies: WebProxies = NO_PROXIES,
    ) -> None:
        self._settings = settings
        self._wants = {DAPR_API: want_dapr_api, CALLBACK: want_callback}
        self._directory = directory
        self._now = now
        self._engine: Engine | None = None
        self._random = random.Random()  # noqa: S311 - jitter
        self._claims: dict[str, dict[str, Claimed]] = {}
        own = AppName(settings.app_id, settings.namespace)
        self._heard = HeardNames(own, _configured(settings), directory.want)
        self._heard_generation = self._heard.generation
        routes = parse_routes(settings.routes)
        self._explicit = routes
        self._remote = remote
        remote.configure(policy.pipelines, policy.access.policies.key_sources)
        self._pipelines = self._pipelines_of(policy)
        self.authorizers = Authorizers(own_party(settings))
        self.authorizers.configure(self._asked_by(policy))
        healthy = False if settings.app_health is not None else None
        limits = inbound_limits(policy.traffic)
        self._limit_gates = LimitGates()
        app = app_view(settings, healthy=healthy)
        app = self._under(policy, app, limits)
        authorizer = Authorizer(policy.access, remote=remote)
        self.inbound = Inbound(inbound_view(settings, policy, app, authorizer, limits))
        self.outbound = Outbound(
            outbound_view(
                *(settings, policy, app, authorizer),
                heard=self._heard,
                routes=routes,
                pipeline=self._pipelines["http"],
                hostname=hostname,
                host_ip=host_ip,
                random=lambda: self._random,
            )
        )
        self.naming = NamingStatus(
            *(settings, directory, self._heard),
            routes=lambda: self.outbound.view.routes,
            claims=lambda: self._claims,
            loads=self.loads,
        )
        self.external = ExternalClusters(
            *(lambda: self.outbound.view, self._know),
            own_ports=own_ports,
            own_ip=host_ip,
            proxies=web_proxies,
        )

    # --- deciders, with the wish to know a name -------------------------------------------------------------------------------

    def decide_outbound(self, head: RecordingHead) -> Decision:
        """The outbound decision; a held name is looked for, and one just not found is answered as soon as news could be in."""
        decision = self.outbound.decide(head)
        self._start(decision)
        lost = self.external.decided(decision)
        if lost is not None:
            return lost
        if (
            isinstance(decision, Hold) and decision.key in self.outbound.view.known
        ):  # its address needs no lookup
            return self.outbound.decide(head)
        if not isinstance(decision, Hold) or not decision.key.startswith("peer:"):
            return decision
        name = AppName(*parse_key(decision.key))
        was_missed = self._directory.was_missed(name)
        is_settled = self._directory.is_watched(name) and self._heard.is_absent_everywhere(name)
        if not self._is_absent(name):
            self._directory.want(name)
            if (
                decision.key in self.outbound.view.known
            ):  # a source knew, and told us before anybody could wait
                return self.outbound.decide(head)
        if is_settled or self._is_absent(name):
            return replace(decision, for_s=self._directory.lag_s)
        if was_missed:  # the lookup goes on in the background, for whoever asks next
            return replace(decision, for_s=min(decision.for_s, AGAIN_HOLD_S))
        return decision

    def decide_inbound(self, head: RecordingHead) -> Decision:
        """The decision on a peer's call."""
        decision = self.inbound.decide(head)
        self._start(decision)
        return decision

    def decide_translated(self, head: RecordingHead) -> Decision:
        """The decision on a daprd's call."""
        decision = self.inbound.decide_translated(head)
        self._start(decision)
        return decision

    def decide_envelope(self, head: RecordingHead) -> Decision:
        """The decision on a call to a daprd."""
        return self.outbound.decide_envelope(head)

    def decide_callback(self, _: RecordingHead) -> Decision:
        """The decision on OnInvoke: it goes to the app."""
        return to_callback(self.inbound.view.app)

    def is_closed(self, route: str) -> bool:
        """Whether `spec.api` closes a route of the HTTP API, by its path below /v1.0/."""
        return self.outbound.view.apis.is_closed("http", route)

    def _start(self, decision: Decision) -> None:
        """Have the server started, or the keys or token fetched, that a call waits for."""
        if not isinstance(decision, Hold):
            return
        want = self._wants.get(decision.key)
        if want is not None:
            want()
        else:
            self._remote.want(decision.key)

    def _is_absent(self, name: AppName) -> bool:
        """The name was looked up without a result: no news will come soon."""
        known = self._directory.get(name)
        return known is not None and not known.endpoints

    def denied_as(self, outcome: Outcome) -> str:
        """As which reading of its path a call was denied by the rules in force; "" where none turned the decision."""
        return self.reading_denied(outcome.head, outcome.labels)

    def reading_denied(self, head: RequestHead, labels: Labels) -> str:
        """The same of a head that was denied under these labels."""
        app, view = self.inbound.view.app, self.outbound.view
        own = Caller(trust_domain=view.trust_domain, namespace=app.namespace, app_id=app.app_id)
        protocol: Protocol = "grpc" if app.is_grpc else "http"
        return self.inbound.view.authorizer.denied_as(head, labels, protocol, own)

    def explain(self, key: str) -> str:
        """What may be meant, then what was tried for a cluster, for error messages."""
        if not key.startswith("peer:"):
            return self.external.explain(key)
        name = AppName(*parse_key(key))
        tried = self._directory.explain(name) or "nothing was found yet"
        if self._heard.is_known(name):
            return tried
        near = self._heard.nearest(name.app_id, name.namespace)
        meant = f"did you mean {' or '.join(map(repr, near))}? " if near else "is the name spelt right? "
        return f"{meant}tried: {tried}"

    # --- pushes ----------------------------------------------------------------------------------------------------------------

    def attach(self, engine: Engine) -> None:
        """Give the engine its first picture."""
        self._engine = engine
        self.external.attach(engine)
        settings = self._settings
        for number, table in NAMING.items():
            engine.set_paths(number, table)
        self._push_tables()
        self._push_gates(())
        self._limit_gates.attach(engine)
        self._limit_gates.push(INBOUND, self.inbound.view.limits.gates)
        push_breakers(engine, ResiliencyRules(), self.outbound.view.resiliency)
        if settings.app_port is not None:
            wire = "http1" if settings.app_protocol in ("http", "https") else "h2c"
            tls = "app" if settings.app_protocol in ("https", "grpcs") else None
            where = Upstream(address=join_address(settings.app_channel_address, settings.app_port))
            engine.set_cluster(Cluster(key=APP_CLUSTER, wire=wire, tls=tls, upstreams=(where,)))  # type: ignore[arg-type]
        if settings.app_max_concurrency is not None:
            engine.set_gate(APP_GATE, ConcurrencyGate(limit=settings.app_max_concurrency))
        self._directory.subscribe(self.names_changed)
        self._remote.subscribe(self._fetched)

    def names_changed(self, found: EndpointSet) -> None:
        """A name's endpoints changed: push the cluster; if none is left, calls wait for an endpoint again."""
        assert self._engine is not None
        key = f"peer:{found.name.app_id}.{found.name.namespace}"
        self._heard.found(found, self._now())
        self._names_heard()
        known = self.outbound.view.known
        if found.endpoints:
            if key not in known:
                self._push_limits(key)
                self._outbound(known=known | {key})
                self._engine.invalidate(f"name:{key}")
            self._engine.set_cluster(self._peer_cluster(found))
        else:
            if key in known:
                self._outbound(known=known - {key})
                self._engine.invalidate(f"name:{key}")
                self._engine.drop_cluster(key)
                self._limit_gates.push(key, {})
            self._engine.wake(key)

    def _peer_cluster(self, found: EndpointSet) -> Cluster:
        settings = self._settings
        own = AppName(settings.app_id, settings.namespace)
        return peer_cluster(found, self.outbound.view.traffic, own, mtls=settings.mtls)

    def _limits_changed(self) -> None:
        self._limit_gates.push(INBOUND, self.inbound.view.limits.gates)
        for key in self.outbound.view.known:
            self._push_limits(key)

    def _push_peers(self) -> None:
        """Push again what is known: other rules hold for it now."""
        assert self._engine is not None
        for key in self.outbound.view.known:
            found = self._directory.get(AppName(*parse_key(key))) if key.startswith("peer:") else None
            if found is not None and found.endpoints:
                self._engine.set_cluster(self._peer_cluster(found))

    def dapr_api_started(self, address: str) -> None:
        """Dapr's gRPC API answers at this address: calls that wait for it go there."""
        assert self._engine is not None
        self._outbound(known=self.outbound.view.known | {DAPR_API})
        self._engine.set_cluster(
            Cluster(key=DAPR_API, wire="h2c", tls=None, upstreams=(Upstream(address=address),), who=OWN_API)
        )

    def otlp_listens(self, address: str) -> None:
        """What the app exports by OpenTelemetry's protocol is taken at this address."""
        assert self._engine is not None
        self._engine.set_cluster(
            Cluster(key=OTLP, wire="h2c", tls=None, upstreams=(Upstream(address=address),), who=OWN_API)
        )

    def callback_started(self, address: str) -> None:
        """The server that calls OnInvoke answers at this address: calls that wait for it go there."""
        assert self._engine is not None
        app = replace(self.inbound.view.app, has_callback=True)
        self.inbound.view = replace(self.inbound.view, app=app)
        self._outbound(app=app)
        self._engine.invalidate("app")
        self._engine.set_cluster(
            Cluster(key=CALLBACK, wire="http1", tls=None, upstreams=(Upstream(address=address),))
        )

    def translators_listen(self, inbound: str, outbound: str) -> None:
        """Calls from daprds and to them are translated at these addresses."""
        assert self._engine is not None
        for key, address in ((FROM_DAPRD, inbound), (TO_DAPRD, outbound)):
            where = (Upstream(address=address),)
            self._engine.set_cluster(
                Cluster(key=key, wire="h2c", tls=None, upstreams=where, who="this proxy's translator")
            )

    def policy_changed(self, policy: PolicySnapshot) -> None:
        """New rules: new tables, and no decision under the old ones is kept."""
        assert self._engine is not None
        authorizer = Authorizer(policy.access, remote=self._remote)
        self._remote.configure(policy.pipelines, policy.access.policies.key_sources)
        pipelines, self._pipelines = self._pipelines, self._pipelines_of(policy)
        self.authorizers.configure(self._asked_by(policy))
        limits = inbound_limits(policy.traffic)
        app = self._under(policy, self.inbound.view.app, limits)
        tracing = policy.configuration.tracing
        inbound = replace(self.inbound.view, authorizer=authorizer, app=app, limits=limits)
        self.inbound.view = inbound_tracing(inbound, tracing, self._settings)
        endpoints = self.outbound.view.http_endpoints
        before, traffic = self.outbound.view.resiliency, self.outbound.view.traffic
        self._outbound(
            authorizer=authorizer,
            resiliency=policy.resiliency,
            traffic=policy.traffic,
            faults=outbound_faults(policy.traffic.matching),
            http_endpoints=policy.http_endpoints,
            apis=policy.configuration.api,
            baggage=baggage_rules(tracing, self._settings),
            sampling=self.inbound.view.sampling,
            app=app,
            pipeline=self._pipelines["http"],
        )
        self._push_tables()
        self._push_gates(pipelines.values())
        push_breakers(self._engine, before, policy.resiliency)
        self._engine.invalidate("access")
        self._engine.invalidate("resiliency")
        self.external.policy_changed(endpoints)
        if policy.traffic != traffic:
            self._limits_changed()
            self._push_peers()
            self.external.push_again()
        if not self._settings.keep_open_calls:
            self._engine.redecide_open()

    def identity_changed(self, svid: Svid) -> None:
        """A new SVID: new TLS contexts for new connections."""
        assert self._engine is not None
        self._engine.set_identity(
            TlsIdentity(
                chain_pem=svid.chain_pem,
                key_pem=svid.key_pem,
                roots_pem=svid.bundle.pem,
                ends_at=svid.not_after.timestamp(),
                verify=self._verify,
                strict=svid.bundle.is_strict,
            )
        )

    def _verify(self, der: bytes, as_server: bool) -> PeerLeaf:
        return admitted_leaf(der, as_server, self.inbound.view.authorizer.rules)

    def app_changed(self, watch: AppWatch) -> None:
        """The app's health turned, or something else of it that decides nothing."""
        assert self._engine is not None
        if watch.healthy == self.inbound.view.app.healthy:
            return
        app = replace(self.inbound.view.app, healthy=watch.healthy)
        self.inbound.view = replace(self.inbound.view, app=app)
        self._outbound(app=app)
        self._engine.invalidate("app")

    def registry_changed(self, entries: tuple[Entry, ...], mesh: str) -> None:
        """What runs on this host: names, why some take no calls, and what callees of the own namespace say they serve."""
        self._heard.registered(entries, mesh, self._now())
        self._names_heard()
        if not self._settings.learn_names:
            return
        claims = self._heard.claims()
        if claims != self._claims:
            self._claims = claims
            self._routes_changed()

    def _names_heard(self) -> None:
        assert self._engine is not None
        if self._heard.generation != self._heard_generation:
            self._heard_generation = self._heard.generation
            self._engine.invalidate(SPELLINGS)

    def learning_settled(self) -> None:
        """The first seconds are over: an unknown service is answered at once from now on."""
        self._outbound(learning_for_s=0.0)
        self._routes_changed()

    def _routes_changed(self) -> None:
        assert self._engine is not None
        claims = {service: frozenset(apps) for service, apps in self._claims.items()}
        self._outbound(routes=self._explicit.with_learnt(claims))
        self._engine.invalidate("routes")
        self._engine.wake(SERVICES_HOLD)

    def hedge_delays_changed(self, delays: Mapping[str, float]) -> None:
        """Calls that are hedged by how long they took lately wait so long, by `app.namespace`."""
        assert self._engine is not None
        self._outbound(hedge_delays=delays)
        self._engine.invalidate("resiliency")

    def loads(self, key: str) -> Sequence[Mapping[str, object]]:
        """What the engine knows of a cluster's endpoints."""
        assert self._engine is not None
        return self._engine.loads(key)

    def breakers(self, *, hides_paths: bool = False) -> list[dict[str, Any]]:
        """The circuit breakers that have been asked, for people."""
        assert self._engine is not None
        return breakers_status(
            self.outbound.view.resiliency, self._engine.breakers(), hides_paths=hides_paths
        )

    def _push_limits(self, key: str) -> None:
        target = target_of(self.outbound.view.traffic, key, self._settings.namespace)
        self._limit_gates.push(key, gates_of(target, key))

    def _outbound(self, **changes: object) -> None:
        self.outbound.view = replace(self.outbound.view, **changes)

    def _know(self, key: str, is_known: bool) -> None:
        known = self.outbound.view.known
        if is_known and key not in known:
            self._push_limits(key)
        elif not is_known:
            self._limit_gates.push(key, {})
        self._outbound(known=known | {key} if is_known else known - {key})

    def for_pages(self, headers: Headers) -> Headers:
        """What an answer to the app has so that a listed origin's page may read it, by the request's fields."""
        return as_headers(self.outbound.view.browsers.edits(origin_of(headers)))

    def tables(self) -> Tables:
        """What was pushed, for who asks a decider without an engine."""
        return self._pushed().tables()

    def _pushed(self) -> PushedTables:
        return PushedTables(self._settings, self.inbound.view, self.outbound.view, self._pipelines)

    def _fetched(self, key: str) -> None:
        """News of what handlers need from other servers."""
        assert self._engine is not None
        self._engine.invalidate(key)
        self._engine.wake(key)

    def secret_headers(self) -> frozenset[bytes]:
        """Headers that pipelines put secrets into."""
        return frozenset().union(*(one.secret_headers for one in self._pipelines.values()))

    def _push_tables(self) -> None:
        assert self._engine is not None
        pushed = self._pushed()
        for number, table in pushed.of_policies():
            self._engine.set_paths(number, table)
        for number, members in pushed.sets().items():
            self._engine.set_members(number, members)

    def _under(self, policy: PolicySnapshot, app: AppView, limits: InboundLimits) -> AppView:
        """The app with what policies have to say of it."""
        hides_paths = policy.configuration.logging.obfuscate_urls
        return replace(app, pipeline=self._pipelines["app"], gates=limits.of_the_app, hides_paths=hides_paths)

    def _pipelines_of(self, policy: PolicySnapshot) -> Mapping[str, Pipeline]:
        return {
            "http": Pipeline("http", HTTP_PIPELINE, policy.pipelines.http, self._remote),
            "app": Pipeline("app", APP_PIPELINE, policy.pipelines.app, self._remote),
        }

    def _asked_by(self, policy: PolicySnapshot) -> Mapping[str, ExternalAuthorizer]:
        """The authorizers that rules and handlers have asked, by the names that Plans have for them."""
        named = {one.name: one for one in policy.access.policies.authorizers}
        return named | {
            name: one for side in self._pipelines.values() for name, one in side.authorizers.items()
        }

    def _push_gates(self, before: Iterable[Pipeline]) -> None:
        """Put up what pipelines name, and take down what they named before."""
        assert self._engine is not None
        gates = {name: spec for one in self._pipelines.values() for name, spec in one.gates.items()}
        for name in {name for one in before for name in one.gates} - gates.keys():
            self._engine.set_gate(name, None)
        for name, spec in gates.items():
            self._engine.set_gate(name, spec)


def _configured(settings: Settings) -> Iterator[AppName]:
    """The names that our own settings speak of."""
    routes = parse_routes(settings.routes).exact.values()
    for text in (*(own.app for own in settings.upstreams), *routes):
        callee = parse_callee(text, settings.namespace)
        if callee is not None:
            yield AppName(callee.app_id, callee.namespace)
