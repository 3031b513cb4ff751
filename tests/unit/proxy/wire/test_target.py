"""Request targets and the forms of their path: RFC 3986 §3.3 and §5.2.4, the tables of the invocation surface, and properties."""

import posixpath
import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rules.path_readings import readings
from proxy.wire.target import BadTargetError, Target, as_forwarded, clean, invoked, parse, readable


@pytest.mark.parametrize(
    "target",
    [
        *(b"/", b"/a/b", b"/a/b/", b"/a+b", b"/a%2Bb", b"/a%20b", b"/a;b=1/c", b"/a:b,c$&=!*'()"),
        *(b"/%E4%BD%A0", b'/a"b|c^d', b"/a\\b", b"/a%25b", b"/a%25zz", b"/...", b"/.a/b.."),
        *(b"/a%2Fb", b"/a%5Cb", b"/a%23b", b"/a%3Fb", b"/a%252Fb", b"/100%25ab", b"/a%C3%28", b"/a%FF"),
        *(b"//a//b", b"/a/./b", b"/a/x/../b", b"/a/%2e%2E/b", b"/..", b"/a/..;/b", b"/a/%2e%2e;x=1/b"),
    ],
)
def test_path_stays_as_it_was_sent(target: bytes) -> None:
    assert parse(target) == Target(target.decode(), b"", offset=0, authority=b"")


@pytest.mark.parametrize(
    "target",
    [
        *(b"", b"a/b", b"?a", b"/a%zz", b"/a%", b"/a%4", b"/a\tb", b"/a b", b"/\xc3\xa4", b"/a#b", b"/a?b#c"),
        *(b"/a%00b", b"/a%0Ab", b"/a%7Fb", b"/a%7f", b"/a%1f"),
        *(
            b"ftp://a/b",
            b"http://",
            b"http:///a",
            b"http://?a",
            b"http://u@a/b",
            b"http://u:p@a/b",
            b"cart:80",
        ),
    ],
)
def test_what_is_no_target_is_refused(target: bytes) -> None:
    with pytest.raises(BadTargetError) as error:
        parse(target)
    assert error.value.reason


def test_star_is_the_root() -> None:
    assert parse(b"*").path == "/"


def test_query_stays_as_it_came() -> None:
    for raw in (b"a=%zz&b=1;c", b"?", b"/../x", b"%00", b"a=%2F"):
        assert parse(b"/a/b?" + raw).query == raw
        assert parse(b"/a%20b?" + raw).query == raw
    assert parse(b"/a?").query == b""


@pytest.mark.parametrize(
    ("target", "path", "query", "authority", "rest"),
    [
        (b"http://cart/a/b?c", "/a/b", b"c", b"cart", b"/a/b?c"),
        (b"HTTP://cart:80/a%20b", "/a%20b", b"", b"cart:80", b"/a%20b"),
        (b"https://[::1]:1/", "/", b"", b"[::1]:1", b"/"),
        (b"http://cart", "/", b"", b"cart", b""),
        (b"http://cart?a/b", "/", b"a/b", b"cart", b"?a/b"),
        (b"http://cart//a", "//a", b"", b"cart", b"//a"),
    ],
)
def test_absolute_form_gives_authority_and_where_the_path_begins(
    target: bytes, path: str, query: bytes, authority: bytes, rest: bytes
) -> None:
    found = parse(target)
    assert (found.path, found.query, found.authority) == (path, query, authority)
    assert target[found.offset :] == rest


@pytest.mark.parametrize(
    ("path", "app", "method"),
    [
        ("/v1.0/invoke/cart/method/items/1", "cart", "/items/1"),
        ("/v1.0/invoke/cart/method", "cart", "/"),
        ("/v1.0/invoke/cart/method/", "cart", "/"),
        ("/v1.0/invoke/method/method/x", "method", "/x"),
        ("/v1.0/invoke/a/method/x/method/y", "a", "/x/method/y"),
        ("/v1.0/invoke/a/method//x/../y", "a", "//x/../y"),
        ("/v1.0/invoke/a/method/../../b/method/y", "a", "/../../b/method/y"),
        ("/v1.0/invoke/c%61rt%2Eshop/method/a%2Fb", "c%61rt%2Eshop", "/a%2Fb"),
        ("//v1.0///invoke//a/method/x", "a", "/x"),
    ],
)
def test_path_form_is_cut_at_the_first_method_as_it_was_sent(path: str, app: str, method: str) -> None:
    assert invoked(path) == (app, method)


