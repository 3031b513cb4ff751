"""Which proxy the environment puts before a URL, by Go's rules."""

import pytest

from telemetry.errors import WebProxyError
from telemetry.web_proxies import WebProxies, WebProxy

PROXY = WebProxy(host="proxy.corp", port=3128, is_secure=False)
BOTH = {"HTTP_PROXY": "http://proxy.corp:3128", "HTTPS_PROXY": "http://proxy.corp:3128"}


def way(url: str, **env: str) -> WebProxy | None:
    return WebProxies.of(BOTH | env).for_url(url)


def test_each_scheme_has_its_own_proxy() -> None:
    env = {"HTTP_PROXY": "http://plain:1", "https_proxy": "secure:2"}
    found = WebProxies.of(env)
    assert found.for_url("http://api.example/") == WebProxy(host="plain", port=1, is_secure=False)
    assert found.for_url("https://api.example/") == WebProxy(host="secure", port=2, is_secure=False)
    assert WebProxies.of({}).for_url("https://api.example/") is None
    assert WebProxies.of({"HTTP_PROXY": "plain"}).for_url("https://api.example/") is None


def test_capitals_come_first_and_ports_have_defaults() -> None:
    env = {"HTTP_PROXY": "https://one", "http_proxy": "http://two"}
    assert WebProxies.of(env).for_url("http://api.example/") == WebProxy(host="one", port=443, is_secure=True)
    assert way("http://api.example", HTTP_PROXY="one") == WebProxy(host="one", port=80, is_secure=False)


def test_credentials_are_sent_as_basic_and_never_shown() -> None:
    found = way("http://api.example", HTTP_PROXY="http://ada:s%40cret@proxy.corp:3128")
    assert found is not None
    assert found.authorization == "Basic YWRhOnNAY3JldA=="
    assert "YWRh" not in repr(found)
    assert way("http://api.example", HTTP_PROXY="http://ada@one") == WebProxy(
        host="one", port=80, is_secure=False, authorization="Basic YWRhOg=="
    )


@pytest.mark.parametrize(
    "url", ["http://localhost/", "https://localhost:1/", "http://127.0.0.9:80/", "http://[::1]/", "http://[::ffff:127.0.0.1]/"]
)  # fmt: skip
def test_loopback_is_never_proxied(url: str) -> None:
    assert way(url) is None


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("*", ("http://a.example", "http://8.8.8.8"), ()),
        ("example.org", ("http://example.org", "https://EXAMPLE.org.", "http://a.b.example.org"), ("http://badexample.org",)),
        (".example.org", ("http://a.example.org",), ("http://example.org",)),
        ("*.example.org", ("http://a.example.org",), ("http://example.org",)),
        ("example.org:8080", ("http://example.org:8080",), ("http://example.org", "https://example.org")),
        ("example.org:443", ("https://example.org",), ("http://example.org",)),
        ("10.0.0.1", ("http://10.0.0.1:8",), ("http://10.0.0.2",)),
        ("10.0.0.1:80", ("http://10.0.0.1",), ("http://10.0.0.1:8",)),
        ("10.0.0.0/8, 2001:db8::/32", ("http://10.9.9.9", "http://[2001:db8::1]:8"), ("http://11.0.0.1", "http://[2001:db9::1]")),
        ("2001:db8::1,[2001:db8::2]:80", ("http://[2001:db8::1]", "http://[2001:db8::2]"), ("https://[2001:db8::2]",)),
        (" , :80, 10.0.0.0/99, other", ("http://other",), ("http://a.example",)),
    ],
)  # fmt: skip
def test_no_proxy_names_what_is_reached_directly(
    no_proxy: str, direct: tuple[str, ...], proxied: tuple[str, ...]
) -> None:
    assert [url for url in direct if way(url, NO_PROXY=no_proxy) is not None] == []
    assert [url for url in proxied if way(url, no_proxy=no_proxy) != PROXY] == []


@pytest.mark.parametrize(
    "text", ["socks5://proxy", "socks5://proxy:1080", "http://", "http://proxy:port", "http://[::1"]
)
def test_proxy_that_cannot_be_used_fails_only_calls_that_need_it(text: str) -> None:
    with pytest.raises(WebProxyError, match="HTTP_PROXY"):
        way("http://api.example", HTTP_PROXY=text)
    assert way("https://api.example", HTTP_PROXY=text) == PROXY
    assert way("http://localhost", HTTP_PROXY=text) is None


def test_proxy_over_tls_is_for_http_alone() -> None:
    assert way("http://api.example", HTTP_PROXY="https://one") == WebProxy(
        host="one", port=443, is_secure=True
    )
    with pytest.raises(WebProxyError, match="TLS is not spoken within TLS"):
        way("https://api.example", HTTPS_PROXY="https://one")
