//! Everything that an app may take a path for. Kept equal to `policies/rules/path_readings.py`, which gives the
//! reasons, by `tests/vectors/readings.json` and a differential test.

const MAX_PATH_BYTES: usize = 8_192;
const MAX_READINGS: usize = 64;
const MAX_READ_BYTES: usize = 32_768;
const DECODINGS: usize = 2;

/// Whether a path can be read in more than one way, or not at all.
pub fn is_ambiguous(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b';' | b'\\' | b'?' | b'#' | 0..=0x1f | 0x7f => return true,
            b'/' | b'.' if after_slash => return true,
            _ => after_slash = *byte == b'/',
        }
    }
    false
}

/// The distinct readings of an ambiguous path, without trailing slashes; `None` where one can't be judged, or there are too many.
pub fn readings(path: &str) -> Option<Vec<String>> {
    if path.len() > MAX_PATH_BYTES {
        return None;
    }
    let mut found: Vec<Vec<u8>> = Vec::with_capacity(8);
    let mut level = vec![path.as_bytes().to_vec()];
    for left in (0..=DECODINGS).rev() {
        let begin = found.len();
        let mut read_bytes: usize = found.iter().map(Vec::len).sum();
        for one in level {
            add(&mut found, one);
        }
        let mut at = begin;
        while at < found.len() {
            let one = found[at].clone();
            read_bytes += one.len();
            if found.len() > MAX_READINGS || read_bytes > MAX_READ_BYTES {
                return None;
            }
            for step in STEPS {
                if let Some(next) = step(&one) {
                    add(&mut found, next);
                }
            }
            for escaped in [false, true] {
                for next in without_dots(&one, |segment| dots(segment, escaped)) {
                    read_bytes += one.len();
                    if found.len() > MAX_READINGS || read_bytes > MAX_READ_BYTES {
                        return None;
                    }
                    add(&mut found, next);
                }
            }
            at += 1;
        }
        let last: &[Vec<u8>] = if left > 0 { &found[begin..] } else { &[] };
        level = last.iter().flat_map(|one| [decoded(one, false), decoded(one, true)]).flatten().collect();
    }
    found
        .into_iter()
        .map(|one| String::from_utf8(one).ok().filter(|text| !text.bytes().any(|byte| byte.is_ascii_control())))
        .collect()
}

fn add(found: &mut Vec<Vec<u8>>, mut one: Vec<u8>) {
    let end = one.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    one.truncate(end);
    if one.is_empty() {
        one.push(b'/');
    }
    if !found.contains(&one) {
        found.push(one);
    }
}

/// A step of reading; `None` where it changes nothing.
type Step = fn(&[u8]) -> Option<Vec<u8>>;

const STEPS: [Step; 7] = [first_parameter, each_parameter, backslashes, merged, unblanked, after_authority, before_query];

fn first_parameter(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b';', path).map(|at| path[..at].to_vec())
}

fn each_parameter(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b';', path)?;
    let mut is_cut = false;
    let kept = path.iter().filter(|byte| {
        is_cut = **byte == b';' || (is_cut && **byte != b'/');
        !is_cut
    });
    Some(kept.copied().collect())
}

fn backslashes(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', path)?;
    Some(path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect())
}

fn merged(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(path, b"//")?;
    let mut out = path.to_vec();
    out.dedup_by(|one, before| *one == b'/' && *before == b'/');
    Some(out)
}

fn unblanked(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(path, b"/ ")?;
    let mut is_start = false;
    let kept = path.iter().filter(|byte| {
        is_start = **byte == b'/' || (is_start && **byte == b' ');
        !is_start || **byte == b'/'
    });
    Some(kept.copied().collect())
}

/// Resolved behind each prefix that an app may have cut off before, the longest first.
fn without_dots<'a>(path: &'a [u8], dots: impl Fn(&[u8]) -> Option<usize> + 'a) -> impl Iterator<Item = Vec<u8>> + 'a {
    let can_have = memchr::memmem::find(path, b"/.").is_some() || memchr::memmem::find(path, b"/%2").is_some();
    let segments: Vec<&[u8]> = if can_have { path.split(|byte| *byte == b'/').skip(1).collect() } else { Vec::new() };
    let mut next_depth = segments.iter().position(|segment| matches!(dots(segment), Some(1 | 2)));
    std::iter::from_fn(move || {
        let depth = next_depth?;
        let mut kept = segments[..depth].to_vec();
        let mut is_held = false;
        for segment in &segments[depth..] {
            match dots(segment) {
                Some(2) if kept.len() == depth => is_held = true,
                Some(2) => drop(kept.pop()),
                Some(1) => {}
                _ => kept.push(segment),
            }
        }
        next_depth = if is_held { depth.checked_sub(1) } else { None }; // shorter prefixes make no difference
        Some([b"/", &kept.join(&b'/')[..]].concat())
    })
}

/// How many dots a segment is, if it is nothing else.
fn dots(mut segment: &[u8], escaped: bool) -> Option<usize> {
    let mut count = 0;
    while !segment.is_empty() {
        segment = match segment {
            [b'.', rest @ ..] => rest,
            [b'%', b'2', b'e' | b'E', rest @ ..] if escaped => rest,
            _ => return None,
        };
        count += 1;
    }
    Some(count)
}

fn after_authority(path: &[u8]) -> Option<Vec<u8>> {
    if !path.starts_with(b"//") {
        return None;
    }
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let rest = memchr::memchr(b'/', &path[start..]).map_or(&b"/"[..], |at| &path[start + at..]);
    Some(rest.to_vec())
}

fn before_query(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr2(b'?', b'#', path).map(|at| path[..at].to_vec())
}

/// Decoded once, whole or segment by segment: then an escaped slash stays within its segment. Whatever is not an escape stays.
fn decoded(path: &[u8], by_segment: bool) -> Option<Vec<u8>> {
    memchr::memchr(b'%', path)?;
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match (path[at], hex(path.get(at + 1)), hex(path.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                let byte = (high << 4 | low) as u8;
                if by_segment && matches!(byte, b'/' | b'\\') {
                    out.extend_from_slice(&path[at..at + 3]);
                } else {
                    out.push(byte);
                }
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Readings {
        why: String,
        path: Text,
        all: Option<Vec<Text>>,
    }

    #[test]
    fn a_path_is_read_in_all_ways_and_no_others() {
        for case in vectors::read::<Readings>("readings", "readings") {
            let path = case.path.spelt();
            let found = if is_ambiguous(path.as_bytes()) { readings(&path) } else { Some(vec![path]) };
            let wanted: Option<Vec<_>> = case.all.map(|all| all.iter().map(Text::spelt).collect());
            let sorted = |list: &Option<Vec<String>>| {
                let mut rest = list.clone().unwrap_or_default();
                rest.sort_unstable();
                (list.as_ref().and_then(|all| all.first().cloned()), rest)
            };
            assert_eq!((found.is_some(), sorted(&found)), (wanted.is_some(), sorted(&wanted)), "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Among {
        why: String,
        path: String,
        one: String,
    }

    #[test]
    fn steps_are_taken_before_and_after_decoding() {
        for case in vectors::read::<Among>("readings", "among") {
            assert!(readings(&case.path).unwrap().contains(&case.one), "{}", case.why);
        }
    }
}
