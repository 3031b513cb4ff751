//! Request targets: which are refused, and the forms of their path. Kept equal to `proxy/wire/target.py` by
//! `tests/vectors/targets.json`.
//!
//! Source: RFC 3986 §2.1, §3.3, §5.2.4, RFC 9110 §4.2.3.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2};

const MAX_APP_BYTES: usize = 256; // of an app-id in the path form, as sent

/// A target's parts. `path`: as sent. `query`: raw, without `?`. `offset`: where path and query begin (absolute-form).
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub path: String,
    pub query: Range<usize>,
    pub offset: usize,
    pub authority: Range<usize>,
}

/// Which path an app is sent: as it came, cleaned, or cleaned from what follows `/method` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Sent,
    Whole,
    Method,
}

impl Form {
    /// By its name in `proxy/wire/target.py`.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sent" => Self::Sent,
            "whole" => Self::Whole,
            "method" => Self::Method,
            _ => return None,
        })
    }
}

/// Why a target is refused, for people.
pub type Reason = &'static str;

/// The parts of a target in origin-form, absolute-form or `*`, whose path is `/`.
pub fn parse(target: &[u8]) -> Result<Target, Reason> {
    let (mut offset, mut authority) = (0, 0..0);
    if target.iter().any(|byte| !(0x21..=0x7e).contains(byte)) {
        return Err("the request target holds bytes that must be escaped"); // HTTP/2 itself does not look
    }
    if target.first() != Some(&b'/') {
        if target == b"*" {
            return Ok(Target { path: "/".into(), query: 1..1, offset: 0, authority: 0..0 });
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
    check_escapes(raw)?;
    let path = if raw.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(raw).into_owned() };
    Ok(Target { path, query, offset, authority })
}

fn check_escapes(path: &[u8]) -> Result<(), Reason> {
    let mut is_control = false;
    for at in memchr::memchr_iter(b'%', path) {
        let [Some(high), Some(low)] = [at + 1, at + 2].map(|at| path.get(at).and_then(|byte| char::from(*byte).to_digit(16)))
        else {
            return Err("the path holds a malformed percent escape");
        };
        is_control |= matches!(high << 4 | low, 0..=0x1f | 0x7f);
    }
    if is_control { Err("the path holds an escaped control character") } else { Ok(()) }
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

/// App-id and method of Dapr's path form, both as sent; see `invoked` in `proxy/wire/target.py`.
pub fn invoked(path: &str) -> Option<(&str, &str)> {
    let after = |text: &'_ str| text.starts_with('/').then(|| text.trim_start_matches('/').len()).map(|left| text.len() - left);
    let mut rest = path;
    for name in ["v1.0", "invoke", ""] {
        rest = rest[after(rest)?..].strip_prefix(name)?;
    }
    let end = rest.find("/method/")?;
    (1..=MAX_APP_BYTES).contains(&end).then(|| (&rest[..end], &rest[end + "/method".len()..]))
}

fn is_clean(path: &[u8]) -> bool {
    let is_unclean = |rest: &[u8]| matches!(rest, [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]);
    !memchr::memchr_iter(b'/', path).any(|at| is_unclean(&path[at + 1..]))
}

/// Without empty and dot segments and the trailing slash; only plain dots count.
pub fn clean(path: &str) -> Cow<'_, str> {
    if is_clean(path.as_bytes()) {
        let path = path.strip_suffix('/').unwrap_or(path);
        return Cow::Borrowed(if path.is_empty() { "/" } else { path });
    }
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            ".." => drop(kept.pop()),
            "" | "." => {}
            segment => kept.push(segment),
        }
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// The path that the app finds; a trailing slash stays.
pub fn as_forwarded(path: &str, form: Form) -> Cow<'_, str> {
    let path = match form {
        Form::Sent => return Cow::Borrowed(path),
        Form::Whole => path,
        Form::Method => invoked(path).map_or(path, |(_, method)| method),
    };
    if is_clean(path.as_bytes()) && path.bytes().all(is_safe) {
        return Cow::Borrowed(path);
    }
    let mut found = encode(&clean(path));
    if path.ends_with('/') && found != "/" {
        found.push('/');
    }
    Cow::Owned(found)
}

