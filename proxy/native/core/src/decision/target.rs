//! One canonical form of a request target; what has none is refused. Equal to `proxy/path.py`, which a differential test holds.
//!
//! Source: RFC 3986 §3.3, §5.2.4, RFC 9110 §4.2.3.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// A target's parts. `path`: canonical and decoded, trailing slash dropped. `query`: raw, without `?`.
/// `same`: forwarding the raw bytes names the same segments. `offset`: where path and query begin (absolute-form).
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub path: String,
    pub query: Range<usize>,
    pub same: bool,
    pub offset: usize,
    pub authority: Range<usize>,
}

/// Why a target has no canonical form, for people.
pub type Reason = &'static str;

/// The canonical form of a target in origin-form, absolute-form or `*`.
pub fn parse(target: &[u8]) -> Result<Target, Reason> {
    let (mut offset, mut authority) = (0, 0..0);
    if target.iter().any(|byte| !(0x21..=0x7e).contains(byte)) {
        return Err("the request target holds bytes that must be escaped"); // HTTP/2 itself does not look
    }
    if target.first() != Some(&b'/') {
        if target == b"*" {
            return Ok(Target { path: "/".into(), query: 1..1, same: true, offset: 0, authority: 0..0 });
        }
        (offset, authority) = absolute(target)?;
    }
    let rest = &target[offset..];
    let cut = memchr(b'?', rest).unwrap_or(rest.len());
    let raw = &rest[..cut];
    let query = (offset + cut + 1).min(target.len())..target.len();
    if memchr(b'#', target).is_some() {
        return Err("the request target holds a fragment ('#')");
    }
    if is_plain(raw) {
        let path = raw.strip_suffix(b"/").unwrap_or(raw);
        let path = String::from_utf8_lossy(path).into_owned();
        return Ok(Target { path, query, same: true, offset, authority });
    }
    let (path, same) = canonical(if raw.is_empty() { b"/" } else { raw })?;
    Ok(Target { path, query, same, offset, authority })
}

fn absolute(target: &[u8]) -> Result<(usize, Range<usize>), Reason> {
    let starts = |scheme: &[u8]| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme);
    let start = if starts(b"http://") {
        7
    } else if starts(b"https://") {
        8
    } else {
        return Err("the request target is neither a path nor an http URL");
    };
    let end = memchr2(b'/', b'?', &target[start..]).map_or(target.len(), |at| start + at);
    let authority = &target[start..end];
    if authority.is_empty() || memchr(b'@', authority).is_some() {
        return Err("the request target's authority is empty or holds user information");
    }
    Ok((end, start..end))
}

/// Segments of the commonest bytes, none empty, none beginning with a dot; perhaps a trailing slash.
fn is_plain(raw: &[u8]) -> bool {
    if raw.len() < 2 || raw[0] != b'/' {
        return false;
    }
    let mut first = false;
    for (at, byte) in raw.iter().enumerate() {
        match byte {
            b'/' => {
                if first {
                    return false;
                }
                first = true;
            }
            b'.' if first => return false,
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b'='
            | b':'
            | b'@'
            | b'-'
            | b'.' => first = false,
            _ => return false,
        }
        if at == 0 {
            first = true;
        }
    }
    true
}

fn canonical(raw: &[u8]) -> Result<(String, bool), Reason> {
    let decoded = decode(raw)?;
    let decoded = String::from_utf8(decoded).map_err(|_| "the path is not UTF-8")?;
    if decoded.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'?' || byte == b'#') {
        return Err("the path holds a control character, '?' or '#'");
    }
    if escapes(decoded.as_bytes()) {
        return Err("the path still holds a percent escape after decoding once");
    }
    let mut segments: Vec<&str> = decoded.split('/').skip(1).collect();
    let clean = resolve(&segments)?;
    if segments.last() == Some(&"") {
        segments.pop();
    }
    Ok((format!("/{}", clean.join("/")), clean == segments))
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn decode(raw: &[u8]) -> Result<Vec<u8>, Reason> {
    const SLASH: Reason = "the path holds an encoded slash or a backslash";
    let mut out = Vec::with_capacity(raw.len());
    let mut slash = memchr(b'\\', raw).is_some();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'%' {
            let pair = (raw.get(at + 1).copied().and_then(hex), raw.get(at + 2).copied().and_then(hex));
            let (Some(high), Some(low)) = pair else {
                return Err("the path holds a malformed percent escape");
            };
            let byte = high << 4 | low;
            slash |= byte == b'/' || byte == b'\\';
            out.push(byte);
            at += 3;
        } else {
            out.push(raw[at]);
            at += 1;
        }
    }
    if slash { Err(SLASH) } else { Ok(out) }
}

fn escapes(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|three| three[0] == b'%' && hex(three[1]).is_some() && hex(three[2]).is_some())
}

fn resolve<'a>(segments: &[&'a str]) -> Result<Vec<&'a str>, Reason> {
    let mut clean = Vec::with_capacity(segments.len());
    for segment in segments {
        let name = segment.split_once(';').map_or(*segment, |(name, _)| name);
        if (name == "." || name == "..") && name != *segment {
            return Err("the path hides a dot segment behind ';'");
        }
        match *segment {
            ".." => {
                clean.pop();
            }
            "" | "." => {}
            kept => clean.push(kept),
        }
    }
    Ok(clean)
}

/// A canonical path as bytes for the wire; what Go's default path encoding leaves stays as it is.
pub fn encode(path: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_targets_are_themselves() {
        for (target, path) in [("/a/b", "/a/b"), ("/a/b/", "/a/b"), ("/", "/"), ("*", "/"), ("/a;b=1/c", "/a;b=1/c")] {
            let found = parse(target.as_bytes()).unwrap();
            assert_eq!((found.path.as_str(), found.same), (path, true), "{target}");
        }
    }

    #[test]
    fn what_another_parser_reads_otherwise_says_so() {
        for (target, path) in [("//a//b", "/a/b"), ("/a/x/../b", "/a/b"), ("/a/%2e%2E/b", "/b"), ("/..", "/"), ("/a//", "/a")] {
            let found = parse(target.as_bytes()).unwrap();
            assert_eq!((found.path.as_str(), found.same), (path, false), "{target}");
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        for target in ["", "a/b", "/a%zz", "/a%4", "/a%2Fb", "/a\\b", "/a%00b", "/a%253f%2541", "/a#b", "/..;x", "http://u@a/"] {
            assert!(parse(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn absolute_form_names_its_parts() {
        let target = b"HTTP://cart/x?y=1";
        let found = parse(target).unwrap();
        assert_eq!(&target[found.authority.clone()], b"cart");
        assert_eq!((found.path.as_str(), &target[found.query.clone()], found.offset), ("/x", &b"y=1"[..], 11));
    }

    #[test]
    fn encoding_is_undone_by_parsing() {
        assert_eq!(encode("/a b/ä"), b"/a%20b/%C3%A4");
        assert_eq!(parse(&encode("/a b/ä")).unwrap().path, "/a b/ä");
    }
}
