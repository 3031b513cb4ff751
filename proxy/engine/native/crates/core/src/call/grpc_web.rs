//! A call of gRPC-Web to an app that speaks gRPC: to the exchange it is HTTP, to the app's end gRPC. Bodies are the same frames, base64 in
//! the text form; the trailers follow them in a frame of their own. Equal to `portable/grpc_web_call.py`.
//! Source: gRPC-Web (doc/PROTOCOL-WEB.md of grpc/grpc).

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, header};

use crate::call::answers::grpc_code;
use crate::call::cause::Cause;
use crate::call::ends::{Answer, Lost, Part, Up};
use crate::decision::edits;
use crate::fields::Headers;
use crate::head::{Head, Protocol};

const PREFIX: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"-text";
const TRAILERS: u8 = 0x80;
const FRAME_HEAD: usize = 5; // a byte of flags, four of length

/// What a gRPC-Web call is sent as and answered as; `None` if it is not one.
pub fn content_type(head: &Head) -> Option<&HeaderValue> {
    if !matches!(head.protocol, Protocol::Http1 | Protocol::Http2) || &head.method[..] != b"POST" {
        return None;
    }
    let value = head.headers.get(header::CONTENT_TYPE)?;
    let (prefix, rest) = value.as_bytes().split_at_checked(PREFIX.len())?;
    let rest = if starts(rest, TEXT) { &rest[TEXT.len()..] } else { rest };
    (prefix.eq_ignore_ascii_case(PREFIX) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))).then_some(value)
}

fn starts(data: &[u8], with: &[u8]) -> bool {
    data.get(..with.len()).is_some_and(|some| some.eq_ignore_ascii_case(with))
}

/// Whether bodies of such a type are base64.
fn is_text(sent_as: &HeaderValue) -> bool {
    starts(&sent_as.as_bytes()[PREFIX.len()..], TEXT)
}

/// The same type of gRPC's.
pub fn as_grpc(sent_as: &HeaderValue) -> HeaderValue {
    let essence = sent_as.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let suffix = essence.iter().position(|byte| *byte == b'+').map_or(&b""[..], |at| &essence[at..]);
    HeaderValue::from_bytes(&[b"application/grpc", suffix].concat()).unwrap_or(HeaderValue::from_static("application/grpc"))
}

/// The end of an answer, as the last frame of its body.
pub fn trailer_frame(trailers: &Headers, sent_as: &HeaderValue) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_slice(&[TRAILERS, 0, 0, 0, 0]);
    for (name, value) in trailers.iter() {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b": ");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    let length = u32::try_from(frame.len() - FRAME_HEAD).unwrap_or_default(); // heads are bounded far below
    frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
    if is_text(sent_as) { STANDARD.encode(&frame).into() } else { frame.freeze() }
}

/// How far bytes went that leave in another length than they came in: credit is given back in the length that they came in.
#[derive(Debug, Default)]
struct Passed {
    read: u64,
    given: u64,
    taken: u64,
    told: u64,
}

impl Passed {
    /// So many of what was given were taken; how many of what was read that makes now. `ratio`: of the latter to the former.
    fn taken(&mut self, count: usize, (read, given): (u64, u64)) -> usize {
        self.taken += count as u64;
        let due = if self.taken >= self.given { self.read } else { (self.taken * read / given).min(self.read) };
        let fresh = due.saturating_sub(self.told);
        self.told += fresh;
        usize::try_from(fresh).unwrap_or(usize::MAX)
    }
}

/// How far the answer of a call is. `between`: it has begun, and stands between two messages; `code`: how it ended.
#[derive(Debug, Default)]
pub struct Progress {
    pub between: Cell<bool>,
    pub code: Cell<Option<u32>>,
}

/// The app's end.
pub struct WebUp {
    up: Up,
    sent_as: HeaderValue,
    is_text: bool,
    is_broken: bool,
    rest: BytesMut,
    is_web: bool,
    last: Option<Bytes>,
    ended: bool,
    down: Passed,
    message_left: usize,
    frame_head: Vec<u8>,
    progress: Rc<Progress>,
}

impl WebUp {
    /// Translate between the exchange and the app's end.
    pub fn new(up: Up, sent_as: HeaderValue, progress: Rc<Progress>) -> Self {
        let is_text = is_text(&sent_as);
        Self {
            up,
            sent_as,
            is_text,
            is_broken: false,
            rest: BytesMut::new(),
            is_web: false,
            last: None,
            ended: false,
            down: Passed::default(),
            message_left: 0,
            frame_head: Vec::new(),
            progress,
        }
    }

    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Lost>> {
        self.up.poll_room(cx, want) // what is decoded is never longer
    }

    pub fn send(&mut self, data: Bytes, last: bool) {
        if !self.is_text {
            return self.up.send(data, last);
        }
        self.rest.extend_from_slice(&data);
        let whole = self.rest.len() / 4 * 4;
        let decoded = decode(&self.rest.split_to(whole));
        self.is_broken |= decoded.is_none() || (last && !self.rest.is_empty());
        let decoded = decoded.unwrap_or_default();
        if !self.is_broken && (last || !decoded.is_empty()) {
            self.up.send(decoded, last);
        }
    }