/// A path for people: clean, and decoded where that can't be taken for anything else; see `readable` in `proxy/wire/target.py`.
pub fn readable(path: &str) -> Cow<'_, str> {
    let found = clean(path);
    if !found.contains('%') {
        return found;
    }
    let Ok(decoded) = String::from_utf8(unescaped(found.as_bytes())) else { return found };
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    let is_special = |letter: char| matches!(letter, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '?' | '#' | '%' | ';' | '\\' | '\u{2028}' | '\u{2029}');
    if slashes(&decoded) != slashes(&found) || decoded.contains(is_special) || !is_clean(decoded.as_bytes()) {
        found
    } else {
        Cow::Owned(decoded)
    }
}

/// Percent-decoded (RFC 3986 §2.1); what is no escape stays.
pub fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if let (b'%', Some(upper), Some(lower)) = (text[at], digit(at + 1), digit(at + 2)) {
            out.push((upper * 16 + lower) as u8);
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// A path that is sent on, behind `base`, which it can't lead out of; see `below` in `proxy/wire/target.py`.
pub fn below(base: &str, path: &str) -> String {
    let path = spelled_out(path, &[("2e", ".")]);
    let split = spelled_out(&path.replace('\\', "/"), &[("2f", "/"), ("5c", "/")]);
    let is_dots = |segment: &&str| matches!(short(segment), "." | "..");
    let found = if split.split('/').any(|segment| is_dots(&segment)) {
        let segments = split.split('/').map(|segment| if is_dots(&segment) { short(segment) } else { segment });
        segments.collect::<Vec<_>>().join("/")
    } else {
        path
    };
    [base, &as_forwarded(&found, Form::Whole)].concat()
}

/// A segment without its parameters.
fn short(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// A path with some escapes, by their digits, in plain.
fn spelled_out(path: &str, plain: &[(&str, &str)]) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = plain.iter().find(|(digits, _)| part.get(..2).is_some_and(|found| found.eq_ignore_ascii_case(digits)));
        match known {
            Some((_, letter)) => out.extend([letter, &part[2..]]),
            None => out.extend(["%", part]),
        }
    }
    out
}

/// What Go's default path encoding leaves as it is, and escapes.
pub(crate) fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte)
}

fn encode(path: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if is_safe(byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parse {
        why: String,
        target: Text,
        path: Option<Text>,
        #[serde(default)]
        query: Text,
        #[serde(default)]
        authority: Text,
        #[serde(default)]
        offset: usize,
        refused: Option<String>,
    }

    #[test]
    fn targets_have_their_parts_or_are_refused() {
        for case in vectors::read::<Parse>("targets", "parse") {
            let target = case.target.octets();
            let found = parse(&target);
            assert_eq!(found.as_ref().err().copied(), case.refused.as_deref(), "{}", case.why);
            let Ok(found) = found else { continue };
            let parts = (found.path, &target[found.query], &target[found.authority], found.offset);
            let wanted = (case.path.unwrap().spelt(), &case.query.octets()[..], &case.authority.octets()[..], case.offset);
            assert_eq!(parts, wanted, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Invoked {
        why: String,
        path: Text,
        app: Option<Text>,
        method: Option<String>,
    }

    #[test]
    fn the_path_form_is_cut_at_the_first_method() {
        for case in vectors::read::<Invoked>("targets", "invoked") {
            let path = case.path.spelt();
            let found = invoked(&path).map(|(app, method)| (app.to_owned(), method.to_owned()));
            assert_eq!(found, case.app.map(|app| app.spelt()).zip(case.method), "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Forwarded {
        why: String,
        path: String,
        sent: String,
        whole: String,
        method: String,
    }

    #[test]
    fn an_app_finds_the_path_in_the_form_of_its_surface() {
        for case in vectors::read::<Forwarded>("targets", "forwarded") {
            for (form, wanted) in [("sent", &case.sent), ("whole", &case.whole), ("method", &case.method)] {
                assert_eq!(as_forwarded(&case.path, Form::of(form).unwrap()), *wanted, "{}: {form}", case.why);
            }
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Below {
        why: String,
        path: String,
        sent: String,
    }

    #[test]
    fn a_path_below_a_base_stays_there() {
        for case in vectors::read::<Below>("targets", "below") {
            assert_eq!(below("/base", &case.path), case.sent, "{}", case.why);
        }
    }
}
