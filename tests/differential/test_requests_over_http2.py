"""HTTP/2 requests, well formed, odd and malformed: every engine takes, resets and refuses the same, and sends the app the same."""

import pytest
from hypothesis import strategies as st
from msgspec import Struct

from tests.conformance.frames import END_STREAM, Code, Fields, FramePeer, Kind, Message, dial, frame
from tests.conformance.harness import Way
from tests.differential.beside import NEEDS_BOTH_ENGINES, REFUSED, Answered, Told, beside, insert, told

pytestmark = NEEDS_BOTH_ENGINES

METHODS = st.sampled_from(
    [
        b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"get", b"FOO", b"A!#$",
    ]
)  # fmt: skip
PATHS = st.sampled_from(
    [
        b"/", b"/a", b"/a/b?c=d", b"/%41%2f", b"/a;b=c", b"*", b"/" + b"a" * 2000,
    ]
)  # fmt: skip
AUTHORITIES = st.sampled_from([b"app", b"app:80", b"APP", b"[::1]:80", b"a.b-c_d"])
BAD_PSEUDO = st.sampled_from(
    [
        (b":method", b""), (b":method", b"G T"), (b":path", b""), (b":path", b"a"), (b":path", b"/a b"), (b":path", b"/a#b"),
        (b":path", b"/\x00"), (b":scheme", b""), (b":scheme", b"ftp"), (b":scheme", b"h ttp"), (b":authority", b""),
        (b":authority", b"a b"), (b":authority", b"u@a"), (b":authority", b"a/b"), (b":path", b"/\xe9"), (b":path", b"/.."),
        (b":path", b"//"), ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        (b"accept", b"*/*"), (b"cookie", b"a=b"),
        (b"cookie", b"c=d"), (b"cookie", b""), (b"x-one", b"1"), (b"x-one", b""), (b"x-one", b"a, b"), (b"te", b"trailers"),
        (b"x-two", b"\xe9\xff"), (b"x-two", b"a\tb"), (b"host", b"app"), (b"expect", b"100-continue"), (b"via", b"1.0 x"),
        (b"date", b"now"), (b"x-long", b"a" * 700), (b"!#$%&'*+-.^_`|~1", b"a"), (b"trailer", b"x-trail"),
        (b"grpc-timeout", b"5S"), (b"range", b"bytes=0-"),
        ]
)  # fmt: skip
BAD_FIELDS = st.sampled_from(
    [
        (b"X-One", b"a"), (b"x one", b"a"), (b"x(y", b"a"), (b"", b"a"),
        (b"x:y", b"a"), (b"x-one", b" a"), (b"x-one", b"a "), (b"x-one", b"a\x00"), (b"x-one", b"a\rb"), (b"x-one", b"a\nb"),
        (b"connection", b"close"), (b"connection", b"x-one"), (b"keep-alive", b"1"), (b"proxy-connection", b"a"),
        (b"upgrade", b"foo"), (b"transfer-encoding", b"chunked"), (b"te", b"gzip"), (b"te", b"trailers, gzip"),
        (b"host", b"b"), (b"host", b""), (b":path", b"/late"), (b":unknown", b"a"), (b":status", b"200"),
        (b"content-length", b"9"), (b"content-length", b"+1"), (b"content-length", b""), (b"\xe9", b"a"),
        (b"content-length", b"-1"), (b"content-length", b"99999999999999999999"), (b"x-one", b"a\x7f"), (b"x-one", b"\x01"),
        ]
)  # fmt: skip
BODIES = st.lists(
    st.sampled_from(
        [
            b"",
            b"x",
            b"hello",
            b"y" * 3000,
        ]
    ),
    max_size=3,
)
TRAILERS = st.lists(
    st.sampled_from([(b"x-trail", b"t"), (b"grpc-status", b"0"), (b"x-trail", b"")]), min_size=1, max_size=2
)
BAD_TRAILERS = st.sampled_from(
    [
        (b":path", b"/"), (b"X-T", b"a"), (b"connection", b"a"), (b"x t", b"a"), (b"x-t", b"a\n"), (b"content-length", b"1"),
    ]
)  # fmt: skip
PSEUDO = (b":method", b":scheme", b":authority", b":path")


