"""Why a TLS handshake failed, between proxies or with a server outside of the mesh: as a metric label, and in words. Pure."""

import ssl
from typing import Final

from proxy.contract.engine import PeerRefusal

# X509_V_ERR_*, as OpenSSL's x509_vfy.h numbers them.
_TIMES: Final = frozenset({9, 10})
_UNTRUSTED: Final = frozenset(
    {2, 7, 18, 19, 20, 21}
)  # 7, a wrong signature: a root of another mesh may have the name of ours
_OTHER_NAME: Final = frozenset({62, 64})
_UNTRUSTING: Final = (
    "it does not trust the root that signed it: both need the same sentry, or the same trust anchors"
)
_INVALID: Final = "it finds it invalid; its log tells why (peer refused)"
#: What a peer says of our certificate by a fatal alert (RFC 8446 §6.2).
ALERTS: Final = {
    "CERTIFICATE_EXPIRED": "by its clock it has expired: compare the clocks of the two hosts",
    "UNKNOWN_CA": _UNTRUSTING,
    "DECRYPT_ERROR": _UNTRUSTING,
    **dict.fromkeys(
        (
            "BAD_CERTIFICATE",
            "UNSUPPORTED_CERTIFICATE",
            "CERTIFICATE_REVOKED",
            "CERTIFICATE_UNKNOWN",
            "ACCESS_DENIED",
        ),
        _INVALID,
    ),
}


def of_handshake(error: OSError) -> PeerRefusal:
    """The reason of a handshake that a peer began."""
    if isinstance(error, ConnectionAbortedError):  # asyncio's timeout
        return "timeout"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return "closed"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _TIMES:
            return "expired"
        return "unknown-ca" if error.verify_code in _UNTRUSTED else "bad-certificate"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no-certificate"
    return "rejected-by-peer" if "_ALERT_" in (error.reason or "") else "protocol"


def by_alert(error: ssl.SSLError) -> str | None:
    """What a peer meant by a fatal alert; None where the error is of none.

    In TLS 1.3 a client learns only from its first read that its certificate was refused.
    """
    _, separator, alert = (error.reason or "").partition("_ALERT_")
    if not separator:
        return None
    why = ALERTS.get(alert)
    if why is None:
        return "the other proxy ended the TLS handshake; its log tells why (peer refused)"
    return f"the other proxy refused our certificate: {why}"


def unverified(error: ssl.SSLError, name: str) -> str:
    """Why a server outside of the mesh could not prove that it is `name`, or ended the handshake itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _TIMES:
            return "its certificate has expired, or is not valid yet"
        if error.verify_code in _UNTRUSTED:
            return "its certificate is signed by no trusted root"
        if error.verify_code in _OTHER_NAME:
            return f"its certificate is not for {name}"
        return f"its certificate is invalid: {error.verify_message}"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS"
    _, separator, alert = (error.reason or "").partition("_ALERT_")
    return f"it ended the handshake: {alert.lower().replace('_', ' ')}" if separator else str(error)
