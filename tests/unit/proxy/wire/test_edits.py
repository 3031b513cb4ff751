"""Edits as they apply to a head."""

import pytest

from proxy.contract.head import Headers, RequestHead
from proxy.contract.plan import Edit, Op
from proxy.wire.edits import (
    compile_edits,
    edit_headers,
    edit_request,
)
from proxy.wire.streams import RawHead
from tests.conformance.harness import TRACEPARENT, FixedSpan


def edited(headers: Headers, *edits: Edit) -> list[tuple[bytes, bytes]]:
    """Headers after edits."""
    return edit_headers(compile_edits(edits), headers)


def request(
    *edits: Edit,
    headers: Headers = (),
    grpc: bool = False,
    target: bytes = b"/",
    path: str = "/",
    left_s: float | None = None,
) -> RawHead:
    """The head that goes on."""
    raw = RawHead("grpc" if grpc else "http1", b"GET", b"old", target, headers, "none", 0)
    query = target.partition(b"?")[2]
    head = RequestHead("in", "grpc" if grpc else "http1", "none", "GET", "old", target, path, query, headers)
    return edit_request(compile_edits(edits), raw, head, FixedSpan(), left_s)


def test_set_replaces_every_value_and_keeps_the_rest_in_order() -> None:
    headers = ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"))
    assert edited(headers, Edit(op=Op.SET, name=b"a", data=b"x")) == [
        (b"b", b"2"),
        (b"c", b"4"),
        (b"a", b"x"),
    ]


def test_add_keeps_what_is_there() -> None:
    assert edited(((b"a", b"1"),), Edit(op=Op.ADD, name=b"a", data=b"2")) == [(b"a", b"1"), (b"a", b"2")]


def test_remove_and_prefix_take_away() -> None:
    headers = ((b"dapr-a", b"1"), (b"x", b"2"), (b"dapr-b", b"3"), (b"xy", b"4"))
    edits = (Edit(op=Op.REMOVE, name=b"x"), Edit(op=Op.REMOVE_PREFIX, name=b"dapr-"))
    assert edited(headers, *edits) == [(b"xy", b"4")]


def test_added_header_survives_a_prefix_that_covers_it() -> None:
    edits = (
        Edit(op=Op.REMOVE_PREFIX, name=b"postern-"),
        Edit(op=Op.SET, name=b"postern-callee", data=b"cart"),
    )
    assert edited(((b"postern-callee", b"forged"),), *edits) == [(b"postern-callee", b"cart")]


def test_hop_by_hop_takes_the_fixed_set_and_what_connection_lists() -> None:
    headers = (
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"keep-alive", b"1"),
        (b"te", b"gzip"),
        (b"proxy-authorization", b"secret"),
        (b"kept", b"1"),
    )
    assert edited(headers, Edit(op=Op.HOP_BY_HOP)) == [(b"kept", b"1")]


def test_hop_by_hop_honours_every_connection_field() -> None:
    headers = ((b"connection", b"a"), (b"connection", b"b"), (b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    assert edited(headers, Edit(op=Op.HOP_BY_HOP)) == [(b"c", b"3")]


def test_trace_replaces_what_the_caller_sent() -> None:
    made = request(Edit(op=Op.TRACE), headers=((b"traceparent", b"old"),))
    assert made.headers == ((b"traceparent", TRACEPARENT),)
    made = request(Edit(op=Op.TRACE), headers=((b"traceparent", b"old"), (b"grpc-trace-bin", b"old")))
    assert [name for name, _ in made.headers] == [b"traceparent", b"grpc-trace-bin"]
    assert b"old" not in dict(made.headers).values()


def test_trace_on_grpc_adds_the_binary_form_and_te() -> None:
    made = request(Edit(op=Op.TRACE), grpc=True)
    assert [name for name, _ in made.headers] == [b"te", b"traceparent", b"grpc-trace-bin"]


def test_deadline_replaces_the_callers_on_grpc_alone() -> None:
    sent = ((b"grpc-timeout", b"99H"),)
    assert (b"grpc-timeout", b"1500000u") in request(
        Edit(op=Op.DEADLINE), headers=sent, grpc=True, left_s=1.5
    ).headers
    http = request(Edit(op=Op.DEADLINE), headers=sent, left_s=1.5).headers
    assert http == (*sent, (b"postern-timeout", b"1500"))  # a header like any other there
    assert b"grpc-timeout" not in dict(request(Edit(op=Op.DEADLINE), headers=sent, grpc=True).headers)


def test_authority_is_replaced_only_when_given() -> None:
    assert request().authority == b"old"
    assert request(Edit(op=Op.AUTHORITY, data=b"new")).authority == b"new"


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/v1.0/invoke/cart/method/a%20b?q=%zz", b"/a%20b?q=%zz"),
        (b"/v1.0/invoke/cart/method/", b"/"),
        (b"/v1.0/invoke/cart/method/a%2Fb/?", b"/a%2Fb/"),
        (b"/v1.0/invoke/cart/method/method/x", b"/method/x"),
    ],
)
def test_dapr_path_of_the_path_form_is_what_follows_method(target: bytes, wanted: bytes) -> None:
    path = target.partition(b"?")[0].decode()
    assert request(Edit(op=Op.DAPR_PATH, data=b"method"), path=path, target=target).target == wanted


def test_dapr_path_whole_is_the_clean_path() -> None:
    moved = (Edit(op=Op.DAPR_PATH, data=b"whole"), Edit(op=Op.PATH, data=b"/x?n=1"))
    assert request(*moved, path="/a", target=b"/a?y=2").target == b"/x?n=1&y=2"
    assert request(Edit(op=Op.DAPR_PATH, data=b"whole"), path="/a//b", target=b"/a//b?x").target == b"/a/b?x"
