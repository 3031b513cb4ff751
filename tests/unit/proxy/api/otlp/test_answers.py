"""How exports are answered."""

import json

import pytest

from proxy.api.otlp.answers import UNAVAILABLE, Refusal, http_refused, http_taken, partial_success
from telemetry.otlp.messages_pb2 import Response, RpcStatus
from telemetry.otlp.target import Signal


def test_all_taken_is_an_empty_message() -> None:
    assert partial_success(0, "") == b""
    assert http_taken(0, "", "traces", is_json=False).body == b""
    assert http_taken(0, "", "traces", is_json=True).body == b"{}"


_NAMES: tuple[tuple[Signal, str], ...] = (
    ("traces", "rejectedSpans"),
    ("metrics", "rejectedDataPoints"),
    ("logs", "rejectedLogRecords"),
)


def test_rejected_part_is_told_in_the_requests_form() -> None:
    read = Response.FromString(http_taken(300, "too läte", "traces", is_json=False).body).partial_success
    assert (read.rejected, read.error_message) == (300, "too läte")
    for signal, name in _NAMES:
        told = json.loads(http_taken(300, "late", signal, is_json=True).body)
        assert told == {"partialSuccess": {name: "300", "errorMessage": "late"}}


@pytest.mark.parametrize(("code", "status"), [(3, 400), (8, 413), (9, 400), (12, 415), (13, 500), (14, 503)])
def test_refusal_is_a_status_in_the_requests_form(code: int, status: int) -> None:
    refusal = Refusal(code, "no")
    packed, text = http_refused(refusal, is_json=False), http_refused(refusal, is_json=True)
    assert (packed.status, text.status) == (status, status)
    read = RpcStatus.FromString(packed.body)
    assert (read.code, read.message) == (code, "no")
    assert json.loads(text.body) == {"code": code, "message": "no"}
    assert dict(text.headers)[b"content-type"] == b"application/json"
    assert (b"retry-after" in dict(packed.headers)) == (code == UNAVAILABLE)
