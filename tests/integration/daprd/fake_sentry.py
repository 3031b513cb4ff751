"""Dapr's sentry as it is since 1.18, of our own making: Ed25519 throughout, leaves of a day, tokens beside the certificate."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.ca_pb2 import SignCertificateRequest, SignCertificateResponse
from sentry.client import METHOD
from sentry.issuer import Issuer
from sentry.spiffe import SpiffeId
from sentry.template import LeafTemplate
from tests.integration.mesh.peers import Forge
from tests.support.dapr_authority import dapr_authority
from tests.support.daprd import SENTRY_ID
from tests.support.fake_daprd import Call, fake_daprd

_SKEW: Final = timedelta(minutes=15)
_LIFE: Final = timedelta(days=1)
_PERMISSION_DENIED: Final = 7


class FakeSentry:
    """Dapr's sentry since 1.18, with its insecure validator and its tokens. `asked` holds every request; `port` is of loopback."""

    def __init__(self, folder: Path) -> None:
        made = dapr_authority(datetime.now(UTC))
        self.anchors_pem = made.anchors_pem.decode()
        self.asked: list[SignCertificateRequest] = []
        self.port = 0
        self._issuer = Issuer.parse(made.issuer_pem, made.issuer_key_pem)
        self.forge = Forge(
            issuer=self._issuer,
            anchors_pem=made.anchors_pem,
            folder=folder,
            make_key=ed25519.Ed25519PrivateKey.generate,
        )

    def context(self) -> ssl.SSLContext:
        """Its server's: nobody is asked for a certificate."""
        context = self.forge.server_context(SENTRY_ID, alpn=("h2",))
        context.verify_mode = ssl.CERT_NONE
        return context

    async def answer(self, call: Call) -> None:
        """One call of its API."""
        assert call.head.target.decode() == METHOD
        request = SignCertificateRequest.FromString(await call.message() or b"")
        self.asked.append(request)
        if not (request.id and request.namespace):
            call.end(_PERMISSION_DENIED, "app-id and namespace are required")
            return
        call.send_message(self._signed(request).SerializeToString())
        call.end()

    def _signed(self, request: SignCertificateRequest) -> SignCertificateResponse:
        asked = x509.load_pem_x509_csr(request.certificate_signing_request)
        assert asked.is_signature_valid
        now = datetime.now(UTC).replace(microsecond=0)
        domain = request.trust_domain or "public"
        template = LeafTemplate(
            spiffe_id=SpiffeId(domain, request.namespace, request.id),
            public_key=asked.public_key(),
            not_before=now - _SKEW,
            not_after=now + _LIFE,
        )
        leaf = self._issuer.sign(template).public_bytes(Encoding.PEM)
        response = SignCertificateResponse(
            workload_certificate=leaf + self._issuer.chain_pem,
            trust_chain_certificates=[self.anchors_pem.encode()],
        )
        response.valid_until.FromDatetime(template.not_after)
        response.jwt.value = "a.b.c"
        for audience in (domain, *request.jwt_audiences):
            response.per_audience_jwts[audience].value = "a.b.c"
        return response


@asynccontextmanager
async def fake_sentry(folder: Path) -> AsyncIterator[FakeSentry]:
    """Serve it on a port of loopback."""
    sentry = FakeSentry(folder)
    async with fake_daprd(sentry.context(), sentry.answer) as port:
        sentry.port = port
        yield sentry
