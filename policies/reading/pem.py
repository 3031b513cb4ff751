"""Whether certificates and keys in PEM can be used; pure. Takes long to import."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


def fault_of_certificates(pem: bytes) -> str | None:
    """What is wrong with one or more certificates."""
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        return "contains no readable certificate (expected PEM)"
    return None


def fault_of_key(pem: bytes, certificate: bytes) -> str | None:
    """What is wrong with the key of the first of some valid certificates."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "contains no readable key (expected PEM, without a password)"
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    of_key, of_leaf = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (key.public_key(), leaf.public_key())
    )
    return (
        None if of_key == of_leaf else "is not the key of the certificate (expected the one it was made for)"
    )
