"""A daprd's call of our app."""

import json
from typing import Any

import pytest

from proxy.api.dapr.common_pb2 import HTTPExtension
from proxy.api.daprd.framing import Messages, framed
from proxy.api.daprd.inbound import Callee, accept
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.contract.plan import Cause
from proxy.wire.streams import RawHead
from tests.fakes.translating import Down, Up, Way

OWN = Callee(app_id="web", speaks_grpc=False, max_bytes=100_000, head_bytes=1_000)


def envelope(**fields: str) -> InternalInvokeRequest:
    request = InternalInvokeRequest(ver="V1")
    request.message.method = "a"
    request.message.http_extension.CopyFrom(HTTPExtension(verb="POST"))
    for name, value in ({"X_A": "1"} | fields).items():
        request.metadata[name.replace("_", "-")].values.append(value)
    return request


def part(data: bytes | None = None, seq: int = 0, request: InternalInvokeRequest | None = None) -> bytes:
    made = InternalInvokeRequestStream(request=request)
    if data is not None:
        made.payload.data, made.payload.seq = data, seq
    return framed(made.SerializeToString())


class Taken:
    """A call that was taken, with both of its ends."""

    def __init__(self, method: str = "CallLocalStream") -> None:
        self.down, self.way = Down(), Way()
        target = f"/dapr.proto.internals.v1.ServiceInvocation/{method}".encode()
        head = RawHead("grpc", b"POST", b"web", target, (), "stream", None)
        way: Any = self.way
        self.call = accept(way, OWN, self.down, head)

    @property
    def up(self) -> Up:
        (only,) = self.way.calls
        return only

    @property
    def code(self) -> int:
        return int(self.down.get(b"grpc-status"))

    def parts(self) -> list[InternalInvokeResponseStream]:
        return [
            InternalInvokeResponseStream.FromString(one)
            for one in Messages(1 << 20).feed(bytes(self.down.body))
        ]


def test_bodies_stream_both_ways() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()))
    assert taken.way.calls == []  # it may have no body
    taken.call.request_data(part(b"one"))
    assert taken.up.head is not None
    assert taken.up.head.framing == "stream"
    taken.call.request_data(part(b"", 1) + part(b"two", 2))
    taken.call.response_head(200, ((b"content-type", b"text/plain"),), end=False)
    taken.call.response_data(b"x" * 40_000)
    assert not taken.up.ended
    taken.call.request_end(())
    assert (taken.up.body, taken.up.ended) == (b"onetwo", True)
    taken.call.response_end(())
    assert taken.code == 0
    first, *rest = taken.parts()
    assert (first.response.status.code, first.response.message.content_type) == (200, "text/plain")
    assert b"".join(one.payload.data for one in rest) == b"x" * 40_000
    assert [one.payload.seq for one in rest] == list(range(len(rest)))


def test_pieces_that_come_at_once_go_on_as_one() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()) + b"".join(part(b"%d" % n, n) for n in range(10)))
    assert (taken.up.body, taken.up.sends) == (b"0123456789", 1)


def test_pieces_before_one_that_is_wrong_are_not_sent() -> None:
    taken = Taken()
    taken.call.request_data(part(b"0", request=envelope()) + part(b"2", 2))
    assert (taken.up.body, taken.up.aborted, taken.code) == (b"", True, 13)


def test_request_without_a_body_is_sent_as_one() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()))
    taken.call.request_end(())
    assert (taken.up.ended, taken.up.body) == (True, b"")


def test_body_of_announced_length_is_sent_at_once() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope(Content_Length="3")))
    assert taken.up.head is not None
    assert (taken.up.head.length, taken.up.ended) == (3, False)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([], 3),
        ([part(b"x")], 3),
        ([part(request=InternalInvokeRequest(ver="V1"))], 3),
        ([part(request=envelope()), part(b"x", 1)], 13),
        ([part(b"x", request=envelope()), part(b"y", 0)], 13),
        ([part(b"x", request=envelope()), part(b"y", 1, envelope())], 13),
        ([part(request=envelope(Content_Length="3")), part(b"four")], 3),
        ([part(request=envelope(Content_Length="3")), part(b"2b")], 3),
        ([part(request=envelope(Content_Length="0")), part(b"x")], 3),
        ([framed(b"\xff\xff")], 3),
        ([part(request=envelope())[:-1]], 13),
        ([part(request=envelope(X_B="a\r\nb"))], 3),
    ],
)
def test_stream_that_breaks_the_rules_is_ended(sent: list[bytes], code: int) -> None:
    taken = Taken()
    for data in sent:
        taken.call.request_data(data)
    taken.call.request_end(())
    assert (taken.code, taken.down.is_over) == (code, True)
    assert all(up.aborted for up in taken.way.calls)


