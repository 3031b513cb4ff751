"""The one table of answers, and how they read on the wire: HTTP and gRPC, on both surfaces."""

import base64
import json
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.engine import ListenerSpec
from proxy.contract.head import Headers
from proxy.contract.plan import DETAIL, Cause, Decision, Hold, Labels, Surface
from proxy.contract.recording import RecordingHead
from proxy.errors import (
    ANSWERS,
    HEADER,
    ConfigError,
    ListenError,
    ProxyError,
    reply,
)
from proxy.wire import answers
from proxy.wire.http_client import LocalHttpError
from proxy.wire.streams import Downstream

TRACE = "0123456789abcdef0123456789abcdef"
TOLD_TRACE = [{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": TRACE}]
TRACEPARENT = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
LABELS = Labels(direction="outbound")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=DETAIL), max_size=40)
DETAILS = TEXTS | st.just('a "quoted" C:\\path\nüñ €\x00') | st.just("\\u0001")


@dataclass
class FixedSpan:
    """The span of every call."""

    traceparent: bytes = TRACEPARENT
    grpc_trace_bin: bytes = b""


class Wire:
    """A downstream end that keeps what it was told."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ended = False

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        assert not self.status
        self.status, self.headers, self.ended = status, dict(headers), end

    def send(self, data: bytes) -> None:
        assert not self.ended
        self.body += data

    def finish(self, trailers: Headers) -> None:
        assert not trailers
        self.ended = True


def sent(
    found: Any, detail: str = "", *, grpc: bool = False, head: bool = False, web: bytes = b""
) -> tuple[Wire, int | None]:
    wire = Wire()
    code, size = answers.send(
        cast("Downstream", wire), found, detail, FixedSpan(), grpc=grpc, head=head, web=web
    )
    assert wire.ended
    assert size == len(wire.body)
    return wire, code


def test_what_lets_a_page_read_an_answer_goes_out_in_every_form() -> None:
    extra = ((b"access-control-allow-origin", b"https://shop.example"), (b"vary", b"Origin"), (b"x", b"y"))
    found = reply(Cause.DENIED, LABELS, "why", extra=extra)
    in_http, in_grpc, in_web = (
        sent(found),
        sent(found, grpc=True),
        sent(found, web=b"application/grpc-web+proto"),
    )
    for wire, code in (in_http, in_grpc, in_web):
        assert code == (None if wire is in_http[0] else 7)
        assert [wire.headers.get(name) for name, _ in extra[:2]] == [data for _, data in extra[:2]]
        assert (b"x" in wire.headers) is (wire is in_http[0])
    assert in_web[0].body[:1] == b"\x80"


# --- the table


def test_every_cause_has_an_answer() -> None:
    assert set(ANSWERS) == set(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_answer_of_every_cause_is_possible(cause: Cause) -> None:
    answer = ANSWERS[cause]
    for status in (answer.status, answer.dapr_status):
        assert 400 <= status <= 599
    for code in (answer.grpc, answer.dapr_grpc):
        assert 1 <= code <= 16
    assert answer.code.startswith("ERR_")
    assert cause.value == cause.value.lower()


@pytest.mark.parametrize(
    ("cause", "own", "dapr"),
    [
        (Cause.NO_APP, (404, 5), (500, 2)),
        (Cause.NO_ENDPOINT, (503, 14), (500, 14)),
        (Cause.DENIED, (403, 7), (403, 7)),
        (Cause.CONNECT, (502, 14), (500, 14)),
        (Cause.TIMEOUT, (504, 4), (500, 4)),
        (Cause.BREAKER, (503, 14), (500, 2)),
        (Cause.SHED, (503, 8), (503, 8)),
        (Cause.RATE, (429, 8), (429, 8)),
        (Cause.TOO_LARGE, (413, 8), (500, 8)),
        (Cause.UNAUTHENTICATED, (401, 16), (401, 16)),
        (Cause.MISDIRECTED, (421, 14), (421, 14)),
        (Cause.BAD_REQUEST, (400, 3), (400, 3)),
    ],
)
def test_codes_of_a_surface(cause: Cause, own: tuple[int, int], dapr: tuple[int, int]) -> None:
    for surface, expected in (("own", own), ("dapr", dapr)):
        found = reply(cause, LABELS, "why", surface=cast("Surface", surface), callee="cart")
        assert (found.status, found.grpc_code) == expected


@pytest.mark.parametrize(
    ("cause", "also_of_dapr"),
    [
        (Cause.SHED, True),
        (Cause.RATE, True),
        (Cause.NO_ENDPOINT, False),
        (Cause.DRAINING, False),
        (Cause.NOT_READY, False),
    ],
)
def test_what_passes_says_when_to_come_back(cause: Cause, also_of_dapr: bool) -> None:
    assert dict(reply(cause, LABELS, "busy").headers)[b"retry-after"] == b"1"
    assert (b"retry-after" in dict(reply(cause, LABELS, "busy", surface="dapr").headers)) == also_of_dapr
    assert b"retry-after" not in dict(reply(Cause.DENIED, LABELS, "no").headers)


def test_status_and_code_may_be_given() -> None:
    found = reply(Cause.NO_APP, LABELS, "x", status=418, grpc=0, extra=((b"x-a", b"1"),))
    assert (found.status, found.grpc_code) == (418, 0)
    assert (b"x-a", b"1") in found.headers


# --- on the wire


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("surface", ["own", "dapr"])
def test_every_cause_is_answered_in_both_forms(cause: Cause, surface: Surface) -> None:
    found = reply(cause, LABELS, f"it failed: {DETAIL}", surface=surface, callee="cart")
    wire, code = sent(found, "here")
    assert code is None
    assert wire.status == found.status
    assert wire.headers[HEADER] == cause.value.encode()
    assert wire.headers[b"content-type"] == b"application/json"
    assert wire.headers[b"content-length"] == str(len(wire.body)).encode()
    assert wire.headers[b"traceparent"] == TRACEPARENT
    body = json.loads(wire.body)
    if surface == "dapr":
        assert body == {
            "errorCode": "ERR_DIRECT_INVOKE",
            "message": "failed to invoke, id: cart, err: it failed: here",
            "details": TOLD_TRACE,
        }
    else:
        assert body == {"errorCode": ANSWERS[cause].code, "message": "it failed: here", "details": TOLD_TRACE}

    wire, code = sent(found, "here", grpc=True)
    assert (wire.status, wire.body) == (200, b"")
    assert code == found.grpc_code
    packed = wire.headers.pop(b"grpc-status-details-bin")
    details = base64.b64decode(packed + b"=" * (-len(packed) % 4))
    assert details.startswith(b"\x08%c\x12\x0fit failed: here" % (code or 0))
    assert details.endswith(TRACE.encode())
    assert wire.headers == {
        b"content-type": b"application/grpc",
        b"grpc-status": str(code).encode(),
        b"grpc-message": b"it failed: here",
        b"traceparent": TRACEPARENT,
        HEADER: cause.value.encode(),
    }


def test_body_is_as_compact_as_gos() -> None:
    """What looks for a part of a daprd's finds it."""
    body = sent(reply(Cause.CONNECT, LABELS, "why", surface="dapr", callee="cart"))[0].body
    assert body.startswith(
        b'{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: cart, err: why",'
    )


