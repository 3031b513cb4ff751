//! What holds of our parsers for any bytes: a target for each, run on random token sequences in every run of the tests, and by libFuzzer in
//! `make fuzz` (feature `fuzzing`, crate `fuzz`).

use bytes::{Bytes, BytesMut};

use crate::decision::path_readings::{is_ambiguous, readings};
use crate::decision::target::{Form, as_forwarded, is_safe, parse};
use crate::decision::trace::{format_grpc_trace_bin, format_traceparent, parse_grpc_trace_bin, parse_traceparent};
use crate::http1::body_scan::{Body, Chunks, Piece};
use crate::http1::head_scan::{RequestStart, find_end, scan_request, scan_response};
use crate::http2::frame_filter::{FrameFilter, Side};
use crate::http2::hpack::{Broken, Decoder};
use crate::limits::Limits;

/// A parser's name, and what panics where it does not hold.
pub type Target = (&'static str, fn(&[u8]));

/// Every parser by name.
pub const TARGETS: [Target; 6] =
    [("target", target), ("head", head), ("body", body), ("frames", frames), ("hpack", hpack), ("trace", trace)];

/// What an app is sent on Dapr's surfaces is a fixed point and has no way out of the root; the way that Dapr reads it is judged.
fn target(data: &[u8]) {
    let Ok(found) = parse(data) else { return };
    assert!(data.get(found.query.clone()).is_some() && data.get(found.authority.clone()).is_some());
    let sent = as_forwarded(&found.path, Form::Whole);
    assert!(sent.split('/').all(|segment| segment != ".." && segment != "."), "{sent}");
    assert_eq!(parse(sent.as_bytes()).map(|again| again.path).as_deref(), Ok(&*sent));
    assert_eq!(as_forwarded(&sent, Form::Whole), sent);
    if let Some(read) = readings(&found.path).filter(|_| is_ambiguous(found.path.as_bytes())) {
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        assert_eq!(bare(&read[0]), bare(&found.path));
        assert!(!found.path.bytes().all(is_safe) || read.iter().any(|one| bare(one) == bare(&sent)));
    }
}

/// Where a head ends does not depend on how it is cut, and what is taken of it holds nothing that another parser could read otherwise.
fn head(data: &[u8]) {
    let limits = Limits { head_bytes: 2_048, header_count: 16, ..Limits::default() };
    let whole = find_end(data, 0, &limits);
    let cut = (0..data.len()).find_map(|size| match find_end(&data[..=size], size, &limits) {
        Ok(None) => None,
        found => Some(found.ok().flatten()),
    });
    if let (Ok(Some(end)), Some(Some(met))) = (&whole, cut) {
        assert_eq!(*end, met);
    }
    let Ok(Some(end)) = whole else { return };
    let head = Bytes::copy_from_slice(&data[..end]);
    if let Ok(start) = scan_request(&head, &limits) {
        check_request(&head, &start);
    }
    if let Ok(start) = scan_response(&head, &limits) {
        assert!((100..1_000).contains(&start.status));
    }
}

fn check_request(head: &[u8], start: &RequestStart) {
    assert!(!start.method.is_empty() && !start.target.is_empty());
    assert!(start.target.iter().all(|byte| (0x21..=0x7e).contains(byte)));
    assert!(!(start.fields.chunked && start.fields.length.is_some()), "two ends of one body");
    let (mut written, mut names) = (start.method.to_vec(), 0);
    written.extend_from_slice(b" ");
    written.extend_from_slice(&start.target);
    assert!(head.starts_with(&written));
    for (name, value) in start.fields.headers.iter() {
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name}");
        names += 1;
    }
    assert!(names <= 16);
}

/// A chunked body is the same however it is cut, and refused or not at the same place.
fn body(data: &[u8]) {
    let limits = Limits { head_bytes: 2_048, ..Limits::default() };
    let whole = read_body(data, data.len().max(1), &limits);
    for size in [1, 3, 16] {
        assert_eq!(read_body(data, size, &limits), whole);
    }
}

/// What was read before an end or a refusal, whether it ended, and what was not read; `None` in place of the latter two: refused.
fn read_body(data: &[u8], size: usize, limits: &Limits) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut body, mut held, mut got) = (Body::Chunked(Chunks::default()), BytesMut::new(), Vec::new());
    for (number, piece) in data.chunks(size).enumerate() {
        held.extend_from_slice(piece);
        loop {
            match body.next(&mut held, limits).ok()? {
                Piece::Data(data) => got.extend_from_slice(&data),
                Piece::More => break,
                Piece::End(_) => {
                    let rest = data.get((number + 1) * size..).unwrap_or_default();
                    return Some((got, Some([&held[..], rest].concat())));
                }
            }
        }
    }
    Some((got, None))
}

