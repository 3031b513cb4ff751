"""Turns the app's request into a Plan to the callee's proxy (or to the app itself, or our API), a Reply, or a Hold. Pure."""

from msgspec.structs import replace

from policies.rules.access import Protocol
from policies.rules.caller import Caller
from policies.rules.http_endpoints import UrlError, is_url, parse_url
from proxy import errors
from proxy.contract.plan import (
    DETAIL,
    NEVER,
    Cause,
    Decision,
    Edit,
    Edits,
    Hold,
    Labels,
    Op,
    Plan,
    Reply,
    Route,
    Surface,
)
from proxy.contract.recording import RecordingHead
from proxy.deciding import api_token
from proxy.deciding.api_token import surface_of
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.app_plan import (
    STRIP,
    denied,
    is_grpc_web,
    naming_caller,
    to_app,
    to_be_asked,
    without_verb,
)
from proxy.deciding.browsers import as_headers
from proxy.deciding.building_blocks import missing_method
from proxy.deciding.callee import (
    API_VERBS,
    DAPR_METHODS,
    DAPR_RUNTIME,
    HEALTH_SERVICE,
    OTLP_PATHS,
    OUT_PATHS,
    SERVICES,
    STANDARD_SERVICES,
    Callee,
    local_name,
)
from proxy.deciding.closed_apis import HEALTH, closed_method, closed_route, is_method_closed, is_route_closed
from proxy.deciding.daprd import by_translator, to_daprd
from proxy.deciding.error_info import with_error_code
from proxy.deciding.external import External, endpoint_of, of_endpoint, of_url, to_external, verbless
from proxy.deciding.inner_calls import as_inner
from proxy.deciding.limits import limited, target_of
from proxy.deciding.max_forwards import forwarded_once, read_max_forwards
from proxy.deciding.naming import name_callee
from proxy.deciding.outbound_view import Named, NamedBy, OutboundView
from proxy.deciding.pipeline import Passed
from proxy.deciding.retry_policies import (
    attempt_timeout,
    breaker_use,
    budget_use,
    hedge,
    overall_limit,
    retry_policies,
)
from telemetry.otlp.target import SERVICES as OTLP_SERVICES

LOCAL_API = "local-api"
OWN_API = "this proxy's own API"  # for people: what LOCAL_API and DAPR_API lead to
DAPR_API = "dapr-api"  # the server of Dapr's gRPC API, started by the first call of it
DAPR_API_HOLD_S = 10.0  # for that start, on a busy machine
OTLP = "otlp"  # what takes what the app exports
INVOKER = "invoker"  # the private listener that InvokeService calls apps by: its callers were judged as they came in
EXTERNAL_HOLD_S = 6.0  # for a host's addresses, whose lookup ends within 5 s
ABSENT_HOLD_S = 0.5  # for other hosts to tell of a name that has no instance here
_OTLP_EDITS: Edits = (Edit(op=Op.REMOVE, name=b"dapr-api-token"), Edit(op=Op.DEADLINE))
# What an app's OnInvoke said beyond HTTP, which is for InvokeService alone.
_FOR_INVOKER = Edit(op=Op.REMOVE_PREFIX, name=b"postern-grpc-")
SPELLINGS = "spellings"  # the scope of what was decided for a name in lower case that is spelt otherwise


