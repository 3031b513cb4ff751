"""Requests in envelopes."""

from typing import Any

import pytest

from proxy.api.dapr.common_pb2 import HTTPExtension
from proxy.api.daprd.framing import WireError
from proxy.api.daprd.internals_pb2 import InternalInvokeRequest
from proxy.api.daprd.request import (
    Parties,
    TargetError,
    UnknownVerbError,
    announced_length,
    checked,
    envelope,
    http_head,
    method_of,
)
from proxy.contract.head import Headers
from proxy.wire.streams import RawHead

PARTIES = Parties(app_id="web", namespace="shop", callee="cart")
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def sent(target: str = "/a", *, method: bytes = b"GET", headers: Headers = ()) -> RawHead:
    return RawHead("http2", method, b"cart.shop", target.encode(), headers, "none", 0)


def asked(method: str = "a", verb: str = "GET", query: str = "", **fields: str) -> InternalInvokeRequest:
    request = InternalInvokeRequest(ver="V1")
    request.message.method = method
    request.message.http_extension.CopyFrom(HTTPExtension(verb=verb, querystring=query))
    for name, value in ({"X_A": "1"} | fields).items():
        request.metadata[name.replace("_", "-")].values.append(value)
    return request


def opened(
    request: InternalInvokeRequest, outer: Headers = (), length: int | None = 0, *, for_grpc: bool = False
) -> RawHead:
    return http_head(request, outer, length, for_grpc=for_grpc)


# --- to a daprd


def test_request_is_in_the_envelope_as_a_daprd_would_put_it() -> None:
    headers: Headers = (
        *((b"content-type", b"text/plain"), (b"content-length", b"5"), (b"accept", b"text/event-stream")),
        *((b"x-a", b"1"), (b"postern-callee", b"cart.shop"), (b"traceparent", TRACE)),
    )
    made = envelope(sent("/a%20b/./c?x=%20&y;", method=b"POST", headers=headers), PARTIES)
    assert (made.ver, made.message.method, made.message.content_type) == (1, "a b/c", "text/plain")
    assert made.message.http_extension.querystring == "x=%20&y;"
    assert made.message.http_extension.verb == HTTPExtension.POST
    assert {name: list(found.values) for name, found in made.metadata.items()} == {
        "Content-Type": ["text/plain"],
        "Content-Length": ["5"],
        "Accept": ["text/event-stream"],
        "X-A": ["1"],
        "Traceparent": [TRACE.decode()],
        "destination-app-id": ["cart"],
        "dapr-caller-app-id": ["web"],
        "dapr-caller-namespace": ["shop"],
        "dapr-callee-app-id": ["cart"],
    }


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", ""),
        ("/a/b/", "a/b"),
        ("//a//b", "a/b"),
        ("/a/%2e%2e/b", "b"),
        ("/%E4%BD%A0", "你"),
        ("/a+b;c", "a+b;c"),
    ],
)
def test_path_is_decoded_once_and_clean(path: str, method: str) -> None:
    assert method_of(path) == method


@pytest.mark.parametrize(
    "path", ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/a%2541", "/a%25", "/a%FF", "/a%23", "/a%3F", "/a%00"]
)
def test_path_of_many_readings_is_refused(path: str) -> None:
    with pytest.raises(TargetError):
        method_of(path)


@pytest.mark.parametrize("verb", [b"PROPFIND", b"CONNECT", b"get"])
def test_verb_without_a_name_is_refused(verb: bytes) -> None:
    with pytest.raises(UnknownVerbError):
        envelope(sent(method=verb), PARTIES)


# --- from a daprd


def test_envelope_becomes_a_request() -> None:
    request = asked("a b/ü/c%", "PUT", "x=%zz&y", Content_Length="5", Cookie="k=v")
    request.message.content_type = "text/plain"
    head = opened(request, length=5)
    assert (head.method, head.target) == (b"PUT", b"/a%20b/%C3%BC/c%25?x=%zz&y")
    assert dict(head.headers) == {
        b"x-a": b"1",
        b"cookie": b"k=v",
        b"content-type": b"text/plain",
        b"content-length": b"5",
    }


def test_type_of_a_packed_message_passes_both_ways() -> None:
    request = asked()
    request.message.data.type_url = "x/Y%"
    request.message.content_type = "a/b"
    head = opened(request)
    found = dict(head.headers)
    assert (found[b"dapr-type-url"], found[b"content-type"]) == (b"x/Y%25", b"application/x-protobuf")
    made = envelope(sent(headers=head.headers), PARTIES)
    assert (made.message.data.type_url, made.message.content_type) == ("x/Y%", "a/b")
    assert not [name for name in made.metadata if name.startswith("Dapr-Type-")]


