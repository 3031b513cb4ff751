//! Takes header blocks out of an HTTP/2 byte stream, checks them, keeps what they hold by stream, and writes in their place blocks
//! that tell `h2` no more than it needs: that there is a head, its status and length, or that it is malformed.
//! Source: RFC 9113 §4.3, §8.1 to 8.3.

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};

use crate::fields::{Headers, is_of_connections};
use crate::http1::head_scan::is_authority;
use crate::http2::frames::{END_HEADERS, END_STREAM, HEADERS, Header, PADDED, PRIORITIZED};
use crate::http2::hpack::{Broken, Decoder};
use crate::limits::Limits;

/// A list this many times as large as announced is no mistake: frames alone can't hold it, only fields that are named again and again.
const BOMB: usize = 16;
const ENTRY_BYTES: usize = 32; // what each field counts beyond its bytes (RFC 9113 §6.5.2)
const SOME_FIELD: u8 = 0x90; // `accept-encoding` of the static table (RFC 7541, Appendix A), which costs nothing to read

/// A header block.
#[derive(Debug, Default)]
pub struct Block {
    pub method: Option<Bytes>,
    pub scheme: Option<Bytes>,
    pub authority: Option<Bytes>,
    pub path: Option<Bytes>,
    pub protocol: Option<Bytes>,
    pub status: Option<u16>,
    pub headers: Headers,
    /// Fields, pseudo ones included.
    pub count: usize,
    /// Larger than announced: not all of it is here.
    pub is_over: bool,
    size: usize,
    malformed: bool,
}

impl Block {
    /// A request that came over HTTP/1.1; `headers` are those that HTTP/2 has.
    pub fn of_request(method: Bytes, authority: Bytes, path: Bytes, headers: Headers) -> Self {
        let scheme = Bytes::from_static(b"http");
        Self {
            count: headers.len() + 4,
            method: Some(method),
            scheme: Some(scheme),
            authority: Some(authority),
            path: Some(path),
            headers,
            ..Self::default()
        }
    }

    fn put(&mut self, name: &Bytes, value: Bytes, once: bool, most: usize) -> Result<(), Fault> {
        self.count += 1;
        self.size += name.len() + value.len() + ENTRY_BYTES;
        if self.size > most * BOMB {
            return Err(Fault::Bomb);
        }
        if self.size > most {
            self.is_over = true;
        } else if self.put_one(name, value, once).is_none() {
            self.malformed = true;
        }
        Ok(())
    }

    /// `None`: what no message may hold.
    fn put_one(&mut self, name: &Bytes, value: Bytes, once: bool) -> Option<()> {
        if name.first() == Some(&b':') {
            if !self.headers.is_empty() {
                return None;
            }
            let place = match &name[..] {
                b":method" => &mut self.method,
                b":scheme" => &mut self.scheme,
                b":authority" => &mut self.authority,
                b":path" => &mut self.path,
                b":protocol" => &mut self.protocol,
                b":status" if self.status.is_none() => {
                    let digits = std::str::from_utf8(&value).ok().filter(|text| text.len() == 3)?;
                    self.status = Some(digits.parse().ok().filter(|status| *status >= 100)?);
                    return Some(());
                }
                _ => return None,
            };
            return place.replace(value).is_none().then_some(());
        }
        let name = HeaderName::from_lowercase(name).ok()?;
        if is_of_connections(&name) || (name == header::TE && value != "trailers") {
            return None;
        }
        // As over HTTP/1.1: equal or not, the next parser may take the other one.
        if name == header::CONTENT_LENGTH && self.headers.contains_key(&name) {
            return None;
        }
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if blank(value.first()) || blank(value.last()) {
            return None;
        }
        let mut value = HeaderValue::from_maybe_shared(value).ok()?;
        value.set_sensitive(once); // it goes on as it came (RFC 7541 §6.2.3)
        self.headers.append(name, value);
        Some(())
    }

    fn has_pseudo(&self) -> bool {
        self.status.is_some()
            || [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol].iter().any(|field| field.is_some())
    }

