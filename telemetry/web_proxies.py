"""Which HTTP proxy stands between this host and a URL: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, read as Go's programs read them. Pure.

Source: golang.org/x/net/http/httpproxy, whose rules daprd has. Here because both who calls out and who exports may import it.
"""

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from telemetry.errors import WebProxyError
from telemetry.hosts import split_authority

_PORTS: dict[str, int] = {"http": 80, "https": 443}
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WebProxy(Struct, frozen=True, kw_only=True):
    """One proxy. is_secure: it is spoken to over TLS, for http URLs alone. authorization: of the field Proxy-Authorization, or empty."""

    host: str
    port: int
    is_secure: bool
    authorization: str = ""

    def __repr__(self) -> str:
        return f"WebProxy({self.host}:{self.port})"  # credentials are not for logs


class _Rule(Struct, frozen=True, kw_only=True):
    """One entry of NO_PROXY. An empty port is any; `suffix` begins with a dot, and is the name itself too where `whole` says so."""

    port: str = ""
    network: _Network | None = None
    suffix: str = ""
    whole: bool = False

    def covers(self, host: str, port: str, ip: _Ip | None) -> bool:
        if self.port not in ("", port):
            return False
        if ip is not None:
            return self.network is not None and ip.version == self.network.version and ip in self.network
        return bool(self.suffix) and (
            host.endswith(self.suffix) or (self.whole and host == self.suffix.removeprefix("."))
        )


class WebProxies(Struct, frozen=True, kw_only=True):
    """The proxies of an environment; text is why one can't be used. `everything_direct`: NO_PROXY has `*`."""

    http: WebProxy | str | None = None
    https: WebProxy | str | None = None
    everything_direct: bool = False
    rules: tuple[_Rule, ...] = ()

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """As the environment says; names in capitals come first."""
        words = [word.strip().lower() for word in _any(env, "NO_PROXY").split(",")]
        return cls(
            http=_proxy("HTTP_PROXY", _any(env, "HTTP_PROXY")),
            https=_proxy("HTTPS_PROXY", _any(env, "HTTPS_PROXY")),
            everything_direct="*" in words,
            rules=tuple(rule for word in words if word and (rule := _rule(word)) is not None),
        )

    def for_url(self, url: str, *, is_nested: bool = False) -> WebProxy | None:
        """The proxy that a call of an absolute http or https URL goes through; None: it goes there directly, as to loopback always.

        is_nested: whether the caller speaks TLS within TLS. Raises: WebProxyError where the environment names one that can't be used.
        """
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if proxy is None or self.everything_direct:
            return None
        host = (parts.hostname or "").rstrip(".")
        port = str(parts.port or _PORTS[parts.scheme])
        ip = _ip(host)
        if host == "localhost" or (ip is not None and ip.is_loopback):
            return None
        if any(rule.covers(host, port, ip) for rule in self.rules):
            return None
        if isinstance(proxy, str):
            raise WebProxyError(proxy)
        if proxy.is_secure and parts.scheme == "https" and not is_nested:
            raise WebProxyError(
                "HTTPS_PROXY names one of https://, and TLS is not spoken within TLS: expected http://host:port"
            )
        return proxy


NO_PROXIES = WebProxies()


def _any(env: Mapping[str, str], name: str) -> str:
    return env.get(name) or env.get(name.lower()) or ""


def _proxy(name: str, text: str) -> WebProxy | str | None:
    text = text.strip()
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port if parts.port is not None else _PORTS.get(parts.scheme)
    except ValueError as error:
        return f"{name} is not the URL of a proxy: {error}"
    if port is None or parts.scheme not in _PORTS or not parts.hostname:
        return f"{name} has scheme {parts.scheme!r} and host {parts.hostname or ''!r}: expected http://host:port or https://host:port"
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    return WebProxy(
        host=parts.hostname, port=port, is_secure=parts.scheme == "https", authorization=authorization
    )


def _rule(word: str) -> _Rule | None:
    if "/" in word:
        try:
            return _Rule(network=ipaddress.ip_network(word, strict=False))
        except ValueError:
            return None  # Go takes it for a name, which no host has
    host, port = (word, "") if _ip(word) is not None else split_authority(word)
    host = host.strip("[]")
    if not host or host == "*":
        return None
    ip = _ip(host)
    if ip is not None:
        return _Rule(port=port, network=ipaddress.ip_network(ip))
    host = host.removeprefix("*")
    return _Rule(port=port, suffix=f".{host.removeprefix('.')}", whole=not host.startswith("."))


def _ip(host: str) -> _Ip | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
