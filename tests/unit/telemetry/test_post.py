"""Where to POST, as parsed from an address."""

import pytest

from telemetry.post import PostTarget


def target(host: str, port: int, path: str, tls: bool, header: str) -> PostTarget:
    return PostTarget(host=host, port=port, path=path, tls=tls, host_header=header)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://z:9411/api/v2/spans", target("z", 9411, "/api/v2/spans", False, "z:9411")),
        ("https://z", target("z", 443, "/", True, "z")),
        ("http://[::1]:80/x?a=b", target("::1", 80, "/x?a=b", False, "[::1]:80")),
        ("http://user:secret@z/x", target("z", 80, "/x", False, "z")),
    ],
)
def test_parse_address_forms(url: str, expected: PostTarget) -> None:
    assert PostTarget.parse("zipkin", url) == expected
