//! The callee's end of HTTP/1.1: connections to apps, one call at a time, kept alive between calls.

use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header;
use tokio::time::Sleep;

use crate::call::cause::Cause;
use crate::call::ends::{Answer, Lost, Part};
use crate::connection::alerts::{alert_of, ends_handshake, in_words, told};
use crate::connection::dial::os_reason;
use crate::connection::io::Io;
use crate::connection::via::Via;
use crate::fields::{DECLINED, Headers, UPGRADE};
use crate::head::{Protocol, RawHead};
use crate::http1::body_scan::{Body, Chunks, Piece};
use crate::http1::head_scan::{Refusal, ResponseStart, find_end, scan_response};
use crate::http1::out::{Out, ROOM};
use crate::http1::request::{copied, put_head};
use crate::http1::websocket::{is_accepted, make_key, strip_handshake};
use crate::shared::Shared;

const INFORMS: u32 = 32; // 1xx answers to one request; more is a flood
/// Where a connection belongs between calls.
pub trait Owner {
    /// It is free for another call.
    fn put_back(self: Rc<Self>, conn: H1Conn);
    /// It was dropped while a call had it.
    fn forget_one(self: Rc<Self>);
}

/// One upstream connection. `leased`: out of the pool, for a call; dropped so, the pool hears that it is gone.
pub struct H1Conn {
    shared: Rc<Shared>,
    io: Io,
    held: BytesMut,
    /// What it leads to, in errors.
    who: Arc<str>,
    /// It leads to this proxy, which asks the server.
    via: Option<Arc<Via>>,
    reused: bool,
    owner: Option<Weak<dyn Owner>>,
    pub leased: bool,
    pub active_at: Instant,
}

impl Drop for H1Conn {
    fn drop(&mut self) {
        if let (true, Some(owner)) = (self.leased, self.owner.as_ref().and_then(Weak::upgrade)) {
            owner.forget_one();
        }
    }
}

impl H1Conn {
    /// A connection just made.
    pub fn new(shared: &Rc<Shared>, io: Io, who: Arc<str>, via: Option<Arc<Via>>) -> Self {
        let (shared, held, active_at) = (shared.clone(), BytesMut::new(), Instant::now());
        Self { shared, io, held, who, via, reused: false, owner: None, leased: false, active_at }
    }

    /// Who takes it back, and who is told that it is gone.
    pub fn set_owner(&mut self, owner: Weak<dyn Owner>) {
        self.owner = Some(owner);
    }

    /// Whether the app neither closed it nor sent what nobody asked for.
    pub fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.io.poll_fill(&mut cx, &mut self.held) {
            Poll::Pending => true,
            Poll::Ready(Ok(count)) if count > 0 => {
                self.shared.refused("unasked-bytes");
                false
            }
            Poll::Ready(_) => false,
        }
    }

    fn give_back(mut self) {
        self.leased = false;
        self.reused = true;
        self.active_at = Instant::now();
        if let Some(owner) = self.owner.as_ref().and_then(Weak::upgrade) {
            owner.put_back(self);
        }
    }
}

/// One call. `conn` is gone once it was given back or broke.
pub struct H1Up {
    conn: Option<H1Conn>,
    out: Out,
    body: Body,
    is_head: bool,
    key: Option<String>,
    tunnel: bool,
    chunked: bool,
    told_end: bool,
    answered: bool,
    keep: bool,
    informs: u32,
    eof: bool,
    write_broken: bool,
    half_closed: bool,
    slow: Option<Pin<Box<Sleep>>>,
}

