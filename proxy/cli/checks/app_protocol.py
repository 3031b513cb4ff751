"""Which protocol an app's port speaks, by what it answers to the preface of HTTP/2; no request reaches the app's code."""

import asyncio
from typing import Final, Literal

from proxy.contract.addresses import join_address
from proxy.settings.values import AppProtocol

Spoken = Literal["HTTP/1.1", "HTTP/2", "TLS", ""]

# RFC 9113 §3.4: what every client of HTTP/2 begins with, and an empty SETTINGS frame. Servers of HTTP/1.1 answer 400 or 505, or hang up.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
_SETTINGS: Final = 4
_HEAD_BYTES: Final = 9
_WITHIN_S: Final = 2.0


async def spoken_at(host: str, port: int) -> Spoken:
    """What the server there speaks; empty where its answer does not tell. Raises: OSError, TimeoutError among them."""
    async with asyncio.timeout(_WITHIN_S):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(PREFACE)
            return judge(await reader.read(_HEAD_BYTES))
        finally:
            writer.transport.abort()


def judge(answer: bytes) -> Spoken:
    """By the first bytes of an answer."""
    if answer.startswith(
        (b"HTTP/1.", b"<")
    ):  # Python's http.server takes an unknown version for HTTP/0.9, and sends a page alone
        return "HTTP/1.1"
    if answer[:1] == b"\x15":  # a TLS alert, RFC 8446 §5.1
        return "TLS"
    if len(answer) == _HEAD_BYTES and answer[3] == _SETTINGS:
        return "HTTP/2"
    return ""


def mismatch(protocol: AppProtocol | str, spoken: Spoken, host: str, port: int) -> str:
    """What is wrong with the protocol that was named for the app, and which to name; empty where nothing is."""
    at = f"the app at {join_address(host, port)}"
    if protocol in ("https", "grpcs") or not spoken:
        return ""
    if spoken == "TLS":
        return f"{at} speaks TLS, but was named {protocol}: use --app-protocol {'grpcs' if protocol == 'grpc' else 'https'}"
    if protocol in ("grpc", "h2c") and spoken == "HTTP/1.1":
        return f"{at} speaks HTTP/1.1, but was named {protocol}: use --app-protocol http"
    if protocol == "http" and spoken == "HTTP/2":
        return f"{at} begins with HTTP/2, but was named http: if it is a gRPC server, use --app-protocol grpc"
    return ""