    fn is_request(&self) -> bool {
        let Some(method) = &self.method else { return false };
        let tunnel = &method[..] == b"CONNECT" && self.protocol.is_none();
        let names = match (&self.scheme, &self.path) {
            (None, None) => tunnel && self.authority.is_some(),
            (Some(scheme), Some(path)) => !tunnel && !path.is_empty() && is_scheme(scheme),
            _ => false,
        };
        names
            && self.status.is_none()
            && (self.protocol.is_none() || &method[..] == b"CONNECT")
            && http::Method::from_bytes(method).is_ok()
            && self.authority.as_ref().is_none_or(|authority| is_authority(authority))
    }

    fn is_response(&self) -> bool {
        self.status.is_some()
            && self.status != Some(101) // HTTP/2 has none (RFC 9113 §8.6)
            && [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol].iter().all(|field| field.is_none())
    }
}

/// RFC 3986 §3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    let is_more = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_more)
}

/// A stream whose call still reads. `headed`: its final head came. `ended`: so did its end, as far as we are told.
#[derive(Debug, Default)]
struct Reading {
    headed: bool,
    ended: bool,
    blocks: VecDeque<Block>,
}

/// One direction of one connection. Mutable state: the block that has not ended, what was read and not fetched.
#[derive(Debug)]
pub struct HeadBlocks {
    is_server: bool,
    most: usize,
    most_fresh: usize,
    decoder: Decoder,
    held: BytesMut,
    stream: u32,
    flags: u8,
    last: u32,
    /// Requests that nobody accepted yet, in order.
    fresh: VecDeque<(u32, Reading)>,
    open: HashMap<u32, Reading, foldhash::fast::RandomState>,
}

/// Why a connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Compression,
    Frame,
    /// A header block after the end of its stream.
    Closed,
    /// More requests than the peer may have open wait to be refused.
    Fresh,
    /// A small block that unpacks into a huge one.
    Bomb,
}

impl From<Broken> for Fault {
    fn from(_: Broken) -> Self {
        Self::Compression
    }
}

impl HeadBlocks {
    /// Nothing read yet. `is_server`: whether requests come in.
    pub fn new(limits: &Limits, is_server: bool) -> Self {
        Self {
            is_server,
            most: limits.head_bytes,
            most_fresh: limits.streams as usize * 2,
            decoder: Decoder::default(),
            held: BytesMut::new(),
            stream: 0,
            flags: 0,
            last: 0,
            fresh: VecDeque::new(),
            open: HashMap::default(),
        }
    }

    /// Whether a block has begun that has not ended.
    pub fn is_within(&self) -> bool {
        self.stream != 0
    }

