"""The engine's Observer: passes outcomes to telemetry, and connection errors to the log and counters."""

import time
from collections.abc import Callable, Mapping

from proxy.contract.balancing import EndpointTurn
from proxy.contract.breakers import BreakerTurn
from proxy.contract.engine import Measures, PeerRefusal
from proxy.contract.fields import baggage_values
from proxy.contract.outcome import Outcome, Phases, Tally
from proxy.contract.plan import NEVER, Cause, Labels
from proxy.contract.watching import AnswerBegun, CallBegun
from proxy.control.breakers import BreakerNews
from proxy.control.call_lines import CallLines
from proxy.control.call_spans import CallSpans
from proxy.control.ejections import Ejections
from proxy.control.hop_tracing import ContextSpan
from proxy.control.notes import note_of
from proxy.control.tapping import Taps
from proxy.deciding.app_plan import APP_CLUSTER
from proxy.wire.target import as_forwarded, clean, readable
from telemetry.access_log import ApiLog
from telemetry.calls import CallRecorder
from telemetry.context import SpanContext
from telemetry.kinds import BREAKER, edge_name
from telemetry.logs import Logger, call_fields
from telemetry.metrics import Meters
from telemetry.report import Batch, Buckets, Call
from telemetry.split import MAX_ATTEMPTS

# Of what names no callee: it was to our own API, and went well.
_NO_CALL = frozenset({None, Cause.STATUS})
# Answers that are not failures, callers that hung up, and what has a log line of its own.
_NO_FAILURE = frozenset({Cause.STATUS, Cause.CALLER_LEFT, Cause.DENIED})
_TELL_S = 60.0  # a refused peer is told of once in this time, for each reason
_MAX_TOLD = 1_024
_LONG_NS = 100_000_000  # a call that takes as long may be kept as slow
_UNTRACED = SpanContext(0, 0, 0, sampled=False)


