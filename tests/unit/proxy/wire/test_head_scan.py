"""The strict scan of heads: every bad head of the corpus is refused, every good one is read."""

import time

import pytest

from proxy.contract.engine import Limits
from proxy.wire.head_scan import (
    HeadCollector,
    Refusal,
    RequestStart,
    ResponseStart,
    scan_request,
    scan_response,
    scan_trailers,
)
from tests.conformance.corpus.http1 import BAD_HEADS, GOOD, Bad, Good

LIMITS = Limits()


def scan(data: bytes, limits: Limits = LIMITS) -> RequestStart | Refusal | None:
    """Collector and scan together, as a connection uses them."""
    head = HeadCollector(limits).feed(data)
    return scan_request(head, limits) if isinstance(head, bytes) else head


def scan_bytewise(data: bytes) -> RequestStart | Refusal | None:
    """The same, one byte at a time."""
    collector = HeadCollector(LIMITS)
    for i in range(len(data)):
        head = collector.feed(data[i : i + 1])
        if head is not None:
            return scan_request(head, LIMITS) if isinstance(head, bytes) else head
    return None


def start_of(data: bytes) -> RequestStart:
    found = scan(data)
    assert isinstance(found, RequestStart)
    return found


@pytest.mark.parametrize("bad", BAD_HEADS, ids=lambda bad: bad.name)
def test_bad_head_whole_or_in_bytes_is_refused_with_its_status(bad: Bad) -> None:
    whole = scan(bad.data)
    assert isinstance(whole, Refusal)
    assert whole.status == bad.status
    assert whole.text
    if len(bad.data) < 1000:
        pieces = scan_bytewise(bad.data)
        assert isinstance(pieces, Refusal)
        assert pieces.status == bad.status


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_good_head_whole_or_in_bytes_is_read(good: Good) -> None:
    found = start_of(good.data)
    assert (found.method, found.target, found.host) == (good.method, good.target, good.authority)
    assert scan_bytewise(good.data) == found


def test_head_of_exactly_the_limit_passes_and_one_more_does_not() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    assert isinstance(scan(head, Limits(head_bytes=len(head))), RequestStart)
    refused = scan(head, Limits(head_bytes=len(head) - 1))
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.kind) == (431, "head-size")


def test_fields_of_exactly_the_limit_pass_and_one_more_does_not() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    assert isinstance(scan(head, Limits(header_count=2)), RequestStart)
    refused = scan(head, Limits(header_count=1))
    assert isinstance(refused, Refusal)
    assert refused.kind == "field-count"


def test_bytes_after_the_head_are_left_in_rest() -> None:
    collector = HeadCollector(LIMITS)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert collector.feed(head[:10]) is None
    assert collector.feed(head[10:] + b"GET /2") == head
    assert collector.rest == b"GET /2"
    assert not collector.started
    assert collector.feed(head) == head
    assert collector.rest == b""


def test_forwarded_headers_leave_out_host_hop_by_hop_and_listed_ones() -> None:
    found = start_of(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, X-Gone ,content-length\r\nkeep-alive: 5\r\n"
        b"X-Gone: 1\r\nx-kept: 2\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nproxy-connection: close\r\n"
        b"X-Kept:\t 3 \t\r\nContent-Length: 2\r\n\r\n"
    )
    assert found.forwarded() == ((b"x-kept", b"2"), (b"x-kept", b"3"), (b"content-length", b"2"))
    assert found.options == {b"keep-alive", b"x-gone", b"content-length"}
    assert found.length == 2


def test_response_head_is_read_with_or_without_a_reason() -> None:
    for line in (b"HTTP/1.1 404 Not Found", b"HTTP/1.1 404 ", b"HTTP/1.1 404", b"HTTP/1.0 404 N\xf6"):
        found = scan_response(line + b"\r\nContent-Length: 3\r\nDate: x\r\n\r\n", LIMITS)
        assert isinstance(found, ResponseStart)
        assert (found.status, found.length, found.chunked) == (404, 3, False)
        assert found.forwarded() == ((b"content-length", b"3"), (b"date", b"x"))


def test_length_of_a_204_is_not_forwarded() -> None:
    found = scan_response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: y\r\n\r\n", LIMITS)
    assert isinstance(found, ResponseStart)
    assert found.forwarded() == ((b"x", b"y"),)


def test_trailers_leave_out_connection_fields() -> None:
    assert scan_trailers(b"X-Sum: 1\r\nConnection: close\r\n", LIMITS) == ((b"x-sum", b"1"),)


def test_hostile_head_costs_linear_time() -> None:
    blanks = b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" \t" * 32_000
    names = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 65_000
    for data in (blanks + b"\x01\r\n\r\n", blanks + b"\r\n\r\n", names + b"\r\n\r\n"):
        began = time.process_time()
        scan(data)
        assert time.process_time() - began < 0.5  # a backtracking pattern takes half a minute


def test_head_in_single_bytes_costs_linear_time() -> None:
    def cost(length: int) -> float:
        began = time.process_time()
        assert scan_bytewise(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * length) is None
        return time.process_time() - began

    assert cost(40_000) < 8 * cost(10_000) + 0.1
