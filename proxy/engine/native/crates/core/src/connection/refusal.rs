//! Why a TLS handshake failed, between proxies or with a server outside of the mesh: the reason that metrics count it by, and in words. As
//! `proxy/engine/portable/refusal.py`.

use std::borrow::Cow;
use std::io;

use rustls::{CertificateError, Error};

/// A peer that is not let in. `reason`: one of the few that the engines' contract names.
#[derive(Debug)]
pub struct Refusal {
    pub reason: Cow<'static, str>,
    pub detail: String,
}

impl Refusal {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }

    /// Of a handshake that a peer began.
    pub fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let reason = tls.map_or("closed", |tls| match tls {
            Error::NoCertificatesPresented => "no-certificate",
            Error::InvalidCertificate(why) => certificate(why),
            Error::AlertReceived(_) => "rejected-by-peer",
            Error::NoApplicationProtocol
            | Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => "protocol",
            _ => "other",
        });
        Self::new(reason, format!("the TLS handshake failed: {error}"))
    }
}

fn certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "expired",
        // A root of another mesh may have the name of ours: then the signature is what is wrong.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown-ca",
        _ => "bad-certificate",
    }
}

/// What a peer meant by a fatal alert, where `error` is of one (RFC 8446 §6.2): in TLS 1.3 a client learns only from its first read that
/// its certificate was refused. `h2` keeps no more than the text of what it met.
pub fn by_alert(error: &str) -> Option<String> {
    let (_, alert) = error.split_once("received fatal alert: ")?;
    let why = match alert {
        "CertificateExpired" => "by its clock it has expired: compare the clocks of the two hosts",
        "UnknownCA" | "DecryptError" => {
            "it does not trust the root that signed it: both need the same sentry, or the same trust anchors"
        }
        "BadCertificate" | "UnsupportedCertificate" | "CertificateRevoked" | "CertificateUnknown" | "AccessDenied" => {
            "it finds it invalid; its log tells why (peer refused)"
        }
        _ => return Some("the other proxy ended the TLS handshake; its log tells why (peer refused)".to_owned()),
    };
    Some(format!("the other proxy refused our certificate: {why}"))
}

/// Why a server outside of the mesh could not prove that it is `name`, or ended the handshake itself.
pub fn unverified(error: &Error, name: &str) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            format!("its certificate is not for {name}")
        }
        Error::InvalidCertificate(why) => match certificate(why) {
            "expired" => "its certificate has expired, or is not valid yet".to_owned(),
            "unknown-ca" => "its certificate is signed by no trusted root".to_owned(),
            _ => format!("its certificate is invalid: {why}"),
        },
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the handshake: {}", in_words(&format!("{alert:?}"))),
        other => other.to_string(),
    }
}

/// `HandshakeFailure` as `handshake failure`.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && words.ends_with(char::is_lowercase) {
            words.push(' ');
        }
        words.push(letter);
    }
    words.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription;

    #[test]
    fn alerts_are_told_in_words() {
        for (alert, words) in
            [(AlertDescription::HandshakeFailure, "handshake failure"), (AlertDescription::UnknownCA, "unknown ca")]
        {
            let told = unverified(&Error::AlertReceived(alert), "api.example");
            assert_eq!(told, format!("it ended the handshake: {words}"));
        }
    }
}
