"""Makes certificates that no decent authority would sign."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
CART = "spiffe://public/ns/default/cart"


def usage(*, digital_signature: bool = True, signs: bool = False, crl: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=not (digital_signature or signs or crl),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=crl,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """A leaf's contents; the defaults make a correct one."""

    uris: Sequence[str] = (CART,)
    dns: Sequence[str] = ()
    san_is_critical: bool = True
    has_san: bool = True
    subject: str = ""
    key_usage: x509.KeyUsage | None = field(default_factory=usage)
    key_usage_is_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] | None = BOTH
    is_ca: bool | None = None
    begin: datetime = NOW - timedelta(minutes=1)
    end: datetime = NOW + timedelta(hours=1)

    def sign(
        self, key: ec.EllipticCurvePrivateKey = KEY, issuer: x509.Name | None = None
    ) -> x509.Certificate:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, self.subject)] if self.subject else []
        issuer_name = issuer or x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "forger")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(issuer_name)
            .public_key(KEY.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
        )
        if self.has_san:
            names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in self.uris]
            names += [x509.DNSName(name) for name in self.dns]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=self.san_is_critical)
        if self.key_usage is not None:
            builder = builder.add_extension(self.key_usage, critical=self.key_usage_is_critical)
        if self.purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.is_ca is not None:
            constraints = x509.BasicConstraints(ca=self.is_ca, path_length=None)
            builder = builder.add_extension(constraints, critical=True)
        return builder.sign(key, hashes.SHA256())

    def der(self) -> bytes:
        return self.sign().public_bytes(Encoding.DER)
