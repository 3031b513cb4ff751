"""Outcomes of an engine become reports of calls; what went wrong is logged and counted."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.contract.engine import PeerRefusal
from proxy.contract.outcome import Attempt, Outcome, Tally
from proxy.contract.plan import NEVER, REFUSED, Cause, Labels
from proxy.control.hop_tracing import ContextSpan
from proxy.control.observer import Reporter
from proxy.control.tapping import Taps
from telemetry.calls import CallRecorder
from telemetry.context import SpanContext
from telemetry.metrics import Meters
from telemetry.report import Call
from telemetry.tracing import Tracer
from tests.unit.proxy.heads import head

LABELS = Labels(
    direction="outbound",
    surface="dapr",
    src="web",
    src_namespace="shop",
    dst="cart",
    dst_namespace="far",
    peer_id="spiffe://public/ns/shop/web",
    decision="policy=web rule=/x reason=rule",
)
SPAN = ContextSpan(SpanContext(0xABC, 0x12, 0, False))
TRACE = {
    "trace_id": f"{0xABC:032x}",
    "span_id": f"{0x12:016x}",
    "sampled": "false",
    "peer": "spiffe://public/ns/shop/web",
}
FIRST = Attempt("10.0.0.1:5000", 10, 20, 30, Cause.CONNECT, detail="refused")
SECOND = Attempt("10.0.0.2:5000", 40, 50, 60, None, 200)


class Log:
    """A logger that keeps its warnings."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts))


class Telling:
    """A reporter and what it told: calls, log lines, metrics."""

    def __init__(
        self, *, is_every_call_wanted: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.calls: list[Call] = []
        self.log = Log()
        self.meters = Meters("web", "shop")
        access_log = self.calls.append if is_every_call_wanted else None
        self.tracer = Tracer("web", ())
        recorder = CallRecorder("web", "shop", self.meters, self.tracer, access_log)
        self.denied_as = ""
        self.taps = Taps(self.meters.taps, self.meters.tap_dropped, {}, wall_ns=lambda: 0)
        self.reporter = Reporter(
            recorder,
            self.meters,
            self.log,  # type: ignore[arg-type]
            denied_as=lambda _: self.denied_as,
            taps=self.taps,
            clock=clock,
        )

    def metric(self, name: str, *parts: str) -> float:
        """The sum of the series of a name whose labels hold all parts."""
        text = self.meters.render("")[0].decode()
        lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(part in line for part in parts))


def outcome(target: str = "/x", **changes: Any) -> Outcome:
    facts: dict[str, Any] = {
        "head": replace(head(target), peer_address="127.0.0.1"),
        "labels": LABELS,
        "trace": SPAN,
        "started_ns": 5,
        "head_ns": 55,
        "ended_ns": 65,
        "status": 200,
        "grpc_code": None,
        "cause": None,
        "attempts": [SECOND],
        "up_bytes": 7,
        "down_bytes": 9,
    }
    return Outcome(**{**facts, **changes})


def told(one: Outcome) -> Call:
    telling = Telling()
    telling.reporter.finished(one)
    (call,) = telling.calls
    return call


def test_outcome_is_told_whole() -> None:
    assert told(outcome()) == Call(
        direction="outbound",
        protocol="http",
        surface="dapr",
        src="web",
        dst="cart",
        src_namespace="shop",
        dst_namespace="far",
        verb="GET",
        path="/x",
        status=200,
        grpc_code=None,
        cause=None,
        context=SPAN.context,
        started_ns=5,
        head_ns=55,
        ended_ns=65,
        attempts=(),
        bytes_in=7,
        bytes_out=9,
        endpoint="10.0.0.2:5000",
        peer_id="spiffe://public/ns/shop/web",
        decision="policy=web rule=/x reason=rule",
        peer_address="127.0.0.1",
    )


def test_translated_grpc_web_counts_as_the_grpc_call_that_it_is() -> None:
    telling = Telling()
    labels = replace(LABELS, direction="inbound", is_grpc_web=True)
    telling.reporter.finished(outcome(labels=labels, grpc_code=5))
    assert [(call.protocol, call.grpc_code) for call in telling.calls] == [("grpc", 5)]
    sent = "dapr_runtime_service_invocation_res_sent_total"
    assert telling.metric(sent, 'status="5"') == 1
    assert telling.metric("postern_edge_requests_total", 'protocol="grpc"', 'code_class="4xx"') == 1


