"""What is told of a server, an app or a peer that ends TLS, in the same words by both engines: who it was, and what its alert means."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from proxy.contract.engine import Cluster, ClusterTls, Upstream, VerifiedTls, WireProtocol
from proxy.contract.plan import Cause
from tests.conformance.harness import Node, always, plan, retry, running
from tests.support.http_client import connect
from tests.support.http_wire import Response
from tests.support.web_pki import WebCa
from tests.support.web_server import web_server

CA, CLIENTS, STRANGERS = WebCa(), WebCa("clients' root"), WebCa("a stranger's root")
WHO = "the server at api.example:443"
# RFC 8446 §6: numbers of alerts, in the words of Go's crypto/tls. OpenSSL before 3.2 has no names for 115 and 120.
ALERTS = {
    10: "unexpected message",
    20: "bad record MAC",
    21: "decryption failed",
    22: "record overflow",
    30: "decompression failure",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "revoked certificate",
    45: "expired certificate",
    46: "unknown certificate",
    47: "illegal parameter",
    48: "unknown certificate authority",
    49: "access denied",
    50: "error decoding message",
    51: "error decrypting message",
    60: "export restriction",
    70: "protocol version not supported",
    71: "insufficient security level",
    80: "internal error",
    86: "inappropriate fallback",
    109: "missing extension",
    110: "unsupported extension",
    111: "certificate unobtainable",
    112: "unrecognized name",
    113: "bad certificate status response",
    114: "bad certificate hash value",
    116: "certificate required",
}


@asynccontextmanager
async def blocking(serve: Callable[[socket.socket], None]) -> AsyncIterator[int]:
    """A server in threads, for its connections one after the other, and its port: asyncio's TLS sends no alerts."""
    is_over = False

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            if is_over:
                connection.close()
                return
            connection.settimeout(10.0)
            with connection, suppress(ssl.SSLError, OSError):
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(accept))
            try:
                yield server.getsockname()[1]
            finally:
                is_over = True
                socket.create_connection(server.getsockname()).close()


def linger(connection: socket.socket) -> None:
    """End it without a reset: one that meets a write makes Python's event loops forget what came before."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65_536):
        pass


def wary(newest: ssl.TLSVersion, *, alpn: str = "http/1.1") -> Callable[[socket.socket], None]:
    """A server that demands a certificate of the clients' root."""
    context = CA.server_context("localhost", clients=CLIENTS, newest=newest)
    context.set_alpn_protocols([alpn])

    def serve(connection: socket.socket) -> None:
        tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with suppress(ssl.SSLError):
            tls.do_handshake()
        with socket.socket(fileno=tls.detach()) as plain:
            linger(plain)

    return serve


def alerting(number: int) -> Callable[[socket.socket], None]:
    """A server that answers the first message of a handshake with a fatal alert."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(struct.pack("!BHHBB", 21, 0x0303, 2, 2, number))
        linger(connection)

    return serve


def push(node: Node, port: int, *, wire: WireProtocol = "http1", tls: ClusterTls, who: str = WHO) -> None:
    """The cluster of a server on loopback."""
    where = (Upstream(address=f"127.0.0.1:{port}"),)
    node.engine.set_cluster(Cluster(key="app", wire=wire, tls=tls, upstreams=where, who=who))


def showing(ca: WebCa | None) -> VerifiedTls:
    """TLS to the server, with a certificate of that authority."""
    chain, key = ca.leaf() if ca is not None else (b"", b"")
    return VerifiedTls(name="localhost", roots_pem=CA.root_pem, chain_pem=chain, key_pem=key)


async def call(node: Node, method: str = "GET", body: bytes = b"", **fields: Any) -> Response:
    """A call through the engine."""
    async with connect(await node.listen(always(plan(**fields)))) as caller:
        return await caller.request(method, "/echo", body=body)


def message(response: Response) -> str:
    """What the caller is told."""
    return str(json.loads(response.body)["message"])


@pytest.mark.parametrize("body", [b"", b"x" * 200_000])
@pytest.mark.parametrize(
    ("newest", "shown", "words"),
    [
        (ssl.TLSVersion.TLSv1_2, None, "handshake failure"),
        (ssl.TLSVersion.TLSv1_2, STRANGERS, "unknown certificate authority"),
        (ssl.TLSVersion.TLSv1_3, None, "certificate required"),
        (ssl.TLSVersion.TLSv1_3, STRANGERS, "unknown certificate authority"),
    ],
)
async def test_server_that_refuses_our_certificate_is_told(
    engine: str, newest: ssl.TLSVersion, shown: WebCa | None, words: str, body: bytes
) -> None:
    async with running(engine) as node, blocking(wary(newest)) as port:
        push(node, port, tls=showing(shown))
        response = await call(node, "POST" if body else "GET", body)
        outcome = await node.seen.outcome()
    told = f"{WHO} ended the TLS handshake: tls: {words}"
    assert (response.status, response.get("postern-error")) == (502, Cause.TLS_IDENTITY.value)
    assert message(response) == f"tls-identity: {told}"
    assert (outcome.cause, outcome.attempts[0].cause) == (Cause.TLS_IDENTITY, Cause.TLS_IDENTITY)
    assert outcome.attempts[0].detail == told


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("wire", "alpn"), [("http1", "http/1.1"), ("h2c", "h2")])
async def test_app_that_wants_a_certificate_is_told(
    engine: str, wire: WireProtocol, alpn: str, newest: ssl.TLSVersion
) -> None:
    words = "certificate required" if newest is ssl.TLSVersion.TLSv1_3 else "handshake failure"
    async with running(engine) as node, blocking(wary(newest, alpn=alpn)) as port:
        push(node, port, wire=wire, tls="app", who="the app")
        response = await call(node)
    assert response.get("postern-error") == Cause.TLS_IDENTITY.value
    assert message(response) == f"tls-identity: the app ended the TLS handshake: tls: {words}"


@pytest.mark.parametrize("number", ALERTS)
async def test_alert_is_told_in_plain_words(engine: str, number: int) -> None:
    async with running(engine) as node, blocking(alerting(number)) as port:
        push(node, port, tls=showing(None))
        assert (
            message(await call(node)) == f"tls-identity: {WHO} ended the TLS handshake: tls: {ALERTS[number]}"
        )


async def test_request_that_a_handshake_refused_may_be_sent_again(engine: str) -> None:
    async with running(engine) as node, blocking(wary(ssl.TLSVersion.TLSv1_3)) as port:
        push(node, port, tls=showing(None))
        await call(node, "POST", b"x", retries=(retry(3, Cause.TLS_IDENTITY),))
        causes = [attempt.cause for attempt in (await node.seen.outcome()).attempts]
    assert causes == [Cause.TLS_IDENTITY] * 3


@pytest.mark.parametrize(
    ("newest", "told"),
    [
        (ssl.TLSVersion.TLSv1_2, {f"connect: {WHO} closed the connection during the TLS handshake"}),
        (
            ssl.TLSVersion.TLSv1_3,  # the request may meet a socket that is closed already
            {
                f"reset-early: {WHO} closed the connection without an answer",
                f"reset-early: the connection to {WHO} broke: Connection reset by peer without an answer",
            },
        ),
    ],
)
async def test_server_that_only_hangs_up_is_told_to_have_done_so(
    engine: str, newest: ssl.TLSVersion, told: set[str]
) -> None:
    async with (
        running(engine) as node,
        web_server(CA.server_context("localhost", clients=CLIENTS, newest=newest)) as port,
    ):
        push(node, port, tls=showing(None))
        response = await call(node)
    assert message(response) in told
