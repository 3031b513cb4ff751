"""A server of tokens for tests, over HTTP or HTTPS: OpenID discovery, keys, a token endpoint, and a page that sends browsers back."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.http_wire import Head, format_head, read_body, read_head

_DAY = timedelta(days=1)
Form = dict[str, str]


class Issuer:
    """One server. Keys, answers and delays may be changed at any time; `asked` holds every request: verb, path, headers, form."""

    def __init__(self, url: str, roots: Path | None) -> None:
        self.url = url
        self.roots = roots
        self.rsa = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.keys: list[dict[str, Any]] = [self.jwk("rsa"), self.jwk("ec")]
        self.jwks_uri: object = ""  # in place of our own
        self.status: dict[str, int] = {}  # by path, instead of 200
        self.life_s: float | None = 3_600.0  # of tokens from /token
        self.accepts: Callable[[Head, Form], bool] = lambda *_: True
        self.asked: list[tuple[str, str, Head, Form]] = []
        self._tokens = 0
        self._codes = 0

    def jwk(self, kid: str) -> dict[str, Any]:
        """A public key of ours by its id, as a JWK."""
        made = (
            RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True)
            if kid.startswith("rsa")
            else ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True)
        )
        return {**made, "kid": kid, "use": "sig"}

    def token(
        self, *, kid: str | None = "rsa", algorithm: str | None = None, key: Any = None, **claims: Any
    ) -> str:
        """A token for the audience `shop`, in force now."""
        now = time.time()
        told = {"iss": self.url, "aud": "shop", "iat": now, "exp": now + 86_400, **claims}
        told = {name: value for name, value in told.items() if value is not None}
        is_rsa = (kid or "rsa").startswith("rsa")
        key = key if key is not None else self.rsa if is_rsa else self.ec
        algorithm = algorithm or ("RS256" if is_rsa else "ES256")
        return jwt.encode(told, key, algorithm=algorithm, headers={"kid": kid} if kid else None)

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked == path for _, asked, _, _ in self.asked)

    def answer(self, path: str, head: Head, form: Form) -> tuple[int, object]:
        """Status and JSON for a request."""
        status = self.status.get(path, 200)
        if status != 200:
            return status, {"error": "told to"}
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": self.jwks_uri or f"{self.url}/keys"}
        if path == "/keys":
            return 200, {"keys": self.keys}
        if path == "/token" and self.accepts(head, form):
            self._tokens += 1
            told: dict[str, Any] = {"access_token": f"token-{self._tokens}", "token_type": "bearer"}
            return 200, told if self.life_s is None else {**told, "expires_in": self.life_s}
        return (401, {"error": "invalid_client"}) if path == "/token" else (404, {})

    def authorize(self, url: str, *, is_granted: bool = True) -> str:
        """Where a browser is sent back to, by path and query, once its user has logged in at a URL of ours, or has not."""
        parts = urlsplit(url)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/authorize"
        assert asked["response_type"] == "code"
        self._codes += 1
        told = {"code": f"code-{self._codes}"} if is_granted else {"error": "access_denied"}
        back = urlsplit(asked["redirect_uri"])
        return f"{back.path}?{urlencode({**told, 'state': asked['state']})}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head = await read_head(reader)
            if head is None:
                return
            body = b"".join([part async for part in read_body(reader, head, [])])
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            path = urlsplit(head.second).path
            self.asked.append((head.first, path, head, form))
            status, told = self.answer(path, head, form)
            data = json.dumps(told).encode()
            fields = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
            writer.write(format_head(f"HTTP/1.1 {status} Told", fields) + data)
            await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_issuer(folder: Path, *, is_secure: bool) -> AsyncIterator[Issuer]:
    """An issuer on localhost; over HTTPS its root is in `roots`, for SSL_CERT_FILE."""
    context, roots = _certified(folder) if is_secure else (None, None)
    issuer = Issuer("", roots)
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    issuer.url = f"{'https' if is_secure else 'http'}://localhost:{port}"
    async with server:
        yield issuer


def _certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name.from_rfc4514_string("CN=test root")
    root = _sign(root_name, root_name, root_key, root_key, x509.BasicConstraints(ca=True, path_length=0))
    leaf = _sign(
        x509.Name.from_rfc4514_string("CN=localhost"),
        *(root_name, key, root_key),
        x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("issuer.example")]),
    )
    roots, chain = folder / "roots.pem", folder / "issuer.pem"
    roots.write_bytes(root.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(private + leaf.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context, roots


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    made = (
        made.serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
    return made.add_extension(extension, critical=True).sign(by, hashes.SHA256())