def test_no_callee_no_invoke_message() -> None:
    body = json.loads(sent(reply(Cause.NO_APP, LABELS, "no app is named", surface="dapr"))[0].body)
    assert body == {"errorCode": "ERR_DIRECT_INVOKE", "message": "no app is named", "details": TOLD_TRACE}


def test_head_is_answered_without_a_body_but_with_its_length() -> None:
    found = reply(Cause.DENIED, LABELS, "no")
    wire, _ = sent(found, head=True)
    assert wire.body == b""
    assert wire.headers[b"content-length"] == str(len(sent(found)[0].body)).encode()


@given(TEXTS, TEXTS, DETAILS, st.sampled_from(["own", "dapr"]))
def test_http_body_is_json_whatever_the_text_and_the_detail(
    before: str, after: str, detail: str, surface: Surface
) -> None:
    found = reply(Cause.CONNECT, LABELS, f"{before}{DETAIL}{after}", surface=surface)
    assert json.loads(sent(found, detail)[0].body)["message"] == f"{before}{detail}{after}"


@given(TEXTS, DETAILS)
def test_text_with_an_escape_in_it_holds_no_detail(text: str, detail: str) -> None:
    found = reply(Cause.NO_APP, LABELS, f"{text}\\u0001", callee="\\u0001", surface="dapr")
    message = json.loads(sent(found, detail)[0].body)["message"]
    assert message == f"failed to invoke, id: \\u0001, err: {text}\\u0001"


