//! The HTTP/1.1 handshake of a WebSocket, both sides; frames are never looked at. Source: RFC 6455 §4, RFC 8441 §5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, header};
use sha1::{Digest, Sha1};

use crate::fields::Headers;
use crate::http1::head_scan::{Fields, RequestStart, ResponseStart};

const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
static OURS: [HeaderName; 4] = [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_ACCEPT, header::UPGRADE, header::CONNECTION];

/// Sec-WebSocket-Accept for a Sec-WebSocket-Key.
pub fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(MAGIC);
    STANDARD.encode(hash.finalize())
}

/// A fresh Sec-WebSocket-Key.
pub fn make_key() -> String {
    STANDARD.encode(fastrand::u128(..).to_be_bytes())
}

fn only<'a>(fields: &'a Fields, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = fields.headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// The key of a valid WebSocket offer; `None`: the request is treated as if it offered nothing.
pub fn offered_key(start: &RequestStart) -> Option<Bytes> {
    let fields = &start.fields;
    if !fields.has_option(b"upgrade") || &start.method[..] != b"GET" || start.minor != 1 {
        return None;
    }
    if fields.chunked || fields.length.is_some_and(|length| length > 0) {
        return None;
    }
    let offers = only(fields, &header::UPGRADE)?.eq_ignore_ascii_case(b"websocket");
    let version = only(fields, &header::SEC_WEBSOCKET_VERSION)?;
    let key = only(fields, &header::SEC_WEBSOCKET_KEY)?;
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    let sound = key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64);
    (offers && version == b"13" && sound).then(|| Bytes::copy_from_slice(key))
}

/// Whether a 101 answers our offer.
pub fn is_accepted(start: &ResponseStart, key: &str) -> bool {
    let fields = &start.fields;
    only(fields, &header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && fields.has_option(b"upgrade")
        && only(fields, &header::SEC_WEBSOCKET_ACCEPT) == Some(accept_of(key.as_bytes()).as_bytes())
}

/// Leave the fields that go through: protocol, extensions, version and everything end to end.
pub fn strip_handshake(headers: &mut Headers) {
    headers.retain(|name| !OURS.contains(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_that_of_the_rfc() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(make_key().len(), 24);
    }
}
