"""Makes roots and issuers, and signs leaf templates with an issuer's key."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sentry.chain import authority_problem, is_issued_by, parse_certificates
from sentry.errors import BundleError
from sentry.renewal_time import ISSUER_LIFE_S, ROOT_LIFE_S
from sentry.spiffe import TrustDomain, sentry_id
from sentry.template import LeafTemplate

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_BACKDATE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A signing certificate, the intermediates above it (no root), and its key."""

    chain: tuple[x509.Certificate, ...]
    key: SigningKey = field(repr=False, compare=False)

    @classmethod
    def parse(cls, chain_pem: bytes, key_pem: bytes) -> Self:
        """Read an issuer of any maker: P-256 and other curves, RSA or Ed25519; a trailing root is dropped.

        Raises: BundleError when key and certificate don't belong together or the certificate may not sign.
        """
        chain = parse_certificates(chain_pem)
        while len(chain) > 1 and is_issued_by(chain[-1], chain[-1]):
            chain = chain[:-1]
        key = load_key(key_pem)
        if public_bytes(chain[0].public_key()) != public_bytes(key.public_key()):
            raise BundleError("the issuer's key does not belong to its certificate")
        if (problem := authority_problem(chain[0])) is not None:
            raise BundleError(f"the issuer's certificate may not sign: {problem}")
        return cls(chain=chain, key=key)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs."""
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        """What follows the leaf on the wire."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def not_after(self) -> datetime:
        """When the first certificate of the chain ends (UTC)."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)

    def sign(self, template: LeafTemplate) -> x509.Certificate:
        """Sign a leaf. CPU only: about 0.1 ms with P-256."""
        names = [x509.UniformResourceIdentifier(str(template.spiffe_id))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(template.public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(template.not_before)
            .not_valid_after(template.not_after)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(template.public_key), critical=False)
            .add_extension(_authority_key_id(self.certificate), critical=False)
        )
        return builder.sign(self.key, signature_hash(self.key))


def make_root(trust_domain: str, now: datetime, key: SigningKey) -> x509.Certificate:
    """A self-signed root for `trust_domain`, ten years long, with room for one issuer below it."""
    end = now + timedelta(seconds=ROOT_LIFE_S)
    name = _name(trust_domain)
    builder = _authority(key.public_key(), trust_domain, (now, end), path_length=1)
    builder = (
        builder.subject_name(name).issuer_name(name).add_extension(_key_id(key.public_key()), critical=False)
    )
    return builder.sign(key, signature_hash(key))


def make_issuer(
    root: x509.Certificate,
    root_key: SigningKey,
    *,
    trust_domain: str,
    namespace: str,
    now: datetime,
    key: SigningKey,
    life: timedelta = timedelta(seconds=ISSUER_LIFE_S),
) -> Issuer:
    """An issuer under `root`, so long or to the root's end, that can sign leaves only."""
    end = min(now + life, root.not_valid_after_utc)
    builder = (
        _authority(key.public_key(), trust_domain, (now, end), path_length=0)
        .subject_name(_name(str(sentry_id(trust_domain, namespace))))
        .issuer_name(root.subject)
        .add_extension(_authority_key_id(root), critical=False)
    )
    return Issuer(chain=(builder.sign(root_key, signature_hash(root_key)),), key=key)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key: the one kind that OpenSSL, Go, rustls and BoringSSL all take in certificates."""
    return ec.generate_private_key(ec.SECP256R1())


def load_key(pem: bytes) -> SigningKey:
    """Read a PKCS#8, SEC1 or PKCS#1 key. Raises BundleError, which never quotes the input."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise BundleError("the private key can't be read: expected an unencrypted PEM key") from error
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise BundleError("the private key has an unsupported type: expected EC, RSA or Ed25519")


def dump_key(key: SigningKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    """The public key in SubjectPublicKeyInfo DER: its one comparable form."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signature_hash(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """The digest that goes with a signing key; None for Ed25519, which has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def _name(organization: str) -> x509.Name:
    # X.520 caps the organisation's name at 64 characters; a longer trust domain stands whole in the URI name.
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64])])


def _authority(
    public_key: CertificatePublicKeyTypes,
    trust_domain: str,
    life: tuple[datetime, datetime],
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    begin, end = life
    name = x509.UniformResourceIdentifier(f"spiffe://{TrustDomain(trust_domain)}")
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before((begin - _BACKDATE).replace(microsecond=0))
        .not_valid_after(end.replace(microsecond=0))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(digital_signature=True, signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
    )


def _usage(*, digital_signature: bool, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(public_key: CertificatePublicKeyTypes) -> x509.AuthorityKeyIdentifier:
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    # An issuer of another maker may carry an identifier of its own making: chains are built by equality with it.
    try:
        carried = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_signing_public(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(carried)


def _signing_public(
    issuer: x509.Certificate,
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    key = issuer.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        return key
    raise BundleError("the issuer's key has an unsupported type: expected EC, RSA or Ed25519")
