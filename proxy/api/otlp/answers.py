"""How OTLP's requests are answered, over HTTP and gRPC. Pure.

Source: OTLP specification, "OTLP/HTTP response" and "OTLP/gRPC response".
"""

import json
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from proxy.api.dapr.codes import INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.contract.head import Headers
from sentry.wire import encode
from telemetry.otlp.target import Signal

FAILED_PRECONDITION: Final = 9
UNAVAILABLE: Final = 14
_HTTP: Final = {
    INVALID_ARGUMENT: 400,
    FAILED_PRECONDITION: 400,
    RESOURCE_EXHAUSTED: 413,
    UNIMPLEMENTED: 415,
    INTERNAL: 500,
    UNAVAILABLE: 503,
}
_AGAIN_S: Final = b"1"
_REJECTED: Final[Mapping[Signal, str]] = {
    "traces": "rejectedSpans",
    "metrics": "rejectedDataPoints",
    "logs": "rejectedLogRecords",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """Why a request is not taken. `code`: of gRPC."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class HttpAnswer(Struct, frozen=True):
    """A whole answer over HTTP."""

    status: int
    headers: Headers
    body: bytes


def http_taken(rejected: int, why: str, signal: Signal, *, is_json: bool) -> HttpAnswer:
    """200, with what was rejected."""
    if not is_json:
        return HttpAnswer(200, _headers(is_json=False), partial_success(rejected, why))
    partial = {_REJECTED[signal]: str(rejected), "errorMessage": why}
    body = json.dumps({"partialSuccess": partial} if rejected or why else {}).encode()
    return HttpAnswer(200, _headers(is_json=True), body)


def http_refused(refusal: Refusal, *, is_json: bool) -> HttpAnswer:
    """A google.rpc.Status, in the form that the request had."""
    headers = _headers(is_json=is_json)
    if refusal.code == UNAVAILABLE:
        headers = (*headers, (b"retry-after", _AGAIN_S))
    if is_json:
        body = json.dumps({"code": refusal.code, "message": refusal.text}).encode()
    else:
        body = encode(((1, refusal.code), (2, refusal.text.encode())))
    return HttpAnswer(_HTTP[refusal.code], headers, body)


def partial_success(rejected: int, why: str) -> bytes:
    """The answer's message: empty where all was taken."""
    return encode(((1, encode(((1, rejected), (2, why.encode())))),))


def _headers(*, is_json: bool) -> Headers:
    return ((b"content-type", b"application/json" if is_json else b"application/x-protobuf"),)