/// The filter says the same of a connection however its bytes are cut, and hands on no more than twice of what it was fed.
fn frames(data: &[u8]) {
    let limits = Limits { head_bytes: 2_048, header_count: 16, ..Limits::default() };
    for is_server in [true, false] {
        let whole = through_filter(data, data.len().max(1), &limits, is_server);
        for size in [1, 9, 100] {
            assert_eq!(through_filter(data, size, &limits, is_server), whole);
        }
        assert!(whole.0.len() <= 2 * data.len() + 64);
    }
}

fn through_filter(data: &[u8], size: usize, limits: &Limits, is_server: bool) -> (BytesMut, bool) {
    let (filter, mut out) = (FrameFilter::new(limits, Side { is_server, is_own: false }), BytesMut::new());
    data.chunks(size).for_each(|piece| filter.feed(piece, &mut out));
    (out, filter.is_flooded())
}

/// Blocks never make a table grow beyond its limit, and equal blocks read by equal tables are equal.
fn hpack(data: &[u8]) {
    let (mut one, mut other) = (Decoder::default(), Decoder::default());
    for block in data.split(|byte| *byte == 0xff).map(Bytes::copy_from_slice) {
        let (first, second) = (fields(&mut one, &block), fields(&mut other, &block));
        assert_eq!(first, second);
        assert!(one.is_within_limit());
        if first.is_err() {
            return; // and so is the connection
        }
    }
}

fn fields(decoder: &mut Decoder, block: &Bytes) -> Result<Vec<(Bytes, Bytes)>, Broken> {
    let mut found = Vec::new();
    decoder.decode(block, |name, value, _| {
        found.push((name, value));
        Ok::<_, Broken>(())
    })?;
    Ok(found)
}

/// A context that was read is written as it will be read again.
fn trace(data: &[u8]) {
    if let Some(context) = parse_traceparent(data) {
        assert_eq!(parse_traceparent(&format_traceparent(&context)), Some(context));
    }
    if let Some(context) = parse_grpc_trace_bin(data) {
        assert_eq!(parse_grpc_trace_bin(format_grpc_trace_bin(&context).as_bytes()), Some(context));
    }
}

const WORDS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"/",
    b"/a",
    b"..",
    b".",
    b"%2e",
    b"%2F",
    b"%",
    b"?",
    b"#",
    b"*",
    b"http://",
    b"a:80",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 99",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b":",
    b",",
    b";",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, x\r\n",
    b"X-One: a\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n",
    b"1;a=b\r\nx\r\n",
    b"f",
    b"10000000000000000",
    b"-",
    b"+",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x00\x04\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff",
    b"\0\0\x08\x06\0\0\0\0\0pingpong",
    b"\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86",
    b"\0\0\x02\x01\x01\0\0\0\x03\x82\x84",
    b"\0\0\x01\x09\x04\0\0\0\x03\x86",
    b"\0\0\x05\0\x01\0\0\0\x01hello",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x01",
    b"\x82",
    b"\x86\x84",
    b"\x40\x01a\x01b",
    b"\xbe",
    b"\x3f\x03",
    b"\x20",
    b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x00\x01a\x81",
    b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
    b"AABjDLPsH4yDKHzDl3uZ0Q8BAQ",
    b"=",
    b"-00",
    b"\x01\x02\x03",
];

/// Words and bytes at random, some of them long.
pub fn soup(chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut made = Vec::new();
    for _ in 0..chance.usize(1..24) {
        match chance.u8(0..8) {
            0 => made.push(chance.u8(..)),
            1 => made.extend(std::iter::repeat_n(chance.u8(..), chance.usize(..300))),
            _ => made.extend_from_slice(WORDS[chance.usize(..WORDS.len())]),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = 20_000;
    #[test]
    fn parsers_hold_for_any_soup() {
        let seed = fastrand::u64(..);
        for (name, check) in TARGETS {
            let mut chance = fastrand::Rng::with_seed(seed);
            for _ in 0..ROUNDS {
                let data = soup(&mut chance);
                let held = std::panic::catch_unwind(|| check(&data));
                assert!(held.is_ok(), "{name} with {:?}", data.escape_ascii().to_string());
            }
        }
    }
}
