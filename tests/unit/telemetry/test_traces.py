"""What is told of traces: summaries, merged over sidecars, and spans with what only we know of their calls."""

import pytest

from telemetry.context import SpanContext
from telemetry.spans import span_of
from telemetry.traces import TraceFilter, merged, summarise, told
from tests.unit.telemetry.building import BEGAN, TRACE, a_call, a_span, an_attempt

ROOT = SpanContext(TRACE, 0xA1, 0, True)
CHILD = SpanContext(TRACE, 0xB2, 0xA1, True)
OTHER = SpanContext(0x77, 0xC3, 0, False)


def test_summary_tells_root_apps_errors_and_the_time_of_all_spans() -> None:
    ours = a_span(context=ROOT, attributes=(("http.response.status_code", "500"),), error="Code(500)")
    theirs = a_span(
        context=CHILD, kind="SERVER", service="checkout", remote_service="cart", end_ns=BEGAN + 3_000_000
    )
    (one,) = summarise([theirs, ours])
    assert (one["trace_id"], one["spans"], one["errors"], one["error"]) == (
        f"{TRACE:032x}",
        2,
        1,
        "Code(500)",
    )
    assert (one["started_us"], one["duration_us"]) == (BEGAN // 1_000, 3_000)
    assert (one["apps"], one["sampled"]) == (["cart", "checkout"], True)
    root = one["root"]
    assert (root["span_id"], root["parent_id"], root["src"], root["dst"]) == (
        f"{0xA1:016x}",
        "",
        "cart",
        "checkout",
    )
    assert root["status"] == "500"


def test_newest_trace_is_first_and_merging_is_the_same_as_summarising_together() -> None:
    early, late = a_span(context=ROOT), a_span(context=OTHER, start_ns=BEGAN + 9_000, end_ns=BEGAN + 10_000)
    child = a_span(context=CHILD, kind="SERVER", start_ns=BEGAN + 1_000, end_ns=BEGAN + 5_000_000)
    together = summarise([early, child, late])
    assert [one["trace_id"] for one in together] == [f"{0x77:032x}", f"{TRACE:032x}"]
    (a,), (b,) = summarise([early]), summarise([child])
    assert merged(a, b) == merged(b, a) == together[1]


@pytest.mark.parametrize(
    ("wanted", "is_let_through"),
    [
        (TraceFilter(), True),
        (TraceFilter(app="checkout"), True),
        (TraceFilter(app="other"), False),
        (TraceFilter(is_error=True), False),
        (TraceFilter(slower_us=2_000), True),
        (TraceFilter(slower_us=2_001), False),
        (TraceFilter(since_us=BEGAN // 1_000), True),
        (TraceFilter(since_us=BEGAN // 1_000 + 1), False),
    ],
)
def test_filter_lets_through_what_it_names(wanted: TraceFilter, is_let_through: bool) -> None:
    (one,) = summarise([a_span()])
    assert wanted.lets_through(one) is is_let_through


def test_span_is_told_with_attempts_timings_and_who_failed_it() -> None:
    tried = an_attempt(cause="connect", detail="connection refused", ended_ns=BEGAN + 1_000_000, status=0)
    span = span_of(a_call(cause="connect", status=502, tried=(tried,), decision="policy=web"), "cart")
    assert span is not None
    shown = told(span)["postern"]
    assert (shown["cause"], shown["made_by"], shown["decision"]) == ("connect", "this-proxy", "policy=web")
    assert (shown["tried"][0]["endpoint"], shown["tried"][0]["detail"]) == (
        "10.0.0.7:5000",
        "connection refused",
    )
    assert shown["timings_us"] == {
        "resolve": 0,
        "queue": 0,
        "connect": 2_000,
        "proxy_overhead": 0,
    }
    peers = span_of(a_call(status=403, said="denied"), "cart")
    assert peers is not None
    assert (told(peers)["postern"]["cause"], told(peers)["postern"]["made_by"]) == ("denied", "peer-proxy")


def test_span_without_a_call_tells_nothing_of_one() -> None:
    assert "postern" not in a_span().as_dict()
