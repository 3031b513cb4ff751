"""URLs of services outside of the mesh: their parts, and what is refused."""

import pytest

from policies.rules.http_endpoints import UrlError, is_url, parse_url


@pytest.mark.parametrize(
    ("text", "origin", "base"),
    [
        ("https://api.example.com", "https://api.example.com", ""),
        ("HTTPS://API.example.com:443/", "https://api.example.com", ""),
        ("http://h:8080/v1/", "http://h:8080", "/v1"),
        ("http://h:80//a//b/./c/../d", "http://h", "/a/b/d"),
        ("http://h/%2e%2E/a", "http://h", "/a"),
        ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443", "/x"),
        ("http://10.0.0.1", "http://10.0.0.1", ""),
        ("http://h/a%2Fb;c=1/ü", "http://h", "/a%2Fb;c=1/%C3%BC"),
        ("https://h_1.example./", "https://h_1.example.", ""),
    ],
)
def test_url_has_its_parts(text: str, origin: str, base: str) -> None:
    found = parse_url(text)
    assert (found.origin, found.base, str(found)) == (origin, base, origin + base)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://h", "begin with http"),
        ("//h", "begin with http"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://user:secret@h", "user information"),
        ("http://h?x=1", "query"),
        ("http://h/a#b", "fragment"),
        ("http://h:0", "port 0 is out of range"),
        ("http://h:65536", "port 65536 is out of range"),
        ("http://h:80:80", "not host or host:port"),
        ("http://h:http", "not host or host:port"),
        ("http://::1", "not host or host:port"),
        ("http://[::1", "not host or host:port"),
        ("http://[fe80::1%eth0]", "not host or host:port"),
        ("http://[h]", "not an IP address"),
        ("http://127.1", "not an IP address"),
        ("http://2852039166", "not an IP address"),
        ("http://0x7f.0.0.0x1", "not an IP address"),
        ("http://1.2.3.4.", "not an IP address"),
        ("http://bücher.example", "xn--"),
        ("http://-h", "not a host name"),
        ("http://h/a b", "blanks"),
        ("http://h/a\r\nx: y", "control characters"),
        ("http://h/%zz", "escape"),
        ("http://h/%0a", "control character"),
    ],
)
def test_what_is_no_service_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(UrlError, match=why):
        parse_url(text)


def test_app_ids_are_told_from_urls() -> None:
    assert [is_url(text) for text in ("https://h", "HTTP://h", "http", "https.default", "//h")] == [
        True,
        True,
        False,
        False,
        False,
    ]