    pub fn finish(&mut self, trailers: Option<Headers>) {
        self.is_broken |= !self.rest.is_empty();
        if !self.is_broken {
            self.up.finish(trailers);
        }
    }

    fn check(&self) -> Result<(), Lost> {
        if !self.is_broken {
            return Ok(());
        }
        Err(Lost::new(Cause::BadRequest, "the body of the gRPC-Web call is not base64"))
    }

    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Lost>> {
        self.check()?;
        let polled = self.up.poll_head(cx);
        let Poll::Ready(Ok(Answer::Head { status, mut headers, end })) = polled else { return polled };
        let kind = headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        self.is_web = status == 200 && kind; // else it is passed on as it is
        if !self.is_web {
            return Poll::Ready(Ok(Answer::Head { status, headers, end }));
        }
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        if end {
            self.end(Some(std::mem::replace(&mut headers, Headers::new()))); // all of a Trailers-Only answer is trailers
        } else {
            self.progress.between.set(true);
        }
        headers.append(header::CONTENT_TYPE, self.sent_as.clone());
        Poll::Ready(Ok(Answer::Head { status, headers, end: false }))
    }

    fn end(&mut self, trailers: Option<Headers>) {
        self.progress.code.set(trailers.as_ref().and_then(grpc_code));
        let mut kept = trailers.and_then(|trailers| edits::trailers(None, trailers)).unwrap_or_default();
        kept.retain(|name| !name.as_str().starts_with("postern-"));
        self.last = Some(trailer_frame(&kept, &self.sent_as));
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Lost>> {
        self.check()?;
        if self.ended {
            return Poll::Ready(Ok(Part::End(None)));
        }
        if self.last.is_none() {
            match self.up.poll_body(cx) {
                Poll::Ready(Ok(Part::Data(data))) => {
                    self.down.read += data.len() as u64;
                    let data = if self.is_web { self.passed_on(data) } else { data };
                    self.down.given += data.len() as u64;
                    return Poll::Ready(Ok(Part::Data(data)));
                }
                Poll::Ready(Ok(Part::End(trailers))) if self.is_web => self.end(trailers),
                polled => return polled,
            }
        }
        self.ended = true;
        Poll::Ready(Ok(Part::Data(self.last.take().unwrap_or_default())))
    }

    pub fn is_read(&self) -> bool {
        self.ended || (!self.is_web && self.up.is_read())
    }

    pub fn release(&mut self, count: usize) {
        let ratio = if self.is_text && self.is_web { (3, 4) } else { (1, 1) };
        let due = self.down.taken(count, ratio);
        if due > 0 {
            self.up.release(due);
        }
    }

    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        match self.check() {
            Err(lost) => Poll::Ready(lost),
            Ok(()) => self.up.poll_drive(cx),
        }
    }

    fn passed_on(&mut self, data: Bytes) -> Bytes {
        let mut left = &data[..];
        while !left.is_empty() {
            let step = if self.message_left > 0 {
                let step = self.message_left.min(left.len());
                self.message_left -= step;
                step
            } else {
                let step = (FRAME_HEAD - self.frame_head.len()).min(left.len());
                self.frame_head.extend_from_slice(&left[..step]);
                if let Some((_, length)) = self.frame_head.first_chunk::<FRAME_HEAD>().and_then(|head| head.split_first()) {
                    self.message_left = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                    self.frame_head.clear();
                }
                step
            };
            left = &left[step..];
        }
        self.progress.between.set(self.message_left == 0 && self.frame_head.is_empty());
        if self.is_text { STANDARD.encode(&data).into() } else { data }
    }
}

/// Whole groups of four; padded ones may stand between others, as each message is encoded by itself.
fn decode(data: &[u8]) -> Option<Bytes> {
    let most = data.len().saturating_sub(2);
    if !data[..most].contains(&b'=') {
        return STANDARD.decode(data).ok().map(Bytes::from);
    }
    let groups = data.chunks(4).map(|group| STANDARD.decode(group).ok());
    groups.collect::<Option<Vec<_>>>().map(|groups| groups.concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_may_be_padded_anywhere() {
        assert_eq!(decode(b"aA==aGk=aGhp").unwrap(), "hhihhi");
        assert_eq!(decode(b"").unwrap(), "");
        assert!(decode(b"a===").is_none() && decode(b"!!!!").is_none() && decode(b"=aaaaaaa").is_none());
    }

    #[test]
    fn types_keep_their_suffix() {
        for (sent_as, grpc) in [
            ("application/grpc-web", "application/grpc"),
            ("application/grpc-web-text+proto", "application/grpc+proto"),
            ("application/grpc-web+json; charset=utf-8", "application/grpc+json"),
        ] {
            assert_eq!(as_grpc(&HeaderValue::from_static(sent_as)), grpc);
        }
    }

    #[test]
    fn credit_is_given_back_in_what_was_read() {
        let mut passed = Passed { read: 5, given: 8, ..Passed::default() };
        let told: Vec<_> = [4, 3, 1, 0].into_iter().map(|count| passed.taken(count, (3, 4))).collect();
        assert_eq!(told, [3, 2, 0, 0]);
    }
}
