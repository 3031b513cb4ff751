"""The native engine's writer of spans beside Python's: the same call, the same bytes for Zipkin."""

from http import HTTPStatus
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.engine import SpanLabels
from proxy.contract.head import RequestHead
from proxy.contract.outcome import Attempt, NotRetried, Outcome
from proxy.contract.plan import Cause, Labels
from proxy.control.call_spans import CallSpans
from proxy.control.hop_tracing import ContextSpan
from proxy.control.observer import Reporter
from proxy.engine.native.parts import spans_parts
from telemetry.calls import CallRecorder
from telemetry.context import SpanContext
from telemetry.logs import get_logger
from telemetry.metrics import Meters
from telemetry.spans import SpanForm
from telemetry.tracing import Tracer
from telemetry.zipkin import encode_spans

native = pytest.importorskip("proxy.engine.native._native")

_PHRASES: Final = [(status.value, status.phrase) for status in HTTPStatus]
# Unassigned code points may have a lower case in the newer of two tables.
_TEXT: Final = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=8)
_PIECES: Final = st.sampled_from(
    (
        *(
            "/",
            "//",
            "a",
            "Items",
            ".",
            "..",
            ";",
            "%",
            "%2e",
            "%2F",
            "%41",
            "%C3%A4",
            "%ff",
            "%00",
            "?",
            "#",
        ),
        *('"', "\\", "\x00", "\x08\t\n\x0c\r\x1b\x1f", "\x7f", "\x9b", "\u2028", "\ufffd", "ΑΣ", "İ", "𐐀"),
        *(
            "/v1.0/invoke/cart/method",
            "/method/",
            "healthz",
            "/healthz",
            "x" * 1_020,
            "ä" * 1_024,
            "shop.Cart/Get",
        ),
    )
)
_PATHS: Final = st.lists(_PIECES | _TEXT, max_size=8).map("".join)
_ADDRESSES: Final = st.sampled_from(
    (
        *(
            "",
            "10.1.2.3:80",
            "[::1]:50002",
            "[fe80::1%eth0]:7",
            "[fe80::1%]:7",
            "[::1%a%b]:7",
            "unix:/run/app.sock",
        ),
        *(
            "localhost:8080",
            "010.1.2.3:80",
            "1.2.3.4%x:1",
            "1.2.3.4:",
            ":80",
            "1.2.3.4:123456",
            "1.2.3.4:00080",
            "[]:1",
        ),
        *("[::ffff:1.2.3.4]:1", "1.2.3.4:0", "::1:80", "1.2.3.4:٣", "[::1:5"),
    )
)
_TIMES: Final = st.sampled_from(
    (0, 999, 1_000, 4_999_999, 5_000_000, 6_000_001, 1_700_000_000_123_456_789)
) | (st.integers(0, 2**62))
_LENGTHS: Final = st.sampled_from((0, 4_999_999, 5_000_000)) | st.integers(0, 2**60)
_CODES: Final = st.none() | st.integers(0, 20)
_STATUSES: Final = st.sampled_from(
    (0, 101, 200, 204, 301, 399, 400, 404, 413, 418, 422, 499, 500, 503, 599, 999)
)
_CAUSES: Final = st.none() | st.sampled_from(list(Cause))
_ATTEMPTS: Final = st.builds(
    Attempt,
    *(_ADDRESSES, _TIMES, _TIMES, _TIMES, _CAUSES, _STATUSES, _CODES, _TEXT, _CAUSES),
    sent_ns=_TIMES,
    queue_ns=_LENGTHS,
    fault=st.sampled_from(("", "slow", "slow,broken")),
)
_LABELS: Final = st.builds(
    Labels,
    direction=st.sampled_from(("outbound", "inbound")),
    surface=st.sampled_from(("own", "dapr")),
    src=st.sampled_from(("", "web", "Web")) | _TEXT,
    dst=st.sampled_from(("cart", "CartÄ")) | _TEXT.filter(bool),
    decision=st.sampled_from(("", "allow", 'rule "x"')) | _TEXT,
    strip=st.booleans(),
    is_grpc_web=st.booleans(),
)
_IDS: Final = st.integers(1, 2**64 - 1)
_CONTEXTS: Final = st.builds(
    SpanContext, st.integers(1, 2**128 - 1), _IDS, st.just(0) | _IDS, sampled=st.just(value=True)
)


_BAGGAGE: Final = st.lists(
    st.lists(
        st.sampled_from(
            (
                *(
                    b"tenant=a",
                    b"tenant = b ;p=1",
                    b"Tenant=c",
                    b"user=%C3%A4",
                    b"user=%ff%C3",
                    b"user=%E2%82",
                    b"x",
                ),
                *(b"", b"user=" + b"%20" * 300, b"tenant=%22%0a", b"tenant==", b"user=%f0%90%80", b"user=%4"),
            )
        ),
        max_size=3,
    ).map(lambda members: (b"baggage", b",".join(members))),
    max_size=2,
).map(tuple)
_FORMS: Final = st.builds(
    SpanForm,
    conventions=st.sampled_from(("dapr", "otel", "both")),
    captures_query=st.booleans(),
    baggage=st.sampled_from(((), ("tenant",), ("user", "tenant", "none"))),
)