def test_missing_verb_stays_missing() -> None:
    assert not envelope(sent(method=b"NONE"), PARTIES).message.HasField("http_extension")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("joe%40example.com", b"/joe%40example.com"),
        ("a%2Fb/%2e%2e/ü%3A", b"/a%2Fb/%2e%2e/%C3%BC%3A"),
        ("a%41 b", b"/a%41%20b"),
        ("100%/%40", b"/100%25/%2540"),
        ("a%4", b"/a%254"),
    ],
)
def test_valid_escapes_of_a_method_stay(method: str, target: bytes) -> None:
    assert opened(asked(method)).target == target


def test_method_of_an_app_that_speaks_grpc_is_a_text() -> None:
    assert opened(asked("joe%40example.com"), for_grpc=True).target == b"/joe%2540example.com"


@pytest.mark.parametrize(
    ("method", "target"), [("", b"/"), ("/a//b/", b"/a/b"), ("a/../../b", b"/b"), ("a\\b", b"/a%5Cb")]
)
def test_method_is_cleaned_again(method: str, target: bytes) -> None:
    assert opened(asked(method)).target == target


@pytest.mark.parametrize("method", ["a?b", "a#b", "a\x00b", "a\nb", "a\x7fb"])
def test_method_that_is_no_path_is_refused(method: str) -> None:
    with pytest.raises(WireError):
        opened(asked(method))


def test_who_calls_is_what_the_engine_wrote_of_the_certificate() -> None:
    outer: Headers = (
        *((b"dapr-caller-app-id", b"web"), (b"dapr-caller-namespace", b"shop")),
        (b"postern-trust-domain", b"public"),
    )
    request = asked(Postern_Peer="spiffe://public/ns/prod/admin", Dapr_Caller_App_Id="admin")
    assert (b"postern-peer", b"spiffe://public/ns/shop/web") in opened(request, outer).headers
    assert not [name for name, _ in opened(request).headers if name == b"postern-peer"]


def test_client_of_a_daprd_has_no_say_in_whose_call_it_is() -> None:
    request = asked(Dapr_Caller_App_Id="admin", Dapr_Caller_Namespace="prod")
    request.metadata["dapr-caller-app-id"].values.append("web")
    assert [f for f in opened(request).headers if f[0].startswith(b"dapr-caller-")] == [
        (b"dapr-caller-app-id", b"web")
    ]


def test_trace_is_the_daprds_own() -> None:
    request = asked(Traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert (b"traceparent", TRACE) in opened(request, ((b"traceparent", TRACE),)).headers
    binary = b"AAAK92UZFs1D3YRI6yEcgDGcAbetaxfpIDMxAgE="
    found = dict(opened(request, ((b"grpc-trace-bin", binary),)).headers)[b"traceparent"]
    assert found[3:35] == TRACE[3:35]


@pytest.mark.parametrize(("verb", "length"), [("POST", b"0"), ("GET", None)])
def test_empty_body_says_so_where_one_is_expected(verb: str, length: bytes | None) -> None:
    assert dict(opened(asked(verb=verb)).headers).get(b"content-length") == length


@pytest.mark.parametrize(
    ("text", "length"), [("5", 5), ("0", 0), ("", None), ("-1", None), ("1" * 19, None), ("²", None)]
)
def test_announced_length_is_a_number(text: str, length: int | None) -> None:
    assert announced_length(asked(Content_Length=text)) == length


def test_envelope_needs_metadata_a_message_and_a_known_version() -> None:
    lacking: list[dict[str, Any]] = [{"ver": 1}, {"ver": 0}]
    for fields in lacking:
        with pytest.raises(WireError):
            checked(InternalInvokeRequest(**fields))
    old = asked()
    old.ver = 2  # type: ignore[assignment]
    with pytest.raises(WireError):
        checked(old)
    assert checked(asked()).message.method == "a"


def test_deadline_of_the_envelope_is_the_apps_time() -> None:
    request = InternalInvokeRequest(ver="V1")
    request.message.method = "a"
    request.message.http_extension.CopyFrom(HTTPExtension(verb=HTTPExtension.GET))
    assert dict(opened(request, ((b"grpc-timeout", b"1500m"),)).headers)[b"postern-timeout"] == b"1500"
    assert b"postern-timeout" not in dict(opened(request).headers)