@given(TEXTS, DETAILS)
def test_grpc_message_is_percent_encoded_ascii(text: str, detail: str) -> None:
    wire, _ = sent(reply(Cause.CONNECT, LABELS, f"{text}{DETAIL}"), detail, grpc=True)
    message = wire.headers[b"grpc-message"]
    assert all(0x20 <= byte < 0x7F for byte in message)
    assert unquote(message.decode()) == f"{text}{detail}"


def test_detail_that_is_no_unicode_is_still_told() -> None:
    found = reply(Cause.CONNECT, LABELS, f"no: {DETAIL}")
    assert json.loads(sent(found, "a\udc80b")[0].body)["message"] == "no: a?b"
    assert sent(found, "a\udc80b", grpc=True)[0].headers[b"grpc-message"] == b"no: a?b"


@pytest.mark.parametrize(
    ("trailers", "code"),
    [
        ((), None),
        (((b"x", b"1"),), None),
        (((b"grpc-status", b"0"),), 0),
        (((b"grpc-status", b"14"), (b"grpc-status", b"0")), 14),
        (((b"grpc-status", b""),), 2),
        (((b"grpc-status", b"-1"),), 2),
        (((b"grpc-status", b"9999"),), 2),
    ],
)
def test_grpc_code_of_trailers(trailers: Headers, code: int | None) -> None:
    assert answers.grpc_code(trailers) == code


def _never(_: RecordingHead) -> Decision:
    raise AssertionError


def test_answers_before_any_decision_are_labelled_by_listener_and_have_its_fields() -> None:
    peer = ListenerSpec(name="peer", address="", decide=_never)
    http = ListenerSpec(
        name="http", address="", decide=_never, for_pages=lambda sent: (*sent, (b"vary", b"Origin"))
    )
    assert answers.bad_request("odd", peer, ()).labels.direction == "inbound"
    made = answers.bad_request("odd", http, ((b"a", b"b"),))
    assert made.labels.direction == "outbound"
    assert made.headers[-2:] == ((b"a", b"b"), (b"vary", b"Origin"))
    hold = Hold(key="cart", for_s=1.0, then=reply(Cause.NO_APP, Labels(direction="outbound"), "unknown"))
    late = answers.timed_out(hold, http, ())
    assert (late.status, late.headers[-1]) == (504, (b"vary", b"Origin"))


# --- the exceptions


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(("one", "two")),
        ListenError("http", "127.0.0.1:80", "permission denied"),
        LocalHttpError("localhost:1", "broken"),
    ],
)
def test_every_error_is_ours_and_says_something(error: Exception) -> None:
    assert isinstance(error, ProxyError)
    assert str(error)


def test_config_error_lists_all_faults() -> None:
    assert str(ConfigError(("one", "two"))).splitlines() == ["one", "two"]
    assert "127.0.0.1:80" in str(ListenError("http", "127.0.0.1:80", "permission denied"))


def test_listen_error_names_the_upstream_whose_port_is_taken() -> None:
    said = str(ListenError("own:cart", "127.0.0.1:7001", "Address already in use"))
    assert said == (
        "can't listen on 127.0.0.1:7001 for the dedicated port for cart: Address already in use; "
        "--upstream cart=PORT moves it"
    )
