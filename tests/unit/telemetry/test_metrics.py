"""The meters by name, and what a scrape gets."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from telemetry.errors import MetricError
from telemetry.metrics import LATENCY_BUCKETS_MS, SIZE_BUCKETS, LabelRule, Meters, MetricOptions
from tests.unit.telemetry.building import SAMPLED

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def scraped(meters: Meters) -> dict[str, float]:
    """Sample name with its labels -> value."""
    body, content_type = meters.render("")
    assert content_type.startswith("text/plain")
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_render_unused_meters_are_left_out_but_the_process_is_there() -> None:
    found = scraped(Meters("cart"))
    assert not [name for name in found if name.startswith("dapr_")]
    assert found["process_resident_memory_bytes[]"] > 0


def test_render_counters_gauges_and_histograms() -> None:
    meters = Meters("cart")
    meters.plan_cache.add("hit")
    meters.req_recv.add("cart", "web")
    meters.cert_expiry.set(1.8e9, "workload")
    meters.edge_duration.slot("a", "b", "http", "outbound").observe(0.00015)
    found = scraped(meters)
    assert found["postern_plan_cache_total['hit']"] == 1
    assert found["dapr_runtime_service_invocation_req_recv_total['cart', 'web']"] == 1
    assert found["postern_cert_expiry_timestamp_seconds['workload']"] == 1.8e9
    assert found["postern_edge_duration_seconds_bucket['0.0001', 'a', 'b', 'http', 'outbound']"] == 0
    assert found["postern_edge_duration_seconds_bucket['0.0002', 'a', 'b', 'http', 'outbound']"] == 1
    assert found["postern_edge_duration_seconds_bucket['+Inf', 'a', 'b', 'http', 'outbound']"] == 1
    assert found["postern_edge_duration_seconds_count['a', 'b', 'http', 'outbound']"] == 1


def test_render_counter_without_suffix_keeps_its_name() -> None:
    meters = Meters("cart")
    meters.http_server_requests.add("cart", "GET", "", "200")
    line = 'dapr_http_server_request_count{app_id="cart",method="GET",path="",status="200"} 1.0'
    assert line in meters.render("")[0].decode().splitlines()


def test_render_label_values_are_escaped() -> None:
    meters = Meters("cart")
    meters.req_recv.add("cart", 'a"b\\c\nd')
    (labels,) = [
        sample.labels
        for family in text_string_to_metric_families(meters.render("")[0].decode())
        for sample in family.samples
        if sample.name.endswith("req_recv_total")
    ]
    assert labels["src_app_id"] == 'a"b\\c\nd'


def test_render_openmetrics_on_request_has_exemplars() -> None:
    meters = Meters("cart")
    meters.edge_duration.slot("a", "b", "http", "outbound").observe_sampled(0.01, SAMPLED, 1.7e9)
    meters.http_server_requests.add("cart", "GET", "", "200")
    body, content_type = meters.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    exemplars = [
        sample.exemplar
        for family in parse_openmetrics(body.decode())  # type: ignore[no-untyped-call] # the library is partly typed
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert [exemplar.labels["trace_id"] for exemplar in exemplars] == ["4bf92f3577b34da6a3ce929d0e0e4736"]


def test_render_runs_callbacks_and_counts_folded_series() -> None:
    meters = Meters("cart", series_limit=1)
    meters.on_scrape(lambda: meters.connections.set(3, "peer", "inbound"))
    meters.req_recv.add("cart", "a")
    meters.req_recv.add("cart", "b")
    found = scraped(meters)
    assert found["postern_connections_open['inbound', 'peer']"] == 3
    assert found["postern_series_folded_total['dapr_runtime_service_invocation_req_recv_total']"] == 1
    assert found["dapr_runtime_service_invocation_req_recv_total['other', 'other']"] == 1


def test_counter_declared_twice_is_an_error() -> None:
    meters = Meters("cart")
    meters.counter("mine_total", "Mine.")
    with pytest.raises(MetricError, match="declared twice"):
        meters.gauge("mine_total", "Mine.")


@pytest.mark.parametrize(
    ("policy", "allowed", "metric"),
    [
        ("", True, "global_policy_action_allowed"),
        ("-", True, "global_policy_action_allowed"),
        ("default", False, "global_policy_action_blocked"),
        ("cart", True, "app_policy_action_allowed"),
        ("cart", False, "app_policy_action_blocked"),
    ],
)
def test_acl_slots_by_scope_and_result(policy: str, allowed: bool, metric: str) -> None:
    meters = Meters("checkout")
    for slot in meters.acl_slots(
        src="cart", trust_domain="public", namespace="shop", policy=policy, allowed=allowed
    ):
        slot.add()
    found = scraped(meters)
    assert found[f"dapr_runtime_acl_{metric}_total['cart', 'public', 'shop']"] == 1
    assert sum(value for name, value in found.items() if "acl_decisions" in name) == 1


def test_buckets_are_those_of_the_compatible_metrics() -> None:
    assert (len(LATENCY_BUCKETS_MS), LATENCY_BUCKETS_MS[0], LATENCY_BUCKETS_MS[-1]) == (34, 1, 100_000)
    assert (len(SIZE_BUCKETS), SIZE_BUCKETS[2:4], SIZE_BUCKETS[-1]) == (13, (4096, 16384), 4294967296)
    assert list(LATENCY_BUCKETS_MS) == sorted(LATENCY_BUCKETS_MS)


async def test_scrape_is_what_render_gives() -> None:
    meters = Meters("cart")
    meters.on_scrape(lambda: meters.policy_generation.set(7))
    body, content_type = await meters.scrape("")
    assert b"postern_policy_generation 7.0" in body
    assert content_type.startswith("text/plain")


def test_reshape_begins_those_series_anew_whose_shape_changed() -> None:
    meters = Meters("cart")
    for name in ("GET", "PUT"):
        meters.http_server_requests.add("cart", name, "", "200")
    meters.http_server_latency.slot("cart", "GET", "", "200").observe(9)
    meters.req_sent.add("cart", "shop", "unary")
    meters.req_recv.add("cart", "web")
    rule = LabelRule(
        metric="dapr_runtime_service_invocation_req_recv_total",
        label="src_app_id",
        replacements=(("x", "w"),),
    )
    options = MetricOptions(
        latency_buckets_ms=(7.0,), rules=(rule, LabelRule(metric="no", label="l", replacements=()))
    )
    begun = meters.reshape(options, has_other_paths=False)
    assert "dapr_http_server_latency" in begun
    assert "dapr_http_server_request_count" not in begun
    assert [one.metric for one in meters.misfits] == ["no"]
    meters.req_recv.add("cart", "web")
    meters.http_server_latency.slot("cart", "GET", "", "200").observe(9)
    found = scraped(meters)
    assert meters.http_server_requests.slot("cart", "GET", "", "200").value == 1
    assert found["dapr_runtime_service_invocation_req_sent_total['cart', 'shop', 'unary']"] == 1
    assert found["dapr_runtime_service_invocation_req_recv_total['cart', 'xeb']"] == 1
    assert "dapr_runtime_service_invocation_req_recv_total['cart', 'web']" not in found
    assert found["dapr_http_server_latency_bucket['', '200', '7.0', 'GET', 'cart']"] == 0
    assert found["dapr_http_server_latency_count['', '200', 'GET', 'cart']"] == 1
    meters.reshape(MetricOptions(has_verbs=False), has_other_paths=False)
    assert not meters.http_server_requests.slots
    meters.req_recv.add("cart", "web")
    assert scraped(meters)["dapr_runtime_service_invocation_req_recv_total['cart', 'web']"] == 1


def test_reshape_of_paths_begins_series_by_path_anew_and_no_others() -> None:
    meters = Meters("cart")
    meters.http_client_completed.add("cart", "GET", "/a", "200")
    meters.plan_cache.add("hit")
    begun = meters.reshape(MetricOptions(), has_other_paths=True)
    assert begun == (
        "dapr_http_client_completed_count",
        "dapr_http_client_roundtrip_latency",
        "dapr_http_client_sent_bytes",
        "dapr_http_server_latency",
        "dapr_http_server_request_count",
        "dapr_http_server_response_count",
    )
    assert scraped(meters)["postern_plan_cache_total['hit']"] == 1
