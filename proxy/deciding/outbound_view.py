"""What the app's requests are judged by, and what each of them names."""

import random
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.api_lists import ApiLists
from policies.rules.http_endpoints import HttpEndpoint
from policies.rules.resiliency import ResiliencyRules, TargetRules
from policies.rules.traffic import TrafficRules
from proxy import errors
from proxy.contract.head import Form
from proxy.contract.plan import Cause, Edits, Labels, Reply, Surface
from proxy.contract.recording import RecordingHead
from proxy.deciding.app_plan import AppView
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.baggage import BaggageRules
from proxy.deciding.browsers import Browsers
from proxy.deciding.callee import BAGGAGE_SET, HTTP_PIPELINE, Callee, ServiceRoutes
from proxy.deciding.egress import Egress
from proxy.deciding.faults import FaultJudge
from proxy.deciding.heard import Heard, NothingHeard
from proxy.deciding.hedging import measured
from proxy.deciding.pipeline import Pipeline, path_edit
from proxy.deciding.sampling import SamplingRules


class OutboundView(Struct, frozen=True, kw_only=True):
    """What the app's requests are judged by: a snapshot, replaced whole.

    known: cluster keys that have endpoints. http_endpoints: by name. egress: which URLs the app may call.
    own_ports: listener name to callee text. sockets: listeners that no browser reaches.
    forwarded: X-Forwarded-* of this host. echoes_baggage: sound baggage is echoed, as daprd does. sampling: of new traces.
    tells_trace: answers over HTTP carry traceparent. takes_otlp: what the app exports to the API ports is ours where no app is named.
    hedge_delays: in seconds, of calls that are hedged by how long they took lately, by `app.namespace`.
    pipeline: what HTTP requests pass. learning_for_s: how long an unknown service may wait to be learnt; 0 once the learning has settled.
    """

    app: AppView
    trust_domain: str
    mtls: bool
    authorizer: Authorizer
    resiliency: ResiliencyRules
    known: frozenset[str]
    own_ports: Mapping[str, str]
    sockets: frozenset[str]
    routes: ServiceRoutes
    token_required: bool
    browsers: Browsers
    echoes_baggage: bool
    tells_trace: bool
    takes_otlp: bool
    forwarded: Edits
    hold_s: float
    learning_for_s: float
    random: Callable[[], random.Random]
    heard: Heard = NothingHeard()
    traffic: TrafficRules = TrafficRules()
    faults: FaultJudge = FaultJudge()
    http_endpoints: Mapping[str, HttpEndpoint] = {}
    egress: Egress = Egress()
    apis: ApiLists = ApiLists()
    baggage: BaggageRules = BaggageRules()
    sampling: SamplingRules = SamplingRules()
    hedge_delays: Mapping[str, float] = {}
    pipeline: Pipeline = Pipeline("http", HTTP_PIPELINE)

    def rules(self, text: str, app_id: str, namespace: str) -> TargetRules:
        """What holds for calls to an app that is called by this text."""
        found = self.resiliency.for_app(text, self.app.app_id)
        retries = self.traffic.for_app(app_id, namespace).retries
        return replace(found, retries=measured(retries, self.hedge_delays.get(f"{app_id}.{namespace}")))

    def expected(self, callee: Callee) -> frozenset[str]:
        """The SPIFFE ids that may answer for a callee; empty without mutual TLS."""
        if not self.mtls:
            return frozenset()
        domains = (
            self.trust_domain,
            *self.authorizer.trust_domains_of(callee.app_id, callee.namespace),
        )
        return frozenset(f"spiffe://{domain}/ns/{callee.namespace}/{callee.app_id}" for domain in domains)

    @property
    def tracing_sets(self) -> Mapping[int, frozenset[bytes]]:
        """The pushed sets that baggage and sampling are asked for."""
        return {BAGGAGE_SET: self.baggage.allowed or frozenset(), **dict(self.sampling.sets())}

    def is_abroad(self, callee: Callee) -> bool:
        """Whether a callee may be in another trust domain."""
        domains = self.authorizer.trust_domains_of(callee.app_id, callee.namespace) if self.mtls else ()
        return any(domain != self.trust_domain for domain in domains)

    @property
    def own_id(self) -> str:
        """The SPIFFE id that our certificate proves."""
        return f"spiffe://{self.trust_domain}/ns/{self.app.namespace}/{self.app.app_id}"

    def labels(self, surface: Surface) -> Labels:
        """Of what becomes of a request of the app, before it is known whom it calls."""
        app = self.app
        return Labels(direction="outbound", surface=surface, src=app.app_id, src_namespace=app.namespace)

    def reply(
        self,
        cause: Cause,
        text: str,
        *,
        surface: Surface = "own",
        callee: str = "",
        status: int | None = None,
    ) -> Reply:
        """An answer made here, in the words of a surface. status: where it is not the cause's own."""
        return errors.reply(cause, self.labels(surface), text, surface=surface, callee=callee, status=status)


NamedBy = Literal["own-port", "proxy", "authority", "header", "basic", "path", "service"]
"""What of a request named the callee."""


class Named(Struct, frozen=True):
    """Which callee, by what, by which surface, which path it gets, and what else is rewritten. callee None: `text` names no app."""

    callee: Callee | None
    text: str
    by: NamedBy
    surface: Surface
    form: Form = "sent"
    rewrite: Edits = ()

    def edits(self, head: RecordingHead) -> Edits:
        """All that is rewritten."""
        return (*path_edit(head, self.form), *self.rewrite)
