//! The caller's end of HTTP/1.1 connections: bytes in, calls out, one at a time; pipelined requests wait, bounded by no longer reading.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::call::ends::Down;
use crate::call::{exchange, unread};
use crate::connection::io::Io;
use crate::connection::leaving::Leaving;
use crate::head::Entry;
use crate::http1::body_scan::Piece;
use crate::http1::down::{Conn, H1Down, Said, reason};
use crate::http1::h2c::{self, Upgraded};
use crate::http1::head_scan::{Refusal, RequestStart, find_end, scan_request};
use crate::shared::Shared;

const LINGER: Duration = Duration::from_secs(2); // how long an early answer may stand before unread bytes turn our close into a reset

/// Serve one connection until it ends, or until it is to go on in HTTP/2.
pub async fn serve(shared: Rc<Shared>, io: Io, entry: Entry, leaving: Rc<Leaving>) -> Option<Upgraded> {
    let conn = Rc::new(RefCell::new(Conn::new(shared.clone(), io, leaving)));
    while let Some(head) = read_head(&conn, &shared).await {
        let start = match head.and_then(|head| scan_request(&head, &shared.limits)) {
            Ok(start) => start,
            Err(refusal) => {
                refuse(&conn, &shared, &entry, &refusal).await;
                return None;
            }
        };
        if let Some(settings) = h2c::offered(&start).filter(|_| !conn.borrow().leaving.is_leaving()) {
            return switch(&conn, &shared, start, settings).await;
        }
        let raw = conn.borrow_mut().begin(start);
        let leaving = conn.borrow().leaving.clone();
        leaving.calls.set(1);
        exchange::run(shared.clone(), Down::H1(H1Down { conn: conn.clone() }), raw, entry.clone()).await;
        leaving.calls.set(0);
        leaving.active_at.set(Instant::now());
        if !settle(&conn, &shared, &entry).await {
            return None;
        }
    }
    flush(&conn, &shared).await;
    None
}

/// Take an offer of HTTP/2; `None`: the caller does not take our answer.
async fn switch(conn: &Rc<RefCell<Conn>>, shared: &Shared, start: RequestStart, settings: Bytes) -> Option<Upgraded> {
    conn.borrow_mut().out.put(h2c::SWITCHING);
    flush(conn, shared).await;
    let mut this = conn.borrow_mut();
    let rest = this.held.split().freeze();
    this.out.is_empty().then(|| Upgraded { io: this.io.take().with_prefix(rest), settings, request: h2c::as_block(start) })
}

