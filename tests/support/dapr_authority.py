"""An authority as Dapr has made them since 1.18: Ed25519 keys, no authority key identifier, the root's key thrown away."""

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sentry.authority import StoredBundle
from sentry.issuer import dump_key
from tests.support.daprd import SENTRY_ID

_SKEW: Final = timedelta(minutes=15)


def dapr_authority(now: datetime) -> StoredBundle:
    """Root and issuer, as its sentry writes them."""
    root_key, issuer_key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    root_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "localhost")])
    issuer_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, str(SENTRY_ID))])
    made = []
    for name, key in ((root_name, root_key), (issuer_name, issuer_key)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(root_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + timedelta(days=365))
            .add_extension(_usage(crl=key is issuer_key), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        made.append(builder.sign(root_key, None).public_bytes(Encoding.PEM))
    return StoredBundle(anchors_pem=made[0], issuer_pem=made[1], issuer_key_pem=dump_key(issuer_key))


def _usage(*, crl: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl,
        encipher_only=False,
        decipher_only=False,
    )