class Outbound:
    """Decides for the API ports and own ports. Mutable state: `view`, the snapshot in force."""

    def __init__(self, view: OutboundView) -> None:
        self.view = view

    def decide(self, head: RecordingHead) -> Decision:
        """The decision, with the scopes that it dies with."""
        found = self._readable(head, self._answered(head, self._decide(head)))
        if head.listener() == INVOKER:
            found = as_inner(found)
        found = self.view.sampling.apply(head, found)
        if isinstance(found, Hold):
            return found
        scopes = (*found.scopes, "access", "app", "resiliency", "routes")
        return replace(found, scopes=scopes)

    def decide_envelope(self, head: RecordingHead) -> Decision:
        """The decision on what the translator has made of a call for a daprd."""
        view = self.view
        return to_daprd(head, view.app, view.known, view.expected, self._hash_header)

    def _decide(self, head: RecordingHead) -> Decision:
        own_port = self.view.own_ports.get(head.listener())
        is_judged = head.listener() == INVOKER
        if head.protocol() != "grpc" and head.method() == "CONNECT":
            text = "CONNECT is not supported, as this is not an open proxy: put the host into no_proxy to reach it directly"
            return self.view.reply(Cause.NO_APP, text, status=404)
        refused = self._page(head)
        if refused is not None:
            return refused
        answered = None if is_judged or own_port is not None else self._api(head) or self._otlp(head)
        if answered is not None:
            return answered
        refused = None if is_judged else self._token(head, surface_of(self.view, head)) or self._closed(head)
        if refused is not None:
            return refused
        passed = self._through(head)
        if not isinstance(passed, Passed):
            return passed
        named = name_callee(self.view, passed.head)
        if not isinstance(named, Named):
            return named
        left = read_max_forwards(head)
        if left == 0:
            return self._final(head, named)
        found = passed.onto(self._to(passed.head, named))
        return found if left is None else forwarded_once(found, left)

    def _final(self, head: RecordingHead, named: Named) -> Reply:
        """A request that is not to be forwarded. TRACE is not echoed: it would show the app what only proxies are to read."""
        if head.method() == "TRACE":
            text = "TRACE with Max-Forwards: 0 is for this proxy, which echoes no requests"
            return self.view.reply(Cause.UNSUPPORTED, text, surface=named.surface, status=501)
        return Reply(
            cause=Cause.STATUS,  # none: no call came of it
            status=200,
            headers=(),
            body=b"",
            grpc_code=0,
            grpc_message="",
            labels=self.view.labels(named.surface),
        )

    # --- guards ----------------------------------------------------------------------------------------------------------

    def _page(self, head: RecordingHead) -> Reply | None:
        """A page in a browser is not the app: its Host, its Origin, and its question for leave."""
        browsers = self.view.browsers
        if head.listener() in self.view.sockets:
            return None
        # As to an HTTP proxy, where the authority is the callee's, only who is told to use one sends.
        why = None if head.form() == "absolute" else browsers.host_refused(head.authority())
        if why is None and browsers.is_preflight(head):
            return Reply(
                cause=Cause.STATUS,  # none: no call came of it
                status=200,
                headers=browsers.leave(head),
                body=b"",
                grpc_code=0,
                grpc_message="",
                labels=self.view.labels("own"),
            )
        if why is None:
            why = browsers.refused(head)
            why = None if why is not None and self._is_login(head) else why
        return None if why is None else self.view.reply(Cause.FORBIDDEN_ORIGIN, why)

    def _is_login(self, head: RecordingHead) -> bool:
        """Whether a browser goes to a page here that needs a login, as it does on its way back from the provider: another site."""
        if not self.view.pipeline.has_logins or head.method() != "GET" or head.naming(b"origin") is not None:
            return False
        if (b"sec-fetch-mode", b"navigate") not in head.whole().headers:
            return False
        found = self._through(head)
        return not isinstance(found, Passed) or found.is_login

    def _answered(self, head: RecordingHead, found: Decision) -> Decision:
        """The same with what every answer of a callee's is given."""
        if not isinstance(found, Plan) or not found.labels.dst:
            return found
        tells = self.view.tells_trace and head.protocol() not in ("grpc", "websocket")
        edits: Edits = (Edit(op=Op.TELL_TRACE),) if tells else ()
        if self.view.echoes_baggage:
            edits = (*edits, Edit(op=Op.ECHO, name=b"baggage"))
        if head.listener() != INVOKER and head.protocol() != "grpc":
            edits = (*edits, _FOR_INVOKER)
        return replace(found, reply_edits=(*found.reply_edits, *edits))

    def _readable(self, head: RecordingHead, found: Decision) -> Decision:
        """The same with what a listed origin's page needs to read the answer (CORS)."""
        browsers = self.view.browsers
        if not browsers.origins or head.listener() in self.view.sockets:
            return found
        edits = browsers.edits(head.naming(b"origin"))
        headers = as_headers(edits)
        if isinstance(found, Hold):
            return replace(found, then=replace(found.then, headers=(*found.then.headers, *headers)))
        local_replies = found.local_replies
        if isinstance(local_replies, CauseReplies):
            local_replies = local_replies.adding(headers)
        if isinstance(found, Reply):
            known = {name for name, _ in found.headers}
            added = (header for header in headers if header[0] not in known)
            return replace(found, headers=(*found.headers, *added), local_replies=local_replies)
        before = found.reply_edits or (Edit(op=Op.HOP_BY_HOP),)
        return replace(found, reply_edits=(*before, *edits), local_replies=local_replies)

    def _token(self, head: RecordingHead, surface: Surface) -> Reply | None:
        return api_token.refused(self.view, head, surface)

    def _closed(self, head: RecordingHead) -> Reply | None:
        is_closed = head.protocol() != "grpc" and is_route_closed(self.view.apis, "invoke")
        return closed_route(self.view.labels("dapr"), "invoke") if is_closed else None

    def _through(self, head: RecordingHead) -> Passed | Decision:
        """What HTTP requests pass; those of InvokeService came as gRPC."""
        if head.protocol() == "grpc" or head.listener() == INVOKER:
            return Passed(head)
        return self.view.pipeline.take(head, "sent", self.view.labels("dapr"))

    # --- our own API -----------------------------------------------------------------------------------------------------

    def _api(self, head: RecordingHead) -> Decision | None:
        if head.protocol() == "grpc":
            return self._dapr_api(head)
        if head.form() != "origin":
            return None
        path_class = head.path_class(OUT_PATHS)
        assert isinstance(path_class, tuple)
        if (
            path_class[0] != "api"
            or head.method() != API_VERBS[path_class[1]]
            or local_name(head.authority())
            or is_route_closed(self.view.apis, path_class[1])
        ):
            return None
        if path_class[1] in HEALTH:  # whoever asks has neither token nor login
            return self._to_api(LOCAL_API, (), body_bytes=1_048_576, sampling=NEVER)
        found = self._to_api(LOCAL_API, (), body_bytes=1_048_576)
        refused = self._token(head, "dapr")
        if refused is not None:
            return refused
        passed = self._through(head)
        return passed.onto(found) if isinstance(passed, Passed) else passed

    def _otlp(self, head: RecordingHead) -> Decision | None:
        """What the app exports by OpenTelemetry's protocol, where nothing names an app for it: an app may serve it, too."""
        view = self.view
        if not view.takes_otlp:
            return None
        if head.protocol() == "grpc":
            service = str(head.path_class(SERVICES))
            if service not in OTLP_SERVICES or self._names_app(head):
                return None
            if view.routes.find(service) is not None or view.routes.claimants(service):
                return None
            return self._token(head, "own") or self._to_api(
                OTLP, _OTLP_EDITS, body_bytes=None, sampling=NEVER
            )
        if head.form() != "origin" or head.path_class(OUT_PATHS) != ("app",) or self._names_app(head):
            return None
        if head.method() != "POST" or head.path_class(OTLP_PATHS) == "":
            return None
        passed = self._token(head, "own") or self._through(head)
        return (
            passed.onto(self._to_api(OTLP, _OTLP_EDITS, body_bytes=None, sampling=NEVER))
            if isinstance(passed, Passed)
            else passed
        )

    def _names_app(self, head: RecordingHead) -> bool:
        """Whether a header or the authority names an app."""
        return (
            head.naming(b"dapr-app-id") is not None
            or local_name(head.authority()) is not None
            or (head.protocol() != "grpc" and head.naming(b"authorization") is not None)
        )

    def _dapr_api(self, head: RecordingHead) -> Decision | None:
        """Dapr's gRPC API: what it serves can't be carried to an app by dapr-app-id, as with daprd. Health and reflection can."""
        service = str(head.path_class(SERVICES))
        if local_name(head.authority()):
            return None
        if service in STANDARD_SERVICES and head.naming(b"dapr-app-id") is None:
            refused = None if service == HEALTH_SERVICE else self._token(head, "dapr")
            return refused or self._to_dapr_api(sampling=NEVER if service == HEALTH_SERVICE else 0)
        if not service.startswith(DAPR_RUNTIME):
            return None
        method = head.path_class(DAPR_METHODS)
        assert isinstance(method, tuple)
        if is_method_closed(self.view.apis, method):
            return closed_method(self.view.labels("dapr"))
        if method[0] == "unknown":
            return None
        refused = self._token(head, "dapr")
        if refused is not None:
            return refused
        if method[0] == "block":
            text, code = missing_method(method[1])
            return with_error_code(self.view.reply(Cause.UNSUPPORTED, text, surface="dapr"), code)
        # The call that InvokeService makes has the span.
        return self._to_dapr_api(sampling=NEVER if method[1] == "invoke" else 0)

    def _to_dapr_api(self, sampling: int = 0) -> Decision:
        """To the server of Dapr's gRPC API, once it has started."""
        if DAPR_API not in self.view.known:
            text = "Dapr's gRPC API did not start in time, see the log of this proxy"
            return Hold(
                key=DAPR_API,
                for_s=DAPR_API_HOLD_S,
                then=self.view.reply(Cause.NOT_READY, text, surface="dapr"),
            )
        # The message limits are the server's: it answers in gRPC's own words.
        edits = (Edit(op=Op.REMOVE, name=b"dapr-api-token"), Edit(op=Op.DEADLINE))
        return self._to_api(DAPR_API, edits, body_bytes=None, sampling=sampling)

    def _to_api(self, cluster: str, edits: Edits, *, body_bytes: int | None, sampling: int = 0) -> Plan:
        labels = replace(self.view.labels("dapr"), sampling=sampling)
        return Plan(
            labels=labels,
            routes=(Route(cluster=cluster, edits=(Edit(op=Op.HOP_BY_HOP), *edits)),),
            body_bytes=body_bytes,
            local_replies=CauseReplies(labels, "dapr", OWN_API, "", end="peer"),
            scopes=(f"name:{cluster}",),
        )

    # --- naming ----------------------------------------------------------------------------------------------------------

    def named_by(self, head: RecordingHead) -> NamedBy | None:
        """What of a request names its callee; None where nothing does."""
        passed = self._through(head)
        named = name_callee(self.view, passed.head) if isinstance(passed, Passed) else None
        return named.by if isinstance(named, Named) else None

    # --- the Plan --------------------------------------------------------------------------------------------------------

    def _to(self, head: RecordingHead, named: Named) -> Decision:
        callee, surface = named.callee, named.surface
        if head.protocol() != "grpc":
            found = self._outside(head, named)
            if found is not None:
                return found
        if callee is None:
            text = f"invalid app-id {named.text!r}: use letters, digits, '-' or '_', and at most one '.namespace'"
            return self.view.reply(Cause.NO_APP, text, surface=surface, callee=named.text[:80])
        meant = self.view.heard.spellings(callee)
        if not meant:
            return self._to_callee(head, named, callee)
        if len(meant) > 1:
            text = f"{callee.text!r} may mean {' or '.join(repr(one.text) for one in meant)}: write the app-id as it is spelt"
            found = self.view.reply(Cause.NO_APP, text, surface=surface, callee=callee.text)
        else:
            found = self._to_callee(head, replace(named, callee=meant[0], text=meant[0].text), meant[0])
        return found if isinstance(found, Hold) else replace(found, scopes=(*found.scopes, SPELLINGS))

    def _outside(self, head: RecordingHead, named: Named) -> Decision | None:
        """Of a call to a URL or an HTTPEndpoint: it leaves the mesh."""
        view = self.view
        if is_url(named.text):
            try:
                external = of_url(parse_url(named.text), named.text)
            except UrlError as error:
                text = f"{named.text!r} can't be called: {error}"
                return self.view.reply(Cause.BAD_REQUEST, text, surface=named.surface, callee=named.text)
            refused = view.egress.refused(external.url, view.http_endpoints.values())
            if refused is not None:
                labels = self.view.labels(named.surface)
                return errors.reply(Cause.DENIED, labels, refused, surface=named.surface, callee=named.text)
        elif named.callee is not None and named.callee.app_id in view.http_endpoints:
            external = of_endpoint(view.http_endpoints[named.callee.app_id], named.callee.text)
        else:
            return None
        form = "whole" if named.form == "sent" else named.form
        return self._leave(head, replace(named, form=form), external)

    def _leave(self, head: RecordingHead, named: Named, external: External) -> Decision:
        view, surface = self.view, named.surface
        labels = replace(self.view.labels(surface), dst=external.label, strip=named.form == "method")
        refused = verbless(head, external, surface)
        if refused is not None:
            return errors.reply(Cause.UNSUPPORTED, labels, refused, surface=surface, callee=external.text)
        taken = view.baggage.take(head, labels, crosses_boundary=True)
        if isinstance(taken, Reply):
            return taken
        labels, of_baggage = taken
        named = replace(named, rewrite=(*named.rewrite, *of_baggage))
        if external.key not in view.known:
            text = f"no address of {external.who} is known: {DETAIL}"
            then = errors.reply(Cause.NO_ENDPOINT, labels, text, surface=surface, callee=external.text)
            return Hold(key=external.key, for_s=EXTERNAL_HOLD_S, then=then)
        endpoint = endpoint_of(external.key)
        traffic = view.traffic
        of_target = traffic.default if endpoint is None else traffic.for_app(endpoint, view.app.namespace)
        rules = replace(view.resiliency.for_app(external.text, view.app.app_id), retries=of_target.retries)

        def outward(rewrite: Edits) -> Plan:
            ours = (head, external, view.app, rules, view.random)
            plan = to_external(*ours, labels=labels, surface=surface, rewrite=rewrite, form=named.form)
            target = target_of(view.traffic, external.key, view.app.namespace)
            faults = view.faults.meeting(head, target.faults, external.key, None, named.form)
            return replace(plan, routes=tuple(limited(route, target, faults) for route in plan.routes))

        return view.app.pipeline.carry(head, named.form, labels, named.edits(head), outward)

    def _to_callee(self, head: RecordingHead, named: Named, callee: Callee) -> Decision:
        surface = named.surface
        labels = replace(
            self.view.labels(surface),
            dst=callee.app_id,
            dst_namespace=callee.namespace,
            strip=named.form == "method",
        )
        taken = self.view.baggage.take(head, labels, crosses_boundary=self.view.is_abroad(callee))
        if isinstance(taken, Reply):
            return taken
        labels, of_baggage = taken
        named = replace(named, rewrite=(*named.rewrite, *of_baggage))
        if head.protocol() == "grpc" and head.path_class(SERVICES) == "":
            text = "a gRPC path is exactly /package.Service/Method"
            return errors.reply(Cause.UNSUPPORTED, labels, text, surface=surface, callee=callee.text)
        if (callee.app_id, callee.namespace) == (self.view.app.app_id, self.view.app.namespace):
            return self._to_self(head, named, labels)
        if callee.key not in self.view.known:
            return self._hold(head, callee, labels, surface)
        return self._to_peer(head, named, callee, labels)

    def _to_self(self, head: RecordingHead, named: Named, labels: Labels) -> Decision:
        app = self.view.app
        if (verbless := without_verb(head, app, labels, named.surface)) is not None:
            return verbless
        grpc = head.protocol() == "grpc"
        rules = self.view.rules(named.text, app.app_id, app.namespace)  # the built-in retry is not among them
        if not grpc:
            labels = replace(labels, policies=rules.labels(named.text))
        caller = Caller(trust_domain=self.view.trust_domain, namespace=app.namespace, app_id=app.app_id)
        is_web = is_grpc_web(head, app)
        is_rpc = head.protocol() == "grpc" or is_web
        protocol: Protocol = "grpc" if app.is_grpc else "http"
        authorizer = self.view.authorizer
        users = authorizer.users(head, replace(labels, is_grpc_web=is_web), named.surface)
        if isinstance(users, Hold | Reply):
            return users
        decision = authorizer.decide(head, caller, protocol, is_grpc=is_rpc, form=named.form, users=users)
        labels = replace(labels, decision=authorizer.describe(decision), is_grpc_web=is_web)
        if not decision.allowed:
            return denied(
                *(head, app),
                labels=labels,
                surface=named.surface,
                peer=self.view.own_id,
                posture=authorizer.posture,
            )
        found: Decision = to_app(
            *(head, app),
            caller=caller,
            labels=labels,
            surface=named.surface,
            rewrite=(*named.edits(head), *users.told),
            form=named.form,
            is_told=named.surface == "own",  # daprds tell an app of peers alone
        )
        found = to_be_asked(found, decision.authorizers)
        if not isinstance(found, Plan) or grpc:
            return found
        retries = (*retry_policies(head, rules, self.view.random), *found.retries)
        breaker = breaker_use(head, rules, named.text, named.form)
        budget = budget_use(head, rules, f"self:{app.app_id}")
        times = {"attempt_s": attempt_timeout(head, rules), "total_s": overall_limit(head, rules)}
        return replace(found, retries=retries, breaker=breaker, budget=budget, **times)

    def _hold(self, head: RecordingHead, callee: Callee, labels: Labels, surface: Surface) -> Hold:
        why = self.view.heard.absent(callee)
        if why is not None:
            text = f"no instance of {callee.name} takes calls: {'; '.join(filter(None, (why, DETAIL)))}"
            then = errors.reply(Cause.NO_ENDPOINT, labels, text, surface=surface, callee=callee.text)
            return Hold(key=callee.key, for_s=ABSENT_HOLD_S, then=then)
        text = f"couldn't find service: {callee.text}: no endpoint of {callee.name} was found: {DETAIL}"
        if head.form() == "absolute":
            text += "; this is not an open proxy: put the host into no_proxy to reach it directly"
        then = errors.reply(Cause.NO_APP, labels, text, surface=surface, callee=callee.text)
        return Hold(key=callee.key, for_s=self.view.hold_s, then=then)

    def _hash_header(self, callee: Callee) -> str:
        return target_of(self.view.traffic, callee.key, self.view.app.namespace).balancing.header

    def _to_peer(self, head: RecordingHead, named: Named, callee: Callee, labels: Labels) -> Plan:
        view, app = self.view, self.view.app
        grpc = head.protocol() == "grpc"
        rules = view.rules(callee.text, callee.app_id, callee.namespace)
        expected = view.expected(callee)
        labels = replace(labels, policies=rules.labels(callee.text), peer_id=" or ".join(sorted(expected)))
        edits = [Edit(op=Op.HOP_BY_HOP), *STRIP, *named.edits(head), Edit(op=Op.TRACE), Edit(op=Op.DEADLINE)]
        edits.append(Edit(op=Op.AUTHORITY, data=callee.name.encode()))
        edits.append(Edit(op=Op.SET, name=b"postern-callee", data=callee.name.encode()))
        if named.surface == "dapr":
            edits.append(Edit(op=Op.SET, name=b"postern-surface", data=b"dapr"))
        if grpc:  # what a daprd routes by, an older one by the first; a postern peer goes by the certificate and postern-callee
            edits.append(Edit(op=Op.SET, name=b"dapr-app-id", data=callee.app_id.encode()))
            edits.append(Edit(op=Op.SET, name=b"dapr-callee-app-id", data=callee.app_id.encode()))
            edits.append(Edit(op=Op.SET, name=b"dapr-caller-app-id", data=app.app_id.encode()))
        elif named.surface == "dapr":
            edits.extend(view.forwarded)
        # No certificate will say it; the translator says it to daprds by itself.
        claim = () if grpc or view.mtls else naming_caller(app.app_id, app.namespace)
        target = target_of(view.traffic, callee.key, app.namespace)
        faults = view.faults.meeting(head, target.faults, callee.key, None, named.form)
        routes = [limited(Route(cluster=callee.key, expect=expected, edits=(*edits, *claim)), target, faults)]
        if head.protocol() in ("http1", "http2"):
            routes.append(by_translator(tuple(edits), named.surface, target.balancing.header))
        return Plan(
            labels=labels,
            routes=tuple(routes),
            by_daprd=1 if len(routes) > 1 else None,
            retries=retry_policies(head, rules, view.random),
            breaker=breaker_use(head, rules, callee.text, named.form),
            budget=budget_use(head, rules, callee.key),
            hedge=hedge(head, rules),
            denials_fail=rules.denials_fail,
            attempt_s=attempt_timeout(head, rules),
            total_s=overall_limit(head, rules),
            body_bytes=app.body_bytes,
            connect_s=app.connect_s,
            replay_bytes=app.replay_bytes,
            reply_edits=(Edit(op=Op.HOP_BY_HOP),),
            local_replies=CauseReplies(labels, named.surface, callee.name, callee.text, end="peer"),
            scopes=(f"name:{callee.key}",),
        )
