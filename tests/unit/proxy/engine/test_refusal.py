"""Why a TLS handshake failed, in words."""

import ssl

import pytest

from proxy.engine.portable.refusal import unverified


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "the server ended the TLS handshake: tls: handshake failure"),
        ("TLSV1_ALERT_UNKNOWN_CA", "the server ended the TLS handshake: tls: unknown certificate authority"),
        ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ],
)
def test_server_that_ends_the_handshake_says_why(reason: str, words: str) -> None:
    error = ssl.SSLError(1, "failed")
    error.reason = reason
    assert unverified(error, "api.example", "the server") == words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10, "its certificate has expired, or is not valid yet"),
        (20, "its certificate is signed by no trusted root"),
        (64, "its certificate is not for api.example"),
        (26, "its certificate is invalid: unsuitable certificate purpose"),
    ],
)
def test_certificate_that_is_not_believed_says_why(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_code, error.verify_message = code, "unsuitable certificate purpose"
    assert unverified(error, "api.example", "the server") == words
