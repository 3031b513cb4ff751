"""InvokeService to HTTP and back, by Dapr's rules."""

import json
from typing import Any

import pytest

from proxy.api.dapr.common_pb2 import HTTPExtension, InvokeRequest
from proxy.api.dapr.invocation import Answer, HttpCall, Metadata, answer_to, http_call, too_large
from proxy.api.dapr.runtime_pb2 import InvokeServiceRequest
from proxy.contract.head import Headers
from proxy.wire.http_client import LocalResponse
from tests.support.error_details import error_info, request_id

LIMIT = 4_194_304
HEAD_LIMIT = 16_384
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_BIN = bytes.fromhex("00000af7651916cd43dd8448eb211c80319c01b7ad6b71692033310201")


def asked(
    method: str = "items", *, verb: str = "POST", query: str = "", **message: Any
) -> InvokeServiceRequest:
    extension = HTTPExtension(verb=verb, querystring=query)
    return InvokeServiceRequest(
        id="cart", message=InvokeRequest(method=method, http_extension=extension, **message)
    )


def call_of(request: InvokeServiceRequest, metadata: Metadata = ()) -> HttpCall:
    found = http_call(request, metadata, HEAD_LIMIT)
    assert isinstance(found, HttpCall), found
    return found


def refused(request: InvokeServiceRequest) -> Answer:
    found = http_call(request, (), HEAD_LIMIT)
    assert isinstance(found, Answer), found
    assert (found.code, found.response, found.initial) == (13, None, ())
    return found


# --- the request ---------------------------------------------------------------------------------------------------------------


def test_request_is_an_http_call_of_the_callee() -> None:
    request = asked("items", verb="PUT", query="a=1&b=%20", content_type="text/plain")
    request.message.data.value = b"\x00body"
    assert call_of(request) == HttpCall(
        "PUT", "/items?a=1&b=%20", (("dapr-app-id", "cart"), ("content-type", "text/plain")), b"\x00body"
    )


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_verb_is_kept(verb: str) -> None:
    assert call_of(asked(verb=verb)).method == verb


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("", "/"),
        ("/a/b", "/a/b"),
        ("//a", "/a"),
        ("a b", "/a%20b"),
        ("a%20b", "/a%20b"),
        ("a%3Fb", "/a%3Fb"),
        ("你", "/%E4%BD%A0"),
        ("a\r\nx: y", "/a%0D%0Ax:%20y"),
        ("http://evil/x", "/http://evil/x"),
        ("v1.0/metadata", "/v1.0/metadata"),
    ],
)
def test_method_becomes_a_path(method: str, target: str) -> None:
    assert call_of(asked(method)).target == target


@pytest.mark.parametrize(
    ("query", "sent"),
    [("a=%zz&b=1;c", "a=%zz&b=1;c"), ("a b#c", "a%20b%23c"), ("x\r\ny", "x%0D%0Ay"), ("?", "?")],
)
def test_query_is_sent_as_it_is_but_for_what_would_break_the_request(query: str, sent: str) -> None:
    assert call_of(asked(query=query)).target == f"/items?{sent}"


def test_packed_message_is_protobuf_whatever_the_content_type_says() -> None:
    request = asked(content_type="text/plain")
    request.message.data.type_url = "type.googleapis.com/x.Y %"
    found = dict(call_of(request).headers)
    assert found["content-type"] == "application/x-protobuf"
    assert found["dapr-type-url"] == "type.googleapis.com/x.Y%20%25"
    assert found["dapr-type-content-type"] == "text/plain"


def test_absent_content_type_stays_absent() -> None:
    assert call_of(asked()).headers == (("dapr-app-id", "cart"),)


def test_content_type_can_add_no_field() -> None:
    found = dict(call_of(asked(content_type="a/b\r\nx: y")).headers)
    assert found["content-type"] == "a/b%0D%0Ax: y"


def test_metadata_becomes_fields() -> None:
    metadata: Metadata = (
        ("x-note", "one"),
        ("x-note", "two"),
        ("user-agent", "grpc-go/1"),
        ("authorization", "Bearer x"),
        ("grpc-accept-encoding", "gzip"),
        ("x-raw-bin", b"\x00"),
        *((name, "x") for name in ("te", "connection", "host", "content-length", "content-type", "expect")),
        ("dapr-api-token", "secret"),
        ("dapr-app-id", "other"),
    )
    assert call_of(asked(), metadata).headers == (
        ("dapr-app-id", "cart"),
        ("x-note", "one"),
        ("x-note", "two"),
        ("user-agent", "grpc-go/1"),
        ("authorization", "Bearer x"),
        ("dapr-grpc-accept-encoding", "gzip"),
        ("x-raw-bin", "AA=="),
    )


