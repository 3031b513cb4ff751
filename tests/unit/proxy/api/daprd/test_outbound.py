"""An app's call of a daprd."""

import json
from typing import Any

import pytest

from proxy.api.daprd.framing import Messages, ending, framed
from proxy.api.daprd.inbound import SERVICE
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.api.daprd.outbound import Caller, CallOut
from proxy.contract.plan import Cause
from proxy.wire.streams import RawHead
from tests.fakes.translating import Down, Up, Way

OWN = Caller(app_id="web", namespace="shop", max_bytes=100_000, head_bytes=1_000, replay_bytes=1_000)
HEAD = ((b"content-type", b"application/grpc"),)


def part(
    data: bytes | None = None, seq: int = 0, *, status: int | None = None, headers: bool = False
) -> bytes:
    made = InternalInvokeResponseStream()
    if status is not None:
        made.response.status.code = status
        made.response.message.content_type = "text/plain"
    if headers:
        made.response.headers["X-A"].values.append("1")
    if data is not None:
        made.payload.data, made.payload.seq = data, seq
    return framed(made.SerializeToString())


class Made:
    """A call that is made, with both of its ends."""

    def __init__(
        self,
        method: bytes = b"POST",
        target: bytes = b"/a?x=1",
        accept: bytes | None = None,
        *more: tuple[bytes, bytes],
    ) -> None:
        self.down, self.way = Down(), Way()
        accepts = () if accept is None else ((b"accept", accept),)
        named = ((b"postern-callee", b"cart.shop"), (b"postern-surface", b"dapr"), (b"x-a", b"1"))
        headers = (*named, *accepts, *more)
        head = RawHead("http2", method, b"cart.shop", target, headers, "stream", None)
        way: Any = self.way
        self.call = CallOut(way, OWN, self.down, head)

    @property
    def up(self) -> Up:
        return self.way.calls[-1]

    def parts(self) -> list[InternalInvokeRequestStream]:
        return [
            InternalInvokeRequestStream.FromString(one) for one in Messages(1 << 20).feed(bytes(self.up.body))
        ]

    def answer(self, *parts: bytes, code: int = 0, text: str = "") -> None:
        self.call.response_head(200, HEAD, end=False)
        for one in parts:
            self.call.response_data(one)
        self.call.response_end(ending(code, text))

    def told(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(bytes(self.down.body))
        return found


def test_request_and_answer_stream() -> None:
    made = Made()
    assert made.up.head is not None
    assert made.up.head.target == SERVICE + b"CallLocalStream"
    assert (b"postern-callee", b"cart.shop") in made.up.head.headers
    made.call.request_data(b"one")
    made.call.request_data(b"x" * 40_000)
    made.call.response_head(200, HEAD, end=False)
    made.call.response_data(part(b"early", status=200, headers=True))
    assert (made.down.status, bytes(made.down.body)) == (200, b"early")
    made.call.request_end(())
    made.call.response_data(part(b"", 1) + part(b" late", 2))
    made.call.response_end(ending(0))
    assert (bytes(made.down.body), made.down.is_over, made.down.aborted) == (b"early late", True, None)
    first, *rest = made.parts()
    assert (first.request.message.method, first.request.message.http_extension.querystring) == ("a", "x=1")
    assert b"".join(one.payload.data for one in rest) == b"one" + b"x" * 40_000
    assert [one.payload.seq for one in rest] == list(range(len(rest)))


def test_time_of_the_call_is_a_daprds_deadline_and_not_in_the_envelope() -> None:
    made = Made(b"POST", b"/a", None, (b"postern-timeout", b"1500"))
    assert made.up.head is not None
    assert dict(made.up.head.headers)[b"grpc-timeout"] == b"1500000u"
    made.call.request_end(())
    assert not [name for name in made.parts()[0].request.metadata if "timeout" in name.lower()]
    plain = Made()
    assert plain.up.head is not None
    assert b"grpc-timeout" not in dict(plain.up.head.headers)


def test_pieces_that_come_at_once_go_on_as_one() -> None:
    made = Made()
    pieces = [part(b"0", status=200), *(part(b"%d" % n, n) for n in range(1, 10))]
    made.answer(b"".join(pieces))
    assert (bytes(made.down.body), made.down.sends) == (b"0123456789", 1)


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_answer_without_a_body_stays_without(method: bytes, status: int) -> None:
    made = Made(method)
    made.answer(part(b"x", status=status))
    assert (made.down.status, made.down.body, made.down.is_over) == (status, b"", True)


def test_path_of_many_readings_is_answered_here() -> None:
    made = Made(target=b"/a%2Fb")
    assert (made.down.status, made.way.calls) == (400, [])


def test_unknown_verb_is_answered_here() -> None:
    made = Made(b"PROPFIND")
    assert (made.down.status, made.down.get(b"postern-error"), made.way.calls) == (500, b"unsupported", [])


@pytest.mark.parametrize(
    ("code", "status", "cause"),
    [(7, 403, b"denied"), (13, 500, b"app-down"), (3, 400, b"bad-request"), (2, 500, b"reset-early")],
)
def test_status_of_a_daprd_becomes_an_answer(code: int, status: int, cause: bytes) -> None:
    made = Made()
    made.call.response_head(200, (*HEAD, *ending(code, "because")), end=True)
    assert (made.down.status, made.down.get(b"postern-error")) == (status, cause)
    assert made.told()["errorCode"] == "ERR_DIRECT_INVOKE"
    assert "because" in made.told()["message"]


def test_word_of_our_own_proxy_is_passed_on() -> None:
    made = Made()
    trailers = (*HEAD, *ending(14, "could not reach it"), (b"postern-error", b"connect"))
    made.call.response_head(200, trailers, end=True)
    assert (made.down.get(b"postern-error"), "rpc error" in made.told()["message"]) == (b"connect", False)


@pytest.mark.parametrize(
    "parts",
    [
        [part(b"x")],
        [part(b"x", 1, status=200)],
        [part(status=42)],
        [framed(b"\xff\xff")],
        [],
        [part(status=200)[:-1]],
    ],
)
def test_answer_that_breaks_the_rules_is_a_failure(parts: list[bytes]) -> None:
    made = Made()
    made.answer(*parts)
    assert (made.down.status, made.down.get(b"postern-error")) == (500, b"invalid-answer")


@pytest.mark.parametrize("is_whole", [False, True])
def test_envelope_that_is_no_head_is_a_failure(is_whole: bool) -> None:
    made = Made()
    if is_whole:
        made.call.request_end(())
        made.call.response_head(200, (*HEAD, *ending(12, "unknown method")), end=True)
    response = InternalInvokeResponse()
    response.status.code = 200
    for number in range(500):
        response.headers[f"x-{number}"].values.append("")
    first = response if is_whole else InternalInvokeResponseStream(response=response)
    made.answer(framed(first.SerializeToString()))
    assert (made.down.status, made.down.get(b"postern-error")) == (500, b"invalid-answer")
    assert "--read-buffer-size" in made.told()["message"]


@pytest.mark.parametrize(
    "then", [part(b"y", 0), part(b"y", 1, status=200), framed(b"\xff\xff"), part(b"y", 1)[:-1]]
)
def test_answer_that_breaks_the_rules_later_breaks_off(then: bytes) -> None:
    made = Made()
    made.answer(part(b"x", status=200), then)
    assert made.down.aborted is Cause.RESET_LATE


@pytest.mark.parametrize("code", [13, 14])
def test_error_within_the_answer_breaks_it_off(code: int) -> None:
    made = Made()
    made.answer(part(b"x", status=200), code=code)
    assert made.down.aborted is Cause.RESET_LATE


def test_answer_without_a_message_is_a_stream_of_events() -> None:
    made = Made()
    first = InternalInvokeResponseStream()
    first.response.status.SetInParent()
    first.payload.data = b"data: 1\n\n"
    made.answer(framed(first.SerializeToString()))
    assert (made.down.get(b"content-type"), made.down.body) == (b"text/event-stream", b"data: 1\n\n")


@pytest.mark.parametrize(
    ("accept", "status"), [(b" Text/Event-Stream", 200), (b"text/event-stream, */*", 500), (None, 500)]
)
def test_success_without_a_message_is_no_events_to_who_accepts_nothing_else(
    accept: bytes | None, status: int
) -> None:
    made = Made(b"GET", accept=accept)
    made.answer()
    assert (made.down.status, made.down.aborted, made.down.is_over) == (status, None, True)
    is_events = made.down.get(b"content-type") == b"text/event-stream"
    assert is_events == (status == 200)


def test_events_that_end_within_a_message_are_no_success() -> None:
    made = Made(b"GET", accept=b"text/event-stream")
    made.answer(b"\x00\x00\x00")
    assert made.down.status == 500


def test_empty_envelope_in_a_later_part_is_harmless() -> None:
    made = Made()
    later = InternalInvokeResponseStream(response=InternalInvokeResponse())
    later.payload.data, later.payload.seq = b"y", 1
    made.answer(part(b"x", status=200), framed(later.SerializeToString()))
    assert (bytes(made.down.body), made.down.aborted) == (b"xy", None)


def test_caller_that_leaves_cancels_the_daprds_call() -> None:
    made = Made()
    made.call.request_gone("left")
    assert made.up.aborted


@pytest.mark.parametrize("is_late", [True, False])
def test_old_daprd_is_asked_again_by_call_local(is_late: bool) -> None:
    made = Made()
    made.call.request_data(b"bo")
    if not is_late:
        made.call.request_data(b"dy")
        made.call.request_end(())
    made.call.response_head(200, (*HEAD, *ending(12, "unknown method")), end=True)
    if is_late:
        made.call.request_data(b"dy")
        made.call.request_end(())
    assert len(made.way.calls) == 2
    assert made.up.head is not None
    assert (made.up.head.target, made.up.ended) == (SERVICE + b"CallLocal", True)
    (message,) = Messages(1 << 20).feed(bytes(made.up.body))
    assert InternalInvokeRequest.FromString(message).message.data.value == b"body"
    response = InternalInvokeResponse()
    response.status.code = 201
    response.message.data.value = b"whole"
    made.answer(framed(response.SerializeToString()))
    assert (made.down.status, bytes(made.down.body), made.down.is_over) == (201, b"whole", True)


@pytest.mark.parametrize("is_late", [True, False])
def test_body_that_an_old_daprd_cant_be_sent_again_says_so(is_late: bool) -> None:
    made = Made()
    if not is_late:
        made.call.request_data(b"x" * 1_001)
    made.call.response_head(200, (*HEAD, *ending(12)), end=True)
    if is_late:
        made.call.request_data(b"x" * 1_001)
    assert (made.down.status, made.down.get(b"postern-error")) == (500, b"unsupported")
    assert "--replay-buffer-size" in made.told()["message"]


def test_unimplemented_of_our_own_proxy_is_no_reason_to_ask_again() -> None:
    made = Made()
    trailers = (*HEAD, *ending(12, "x"), (b"postern-error", b"unsupported"))
    made.call.response_head(200, trailers, end=True)
    assert (len(made.way.calls), made.down.status) == (1, 500)
