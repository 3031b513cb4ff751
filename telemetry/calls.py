"""Turns the report of a finished call into metrics, a span if it is sampled, and an access line.

Runs once per call on the loop's thread, so label sets are resolved once per kind of call and kept.
"""

import re
from collections.abc import Callable, Hashable
from typing import Literal

from telemetry import names
from telemetry.exporting import DROP_REASONS
from telemetry.kinds import (
    Kind,
    attempt_result,
    edge_name,
    failure_of,
    is_to_self,
    kind_of,
    resiliency_labels,
    rpc_code,
)
from telemetry.metrics import Meters
from telemetry.path_labels import LONGEST, METHOD, PathLabels
from telemetry.report import AttemptNote, Batch, Buckets, Call
from telemetry.series import OTHER
from telemetry.spans import DEFAULT_FORM, Span, SpanForm, reason_of, span_of
from telemetry.tail import TailHook
from telemetry.tracing import Tracer

__all__ = ["AttemptNote", "Batch", "Buckets", "Call", "CallRecorder"]

# Calls that ended without a proxy failing; a caller who hung up knows why.
_APPS_OWN = frozenset({None, names.STATUS_CAUSE, names.CALLER_LEFT_CAUSE})
#: Kinds of call kept, a dozen references each; when there are more, all are dropped and looked up again.
_KINDS = 4096
_RPC = re.compile(r"/\w+(?:\.\w+)+/\w+")  # `/package.Service/Method`


