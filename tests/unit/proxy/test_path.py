"""One canonical form of a target, or none: RFC 3986 §3.3 and §5.2.4, the tables of the invocation surface, and properties."""

import posixpath
import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.path import BadTargetError, Target, encode, parse


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/a/b/", "/a/b"),
        (b"/a+b", "/a+b"),
        (b"/a%2Bb", "/a+b"),
        (b"/a%40b", "/a@b"),
        (b"/a%20b", "/a b"),
        (b"/a;b=1/c", "/a;b=1/c"),
        (b"/a:b,c$&=!*'()", "/a:b,c$&=!*'()"),
        (b"/%E4%BD%A0", "/你"),
        (b'/a"b|c^d', '/a"b|c^d'),
        (b"/a%25b", "/a%b"),
        (b"/a%25zz", "/a%zz"),
        (b"/...", "/..."),
        (b"/.a/b..", "/.a/b.."),
        (b"*", "/"),
    ],
)
def test_target_that_means_itself_is_forwarded_as_it_came(target: bytes, path: str) -> None:
    assert parse(target) == Target(path, b"", same=True, offset=0, authority=b"")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"//a//b", "/a/b"),
        (b"/a/./b", "/a/b"),
        (b"/a/x/../b", "/a/b"),
        (b"/../a/b", "/a/b"),
        (b"/a/..", "/"),
        (b"/a/.", "/a"),
        (b"/.", "/"),
        (b"/..", "/"),
        (b"/a/%2e%2E/b", "/b"),
        (b"/a/%2e/b", "/a/b"),
        (b"/a/.%2e/b", "/b"),
        (b"//", "/"),
        (b"/a//", "/a"),
    ],
)
def test_target_that_another_parser_reads_otherwise_says_so(target: bytes, path: str) -> None:
    found = parse(target)
    assert found.path == path
    assert not found.same


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"a/b",
        b"?a",
        b"/a%zz",
        b"/a%",
        b"/a%4",
        b"/a%2Fb",
        b"/a%2fb",
        b"/a%5Cb",
        b"/a\\b",
        b"/a%00b",
        b"/a%0Ab",
        b"/a%7Fb",
        b"/a%1f",
        b"/a\tb",
        b"/a%23b",
        b"/a%3Fb",
        b"/a#b",
        b"/a?b#c",
        b"/a%2541",
        b"/a%252e%252e/b",
        b"/a%252fb",
        b"/a%C3%28",
        b"/a%FF",
        b"/a/..;/b",
        b"/a/.;x/b",
        b"/a/%2e%2e;x=1/b",
        b"/a/..%3Bx/b",
        b"ftp://a/b",
        b"http://",
        b"http:///a",
        b"http://?a",
        b"http://u@a/b",
        b"http://u:p@a/b",
        b"cart:80",
    ],
)
def test_target_without_a_canonical_form_is_refused(target: bytes) -> None:
    with pytest.raises(BadTargetError) as error:
        parse(target)
    assert error.value.reason


def test_query_stays_as_it_came() -> None:
    for raw in (b"a=%zz&b=1;c", b"?", b"/../x", b"%00", b"a=%2F"):
        assert parse(b"/a/b?" + raw).query == raw
        assert parse(b"/a%20b?" + raw).query == raw
    assert parse(b"/a?").query == b""


@pytest.mark.parametrize(
    ("target", "path", "query", "authority", "rest"),
    [
        (b"http://cart/a/b?c", "/a/b", b"c", b"cart", b"/a/b?c"),
        (b"HTTP://cart:80/a%20b", "/a b", b"", b"cart:80", b"/a%20b"),
        (b"https://[::1]:1/", "/", b"", b"[::1]:1", b"/"),
        (b"http://cart", "/", b"", b"cart", b""),
        (b"http://cart?a/b", "/", b"a/b", b"cart", b"?a/b"),
        (b"http://cart//a", "/a", b"", b"cart", b"//a"),
    ],
)
def test_absolute_form_gives_authority_and_where_the_path_begins(
    target: bytes, path: str, query: bytes, authority: bytes, rest: bytes
) -> None:
    found = parse(target)
    assert (found.path, found.query, found.authority) == (path, query, authority)
    assert target[found.offset :] == rest


def test_long_hostile_target_costs_linear_time() -> None:
    for target in (
        b"/" + b"a" * 60_000 + b"\x01",
        b"/a" * 30_000 + b"//",
        b"/" + b"%2e/" * 15_000,
        b"/" + b"%" * 60_000,
    ):
        began = time.process_time()
        accepted(target)
        assert time.process_time() - began < 0.5


_ESCAPES = [
    "%2e",
    "%2E%2e",
    "%20",
    "%",
    "%25",
    "%41",
    "%zz",
    "%2F",
    "%5c",
    "%C3%A4",
    "%ff",
    "%3f",
    "%23",
    "%00",
]
_segments = st.sampled_from(
    [
        "a",
        "b",
        "a b",
        "a;b",
        ";",
        "..;",
        "~",
        "+",
        "*",
        "@",
        "ä",
        ".",
        "..",
        "...",
        "",
        "?",
        "#",
        "\\",
        *_ESCAPES,
    ]
)
targets = st.lists(_segments, max_size=6).map(lambda parts: ("/" + "/".join(parts)).encode()) | st.binary(
    max_size=20
).map(lambda data: b"/" + data)


def accepted(target: bytes) -> Target | None:
    try:
        return parse(target)
    except BadTargetError:
        return None


@given(targets)
def test_canonical_path_is_a_fixed_point(target: bytes) -> None:
    found = accepted(target)
    if found is not None:
        again = parse(encode(found.path))
        assert again.path == found.path
        assert again.same


@given(targets)
def test_canonical_path_hides_nothing(target: bytes) -> None:
    found = accepted(target)
    if found is not None:
        path = found.path
        assert path.startswith("/")
        assert path == "/" or not path.endswith("/")
        assert not set(path.split("/")[1:]) & {".", ".."}
        assert "//" not in path
        assert not any(char < " " or char in "\x7f?#\\" for char in path)


@given(targets)
def test_same_means_that_a_second_reader_sees_the_same_segments(target: bytes) -> None:
    found = accepted(target)
    if found is not None and found.same:
        raw = target.partition(b"?")[0]
        decoded = unquote_to_bytes(raw).decode()
        assert posixpath.normpath(decoded) == found.path
        assert decoded.rstrip("/") == found.path.rstrip("/")


@given(targets, st.sampled_from([b"http://cart", b"HTTPS://cart:1"]))
def test_absolute_form_has_the_path_of_its_origin_form(target: bytes, prefix: bytes) -> None:
    plain = accepted(target)
    absolute = accepted(prefix + target)
    assert (plain is None) == (absolute is None)
    if plain is not None and absolute is not None:
        assert (plain.path, plain.query, plain.same) == (absolute.path, absolute.query, absolute.same)


@given(
    st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f?#%\\/"), min_size=1).filter(
        lambda s: not s.startswith(".")
    )
)
def test_encode_and_parse_are_inverses_on_segments(segment: str) -> None:
    try:
        data = encode("/" + segment)
    except UnicodeEncodeError:
        return
    assert parse(data).path == "/" + segment