def test_trace_in_binary_form_goes_on_where_no_field_names_it() -> None:
    assert dict(call_of(asked(), (("grpc-trace-bin", TRACE_BIN),)).headers)["traceparent"] == TRACE
    both = call_of(asked(), (("grpc-trace-bin", TRACE_BIN), ("traceparent", "mine")))
    assert [value for name, value in both.headers if name == "traceparent"] == ["mine"]
    assert "traceparent" not in dict(call_of(asked(), (("grpc-trace-bin", b"short"),)).headers)


def test_call_without_a_verb_has_one_of_its_own() -> None:
    """The callee's proxy knows whether its app wants one."""
    bare = InvokeServiceRequest(id="cart", message=InvokeRequest(method="x"))
    assert call_of(bare).method == call_of(asked(verb="NONE")).method == "NONE"


def test_call_that_is_no_http_request_is_refused() -> None:
    assert "http_extension.verb" in refused(asked(verb="CONNECT")).message
    unknown = InvokeServiceRequest.FromString(
        InvokeServiceRequest(id="cart", message=InvokeRequest(method="x")).SerializeToString()
        + b"\x1a\x04\x22\x02\x08\x63"  # message.http_extension.verb = 99
    )
    assert "http_extension.verb" in refused(unknown).message


@pytest.mark.parametrize("method", ["items?a=1", "items#a", "?"])
def test_method_with_a_query_or_fragment_is_refused(method: str) -> None:
    assert "http_extension.querystring" in refused(asked(method)).message


@pytest.mark.parametrize("app_id", ["", "a b", "a\r\nx: y", "ä", "a\x00"])
def test_app_id_that_no_field_can_carry_is_refused(app_id: str) -> None:
    request = asked()
    request.id = app_id
    assert refused(request).message.startswith(f"failed to invoke, id: {app_id}, err: invalid app-id")


@pytest.mark.parametrize("long", ["id", "method", "query", "content_type", "type_url"])
def test_what_no_head_can_hold_is_refused_before_it_is_looked_at(long: str) -> None:
    request = asked()
    places = {"id": request, "query": request.message.http_extension, "type_url": request.message.data}
    setattr(places.get(long, request.message), "querystring" if long == "query" else long, "你" * HEAD_LIMIT)
    found = http_call(request, (), HEAD_LIMIT)
    assert isinstance(found, Answer)
    assert found.code == 8
    assert "longer than 16384 bytes" in found.message
    assert "--read-buffer-size" in found.message
    assert len(found.message) < 300


def test_what_just_fits_is_called() -> None:
    method = "m" * (HEAD_LIMIT - len("cart"))
    assert call_of(asked(method)).target == f"/{method}"
    assert isinstance(http_call(asked(f"{method}m"), (), HEAD_LIMIT), Answer)


# --- the answer ------------------------------------------------------------------------------------------------------------------


def answer(status: int = 200, headers: Headers = (), body: bytes = b"", limit: int = LIMIT) -> Answer:
    return answer_to("cart", LocalResponse(status, headers, body), limit)