/// The next head; `None`: the connection is over.
async fn read_head(conn: &Rc<RefCell<Conn>>, shared: &Shared) -> Option<Result<Bytes, Refusal>> {
    let mut seen = 0;
    let idle = tokio::time::sleep(shared.limits.idle);
    let mut alarm = Box::pin(idle);
    let mut started = false;
    poll_fn(|cx| {
        let this = &mut *conn.borrow_mut();
        if let Poll::Ready(Err(_)) = this.out.poll_write(cx, &mut this.io) {
            return Poll::Ready(None);
        }
        loop {
            while seen == 0 && this.held.starts_with(b"\r\n") {
                this.held.advance(2); // empty lines before a request (RFC 9112 §2.2)
            }
            if !this.held.is_empty() && (seen > 0 || &this.held[..] != b"\r") {
                match find_end(&this.held, seen, &shared.limits) {
                    Err(refusal) => return Poll::Ready(Some(Err(refusal))),
                    Ok(Some(end)) => return Poll::Ready(Some(Ok(this.held.split_to(end).freeze()))),
                    Ok(None) => seen = this.held.len(),
                }
                if !started {
                    started = true;
                    alarm.as_mut().reset(tokio::time::Instant::now() + shared.limits.head);
                }
            } else if this.leaving.is_asked(cx) && this.out.is_empty() {
                return Poll::Ready(None);
            }
            if this.eof || this.leaving.is_over() {
                return Poll::Ready(None);
            }
            match this.io.poll_fill(cx, &mut this.held) {
                Poll::Ready(Ok(0) | Err(_)) => this.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if std::future::Future::poll(alarm.as_mut(), cx).is_pending() {
            return Poll::Pending;
        }
        let slow = Refusal { status: 408, kind: "head-timeout", text: "the request head took too long".into() };
        Poll::Ready(started.then_some(Err(slow)))
    })
    .await
}

/// After a call: ready for the next request, or the end (false).
async fn settle(conn: &Rc<RefCell<Conn>>, shared: &Rc<Shared>, entry: &Entry) -> bool {
    let (said, broken, tunnel) = {
        let mut this = conn.borrow_mut();
        (this.turn.said, this.turn.broken.take(), this.turn.tunnel)
    };
    match (said, broken) {
        (Said::Nothing, Some(refusal)) => {
            refuse(conn, shared, entry, &refusal).await;
            return false;
        }
        (Said::Cut(true), _) => {
            conn.borrow().io.reset();
            return false;
        }
        (Said::Cut(false) | Said::Head | Said::Nothing, _) => {
            if conn.borrow().turn.tunnel || conn.borrow().turn.delimited {
                conn.borrow().io.reset();
            } else {
                flush(conn, shared).await;
            }
            return false;
        }
        (Said::All, _) => {}
    }
    if tunnel {
        flush(conn, shared).await;
        return false;
    }
    let (close, ended) = {
        let this = conn.borrow();
        (this.turn.close || this.leaving_asked(), this.turn.body_ended)
    };
    if ended && !close {
        return true;
    }
    if !close && timeout(shared.limits.head, discard(conn, shared)).await.unwrap_or(false) {
        return true;
    }
    flush(conn, shared).await;
    linger(conn).await;
    false
}

/// Read the rest of a request whose response is complete; false where it is broken. Bounded in time alone: a caller that has handed all of
/// it to its system takes the connection for free, and would lose its next request with it.
async fn discard(conn: &Rc<RefCell<Conn>>, shared: &Shared) -> bool {
    poll_fn(|cx| {
        let this = &mut *conn.borrow_mut();
        if let Poll::Ready(Err(_)) = this.out.poll_write(cx, &mut this.io) {
            return Poll::Ready(false);
        }
        loop {
            match this.turn.body.next(&mut this.held, &shared.limits) {
                Err(_) => return Poll::Ready(false),
                Ok(Piece::End(_)) => return Poll::Ready(true),
                Ok(Piece::Data(_)) => continue,
                Ok(Piece::More) => {}
            }
            match this.io.poll_fill(cx, &mut this.held) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn flush(conn: &Rc<RefCell<Conn>>, shared: &Shared) {
    let all = poll_fn(|cx| {
        let this = &mut *conn.borrow_mut();
        this.out.poll_write(cx, &mut this.io)
    });
    drop(timeout(shared.limits.head, all).await); // a caller that takes nothing is not waited for
}

/// Say no more, but let the caller read what was said before the connection closes.
#[allow(clippy::await_holding_refcell_ref)] // nobody else looks at a connection without a call
async fn linger(conn: &Rc<RefCell<Conn>>) {
    let this = &mut *conn.borrow_mut();
    let quiet = async {
        if this.io.shutdown().await.is_err() {
            return;
        }
        poll_fn(|cx| {
            loop {
                this.held.clear();
                match this.io.poll_fill(cx, &mut this.held) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    };
    drop(timeout(LINGER, quiet).await);
}

/// Answer malformed HTTP, then close. No CORS fields: an unreadable head names no origin, and no browser frames a body like this.
async fn refuse(conn: &Rc<RefCell<Conn>>, shared: &Shared, entry: &Entry, refusal: &Refusal) {
    shared.refused(refusal.kind);
    let (headers, body) = unread::refuse(shared, entry, refusal.status, &refusal.text);
    {
        let out = &mut conn.borrow_mut().out;
        out.put(format!("HTTP/1.1 {} {}\r\n", refusal.status, reason(refusal.status)).as_bytes());
        out.put_fields(&headers);
        out.put(b"connection: close\r\n\r\n");
        out.put(&body);
    }
    flush(conn, shared).await;
    linger(conn).await;
}
