"""Key sets over HTTPS: verified, bounded, no redirects."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.issuer import dump_key, make_root, new_key
from sentry.jwks import MAX_SET_BYTES, SourceError, parse_set, source_of
from telemetry.web_proxies import WebProxies
from tests.support.web_proxy import running_proxy
from tests.unit.sentry.test_jwks import as_set, ec_member

KEYS = as_set(ec_member("a"))
ANSWERS = {
    "/keys": (200, KEYS),
    "/moved": (302, b""),
    "/error": (500, b""),
    "/huge": (200, b"x" * (MAX_SET_BYTES + 1)),
    "/other": (200, json.dumps({"a": 1}).encode()),
}


class Handler(BaseHTTPRequestHandler):
    """Answers from the table."""

    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("location", "/keys")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """An HTTPS server on loopback: its address and its root in PEM."""
    now = datetime.now(UTC)
    root_key, key = new_key(), new_key()
    root = make_root("issuer", now, root_key)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("keys.example")]
            ),
            critical=True,
        )
        .sign(root_key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(leaf.public_bytes(Encoding.PEM) + dump_key(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", root.public_bytes(Encoding.PEM).decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_set_is_fetched_under_the_given_root(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, root):
        assert set(parse_set(await source_of(f"{address}/keys", ca=root).read())) == {"a"}
        (tmp_path / "root.pem").write_text(root)
        assert await source_of(f"{address}/keys", ca=str(tmp_path / "root.pem")).read() == KEYS


@pytest.mark.parametrize("path", ["/moved", "/error", "/huge"])
async def test_set_redirected_failed_or_huge_is_refused(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as (address, root), pytest.raises(SourceError):
        await source_of(address + path, ca=root).read()


async def test_set_under_another_root_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, _), pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
        await source_of(f"{address}/keys").read()


async def test_set_is_fetched_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, root):
        async with running_proxy(int(address.rpartition(":")[2])) as proxy:
            proxies = WebProxies.of({"HTTPS_PROXY": f"http://ada:secret@{proxy.address}"})
            source = source_of("https://keys.example/keys", ca=root, proxies=proxies)
            assert await source.read() == KEYS
            proxy.status = 407
            with pytest.raises(SourceError, match="407"):
                await source.read()
            unusable = WebProxies.of({"HTTPS_PROXY": "socks5://x"})
            with pytest.raises(SourceError, match="socks5"):
                await source_of("https://keys.example/keys", ca=root, proxies=unusable).read()
    head = proxy.asked[0]
    assert (head.first, head.second) == ("CONNECT", "keys.example:443")
    assert head.get("proxy-authorization") == "Basic YWRhOnNlY3JldA=="


async def test_set_nowhere_is_refused() -> None:
    with pytest.raises(SourceError):
        await source_of("https://127.0.0.1:1/keys").read()
