"""What apps may take a path for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rules.path_readings import MAX_PATH_BYTES, MAX_READ_BYTES, MAX_READINGS, readings


@pytest.mark.parametrize("path", ["/", "/a/b", "/a/b/", "/a.b/c..", "/a:b@c,d=e", "/é"])
def test_plain_path_is_read_in_one_way(path: str) -> None:
    assert readings(path) == (path,)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/f/a%2Fb", {"/f/a%2Fb", "/f/a/b"}),
        ("/f/a%252Fb", {"/f/a%252Fb", "/f/a%2Fb", "/f/a/b"}),
        ("/f/my%23t", {"/f/my%23t", "/f/my#t", "/f/my"}),
        ("/f/a%5Cb", {"/f/a%5Cb", "/f/a\\b", "/f/a/b"}),
        ("/f/100%25", {"/f/100%25", "/f/100%"}),
        ("/a;b/c;d", {"/a;b/c;d", "/a", "/a/c"}),
        ("/a/../b", {"/a/../b", "/b", "/a/b"}),
        ("/a/b/../../../c", {"/a/b/../../../c", "/c", "/a/c", "/a/b/c"}),
        ("/a/b/../c", {"/a/b/../c", "/a/c", "/a/b/c"}),
        ("/a/./b", {"/a/./b", "/a/b"}),
        ("/a//b", {"/a//b", "/a/b"}),
        ("/.well-known/x", {"/.well-known/x"}),
    ],
)
def test_readings_of_a_path(path: str, expected: set[str]) -> None:
    found = readings(path)
    assert found is not None
    assert set(found) == expected
    assert found[0] == path


@pytest.mark.parametrize(
    "path",
    [
        "/%61dmin",
        "/%2561dmin",
        "//admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/%252e%252e/admin",
        "/x%2F..%2Fadmin",
        "/x\\..\\admin",
        "/x%5C..%5Cadmin",
        "/x/..;/admin",
        "/x/..%3Bv=1/admin",
        "/;x/admin",
        "/admin;x",
        "/admin%3Bx/y",
        "/admin%3Fx",
        "/%2Fadmin",
        "//x/admin",  # new URL("//x/admin", base).pathname, in Node
        "/\\x/admin",
        "/x%2Fy/%2e%2e/admin",  # the URL standard resolves escaped dots and leaves escaped slashes
        "/x/%2e%2e/../admin",
    ],
)
def test_reading_that_some_router_serves_is_found(path: str) -> None:
    assert "/admin" in (readings(path) or ())


@pytest.mark.parametrize(
    "path",
    [
        *("/files/../private", "/files/%2e%2e/private", "/files/..%2Fprivate", "/files/x/.%2e/%2e./private"),
        *("/files/x%2F..%2F..%2Fprivate", "/files/x;/../%2e%2e/private", "/files/x/..%5C..%5Cprivate"),
        *("/files/%20private", "/files/%20%20/private", "/files/x/../%2520private"),
    ],
)
def test_reading_of_what_follows_a_mount_is_found(path: str) -> None:
    """Go's `http.StripPrefix` with `http.FileServer`, Spring's static files."""
    assert "/files/private" in (readings(path) or ())


def test_segments_are_decoded_after_splitting_too() -> None:
    """Go's ServeMux and Spring's PathPattern match `/{id}/admin`."""
    assert "/a%2Fb/admin" in (readings("/a%2Fb/%61dmin") or ())


@pytest.mark.parametrize(
    "path",
    [
        *("/a%FF", "/a%C3%28", "/100%25ab", "/a%2500", "/a%0A", "/a\x00", "/\x7f", "/%C0%AF", "/\ud800;"),
        "/%61" + "a" * MAX_PATH_BYTES,
        "/" + "a;/..//.%2F;%5C../" * 20,
    ],
)
def test_path_that_can_t_be_judged_has_no_readings(path: str) -> None:
    assert readings(path) is None


PIECES = (
    "a",
    "b",
    ";",
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2F",
    "%5C",
    "\\",
    "%3B",
    "%25",
    "%252F",
    "%3F",
    "ä",
    "%41",
    "%20",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces)))
def test_readings_are_few_and_distinct(path: str) -> None:
    found = readings(path)
    if found is not None:
        assert len(set(found)) == len(found) <= MAX_READINGS
        assert sum(len(one.encode()) for one in found) <= MAX_READ_BYTES
        assert all(one.startswith("/") for one in found)
