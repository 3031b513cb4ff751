//! A strict scan of HTTP/1.1 heads. What RFC 9112 does not allow is a `Refusal`; nothing is forgiven, since the next parser on
//! the way may read such bytes otherwise, and that difference is request smuggling. Equal to `portable/head_scan.py`; one corpus
//! of bad heads serves both. Pure. Source: RFC 9112 §2 to §7, RFC 9110 §5.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use memchr::{memchr, memmem};

use crate::fields::{Headers, is_of_hop};
use crate::limits::Limits;

/// What `h2` takes as a target.
pub const MAX_TARGET: usize = 65_534;

/// Why a message is not read. `status`: the answer if it was a request. `kind`: for counters. `text`: for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub text: Cow<'static, str>,
}

fn refuse(status: u16, kind: &'static str, text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal { status, kind, text: text.into() }
}

/// The fields of a head, and what those of framing say. `options`: of Connection, lower-case.
#[derive(Debug)]
pub struct Fields {
    pub headers: Headers,
    pub length: Option<u64>,
    pub chunked: bool,
    pub options: Vec<Vec<u8>>,
}

/// A request head.
#[derive(Debug)]
pub struct RequestStart {
    pub method: Bytes,
    pub target: Bytes,
    pub minor: u8,
    pub host: Bytes,
    pub fields: Fields,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseStart {
    pub status: u16,
    pub minor: u8,
    pub fields: Fields,
}

impl Fields {
    /// Whether Connection names an option.
    pub fn has_option(&self, name: &[u8]) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// Take out what concerns this connection only, and what Connection lists; framing is not the sender's to take away.
    pub fn strip_hop(&mut self) {
        let options = std::mem::take(&mut self.options);
        let listed = |name: &HeaderName| {
            *name != header::CONTENT_LENGTH && options.iter().any(|option| option == name.as_str().as_bytes())
        };
        self.headers.retain(|name| !is_of_hop(name) && !listed(name));
    }
}

/// Where a head ends in `held` (the index after its empty line), `None` if more is needed. `seen`: bytes looked at before.
pub fn find_end(held: &[u8], seen: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
    let from = seen.saturating_sub(3);
    if let Some(at) = memmem::find(&held[from..], b"\r\n\r\n") {
        let end = from + at + 4;
        return if end > limits.head_bytes { Err(too_large(held, limits)) } else { Ok(Some(end)) };
    }
    if held.len() > limits.head_bytes {
        return Err(too_large(held, limits));
    }
    check_bytes(&held[seen.saturating_sub(1)..], true)?;
    Ok(None)
}

fn too_large(held: &[u8], limits: &Limits) -> Refusal {
    if memmem::find(&held[..limits.head_bytes], b"\r\n").is_none() {
        return refuse(414, "target", format!("the request line is longer than {} bytes", limits.head_bytes));
    }
    refuse(431, "head-size", format!("the head is larger than {} bytes", limits.head_bytes))
}

/// Control bytes, and line ends that are not CRLF. A `partial` piece may begin and end within a pair.
fn check_bytes(data: &[u8], partial: bool) -> Result<(), Refusal> {
    for (at, &byte) in data.iter().enumerate() {
        if byte >= 0x20 && byte != 0x7f {
            continue;
        }
        let bare = match byte {
            b'\t' => false,
            b'\n' if at == 0 => !partial,
            b'\n' => data[at - 1] != b'\r',
            b'\r' => match data.get(at + 1) {
                Some(next) => *next != b'\n',
                None => !partial,
            },
            0 if at == 0 => {
                return Err(refuse(400, "control-byte", "the head begins with the byte 0x00, as frames of HTTP/2 do"));
            }
            other => return Err(refuse(400, "control-byte", format!("the head holds the control byte 0x{other:02x}"))),
        };
        if bare {
            return Err(refuse(400, "bare-line-end", "a line of the head does not end in CRLF"));
        }
    }
    Ok(())
}

/// RFC 9110 §5.6.2.
pub fn is_token(data: &[u8]) -> bool {
    !data.is_empty() && data.iter().all(|&byte| is_tchar(byte))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Read a whole request head, empty line included.
pub fn scan_request(head: &Bytes, limits: &Limits) -> Result<RequestStart, Refusal> {
    check_bytes(head, false)?;
    let cut = memmem::find(head, b"\r\n").unwrap_or(0);
    let (method, target, minor) = request_line(head, cut)?;
    check_target(&method, &target)?;
    let (fields, hosts) = scan_fields(&head.slice(cut + 2..head.len() - 2), limits, minor)?;
    let host = the_host(&hosts, minor)?;
    Ok(RequestStart { method, target, minor, host, fields })
}

fn request_line(head: &Bytes, cut: usize) -> Result<(Bytes, Bytes, u8), Refusal> {
    const SHAPE: &str = "the request line is not 'METHOD target HTTP/1.1'";
    let line = head.slice(..cut);
    let mut spaces = memchr::memchr_iter(b' ', &line);
    let (Some(first), Some(second), None) = (spaces.next(), spaces.next(), spaces.next()) else {
        return Err(refuse(400, "start-line", SHAPE));
    };
    let (method, target, version) = (line.slice(..first), line.slice(first + 1..second), line.slice(second + 1..));
    if !is_token(&method) {
        return Err(refuse(400, "method", "the method holds bytes that no method may hold"));
    }
    if method.iter().any(u8::is_ascii_lowercase) {
        return Err(refuse(400, "method", "methods are upper-case"));
    }
    let minor = match &version[..] {
        b"HTTP/1.0" => 0,
        // A later 1.x is read as the latest that we know (RFC 9110 §2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => 1,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(refuse(505, "version", "this port speaks HTTP/1.1, HTTP/1.0 and HTTP/2"));
        }
        _ => return Err(refuse(400, "start-line", "the request line does not end in an HTTP version")),
    };
    if target.is_empty() || target.iter().any(|byte| !(0x21..=0x7e).contains(byte)) {
        return Err(refuse(400, "target", "the request target is empty or holds bytes that must be escaped"));
    }
    if target.len() > MAX_TARGET {
        return Err(refuse(414, "target", format!("the request target is longer than {MAX_TARGET} bytes")));
    }
    Ok((method, target, minor))
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    if memchr(b'#', target).is_some() {
        return Err(refuse(400, "target", "the request target holds a fragment ('#')"));
    }
    if method == b"CONNECT" {
        if is_host_port(target) {
            return Ok(());
        }
        return Err(refuse(400, "target", "CONNECT needs a target of the form host:port"));
    }
    if target[0] == b'/' || (target == b"*" && method == b"OPTIONS") || is_http_url(target) {
        return Ok(());
    }
    Err(refuse(400, "target", "the request target is neither a path nor an http URL"))
}

fn is_host_port(target: &[u8]) -> bool {
    let Some(colon) = memchr::memrchr(b':', target) else { return false };
    let (host, port) = (&target[..colon], &target[colon + 1..]);
    let is_host = |&byte: &u8| byte.is_ascii_alphanumeric() || b"._~%[]:-".contains(&byte);
    !host.is_empty() && host.iter().all(is_host) && (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
}

fn is_http_url(target: &[u8]) -> bool {
    let after = |scheme: &[u8]| {
        target.len() > scheme.len()
            && target[..scheme.len()].eq_ignore_ascii_case(scheme)
            && !b"/?#@".contains(&target[scheme.len()])
    };
    after(b"http://") || after(b"https://")
}

/// Whether it is a name, or an address in brackets, and a port; no user information (RFC 3986 §3.2, RFC 9113 §8.3.1).
pub fn is_authority(authority: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~!$&'()*+,;=%-".contains(byte);
    let after_host = if authority.first() == Some(&b'[') {
        let Some(end) = memchr(b']', authority).filter(|end| *end > 1) else { return false };
        if !authority[1..end].iter().all(|byte| *byte == b':' || is_plain(byte)) {
            return false;
        }
        &authority[end + 1..]
    } else {
        let end = memchr(b':', authority).unwrap_or(authority.len());
        if !authority[..end].iter().all(is_plain) {
            return false;
        }
        &authority[end..]
    };
    match after_host {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn the_host(hosts: &[Bytes], minor: u8) -> Result<Bytes, Refusal> {
    match hosts {
        [host] => {
            if is_authority(host) {
                return Ok(host.clone());
            }
            Err(refuse(400, "host", "the Host field is not a host and port"))
        }
        [] if minor == 0 => Ok(Bytes::new()),
        _ => Err(refuse(400, "host", "a request needs exactly one Host field")),
    }
}

/// Read a whole response head of an app, empty line included.
pub fn scan_response(head: &Bytes, limits: &Limits) -> Result<ResponseStart, Refusal> {
    check_bytes(head, false)?;
    let cut = memmem::find(head, b"\r\n").unwrap_or(0);
    let line = &head[..cut];
    let shape = || refuse(400, "start-line", "the status line is not 'HTTP/1.1 code reason'");
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] = line else {
        return Err(shape());
    };
    let [first @ b'1'..=b'9', second @ b'0'..=b'9', third @ b'0'..=b'9', reason @ ..] = rest else {
        return Err(shape());
    };
    if !reason.is_empty() && reason[0] != b' ' {
        return Err(shape());
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    let status = digit(first) * 100 + digit(second) * 10 + digit(third);
    let minor = minor - b'0';
    let (fields, _) = scan_fields(&head.slice(cut + 2..head.len() - 2), limits, minor)?;
    Ok(ResponseStart { status, minor, fields })
}

/// Every line of a block as name and value; names lower-case.
fn scan_lines(
    block: &Bytes,
    limits: &Limits,
    mut each: impl FnMut(HeaderName, Bytes) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let lines = memchr::memchr_iter(b'\n', block).count();
    if lines > limits.header_count {
        return Err(refuse(431, "field-count", format!("the head has more than {} fields", limits.header_count)));
    }
    let mut at = 0;
    while at < block.len() {
        let end = memchr(b'\r', &block[at..]).map_or(block.len(), |found| at + found);
        let line = &block[at..end];
        let Some(colon) = memchr(b':', line) else { return Err(explain_field(line)) };
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| explain_field(line))?;
        if !is_token(&line[..colon]) {
            return Err(explain_field(line));
        }
        let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let from = line[colon + 1..].iter().position(|byte| !blank(byte)).map_or(line.len(), |skip| colon + 1 + skip);
        let to = line.iter().rposition(|byte| !blank(byte)).map_or(from, |last| (last + 1).max(from));
        each(name, block.slice(at + from..at + to))?;
        at = end + 2;
    }
    Ok(())
}

fn explain_field(line: &[u8]) -> Refusal {
    let colon = memchr(b':', line);
    let name = &line[..colon.unwrap_or(line.len())];
    let text = match name {
        [b' ' | b'\t', ..] => "a header line is folded",
        [.., b' ' | b'\t'] if colon.is_some() => "a header name is followed by white space",
        _ if colon.is_none() || !is_token(name) => "a header name is empty or holds bytes that no name may hold",
        _ => "a header line is not 'name: value'",
    };
    refuse(400, "field-line", text)
}

fn scan_fields(block: &Bytes, limits: &Limits, minor: u8) -> Result<(Fields, Vec<Bytes>), Refusal> {
    let mut headers = Headers::with_capacity(16);
    let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::<Bytes>::new(), Vec::<Bytes>::new());
    let mut options = Vec::new();
    scan_lines(block, limits, |name, data| {
        if name == header::HOST {
            hosts.push(data);
            return Ok(());
        } else if name == header::CONTENT_LENGTH {
            lengths.push(data.clone());
        } else if name == header::TRANSFER_ENCODING {
            codings.push(data.clone());
        } else if name == header::CONNECTION {
            options.extend(split_list(&data));
        }
        headers.append(name, to_value(data)?);
        Ok(())
    })?;
    if !codings.is_empty() {
        check_codings(&codings, minor, !lengths.is_empty())?;
    } else if lengths.len() > 1 || lengths.iter().any(|one| !is_length(one)) {
        return Err(refuse(400, "content-length", "Content-Length is not one plain number"));
    }
    let length = lengths.first().map(|digits| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    Ok((Fields { headers, length, chunked: !codings.is_empty(), options }, hosts))
}

fn to_value(data: Bytes) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_maybe_shared(data).map_err(|_| refuse(400, "control-byte", "a header value holds a control byte"))
}

/// 18 digits fit every signed 64-bit counter on the way.
fn is_length(data: &[u8]) -> bool {
    (1..=18).contains(&data.len()) && data.iter().all(u8::is_ascii_digit)
}

fn split_list(data: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    data.split(|byte| *byte == b',').map(|item| item.trim_ascii().to_ascii_lowercase())
}

fn check_codings(codings: &[Bytes], minor: u8, has_length: bool) -> Result<(), Refusal> {
    if has_length {
        return Err(refuse(400, "framing", "Content-Length and Transfer-Encoding exclude each other"));
    }
    if minor == 0 {
        return Err(refuse(400, "transfer-encoding", "HTTP/1.0 has no Transfer-Encoding"));
    }
    if codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let names: Vec<Vec<u8>> = codings.iter().flat_map(|field| split_list(field)).collect();
    let sound = names.iter().all(|name| name.first().is_some_and(|&byte| is_tchar(byte)));
    if !sound || names[..names.len() - 1].iter().any(|name| name == b"chunked") {
        return Err(refuse(400, "transfer-encoding", "Transfer-Encoding is malformed"));
    }
    Err(refuse(501, "transfer-encoding", "only the transfer coding 'chunked' is understood"))
}

/// Read trailer lines (without the empty line). Framing fields are refused, connection fields left out.
pub fn scan_trailers(block: &BytesMut, limits: &Limits) -> Result<Headers, Refusal> {
    if check_bytes(block, false).is_err() {
        return Err(refuse(400, "trailer", "the trailers hold a control byte or a bare line end"));
    }
    let mut trailers = Headers::new();
    let found = scan_lines(&Bytes::copy_from_slice(block), limits, |name, data| {
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING || name == header::HOST {
            return Err(refuse(400, "trailer", "the trailers hold a framing field"));
        }
        if !is_of_hop(&name) {
            trailers.append(name, to_value(data)?);
        }
        Ok(())
    });
    found.map_err(|refusal| Refusal { kind: "trailer", ..refusal })?;
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &[u8]) -> Result<RequestStart, Refusal> {
        scan_request(&Bytes::copy_from_slice(head), &Limits::default())
    }

    #[test]
    fn request_head_is_read_whole() {
        let start =
            scan(b"POST /a?b HTTP/1.1\r\nhOsT:\tA.b:80  \r\nContent-Length: 005\r\nX: a\r\nx: b\r\nConnection: X, close\r\n\r\n");
        let mut start = start.unwrap();
        assert_eq!(
            (&start.method[..], &start.target[..], &start.host[..], start.minor),
            (&b"POST"[..], &b"/a?b"[..], &b"A.b:80"[..], 1)
        );
        assert_eq!(start.fields.length, Some(5));
        assert!(start.fields.has_option(b"close"));
        start.fields.strip_hop();
        assert_eq!(start.fields.headers.len(), 1);
    }

    #[test]
    fn heads_that_parsers_forgive_are_refused() {
        for (head, status, kind) in [
            (&b"GET / HTTP/1.1\nHost: a\n\r\n\r\n"[..], 400, "bare-line-end"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", 400, "bare-line-end"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "host"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400, "field-line"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n y\r\n\r\n", 400, "field-line"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", 400, "content-length"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "framing"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "transfer-encoding"),
            (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
            (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version"),
        ] {
            let refusal = scan(head).unwrap_err();
            assert_eq!((refusal.status, refusal.kind), (status, kind), "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn end_of_a_head_is_found_however_it_is_cut() {
        let (limits, head) = (Limits::default(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
        for cut in 1..head.len() {
            let early = find_end(&head[..cut], 0, &limits).unwrap();
            let found = early.or_else(|| find_end(head, cut, &limits).unwrap());
            assert_eq!(found, Some(27));
        }
    }
}
