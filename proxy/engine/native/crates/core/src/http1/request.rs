//! The head of a request, as HTTP/1.1 has it towards an app, a server outside of the mesh, or an HTTP proxy before one.

use http::{HeaderName, header};

use crate::connection::via::Via;
use crate::fields::Headers;
use crate::head::RawHead;
use crate::http1::out::Out;
use crate::http1::websocket::strip_handshake;

/// What this end writes itself, or what would let a caller speak to the app's connection rather than to the app.
static NOT_COPIED: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Header fields that are sent on.
pub fn copied(headers: &mut Headers) {
    headers.retain(|name| !NOT_COPIED.contains(name));
}

/// Queue a head. `key`: of a WebSocket offer. `via`: the proxy that it is for, which needs the whole URL (RFC 9112 §3.2.2).
pub fn put_head(out: &mut Out, head: &RawHead, mut headers: Headers, key: Option<&str>, chunked: bool, via: Option<&Via>) {
    let path = origin_form(head);
    out.put(if key.is_some() { b"GET" } else { &head.method[..] });
    out.put(if via.is_some() { b" http://" } else { b" " });
    if via.is_some() {
        out.put(&head.authority);
    }
    if via.is_none() || path != b"*" {
        out.put(path);
    }
    out.put(b" HTTP/1.1\r\nHost: ");
    out.put(&head.authority);
    out.put(b"\r\n");
    if let Some(via) = via {
        headers.remove(header::PROXY_AUTHORIZATION);
        if !via.authorization.is_empty() {
            out.put(b"Proxy-Authorization: ");
            out.put(&via.authorization);
            out.put(b"\r\n");
        }
    }
    if let Some(key) = key {
        strip_handshake(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::SEC_WEBSOCKET_VERSION);
        out.put(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
        out.put(key.as_bytes());
        out.put(b"\r\n");
    }
    out.put_fields(&headers);
    out.put(if chunked { b"Transfer-Encoding: chunked\r\n\r\n" } else { b"\r\n" });
}

/// The target as an origin server expects it; an absolute-form one loses its scheme and authority.
fn origin_form(head: &RawHead) -> &[u8] {
    let target = &head.target[..];
    if target.first() == Some(&b'/') || target == b"*" {
        return target;
    }
    let Some(start) = memchr::memmem::find(target, b"://") else { return target };
    match memchr::memchr2(b'/', b'?', &target[start + 3..]) {
        Some(at) if target[start + 3 + at] == b'/' => &target[start + 3 + at..],
        _ => b"/",
    }
}
