"""Hosts of addresses, and checks of Host and Origin for ports that a page in a browser can reach, too. Pure.

A page whose name was rebound to our address looks as if it were of our own origin: the Host is what finds that.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal

# What a browser says of a request that another site's page makes (Fetch Metadata §2.1); a plain GET of an image has no Origin.
FOREIGN_SITES = frozenset({b"cross-site", b"same-site"})
# Nobody can register a name below these.
_PRIVATE = re.compile(r".+\.(?:local|localdomain|internal|lan|svc|home\.arpa)")
# What scrapers ask for. Every browser sends Accept-Language, and no page can leave it out.
_SCRAPER = b"x-prometheus-scrape-timeout-seconds"
_EXPOSITION = (b"application/openmetrics-text", b"version=0.0.4", b"io.prometheus.client.metricfamily")

Fields = Iterable[tuple[bytes, bytes]]


def split_authority(authority: str) -> tuple[str, str]:
    """Host without brackets, and port ("" if none), of what a caller sent: neither is checked."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon else (authority, "")


def split_address(address: str) -> tuple[str, int]:
    """Host without brackets, and port, of an address that must have both; ("", 0) for anything else.

    For sentry and nameresolution too. Engines import nothing of telemetry: `proxy.contract.addresses` is for them.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or len(port) > 5:
        return "", 0
    return (host[1:-1] if host.startswith("[") and host.endswith("]") else host), int(port)


def own_names(hostname: str, *, beyond: bool) -> tuple[str, ...]:
    """The machine's names. beyond: also those that others on the network know it by."""
    name = hostname.lower()
    short = name.partition(".")[0]
    if not beyond or short == "localhost":  # which is no machine's in particular
        return (name,)
    return (name, short, f"{short}.local")


def is_unmistakable(authority: str) -> bool:
    """Whether a Host is no name that could be rebound: empty, localhost, a name below it, or an IP literal."""
    host = split_authority(authority)[0].removesuffix(".")
    if host in ("", "localhost") or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, authority: str) -> bool:
    """Whether an Origin is the scheme, host and port that the request itself was sent to."""
    scheme, separator, rest = origin.lower().partition("://")
    return bool(separator) and scheme == "http" and _with_port(rest) == _with_port(authority)


def is_host_known(authority: str, hosts: tuple[str, ...]) -> bool:
    """Whether a Host can't be rebound, or is listed."""
    return is_unmistakable(authority) or matches(split_authority(authority)[0].removesuffix("."), hosts)


def matches(text: str, patterns: tuple[str, ...]) -> bool:
    """`*`, the text itself, or a pattern with one `*` (spec of --allowed-origins)."""
    for pattern in patterns:
        if pattern in ("*", text):
            return True
        before, star, after = pattern.partition("*")
        if (
            star
            and text.startswith(before)
            and text.endswith(after)
            and len(text) >= len(before) + len(after)
        ):
            return True
    return False


def stranger(
    authority: str,
    headers: Fields,
    *,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    names: tuple[str, ...] | None,
    scraped: bool,
) -> Literal["host", "origin"] | None:
    """What shows that a request for metrics or health may come from another site's page, or None.

    names: the machine's, where the port listens beyond loopback. There other machines call: by names that are not public, and by
    any whose first label is this machine's, which a page would have to know. scraped: a scraper is let in by any name, as long as
    it says that it is one and sends no Accept-Language, which every browser does.
    """
    authority, fields = authority.lower(), tuple(headers)
    if not (
        is_host_known(authority, hosts)
        or (names is not None and _is_private(split_authority(authority)[0], names))
        or (scraped and _is_scraper(fields))
    ):
        return "host"
    origin = origin_of(fields)
    if origin is None:
        is_foreign = "*" not in origins and any(
            name == b"sec-fetch-site" and data in FOREIGN_SITES for name, data in fields
        )
    else:
        is_foreign = not (matches(origin, origins) or is_own_origin(origin, authority))
    return "origin" if is_foreign else None


def origin_of(headers: Fields) -> str | None:
    """What Origin says."""
    return next((data.decode("latin-1") for name, data in headers if name == b"origin"), None)


def _is_private(host: str, names: tuple[str, ...]) -> bool:
    host = host.removesuffix(".")
    return "." not in host or host.partition(".")[0] in names or _PRIVATE.fullmatch(host) is not None


def _is_scraper(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    if any(name == b"accept-language" for name, _ in headers):
        return False
    accepts = b",".join(data.lower().replace(b" ", b"") for name, data in headers if name == b"accept")
    return any(name == _SCRAPER for name, _ in headers) or any(kind in accepts for kind in _EXPOSITION)


def _with_port(authority: str) -> tuple[str, str]:
    host, port = split_authority(authority)
    return host, port or "80"