@pytest.mark.parametrize(
    "path",
    [
        *("/items", "/v1.0/invoke/cart", "/x/method/y", "/v1.0/invoke/method/x", "/v1.0/invoke//method/x"),
        *("/v1.0/invoke/cart%2Fmethod/x", "/v1.0/%69nvoke/cart/method/x", "/x/../v1.0/invoke/cart/method/y"),
        *("/v1.0/invoke/" + "a" * 257 + "/method/x", "/v1.0/invoke/a/xmethod", "/v1.0/invoke/a/methods/x"),
    ],
)
def test_any_other_path_is_none_of_the_path_form(path: str) -> None:
    assert invoked(path) is None


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("/a/b/", "/a/b/"),
        ("//a//b", "/a/b"),
        ("/a/./x/../b", "/a/b"),
        ("/../a/b", "/a/b"),
        ("/a/..", "/"),
        ("//", "/"),
        ("/a//", "/a/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a%2fb%2Fc%5C/%2e%2e/%252F%25%ff%E4%BD%A0", "/a%2fb%2Fc%5C/%2e%2e/%252F%25%ff%E4%BD%A0"),
        ('/a"b|c^d\\e<f>', "/a%22b%7Cc%5Ed%5Ce%3Cf%3E"),
        ("/a;b=1,c$&=!*'()+@:~", "/a;b=1,c$&=!*'()+@:~"),
        ("/a/..;/b", "/a/..;/b"),
    ],
)
def test_on_daprs_surfaces_a_path_is_cleaned_and_its_escapes_are_as_sent(path: str, whole: str) -> None:
    assert as_forwarded(path, "whole") == whole
    assert as_forwarded("/v1.0/invoke/cart/method" + path, "method") == whole
    assert as_forwarded(path, "sent") == path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a/b/", "/a/b"),
        ("//a/./b", "/a/b"),
        ("/a%20b/%E4%BD%A0", "/a b/你"),
        ("/a%2Fb", "/a%2Fb"),
        ("/%2e%2e/a", "/%2e%2e/a"),
        ("/a%3Fb%23", "/a%3Fb%23"),
        ("/100%25", "/100%25"),
        ("/a%FF", "/a%FF"),
        ("/a%C2%85", "/a%C2%85"),
    ],
)
def test_path_for_people_is_decoded_where_it_can_mean_nothing_else(path: str, shown: str) -> None:
    assert readable(path) == shown


def test_long_hostile_target_costs_linear_time() -> None:
    for target in (
        b"/" + b"a" * 60_000 + b"\x01",
        b"/a" * 30_000 + b"//",
        b"/" + b"%2e/" * 15_000,
        b"/" + b"%" * 60_000,
        b"/v1.0/invoke/" + b"/method" * 8_000,
    ):
        began = time.process_time()
        found = accepted(target)
        if found is not None:
            as_forwarded(found.path, "method")
            readable(found.path)
            readings(found.path)
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
_OTHERS = [
    "a",
    "b",
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
    "method",
]
_segments = st.sampled_from([*_OTHERS, *_ESCAPES])
targets = st.lists(_segments, max_size=6).map(lambda parts: ("/" + "/".join(parts)).encode()) | st.binary(
    max_size=20
).map(lambda data: b"/" + data)


def accepted(target: bytes) -> Target | None:
    try:
        return parse(target)
    except BadTargetError:
        return None


@given(targets)
def test_what_is_forwarded_cleaned_is_a_fixed_point_within_the_root(target: bytes) -> None:
    found = accepted(target)
    if found is not None:
        sent = as_forwarded(found.path, "whole")
        assert parse(sent.encode()).path == as_forwarded(sent, "whole") == sent
        assert "//" not in sent
        assert not set(sent.split("/")) & {".", ".."}


@given(targets)
def test_daprs_own_reading_is_among_those_that_are_judged(target: bytes) -> None:
    """Decoded once, then cleaned (Go's `path.Clean`), of what is sent on Dapr's surfaces and of what is sent as it is."""
    found = accepted(target)
    judged = readings(found.path) if found is not None else None
    if found is not None and judged is not None:
        decoded = unquote_to_bytes(found.path).decode()
        known = {one.rstrip("/") or "/" for one in judged}
        assert posixpath.normpath("/" + decoded.lstrip("/")) in known
        assert clean(found.path) in known


@given(targets, st.sampled_from([b"http://cart", b"HTTPS://cart:1"]))
def test_absolute_form_has_the_path_of_its_origin_form(target: bytes, prefix: bytes) -> None:
    plain = accepted(target)
    absolute = accepted(prefix + target)
    assert (plain is None) == (absolute is None)
    if plain is not None and absolute is not None:
        assert (plain.path, plain.query) == (absolute.path, absolute.query)
