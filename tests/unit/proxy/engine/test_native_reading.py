"""What the native engine reads by itself, against Python's rules on generated input; `tests/vectors` are apart. Where it was built."""

import re
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.rules.matcher import UNREADABLE, PathTable, path_table
from policies.rules.path_readings import readings
from proxy.contract.fields import carries, read_baggage
from proxy.contract.head import Form
from proxy.contract.recording import Shape, ShapedTable
from proxy.deciding.authorizer import AccessPaths
from proxy.deciding.browsers import BEYOND_PAGES
from proxy.deciding.callee import ForwardedPaths, OutPaths, Services
from proxy.wire.target import as_forwarded, below
from telemetry import context

native = pytest.importorskip("proxy.engine.native._native")

_SEGMENTS: Final = st.sampled_from(
    (
        "a",
        "A",
        "b",
        "ab",
        "*",
        "**",
        "a*",
        "*b",
        "a*b",
        "a*a*b",
        "*a*",
        "",
        "ä",
        "Ä",
        "\u212a",
        "\u0130",
        "a;x",
        "v1",
        "ß",
    )
)
_PATTERNS: Final = st.lists(_SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
_PATH_PARTS: Final = st.sampled_from(
    (
        "a",
        "A",
        "b",
        "ab",
        "aab",
        "axb",
        "*",
        "**",
        "",
        ".",
        "..",
        "..;x",
        "a;x",
        ";",
        "%41",
        "%4",
        "ä",
        "k",
        "i",
        "\x7f",
        "\\",
        "x?",
        "%2F",
        "%5c..",
        "%2e%2E",
        "%252F",
        "%3Bx",
        "a%25",
        "%C3%A4",
        "%ff",
        "%00",
        "method",
    )
)
_PATHS: Final = st.lists(_PATH_PARTS, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.text(
    max_size=20
)
_ROOTED: Final = _PATHS.map(lambda path: path if path.startswith("/") else f"/{path}")
_VERBS: Final = st.frozensets(st.sampled_from(("*", "GET", "PUT")), min_size=1)


@st.composite
def tables(draw: st.DrawFn) -> PathTable:
    """A table of a few rules that are near each other."""
    patterns = draw(st.lists(_PATTERNS, min_size=1, max_size=6))
    return path_table(patterns, [draw(_VERBS) for _ in patterns], fold_case=draw(st.booleans()))


def parts(shape: Shape | None) -> tuple[str, list[tuple[str, str, set[str]]], bool, str]:
    """A shape as the extension takes it."""
    assert shape is not None
    rules = [(ordered, opened, set(verbs)) for ordered, opened, verbs in shape.rules]
    return shape.kind, rules, shape.fold_case, shape.form


Outcome = tuple[int, tuple[tuple[int, bool], ...]] | None


def read_all(data: bytes) -> set[Outcome]:
    """The outcomes that the native class of a path stands for, one a reading."""
    if data[0] != 3:
        return {read(data)}
    found, at = set(), 1
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.add(read(data[at + 4 : end]))
        at = end
    return found


def read(data: bytes) -> Outcome:
    """The outcome of one reading; None: it has no canonical form."""
    if data == b"\x00":
        return None
    numbers = [int.from_bytes(data[at : at + 4], "little") for at in range(1, len(data), 4)]
    return numbers[0] - 1, tuple((number // 2, bool(number % 2)) for number in numbers[1:])


def outcomes(table: PathTable, classes: tuple[int, ...]) -> set[Outcome]:
    """What classes stand for in Python."""
    return {None if one == UNREADABLE else table.outcome(one) for one in classes}


@given(tables(), _PATHS)
@example(path_table(["/a/*"], [frozenset("*")], fold_case=True), "/a/b;x/c")
@example(path_table(["/*/b", "/**"], [frozenset("*")] * 2, fold_case=False), "/a/b/")
def test_paths_fall_into_the_same_class_of_access_rules(table: PathTable, path: str) -> None:
    found = native.path_class(parts(AccessPaths(table).shape), path)
    if found is None:
        assert table.fold_case
        assert not "".join(readings(path) or ()).isascii()
        return
    assert read_all(found) == outcomes(table, table.classes(path))


_FORMS: Final[st.SearchStrategy[Form]] = st.sampled_from(("sent", "whole", "method"))


@given(
    tables(),
    _ROOTED,
    st.sampled_from(("/v1.0/invoke/a/method", "/v1.0/invoke//method", "/v1.0/invoke/a/methods", "")),
    _FORMS,
)
def test_access_rules_see_the_path_that_the_app_finds(
    table: PathTable, path: str, prefix: str, form: Form
) -> None:
    stripped = ForwardedPaths(AccessPaths(table), form)
    found = native.path_class(parts(stripped.shape), prefix + path)
    if found is not None:
        classes = stripped.classify(prefix + path)
        assert isinstance(classes, tuple)
        assert read_all(found) == outcomes(table, classes)


@given(_PATHS)
def test_paths_have_the_same_readings(path: str) -> None:
    found, expected = native.path_readings(path), readings(path)
    assert (found and tuple(found)) == expected


@given(
    _ROOTED,
    st.sampled_from(("/v1.0/invoke/a/method", "//v1.0//invoke/%61/method", "/v1.0/invoke//method", "")),
    _FORMS,
)
def test_apps_find_the_same_path(path: str, prefix: str, form: Form) -> None:
    assert native.forwarded_path(prefix + path, form) == as_forwarded(prefix + path, form)


@given(_ROOTED)
def test_paths_below_a_base_are_the_same(path: str) -> None:
    assert native.path_below("/base", path) == below("/base", path)


_NAMING: Final = st.lists(
    st.sampled_from(
        (
            "/v1.0",
            "/invoke/",
            "/method",
            "/",
            "cart",
            "/metadata",
            "/healthz",
            "/outbound",
            "x",
            ".",
            "//",
            "%61",
            "%2F",
            "/..",
            "?",
            "shop.Cart",
            "ä",
            "a" * 257,
        )
    ),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("table", [OutPaths(), Services()])
@given(one=_NAMING, other=_NAMING)
@example(one="/v1.0/invoke/cart/method/a", other="/v1.0/invoke/cart/method")
@example(one="/shop.Cart/Get", other="/shop.Cart/Put")
def test_paths_that_naming_tells_apart_are_apart_natively(table: ShapedTable, one: str, other: str) -> None:
    shape = parts(table.shape)
    if native.path_class(shape, one) == native.path_class(shape, other):
        assert table.classify(one) == table.classify(other)


def test_paths_of_one_app_or_service_are_one_class() -> None:
    for table, one, other in (
        (OutPaths(), "/v1.0/invoke/cart/method/a", "/v1.0/invoke/cart/method/b/c"),
        (OutPaths(), "/items/1", "/items/2"),
        (Services(), "/shop.Cart/Get", "/shop.Cart/Put"),
    ):
        assert native.path_class(parts(table.shape), one) == native.path_class(parts(table.shape), other)


_IDS: Final = st.integers(0, 3) | st.integers(0, 2**64 - 1)
_FLAGS: Final = st.sampled_from(("00", "01", "02", "ff", "0", "0g", "03"))
_BINARY: Final = st.builds(
    lambda upper, lower, span, sampled: context.format_grpc_trace_bin(
        context.SpanContext(upper << 64 | lower, span, 0, sampled)
    ),
    _IDS,
    _IDS,
    _IDS,
    st.booleans(),
)
_TRACEPARENTS: Final = st.builds(
    lambda version, upper, lower, span, flags, more: (
        f"{version}-{upper:016x}{lower:016x}-{span:016x}-{flags}{more}".encode()
    ),
    st.sampled_from(("00", "01", "ff", "fe", "0", "AA")),
    _IDS,
    _IDS,
    _IDS,
    _FLAGS,
    st.sampled_from(("", "-", "-x", " ", "\t", "x")),
)
_SINGLES: Final = st.builds(
    lambda upper, lower, span, more: f"{upper}{lower:016x}-{span:016x}{more}".encode(),
    st.sampled_from(("", "0000000000000000", "0af7651916cd43dd", "0AF7651916cd43dd")),
    _IDS,
    _IDS,
    st.sampled_from(("", "-1", "-0", "-d", "-x", "-1-00000000000000aa", "-1-aa", "-", " ")),
)
_STATES: Final = st.lists(
    st.sampled_from(
        (
            "a=1",
            "b=2 ",
            " c=x y",
            "a@b=1",
            "A=1",
            "d=",
            "=",
            "",
            "e=f=g",
            "@a=1",
            "f=\t",
            f"{'g' * 256}=1",
            f"{'g' * 257}=1",
        )
    )
    | st.integers(0, 60).map(lambda number: f"k{number}=v"),
    max_size=36,
).map(lambda members: ",".join(members).encode())
_HEX: Final = st.sampled_from(
    (b"0af7651916cd43dd", b"0af7651916cd43dd8448eb211c80319c", b"0" * 16, b"0AF7651916CD43DD", b"1", b"")
)
_FIELDS: Final = st.lists(
    st.one_of(
        st.tuples(st.just(b"traceparent"), _TRACEPARENTS),
        st.tuples(st.just(b"tracestate"), _STATES),
        st.tuples(
            st.just(b"grpc-trace-bin"),
            _BINARY
            | _BINARY.map(lambda text: text + b"=")
            | st.tuples(_BINARY, _BINARY).map(b", ".join)
            | _BINARY.map(lambda text: text[:-1] + b"F")
            | st.binary(max_size=45).map(lambda raw: re.sub(rb"[^A-Za-z0-9+/=]", b"A", raw)),
        ),
        st.tuples(st.just(b"b3"), _SINGLES),
        st.tuples(st.sampled_from((b"x-b3-traceid", b"x-b3-spanid")), _HEX),
        st.tuples(
            st.sampled_from((b"x-b3-sampled", b"x-b3-flags")),
            st.sampled_from((b"1", b"0", b"true", b"TRUE", b"d")),
        ),
        st.tuples(st.just(b"x-other"), st.just(b"1")),
    ),
    max_size=6,
)


@given(fields=_FIELDS, grpc=st.booleans(), b3=st.booleans())
def test_headers_name_the_same_remote_span(
    fields: list[tuple[bytes, bytes]], *, grpc: bool, b3: bool
) -> None:
    expected = context.extract(fields, grpc=grpc, b3=b3)
    found = native.extract_context(fields, grpc, b3)
    if found is None:
        assert expected is None
        return
    upper, lower, span_id, sampled, tracestate = found
    assert context.SpanContext(upper << 64 | lower, span_id, 0, sampled, tracestate) == expected


@given(upper=_IDS, lower=_IDS, span_id=_IDS, sampled=st.booleans())
def test_contexts_are_written_alike(upper: int, lower: int, span_id: int, *, sampled: bool) -> None:
    known = context.SpanContext(upper << 64 | lower, span_id, 0, sampled)
    traceparent, binary = native.format_context(upper, lower, span_id, sampled)
    assert traceparent == context.format_traceparent(known)
    assert binary.encode() == context.format_grpc_trace_bin(known)


# --- fields


@given(
    st.lists(
        st.sampled_from(
            [
                b"a=1",
                b"a=",
                b"=1",
                b"a",
                b"",
                b" k = v ",
                b"k=v;p",
                b"k=v;p=1",
                b"k=v;",
                b'k="v"',
                b"k=\xe4",
                b"k=a b",
                b"k=v=w",
            ]
        )
        | st.binary(max_size=6).map(lambda raw: bytes(c for c in raw if c == 9 or 32 <= c != 127)),
        max_size=70,
    ),
    st.sampled_from([b",", b" , ", b",\t"]),
    st.integers(1, 3),
    st.none() | st.sets(st.sampled_from((b"a", b"k", b"A"))),
)
def test_baggage_is_read_alike(
    members: list[bytes], comma: bytes, lines: int, allowed: set[bytes] | None
) -> None:
    cut = len(members) // lines
    parts = [members[:cut], members[cut:]] if lines > 1 else [members]
    fields = [(b"baggage", comma.join(part)) for part in parts]
    keys = None if allowed is None else frozenset(allowed)
    assert native.read_baggage(fields, allowed) == read_baggage(fields, keys)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"via",
                    b"viaduct",
                    b"dapr-",
                    b"dapr-app-id",
                    b"content-type",
                    b"authorization",
                    b"x-forwarded-for",
                ]
            ),
            st.sampled_from(
                [
                    b"",
                    b"1",
                    b"Bearer x",
                    b"bearer",
                    b"Basic x",
                    b"application/json",
                    b"Application/JSON ; q",
                    b"text/plain, application/json",
                ]
            ),
        ),
        max_size=4,
    )
)
def test_patterns_are_matched_alike(fields: list[tuple[bytes, bytes]]) -> None:
    assert native.carries(fields, set(BEYOND_PAGES)) == carries(fields, BEYOND_PAGES)
