"""HTTP/1.1 requests, well formed, odd and malformed: every engine takes and refuses the same, and sends the app the same."""

import pytest
from hypothesis import strategies as st

from tests.conformance.harness import Way
from tests.differential.beside import NEEDS_BOTH_ENGINES, Answered, beside, field_lines, insert, read_answers
from tests.support.http_client import connect

pytestmark = NEEDS_BOTH_ENGINES

METHODS = st.sampled_from(
    [
        "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "FOO", "M-SEARCH", "A!#$%&'*+.^_`|~9",
    ]
)  # fmt: skip
BAD_METHODS = st.sampled_from(["", "G ET", "G(T", "GÉT", "GET\t", "\x00"])
TARGETS = st.sampled_from(
    [
        "/",
        "/a",
        "/a/b?c=d",
        "/a//b",
        "/%41%2f",
        "/a//../b%5C%ff%23",
        "/a\\b",
        "/a;b=c",
        "/a?b#c",
        "*",
        "http://app/x",
        "HTTP://APP:80/y?z",
        "http://app",
        "/" + "a" * 2000,
    ]
) | st.text("ab/.;%25c?&=~:@!$'()*+,-_", max_size=20).map("/".__add__)
BAD_TARGETS = st.sampled_from(
    [
        "", "a", "/a b", "/\x7f", "/\x00", "/é", "//", "/..", "/%zz", "http:///x", "http://a b/", "ftp://a/", "?",
        "#",
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(["HTTP/1.1"] * 12 + ["HTTP/1.0"])
BAD_VERSIONS = st.sampled_from(
    [
        "HTTP/2.0", "HTTP/1.2", "HTTP/1", "http/1.1", "HTTP/1.1 ", "", "HTTP/11", "HTTP/0.9",
    ]
)  # fmt: skip
PAIRS = field_lines(
    [
        "Accept", "accept", "Cookie", "COOKIE", "User-Agent", "X-One", "x-one", "Date", "Via", "Forwarded", "Content-Type",
        "Authorization", "Range", "If-None-Match", "Trailer", "Keep-Alive", "Proxy-Connection", "X_Under", "!#$%&'*+-.^_`|~1",
        "traceparent", "Accept-Encoding",
    ],
    ["", "a", "a, b", '"q"', "a  b", "a\tb", "x=y; z", "gzip", "1", "\xe9\xff", "a" * 500, "close"],
)  # fmt: skip
ODD_LINES = st.sampled_from(
    [
        "Connection: keep-alive", "Connection: x-one", "Connection: close, x-two", "Connection:", "connection: ,",
        "TE: trailers", "TE: gzip, trailers", "Expect: 100-continue", "X-One:a", "X-One:  a\t", "X-One: a ", "Host: app",
        "Content-Length: 0", "Max-Forwards: 0", "Upgrade: foo", "Connection: TE", "Connection: host",
        "Connection: content-length", "grpc-timeout: 5S", "tracestate: a=b",
        ]
)  # fmt: skip
BAD_LINES = st.sampled_from(
    [
        "X One: a", ": a", "X-One : a", " X-One: a", "\tfold",
        "X-One: a\x00b", "X-One: a\x0bb", "X-One: a\rb", "X-One: a\nY: b", "X-One", "X-Oné: a", "Content-Length: 5",
        "Content-Length: +1", "Content-Length: 1, 1", "Content-Length: 1,2", "Content-Length: -1", "Content-Length: 0x1",
        "Content-Length:", "Content-Length: 99999999999999999999", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: identity", "Transfer-Encoding:", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \x0bchunked", "Host: b", "Host:", "Host: a b", "Host: a/b", "Host: a@b", "Host: a:b",
        "Expect: 200-maybe", "Connection: transfer-encoding", "Connection: (",
        ]
)  # fmt: skip
BODIES = st.sampled_from(
    [b"", b"x", b"hello",
        b"\r\n\r\n", b"GET /in-body HTTP/1.1\r\nHost: a\r\n\r\n", b"y" * 3000,
    ]
)  # fmt: skip
EXTENSIONS = st.sampled_from([b""] * 5 + [b";a", b";a=b", b' ;a="b"', b"\t"])
BAD_CHUNKS = st.sampled_from(
    [
        b"g\r\nx\r\n", b"-1\r\nx\r\n", b"1\nx\r\n", b"1\r\nxy\r\n", b"0x1\r\nx\r\n", b"1 1\r\nx\r\n", b"\r\n", b"+1\r\nx\r\n",
        b"1;a\nb\r\nx\r\n", b"f" * 17 + b"\r\n",
    ]
)  # fmt: skip
TRAILERS = st.lists(
    st.sampled_from(
        [
            b"X-Trail: t\r\n",
            b"x-trail: u\r\n",
            b"Content-Length: 9\r\n",
            b"Host: t\r\n",
            b"Grpc-Status: 0\r\n",
            b"X-T:\r\n",
        ]
    ),
    max_size=2,
)
BAD_TRAILERS = st.sampled_from(
    [
        b"X Y: t\r\n", b"nope\r\n", b" fold\r\n", b"X: a\nb\r\n", b"X: \x00\r\n",
    ]
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request, most often with at most one thing wrong: its method, and its bytes."""
    wrong = draw(
        st.sampled_from(
            [
                "",
                "",
                "",
                "method",
                "target",
                "version",
                "line",
                "line",
                "chunk",
                "trailer",
                "no-host",
                "length",
                "lf",
            ]
        )
    )
    method = draw(BAD_METHODS if wrong == "method" else METHODS)
    target = draw(BAD_TARGETS if wrong == "target" else TARGETS)
    version = draw(BAD_VERSIONS if wrong == "version" else VERSIONS)
    lines = draw(st.lists(PAIRS | PAIRS | ODD_LINES, max_size=5))
    if wrong != "no-host":
        lines.insert(0, "Host: app")
    if wrong == "line":
        insert(draw, lines, BAD_LINES)
    body, framed = draw(BODIES), draw(st.sampled_from(["none", "length", "chunks"]))
    sent = b""
    if wrong in ("chunk", "trailer"):
        framed = "chunks"
    if framed == "length":
        lines.append(f"Content-Length: {len(body) - (wrong == 'length')}")
        sent = body
    elif framed == "chunks":
        lines.append("Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(body)))
        sent = b"".join(
            b"%x%s\r\n%s\r\n" % (len(part), draw(EXTENSIONS), part)
            for part in (body[:cut], body[cut:])
            if part
        )
        sent += draw(BAD_CHUNKS) if wrong == "chunk" else b""
        sent += (
            b"0\r\n"
            + b"".join(draw(TRAILERS))
            + (draw(BAD_TRAILERS) if wrong == "trailer" else b"")
            + b"\r\n"
        )
    end = "\n" if wrong == "lf" else "\r\n"
    head = end.join([f"{method} {target} {version}", *lines, "", ""]).encode("latin-1")
    return method, head + sent


@pytest.mark.parametrize("hops", ["one", "two"])
async def test_engines_agree_on_requests(hops: str) -> None:
    async with beside(hops) as engines:
        await engines.compare(requests(), _call)


async def _call(way: Way, request: tuple[str, bytes]) -> Answered:
    method, data = request
    second = b"GET /second HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
    async with connect(way.port) as caller:
        await caller.send(data + second)
        return await read_answers(caller.reader, (method, "GET"))
