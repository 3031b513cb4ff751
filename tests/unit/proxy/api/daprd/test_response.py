"""Answers in envelopes."""

import json

import pytest

from proxy.api.daprd.framing import WireError
from proxy.api.daprd.internals_pb2 import InternalInvokeResponse
from proxy.api.daprd.response import answered, cause_of, failed, meant, response_envelope, told
from proxy.contract.head import Headers
from proxy.contract.plan import Cause


def test_answer_of_an_app_is_in_the_envelope() -> None:
    headers: Headers = (
        *((b"content-type", b"text/plain"), (b"content-length", b"9"), (b"set-cookie", b"a=1")),
        *((b"set-cookie", b"b=2"), (b"connection", b"close"), (b"x-raw-bin", b"AA==")),
    )
    made = response_envelope(201, headers)
    assert (made.status.code, made.message.content_type) == (201, "text/plain")
    assert {name: list(found.values) for name, found in made.headers.items()} == {
        "Content-Type": ["text/plain"],
        "Set-Cookie": ["a=1", "b=2"],
    }


def test_answer_of_a_grpc_app_keeps_its_status() -> None:
    headers: Headers = (
        *((b"content-type", b"application/json"), (b"postern-grpc-status", b"9")),
        *((b"postern-grpc-message", b"not%20ready"), (b"postern-grpc-trailer-x-t", b"1"), (b"x-h", b"2")),
    )
    made = response_envelope(400, headers)
    assert (made.status.code, made.status.message) == (9, "not ready")
    assert list(made.trailers["x-t"].values) == ["1"]
    assert list(made.headers["X-H"].values) == ["2"]


def test_http_answer_of_a_daprd_is_passed_on() -> None:
    response = InternalInvokeResponse()
    response.status.code = 404
    response.message.content_type = "text/plain"
    for name in ("X-A", "Content-Length", "Connection", "Postern-Error"):
        response.headers[name].values.append("1")
    found = answered(response, "cart")
    assert (found.status, dict(found.headers)) == (404, {b"x-a": b"1", b"content-type": b"text/plain"})


def test_grpc_answer_of_a_daprd_has_daprs_status_and_words() -> None:
    response = InternalInvokeResponse()
    response.status.code, response.status.message = 5, "no such thing"
    found = answered(response, "cart")
    assert found.status == 404
    assert json.loads(found.body)["message"] == "no such thing"


def test_answer_without_a_message_is_a_stream_of_events() -> None:
    response = InternalInvokeResponse()
    response.status.SetInParent()
    response.headers["Cache-Control"].values.append("no-cache")
    found = answered(response, "cart")
    assert found.status == 200
    assert dict(found.headers)[b"content-type"] == b"text/event-stream"


@pytest.mark.parametrize("code", [-1, 17, 99, 100, 199, 1_000])
def test_status_of_neither_kind_is_refused(code: int) -> None:
    response = InternalInvokeResponse()
    response.status.code = code
    with pytest.raises(WireError):
        answered(response, "cart")
    with pytest.raises(WireError):
        answered(InternalInvokeResponse(), "cart")


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.DENIED, 7),
        (Cause.BAD_REQUEST, 3),
        (Cause.APP_DOWN, 13),
        (Cause.UNSUPPORTED, 13),
        (Cause.DRAINING, 14),
    ],
)
def test_daprd_is_told_why_in_its_own_codes(cause: Cause, code: int) -> None:
    body = json.dumps({"message": "failed to invoke, id: web, err: because"}).encode()
    error = told(cause, body, "web")
    assert (error.code, str(error)) == (code, "because")
    assert str(told(cause, b"no json", "web")) == cause.value


def test_daprd_is_told_of_a_limit_with_a_name_by_a_code_of_its_own() -> None:
    assert told(Cause.RATE, b"", "web").code == 13
    assert told(Cause.RATE, b"", "web", ((b"ratelimit", b'"a";r=0;t=1'),)).code == 8


def test_only_a_proxys_word_is_a_cause() -> None:
    assert cause_of(((b"postern-error", b"denied"),)) is Cause.DENIED
    assert cause_of(((b"postern-error", b"x"),)) is None
    assert cause_of(()) is None


@pytest.mark.parametrize(
    ("surface", "status", "code"), [(b"dapr", 403, "ERR_DIRECT_INVOKE"), (b"own", 403, "ERR_DENIED")]
)
def test_failure_is_told_in_the_words_of_its_surface(surface: bytes, status: int, code: str) -> None:
    fields: Headers = (
        (b"postern-surface", surface),
        (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
    )
    cause, text = meant(7, "access\x01 denied", b"")
    found = failed(fields, cause, text, "cart")
    said = json.loads(found.body)
    assert (found.status, said["errorCode"]) == (status, code)
    assert said["details"][0]["requestId"] == "a" * 32
    assert "code = PermissionDenied desc = access" in said["message"]


def test_word_of_a_proxy_of_ours_goes_before_the_code() -> None:
    assert meant(14, "x", b"connect") == (Cause.CONNECT, "x")
    assert meant(13, "x", b"")[0] is Cause.APP_DOWN
    assert meant(99, "x", b"")[0] is Cause.RESET_EARLY
