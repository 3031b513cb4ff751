"""Which URLs may be called."""

import pytest

from policies.rules.http_endpoints import HttpEndpoint, parse_url
from proxy.deciding.egress import Egress

PAY = HttpEndpoint(name="pay", url=parse_url("https://pay.example/v1"))


@pytest.mark.parametrize(
    ("hosts", "url", "goes"),
    [
        ((), "https://api.example", False),
        (("*",), "https://api.example", True),
        (("api.example",), "https://api.example", True),
        (("api.example",), "http://API.example.:8080/x", True),
        (("api.example:8443",), "https://api.example:8443", True),
        (("api.example:8443",), "https://api.example", False),
        (("*.example",), "https://a.b.example", True),
        (("*.example",), "https://example", False),
        (("*.example",), "https://badexample", False),
        (("*.example:443",), "https://a.example", True),
        (("example",), "https://a.example", False),
        (("[::1]",), "http://[::1]:3000", True),
        (("[::1]:80",), "http://[::1]", True),
        (("10.0.0.1",), "http://10.0.0.11", False),
    ],
)
def test_url_is_called_where_its_host_is_named(hosts: tuple[str, ...], url: str, goes: bool) -> None:
    assert (Egress(hosts).refused(parse_url(url), ()) is None) is goes


def test_url_of_an_endpoint_goes_by_scheme_host_and_port() -> None:
    urls = ("https://pay.example:443/other", "https://pay.example:8443", "http://pay.example")
    refused = [Egress().refused(parse_url(url), (PAY,)) for url in urls]
    assert [one is None for one in refused] == [True, False, False]


def test_refusal_says_what_would_let_it() -> None:
    refused = Egress().refused(parse_url("http://[2001:db8::1]:81/x"), ())
    assert refused is not None
    assert refused.startswith("http://[2001:db8::1]:81 is not among")
    assert refused.endswith("--egress [2001:db8::1]")
