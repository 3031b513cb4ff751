"""HTTP to OnInvoke and back, by Dapr's rules."""

import json
from base64 import b64encode
from typing import Any

import pytest

from proxy.api.dapr.callback import Ended, UnknownVerbError, http_answer, on_invoke
from proxy.api.dapr.common_pb2 import InvokeResponse
from proxy.api.dapr.invocation import answer_to
from proxy.api.server import LocalRequest
from proxy.wire.http_client import LocalResponse
from sentry.wire import encode

LIMIT = 4_194_304


def asked(method: str = "POST", target: str = "/items", **changes: Any) -> LocalRequest:
    return LocalRequest(method, target, **changes)


# --- the request ---------------------------------------------------------------------------------------------------------------


def test_request_is_told_whole() -> None:
    headers = ((b"content-type", b"text/plain"), (b"x-note", b"n"))
    message, metadata = on_invoke(asked("PUT", "/a%20b/c?x=1&y=%20", headers=headers, body=b"\x00body"))
    assert message.method == "a b/c"
    assert message.content_type == "text/plain"
    assert (message.data.value, message.data.type_url) == (b"\x00body", "")
    assert (message.http_extension.verb, message.http_extension.querystring) == (4, "x=1&y=%20")
    assert metadata == (("dapr-content-type", "text/plain"), ("x-note", "n"))


def test_type_of_a_packed_message_is_told() -> None:
    kinds = ((b"content-type", b"application/x-protobuf"), (b"dapr-type-content-type", b"a/b"))
    message, metadata = on_invoke(asked(headers=((b"dapr-type-url", b"x/Y%25"), *kinds)))
    assert (message.data.type_url, message.content_type) == ("x/Y%", "a/b")
    assert metadata == (("dapr-content-type", "application/x-protobuf"),)


def test_trace_is_told_in_both_forms() -> None:
    text = f"00-{'ab' * 16}-{'cd' * 8}-01"
    _, metadata = on_invoke(asked(headers=((b"traceparent", text.encode()),)))
    packed = b"\0\0" + b"\xab" * 16 + b"\1" + b"\xcd" * 8 + b"\2\1"
    assert metadata == (("grpc-trace-bin", packed), ("traceparent", text))
    assert on_invoke(asked(headers=((b"traceparent", b"x"),)))[1] == (("traceparent", "x"),)
    both = ((b"traceparent", text.encode()), (b"grpc-trace-bin", b"AAE="))  # as the engine writes them
    assert on_invoke(asked(headers=both))[1] == metadata


def test_call_without_a_verb_has_no_extension() -> None:
    message, _ = on_invoke(asked("NONE"))
    assert not message.HasField("http_extension")


@pytest.mark.parametrize("method", ["PROPFIND", "get", "QUERY"])
def test_verb_that_on_invoke_has_no_name_for(method: str) -> None:
    with pytest.raises(UnknownVerbError, match=method):
        on_invoke(asked(method))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ((b"accept", b"*/*"), ("dapr-accept", "*/*")),
        ((b"cookie", b"a=1"), ("dapr-cookie", "a=1")),
        ((b"authorization", b"Bearer x"), ("authorization", "Bearer x")),
        ((b"grpc-timeout", b"1S"), ("dapr-grpc-timeout", "1S")),
        ((b"postern-timeout", b"1000"), None),
        ((b"grpc-status-details-bin", b"AAE="), ("dapr-grpc-status-details-bin", b"\x00\x01")),
        ((b"grpc-trace-bin", b"AAE="), None),
        ((b"x-raw-bin", b"AAE="), ("x-raw-bin", b"\x00\x01")),
        ((b"x-raw-bin", b"AAE"), ("x-raw-bin", b"\x00\x01")),
        ((b"x-raw-bin", b"no base64!"), None),
        ((b"user-agent", b"curl"), None),
        ((b"x~y", b"not a name of gRPC"), None),
        ((b"x-name", "ü".encode()), None),
    ],
)
def test_fields_become_metadata(field: tuple[bytes, bytes], expected: tuple[str, str | bytes] | None) -> None:
    assert on_invoke(asked(headers=(field,)))[1] == (() if expected is None else (expected,))


# --- the answer, over HTTP -------------------------------------------------------------------------------------------------------


def response(value: bytes = b"ok", content_type: str = "a/b", type_url: str = "") -> InvokeResponse:
    made = InvokeResponse(content_type=content_type)
    made.data.value, made.data.type_url = value, type_url
    return made