    /// Whether no call reads, nor waits to be accepted.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.fresh.is_empty() && !self.is_within()
    }

    /// The last stream that the peer began.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// A HEADERS frame begins, or a CONTINUATION.
    pub fn begin(&mut self, kind: u8, flags: u8, stream: u32) -> Result<(), Fault> {
        if kind == HEADERS {
            if self.is_within() || stream == 0 {
                return Err(Fault::Frame);
            }
            (self.stream, self.flags) = (stream, flags);
        } else if !self.is_within() || self.stream != stream {
            return Err(Fault::Frame);
        } else {
            self.flags |= flags & END_HEADERS;
        }
        Ok(())
    }

    /// A whole payload; what stands for a block that ended goes to `out`.
    pub fn payload(&mut self, kind: u8, data: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        let mut data = data;
        if kind == HEADERS {
            if self.flags & PADDED != 0 {
                let (&padding, rest) = data.split_first().ok_or(Fault::Frame)?;
                data = rest.get(..rest.len().checked_sub(usize::from(padding)).ok_or(Fault::Frame)?).ok_or(Fault::Frame)?;
            }
            if self.flags & PRIORITIZED != 0 {
                let (priority, rest) = data.split_at_checked(5).ok_or(Fault::Frame)?;
                let depends = u32::from_be_bytes([priority[0] & 0x7f, priority[1], priority[2], priority[3]]);
                if depends == self.stream {
                    return Err(Fault::Frame);
                }
                data = rest;
            }
        }
        self.held.extend_from_slice(data);
        if self.flags & END_HEADERS == 0 {
            return Ok(());
        }
        let block = self.held.split().freeze();
        let (stream, flags) = (std::mem::take(&mut self.stream), self.flags & (END_STREAM | END_HEADERS));
        let mut found = Block { headers: Headers::with_capacity(8), ..Block::default() };
        self.decoder.decode(&block, |name, value, once| found.put(&name, value, once, self.most))?;
        self.stand_in(stream, flags, found, out)
    }

    /// The request of an upgrade is stream 1 (RFC 7540 §3.2); what stands for it goes to `out`.
    pub fn upgrade(&mut self, request: Block, out: &mut BytesMut) -> Result<(), Fault> {
        self.stand_in(1, END_STREAM | END_HEADERS, request, out)
    }

    /// Keep a block, and write the frame that stands for it.
    fn stand_in(&mut self, stream: u32, flags: u8, found: Block, out: &mut BytesMut) -> Result<(), Fault> {
        let at = out.len();
        Header { length: 0, kind: HEADERS, flags, stream }.put(out);
        let from = out.len();
        self.judge(stream, flags, found, out).inspect_err(|_| out.truncate(at))?;
        let length = (out.len() - from) as u16;
        out[at + 1..at + 3].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Keep a block, and write what stands for its fields.
    fn judge(&mut self, stream: u32, flags: u8, mut block: Block, out: &mut BytesMut) -> Result<(), Fault> {
        let is_fresh = self.is_server && stream > self.last;
        if is_fresh {
            self.last = stream;
            if self.fresh.len() >= self.most_fresh {
                return Err(Fault::Fresh);
            }
            self.fresh.push_back((stream, Reading::default()));
        }
        let fresh = self.fresh.iter_mut().rev().find(|(known, _)| *known == stream).map(|(_, reading)| reading);
        let Some(reading) = fresh.or_else(|| self.open.get_mut(&stream)) else {
            out.put_u8(SOME_FIELD); // of a call that is over: `h2` knows what to do about it
            return Ok(());
        };
        if reading.ended {
            return Err(Fault::Closed);
        }
        let is_trailer = reading.headed;
        if !self.is_server && !is_trailer && flags & END_STREAM != 0 && block.status.is_some_and(|status| status < 200) {
            block.status = None; // as it ends, it is the final answer, which has no such status
        }
        let sound = match (is_trailer, self.is_server) {
            _ if block.is_over => !is_trailer,
            (true, _) => !block.has_pseudo(),
            (false, true) => block.is_request(),
            (false, false) => block.is_response(),
        };
        block.malformed |= !sound;
        match (is_trailer, self.is_server) {
            (true, _) => {}
            (false, true) => out.put_slice(&[0x82, 0x86, 0x84]), // GET http /
            (false, false) => put_status(out, block.status.unwrap_or(200)),
        }
        if block.malformed && (is_trailer || !block.is_over) {
            put_field(out, b"connection", b"x");
        } else if is_trailer {
            out.put_u8(SOME_FIELD);
        }
        if let Some(length) = block.headers.get(header::CONTENT_LENGTH).filter(|_| !is_trailer) {
            put_field(out, b"content-length", length.as_bytes().get(..100).unwrap_or(length.as_bytes()));
        }
        reading.ended |= flags & END_STREAM != 0;
        reading.headed = self.is_server || block.status.is_none_or(|status| status >= 200);
        reading.blocks.push_back(block);
        Ok(())
    }

    /// The head of a request that `h2` gave out; those before it never will be.
    pub fn accept(&mut self, stream: u32) -> Option<Block> {
        while self.fresh.front().is_some_and(|(known, _)| *known < stream) {
            self.fresh.pop_front();
        }
        if self.fresh.front().is_none_or(|(known, _)| *known != stream) {
            return None;
        }
        let (_, mut reading) = self.fresh.pop_front()?;
        let block = reading.blocks.pop_front();
        self.open.insert(stream, reading);
        block
    }

    /// The peer resets a stream. A request that nobody accepted yet never becomes a call; of others nothing more may come (RFC 9113 §5.1).
    pub fn cancel(&mut self, stream: u32) {
        if let Some(at) = self.fresh.iter().rposition(|(known, _)| *known == stream) {
            self.fresh.remove(at);
        } else if let Some(reading) = self.open.get_mut(&stream).filter(|_| self.is_server) {
            reading.ended = true;
        }
    }

    /// A call of ours begins.
    pub fn expect(&mut self, stream: u32) {
        self.open.insert(stream, Reading::default());
    }

    /// The last of a call's body comes.
    pub fn end(&mut self, stream: u32) {
        let fresh = self.fresh.iter_mut().rev().find(|(known, _)| *known == stream).map(|(_, reading)| reading);
        if let Some(reading) = fresh.or_else(|| self.open.get_mut(&stream)) {
            reading.ended = true;
        }
    }

    /// Some of an answer's body comes. Before its head, `h2` is told of a malformed one: it would end the connection for the body.
    pub fn body(&mut self, stream: u32, out: &mut BytesMut) {
        let Some(reading) = self.open.get_mut(&stream).filter(|reading| !reading.headed) else { return };
        reading.headed = true;
        let mut block = BytesMut::new();
        put_status(&mut block, 200);
        put_field(&mut block, b"connection", b"x");
        Header { length: block.len(), kind: HEADERS, flags: END_HEADERS, stream }.put(out);
        out.extend_from_slice(&block);
    }

    /// Whether a call's end came.
    pub fn has_ended(&self, stream: u32) -> bool {
        self.open.get(&stream).is_some_and(|reading| reading.ended)
    }

    /// The next block of a stream: a response head, or trailers.
    pub fn next(&mut self, stream: u32) -> Option<Block> {
        self.open.get_mut(&stream)?.blocks.pop_front()
    }

    /// A call is over.
    pub fn forget(&mut self, stream: u32) {
        self.open.remove(&stream);
    }
}

