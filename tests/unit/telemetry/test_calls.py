"""What a finished call leaves behind: counts, a span, an access line."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from telemetry.calls import CallRecorder
from telemetry.decisions import decisions
from telemetry.metrics import Meters, MetricOptions
from telemetry.path_labels import PathLabels
from telemetry.report import Batch, Buckets, Call
from telemetry.series import AnyFamily, Distribution
from telemetry.tracing import ExportLimits, Tracer
from tests.unit.telemetry.building import BEGAN, SAMPLED, UNSAMPLED, a_call, a_grpc_call, an_attempt
from tests.unit.telemetry.test_exporting import FakeExporter


class Recorded:
    """A recorder and what it fills."""

    def __init__(self, app_id: str = "cart", **options: Any) -> None:
        self.meters = Meters(app_id, "shop", options=options.pop("meters", None))
        self.tracer = Tracer(app_id)
        self.recorder = CallRecorder(app_id, "shop", self.meters, self.tracer, **options)

    def values(self, family: AnyFamily) -> dict[tuple[str, ...], float]:
        """Label values -> value, or number of observations."""
        return {
            labels: sum(slot.counts) if isinstance(slot, Distribution) else slot.value
            for labels, slot in family.slots.items()
        }


def test_record_outbound_http_counts_under_daprs_names_and_the_edge() -> None:
    it = Recorded()
    for _ in range(3):
        it.recorder.record(a_call(bytes_in=10, bytes_out=5000))
    meters = it.meters
    assert it.values(meters.req_sent) == {("cart", "checkout", "unary"): 3}
    assert it.values(meters.res_recv) == {("cart", "checkout", "200", "unary"): 3}
    assert it.values(meters.res_recv_latency) == {("cart", "checkout", "200"): 3}
    assert it.values(meters.http_server_requests) == {("cart", "GET", "", "200"): 3}
    assert it.values(meters.http_server_responses) == {("cart", "GET", "", "200"): 3}
    assert it.values(meters.http_server_latency) == {("cart", "GET", "", "200"): 3}
    assert meters.http_server_request_bytes.slot("cart").sum == 30
    assert meters.http_server_response_bytes.slot("cart").sum == 15000
    edge = ("cart.shop", "checkout.shop", "GET", "http", "2xx", "outbound")
    assert it.values(meters.edge_requests) == {edge: 3}
    assert it.values(meters.edge_attempts) == {("cart.shop", "checkout.shop", "http", "ok", "outbound"): 3}
    assert meters.edge_duration.slot("cart.shop", "checkout.shop", "http", "outbound").sum == pytest.approx(
        0.006
    )


def test_record_latencies_are_truncated_but_the_invocations_is_not() -> None:
    it = Recorded()
    it.recorder.record(a_call(head_ns=BEGAN + 1_500_000, ended_ns=BEGAN + 2_900_000))
    assert it.meters.http_server_latency.slot("cart", "GET", "", "200").sum == 2
    assert it.meters.res_recv_latency.slot("cart", "checkout", "200").sum == 1.5


def test_record_inbound_http_counts_peer_app_and_access() -> None:
    it = Recorded("checkout")
    it.recorder.record(
        a_call(
            direction="inbound",
            peer_id="spiffe://public/ns/shop/cart",
            decision="policy=cart rule=/orders reason=rule",
        )
    )
    meters = it.meters
    assert it.values(meters.req_recv) == {("checkout", "cart"): 1}
    assert it.values(meters.res_sent) == {("checkout", "cart", "200"): 1}
    assert it.values(meters.http_client_completed) == {("checkout", "GET", "", "200"): 1}
    assert it.values(meters.http_client_sent_bytes) == {("checkout", "GET", "", ""): 1}
    assert it.values(meters.acl_decisions) == {("cart", "cart", "allowed"): 1}
    body = meters.render("")[0].decode()
    assert (
        'dapr_runtime_acl_app_policy_action_allowed_total{app_id="cart",namespace="shop",trustDomain="public"} 1.0'
        in body
    )


def test_record_call_to_the_own_app_counts_as_the_apps_too() -> None:
    it = Recorded(path_label=PathLabels(raw=True))
    ended = {"head_ns": BEGAN + 1_500_000, "ended_ns": BEGAN + 2_900_000, "bytes_in": 10, "bytes_out": 500}
    own = a_call(dst="cart", path="/orders/1", is_by_path=True, **ended)
    it.recorder.record(own)
    it.recorder.record(replace(own, status=403, cause="denied"))
    it.recorder.record(replace(own, dst_namespace="elsewhere"))
    it.recorder.record(a_grpc_call(dst="cart"))
    it.recorder.record(replace(own, is_inner=True))
    meters = it.meters
    called = ("cart", "GET", "/orders/1", "200")
    assert it.values(meters.http_client_completed) == {called: 2}
    assert it.values(meters.http_client_latency) == {called: 2}
    assert meters.http_client_latency.slot(*called).sum == 2
    assert meters.res_recv_latency.slot("cart", "cart", "200").sum == pytest.approx(4.5)
    assert meters.http_client_sent_bytes.slot("cart", "GET", "/orders/1", "").sum == 20
    assert meters.http_client_received_bytes.slot("cart").sum == 1000
    whole = "/v1.0/invoke/cart/method/orders/1"
    assert it.values(meters.http_server_requests)[("cart", "GET", whole, "200")] == 2
    assert it.values(meters.req_recv) == {}


@pytest.mark.parametrize(("cause", "told"), [("denied", "acl"), ("authorizer", "authorizer")])
def test_record_denied_call_never_reached_the_app(cause: str, told: str) -> None:
    it = Recorded("checkout")
    it.recorder.record(a_call(direction="inbound", status=403, cause=cause, head_ns=0))
    meters = it.meters
    assert it.values(meters.http_client_completed) == {}
    assert it.values(meters.acl_decisions) == {("cart", "", "denied"): 1}
    assert list(it.values(meters.edge_requests)) == [
        ("cart.shop", "checkout.shop", "GET", "http", told, "inbound")
    ]
    assert it.values(meters.edge_attempts) == {}


def test_record_outbound_transport_failure_is_sent_but_not_answered() -> None:
    it = Recorded()
    it.recorder.record(
        a_call(status=502, cause="connect", head_ns=0, attempts=(an_attempt(cause="connect"),))
    )
    assert it.values(it.meters.req_sent) == {("cart", "checkout", "unary"): 1}
    assert it.values(it.meters.res_recv) == {}
    assert it.values(it.meters.http_server_requests) == {("cart", "GET", "", "502"): 1}


def test_record_call_refused_before_any_attempt_sent_nothing() -> None:
    it = Recorded()
    it.recorder.record(a_call(status=503, cause="breaker", head_ns=0))
    assert it.values(it.meters.req_sent) == {}


def test_record_retries_count_each_attempt_and_its_reason() -> None:
    it = Recorded()
    attempts = (an_attempt(cause="connect", status=0), an_attempt(cause="timeout", status=0), an_attempt())
    it.recorder.record(a_call(attempts=attempts))
    assert it.values(it.meters.req_sent) == {("cart", "checkout", "unary"): 3}
    assert it.values(it.meters.retries) == {
        ("checkout.shop", "connect"): 1,
        ("checkout.shop", "timeout"): 1,
    }
    by_result = {labels[3]: value for labels, value in it.values(it.meters.edge_attempts).items()}
    assert by_result == {"ok": 1, "connect": 1, "timeout": 1}
    assert sum(it.values(it.meters.edge_requests).values()) == 1


def test_record_grpc_counts_method_and_code_at_the_caller_only() -> None:
    it = Recorded()
    it.recorder.record(a_grpc_call(grpc_code=5))
    it.recorder.record(a_grpc_call(direction="inbound"))
    assert it.values(it.meters.grpc_server_completed) == {("cart", "/shop.Checkout/Pay", "NotFound"): 1}
    assert it.values(it.meters.res_recv) == {("cart", "checkout", "5", "unary"): 1}
    assert it.values(it.meters.res_sent) == {("cart", "cart", "0"): 1}
    assert it.values(it.meters.http_server_requests) == {}


def test_record_unknown_verb_is_no_label_of_its_own() -> None:
    it = Recorded()
    it.recorder.record(a_call(verb="BREW"))
    assert it.values(it.meters.http_server_requests) == {("cart", "UNKNOWN", "", "200"): 1}


def test_record_path_label_is_what_the_function_says() -> None:
    it = Recorded(path_label=PathLabels(["/orders/{id}"]))
    it.recorder.record(a_call(path="/orders/1"))
    it.recorder.record(a_call(path="/orders/2"))
    assert it.values(it.meters.http_server_requests) == {("cart", "GET", "/orders/{id}", "200"): 2}


def test_record_many_kinds_are_all_counted() -> None:
    it = Recorded()
    for number in range(5000):
        it.recorder.record(a_call(status=200, decision=f"rule={number}", context=UNSAMPLED))
    assert sum(it.values(it.meters.edge_requests).values()) == 5000


def test_record_long_grpc_methods_are_one_series() -> None:
    it = Recorded()
    for number in range(3):
        it.recorder.record(a_grpc_call(path=f"/shop.Cart/{number}" + "x" * 60_000))
    assert list(it.values(it.meters.grpc_server_completed)) == [("cart", "other", "OK")]


def test_record_sampled_makes_a_span_and_an_exemplar_and_unsampled_none() -> None:
    it = Recorded()
    it.recorder.record(a_call(context=UNSAMPLED))
    assert it.tracer.recent() == ()
    it.recorder.record(a_call())
    it.recorder.record(a_call(path="/healthz"))
    assert [span.name for span in it.tracer.recent()] == ["CallLocal/checkout/orders/1"]
    slot = it.meters.edge_duration.slot("cart.shop", "checkout.shop", "http", "outbound")
    assert len(slot.exemplars) == 1


def test_record_access_log_gets_every_call() -> None:
    seen: list[Call] = []
    it = Recorded(access_log=seen.append)
    it.recorder.record(a_call(context=UNSAMPLED))
    assert [call.path for call in seen] == ["/orders/1"]


def test_scrape_shows_the_exporters_queues() -> None:
    tracer = Tracer("cart", [FakeExporter()], limits=ExportLimits(queue=1))
    meters = Meters("cart")
    recorder = CallRecorder("cart", "shop", meters, tracer)
    for _ in range(3):
        recorder.record(a_call())
    body = meters.render("")[0].decode()
    assert 'postern_span_queue_length{exporter="fake"} 1.0' in body
    assert 'postern_spans_dropped_total{exporter="fake",reason="queue-full"} 2.0' in body
    assert 'postern_spans_exported_total{exporter="fake"} 0.0' in body


def invocations(meters: Meters) -> list[str]:
    """The series of calls, as they are scraped."""
    lines = meters.render("")[0].decode().splitlines()
    return [line for line in lines if line.startswith(("dapr_", "postern_"))]


def bucketed(values: Sequence[float], bounds: Sequence[float]) -> Buckets:
    """Values as an engine adds them up."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return Buckets(counts, sum(values))


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
@pytest.mark.parametrize("make", [a_call, a_grpc_call])
@pytest.mark.parametrize("cause", [None, "status", "timeout"])
@pytest.mark.parametrize("dst", ["checkout", "cart"])
def test_record_batch_counts_as_its_calls_one_by_one(
    direction: str, make: Callable[..., Call], cause: str | None, dst: str
) -> None:
    facts = {"direction": direction, "cause": cause, "context": UNSAMPLED, "dst": dst}
    calls = [
        make(**facts, ended_ns=BEGAN + 2_000_000 + number * 700_000, bytes_in=number * 900, bytes_out=number)
        for number in range(5)
    ]
    one_by_one, together = Recorded(), Recorded()
    for call in calls:
        one_by_one.recorder.record(call)
    bounds = together.recorder.bounds
    assert bounds is not None
    took_ns = [call.ended_ns - call.started_ns for call in calls]
    head_ns = [call.head_ns - call.started_ns for call in calls]
    together.recorder.record_batch(
        replace(calls[0], head_ns=0, ended_ns=0),
        Batch(
            calls=5,
            latency_bounds_ms=bounds[1],
            duration_s=bucketed([ns / 1e9 for ns in took_ns], bounds[0]),
            to_end_ms=bucketed([ns // 1_000_000 for ns in took_ns], bounds[1]),
            to_head_ms=bucketed([ns / 1e6 for ns in head_ns], bounds[1]),
            to_head_whole_ms=bucketed([ns // 1_000_000 for ns in head_ns], bounds[1]),
            bytes_in=bucketed([call.bytes_in for call in calls], bounds[2]),
            bytes_out=bucketed([call.bytes_out for call in calls], bounds[2]),
        ),
    )
    assert invocations(together.meters) == invocations(one_by_one.meters)


def test_record_batch_that_was_added_up_by_other_bounds_is_counted_without_its_times() -> None:
    recorded = Recorded()
    none = Buckets([0, 0], 0.0)
    recorded.recorder.record_batch(
        a_call(),
        Batch(
            calls=3,
            latency_bounds_ms=(7.0,),
            duration_s=none,
            to_end_ms=Buckets([3, 0], 9.0),
            to_head_ms=Buckets([3, 0], 9.0),
            to_head_whole_ms=none,
            bytes_in=none,
            bytes_out=none,
        ),
    )
    assert set(recorded.values(recorded.meters.edge_requests).values()) == {3}
    assert set(recorded.values(recorded.meters.res_recv_latency).values()) == {0}


def test_trace_keeps_the_span_and_counts_nothing() -> None:
    recorded = Recorded()
    recorded.recorder.trace(a_call())
    assert [span.context for span in recorded.tracer.recent()] == [SAMPLED]
    assert not recorded.values(recorded.meters.edge_duration)


def test_recall_keeps_the_span_in_memory_alone() -> None:
    tracer = Tracer("cart", [FakeExporter()])
    CallRecorder("cart", "", Meters("cart"), tracer).recall(a_call())
    assert [span.context for span in tracer.recent()] == [SAMPLED]
    assert tracer.queued == 0


def test_record_batch_remembers_its_exemplars() -> None:
    recorded = Recorded()
    bounds = recorded.meters.edge_duration.bounds
    none = Buckets([], 0.0)
    recorded.recorder.record_batch(
        a_call(),
        Batch(
            calls=1,
            latency_bounds_ms=(),
            duration_s=none,
            to_end_ms=none,
            to_head_ms=none,
            to_head_whole_ms=none,
            bytes_in=none,
            bytes_out=none,
            exemplars=((SAMPLED, bounds[1], 7.0),),
        ),
    )
    (slot,) = recorded.meters.edge_duration.slots.values()
    assert slot.exemplars == {1: (SAMPLED, bounds[1], 7.0)}


def test_access_log_wants_every_call_by_itself() -> None:
    assert CallRecorder("a", "", Meters("a"), Tracer("a"), lambda _: None).bounds is None


POLICIES = (("mesh", "prod", "timeout", "app_checkout"), ("mesh", "prod", "retry", "app_checkout"))


def test_record_policies_count_once_a_call_and_when_they_changed_it() -> None:
    it = Recorded()
    timeout, retry = (
        (("cart", "mesh", "prod", kind, "outbound", "app_checkout", "")) for kind in ("timeout", "retry")
    )
    it.recorder.record(a_call(policies=POLICIES))
    it.recorder.record(a_call(policies=POLICIES, cause="timeout", status=504))
    late = an_attempt(cause="timeout", status=0)
    it.recorder.record(a_call(policies=POLICIES, attempts=(late, an_attempt())))
    it.recorder.record(a_call(policies=POLICIES, cause="timeout", status=504, attempts=(late, late, late)))
    it.recorder.record(a_call())
    assert it.values(it.meters.resiliency_count) == {timeout: 4, retry: 4}
    assert it.values(it.meters.resiliency_activations) == {timeout: 3, retry: 2}


def test_record_policies_by_method_where_metrics_have_it() -> None:
    it = Recorded(path_label=PathLabels(["/orders/{id}"]), meters=MetricOptions(has_resiliency_paths=True))
    late = an_attempt(cause="timeout", status=0)
    for path in ("/orders/1", "/orders/2", "/else"):
        it.recorder.record(
            a_call(path=path, is_by_path=True, policies=POLICIES, attempts=(late, an_attempt()))
        )
    counted = {(labels[3], labels[-1]): n for labels, n in it.values(it.meters.resiliency_count).items()}
    assert counted == {
        (kind, path): n for kind in ("timeout", "retry") for path, n in (("/orders/{id}", 2), ("", 1))
    }
    activated = {
        (labels[3], labels[-1]): n for labels, n in it.values(it.meters.resiliency_activations).items()
    }
    assert activated == counted
    assert [row["path"] for row in decisions(it.meters)["resiliency"]].count("/orders/{id}") == 2
    labels = [
        it.recorder.method_label(one) for one in ("/orders/7", "/x", "/shop.v1.Cart/Get", "/a.b/" + "c" * 300)
    ]
    assert labels == ["/orders/{id}", "", "/shop.v1.Cart/Get", "other"]


def test_record_empty_retry_budget_is_counted_by_callee() -> None:
    it = Recorded()
    for why in ("budget", "budget", "not-covered", ""):
        it.recorder.record(a_call(status=503, not_retried=why))
    assert list(it.values(it.meters.retry_budget_exhausted).values()) == [2]


def test_record_circuit_breaker_counts_by_the_state_that_calls_found() -> None:
    it = Recorded()
    policies = (("mesh", "prod", "circuitbreaker", "app_checkout"),)
    met = {"policies": policies, "attempts": (an_attempt(cause="timeout", status=0), an_attempt())}
    it.recorder.record(a_call(breaker=("closed", "open"), **met))
    it.recorder.record(a_call(breaker=("open", "open"), policies=policies, cause="breaker-open", status=500))
    it.recorder.record(a_call(breaker=("half-open", "closed"), policies=policies))
    it.recorder.record(a_call(breaker=("closed", "closed"), policies=policies))
    counted = {labels[-1]: value for labels, value in it.values(it.meters.resiliency_count).items()}
    assert counted == {"closed": 2, "open": 1, "half-open": 1}
    assert (
        it.values(it.meters.resiliency_activations) == {}
    )  # those are its changes of state, told by themselves


def test_record_errors_by_code_only_where_asked_for() -> None:
    failed = {"cause": "no-app", "status": 404}
    it = Recorded()
    it.recorder.record(a_call(**failed))
    assert it.values(it.meters.error_codes) == {}
    it = Recorded(meters=MetricOptions(error_codes={"no-app": "ERR_NO_APP"}))
    it.recorder.record(a_call(surface="own", **failed))
    it.recorder.record(a_call(surface="dapr", **failed))
    it.recorder.record(a_call(cause="status", status=500))
    codes = {code: count for (_, code, _), count in it.values(it.meters.error_codes).items()}
    assert codes == {"ERR_NO_APP": 1, "ERR_DIRECT_INVOKE": 1}


def test_count_of_a_call_to_the_api_itself_is_no_edge_and_no_span() -> None:
    it = Recorded(path_label=PathLabels(raw=True))
    it.recorder.count(a_call(dst="", dst_namespace="", path="/v1.0/healthz", status=204))
    it.recorder.count(a_grpc_call(dst="", surface="dapr", path="/dapr.proto.runtime.v1.Dapr/GetMetadata"))
    it.recorder.count(a_grpc_call(dst="", surface="own", path="/no.Body/Knows", grpc_code=12))
    meters = it.meters
    assert it.values(meters.http_server_responses) == {("cart", "GET", "/v1.0/healthz", "204"): 1}
    assert it.values(meters.grpc_server_completed) == {
        ("cart", "/dapr.proto.runtime.v1.Dapr/GetMetadata", "OK"): 1
    }
    for family in (meters.edge_requests, meters.edge_duration, meters.edge_attempts, meters.req_sent):
        assert it.values(family) == {}
    assert it.tracer.last_trace_id() is None


def test_inner_call_of_invoke_service_counts_for_the_mesh_and_not_for_the_http_api() -> None:
    it = Recorded()
    it.recorder.record(a_call(is_inner=True))
    it.recorder.count(a_call(is_inner=True, dst="", status=500, cause="no-app"))
    assert it.values(it.meters.req_sent) == {("cart", "checkout", "unary"): 1}
    assert it.values(it.meters.http_server_requests) == {}


@pytest.mark.parametrize(
    "call",
    [
        a_call(context=UNSAMPLED, cause="connect", status=502),
        a_call(context=UNSAMPLED, said="denied", status=403),
        a_call(context=UNSAMPLED, status=500),
        a_call(context=UNSAMPLED, direction="inbound", cause="denied", status=403),
        a_call(context=UNSAMPLED, head_ns=BEGAN + 10_000_000, ended_ns=BEGAN + 11_000_000),
        a_grpc_call(context=UNSAMPLED, grpc_code=14),
    ],
)
def test_unsampled_call_that_failed_or_was_slow_is_kept_in_memory(call: Call) -> None:
    for record in (CallRecorder.record, CallRecorder.trace):
        it = Recorded(slow_ns=10_000_000)
        record(it.recorder, call)
        assert [span.context.sampled for span in it.tracer.recent()] == [False]


@pytest.mark.parametrize(
    "call",
    [
        a_call(context=UNSAMPLED, status=404),
        a_call(context=UNSAMPLED, cause="caller-left"),
        a_call(context=UNSAMPLED, ended_ns=BEGAN + 10_000_000),  # a long body after a quick head
        a_grpc_call(context=UNSAMPLED, grpc_code=5),
        a_call(context=UNSAMPLED, status=500, path="/healthz"),
    ],
)
def test_unsampled_call_that_went_as_usual_is_not_kept(call: Call) -> None:
    it = Recorded(slow_ns=10_000_000)
    it.recorder.record(call)
    assert not it.tracer.recent()


def test_gaps_of_daprds_metrics_are_there_only_where_they_are_asked_for() -> None:
    def told(*, is_compat: bool) -> tuple[set[tuple[str, ...]], ...]:
        it = Recorded("cart", meters=MetricOptions(is_compat=is_compat))
        it.recorder.record(a_grpc_call(direction="inbound", decision="reason=no-policy"))
        it.recorder.record(a_call(direction="inbound", status=502, cause="app-down"))
        it.recorder.record(a_grpc_call(cause="timeout", grpc_code=4))
        meters = it.meters
        assert len(it.values(meters.edge_requests)) == 3
        return tuple(set(it.values(family)) for family in (meters.res_sent, meters.grpc_server_completed))

    sent, completed = told(is_compat=False)
    assert {labels[-1] for labels in sent} == {"0", "502"}
    assert {labels[-1] for labels in completed} == {"DeadlineExceeded"}
    sent, completed = told(is_compat=True)
    assert {labels[-1] for labels in sent} == {"0"}
    assert {labels[-1] for labels in completed} == {"Unknown"}