def test_answer_is_told_with_its_metadata() -> None:
    initial = (
        ("x-app", "a"),
        ("grpc-accept-encoding", "gzip"),
        ("x-raw-bin", b"\x00"),
        ("content-type", "application/grpc"),
        ("postern-error", "denied"),
    )
    found = http_answer("cart", Ended(code=0, response=response(), initial=initial))
    assert (found.status, found.body) == (200, b"ok")
    assert found.headers == (
        (b"x-app", b"a"),
        (b"dapr-grpc-accept-encoding", b"gzip"),
        (b"postern-grpc-header-x-raw-bin", b"AA=="),
        (b"postern-grpc-status", b"0"),
        (b"content-type", b"a/b"),
    )


def test_packed_answer_is_protobuf_and_absent_type_stays_absent() -> None:
    packed = dict(http_answer("cart", Ended(code=0, response=response(type_url="x/Y"))).headers)
    assert packed[b"content-type"] == b"application/x-protobuf"
    bare = dict(http_answer("cart", Ended(code=0, response=response(content_type=""))).headers)
    assert b"content-type" not in bare


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1, 408),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ],
)
def test_status_of_the_app_has_the_http_status_that_dapr_gives_it(code: int, status: int) -> None:
    found = http_answer("cart", Ended(code=code, text="why"))
    assert (found.status, json.loads(found.body)) == (status, {"code": code, "message": "why", "details": []})


def test_details_are_told_by_their_types() -> None:
    packed = encode(((1, b"type.googleapis.com/x.Y"), (2, b"\x08\x01")))
    trailing = (("grpc-status-details-bin", encode(((1, 9), (2, b"why"), (3, packed)))),)
    told = json.loads(http_answer("cart", Ended(code=9, text="why", trailing=trailing)).body)
    assert told["details"] == [{"@type": "type.googleapis.com/x.Y", "value": b64encode(b"\x08\x01").decode()}]
    broken = (("grpc-status-details-bin", b"\x1a\x05a"),)
    assert json.loads(http_answer("cart", Ended(code=9, trailing=broken)).body)["details"] == []


def test_method_that_the_app_does_not_have_is_told_plainly() -> None:
    found = http_answer("cart", Ended(code=12, text="Method not found!"))
    message = json.loads(found.body)["message"]
    assert found.status == 501
    assert message.startswith("Method not found!; the app speaks gRPC and does not implement")


def test_failure_on_the_way_to_the_app_is_a_failure_of_ours() -> None:
    ended = Ended(code=14, text="the app cart is down", trailing=(("postern-error", "app-down"),))
    found = http_answer("cart", ended, "ab")
    assert (found.status, dict(found.headers)[b"postern-error"]) == (500, b"app-down")
    assert json.loads(found.body) == {
        "errorCode": "ERR_DIRECT_INVOKE",
        "message": "failed to invoke, id: cart, err: the app cart is down",
        "details": [{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "ab"}],
    }


# --- and by InvokeService ----------------------------------------------------------------------------------------------------------


def through(ended: Ended) -> Any:
    """What a caller of InvokeService gets of it."""
    found = http_answer("cart", ended)
    dated = LocalResponse(found.status, (*found.headers, (b"date", b"today")), found.body)
    return answer_to("cart", dated, LIMIT)


def test_answer_of_a_grpc_app_comes_back_as_the_app_gave_it() -> None:
    ended = Ended(
        code=0,
        response=response(type_url="type.googleapis.com/x.Y", content_type=""),
        initial=(("x-app", "a"), ("x-raw-bin", b"\x00")),
        trailing=(("x-trailer", "t"), ("x-trailer-bin", b"\x00\xff")),
    )
    found = through(ended)
    assert (found.code, found.initial, found.trailing) == (0, ended.initial, ended.trailing)
    assert found.response.data == response(type_url="type.googleapis.com/x.Y").data


def test_status_of_a_grpc_app_comes_back_as_the_app_gave_it() -> None:
    ended = Ended(
        code=9,
        text="not ready: ümläut %\n",
        initial=(("x-app", "a"),),
        trailing=(("grpc-status-details-bin", b"\x08\x09"), ("x-failed", "yes")),
    )
    found = through(ended)
    assert (found.code, found.message, found.response) == (9, ended.text, None)
    assert (found.initial, found.trailing) == (ended.initial, ended.trailing)


def test_answer_that_does_not_fit_is_told_as_such() -> None:
    found = answer_to("cart", http_answer("cart", Ended(code=0, response=response(b"x" * 100))), 50)
    assert found.code == 8


def test_metadata_that_is_not_ascii_is_left_out() -> None:
    found = http_answer(
        "cart",
        Ended(code=5, text="no", initial=(("x-a", "\u20ac"),), trailing=(("x-b", "\u20ac"), ("x-c", "1"))),
    )
    assert [name for name, _ in found.headers if b"x-" in name] == [b"postern-grpc-trailer-x-c"]
