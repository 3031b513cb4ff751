"""Values of the contract as the tuples that cross to Rust, and back; `_native.pyi` names them. Pure."""

from typing import TYPE_CHECKING, Never

from msgspec.structs import asdict, astuple

from proxy.contract.breakers import BreakerSpec
from proxy.contract.budgets import BudgetUse, RetryShare
from proxy.contract.engine import Cluster, SpansWanted, VerifiedTls, Via
from proxy.contract.gates import GateSpec
from proxy.contract.head import RequestHead
from proxy.contract.outcome import Attempt, Exemplar, NotRetried, Outcome, Tally
from proxy.contract.plan import Cause, Edits, Labels, Plan, Reply, RetryPolicy
from proxy.contract.recording import Shape

if TYPE_CHECKING:
    from proxy.contract.engine import HopSpan
    from proxy.engine.native._native import (
        AttemptParts,
        BreakerParts,
        BudgetParts,
        ClusterParts,
        EditParts,
        HeadParts,
        OutcomeParts,
        PlanParts,
        ReplyParts,
        RetryParts,
        ShapeParts,
        SpansParts,
        TallyParts,
        TokenParts,
        ViaParts,
    )


def head(parts: "HeadParts") -> RequestHead:
    """A head that came."""
    return RequestHead(*parts)


def gate_parts(spec: GateSpec) -> tuple[str, dict[str, float], dict[str, str]]:
    """A gate: the name of its kind, its numbers and its texts."""
    fields = asdict(spec)
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    numbers = {name: float(value) for name, value in fields.items() if name not in texts}
    return str(spec.__struct_config__.tag), numbers, texts


def reply_parts(token: "TokenParts", reply: Reply) -> "ReplyParts":
    """An answer made here, known by `token` from now on."""
    return (
        token,
        reply.status,
        list(reply.headers),
        reply.body,
        reply.grpc_code,
        reply.grpc_message,
        reply.cause.value,
        list(reply.scopes),
        list(reply.gates),
    )


def plan_parts(token: "TokenParts", plan: Plan) -> "PlanParts":
    """A Plan, known by `token` from now on."""
    routes = [
        (route.cluster, route.weight, sorted(route.expect), edit_parts(route.edits), list(route.gates))
        for route in plan.routes
    ]
    return (
        token,
        routes,
        (
            [_retry_parts(policy) for policy in plan.retries],
            None if plan.hedge is None else (plan.hedge.attempts, plan.hedge.delay_s),
            plan.denials_fail,
        ),
        (list(plan.gates), bool(plan.authorizers)),
        (None if plan.breaker is None else astuple(plan.breaker), _budget_parts(plan.budget)),
        (plan.connect_s, plan.attempt_s, plan.total_s),
        plan.body_bytes,
        plan.replay_bytes,
        edit_parts(plan.reply_edits),
        (plan.upper_request, plan.upper_response),
        plan.by_daprd,
        list(plan.scopes),
    )


def cluster_parts(cluster: Cluster) -> "ClusterParts":
    """A cluster."""
    tls = astuple(cluster.tls) if isinstance(cluster.tls, VerifiedTls) else cluster.tls
    return (
        cluster.key,
        cluster.wire,
        tls,
        [(upstream.address, upstream.weight, upstream.rank) for upstream in cluster.upstreams],
        cluster.who,
        None if cluster.via is None else _via_parts(cluster.via),
        astuple(cluster.balancing),
        None if cluster.outliers is None else astuple(cluster.outliers),
    )


def _via_parts(via: Via) -> "ViaParts":
    return via.address, via.authorization, astuple(via.tls) if via.tls is not None else None


def breaker_parts(spec: BreakerSpec) -> "BreakerParts":
    """A circuit breaker."""
    behaviour = (spec.max_requests, spec.interval_s, spec.timeout_s)
    return (spec.policy, *behaviour, list(spec.trip), spec.methods)


def spans_parts(wanted: SpansWanted, phrases: list[tuple[int, str]]) -> "SpansParts":
    """What becomes of spans. phrases: of HTTP statuses."""
    (*others, baggage) = astuple(wanted)
    return (*others, list(baggage), phrases)


