"""A daprd of 1.18 asks our sentry, which signs under an authority that Dapr's sentry of 1.18 has left."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.bundle import TrustBundle
from sentry.ca_pb2 import SignCertificateRequest, SignCertificateResponse
from sentry.chain import is_issued_by, parse_certificates
from sentry.issuer import public_bytes
from sentry.join import mint
from sentry.spiffe import verify_leaf
from sentry.store import DiskStore
from tests.integration.sentry.process import CART, SENTRY_ID, raw_call, running_sentry
from tests.support.dapr_authority import dapr_authority


@pytest.mark.parametrize("audiences", [[], ["public", "https://billing.example"]], ids=["none", "two"])
async def test_request_of_the_newest_daprd_is_granted_as_it_checks(root: Path, audiences: list[str]) -> None:
    """Ed25519, an empty subject, no trust domain, tokens asked for that we don't have."""
    key = ed25519.Ed25519PrivateKey.generate()
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None)
    with DiskStore(root / "brought") as files:
        files.save(dapr_authority(datetime.now(UTC)))
    anchors = TrustBundle.parse((root / "brought" / "ca.crt").read_bytes())
    with running_sentry(root, "--issuer-credentials", str(root / "brought")) as sentry:
        request = SignCertificateRequest(
            id="cart",
            namespace="default",
            token=mint(root, CART, SENTRY_ID),
            token_validator=SignCertificateRequest.JWKS,
            certificate_signing_request=csr.public_bytes(Encoding.PEM),
            jwt_audiences=audiences,
        )
        answer = await raw_call(sentry, request.SerializeToString(), anchors=anchors)
    response = SignCertificateResponse.FromString(answer)
    leaf, *issuers = parse_certificates(response.workload_certificate)
    assert verify_leaf(leaf.public_bytes(Encoding.DER), as_server=True) == CART
    assert public_bytes(leaf.public_key()) == public_bytes(key.public_key())
    assert [is_issued_by(one, one) for one in issuers] == [False], "the issuer, and not the root"
    assert anchors.verify(response.workload_certificate, datetime.now(UTC))[0] == leaf
    ends = response.valid_until.ToDatetime(UTC)
    assert timedelta() <= leaf.not_valid_after_utc - ends < timedelta(seconds=1)
    assert TrustBundle.parse(b"".join(response.trust_chain_certificates)) == anchors
    assert not response.HasField("jwt"), "a daprd would look for its audiences in it"
    assert not response.per_audience_jwts
