"""An app's answers, well formed, odd and malformed: every engine passes on and refuses the same."""

import pytest
from hypothesis import strategies as st
from msgspec import Struct

from tests.conformance.harness import Way
from tests.differential.beside import (
    ANSWER,
    NEEDS_BOTH_ENGINES,
    Answered,
    beside,
    field_lines,
    insert,
    read_answers,
)
from tests.support.http_client import connect

pytestmark = NEEDS_BOTH_ENGINES

STATUSES = st.sampled_from(
    [
        200, 200, 200, 201, 204, 206, 301, 304, 400, 404, 418, 429, 500, 503, 599,
    ]
)  # fmt: skip
BAD_STATUSES = st.sampled_from(["99", "20", "2000", "600", "abc", "-1", "", "101", "+20"])
REASONS = st.sampled_from([" OK", " ", "", " Very odd  reason", " \xe9", "\tTab"])
BAD_VERSIONS = st.sampled_from(["HTTP/2.0", "http/1.1", "HTTP/1", "ICY", "", "HTTP/1.1 "])
PAIRS = field_lines(
    [
        "Set-Cookie", "set-cookie", "Content-Type", "ETag", "Location", "Vary", "X-One", "Date", "Server", "Warning",
        "WWW-Authenticate", "!#$%&'*+-.^_`|~1",
    ],
    ["", "a", "a, b", '"q"', "a\tb", "\xe9\xff", "a" * 900],
)  # fmt: skip
ODD_LINES = st.sampled_from(
    [
        "Connection: x-one", "Connection: close", "Connection: keep-alive", "Keep-Alive: timeout=5", "Trailer: x-trail",
        "Upgrade: foo", "X-One:  a \t", "Proxy-Connection: a", "TE: trailers", "Content-Length: 2", "grpc-status: 0",
        "traceparent: x"]
)  # fmt: skip
BAD_LINES = st.sampled_from(
    ["X One: a", ": a", "X-One : a", " X-One: a",
        "X-One: a\x00", "X-One: a\rb", "X-One: a\nY: b", "X-One", "Content-Length: 1", "Content-Length: +2",
        "Content-Length: 2, 2", "Content-Length: 2,3", "Content-Length:", "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked", "Transfer-Encoding:",
        "Content-Length: 99999999999999999999"]
)  # fmt: skip
INTERIM = st.sampled_from(
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"HTTP/1.1 102 \r\n\r\n",
    ]
)  # fmt: skip
BAD_INTERIM = st.sampled_from(
    [
        b"HTTP/1.1 103 A\r\nX One: a\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 C\r\nContent-Length: 3\r\n\r\nabc",
    ]
)  # fmt: skip
BODIES = st.sampled_from(
    [
        b"", b"x", b"ok", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 5000,
    ]
)  # fmt: skip
TRAILERS = st.lists(
    st.sampled_from(
        [
            b"X-Trail: t\r\n",
            b"grpc-status: 0\r\n",
            b"Content-Length: 9\r\n",
            b"Set-Cookie: a\r\n",
        ]
    ),
    max_size=2,
)
BAD_ENDS = st.sampled_from(
    [
        b"g\r\n", b"5\r\nab", b"0\r\n", b"0\r\nX Y: a\r\n\r\n", b"1\r\nabc\r\n", b"-1\r\n", b"",
    ]
)  # fmt: skip


class Case(Struct, frozen=True):
    """A request's method, the bytes that answer it, and whether the app closes then."""

    method: str
    answer: bytes
    closes: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """An answer, most often with at most one thing wrong."""
    wrong = draw(
        st.sampled_from(
            [
                "",
                "",
                "",
                "status",
                "version",
                "line",
                "line",
                "interim",
                "end",
                "more",
                "early",
            ]
        )
    )
    interim = draw(st.lists(INTERIM, max_size=2))
    if wrong == "interim":
        interim.append(draw(BAD_INTERIM))
    status = draw(BAD_STATUSES) if wrong == "status" else str(draw(STATUSES))
    version = (
        draw(BAD_VERSIONS) if wrong == "version" else draw(st.sampled_from(["HTTP/1.1"] * 9 + ["HTTP/1.0"]))
    )
    lines = draw(st.lists(PAIRS | ODD_LINES, max_size=5))
    if wrong == "line":
        insert(draw, lines, BAD_LINES)
    method, body = draw(st.sampled_from(["GET", "GET", "POST", "HEAD"])), draw(BODIES)
    framed = draw(st.sampled_from(["length", "length", "chunks", "close"]))
    if method == "HEAD" or status in {"204", "304"}:
        sent = b""
    elif framed == "chunks":
        sent = (b"%x;e\r\n%s\r\n" % (len(body), body) if body else b"") + (
            draw(BAD_ENDS) if wrong == "end" else b"0\r\n" + b"".join(draw(TRAILERS)) + b"\r\n"
        )
    else:
        sent = body
    if framed == "length" and status != "204":
        lines.append(f"Content-Length: {len(body) + (wrong == 'early')}")
    elif framed == "chunks" and status != "204":
        lines.append("Transfer-Encoding: chunked")
    if wrong == "more":
        sent += b"more"
    head = "\r\n".join([f"{version} {status}{draw(REASONS)}", *lines, "", ""]).encode("latin-1")
    return Case(
        method=method, answer=b"".join(interim) + head + sent, closes=framed == "close" or wrong != ""
    )


@pytest.mark.parametrize("hops", ["one", "two"])
async def test_engines_agree_on_answers(hops: str) -> None:
    async with beside(hops) as engines:

        async def call(way: Way, case: Case) -> Answered:
            engines.app.answer, engines.app.closes = case.answer, case.closes
            async with connect(way.port) as caller:
                await caller.send_head(case.method, "/", [("Host", "app"), ("Connection", "close")])
                return await read_answers(caller.reader, (case.method,))

        await engines.compare(cases(), call)
    assert engines.app.answer != ANSWER