@pytest.mark.parametrize("where", ["metadata", "values", "method", "unknown field"])
@pytest.mark.parametrize("method", ["CallLocal", "CallLocalStream"])
def test_envelope_that_is_no_head_is_refused_before_anything_is_made_of_it(method: str, where: str) -> None:
    request = envelope()
    if where == "metadata":
        for number in range(500):
            request.metadata[f"x-{number}"].values.append("")
    elif where == "values":
        request.metadata["x-b"].values.extend([""] * 2_000)
    elif where == "method":
        request.message.method = "é" * 2_000
    else:
        request.MergeFromString(b"\x7a\xb8\x17" + b"x" * 3_000)
    taken = Taken(method)
    taken.call.request_data(
        part(request=request) if method == "CallLocalStream" else framed(request.SerializeToString())
    )
    assert (taken.code, taken.way.calls) == (8, [])
    assert b"--read-buffer-size" in taken.down.get(b"grpc-message")


def test_body_is_not_of_the_envelope() -> None:
    request = envelope()
    request.message.data.value = b"x" * 90_000
    whole = Taken("CallLocal")
    whole.call.request_data(framed(request.SerializeToString()))
    whole.call.request_end(())
    assert len(whole.up.body) == 90_000
    stream = Taken()
    stream.call.request_data(part(b"x" * 90_000, request=envelope()))
    assert len(stream.up.body) == 90_000


def test_empty_envelope_in_a_later_part_is_harmless() -> None:
    taken = Taken()
    taken.call.request_data(part(b"x", request=envelope()))
    taken.call.request_data(part(b"y", 1, InternalInvokeRequest()))
    assert taken.up.body == b"xy"


def test_proxys_own_answer_is_a_status() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()))
    taken.call.request_end(())
    taken.call.response_head(403, ((b"postern-error", b"denied"),), end=False)
    taken.call.response_data(json.dumps({"message": "failed to invoke, id: web, err: no"}).encode())
    taken.call.response_end(())
    assert (taken.code, taken.down.get(b"grpc-message")) == (7, b"no")


def test_answer_that_breaks_off_ends_with_an_error() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()))
    taken.call.request_end(())
    taken.call.response_head(200, (), end=False)
    taken.call.response_lost(Cause.RESET_LATE, "gone")
    assert (taken.code, taken.down.is_over) == (13, True)


def test_daprd_that_leaves_cancels_the_apps_call() -> None:
    taken = Taken()
    taken.call.request_data(part(b"x", request=envelope()))
    taken.call.request_gone("left")
    assert taken.up.aborted


def test_what_waits_for_the_app_holds_the_daprd_back() -> None:
    taken = Taken()
    taken.call.request_data(part(request=envelope()))
    before = taken.down.acked
    for seq in range(10):
        taken.call.request_data(part(b"x" * 50_000, seq))
    held = taken.down.acked
    assert before < held < 400_000
    taken.call.request_drained(500_000)
    assert taken.down.acked > 500_000


def test_app_that_answers_early_frees_the_daprd() -> None:
    taken = Taken()
    taken.call.request_data(part(b"x", request=envelope()))
    taken.call.response_head(413, (), end=True)
    assert taken.down.is_over
    more = part(b"y" * 90_000, 1)
    for _ in range(10):
        before = taken.down.acked
        taken.call.request_data(more)
        assert taken.down.acked - before == len(more)


def test_call_local_is_answered_whole() -> None:
    taken = Taken("CallLocal")
    request = envelope()
    request.message.data.value = b"body"
    taken.call.request_data(framed(request.SerializeToString()))
    taken.call.request_end(())
    assert (taken.up.body, taken.up.ended) == (b"body", True)
    assert taken.up.head is not None
    assert (b"content-length", b"4") in taken.up.head.headers
    taken.call.response_head(200, (), end=False)
    taken.call.response_data(b"ans")
    taken.call.response_data(b"wer")
    taken.call.response_end(())
    (message,) = Messages(1 << 20).feed(bytes(taken.down.body))
    assert InternalInvokeResponse.FromString(message).message.data.value == b"answer"
    assert taken.code == 0


def test_answer_too_large_for_call_local_is_refused() -> None:
    taken = Taken("CallLocal")
    taken.call.request_data(framed(envelope().SerializeToString()))
    taken.call.request_end(())
    taken.call.response_head(200, (), end=False)
    taken.call.response_data(b"x" * 100_001)
    assert (taken.code, taken.up.aborted) == (8, True)


def test_other_methods_are_not_served() -> None:
    assert Taken("CallActor").code == 12