class CallRecorder:
    """Records the finished calls of one sidecar.

    `path_label` maps an HTTP path to its metric label; none gives "", so that made-up paths make no series.
    Owns the kept kinds, at most `_KINDS`. Mutable state, which a new configuration may change: `slow_ns`, from which on a call that is
    not sampled keeps its span (0: none does for being slow), `tail`, which is asked about all others, and `form`, what spans say.
    """

    def __init__(
        self,
        service: str,
        namespace: str,
        meters: Meters,
        tracer: Tracer,
        access_log: Callable[[Call], None] | None = None,
        *,
        path_label: PathLabels | None = None,
        slow_ns: int = 0,
        form: SpanForm = DEFAULT_FORM,
    ) -> None:
        self.slow_ns = slow_ns
        self.form = form
        self.tail: TailHook | None = None
        self.service = service
        self.namespace = namespace
        self._meters = meters
        self.tracer = tracer
        self._access_log = access_log
        self._path_label = path_label
        self._kinds: dict[tuple[Hashable, ...], Kind] = {}
        meters.on_scrape(self._read_tracer)

    def reshape(self, path_label: PathLabels | None) -> None:
        """Label paths otherwise, and count in the slots that the meters have now."""
        self._path_label = path_label
        self._kinds.clear()

    def count(self, call: Call) -> None:
        """Counts a call."""
        self._count(call, self._kind(call))

    def keep(self, call: Call) -> None:
        """Keeps the span of a call if it is sampled, failed or slow."""
        if call.context.sampled or self.is_kept(call):
            self._keep_span(call)
        elif self.tail is not None:
            self.tail.offer(call)

    def record(self, call: Call) -> None:
        """Counts the call, keeps its span if it is sampled, failed or slow, writes its access line if one is wanted."""
        self.count(call)
        self.keep(call)
        if self._access_log is not None:
            self._access_log(call)

    def is_kept(self, call: Call) -> bool:
        """Whether a call that is not sampled leaves a span in memory, to find out what went wrong.

        So does one that a proxy ended or an app failed (an HTTP status from 500 on, or a gRPC code that stands for one), and a slow one.
        """
        if call.said is not None or call.cause not in _APPS_OWN:
            return True
        if call.protocol == "grpc" and names.grpc_code_class(rpc_code(call)) == "5xx":
            return True
        return call.status >= 500 or 0 < self.slow_ns <= (call.head_ns or call.ended_ns) - call.started_ns

    def _keep_span(self, call: Call) -> None:
        span = self._span(call)
        if span is None:
            return
        if call.context.sampled:
            self.tracer.record(span)
        else:
            self.tracer.keep(span, of_call=bool(call.dst))

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None:
        """The buckets' bounds that a Batch must have (seconds, milliseconds, bytes); None: each call is recorded individually."""
        if self._access_log is not None or self.tail is not None:
            return None
        meters = self._meters
        return (
            meters.edge_duration.bounds,
            meters.res_recv_latency.bounds,
            meters.http_server_request_bytes.bounds,
        )

    @property
    def http_paths(self) -> Literal["none", "first", "all"]:
        """Whether batches of HTTP calls must have a path: none, the first few (then `other`), or all of them."""
        if self._path_label is None:
            return "none"
        return "all" if self._path_label.has_patterns else "first"

    def record_batch(self, like: Call, batch: Batch) -> None:
        """Counts many calls, each with a single attempt or none, that are `like` this one but for their times and sizes."""
        kind = self._kind(like)
        for value in (*kind.counted, *kind.sent):
            value.value += batch.calls
        latencies = (
            (kind.to_end_ms, batch.to_end_ms),
            (kind.to_head_ms, batch.to_head_ms),
            (kind.to_head_whole_ms, batch.to_head_whole_ms),
        )
        # Calls that were added up just before the bounds changed belong to series that have ended.
        are_of_now = batch.latency_bounds_ms == self._meters.res_recv_latency.bounds
        for slots, buckets in (
            (kind.duration, batch.duration_s),
            *(latencies if are_of_now else ()),
            (kind.request_bytes, batch.bytes_in),
            (kind.response_bytes, batch.bytes_out),
        ):
            for slot in slots:
                slot.add(buckets.counts, buckets.sum)
        for context, took_s, at_s in batch.exemplars:
            for duration in kind.duration:
                duration.exemplify(took_s, context, at_s)

    def trace(self, call: Call) -> None:
        """Keeps the span of a call that is counted in a batch."""
        self._keep_span(call)

    def recall(self, call: Call) -> None:
        """Keeps the span of such a call in memory only: exporters get it another way."""
        span = self._span(call)
        if span is not None:
            self.tracer.remember(span)

    def _span(self, call: Call) -> Span | None:
        route = ""
        if self.has_routes and self._path_label is not None and _is_asked_by_path(call):
            route = self._path_label.route(call.path)
        return span_of(call, self.service, self.form, route)

    @property
    def has_routes(self) -> bool:
        """Whether spans say which pattern a path matches."""
        return self.form.has_otel and self._path_label is not None and self._path_label.has_patterns

    def method_label(self, method: str) -> str:
        """The label of a method as circuit breakers have it: of one of gRPC's in a package itself, else that of an HTTP path."""
        if _RPC.fullmatch(method):
            return method if len(method) <= LONGEST else OTHER
        return "" if self._path_label is None else self._path_label(method)

    def _kind(self, call: Call) -> Kind:
        if call.protocol == "grpc":
            # Of gRPC calls only the app's own are labelled with their method; a peer can't make series.
            path = call.path if call.direction == "outbound" else ""
            path = app_path = path if len(path) <= LONGEST else OTHER
        elif self._path_label is None:
            path = app_path = ""
        else:
            path = self._path_label(call.path, _below(call))
            is_told = is_to_self(call) or (call.policies and self._meters.options.has_resiliency_paths)
            app_path = self._path_label(call.path, "") if is_told else path
        key = (
            call.direction,
            call.protocol,
            call.surface,
            call.src,
            call.src_namespace,
            call.dst,
            call.dst_namespace,
            call.verb if call.verb in names.HTTP_VERBS else "",
            call.status,
            call.grpc_code,
            call.cause,
            call.said,
            call.peer_id,
            call.decision,
            path,
            app_path,
            call.is_inner,
            call.policies,
            call.breaker[0],
            call.not_retried == names.EMPTY_BUDGET,
            not call.attempts,
        )
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = kind_of(call, path, app_path, self._meters)
        return kind

    def _count(self, call: Call, kind: Kind) -> None:
        took_ns = call.ended_ns - call.started_ns
        for duration in kind.duration:
            if call.context.sampled:
                duration.observe_sampled(took_ns / 1e9, call.context, call.ended_ns / 1e9)
            else:
                duration.observe(took_ns / 1e9)
        for value in kind.counted:
            value.value += 1
        if len(call.attempts) > 1:
            self._count_attempts(call, kind)
        else:
            for value in kind.sent:
                value.value += 1
        _measure(call, kind)

    def _count_attempts(self, call: Call, kind: Kind) -> None:
        meters = self._meters
        src, dst = edge_name(call.src, call.src_namespace), edge_name(call.dst, call.dst_namespace)
        for number, attempt in enumerate(call.attempts):
            if number:
                meters.retries.add(dst, reason_of(call.attempts[number - 1]))
            meters.edge_attempts.add(
                src,
                dst,
                call.protocol,
                attempt_result(failure_of(attempt.cause, attempt.said, call.peer_id) or attempt.cause),
                call.direction,
            )
            for value in kind.sent[1:]:
                value.value += 1
        timed_out = call.cause != names.TIMEOUT_CAUSE and any(
            attempt.cause == names.TIMEOUT_CAUSE for attempt in call.attempts
        )
        for policy in call.policies:
            if policy[2] == "retry" or (policy[2] == "timeout" and timed_out):
                meters.resiliency_activations.add(*resiliency_labels(meters, policy, kind.path))

    def _read_tracer(self) -> None:
        meters, queues = self._meters, self.tracer.used_queues
        meters.exports.span_queue.replace({(queue.name,): queue.queued for queue in queues})
        for queue in queues:
            meters.exports.spans_exported.slot(queue.name).value = queue.exported
            for reason in DROP_REASONS:  # alerts compare with 0
                meters.exports.spans_dropped.slot(queue.name, reason).value = queue.dropped.get(reason, 0)


def _is_asked_by_path(call: Call) -> bool:
    return call.direction == "inbound" and call.protocol != "grpc"


def _below(call: Call) -> str:
    """What stands before the path in an app's request that names its callee in Dapr's path form."""
    return (
        f"{names.INVOKE_PREFIX}{call.dst}{METHOD}" if call.is_by_path and call.direction == "outbound" else ""
    )


def _measure(call: Call, kind: Kind) -> None:
    for observed in kind.to_end_ms:
        observed.observe((call.ended_ns - call.started_ns) // 1_000_000)
    if call.head_ns:
        to_head_ns = call.head_ns - call.started_ns
        for observed in kind.to_head_ms:
            observed.observe(to_head_ns / 1e6)
        for observed in kind.to_head_whole_ms:
            observed.observe(to_head_ns // 1_000_000)
    for observed in kind.request_bytes:
        observed.observe(call.bytes_in)
    for observed in kind.response_bytes:
        observed.observe(call.bytes_out)
