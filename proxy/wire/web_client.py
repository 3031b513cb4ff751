"""Short calls of http and https URLs in the world: TLS is verified by the system's roots, redirects are answers, bodies are bounded.

They go through the HTTP proxy that the environment names, if it names one.
"""

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from proxy.contract.addresses import join_address
from proxy.contract.engine import Via
from proxy.wire.http_client import LocalHttpError, LocalResponse, request
from telemetry.errors import WebProxyError
from telemetry.web_proxies import NO_PROXIES, WebProxies

_PORTS = {"http": 80, "https": 443}
_LIMIT_BYTES = 1_048_576


class _Way(Struct, frozen=True, kw_only=True):
    """How a URL is reached. by_proxy: a proxy is sent the whole URL (RFC 9112 §3.2.2), with its authorization."""

    address: str
    tls: ssl.SSLContext | None
    server_name: str
    tunnel: Via | None = None
    by_proxy: bool = False
    authorization: str = ""


class WebClient:
    """Mutable state: the TLS context, made for the first server or proxy that is spoken to over TLS."""

    def __init__(self, proxies: WebProxies = NO_PROXIES) -> None:
        self._proxies = proxies
        self._tls: ssl.SSLContext | None = None

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] = {},
        body: bytes = b"",
        timeout_s: float,
        limit_bytes: int = _LIMIT_BYTES,
    ) -> LocalResponse:
        """The answer with status 200.

        Raises: LocalHttpError (an OSError) where there is none, or one of another status; TimeoutError.
        """
        parts = urlsplit(url)
        authority = parts.netloc.rpartition("@")[2]
        way = await self._way(url, parts)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        answer = await request(
            way.address,
            method,
            f"http://{authority}{target}" if way.by_proxy else target,
            headers={
                "host": authority,
                "accept": "application/json",
                **headers,
                **({"proxy-authorization": way.authorization} if way.authorization else {}),
            }.items(),
            body=body,
            timeout_s=timeout_s,
            tls=way.tls,
            server_name=way.server_name,
            limit_bytes=limit_bytes,
            tunnel=way.tunnel,
        )
        if answer.status != 200:
            raise LocalHttpError(url, f"answered with status {answer.status}{_said(answer.body)}")
        return answer

    async def _way(self, url: str, parts: SplitResult) -> "_Way":
        host = parts.hostname or ""
        address = join_address(host, parts.port or _PORTS[parts.scheme])
        tls = await self._context() if parts.scheme == "https" else None
        try:
            proxy = self._proxies.for_url(url)
        except WebProxyError as error:
            raise LocalHttpError(url, str(error)) from error
        if proxy is None:
            return _Way(address=address, tls=tls, server_name=host)
        if tls is not None:
            via = Via(
                address=join_address(proxy.host, proxy.port), authorization=proxy.authorization.encode()
            )
            return _Way(address=address, tls=tls, server_name=host, tunnel=via)
        return _Way(
            address=join_address(proxy.host, proxy.port),
            tls=await self._context() if proxy.is_secure else None,
            server_name=proxy.host,
            by_proxy=True,
            authorization=proxy.authorization,
        )

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads the system's roots
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._tls


def _said(body: bytes) -> str:
    """The beginning of what an answer said, in printable characters, for people."""
    text = "".join(sign if sign.isprintable() else " " for sign in body[:200].decode("utf-8", "replace"))
    return f": {text.strip()}" if text.strip() else ""
