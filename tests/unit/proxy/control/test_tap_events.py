"""A call as a tap tells it."""

from typing import Any

from msgspec.structs import replace

from proxy.contract.outcome import Attempt, Outcome
from proxy.contract.plan import Cause
from proxy.control.tap_events import KEYS, end_of, request_of, response_of
from telemetry.context import SpanContext
from telemetry.spans import PATH_LIMIT
from telemetry.split import MAX_ATTEMPTS
from tests.unit.proxy.control.test_observer import LABELS, outcome, told

MS = 1_000_000


def shown(one: Outcome) -> dict[str, Any]:
    return end_of(told(one), one)


def test_call_is_told_with_identity_attempts_and_where_its_time_went() -> None:
    failed = Attempt("10.0.0.1:5000", 2 * MS, 0, 5 * MS, Cause.CONNECT, detail="refused")
    good = Attempt("10.0.0.2:5000", 6 * MS, 20 * MS, 26 * MS, None, 200, sent_ns=9 * MS)
    event = shown(outcome(attempts=[failed, good], started_ns=MS, head_ns=20 * MS, ended_ns=26 * MS))
    assert event["peer"] == "spiffe://public/ns/shop/web"
    assert event["mtls"] is True
    assert (event["cause"], event["made_by"], event["attempts"]) == (None, None, 2)
    assert event["timings_us"] == {
        "resolve": 0,
        "queue": 0,
        "connect": 3_000,
        "upstream_ttfb": 11_000,
        "body": 6_000,
        "retries": 4_000,
        "proxy_overhead": 1_000,
    }
    assert sum(event["timings_us"].values()) == event["duration_us"]
    first, second = event["tried"]
    assert (first["endpoint"], first["cause"], first["detail"]) == ("10.0.0.1:5000", "connect", "refused")
    assert (first["connect_us"], first["upstream_ttfb_us"], first["took_us"]) == (None, None, 3_000)
    assert (second["start_us"], second["connect_us"], second["upstream_ttfb_us"]) == (5_000, 3_000, 11_000)


def test_answer_of_a_proxy_says_which_one_made_it() -> None:
    ours = shown(outcome(cause=Cause.DENIED, status=403, attempts=[]))
    assert (ours["cause"], ours["made_by"]) == ("denied", "this-proxy")
    peers = shown(outcome(status=403, attempts=[Attempt("10.0.0.1:5", 10, 20, 30, said=Cause.DENIED)]))
    assert (peers["cause"], peers["made_by"]) == ("denied", "peer-proxy")
    apps = shown(outcome(cause=Cause.STATUS, status=500))
    assert (apps["cause"], apps["made_by"]) == (None, None)


def test_mutual_tls_is_claimed_only_of_what_was_sent_under_it() -> None:
    assert shown(outcome(attempts=[Attempt("10.0.0.1:5", 10)]))["mtls"] is None
    plain = replace(LABELS, peer_id="")
    sent = [Attempt("10.0.0.1:5", 10, sent_ns=20)]
    assert shown(outcome(labels=plain, attempts=sent))["mtls"] is False
    assert shown(outcome(labels=replace(LABELS, direction="inbound")))["mtls"] is True
    assert shown(outcome(labels=replace(plain, direction="inbound")))["mtls"] is False


def test_long_paths_and_many_attempts_are_cut() -> None:
    event = shown(outcome("/" + "x" * 5_000, attempts=[Attempt("10.0.0.1:5", 10)] * 100))
    assert len(event["path"]) == PATH_LIMIT
    assert event["path"].endswith("…")
    assert event["attempts"] == 100
    assert len(event["tried"]) == MAX_ATTEMPTS


def test_query_and_headers_are_not_told() -> None:
    event = shown(outcome("/x?card=4242"))
    assert event["path"] == "/x"
    assert "4242" not in str(event)


def test_request_and_answer_have_the_calls_facts_and_the_headers_that_are_asked_for() -> None:
    call = told(outcome("/x?secret=1", started_ns=MS))
    request = request_of(call, ((b"x-a", b"1"), (b"x-a", b"2")))
    answer = response_of(call, 200, 3 * MS, ())
    assert request["headers"] == {"x-a": "1, 2"}
    assert (answer["status"], answer["ttfb_us"], answer["headers"]) == (200, 2_000, {})
    for event in (request, answer):
        assert (event["src"], event["dst"], event["verb"], event["path"]) == ("web", "cart", "GET", "/x")
        assert event["trace_id"] == f"{0xABC:032x}"
        assert "secret" not in str(event)
    assert (request["time"], answer["time"]) == (
        "1970-01-01T00:00:00.001000000Z",
        "1970-01-01T00:00:00.003000000Z",
    )


def test_every_key_is_described_with_the_events_that_have_it() -> None:
    call = told(outcome())
    told_of = {
        "request": request_of(call, ()),
        "response": response_of(call, 200, 9, ()),
        "end": end_of(call, outcome()),
    }
    added = {"event", "id", "under_way"}  # by the tap
    for event, facts in told_of.items():
        assert facts.keys() | added == {key for key, (of, _) in KEYS.items() if event in of or of == "all"}


def test_span_that_is_not_known_is_not_told() -> None:
    call = replace(told(outcome()), context=SpanContext(0, 0, 0, sampled=False))
    assert request_of(call, ())["trace_id"] is None
