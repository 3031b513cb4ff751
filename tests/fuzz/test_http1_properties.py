"""Properties of the HTTP/1.1 ends: how bytes are cut never matters, nothing hostile gets through, what is written reads back."""

import asyncio
import itertools
import re
from collections.abc import Sequence

import h11
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.wire.body_scan import ChunkScan
from proxy.wire.head_scan import (
    HeadCollector,
    Refusal,
    RequestStart,
    ResponseStart,
    scan_request,
    scan_response,
)
from proxy.wire.http1_client import Http1Client
from proxy.wire.http1_server import Http1Server
from proxy.wire.streams import RawHead
from tests.conformance.corpus.http1 import BAD_ANSWERS, BAD_BODIES, BAD_HEADS, GOOD
from tests.fakes.exchange import HeardRequest, HeardResponse, Owner, Requests
from tests.fakes.transport import FakeTransport

LIMITS = Limits()
_SMALL = 2_000  # the large entries of the corpus are cut elsewhere
_MESSAGES = [m.data for m in (*BAD_HEADS, *BAD_BODIES, *GOOD) if len(m.data) < _SMALL]
_ANSWERS = [
    *[b.data for b in BAD_ANSWERS if len(b.data) < _SMALL],
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil the end",
]

# One bad message at most: of a head with two faults the one is told that came first, and a head without its end goes on in the next one.
_sound = st.lists(st.sampled_from([m.data for m in GOOD if len(m.data) < _SMALL]), max_size=2).map(b"".join)
messages = st.tuples(_sound, st.sampled_from(_MESSAGES), _sound).map(b"".join)
splits = st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=8)
tokens = st.from_regex(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,12}", fullmatch=True).filter(
    lambda name: (
        name not in (b"host", b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"te")
    )
)
values = st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)
headers = st.lists(st.tuples(tokens, values), max_size=6).map(tuple)
soup = st.lists(
    st.sampled_from(
        rb"\r\n|\n|\r| |\t|:|\x00|GET|POST|/|HTTP/1.1|Host|a|0|5|Content-Length|Transfer-Encoding|chunked|;|\r\n\r\n|,|+|\xff".decode(
            "unicode_escape"
        )
        .encode("latin-1")
        .split(b"|")
    ),
    max_size=40,
).map(b"".join)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`data` in pieces of the given sizes, over and over."""
    pieces: list[bytes] = []
    for size in itertools.cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    raise AssertionError


def answer(request: HeardRequest) -> None:
    request.down.respond(200, ((b"content-length", b"2"),), end=False)


async def _serve(pieces: list[bytes]) -> tuple[object, ...]:
    """All that a caller and the exchange see of a stream of requests, each answered once it is complete."""
    requests = Requests()
    counted: list[str] = []
    server = Http1Server(requests, LIMITS, counted.append, lambda: None)
    transport = FakeTransport(server)
    server.connection_made(transport)
    for piece in pieces:
        transport.feed(piece)
        while requests.heard and requests.last.ended and server.busy:
            answer(requests.last)
            requests.last.down.send(b"ok")
            requests.last.down.finish(())
    transport.feed_eof()
    for _ in range(3):
        await asyncio.sleep(0)
    heard = [(r.head, r.body, r.trailers, r.gone is not None) for r in requests.heard]
    return heard, transport.written, counted


@given(data=messages, sizes=splits)
def test_cutting_requests_anywhere_changes_nothing(data: bytes, sizes: list[int]) -> None:
    whole = asyncio.run(_serve([data]))
    # The body of a request that breaks off later may have been told in part or not at all.
    pieces = asyncio.run(_serve(cut(data, sizes)))
    assert _without_broken_bodies(pieces) == _without_broken_bodies(whole)


def _without_broken_bodies(outcome: tuple[object, ...]) -> tuple[object, ...]:
    heard, *rest = outcome
    assert isinstance(heard, list)
    undated = [_DATE.sub(b"", one) if isinstance(one, bytes) else one for one in rest]  # a second may pass
    return [(head, b"" if gone else body, trailers, gone) for head, body, trailers, gone in heard], *undated


_DATE = re.compile(rb"\r\ndate: [^\r]*")


async def _ask(pieces: list[bytes]) -> tuple[object, ...]:
    owner = Owner()
    client = Http1Client(owner, LIMITS, lambda _: None)
    transport = FakeTransport(client)
    client.connection_made(transport)
    heard = HeardResponse()
    client.open(heard).start(_get(), end=True)
    for piece in pieces:
        transport.feed(piece)
    if not transport.closing:
        transport.feed_eof()
    for _ in range(3):
        await asyncio.sleep(0)
    body = heard.body if heard.lost is None else b""
    return (
        heard.status,
        heard.headers,
        heard.informs,
        body,
        heard.trailers,
        heard.lost,
        owner.closed is not None,
    )


def _get(extra: Headers = ()) -> RawHead:
    return RawHead("http1", b"GET", b"cart", b"/", extra, "none", 0)


@given(data=st.sampled_from(_ANSWERS), sizes=splits)
def test_cutting_answers_anywhere_changes_nothing(data: bytes, sizes: list[int]) -> None:
    assert asyncio.run(_ask(cut(data, sizes))) == asyncio.run(_ask([data]))


@given(data=soup, sizes=splits)
def test_any_bytes_end_in_answers_never_in_errors(data: bytes, sizes: list[int]) -> None:
    asyncio.run(_serve(cut(b"POST / HTTP/1.1\r\n" + data, sizes)))
    asyncio.run(_ask(cut(b"HTTP/1.1 200 OK\r\n" + data, sizes)))


@given(data=soup | st.binary(max_size=80))
def test_head_that_passes_is_read_alike_by_h11(data: bytes) -> None:
    head = HeadCollector(LIMITS).feed(b"POST / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n")
    found = scan_request(head, LIMITS) if isinstance(head, bytes) else head
    if isinstance(found, RequestStart):
        assert isinstance(head, bytes)
        conn = h11.Connection(h11.SERVER)
        conn.receive_data(head)
        event = conn.next_event()
        assert isinstance(event, h11.Request)
        assert (event.method, event.target) == (found.method, found.target)
        assert [h for h in event.headers if h[0] != b"transfer-encoding"] == [
            h for h in found.headers if h[0] != b"transfer-encoding"
        ]


@given(fields=headers, body=st.binary(max_size=200), sizes=splits)
def test_request_written_by_the_client_end_reads_back_alike(
    fields: Headers, body: bytes, sizes: list[int]
) -> None:
    asyncio.run(_through(fields, body, sizes))


async def _through(fields: Headers, body: bytes, sizes: list[int]) -> None:
    client = Http1Client(Owner(), LIMITS, lambda _: None)
    upstream = FakeTransport(client)
    client.connection_made(upstream)
    heard = HeardResponse()
    call = client.open(heard)
    call.start(_get(fields), end=False)
    for piece in cut(body, sizes):
        call.send(piece)
    call.finish(fields)
    await asyncio.sleep(0)
    requests = Requests(answer)
    server = Http1Server(requests, LIMITS, lambda _: None, lambda: None)
    downstream = FakeTransport(server)
    server.connection_made(downstream)
    for piece in cut(upstream.written, sizes):
        downstream.feed(piece)
    hop = {b"keep-alive", b"proxy-connection", b"http2-settings"}
    kept = tuple((name, data.strip(b" \t")) for name, data in fields if name not in hop)
    assert heard.lost is None
    assert requests.last.head.headers == kept
    assert requests.last.body == body
    assert requests.last.trailers == kept


@given(fields=headers, status=st.integers(200, 599))
def test_response_head_written_by_the_server_end_reads_back_alike(fields: Headers, status: int) -> None:
    asyncio.run(_answered(fields, status))


async def _answered(fields: Headers, status: int) -> None:
    requests = Requests()
    server = Http1Server(requests, LIMITS, lambda _: None, lambda: None)
    transport = FakeTransport(server)
    server.connection_made(transport)
    transport.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    requests.last.down.respond(status, fields, end=True)
    found = scan_response(transport.written, LIMITS)
    assert isinstance(found, ResponseStart)
    assert found.status == status
    hop = {b"keep-alive", b"proxy-connection", b"http2-settings"}
    assert [h for h in found.forwarded() if h[0] != b"content-length"] == [
        h for h in fields if h[0] not in hop
    ]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    sizes=splits,
    after=st.binary(max_size=10),
)
def test_chunks_cut_anywhere_give_the_body_and_what_follows(
    chunks: list[bytes], sizes: list[int], after: bytes
) -> None:
    data = b"".join(b"%x;e\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX: y\r\n\r\n"
    scan = ChunkScan(LIMITS)
    framed = b""
    pieces = cut(data, sizes)
    pieces[-1] += after
    for piece in pieces:
        part = scan.feed(piece)
        assert not isinstance(part, Refusal)
        framed += part
    assert scan.done
    assert scan.rest == after
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
    body = b""
    event = conn.next_event()
    while not isinstance(event, h11.EndOfMessage):
        body += event.data if isinstance(event, h11.Data) else b""
        event = conn.next_event()
    assert body == b"".join(chunks)
    assert list(event.headers) == [(b"x", b"y")]
