//! Why a TLS handshake failed, between proxies or with a server outside of the mesh: the reason that metrics count it by, and in words. As
//! `proxy/engine/portable/refusal.py`.

use std::borrow::Cow;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::connection::alerts::{in_words, told};

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

/// What the other end meant by a fatal alert. `is_peer`: it is a proxy, to which we showed our certificate; in TLS 1.3 a client learns only
/// from its first read that it was refused.
pub fn by_alert(alert: AlertDescription, who: &str, is_peer: bool) -> String {
    if !is_peer {
        return told(who, alert);
    }
    let why = match alert {
        AlertDescription::CertificateExpired => "by its clock it has expired: compare the clocks of the two hosts",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not trust the root that signed it: both need the same sentry, or the same trust anchors"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "it finds it invalid; its log tells why (peer refused)",
        _ => return format!("{}; its log tells why (peer refused)", told(who, alert)),
    };
    format!("{who} refused our certificate ({}): {why}", in_words(alert))
}

/// Why a server outside of the mesh, `who` for people, could not prove that it is `name`, or ended the handshake itself.
pub fn unverified(error: &Error, name: &str, who: &str) -> String {
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
        Error::AlertReceived(alert) => told(who, *alert),
        other => other.to_string(),
    }
}
