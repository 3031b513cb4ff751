"""Where a question over HTTP leads."""

import pytest

from proxy.control.authorizing.over_http import leads_out


@pytest.mark.parametrize(
    "path",
    [
        *("/..", "/../health", "/..%2fhealth", "/%2e%2e/health", "/a/..%2F..%2fhealth", "/a/../../health"),
        *("/..;/health", "/..;v=1/health", "/a/..;/..;/health", "/..\\health", "/..%5chealth"),
        *("/%252e%252e/health", "/..%252fhealth", "/a//../../health", "/a/./../../health", "/.%2e/health"),
    ],
)
def test_a_path_that_any_server_may_read_as_outside_leads_out(path: str) -> None:
    assert leads_out(path)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/b/", "/a/../b", "/a/..%2fb", "/...", "/..a", "/a..b/c", "/a/b/../..", "/a;v=1/b", "//a"],
)
def test_a_path_that_stays_within_does_not(path: str) -> None:
    assert not leads_out(path)
