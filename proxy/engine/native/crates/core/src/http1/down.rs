//! One call on a caller's HTTP/1.1 connection: its request read, its answer framed.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};

use crate::call::cause::Cause;
use crate::call::ends::{Gone, Part};
use crate::connection::io::Io;
use crate::connection::leaving::Leaving;
use crate::fields::{DECLINED, Headers, UPGRADE};
use crate::head::{Framing, Protocol, RawHead};
use crate::http1::body_scan::{Body, Chunks, Piece};
use crate::http1::head_scan::{Refusal, RequestStart};
use crate::http1::out::{Out, ROOM};
use crate::http1::websocket::{accept_of, offered_key, strip_handshake};
use crate::shared::Shared;

/// What became of the response. `Cut(true)`: only a reset tells the caller that it is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Head,
    All,
    Cut(bool),
}

/// What one call needs to know of itself.
#[derive(Debug)]
pub struct Turn {
    pub body: Body,
    pub body_ended: bool,
    pub broken: Option<Refusal>,
    pub said: Said,
    is_connect: bool,
    minor: u8,
    key: Option<Bytes>,
    pub tunnel: bool,
    chunked: bool,
    pub delimited: bool,
    mute: bool,
    pub close: bool,
    waits_for_100: bool,
}

/// One connection and the call on it.
pub struct Conn {
    shared: Rc<Shared>,
    pub io: Io,
    pub held: BytesMut,
    pub out: Out,
    pub eof: bool,
    pub leaving: Rc<Leaving>,
    pub turn: Turn,
}

/// The exchange's hold on a connection during one call.
pub struct H1Down {
    pub conn: Rc<RefCell<Conn>>,
}

/// The phrase of a status.
pub fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

impl Turn {
    fn new(minor: u8, is_connect: bool) -> Self {
        Self {
            body: Body::Empty,
            body_ended: true,
            broken: None,
            said: Said::Nothing,
            is_connect,
            minor,
            key: None,
            tunnel: false,
            chunked: false,
            delimited: false,
            mute: false,
            close: false,
            waits_for_100: false,
        }
    }
}

impl Conn {
    pub fn new(shared: Rc<Shared>, io: Io, leaving: Rc<Leaving>) -> Self {
        let (held, out) = (BytesMut::new(), Out::default());
        Self { shared, io, held, out, eof: false, leaving, turn: Turn::new(0, false) }
    }

    pub fn leaving_asked(&self) -> bool {
        self.leaving.is_asked(&Context::from_waker(std::task::Waker::noop()))
    }

    pub fn begin(&mut self, mut start: RequestStart) -> RawHead {
        let key = offered_key(&start);
        let mut turn = Turn::new(start.minor, &start.method[..] == b"CONNECT");
        turn.mute = &start.method[..] == b"HEAD";
        let closes = start.fields.has_option(b"close");
        turn.close = closes || (start.minor == 0);
        turn.waits_for_100 =
            start.fields.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        turn.body = match start.fields.length {
            _ if start.fields.chunked => Body::Chunked(Chunks::default()),
            Some(length) if length > 0 => Body::Length(length),
            _ => Body::Empty,
        };
        turn.body_ended = matches!(turn.body, Body::Empty);
        start.fields.strip_hop();
        let mut headers = start.fields.headers;
        if key.is_some() {
            strip_handshake(&mut headers);
            turn.body_ended = false;
        }
        let (framing, length) = match (&key, start.fields.chunked, start.fields.length) {
            (Some(_), _, _) | (_, true, _) => (Framing::Stream, None),
            (None, false, None) => (Framing::None, Some(0)),
            (None, false, length) => (Framing::Length, length),
        };
        let protocol = if key.is_some() { Protocol::Websocket } else { Protocol::Http1 };
        turn.key = key;
        self.turn = turn;
        RawHead { protocol, method: start.method, authority: start.host, target: start.target, headers, framing, length }
    }

    /// Whether the response is the last on this connection, as far as is known when its head leaves.
    fn must_close(&self) -> bool {
        let turn = &self.turn;
        // A caller that waits for a 100 may send the body or leave it out: the next bytes have no sure meaning.
        turn.close || turn.is_connect || self.leaving_asked() || (!turn.body_ended && turn.waits_for_100)
    }