@pytest.mark.parametrize(
    ("target", "strip", "path"),
    [
        ("/v1.0/invoke/cart/method/orders/1?q=1", True, "/orders/1"),
        ("/v1.0/invoke/cart/method/", True, "/"),
        ("/v1.0/invoke/method/method/method/x", True, "/method/x"),
        ("/v1.0/invoke/cart/method/orders", False, "/v1.0/invoke/cart/method/orders"),
        ("/orders?q=secret", False, "/orders"),
    ],
)
def test_path_is_the_methods_and_has_no_query(target: str, strip: bool, path: str) -> None:
    assert told(outcome(target, labels=replace(LABELS, strip=strip))).path == path


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("http1", "http"), ("http2", "http"), ("grpc", "grpc"), ("websocket", "websocket")],
)
def test_protocol_is_the_apps_not_the_wires(protocol: str, expected: str) -> None:
    assert told(outcome(head=head("/x", protocol=protocol))).protocol == expected


def test_several_attempts_are_noted_in_order() -> None:
    call = told(outcome(attempts=[FIRST, SECOND]))
    assert [(note.endpoint, note.cause, note.status) for note in call.attempts] == [
        ("10.0.0.1:5000", "connect", 0),
        ("10.0.0.2:5000", None, 200),
    ]
    assert (call.attempts[0].started_ns, call.attempts[0].ended_ns) == (10, 30)
    assert call.endpoint == "10.0.0.2:5000"


def test_retries_are_counted_by_the_reason_of_the_attempt_before() -> None:
    telling = Telling()
    telling.reporter.finished(outcome(attempts=[FIRST, SECOND]))
    assert telling.metric("postern_retries_total", 'dst="cart.far"') == 1


def test_call_that_never_was_sent_has_no_endpoint() -> None:
    call = told(outcome(attempts=[], cause=Cause.NO_ENDPOINT, status=503, head_ns=0))
    assert (call.endpoint, call.cause, call.head_ns) == ("", "no-endpoint", 0)


def test_own_api_and_nobody_are_no_calls_of_the_mesh() -> None:
    telling = Telling()
    telling.reporter.finished(outcome(labels=Labels(direction="outbound", src="web")))
    assert telling.calls == []


def test_refusal_that_names_no_callee_leaves_a_span_but_not_where_another_call_has_it() -> None:
    telling = Telling()
    labels = Labels(direction="outbound", src="web", sampling=REFUSED)
    telling.reporter.finished(outcome("/x", labels=labels, cause=Cause.FORBIDDEN_ORIGIN, status=403))
    (span,) = telling.tracer.recent()
    assert (span.name, span.error) == ("/x", "Code(403): Forbidden (forbidden-origin)")
    telling.reporter.finished(
        outcome(labels=replace(labels, sampling=NEVER), cause=Cause.CONNECT, status=502)
    )
    telling.reporter.traced(outcome(labels=replace(labels, sampling=NEVER), status=502))
    assert len(telling.tracer.recent()) == 1


def test_denial_is_logged_with_its_decision_and_counted() -> None:
    telling = Telling()
    inbound = replace(LABELS, direction="inbound")
    telling.reporter.finished(outcome("/secret?token=1", labels=inbound, cause=Cause.DENIED, status=403))
    ((event, facts),) = telling.log.lines
    assert event == "access denied"
    assert facts == {
        "caller": "spiffe://public/ns/shop/web",
        "decision": "policy=web rule=/x reason=rule",
        "verb": "GET",
        "path": "/secret",
        **TRACE,
    }
    assert telling.metric("postern_acl_decisions_total", 'policy="web"', 'decision="denied"') == 1


def test_denial_names_the_reading_that_a_rule_denies() -> None:
    telling = Telling()
    for target, reading in (
        ("/x%2F..%2Fsecret", "/secret"),
        ("/secret/", "/secret"),
        ("/a%20b", "/a%20b"),
        ("//x", "//x"),
        ("/x", ""),
    ):
        telling.denied_as = reading
        telling.reporter.finished(outcome(target, cause=Cause.DENIED))
    shown = [(facts["path"], facts.get("read_as")) for _, facts in telling.log.lines]
    assert shown == [
        ("/x%2F..%2Fsecret", "/secret"),
        ("/secret", None),
        ("/a b", None),
        ("/x", "//x"),
        ("/x", None),
    ]


def test_denied_caller_without_an_identity_is_anonymous() -> None:
    telling = Telling()
    telling.reporter.finished(outcome(labels=replace(LABELS, peer_id=""), cause=Cause.DENIED))
    assert telling.log.lines[0][1]["caller"] == "anonymous"


