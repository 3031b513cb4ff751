"""HTTPEndpoint resources as values, and the URLs that they and callers name; pure.

Source: RFC 3986 §3.2, §3.3 (authority and path), RFC 6454 §4 (origin), Dapr's HTTPEndpoint spec.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Literal
from urllib.parse import quote

from msgspec import Struct

_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_AUTHORITY = re.compile(r"(\[[^\]%]*\]|[^:\[]*)(?::([0-9]{0,5}))?")
_NUMBER = re.compile(
    r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?"
)  # what resolvers take for an IPv4 address, as 127.1
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|7[Ff])")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_DOT = re.compile("%2e", re.IGNORECASE)
_PATH_SAFE = "/-._~!$&'()*+,;=:@%"
_PORTS = {"http": 80, "https": 443}

Scheme = Literal["http", "https"]


class UrlError(ValueError):
    """A text is not the URL of a service. The message says why, for people."""


class Url(Struct, frozen=True, kw_only=True):
    """Where a service outside of the mesh is.

    host: in lower case, an IPv6 address without brackets. base: the path that each request's path is put behind, escaped, without a
    slash at its end; empty for none.
    """

    scheme: Scheme
    host: str
    port: int
    base: str = ""

    @property
    def authority(self) -> str:
        """As in Host: the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority: who answers, without what is asked for."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.base


def is_url(text: str) -> bool:
    """Whether a callee is a URL rather than an app-id."""
    return _SCHEME.match(text) is not None


def parse_url(text: str) -> Url:
    """An absolute http or https URL without user information, query and fragment. Raises: UrlError."""
    start = _SCHEME.match(text)
    if start is None:
        raise UrlError("it does not begin with http:// or https://")
    if _CONTROL.search(text) is not None:
        raise UrlError("it holds blanks or control characters")
    scheme: Scheme = "https" if start[1].lower() == "https" else "http"
    authority, slash, path = text[start.end() :].partition("/")
    if "?" in authority + path or "#" in authority + path:
        raise UrlError("it holds a query or a fragment")
    host, port = _authority(authority, _PORTS[scheme])
    return Url(scheme=scheme, host=host, port=port, base=_base(slash + path))


def _authority(text: str, default_port: int) -> tuple[str, int]:
    if "@" in text:
        raise UrlError("it contains user information, which belongs in a header")
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise UrlError("its authority is not host or host:port")
    host, digits = found[1].lower(), found[2] or ""
    port = int(digits or default_port)
    if not 0 < port < 65_536:
        raise UrlError(f"port {digits} is out of range: expected 1 to 65535")
    return _host(host), port


def _host(text: str) -> str:
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        if _NUMBER.fullmatch(text) is not None:
            return str(IPv4Address(text))
    except ValueError as error:
        raise UrlError(f"{text} is not an IP address") from error
    if not text:
        raise UrlError("it has no host")
    if _NAME.fullmatch(text) is None:
        raise UrlError(f"{text!r} is not a host name: letters beyond ASCII are written as xn--… (RFC 5890)")
    return text


def _base(path: str) -> str:
    if _BAD_ESCAPE.search(path) is not None:
        raise UrlError("its path holds a malformed percent escape, or an escaped control character")
    kept: list[str] = []
    for segment in _DOT.sub(".", path).split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "".join(f"/{quote(segment, safe=_PATH_SAFE)}" for segment in kept)


class ClientTls(Struct, frozen=True, kw_only=True):
    """What TLS to an endpoint is made of, as PEM; empty: the system's roots, and no certificate of ours."""

    root_ca: bytes = b""
    certificate: bytes = b""
    private_key: bytes = b""

    def __repr__(self) -> str:
        return "ClientTls(…)"


class HttpEndpoint(Struct, frozen=True, kw_only=True):
    """A service outside of the mesh that is called by a name. headers: set on every request, in the place of the caller's."""

    name: str
    url: Url
    headers: tuple[tuple[bytes, bytes], ...] = ()
    tls: ClientTls = ClientTls()

    def __repr__(self) -> str:
        return f"HttpEndpoint({self.name})"  # headers hold secrets
