"""Which URLs an app may call through its sidecar. Pure.

A path or header names the URL, and apps make those of what they are given: without a rule, whoever can choose it reaches what the
app's host reaches (server-side request forgery).
"""

from collections.abc import Iterable

from msgspec import Struct

from policies.rules.http_endpoints import HttpEndpoint, Url

ANY = "*"


class Egress(Struct, frozen=True):
    """hosts: `*` for any, else each `host`, `*.domain` for what is below it, or either with a port.

    What an HTTPEndpoint leads to may be called by its URL as well.
    """

    hosts: tuple[str, ...] = ()

    def refused(self, url: Url, endpoints: Iterable[HttpEndpoint]) -> str | None:
        """Why a URL may not be called, and what would let it."""
        if self.names(url) or ANY in self.hosts or any(one.url.origin == url.origin for one in endpoints):
            return None
        return (
            f"{url.origin} is not among the URLs that may be called: add an HTTPEndpoint for it to the resources, "
            f"or start this proxy with --egress {_host(url)}"
        )

    def names(self, url: Url) -> bool:
        """Whether a host is named here, itself or by its domain."""
        host, port = _host(url), f":{url.port}"
        return any(_matches(pattern.removesuffix(port), host) for pattern in self.hosts if pattern != ANY)


def _host(url: Url) -> str:
    return f"[{url.host}]" if ":" in url.host else url.host.removesuffix(".")


def _matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
