"""Calls of URLs in the world."""

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxy.wire.http_client import LocalHttpError
from proxy.wire.web_client import WebClient
from telemetry.web_proxies import WebProxies
from tests.support.issuer import Issuer, running_issuer
from tests.support.web_proxy import running_proxy


async def test_server_is_known_by_the_systems_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_issuer(tmp_path, is_secure=True) as issuer:
        assert issuer.roots is not None
        with pytest.raises(LocalHttpError, match="certificate"):
            await WebClient().fetch(f"{issuer.url}/keys", timeout_s=10)
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.roots))
        answer = await WebClient().fetch(f"{issuer.url}/keys?x=1", timeout_s=10)
        assert b"keys" in answer.body
        with pytest.raises(LocalHttpError, match=r"certificate|127\.0\.0\.1"):
            await WebClient().fetch(f"{issuer.url.replace('localhost', '127.0.0.1')}/keys", timeout_s=10)
    (asked,) = issuer.asked
    assert asked[2].second == "/keys?x=1"
    assert asked[2].get("host") == issuer.url.removeprefix("https://")


async def test_answer_of_another_status_is_told(tmp_path: Path) -> None:
    async with running_issuer(tmp_path, is_secure=False) as issuer:
        issuer.status["/keys"] = 302
        with pytest.raises(LocalHttpError, match=r"answered with status 302: .*told to"):
            await WebClient().fetch(f"{issuer.url}/keys", timeout_s=10)


async def test_host_that_is_no_name_is_told_as_a_failed_call() -> None:
    with pytest.raises(LocalHttpError, match="label"):
        await WebClient().fetch("http://a..b/keys", timeout_s=10)


def port_of(issuer: Issuer) -> int:
    return urlsplit(issuer.url).port or 0


def client_by(address: str, scheme: str = "http") -> WebClient:
    """One whose environment names a proxy with credentials."""
    url = f"{scheme}://ada:secret@{address}"
    return WebClient(WebProxies.of({"HTTP_PROXY": url, "HTTPS_PROXY": url, "NO_PROXY": "direct.example"}))


CREDENTIALS = "Basic YWRhOnNlY3JldA=="


async def test_proxy_is_sent_the_whole_url_of_http(tmp_path: Path) -> None:
    async with running_issuer(tmp_path, is_secure=False) as issuer, running_proxy(port_of(issuer)) as proxy:
        answer = await client_by(proxy.address).fetch("http://me@issuer.example:8080/keys?x=1", timeout_s=10)
    assert b"keys" in answer.body
    (head,) = proxy.asked
    assert (head.first, head.second) == ("GET", "http://issuer.example:8080/keys?x=1")
    assert (head.get("host"), head.get("proxy-authorization")) == ("issuer.example:8080", CREDENTIALS)
    assert [asked[2].get("proxy-authorization") for asked in issuer.asked] == [""]


async def test_proxy_over_tls_is_verified_and_carries_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_issuer(tmp_path, is_secure=True) as secure,
        running_issuer(tmp_path, is_secure=False) as issuer,
    ):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(tmp_path / "issuer.pem")
        async with running_proxy(port_of(issuer), tls) as proxy:
            client = client_by(proxy.address, "https")
            with pytest.raises(LocalHttpError, match="certificate"):
                await client.fetch("http://issuer.example/keys", timeout_s=10)
            monkeypatch.setenv("SSL_CERT_FILE", str(secure.roots))
            client = client_by(proxy.address, "https")
            assert b"keys" in (await client.fetch("http://issuer.example/keys", timeout_s=10)).body
            with pytest.raises(LocalHttpError, match="TLS is not spoken within TLS"):
                await client.fetch("https://issuer.example/keys", timeout_s=10)


async def test_proxy_opens_a_tunnel_for_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_issuer(tmp_path, is_secure=True) as issuer, running_proxy(port_of(issuer)) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.roots))
        client = client_by(proxy.address)
        answer = await client.fetch("https://issuer.example/keys", timeout_s=10)
        with pytest.raises(LocalHttpError, match="certificate"):
            await client.fetch("https://stranger.example/keys", timeout_s=10)
    assert b"keys" in answer.body
    head = proxy.asked[0]
    assert (head.first, head.second) == ("CONNECT", "issuer.example:443")
    assert (head.get("host"), head.get("proxy-authorization")) == ("issuer.example:443", CREDENTIALS)
    ((_, path, seen, _),) = issuer.asked
    assert (path, seen.get("host"), seen.get("proxy-authorization")) == ("/keys", "issuer.example", "")


async def test_proxy_that_refuses_the_tunnel_is_told_without_credentials(tmp_path: Path) -> None:
    async with running_issuer(tmp_path, is_secure=True) as issuer, running_proxy(port_of(issuer)) as proxy:
        proxy.status = 407
        with pytest.raises(LocalHttpError) as caught:
            await client_by(proxy.address).fetch("https://issuer.example/keys", timeout_s=10)
    told = str(caught.value)
    assert f"the HTTP proxy at {proxy.address} answered CONNECT issuer.example:443 with status 407" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-server\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "sent something before"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
    ],
)
async def test_proxy_that_speaks_nonsense_is_told(said: bytes, why: str) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(LocalHttpError, match=why):
            await client_by(address).fetch("https://issuer.example/keys", timeout_s=10)


async def test_proxy_that_cannot_be_used_or_reached_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalHttpError, match="HTTP_PROXY has scheme 'socks5'"):
        await client_by("proxy.example", "socks5").fetch("http://issuer.example/keys", timeout_s=10)
    with pytest.raises(LocalHttpError, match=r"the HTTP proxy at 127\.0\.0\.1:1: Connection refused"):
        await client_by("127.0.0.1:1").fetch("https://issuer.example/keys", timeout_s=10)
    async with running_issuer(tmp_path, is_secure=False) as issuer:
        assert (await client_by("127.0.0.1:1").fetch(f"{issuer.url}/keys", timeout_s=10)).status == 200
