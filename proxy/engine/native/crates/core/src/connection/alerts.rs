//! What the other end of a TLS connection meant by a fatal alert, in the words of Go's crypto/tls. As `proxy/wire/tls_alerts.py`.
//!
//! Source: RFC 8446 §6.2, and RFC 5246 §7.2.2 for what TLS 1.2 has besides.

use std::io;

use rustls::AlertDescription as Alert;
use rustls::Error;

const WORDS: [(Alert, &str); 32] = [
    (Alert::UnexpectedMessage, "unexpected message"),
    (Alert::BadRecordMac, "bad record MAC"),
    (Alert::DecryptionFailed, "decryption failed"),
    (Alert::RecordOverflow, "record overflow"),
    (Alert::DecompressionFailure, "decompression failure"),
    (Alert::HandshakeFailure, "handshake failure"),
    (Alert::BadCertificate, "bad certificate"),
    (Alert::UnsupportedCertificate, "unsupported certificate"),
    (Alert::CertificateRevoked, "revoked certificate"),
    (Alert::CertificateExpired, "expired certificate"),
    (Alert::CertificateUnknown, "unknown certificate"),
    (Alert::IllegalParameter, "illegal parameter"),
    (Alert::UnknownCA, "unknown certificate authority"),
    (Alert::AccessDenied, "access denied"),
    (Alert::DecodeError, "error decoding message"),
    (Alert::DecryptError, "error decrypting message"),
    (Alert::ExportRestriction, "export restriction"),
    (Alert::ProtocolVersion, "protocol version not supported"),
    (Alert::InsufficientSecurity, "insufficient security level"),
    (Alert::InternalError, "internal error"),
    (Alert::InappropriateFallback, "inappropriate fallback"),
    (Alert::UserCanceled, "user canceled"),
    (Alert::NoRenegotiation, "no renegotiation"),
    (Alert::MissingExtension, "missing extension"),
    (Alert::UnsupportedExtension, "unsupported extension"),
    (Alert::CertificateUnobtainable, "certificate unobtainable"),
    (Alert::UnrecognisedName, "unrecognized name"),
    (Alert::BadCertificateStatusResponse, "bad certificate status response"),
    (Alert::BadCertificateHashValue, "bad certificate hash value"),
    (Alert::UnknownPSKIdentity, "unknown PSK identity"),
    (Alert::CertificateRequired, "certificate required"),
    (Alert::NoApplicationProtocol, "no application protocol"),
];

/// As Go's errors have it.
pub fn in_words(alert: Alert) -> String {
    let words = WORDS.iter().find(|(known, _)| *known == alert).map(|(_, words)| *words);
    words.map_or_else(|| format!("tls: alert({})", u8::from(alert)), |words| format!("tls: {words}"))
}

/// Who said so, and what. Go writes "remote error" in the place of the name.
pub fn told(who: &str, alert: Alert) -> String {
    format!("{who} ended the TLS handshake: {}", in_words(alert))
}

/// The alert that ended a connection, if one did.
pub fn alert_of(error: &io::Error) -> Option<Alert> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The same of the text of an error: `h2` keeps no more of what it met.
pub fn named(error: &str) -> Option<Alert> {
    let (_, name) = error.split_once("received fatal alert: ")?;
    WORDS.iter().map(|(alert, _)| *alert).find(|alert| format!("{alert:?}") == name)
}

/// Whether an alert that comes before any answer says that the handshake has failed: in TLS 1.3 a client meets it once it has sent its
/// request, which nobody has read.
pub fn ends_handshake(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::HandshakeFailure
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::InsufficientSecurity
            | Alert::CertificateRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_is_known_by_the_text_of_an_error() {
        for (alert, words) in WORDS {
            assert_eq!(named(&Error::AlertReceived(alert).to_string()).map(in_words), Some(format!("tls: {words}")));
        }
        assert_eq!(named("the connection was closed"), None);
        assert_eq!(in_words(Alert::Unknown(200)), "tls: alert(200)");
    }
}