/// A field that no table remembers (RFC 7541 §6.2.2). Names and values are shorter than 127 bytes.
fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_u8(0x00);
    out.put_u8(name.len() as u8);
    out.put_slice(name);
    out.put_u8(value.len() as u8);
    out.put_slice(value);
}

fn put_status(out: &mut BytesMut, status: u16) {
    if status == 200 {
        out.put_u8(0x88);
    } else {
        out.put_slice(&[0x08, 3]);
        out.put_slice(format!("{status:03}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(out: &mut BytesMut, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            put_field(out, name.as_bytes(), value.as_bytes());
        }
    }

    /// One block, whole; what stands for it, without the frame's header.
    fn read(blocks: &mut HeadBlocks, stream: u32, fields: &[(&str, &str)]) -> Bytes {
        let (mut block, mut out) = (BytesMut::new(), BytesMut::new());
        literal(&mut block, fields);
        blocks.begin(HEADERS, END_HEADERS, stream).unwrap();
        blocks.payload(HEADERS, &block, &mut out).unwrap();
        out.freeze().slice(9..)
    }

    const REQUEST: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "x#y"), (":authority", "a")];

    #[test]
    fn what_h2_reads_holds_no_target_and_no_field() {
        let mut blocks = HeadBlocks::new(&Limits::default(), true);
        let fields = [&REQUEST[..], &[("b", "1"), ("a", "2"), ("b", "3")]].concat();
        assert_eq!(&read(&mut blocks, 1, &fields)[..], [0x82, 0x86, 0x84]);
        assert_eq!(&read(&mut blocks, 1, &[("sum", "9")])[..], [SOME_FIELD]);
        let head = blocks.accept(1).unwrap();
        assert_eq!(head.path.unwrap(), "x#y");
        let names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, head.count), (vec!["b", "a", "b"], 7));
        blocks.begin(HEADERS, END_HEADERS, 3).unwrap();
        blocks.payload(HEADERS, &[0x82, 0x86, 0x84, 0x10, 1, b'a', 1, b'1', 0, 1, b'b', 1, b'2'], &mut BytesMut::new()).unwrap();
        let marked: Vec<_> = blocks.accept(3).unwrap().headers.iter().map(|(_, value)| value.is_sensitive()).collect();
        assert_eq!(marked, [true, false], "what may enter no table is known by it");
        assert_eq!(blocks.next(1).unwrap().headers.len(), 1);
        blocks.forget(1);
        assert!(blocks.next(1).is_none());
    }

    #[test]
    fn malformed_requests_are_told_so_to_h2() {
        let without = |name: &str| REQUEST.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
        for (at, fields) in [
            without(":method"),
            without(":scheme"),
            without(":path"),
            [&REQUEST[..], &[(":path", "/")]].concat(),
            [&REQUEST[..], &[("a", "1"), (":protocol", "x")]].concat(),
            [&REQUEST[..], &[(":status", "200")]].concat(),
            [&REQUEST[..], &[(":other", "1")]].concat(),
            [&REQUEST[..], &[("Upper", "1")]].concat(),
            [&REQUEST[..], &[("a b", "1")]].concat(),
            [&REQUEST[..], &[("a", " 1")]].concat(),
            [&REQUEST[..], &[("a", "1\n2")]].concat(),
            [&REQUEST[..], &[("te", "gzip")]].concat(),
            [&REQUEST[..], &[("keep-alive", "1")]].concat(),
        ]
        .into_iter()
        .enumerate()
        {
            let stand_in = read(&mut HeadBlocks::new(&Limits::default(), true), 1, &fields);
            assert!(memchr::memmem::find(&stand_in, b"connection").is_some(), "{at}");
        }
    }

    #[test]
    fn lengths_named_again_and_again_are_not_written_as_often() {
        let mut fields = REQUEST.to_vec();
        fields.extend(std::iter::repeat_n(("content-length", "5"), 1_000));
        let out = read(&mut HeadBlocks::new(&Limits::default(), true), 1, &fields);
        assert!(out.len() < 64, "{}", out.len());
    }

    #[test]
    fn refused_requests_are_forgotten_and_bounded() {
        let mut blocks = HeadBlocks::new(&Limits { streams: 2, ..Limits::default() }, true);
        for stream in [1, 3, 5] {
            read(&mut blocks, stream, &REQUEST);
        }
        assert!(blocks.accept(5).is_some() && blocks.fresh.is_empty() && blocks.accept(1).is_none());
        for stream in [7, 9, 11, 13] {
            read(&mut blocks, stream, &REQUEST);
        }
        blocks.begin(HEADERS, END_HEADERS, 15).unwrap();
        assert_eq!(blocks.payload(HEADERS, &[], &mut BytesMut::new()), Err(Fault::Fresh));
    }

    #[test]
    fn lists_beyond_the_limit_are_told_and_bombs_end_the_connection() {
        let mut blocks = HeadBlocks::new(&Limits { head_bytes: 500, ..Limits::default() }, true);
        let large = "y".repeat(100);
        read(&mut blocks, 1, &[&REQUEST[..], &[("a", large.as_str()); 10]].concat());
        assert!(blocks.accept(1).unwrap().is_over);
        let bomb = [&b"\x82\x40\x01a\x7f\x00"[..], &[b'b'; 127], &[0xbe; 100]].concat();
        blocks.begin(HEADERS, END_HEADERS, 3).unwrap();
        assert_eq!(blocks.payload(HEADERS, &bomb, &mut BytesMut::new()), Err(Fault::Bomb));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        fastrand::seed(7);
        for _ in 0..20_000 {
            let mut blocks = HeadBlocks::new(&Limits::default(), fastrand::bool());
            for _ in 0..4 {
                let data: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(fastrand::usize(..40)).collect();
                let (kind, flags) = (HEADERS + 8 * fastrand::u8(..2), fastrand::u8(..));
                if blocks.begin(kind, flags, fastrand::u32(1..4)).is_err() {
                    break;
                }
                if blocks.payload(kind, &data, &mut BytesMut::new()).is_err() {
                    break;
                }
            }
        }
    }
}
