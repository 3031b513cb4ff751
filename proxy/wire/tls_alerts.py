"""What the other end of a TLS connection meant by a fatal alert, in the words of Go's crypto/tls. Pure.

The native engine's is `crates/core/src/connection/alerts.rs`. Source: RFC 8446 §6.2, and RFC 5246 §7.2.2 for what TLS 1.2 has besides.
"""

import ssl
from typing import Final

#: By the names of the RFCs in capitals, as OpenSSL has them.
ALERTS: Final = {
    "UNEXPECTED_MESSAGE": "unexpected message",
    "BAD_RECORD_MAC": "bad record MAC",
    "DECRYPTION_FAILED": "decryption failed",
    "RECORD_OVERFLOW": "record overflow",
    "DECOMPRESSION_FAILURE": "decompression failure",
    "HANDSHAKE_FAILURE": "handshake failure",
    "BAD_CERTIFICATE": "bad certificate",
    "UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "CERTIFICATE_REVOKED": "revoked certificate",
    "CERTIFICATE_EXPIRED": "expired certificate",
    "CERTIFICATE_UNKNOWN": "unknown certificate",
    "ILLEGAL_PARAMETER": "illegal parameter",
    "UNKNOWN_CA": "unknown certificate authority",
    "ACCESS_DENIED": "access denied",
    "DECODE_ERROR": "error decoding message",
    "DECRYPT_ERROR": "error decrypting message",
    "EXPORT_RESTRICTION": "export restriction",
    "PROTOCOL_VERSION": "protocol version not supported",
    "INSUFFICIENT_SECURITY": "insufficient security level",
    "INTERNAL_ERROR": "internal error",
    "INAPPROPRIATE_FALLBACK": "inappropriate fallback",
    "USER_CANCELLED": "user canceled",
    "NO_RENEGOTIATION": "no renegotiation",
    "MISSING_EXTENSION": "missing extension",
    "UNSUPPORTED_EXTENSION": "unsupported extension",
    "CERTIFICATE_UNOBTAINABLE": "certificate unobtainable",
    "UNRECOGNIZED_NAME": "unrecognized name",
    "BAD_CERTIFICATE_STATUS_RESPONSE": "bad certificate status response",
    "BAD_CERTIFICATE_HASH_VALUE": "bad certificate hash value",
    "UNKNOWN_PSK_IDENTITY": "unknown PSK identity",
    "CERTIFICATE_REQUIRED": "certificate required",
    "NO_APPLICATION_PROTOCOL": "no application protocol",
}
# Those that are about the handshake alone: in TLS 1.3 a client meets them once it has sent its request, which nobody has read.
_OF_HANDSHAKE: Final = frozenset(
    {
        "HANDSHAKE_FAILURE",
        "BAD_CERTIFICATE",
        "UNSUPPORTED_CERTIFICATE",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "ACCESS_DENIED",
        "DECRYPT_ERROR",
        "INSUFFICIENT_SECURITY",
        "CERTIFICATE_REQUIRED",
    }
)
_PREFIXES: Final = ("SSLV3_", "TLSV1_", "TLSV13_")


def alert_of(error: BaseException | None) -> str | None:
    """The name of the alert that ended a connection, if one did: a key of ALERTS, or one that nobody knows."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    prefix = next((prefix for prefix in _PREFIXES if reason.startswith(prefix)), None)
    if prefix is None:
        return None
    name = reason.removeprefix(prefix)
    alert = name.removeprefix("ALERT_")
    return alert if alert in ALERTS or alert != name else None  # of some, OpenSSL leaves the word out


def ends_handshake(alert: str) -> bool:
    """Whether an alert that comes before any answer says that the handshake has failed."""
    return alert in _OF_HANDSHAKE


def told(who: str, alert: str) -> str:
    """Who said so, and what. Go writes "remote error" in the place of the name."""
    return f"{who} ended the TLS handshake: {in_words(alert)}"


def in_words(alert: str) -> str:
    """As Go's errors have it."""
    return f"tls: {ALERTS.get(alert) or alert.lower().replace('_', ' ')}"