def test_call_of_the_app_that_a_proxy_ended_has_a_line() -> None:
    telling = Telling()
    telling.reporter.finished(
        outcome("/secret?x=1", cause=Cause.TIMEOUT, status=504, attempts=[FIRST, FIRST])
    )
    peers = replace(SECOND, status=403, said=Cause.DENIED)
    telling.reporter.finished(outcome(status=200, grpc_code=7, attempts=[peers]))
    telling.reporter.finished(outcome(labels=Labels(direction="outbound"), cause=Cause.UNAUTHENTICATED))
    (event, facts), (_, by_peer), (_, unnamed) = telling.log.lines
    assert (event, facts) == (
        "call failed",
        {
            "callee": "cart.far",
            "cause": "timeout",
            "by": "this proxy",
            "attempts": 2,
            "endpoint": "10.0.0.1:5000",
            "reason": "refused",
            "verb": "GET",
            "path": "/secret",
            "status": 504,
            **TRACE,
        },
    )
    assert (by_peer["cause"], by_peer["by"], by_peer["grpc_code"]) == ("denied", "the callee's proxy", 7)
    assert unnamed["callee"] == "-"


def test_what_is_no_failure_of_a_proxy_has_no_line() -> None:
    telling = Telling()
    inbound = replace(LABELS, direction="inbound")
    for one in (
        outcome(),
        outcome(status=500),
        outcome(cause=Cause.CALLER_LEFT),
        outcome(attempts=[replace(SECOND, said=Cause.DENIED)], cause=Cause.CALLER_LEFT),
        outcome(labels=inbound, cause=Cause.TIMEOUT),
        outcome(attempts=[FIRST, SECOND]),
    ):
        telling.reporter.finished(one)
    assert telling.log.lines == []


# --- connections


def test_open_connections_are_counted_by_listener() -> None:
    telling = Telling()
    for listener, change in (("http", 1), ("http", 1), ("peer", 1), ("http", -1)):
        telling.reporter.connection(listener, change)
    assert telling.metric("postern_connections_open", '"http"') == 1
    assert telling.metric("postern_connections_open", '"peer"') == 1


def test_refusals_are_counted_and_peers_named_in_the_log() -> None:
    telling = Telling()
    telling.reporter.refused_frames("reset")
    telling.reporter.refused_frames("ping", "spiffe://public/ns/shop/noisy at 10.0.0.1")
    telling.reporter.refused_peer("peer", "expired", "it has ended", "10.0.0.2")
    telling.reporter.upstream_failed("peer:cart.shop", "10.0.0.1:5000", "refused")
    assert telling.log.lines == [
        ("frames refused", {"kind": "ping", "peer": "spiffe://public/ns/shop/noisy at 10.0.0.1"}),
        (
            "peer refused",
            {"listener": "peer", "peer": "10.0.0.2", "reason": "expired", "detail": "it has ended"},
        ),
        (
            "upstream connect failed",
            {"cluster": "peer:cart.shop", "endpoint": "10.0.0.1:5000", "reason": "refused"},
        ),
    ]
    assert telling.metric("postern_h2_frames_refused_total", '"reset"') == 1
    assert telling.metric("postern_handshakes_refused_total", '"expired"') == 1


def test_refused_peer_is_told_once_a_minute_for_each_reason_and_always_counted() -> None:
    now = [0.0]
    telling = Telling(clock=lambda: now[0])

    def refuse(reason: PeerRefusal, address: str = "10.0.0.2") -> list[dict[str, object]]:
        before = len(telling.log.lines)
        telling.reporter.refused_peer("peer", reason, "why", address)
        return [fields for _, fields in telling.log.lines[before:]]

    assert len(refuse("expired")) == 1
    now[0] = 59.0
    assert [refuse("expired"), refuse("expired")] == [[], []]
    assert (len(refuse("closed")), len(refuse("expired", "10.0.0.3"))) == (1, 1)
    now[0] = 60.0
    assert [fields["suppressed"] for fields in refuse("expired")] == [2]
    assert telling.metric("postern_handshakes_refused_total", '"expired"') == 5
    for number in range(2_000):
        refuse("closed", f"10.1.{number // 250}.{number % 250}")
    assert len(refuse("expired")) == 1  # forgotten: what is remembered is bounded


def test_plan_cache_hits_and_misses_are_counted() -> None:
    telling = Telling()
    for hit in (True, True, False):
        telling.reporter.plan_cache(hit=hit)
    assert telling.metric("postern_plan_cache_total", '"hit"') == 2
    assert telling.metric("postern_plan_cache_total", '"miss"') == 1


