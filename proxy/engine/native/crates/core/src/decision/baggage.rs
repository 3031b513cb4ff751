//! Baggage: what is wrong with it, and the members to pass on. Kept equal to `read_baggage` in `proxy/contract/fields.py` by
//! `tests/vectors/baggage.json`.

use http::HeaderName;

use crate::decision::target::unescaped;
use crate::fields::Headers;

pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const MAX_MEMBERS: usize = 64; // W3C Baggage §3.3.2: what every platform must pass on
const MAX_BYTES: usize = 8_192;
const VALUE_CHARS: usize = 256;

/// "" where nothing is wrong; the sound members, joined.
pub fn read(headers: &Headers) -> (&'static str, Vec<u8>) {
    read_allowed(headers, |_| true)
}

/// The same, where only members with some keys are to go on.
pub fn read_allowed(headers: &Headers, is_allowed: impl Fn(&[u8]) -> bool) -> (&'static str, Vec<u8>) {
    let lines: Vec<&[u8]> = headers.get_all(BAGGAGE).map(http::HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return ("", Vec::new());
    }
    let whole = lines.join(&b',');
    let members: Vec<&[u8]> = whole.split(|byte| *byte == b',').map(trimmed).filter(|member| !member.is_empty()).collect();
    if whole.len() > MAX_BYTES {
        return ("too-large", Vec::new());
    }
    if members.len() > MAX_MEMBERS {
        return ("too-many", Vec::new());
    }
    let mut sound: Vec<&[u8]> = members.iter().copied().filter(|member| is_sound(member)).collect();
    let sound_ones = sound.len();
    sound.retain(|member| is_allowed(key_of(member)));
    let wrong = match sound_ones {
        sound_ones if sound_ones < members.len() => "malformed",
        sound_ones if sound.len() < sound_ones => "not-allowed",
        _ => "",
    };
    (wrong, sound.join(&b','))
}

/// The same without the members.
pub fn fault(headers: &Headers, is_allowed: impl Fn(&[u8]) -> bool) -> &'static str {
    if headers.contains_key(BAGGAGE) { read_allowed(headers, is_allowed).0 } else { "" }
}

fn key_of(member: &[u8]) -> &[u8] {
    trimmed(member.split(|byte| *byte == b'=').next().unwrap_or_default())
}

/// Key and value of the sound members with these keys: `baggage_values` in `proxy/contract/fields.py`.
pub fn values<'a>(headers: &Headers, keys: &'a [String]) -> Vec<(&'a str, String)> {
    if keys.is_empty() || !headers.contains_key(BAGGAGE) {
        return Vec::new();
    }
    let sound = read(headers).1;
    let last = |key: &str| {
        sound.rsplit(|byte| *byte == b',').find_map(|member| {
            let member = member.split(|byte| *byte == b';').next()?;
            let equals = member.iter().position(|byte| *byte == b'=')?;
            (trimmed(&member[..equals]) == key.as_bytes()).then(|| clipped(&unescaped(trimmed(&member[equals + 1..]))))
        })
    };
    keys.iter().filter_map(|key| Some((&**key, last(key)?))).collect()
}

fn clipped(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.chars().count() <= VALUE_CHARS {
        return text.into_owned();
    }
    text.chars().take(VALUE_CHARS - 1).chain(['…']).collect()
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `key=value`, then properties, each a key or again `key=value`.
fn is_sound(member: &[u8]) -> bool {
    let mut parts = member.split(|byte| *byte == b';');
    let is_pair = |part: &[u8]| match part.iter().position(|byte| *byte == b'=') {
        Some(equals) => is_token(trimmed(&part[..equals])) && trimmed(&part[equals + 1..]).iter().copied().all(is_octet),
        None => false,
    };
    parts.next().is_some_and(is_pair) && parts.all(|part| is_pair(part) || is_token(trimmed(part)))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(byte))
}

fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        why: String,
        lines: Vec<Text>,
        #[serde(default)]
        allowed: Option<Vec<String>>,
        wrong: String,
        sound: Text,
    }

    #[test]
    fn sound_members_are_passed_on_and_others_told() {
        for case in vectors::read::<Read>("baggage", "read") {
            let headers = vectors::headers(case.lines.iter().map(|line| ("baggage", line)));
            let is_allowed = |key: &[u8]| case.allowed.as_ref().is_none_or(|keys| keys.iter().any(|one| one.as_bytes() == key));
            assert_eq!(read_allowed(&headers, is_allowed), (&*case.wrong, case.sound.octets()), "{}", case.why);
            assert_eq!(fault(&headers, is_allowed), case.wrong, "{}", case.why);
        }
    }
}
