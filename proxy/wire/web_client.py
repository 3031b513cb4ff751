"""Short calls of http and https URLs in the world: TLS is verified by the system's roots, redirects are answers, bodies are bounded."""

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from proxy.contract.addresses import join_address
from proxy.wire.http_client import LocalHttpError, LocalResponse, request

_PORTS = {"http": 80, "https": 443}
_LIMIT_BYTES = 1_048_576


class WebClient:
    """Mutable state: the TLS context, made for the first https URL."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] = {},
        body: bytes = b"",
        timeout_s: float,
    ) -> LocalResponse:
        """The answer with status 200.

        Raises: LocalHttpError (an OSError) where there is none, or one of another status; TimeoutError.
        """
        parts = urlsplit(url)
        host, tls = parts.hostname or "", None
        if parts.scheme == "https":
            tls = await self._context()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        answer = await request(
            join_address(host, parts.port or _PORTS[parts.scheme]),
            method,
            target,
            headers={
                "host": parts.netloc.rpartition("@")[2],
                "accept": "application/json",
                **headers,
            }.items(),
            body=body,
            timeout_s=timeout_s,
            tls=tls,
            server_name=host,
            limit_bytes=_LIMIT_BYTES,
        )
        if answer.status != 200:
            raise LocalHttpError(url, f"answered with status {answer.status}{_said(answer.body)}")
        return answer

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads the system's roots
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._tls


def _said(body: bytes) -> str:
    """The beginning of what an answer said, in printable characters, for people."""
    text = "".join(sign if sign.isprintable() else " " for sign in body[:200].decode("utf-8", "replace"))
    return f": {text.strip()}" if text.strip() else ""
