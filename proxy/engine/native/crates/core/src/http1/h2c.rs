//! The upgrade of an HTTP/1.1 connection to HTTP/2 (`Upgrade: h2c`), as a server takes it. RFC 9113 §3.1 has made it obsolete, but clients
//! still offer it on connections without TLS. It is an offer: what is not taken is answered over HTTP/1.1. Source: RFC 7540 §3.2.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::connection::io::Io;
use crate::fields::HTTP2_SETTINGS;
use crate::http1::head_scan::RequestStart;
use crate::http2::head_blocks::Block;
use crate::http2::server::only_allowed;

pub const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
/// Bytes before the client's preface: curl gives up where more than 32 KiB come with the 101.
pub const AHEAD: usize = 16_384;
const MAX_SETTINGS: usize = 32; // RFC 9113 §6.5.2 defines six
const SETTING_CHARACTERS: usize = 8; // six bytes in base64url, which never needs padding here

/// A connection to go on with in HTTP/2. `settings`: the payload of the client's SETTINGS frame; `request`: what stream 1 is to answer.
#[derive(Debug)]
pub struct Upgraded {
    pub io: Io,
    pub settings: Bytes,
    pub request: Block,
}

/// The settings that come with an offer; `None`: the request is treated as if it offered nothing. One with a body offers nothing: all of
/// it would have to be read before the connection speaks HTTP/2.
pub fn offered(start: &RequestStart) -> Option<Bytes> {
    let fields = &start.fields;
    if !fields.has_option(b"upgrade") || !fields.has_option(b"http2-settings") || start.minor != 1 {
        return None;
    }
    if fields.chunked || fields.length.is_some_and(|length| length > 0) || start.target.first() != Some(&b'/') {
        return None;
    }
    let offers = |name: &[u8]| {
        let mut upgrades = fields.headers.get_all(header::UPGRADE).iter();
        upgrades.any(|value| value.as_bytes().split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(name)))
    };
    if !offers(b"h2c") || offers(b"websocket") {
        return None;
    }
    let mut settings = fields.headers.get_all(&HTTP2_SETTINGS).iter();
    let (Some(only), None) = (settings.next().map(HeaderValue::as_bytes), settings.next()) else { return None };
    if only.len() % SETTING_CHARACTERS != 0 || only.len() > MAX_SETTINGS * SETTING_CHARACTERS {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(only).ok()?;
    payload.chunks_exact(6).all(is_sound).then(|| payload.into())
}

/// RFC 9113 §6.5.2, RFC 8441 §3.
fn is_sound(setting: &[u8]) -> bool {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let value = number(&setting[2..]);
    match number(&setting[..2]) {
        0x2 | 0x8 => value <= 1,
        0x4 => value <= 0x7fff_ffff,
        0x5 => (0x4000..=0xff_ffff).contains(&value),
        _ => true,
    }
}

/// The request's head as HTTP/2 has it (RFC 9113 §8.3.1).
pub fn as_block(mut start: RequestStart) -> Block {
    start.fields.strip_hop();
    let mut headers = start.fields.headers;
    only_allowed(&mut headers);
    Block::of_request(start.method, start.host, start.target, headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head_scan::scan_request;
    use crate::limits::Limits;

    fn start(more: &str) -> RequestStart {
        let head = format!("GET /a HTTP/1.1\r\nHost: b\r\nConnection: Upgrade, HTTP2-Settings\r\n{more}\r\n");
        scan_request(&head.into_bytes().into(), &Limits::default()).unwrap()
    }

    #[test]
    fn settings_of_a_sound_offer_are_read() {
        let found = offered(&start("Upgrade: foo, H2C\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"));
        assert_eq!(found.unwrap(), &b"\x00\x03\x00\x00\x00\x64\x00\x04\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00"[..]);
        assert!(offered(&start("Upgrade: h2c\r\nHTTP2-Settings:\r\nContent-Length: 0\r\n")).is_some());
    }

    #[test]
    fn other_offers_are_none() {
        let twice = "HTTP2-Settings: \r\n".repeat(2);
        let many = format!("HTTP2-Settings: {}\r\n", "AAMAAABk".repeat(33));
        for settings in [
            "",
            &twice,
            &many,
            "HTTP2-Settings: AAMAAABkAA\r\n",
            "HTTP2-Settings: AAMAAA+k\r\n",
            "HTTP2-Settings: AAIAAAAC\r\n", // ENABLE_PUSH: 2
            "HTTP2-Settings: AASAAAAA\r\n", // INITIAL_WINDOW_SIZE: 2^31
            "HTTP2-Settings: AAUAAAAA\r\n", // MAX_FRAME_SIZE: 0
        ] {
            assert!(offered(&start(&format!("Upgrade: h2c\r\n{settings}"))).is_none(), "{settings}");
        }
        for other in ["Upgrade: h2\r\n", "Upgrade: h2c\r\nContent-Length: 1\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"] {
            assert!(offered(&start(&format!("HTTP2-Settings: AAMAAABk\r\n{other}"))).is_none(), "{other}");
        }
    }

    #[test]
    fn head_is_that_of_stream_1() {
        let block = as_block(start("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nTE: gzip\r\nX: y\r\n"));
        assert_eq!(
            (block.method.unwrap(), block.authority.unwrap(), block.path.unwrap()),
            ("GET".into(), "b".into(), "/a".into())
        );
        assert_eq!((block.headers.len(), block.count), (1, 5));
    }
}
