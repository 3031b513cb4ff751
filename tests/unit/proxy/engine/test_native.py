"""The native engine's parts that Python can call alone, against the portable ones as the oracle; where the extension was built."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.plan import Cause
from proxy.wire.target import BadTargetError, parse

native = pytest.importorskip("proxy.engine.native._native")

_PIECES = st.sampled_from(
    (
        *(
            b"/",
            b"a",
            b".",
            b"..",
            b";",
            b"%",
            b"%2e",
            b"%2F",
            b"%5C",
            b"%41",
            b"%25",
            b"%C3%A4",
            b"%ff",
            b"?",
        ),
        *(
            b"#",
            b"\\",
            b"*",
            b"http://",
            b"HTTPS://",
            b"@",
            b":80",
            b"\x00",
            b"\x7f",
            b" ",
            b"~",
            b"\xc3\xa4",
        ),
    )
)
_TARGETS = st.lists(_PIECES, max_size=12).map(b"".join) | st.binary(max_size=40).map(lambda rest: b"/" + rest)


def read(target: bytes) -> tuple[str, bytes, int, bytes] | str:
    """What the portable parser makes of a target."""
    try:
        found = parse(target)
    except BadTargetError:
        return "refused"
    return (found.path, found.query, found.offset, found.authority)


@given(_TARGETS)
def test_targets_are_read_alike_in_both_engines(target: bytes) -> None:
    found: object
    try:
        found = native.parse_target(target)
    except ValueError:
        found = "refused"
    assert found == read(target)


def test_causes_are_those_of_the_plan() -> None:
    assert native.causes == [cause.value for cause in Cause]