class Case(Struct, frozen=True):
    """A request: its head, its DATA, its trailers, and how it ends."""

    head: tuple[tuple[bytes, bytes], ...]
    body: tuple[bytes, ...]
    trailers: tuple[tuple[bytes, bytes], ...]
    ends: str  # with-head, with-data, with-trailers, reset

    @property
    def method(self) -> bytes:
        return dict(self.head).get(b":method", b"")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A request, most often with at most one thing wrong."""
    wrong = draw(
        st.sampled_from(
            [
                "",
                "",
                "",
                "pseudo",
                "missing",
                "twice",
                "order",
                "field",
                "field",
                "trailer",
                "length",
            ]
        )
    )
    given_pseudo = dict(zip(PSEUDO, (draw(METHODS), b"http", draw(AUTHORITIES), draw(PATHS)), strict=True))
    if wrong == "pseudo":
        name, data = draw(BAD_PSEUDO)
        given_pseudo[name] = data
    if wrong == "missing":
        del given_pseudo[draw(st.sampled_from(PSEUDO))]
    pseudo = draw(st.permutations(sorted(given_pseudo.items())))
    if wrong == "twice":
        pseudo.append(draw(st.sampled_from(pseudo)))
    fields = draw(st.lists(FIELDS, max_size=5))
    if wrong == "field":
        insert(draw, fields, BAD_FIELDS)
    body = draw(BODIES)
    trailers = draw(TRAILERS) if wrong == "trailer" or (wrong == "" and draw(st.booleans())) else []
    if wrong == "trailer":
        insert(draw, trailers, BAD_TRAILERS)
    if draw(st.booleans()) or wrong == "length":
        fields.append((b"content-length", b"%d" % (sum(map(len, body)) + (wrong == "length"))))
    head = [*fields[:1], *pseudo, *fields[1:]] if wrong == "order" else [*pseudo, *fields]
    ends = "with-trailers" if trailers else "with-data" if body else "with-head"
    return Case(tuple(head), tuple(body), tuple(trailers), ends)


@pytest.mark.parametrize("hops", ["one", "two"])
async def test_engines_agree_on_requests(hops: str) -> None:
    async with beside(hops) as engines:
        await engines.compare(cases(), _call)


async def _call(way: Way, case: Case) -> Answered:
    async with dial(way.port) as caller:
        stream = caller.new_stream()
        frames = [caller.head(stream, case.head, end=case.ends == "with-head")]
        for number, part in enumerate(case.body):
            last = case.ends == "with-data" and number == len(case.body) - 1
            frames.append(frame(Kind.DATA, END_STREAM if last else 0, stream, part))
        if case.trailers:
            frames.append(caller.head(stream, case.trailers, end=True))
        await caller.send(*frames)
        message = await caller.whole(stream)
        if _is_refused(caller, message):
            return [], REFUSED
        answers = [_told(message)] if message.headers else []
        if message.lost:
            return answers, f"connection lost, {caller.goaway.code if caller.goaway else 'without a word'}"
        return answers, "ended" if message.ended else f"reset with {message.reset}"


def _is_refused(caller: FramePeer, message: Message) -> bool:
    """Malformed: a 400, a stream's error or the connection's are all allowed (RFC 9113 §5.4, §8.1.1)."""
    if message.lost:
        return caller.goaway is not None and caller.goaway.code == Code.PROTOCOL_ERROR
    is_answered = message.status == 400 and message.get(b"postern-error") == b"bad-request"
    return is_answered or message.reset == Code.PROTOCOL_ERROR


def _told(message: Message) -> Told:
    headers = [(name, data) for name, data in message.headers if name != b":status"]
    return told(
        (str(message.status),),
        _text(headers),
        bytes(message.body),
        _text(message.trailers),
        cut=not message.ended,
    )


def _text(fields: Fields) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), data.decode("latin-1")) for name, data in fields]