@st.composite
def _outcomes(draw: st.DrawFn) -> Outcome:
    head = RequestHead(
        listener="http",
        protocol=draw(st.sampled_from(("http1", "http2", "grpc", "websocket"))),
        framing="none",
        method=draw(st.sampled_from(("GET", "POST", "PROPFIND", 'É"\\\x01'))),
        authority="",
        target=b"",
        path=draw(_PATHS),
        query=draw(st.sampled_from((b"", b"a=1", b'x="\\\xe4', b"q" * 1_025)) | st.binary(max_size=8)),
        headers=draw(_BAGGAGE),
        peer_address=draw(_ADDRESSES | st.sampled_from(("10.1.2.3", "::1", "fe80::1%eth0"))),
    )
    return Outcome(
        head=head,
        labels=draw(_LABELS),
        trace=ContextSpan(draw(_CONTEXTS)),
        started_ns=draw(_TIMES),
        head_ns=draw(_TIMES),
        ended_ns=draw(_TIMES),
        status=draw(_STATUSES),
        grpc_code=draw(_CODES),
        cause=draw(_CAUSES),
        attempts=draw(st.lists(_ATTEMPTS, max_size=3) | st.lists(_ATTEMPTS, min_size=16, max_size=18)),
        up_bytes=0,
        down_bytes=0,
        not_retried=draw(st.none() | st.sampled_from(NotRetried)),
        resolve_ns=draw(_LENGTHS),
        queue_ns=draw(_LENGTHS),
        authorize_ns=draw(_LENGTHS),
    )


def _reporter(service: str, form: SpanForm, *, hides_paths: bool) -> tuple[Reporter, Tracer]:
    meters, tracer = Meters(service), Tracer(service)
    recorder = CallRecorder(service, "shop", meters, tracer, form=form)
    return Reporter(recorder, meters, get_logger("test"), hides_paths=hides_paths), tracer


def _by_python(outcome: Outcome, service: str, form: SpanForm, *, hides_paths: bool) -> bytes | None:
    reporter, tracer = _reporter(service, form, hides_paths=hides_paths)
    reporter.traced(outcome)
    spans = tracer.recent()
    return encode_spans(spans)[1:-1] if spans else None


def _by_rust(outcome: Outcome, service: str, form: SpanForm, *, hides_paths: bool) -> bytes | None:
    reporter, _ = _reporter(service, form, hides_paths=hides_paths)
    spans = reporter.spans
    assert isinstance(spans, CallSpans)
    labels, wanted = spans.labels(outcome.labels), spans.wanted
    assert wanted is not None
    assert isinstance(labels, SpanLabels)
    assert isinstance(outcome.trace, ContextSpan)
    head, context = outcome.head, outcome.trace.context
    upper, lower = divmod(context.trace_id, 2**64)
    written: bytes | None = native.zipkin_span(
        (
            *(head.protocol, head.method.encode("latin-1"), head.path, head.query, list(head.headers)),
            head.peer_address,
        ),
        labels,
        spans_parts(wanted, _PHRASES),
        (upper, lower, context.span_id, context.parent_id),
        (
            *(outcome.started_ns, outcome.head_ns, outcome.ended_ns),
            *(outcome.status, outcome.grpc_code, outcome.cause and outcome.cause.value),
            outcome.not_retried and outcome.not_retried.value,
            *(outcome.resolve_ns, outcome.queue_ns, outcome.authorize_ns),
        ),
        [_parts(attempt) for attempt in outcome.attempts],
    )
    return written


def _parts(attempt: Attempt) -> tuple[Any, ...]:
    cause, said = (one and one.value for one in (attempt.cause, attempt.said))
    times = (attempt.started_ns, attempt.head_ns, attempt.ended_ns)
    return (
        *(attempt.endpoint, *times, cause, attempt.status, attempt.grpc_code, attempt.detail),
        *((said, attempt.fault), attempt.sent_ns, attempt.queue_ns),
    )


@given(
    outcome=_outcomes(), service=st.sampled_from(("web", 'Wéb "1"')), form=_FORMS, hides_paths=st.booleans()
)
def test_spans_are_written_alike(outcome: Outcome, service: str, form: SpanForm, hides_paths: bool) -> None:
    written = _by_rust(outcome, service, form, hides_paths=hides_paths)
    assert written == _by_python(outcome, service, form, hides_paths=hides_paths)