impl H1Up {
    /// Send a request head.
    pub fn start(conn: H1Conn, mut head: RawHead, end: bool) -> Result<Self, Lost> {
        let tunnel = head.protocol == Protocol::Websocket;
        if &head.method[..] == b"CONNECT" && !tunnel {
            return Err(Lost::new(Cause::Unsupported, "CONNECT can't be sent to an app"));
        }
        let mut headers = std::mem::take(&mut head.headers);
        copied(&mut headers);
        let chunked = !tunnel && !end && !headers.contains_key(header::CONTENT_LENGTH);
        let mut out = Out::default();
        let key = tunnel.then(make_key);
        put_head(&mut out, &head, headers, key.as_deref(), chunked, conn.via.as_deref());
        Ok(Self {
            conn: Some(conn),
            out,
            body: Body::Empty,
            is_head: &head.method[..] == b"HEAD",
            key,
            tunnel: false,
            chunked,
            told_end: end,
            answered: false,
            keep: true,
            informs: 0,
            eof: false,
            write_broken: false,
            half_closed: false,
            slow: None,
        })
    }

    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let Some(conn) = &mut self.conn else { return Poll::Pending };
        match self.out.poll_write(cx, &mut conn.io) {
            Poll::Ready(Err(_)) => {
                // What the app said before it broke off is still to be read: that tells more.
                self.write_broken = true;
                self.out.clear();
            }
            Poll::Ready(Ok(())) if self.tunnel && self.told_end && !self.half_closed => {
                // The caller's direction of the tunnel has ended; the app may go on.
                self.half_closed = tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut conn.io), cx).is_ready();
            }
            _ => {}
        }
        Poll::Pending
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Lost>> {
        if self.write_broken || self.conn.is_none() {
            let detail = format!("{} stopped reading the request body", self.who());
            return Poll::Ready(Err(Lost::new(Cause::ResetEarly, detail)));
        }
        if self.key.is_some() && !self.tunnel {
            return Poll::Pending; // the app has not accepted the tunnel yet
        }
        if self.out.len() >= ROOM {
            drop(self.poll_drive(cx));
            if self.out.len() >= ROOM {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(want.min(ROOM.saturating_sub(self.out.len()))))
    }

    pub(crate) fn send(&mut self, data: Bytes, last: bool) {
        if self.chunked {
            self.out.put(format!("{:x}\r\n", data.len()).as_bytes());
            self.out.pass(data);
            self.out.put(b"\r\n");
        } else {
            self.out.pass(data);
        }
        if last {
            self.finish(None);
        }
    }

    pub(crate) fn finish(&mut self, trailers: Option<Headers>) {
        self.told_end = true;
        if self.chunked {
            self.out.put(b"0\r\n");
            if let Some(trailers) = trailers {
                self.out.put_fields(&trailers);
            }
            self.out.put(b"\r\n");
        }
    }

    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Lost>> {
        drop(self.poll_drive(cx));
        loop {
            let Some(conn) = &mut self.conn else { return Poll::Pending };
            let limits = &conn.shared.limits;
            if !conn.held.is_empty() {
                match find_end(&conn.held, 0, limits) {
                    Err(refusal) => return Poll::Ready(Err(self.refused(&refusal))),
                    Ok(Some(end)) => {
                        let head = conn.held.split_to(end).freeze();
                        self.slow = None;
                        return match scan_response(&head, limits) {
                            Ok(start) => Poll::Ready(self.head(start)),
                            Err(refusal) => Poll::Ready(Err(self.refused(&refusal))),
                        };
                    }
                    Ok(None) => {
                        let head_s = limits.head;
                        let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(head_s)));
                        if slow.as_mut().poll(cx).is_ready() {
                            let detail = format!("{} took too long over its response head", conn.who);
                            return Poll::Ready(Err(self.broke(Cause::ResetEarly, detail)));
                        }
                    }
                }
            }
            match conn.io.poll_fill(cx, &mut conn.held) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(end) => return Poll::Ready(Err(self.ended_early(end.err()))),
            }
        }
    }

    fn ended_early(&mut self, error: Option<std::io::Error>) -> Lost {
        let detail = broken(self.who(), error.as_ref());
        let Some(conn) = &self.conn else { return Lost::new(Cause::ResetEarly, detail) };
        let alert = error.as_ref().and_then(alert_of).filter(|alert| ends_handshake(*alert));
        if let (Some(alert), false, true) = (alert, conn.reused, conn.held.is_empty()) {
            let detail = told(&conn.who, alert);
            return self.broke(Cause::TlsIdentity, detail);
        }
        let (cause, when) = if !self.out.wrote {
            (Cause::Refused, " before the request was sent")
        } else if !conn.held.is_empty() {
            (Cause::ResetEarly, " in the middle of a response head")
        } else if conn.reused {
            (Cause::ResetEarly, ": it was idle")
        } else {
            (Cause::ResetEarly, " without an answer")
        };
        self.broke(cause, detail + when)
    }

    fn who(&self) -> &str {
        self.conn.as_ref().map_or("the other end", |conn| &conn.who)
    }

    fn broke(&mut self, cause: Cause, detail: impl Into<String>) -> Lost {
        self.conn = None;
        Lost::new(cause, detail)
    }

    fn refused(&mut self, refusal: &Refusal) -> Lost {
        if let Some(conn) = &self.conn {
            conn.shared.refused(refusal.kind);
        }
        let detail = format!("the answer of {} is not valid HTTP/1.1: {}", self.who(), refusal.text);
        self.broke(Cause::InvalidAnswer, detail)
    }

    fn head(&mut self, mut start: ResponseStart) -> Result<Answer, Lost> {
        let status = start.status;
        if status < 200 {
            return self.inform(start);
        }
        let via = self.conn.as_ref().and_then(|conn| conn.via.clone()).filter(|_| status == 407);
        if let Some(via) = via {
            return Err(self.broke(Cause::Connect, via.refused("the request", status))); // who is asked here is not the app
        }
        self.answered = true;
        self.keep = start.minor == 1 && !start.fields.has_option(b"close");
        self.body = match start.fields.length {
            _ if self.is_head || status == 204 || status == 304 => Body::Empty,
            _ if start.fields.chunked => Body::Chunked(Chunks::default()),
            Some(0) => Body::Empty,
            Some(length) => Body::Length(length),
            None => Body::Close,
        };
        let upgrade = if status == 426 { start.fields.headers.remove(header::UPGRADE) } else { None };
        start.fields.strip_hop();
        match status {
            426 => start.fields.headers.remove(UPGRADE),
            501 => start.fields.headers.remove(DECLINED),
            _ => None,
        };
        if let Some(upgrade) = upgrade {
            start.fields.headers.append(UPGRADE, upgrade);
        }
        if status == 204 {
            start.fields.headers.remove(header::CONTENT_LENGTH);
        }
        let end = matches!(self.body, Body::Empty);
        if end {
            self.recycle();
        }
        let mut headers = start.fields.headers;
        if self.key.is_some() && status < 300 {
            headers.insert(DECLINED, status.into());
            return Ok(Answer::Head { status: 501, headers, end });
        }
        Ok(Answer::Head { status, headers, end })
    }

    fn inform(&mut self, mut start: ResponseStart) -> Result<Answer, Lost> {
        self.informs += 1;
        if start.status == 101 {
            if !self.key.as_ref().is_some_and(|key| is_accepted(&start, key)) {
                let detail = format!("{} switched protocols without being asked, or to another one", self.who());
                return Err(self.broke(Cause::InvalidAnswer, detail));
            }
            self.tunnel = true;
            self.answered = true;
            self.keep = false;
            self.body = Body::Close;
            start.fields.strip_hop();
            strip_handshake(&mut start.fields.headers);
            return Ok(Answer::Head { status: 200, headers: start.fields.headers, end: false });
        }
        if self.informs > INFORMS {
            if let Some(conn) = &self.conn {
                conn.shared.refused("informational");
            }
            let detail = format!("{} sent more than {INFORMS} informational answers", self.who());
            return Err(self.broke(Cause::ResetEarly, detail));
        }
        start.fields.strip_hop();
        start.fields.headers.remove(header::CONTENT_LENGTH);
        Ok(Answer::Inform(start.status, start.fields.headers))
    }

    /// The response is complete: ready for the next call, or closed.
    fn recycle(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if !conn.held.is_empty() {
            conn.shared.refused("unasked-bytes");
        } else if self.keep && self.told_end && self.out.is_empty() && !self.write_broken {
            conn.give_back();
        }
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Lost>> {
        drop(self.poll_drive(cx));
        loop {
            let Some(conn) = &mut self.conn else {
                return if self.body.is_read() { Poll::Ready(Ok(Part::End(None))) } else { Poll::Pending };
            };
            match self.body.next(&mut conn.held, &conn.shared.limits) {
                Ok(Piece::Data(data)) => {
                    if self.body.is_read() {
                        self.recycle();
                    }
                    return Poll::Ready(Ok(Part::Data(data)));
                }
                Ok(Piece::End(trailers)) => {
                    self.recycle();
                    return Poll::Ready(Ok(Part::End(trailers)));
                }
                Ok(Piece::More) => {}
                Err(refusal) => {
                    conn.shared.refused(refusal.kind);
                    let detail = format!("the response body of {} is malformed: {}", conn.who, refusal.text);
                    return Poll::Ready(Err(self.broke(Cause::ResetLate, detail)));
                }
            }
            if self.eof {
                return Poll::Pending;
            }
            match conn.io.poll_fill(cx, &mut conn.held) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if matches!(self.body, Body::Close) => {
                    if self.tunnel {
                        self.eof = true;
                    } else {
                        self.conn = None;
                    }
                    return Poll::Ready(Ok(Part::End(None)));
                }
                Poll::Ready(Ok(0)) => {
                    let detail = broken(&conn.who, None) + " before the response was complete";
                    return Poll::Ready(Err(self.broke(Cause::ResetLate, detail)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    let detail = broken(&conn.who, Some(&error)) + " before the response was complete";
                    return Poll::Ready(Err(self.broke(Cause::ResetLate, detail)));
                }
            }
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.body.is_read()
    }

    #[allow(clippy::unused_self)] // reading goes on when the body is polled again: nothing is owed
    pub(crate) fn release(&mut self, _count: usize) {}
}

/// How a connection ended, as far as it tells. TLS ends without a word where its transport does (RFC 8446 §6.1).
fn broken(who: &str, error: Option<&std::io::Error>) -> String {
    match error {
        Some(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => match alert_of(error) {
            Some(alert) => format!("{who} ended the connection: {}", in_words(alert)),
            None => format!("the connection to {who} broke: {}", os_reason(error)),
        },
        _ => format!("{who} closed the connection"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::connection::kind::Kind;
    use crate::limits::Limits;

    #[derive(Default)]
    struct Shelf(RefCell<Option<H1Conn>>);

    impl Owner for Shelf {
        fn put_back(self: Rc<Self>, conn: H1Conn) {
            self.0.replace(Some(conn));
        }

        fn forget_one(self: Rc<Self>) {
            self.0.take();
        }
    }

    #[test]
    fn connection_comes_back_however_often_it_was_lent() {
        let shared = Shared::alone(Limits::default());
        let shelf = Rc::new(Shelf::default());
        let owner: Rc<dyn Owner> = shelf.clone();
        let mut conn = H1Conn::new(&shared, Io::new(Kind::Gone), "the app".into(), None);
        conn.set_owner(Rc::downgrade(&owner));
        shelf.0.replace(Some(conn));
        for _ in 0..100_000 {
            let mut conn = shelf.0.take().unwrap();
            conn.leased = true;
            conn.give_back();
        }
        assert!(shelf.0.take().is_some_and(|conn| conn.reused && !conn.leased));
    }
}