def test_answer_of_an_app_becomes_a_response() -> None:
    found = answer(
        201,
        (
            (b"content-type", b"text/plain"),
            (b"X-App", b"cart"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"date", b"today"),
            (b"content-length", b"2"),
            (b"grpc-status", b"5"),
            (b"x-raw-bin", b"AAA="),
            (b"dapr-http-status", b"999"),
            (b"x~y", b"not a name of gRPC"),
            (b"x-name", "ü".encode()),
        ),
        b"ok",
    )
    assert found.code == 0
    assert found.response is not None
    assert (found.response.data.value, found.response.data.type_url) == (b"ok", "")
    assert found.response.content_type == "text/plain"
    assert found.initial == (
        ("dapr-content-type", "text/plain"),
        ("x-app", "cart"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("dapr-date", "today"),
        ("dapr-content-length", "2"),
        ("dapr-grpc-status", "5"),
        ("dapr-http-status", "201"),
    )


def test_error_of_an_app_is_told_with_its_status_and_the_start_of_its_body() -> None:
    found = answer(404, ((b"x-app", b"cart"),), b"no such item")
    assert (found.code, found.message, found.response) == (5, "Not Found", None)
    assert found.initial == (("x-app", "cart"), ("dapr-http-status", "404"))
    ((key, details),) = found.trailing
    assert key == "grpc-status-details-bin"
    told = {
        "reason": "Not Found",
        "domain": "dapr.io",
        "http.code": "404",
        "http.error_message": "no such item",
    }
    assert error_info(details) == (5, "Not Found", told)


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"x" * 63, "x" * 63), (b"x" * 64, "x" * 63), (b"x" * 5_000, "x" * 63), (b"\xff", "�"), (b"", "")],
)
def test_error_body_is_cut_as_dapr_cuts_it(body: bytes, told: str) -> None:
    ((_, details),) = answer(500, (), body).trailing
    assert error_info(details)[2]["http.error_message"] == told


def test_failure_of_a_sidecar_is_internal_with_its_text() -> None:
    body = json.dumps(
        {"errorCode": "ERR_DIRECT_INVOKE", "message": "failed to invoke, id: cart, err: why"}
    ).encode()
    found = answer(403, ((b"postern-error", b"denied"), (b"content-type", b"application/json")), body)
    assert found == Answer(
        code=13, message="failed to invoke, id: cart, err: why", trailing=(("postern-error", "denied"),)
    )


def test_failure_of_a_sidecar_has_the_trace_of_its_call() -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = answer(403, ((b"postern-error", b"denied"), (b"traceparent", trace)), b'{"message": "why"}')
    told = dict(found.trailing)
    assert told["traceparent"] == trace.decode()
    details = told["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    assert request_id(details) == (13, found.message, "0af7651916cd43dd8448eb211c80319c")


def test_failure_of_a_sidecar_names_the_callee_whatever_said_it() -> None:
    body = json.dumps({"errorCode": "ERR_BAD_REQUEST", "message": "bad request: why"}).encode()
    found = answer(400, ((b"postern-error", b"bad-request"),), body)
    assert found.message == "failed to invoke, id: cart, err: bad request: why"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"3", b"[" * 100_000])
def test_failure_of_a_sidecar_whose_text_cannot_be_read(body: bytes) -> None:
    found = answer(431, ((b"postern-error", b"bad-request"),), body)
    assert (found.code, found.message) == (13, "failed to invoke, id: cart, err: HTTP status 431")


def test_answer_counts_with_its_envelope() -> None:
    fits = answer(body=b"x" * 100, limit=104)
    assert fits.response is not None
    assert fits.response.ByteSize() == 104
    assert answer(body=b"x" * 100, limit=103) == too_large("cart", 103)
    assert too_large("cart", 103).code == 8


@pytest.mark.parametrize(
    ("cause", "code"), [("timeout", 4), ("breaker-open", 2), ("breaker-probing", 2), ("app-down", 13)]
)
def test_cause_has_its_code(cause: str, code: int) -> None:
    found = answer(500, ((b"postern-error", cause.encode()),), b'{"message": "why"}')
    assert (found.code, found.trailing) == (code, (("postern-error", cause),))


@pytest.mark.parametrize(
    "said",
    [
        (b"postern-grpc-status", b"many"),
        (b"postern-grpc-status", b"\xb2"),
        (b"postern-grpc-trailer-x-bin", b"!a"),
    ],
)
def test_answer_of_a_proxy_that_says_nonsense_is_a_failure(said: tuple[bytes, bytes]) -> None:
    found = answer_to("cart", LocalResponse(200, (said, (b"postern-grpc-status", b"0")), b""), LIMIT)
    assert (found.code, found.trailing) == (13, (("postern-error", "invalid-answer"),))


def test_metadata_that_grpc_cannot_carry_is_left_out() -> None:
    names = (b"x y", b"grpc-status", b"x-text", b"x-good")
    values = (b"1", b"0", b"\xff", b"1")
    fields = [(b"postern-grpc-trailer-" + name, value) for name, value in zip(names, values, strict=True)]
    found = answer_to("cart", LocalResponse(200, ((b"postern-grpc-status", b"5"), *fields), b""), LIMIT)
    assert (found.code, found.trailing) == (5, (("x-good", "1"),))