    fn put_head(&mut self, status: u16, headers: &Headers) {
        self.out.put(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
        self.out.put_fields(headers);
        self.out.put(b"\r\n");
    }

    /// The end of the response; only a chunked one can carry trailers.
    fn end(&mut self, trailers: Option<&Headers>) {
        self.turn.said = Said::All;
        if self.turn.chunked {
            self.out.put(b"0\r\n");
            if let Some(trailers) = trailers {
                self.out.put_fields(trailers);
            }
            self.out.put(b"\r\n");
        }
    }
}

fn left(detail: &str) -> Gone {
    Gone(detail.to_owned())
}

impl H1Down {
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Gone>> {
        let this = &mut *self.conn.borrow_mut();
        loop {
            if this.turn.tunnel {
                if !this.held.is_empty() {
                    return Poll::Ready(Ok(Part::Data(this.held.split().freeze())));
                }
                if this.eof {
                    this.turn.body_ended = true;
                    return Poll::Ready(Ok(Part::End(None)));
                }
            } else if this.turn.key.is_some() {
                return Poll::Pending; // the offer stands; `poll_gone` watches
            } else {
                match this.turn.body.next(&mut this.held, &this.shared.limits) {
                    Ok(Piece::Data(data)) => {
                        this.turn.waits_for_100 = false;
                        this.turn.body_ended = this.turn.body.is_read();
                        return Poll::Ready(Ok(Part::Data(data)));
                    }
                    Ok(Piece::End(trailers)) => {
                        this.turn.body_ended = true;
                        return Poll::Ready(Ok(Part::End(trailers)));
                    }
                    Ok(Piece::More) if this.eof => return Poll::Ready(Err(left("the caller closed the connection"))),
                    Ok(Piece::More) => {}
                    Err(refusal) => {
                        let text = refusal.text.to_string();
                        this.shared.refused(refusal.kind);
                        this.turn.broken = Some(refusal);
                        return Poll::Ready(Err(Gone(text)));
                    }
                }
            }
            match this.io.poll_fill(cx, &mut this.held) {
                Poll::Ready(Ok(0)) => this.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(left(&format!("the connection to the caller was lost: {error}"))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.conn.borrow().turn.body_ended
    }

    #[allow(clippy::unused_self)] // reading goes on when the body is polled again: nothing is owed
    pub(crate) fn release(&mut self, _count: usize) {}

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let this = &mut *self.conn.borrow_mut();
        if let Poll::Ready(Err(error)) = this.out.poll_write(cx, &mut this.io) {
            return Poll::Ready(left(&format!("the connection to the caller was lost: {error}")));
        }
        let most = if this.turn.body_ended { this.shared.limits.head_bytes } else { ROOM };
        while !this.turn.tunnel && !this.eof && this.held.len() < most {
            match this.io.poll_fill(cx, &mut this.held) {
                Poll::Ready(Ok(0)) => this.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(left(&format!("the connection to the caller was lost: {error}"))),
                Poll::Pending => return Poll::Pending,
            }
        }
        // A caller that closes has hung up, except in a tunnel, which has two directions.
        if this.eof && !this.turn.tunnel { Poll::Ready(left("the caller closed the connection")) } else { Poll::Pending }
    }

    pub(crate) fn inform(&mut self, status: u16, headers: Headers) {
        let this = &mut *self.conn.borrow_mut();
        if this.turn.minor > 0 && this.turn.said == Said::Nothing {
            this.turn.waits_for_100 = false;
            this.put_head(status, &headers);
        }
    }

    pub(crate) fn respond(&mut self, mut status: u16, mut headers: Headers, end: bool) {
        let this = &mut *self.conn.borrow_mut();
        this.turn.said = Said::Head;
        if let (Some(key), 200, false) = (&this.turn.key, status, end) {
            this.turn.tunnel = true;
            let accept = accept_of(key);
            strip_handshake(&mut headers);
            headers.remove(header::CONTENT_LENGTH);
            this.out
                .put(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
            this.out.put(accept.as_bytes());
            this.out.put(b"\r\n");
            this.out.put_fields(&headers);
            this.out.put(b"\r\n");
            return;
        }
        if let Some(upgrade) = if status == 426 { headers.remove(UPGRADE) } else { None } {
            headers.append(header::UPGRADE, upgrade);
            headers.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if status == 501 && this.turn.key.is_some() {
            let told = headers.get(&DECLINED).and_then(|value| value.to_str().ok()?.parse().ok());
            if let Some(declined) = told.filter(|status| (200..300).contains(status)) {
                headers.remove(&DECLINED);
                status = declined;
            }
        }
        let bodiless = status == 204 || status == 304;
        if status == 204 {
            headers.remove(header::CONTENT_LENGTH);
        }
        let sized = headers.contains_key(header::CONTENT_LENGTH);
        if end && !sized && !bodiless && !this.turn.mute {
            headers.insert(header::CONTENT_LENGTH, 0.into());
        } else if !sized && !bodiless {
            this.turn.chunked = this.turn.minor > 0 && !this.turn.mute;
            this.turn.delimited = this.turn.minor == 0;
        }
        this.turn.mute = this.turn.mute || bodiless;
        this.turn.close = this.must_close() || this.turn.delimited;
        if this.turn.chunked {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if this.turn.close {
            headers.append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        this.put_head(status, &headers);
        if end {
            this.end(None);
        }
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>> {
        let this = &mut *self.conn.borrow_mut();
        if this.out.len() >= ROOM {
            if let Poll::Ready(Err(error)) = this.out.poll_write(cx, &mut this.io) {
                return Poll::Ready(Err(left(&format!("the connection to the caller was lost: {error}"))));
            }
            if this.out.len() >= ROOM {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(want.min(ROOM - this.out.len())))
    }

    pub(crate) fn send(&mut self, data: Bytes, last: bool) {
        let this = &mut *self.conn.borrow_mut();
        if this.turn.chunked && !data.is_empty() {
            this.out.put(format!("{:x}\r\n", data.len()).as_bytes());
            this.out.pass(data);
            this.out.put(b"\r\n");
        } else if !this.turn.mute {
            this.out.pass(data);
        }
        if last {
            this.end(None);
        }
    }

    pub(crate) fn finish(&mut self, trailers: Option<Headers>) {
        self.conn.borrow_mut().end(trailers.as_ref());
    }

    /// Write what the caller takes now.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>) {
        let this = &mut *self.conn.borrow_mut();
        drop(this.out.poll_write(cx, &mut this.io)); // a caller that left is met when its next request is read
    }

    pub(crate) fn abort(&mut self, _cause: Cause) {
        let this = &mut *self.conn.borrow_mut();
        this.turn.said = Said::Cut(this.turn.delimited || this.turn.tunnel);
    }
}
