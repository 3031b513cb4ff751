"""Why a TLS handshake failed, between proxies or with a server outside of the mesh: as a metric label, and in words. Pure."""

import ssl
from typing import Final

from proxy.contract.engine import PeerRefusal
from proxy.wire.tls_alerts import alert_of, in_words, told

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
#: What a peer says of our certificate by a fatal alert.
REFUSED_CERTIFICATE: Final = {
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


def by_alert(error: ssl.SSLError, who: str, *, is_peer: bool) -> str | None:
    """What the other end meant by a fatal alert; None where the error is of none. is_peer: a proxy, which was shown our certificate.

    In TLS 1.3 a client learns only from its first read that its certificate was refused.
    """
    alert = alert_of(error)
    if alert is None:
        return None
    if not is_peer:
        return told(who, alert)
    why = REFUSED_CERTIFICATE.get(alert)
    if why is None:
        return f"{told(who, alert)}; its log tells why (peer refused)"
    return f"{who} refused our certificate ({in_words(alert)}): {why}"


def unverified(error: ssl.SSLError, name: str, who: str) -> str:
    """Why a server outside of the mesh, `who` for people, could not prove that it is `name`, or ended the handshake itself."""
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
    return by_alert(error, who, is_peer=False) or str(error)