def sums(value: float, bounds: tuple[float, ...]) -> tuple[list[int], float]:
    """Two equal observations below all bounds."""
    return [2, *(0 for _ in bounds)], 2 * value


def tally(reporter: Reporter, **changes: Any) -> Tally:
    """Two calls that went well."""
    measures = reporter.measures
    assert measures is not None
    latency, size = sums(0, measures.latency_ms), sums(0, measures.size_bytes)
    facts: dict[str, Any] = {
        "labels": LABELS,
        "protocol": "grpc",
        "method": "POST",
        "path": "/shop.Cart/Get",
        "status": 200,
        "grpc_code": 0,
        "cause": None,
        "calls": 2,
        "latency_bounds_ms": measures.latency_ms,
        "duration_s": sums(0, measures.duration_s),
        "to_end_ms": latency,
        "to_head_ms": latency,
        "to_head_whole_ms": latency,
        "up_bytes": size,
        "down_bytes": size,
    }
    return Tally(**{**facts, **changes})


def test_calls_that_were_added_up_are_counted_by_their_labels() -> None:
    telling = Telling(is_every_call_wanted=False)
    telling.reporter.counted(tally(telling.reporter))
    telling.reporter.counted(tally(telling.reporter, labels=Labels(direction="outbound")))
    assert telling.metric("postern_edge_requests_total", 'dst="cart.far"', 'code_class="2xx"') == 2
    assert telling.metric("dapr_grpc_io_server_completed_rpcs", 'method="/shop.Cart/Get"') == 2


def test_reports_that_found_no_room_are_counted() -> None:
    telling = Telling()
    telling.reporter.lost(3, 4)
    assert telling.metric("postern_reports_lost_total", 'kind="call"') == 3
    assert telling.metric("postern_reports_lost_total", 'kind="span"') == 4


# --- taps


async def test_calls_are_reported_one_by_one_while_somebody_looks_and_no_longer() -> None:
    telling = Telling(is_every_call_wanted=False)
    found = [telling.reporter.measures]
    lines = telling.taps.open({})
    await anext(lines)
    found.append(telling.reporter.measures)
    await lines.aclose()
    found.append(telling.reporter.measures)
    assert [measures is None for measures in found] == [False, True, False]


async def test_tap_is_shown_calls_between_apps_and_those_that_a_proxy_refused() -> None:
    telling = Telling()
    lines = telling.taps.open({})
    await anext(lines)
    nobody = replace(LABELS, dst="")
    telling.reporter.finished(outcome("/one"))
    telling.reporter.finished(outcome("/v1.0/healthz", labels=nobody))
    telling.reporter.finished(outcome("/two", labels=nobody, status=401, cause=Cause.UNAUTHENTICATED))
    paths = [json.loads(line)["path"] for line in (await anext(lines)).splitlines()]
    assert paths == ["/one", "/two"]
    await lines.aclose()


@pytest.mark.parametrize(
    ("target", "changes", "name"),
    [
        ("/orders/4242", {}, "CallLocal/cart/"),
        ("/shop.Cart/Get", {"grpc_code": 0}, "/shop.Cart/Get"),
    ],
)
def test_hidden_paths_are_in_no_span_and_no_line(target: str, changes: dict[str, Any], name: str) -> None:
    telling = Telling()
    telling.reporter.hides_paths = True
    sampled = ContextSpan(SpanContext(0xABC, 0x12, 0, True))
    asked = replace(outcome(target).head, protocol="grpc" if changes else "http1")
    telling.reporter.finished(outcome(head=asked, trace=sampled, **changes))
    telling.reporter.finished(outcome(head=asked, cause=Cause.DENIED, trace=sampled, **changes))
    assert [span.name for span in telling.tracer.recent()] == [name, name]
    assert "4242" not in repr((telling.tracer.recent(), telling.log.lines, telling.calls))


def test_probe_makes_no_span_where_paths_are_hidden() -> None:
    telling = Telling()
    telling.reporter.hides_paths = True
    telling.reporter.finished(outcome("/healthz", trace=ContextSpan(SpanContext(0xABC, 0x12, 0, True))))
    assert not telling.tracer.recent()


def test_method_of_a_breaker_has_no_label_where_paths_are_hidden() -> None:
    telling = Telling()
    assert telling.reporter.breaker_label("/shop.Cart/Get") == "/shop.Cart/Get"
    telling.reporter.hides_paths = True
    assert telling.reporter.breaker_label("/shop.Cart/Get") == ""  # which may be a path of HTTP