def shape_parts(shape: Shape | None) -> "ShapeParts":
    """How a table's paths are classed; None: only here."""
    if shape is None:
        return ("opaque", [], False, "sent")
    rules = [(ordered, opened, set(verbs)) for ordered, opened, verbs in shape.rules]
    return (shape.kind, rules, shape.fold_case, shape.form)


def tally(parts: "TallyParts", labels: Labels, latency_bounds_ms: tuple[float, ...]) -> Tally:
    """Calls that were added up by these bounds."""
    (_, protocol, method, path, status, grpc_code, cause, said, why), calls, sums, exemplars = parts
    duration_s, to_end_ms, to_head_ms, to_head_whole_ms, up_bytes, down_bytes = sums
    return Tally(
        labels=labels,
        protocol=protocol,
        method=method,
        path=path,
        status=status,
        grpc_code=grpc_code,
        cause=_cause(cause),
        said=_cause(said),
        not_retried=_why(why),
        calls=calls,
        latency_bounds_ms=latency_bounds_ms,
        duration_s=duration_s,
        to_end_ms=to_end_ms,
        to_head_ms=to_head_ms,
        to_head_whole_ms=to_head_whole_ms,
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        exemplars=tuple(Exemplar(upper << 64 | lower, *rest) for upper, lower, *rest in exemplars),
    )


def outcome(parts: "OutcomeParts", of: RequestHead, labels: Labels, span: "HopSpan") -> Outcome:
    """What came of the call that `of` began."""
    (
        _,
        _,
        _,
        started_ns,
        head_ns,
        ended_ns,
        status,
        grpc_code,
        cause,
        attempts,
        (up_bytes, down_bytes),
        (breaker, why),
        (resolve_ns, queue_ns, authorize_ns),
        number,
    ) = parts
    return Outcome(
        head=of,
        labels=labels,
        trace=span,
        started_ns=started_ns,
        head_ns=head_ns,
        ended_ns=ended_ns,
        status=status,
        grpc_code=grpc_code,
        cause=_cause(cause),
        attempts=[_attempt(attempt) for attempt in attempts],
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        breaker=breaker,
        not_retried=_why(why),
        resolve_ns=resolve_ns,
        queue_ns=queue_ns,
        authorize_ns=authorize_ns,
        number=number,
    )


def _attempt(parts: "AttemptParts") -> Attempt:
    (
        endpoint,
        started_ns,
        head_ns,
        ended_ns,
        cause,
        status,
        grpc_code,
        detail,
        (said, fault),
        sent_ns,
        queue_ns,
    ) = parts
    return Attempt(
        *(endpoint, started_ns, head_ns, ended_ns, _cause(cause), status, grpc_code, detail, _cause(said)),
        sent_ns=sent_ns,
        queue_ns=queue_ns,
        fault=fault,
    )


def _cause(name: str | None) -> Cause | None:
    return Cause(name) if name is not None else None


def _why(name: str | None) -> NotRetried | None:
    return NotRetried(name) if name is not None else None


def _budget_parts(use: BudgetUse | None) -> "BudgetParts | None":
    if use is None:
        return None
    if isinstance(use.rule, RetryShare):
        return use.target, (use.rule.ratio, use.rule.min_per_s, use.rule.ttl_s), (0.0, 0.0)
    return use.target, None, (use.rule.max_tokens, use.rule.token_ratio)


def edit_parts(edits: Edits) -> "list[EditParts]":
    """Edits, in their order."""
    return [(edit.op.value, edit.name, edit.data) for edit in edits]


def _retry_parts(policy: RetryPolicy) -> "RetryParts":
    return (
        policy.attempts,
        [cause.value for cause in policy.on],
        None if policy.http_codes is None else sorted(policy.http_codes),
        None if policy.grpc_codes is None else sorted(policy.grpc_codes),
        policy.within_s,
        policy.is_inner,
        policy.heeds_answer,
    )


def unknown(told: Never) -> Never:
    """What no case covers: never, where the extension and this package were built together. Raises TypeError."""
    kind: str = told[0]
    raise TypeError(
        f"the native engine speaks of {kind!r}, which this package does not know: install both from one build"
    )
