"""Signing requests: only the key is taken, weak keys and odd encodings are refused before anything is signed."""

import base64
from collections.abc import Callable
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sentry.client import make_csr
from sentry.csr import MAX_CSR_BYTES, parse_csr
from sentry.errors import RequestError
from sentry.issuer import SigningKey, public_bytes
from tests.unit.sentry.forge import KEY

PLAIN = make_csr(KEY)


def request_of(key: SigningKey, digest: hashes.HashAlgorithm | None = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else (digest or hashes.SHA256())
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def greedy_request() -> bytes:
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://public/ns/default/admin"), x509.DNSName("admin")]
            ),
            critical=True,
        )
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_request_plain_yields_its_key_and_no_extras() -> None:
    request = parse_csr(PLAIN)
    assert public_bytes(request.public_key) == public_bytes(KEY.public_key())
    assert (request.key_type, request.extras) == ("P-256", ())


def test_request_with_wishes_has_them_noted() -> None:
    assert parse_csr(greedy_request()).extras == ("subject", "2.5.29.19", "2.5.29.17")


@pytest.mark.parametrize(
    ("make_key", "key_type"),
    [
        (partial(ec.generate_private_key, ec.SECP384R1()), "P-384"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
        (partial(rsa.generate_private_key, 65537, 2048), "RSA-2048"),
    ],
    ids=["P-384", "Ed25519", "RSA-2048"],
)
def test_request_with_a_sound_key_is_taken(make_key: Callable[[], SigningKey], key_type: str) -> None:
    assert parse_csr(request_of(make_key())).key_type == key_type


@pytest.mark.parametrize(
    "make_key",
    [
        partial(rsa.generate_private_key, 65537, 1024),
        partial(rsa.generate_private_key, 3, 2048),
        partial(ec.generate_private_key, ec.SECP224R1()),
        partial(ec.generate_private_key, ec.SECP256K1()),
        partial(ec.generate_private_key, ec.SECP521R1()),
    ],
    ids=["RSA-1024", "exponent 3", "P-224", "secp256k1", "P-521"],
)
def test_request_with_a_weak_or_odd_key_is_refused(make_key: Callable[[], SigningKey]) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_csr(request_of(make_key()))
    assert refusal.value.reason == "key-policy"


def test_request_in_the_old_block_type_or_amid_text_is_taken() -> None:
    old = PLAIN.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE")
    assert parse_csr(b"hello\n" + old + b"trailing").key_type == "P-256"


def test_request_first_block_counts() -> None:
    other = request_of(ec.generate_private_key(ec.SECP384R1()))
    assert parse_csr(other + PLAIN).key_type == "P-384"


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "csr-missing"),
        (b"x" * (MAX_CSR_BYTES + 1), "csr-size"),
        (b"nothing", "csr-encoding"),
        (x509.load_pem_x509_csr(PLAIN).public_bytes(Encoding.DER), "csr-encoding"),
        (PLAIN.replace(b"CERTIFICATE REQUEST", b"EC PRIVATE KEY"), "csr-type"),
        (PLAIN.replace(b"END CERTIFICATE REQUEST", b"END CERTIFICATE"), "csr-encoding"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "csr-encoding"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nA=AA=\n-----END CERTIFICATE REQUEST-----\n", "csr-encoding"),
    ],
    ids=["empty", "large", "text", "DER", "a key", "mixed ends", "no DER", "bad base64"],
)
def test_request_in_another_form_is_refused(pem: bytes, reason: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_csr(pem)
    assert refusal.value.reason == reason


def test_request_whose_signature_is_anothers_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(PLAIN).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.b64encode(der)
        + b"\n-----END CERTIFICATE REQUEST-----\n"
    )
    with pytest.raises(RequestError) as refusal:
        parse_csr(pem)
    assert refusal.value.reason == "csr-signature"


@given(st.binary(max_size=200))
def test_request_of_random_bytes_is_refused(noise: bytes) -> None:
    with pytest.raises(RequestError):
        parse_csr(noise)
