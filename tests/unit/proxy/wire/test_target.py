"""Request targets and the forms of their path: RFC 3986 §3.3 and §5.2.4, the vectors of the invocation surface, and properties."""

import posixpath
import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rules.path_readings import readings
from proxy.wire.target import BadTargetError, Target, as_forwarded, below, clean, invoked, parse, readable
from tests.support.vectors import Text, Vector, octets, spelt, vectors


class Parse(Vector, frozen=True, kw_only=True):
    target: Text
    path: Text | None = None
    query: Text = ""
    authority: Text = ""
    offset: int = 0
    refused: str | None = None


@vectors("targets", "parse", Parse)
def test_target_has_its_parts_or_is_refused(vector: Parse) -> None:
    if vector.path is None:
        with pytest.raises(BadTargetError) as error:
            parse(octets(vector.target))
        assert error.value.reason == vector.refused
        return
    assert parse(octets(vector.target)) == Target(
        spelt(vector.path), octets(vector.query), offset=vector.offset, authority=octets(vector.authority)
    )


class Invoked(Vector, frozen=True, kw_only=True):
    path: Text
    app: Text | None = None
    method: str = ""


@vectors("targets", "invoked", Invoked)
def test_path_form_is_cut_at_the_first_method_as_it_was_sent(vector: Invoked) -> None:
    expected = None if vector.app is None else (spelt(vector.app), vector.method)
    assert invoked(spelt(vector.path)) == expected


class Forwarded(Vector, frozen=True, kw_only=True):
    path: str
    sent: str
    whole: str
    method: str


@vectors("targets", "forwarded", Forwarded)
def test_app_finds_the_path_in_the_form_of_its_surface(vector: Forwarded) -> None:
    assert as_forwarded(vector.path, "sent") == vector.sent
    assert as_forwarded(vector.path, "whole") == vector.whole
    assert as_forwarded(vector.path, "method") == vector.method


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


class Below(Vector, frozen=True, kw_only=True):
    path: str
    sent: str


@vectors("targets", "below", Below)
def test_path_below_a_base_stays_there(vector: Below) -> None:
    assert below("/base", vector.path) == vector.sent


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
def test_no_reading_of_a_path_below_a_base_leads_out_of_it(target: bytes) -> None:
    found = accepted(target)
    if found is not None:
        sent = below("/base", as_forwarded(found.path, "whole"))
        once = unquote_to_bytes(sent).decode("latin-1").replace("\\", "/")
        segments = [segment.partition(";")[0] for segment in once.split("/")]
        assert sent.startswith("/base/")
        assert ".." not in segments


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