class Reporter:
    """Takes outcomes on the engine's thread and hands them on. Mutable state: `api_log`, and the open-connection count by listener.

    lines: the access log; writes_lines: its lines are written here, as the engine does not. hides_paths: in spans, metrics and log
    lines, which a new configuration may turn.
    """

    def __init__(
        self,
        recorder: CallRecorder,
        meters: Meters,
        log: Logger,
        app_not_reached: Callable[[], None] = lambda: None,
        *,
        api_log: ApiLog | None = None,
        taps: Taps | None = None,
        lines: CallLines | None = None,
        writes_lines: bool = True,
        hides_paths: bool = False,
        denied_as: Callable[[Outcome], str] = lambda _: "",
        breakers: BreakerNews | None = None,
        ejections: Ejections | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._denied_as = denied_as
        self._breakers = breakers
        self._ejections = ejections
        self.api_log = api_log
        self._taps = taps
        self.lines = lines
        self.spans = CallSpans(recorder, lambda: self.hides_paths, meters)
        self._writes_lines = writes_lines
        self.hides_paths = hides_paths
        self.recorder = recorder
        self._app_not_reached = app_not_reached
        self._meters = meters
        self._log = log
        self._connections: dict[str, int] = {}
        self._refusals = _Sparingly(clock)

    def finished(self, outcome: Outcome) -> None:
        """One call ended."""
        self._warn(outcome)
        self._tell_audited(outcome.labels, 1, lambda: _trace_of(outcome))
        if self.api_log is not None and not outcome.labels.is_inner:
            self.api_log(_call(outcome), outcome.head.path, _user_agent(outcome), _trace_of(outcome))
        taps = self._taps
        if taps is not None and taps.is_open and (outcome.labels.dst or outcome.cause not in _NO_CALL):
            taps.ended(_call(outcome), outcome)
        if not outcome.labels.dst:  # our own API, or nobody was named: no call crossed the mesh
            told = self._told(outcome)
            self.recorder.count(told)
            if outcome.labels.sampling != NEVER:
                self.recorder.keep(told)
            return
        if outcome.cause is Cause.DENIED:
            labels, path = outcome.labels, _path(outcome.head.path, outcome.labels)
            shown = self._told(outcome).path
            reading = self._denied_as(outcome)  # what an app may take the path for, which a rule denies
            is_shown = shown != path or reading == path or reading == outcome.head.path == clean(reading)
            self._log.warning(
                "access denied",
                caller=labels.peer_id or "anonymous",
                decision=labels.decision,
                verb=outcome.head.method,
                path=shown,
                **({"read_as": reading} if reading and not is_shown else {}),
                **_trace_of(outcome),
            )
        if outcome.labels.baggage:
            self._meters.baggage_dropped.add(outcome.labels.baggage)
        call = self._told(outcome)
        self.recorder.record(call)
        if self.lines is not None and self._writes_lines:
            self.lines.write(call, outcome)

    def begun(self, call: CallBegun) -> None:
        """A call began, and somebody looks."""
        if self._taps is not None and call.labels.dst:
            self._taps.begun(_begun(call), call)

    def answered(self, answer: AnswerBegun) -> None:
        """Its answer has begun."""
        if self._taps is not None:
            self._taps.answered(answer)

    def _told(self, outcome: Outcome) -> Call:
        call, form = _call(outcome), self.recorder.form
        if form.captures_query and not self.hides_paths:
            call.query = outcome.head.query.decode("latin-1")
        if form.baggage:
            call.baggage = baggage_values(outcome.head.headers, form.baggage)
        return self._hidden(call)

    def _hidden(self, call: Call) -> Call:
        """The call without its path, where paths are hidden; methods of gRPC are names, and a probe stays one."""
        if self.hides_paths and call.protocol != "grpc":
            call.path = "/healthz" if "/healthz" in call.path else ""
        return call

    def _warn(self, outcome: Outcome) -> None:
        """The caller's log has a line for each call of its app that a proxy ended, as many as fit (the log bounds them)."""
        labels, last = outcome.labels, outcome.attempts[-1] if outcome.attempts else None
        cause = outcome.cause or (last.said if last is not None else None)
        is_callers = labels.direction == "outbound" or not labels.dst
        if not is_callers or cause is None or outcome.cause in _NO_FAILURE:
            return
        facts: dict[str, object] = {"status": outcome.status}
        if outcome.grpc_code is not None:
            facts = {"grpc_code": outcome.grpc_code}
        if last is not None and last.detail:
            facts["reason"] = last.detail
        self._log.warning(
            "call failed",
            callee=edge_name(labels.dst, labels.dst_namespace) or "-",
            cause=cause.value,
            by="this proxy" if outcome.cause is not None else "the callee's proxy",
            attempts=len(outcome.attempts),
            endpoint=last.endpoint if last is not None else "",
            verb=outcome.head.method,
            path=self._told(outcome).path,
            **facts,
            **_trace_of(outcome),
        )

    def _tell_audited(
        self, labels: Labels, calls: int, trace: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`trace`: of the one call."""
        if "would_deny=" in labels.decision:
            caller = labels.peer_id or "anonymous"
            told = {"caller": caller, "decision": labels.decision, "calls": calls, **trace()}
            self._log.warning("access would be denied", **told)

    @property
    def measures(self) -> Measures | None:
        """The bounds of the metrics' buckets; None where each call is logged or shown."""
        is_tapped = self._taps is not None and self._taps.is_open
        bounds = self.recorder.bounds if self.api_log is None and not is_tapped else None
        return (
            None
            if bounds is None
            else Measures(
                duration_s=bounds[0],
                latency_ms=bounds[1],
                size_bytes=bounds[2],
                http_paths=self.recorder.http_paths,
                slow_ns=self.recorder.slow_ns,
            )
        )

    def counted(self, tally: Tally) -> None:
        """Calls with equal labels ended."""
        like, batch = _batch(tally)
        self._tell_audited(tally.labels, tally.calls)
        self.recorder.record_batch(self._hidden(like), batch)
        if tally.labels.baggage:
            self._meters.baggage_dropped.add(tally.labels.baggage, amount=tally.calls)

    def traced(self, outcome: Outcome) -> None:
        """A call ended that is in a tally, and is sampled or worth keeping."""
        if outcome.labels.dst or outcome.labels.sampling != NEVER:
            self.recorder.trace(self._told(outcome))

    def recalled(self, outcome: Outcome) -> None:
        """A sampled call that is in a tally, whose span is to be in memory alone."""
        self.recorder.recall(self._told(outcome))

    def lost(self, reports: int, spans: int, news: int = 0) -> None:
        """Reports found no room."""
        if news and self._taps is not None:
            self._taps.lost(news)
        self._meters.reports_lost.add("call", amount=reports)
        self._meters.reports_lost.add("span", amount=spans)

    def connection(self, listener: str, change: int) -> None:
        """A connection opened or closed."""
        count = self._connections.get(listener, 0) + change
        self._connections[listener] = count
        self._meters.connections.set(count, listener, "in")

    def refused_frames(self, kind: str, who: str = "") -> None:
        """A flood limit or a rule was broken."""
        self._meters.h2_frame_refused(kind)
        if who:
            self._log.warning("frames refused", kind=kind, peer=who)

    def refused_peer(self, listener: str, reason: PeerRefusal, detail: str, address: str) -> None:
        """A peer was refused."""
        self._meters.handshakes_refused.add(reason)
        suppressed = self._refusals.seen((reason, address))
        if suppressed is not None:
            more = {"suppressed": suppressed} if suppressed else {}
            self._log.warning(
                "peer refused", listener=listener, peer=address, reason=reason, detail=detail, **more
            )

    def plan_cache(self, hit: bool, count: int = 1) -> None:
        """Whether a kept Plan covered heads."""
        self._meters.plan_cache.add("hit" if hit else "miss", amount=count)

    def upstream_connected(self, cluster: str, connect_s: float, tls_s: float) -> None:
        """A connection was made."""
        direction = "inbound" if cluster == APP_CLUSTER else "outbound"
        self._meters.phases.slot("connect", direction).observe(connect_s)
        if tls_s:
            self._meters.phases.slot("tls", direction).observe(tls_s)

    def breaker_turned(self, turn: BreakerTurn) -> None:
        """A circuit breaker changed its state."""
        if self._breakers is not None:
            self._breakers.turned(turn, self.breaker_label(turn.method), hides_paths=self.hides_paths)

    def breaker_label(self, method: str) -> str:
        """The label of a breaker's method: none where paths are hidden, as a path may look like a method of gRPC."""
        return "" if self.hides_paths else self.recorder.method_label(method)

    def endpoint_turned(self, turn: EndpointTurn) -> None:
        """An endpoint is left out for what it answers, or takes calls again."""
        if self._ejections is not None:
            self._ejections.turned(turn)

    def phased(self, labels: Labels, phases: Phases) -> None:
        """Where the time of a call went."""
        if labels.dst:
            for phase, took_s in phases._asdict().items():
                if took_s is not None:
                    self._meters.phases.slot(phase, labels.direction).observe(took_s)

    def upstream_failed(self, cluster: str, address: str, reason: str) -> None:
        """No connection to an endpoint."""
        if cluster == APP_CLUSTER:
            self._app_not_reached()
        self._log.warning("upstream connect failed", cluster=cluster, endpoint=address, reason=reason)


def _path(sent: str, labels: Labels) -> str:
    """The path that the app found, for people."""
    return readable(as_forwarded(sent, "method") if labels.strip else sent)


class _Sparingly:
    """Which of equal events to log: the first of each in `_TELL_S`. Owns when each was logged, and how many were suppressed since."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def seen(self, what: tuple[str, str]) -> int | None:
        """How many were not told since the last one that was; None: nor is this one."""
        now = self._clock()
        told_at, untold = self._told.get(what, (-_TELL_S, 0))
        if now - told_at < _TELL_S:
            self._told[what] = (told_at, untold + 1)
            return None
        if what not in self._told and len(self._told) >= _MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._told[what] = (now, 0)
        return untold


def _trace_of(outcome: Outcome) -> dict[str, str]:
    assert isinstance(outcome.trace, ContextSpan)
    return call_fields(outcome.trace.context, outcome.labels.peer_id)


def _user_agent(outcome: Outcome) -> str:
    return (outcome.head.get(b"user-agent") or b"").decode("latin-1")


def _protocol(asked: str, labels: Labels) -> str:
    if labels.is_grpc_web:
        return "grpc"
    return asked if asked in ("grpc", "websocket") else "http"


def _call(outcome: Outcome) -> Call:
    head, labels = outcome.head, outcome.labels
    trace = outcome.trace
    assert isinstance(trace, ContextSpan)
    last = outcome.attempts[-1] if outcome.attempts else None
    said = last.said if last is not None else None
    tried = tuple(map(note_of, outcome.attempts)) if _is_told(outcome, trace.context) else ()
    return Call(
        direction=labels.direction,
        protocol=_protocol(head.protocol, labels),
        surface=labels.surface,
        src=labels.src,
        dst=labels.dst,
        src_namespace=labels.src_namespace,
        dst_namespace=labels.dst_namespace,
        verb=head.method,
        path=_path(head.path, labels),
        status=outcome.status,
        grpc_code=outcome.grpc_code,
        cause=outcome.cause.value if outcome.cause is not None else None,
        context=trace.context,
        started_ns=outcome.started_ns,
        head_ns=outcome.head_ns,
        ended_ns=outcome.ended_ns,
        attempts=tried if len(outcome.attempts) > 1 else (),
        bytes_in=outcome.up_bytes,
        bytes_out=outcome.down_bytes,
        endpoint=last.endpoint if last is not None else "",
        peer_id=labels.peer_id,
        decision=labels.decision,
        peer_address=head.peer_address,
        is_by_path=labels.strip,
        is_inner=labels.is_inner,
        policies=labels.policies,
        breaker=outcome.breaker or _met(labels, outcome.cause),
        not_retried="" if outcome.not_retried is None else outcome.not_retried.value,
        faults=tuple((one.started_ns, one.fault) for one in outcome.attempts if one.fault),
        said=said.value if said is not None else None,
        tried=tried[-MAX_ATTEMPTS:],
        resolve_ns=outcome.resolve_ns,
        queue_ns=outcome.queue_ns,
        authorize_ns=outcome.authorize_ns,
    )


def _begun(begun: CallBegun) -> Call:
    """A call of which nothing is known but its request."""
    head, labels, trace = begun.head, begun.labels, begun.trace
    return Call(
        direction=labels.direction,
        protocol=_protocol(head.protocol, labels),
        surface=labels.surface,
        src=labels.src,
        dst=labels.dst,
        src_namespace=labels.src_namespace,
        dst_namespace=labels.dst_namespace,
        verb=head.method,
        path=_path(head.path, labels),
        status=0,
        grpc_code=None,
        cause=None,
        context=trace.context if isinstance(trace, ContextSpan) else _UNTRACED,
        started_ns=begun.started_ns,
        head_ns=0,
        ended_ns=0,
        peer_id=labels.peer_id,
        decision=labels.decision,
        peer_address=head.peer_address,
        is_by_path=labels.strip,
        is_inner=labels.is_inner,
        policies=labels.policies,
    )


def _met(labels: Labels, cause: Cause | None) -> tuple[str, str]:
    """How calls that are not told one by one found a circuit breaker and left it."""
    if all(kind != BREAKER for _, _, kind, _ in labels.policies):
        return "", ""
    state = "open" if cause is Cause.BREAKER else "half-open" if cause is Cause.PROBING else "closed"
    return state, state


def _is_told(outcome: Outcome, context: SpanContext) -> bool:
    """Whether a trace of the call may be kept, or its attempts count: of most calls nobody asks, and a note costs as much as the rest."""
    return (
        context.sampled
        or len(outcome.attempts) > 1
        or outcome.cause is not None
        or outcome.status >= 500
        or bool(outcome.grpc_code)
        or outcome.breaker not in (None, ("closed", "closed"))
        or outcome.ended_ns - outcome.started_ns >= _LONG_NS
        or (bool(outcome.attempts) and outcome.attempts[0].said is not None)
    )


def _batch(tally: Tally) -> tuple[Call, Batch]:
    labels = tally.labels
    like = Call(
        direction=labels.direction,
        protocol=_protocol(tally.protocol, labels),
        surface=labels.surface,
        src=labels.src,
        dst=labels.dst,
        src_namespace=labels.src_namespace,
        dst_namespace=labels.dst_namespace,
        verb=tally.method,
        path=_path(tally.path, labels),
        status=tally.status,
        grpc_code=tally.grpc_code,
        cause=tally.cause.value if tally.cause is not None else None,
        context=_UNTRACED,
        started_ns=0,
        head_ns=0,
        ended_ns=0,
        peer_id=labels.peer_id,
        decision=labels.decision,
        is_by_path=labels.strip,
        is_inner=labels.is_inner,
        policies=labels.policies,
        breaker=_met(labels, tally.cause),
        not_retried="" if tally.not_retried is None else tally.not_retried.value,
        said=tally.said.value if tally.said is not None else None,
    )
    batch = Batch(
        calls=tally.calls,
        latency_bounds_ms=tally.latency_bounds_ms,
        duration_s=Buckets(*tally.duration_s),
        to_end_ms=Buckets(*tally.to_end_ms),
        to_head_ms=Buckets(*tally.to_head_ms),
        to_head_whole_ms=Buckets(*tally.to_head_whole_ms),
        bytes_in=Buckets(*tally.up_bytes),
        bytes_out=Buckets(*tally.down_bytes),
        exemplars=tuple(
            (SpanContext(one.trace_id, one.span_id, 0, sampled=True), one.took_ns / 1e9, one.ended_ns / 1e9)
            for one in tally.exemplars
        ),
    )
    return like, batch
