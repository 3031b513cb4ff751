//! The two ends of one call, whatever is spoken on them: what the exchange reads, writes and is told.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::call::cause::Cause;
use crate::call::faulty_up::FaultyUp;
use crate::call::grpc_web::WebUp;
use crate::fields::Headers;
use crate::http1::client::H1Up;
use crate::http1::down::H1Down;
use crate::http2::client::H2Up;
use crate::http2::server::H2Down;

/// Some of a body.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    End(Option<Headers>),
}

/// The callee's end broke. Refused: surely not processed; the others: maybe.
#[derive(Debug)]
pub struct Lost {
    pub cause: Cause,
    pub detail: String,
}

impl Lost {
    /// A break.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

/// The caller left, or broke the rules: why.
#[derive(Debug)]
pub struct Gone(pub String);

/// What an upstream said before its body.
#[derive(Debug)]
pub enum Answer {
    /// A 1xx.
    Inform(u16, Headers),
    /// `end`: nothing follows.
    Head { status: u16, headers: Headers, end: bool },
}

/// The caller's end.
pub enum Down {
    H2(H2Down),
    H1(H1Down),
}

/// The callee's end. One per call, never moved in bulk: boxing would cost more than the size. Dropping it before its end cancels the call there.
#[allow(clippy::large_enum_variant)]
pub enum Up {
    H2(H2Up),
    H1(H1Up),
    Web(Box<WebUp>),
    Faulty(Box<FaultyUp>),
}

macro_rules! both {
    ($self:ident, $end:ident => $call:expr) => {
        match $self {
            Self::H2($end) => $call,
            Self::H1($end) => $call,
        }
    };
}

macro_rules! any {
    ($self:ident, $end:ident => $call:expr) => {
        match $self {
            Self::H2($end) => $call,
            Self::H1($end) => $call,
            Self::Web($end) => $call,
            Self::Faulty($end) => $call,
        }
    };
}

impl Down {
    /// Some of the request body; owe `release`.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Gone>> {
        both!(self, end => end.poll_body(cx))
    }

    /// Whether the data given last was the end of the request body: no trailers follow.
    pub fn is_read(&self) -> bool {
        both!(self, end => end.is_read())
    }

    /// So many bytes of the request body were carried on; more may be read.
    pub fn release(&mut self, count: usize) {
        both!(self, end => end.release(count));
    }

    /// Why the caller left, once it has.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        both!(self, end => end.poll_gone(cx))
    }

    /// A 1xx answer.
    pub fn inform(&mut self, status: u16, headers: Headers) {
        both!(self, end => end.inform(status, headers));
    }

    /// The response head.
    pub fn respond(&mut self, status: u16, headers: Headers, end_here: bool) {
        both!(self, end => end.respond(status, headers, end_here));
    }

    /// How many of `want` bytes of the response body may be given now.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>> {
        both!(self, end => end.poll_room(cx, want))
    }

    /// Some of the response body, no more than there is room for. `last`: the response ends with it.
    pub fn send(&mut self, data: Bytes, last: bool) {
        both!(self, end => end.send(data, last));
    }

    /// The end of the response.
    pub fn finish(&mut self, trailers: Option<Headers>) {
        both!(self, end => end.finish(trailers));
    }

    /// The call is over. What was said last is on its way once this returns: whoever waits for it does not wait for what we record and report.
    pub async fn leave(self) {
        let mut end = Some(self);
        poll_fn(|cx| match end.take() {
            Some(Self::H1(mut end)) => {
                end.write(cx);
                Poll::Ready(())
            }
            Some(Self::H2(_)) => {
                cx.waker().wake_by_ref(); // behind the connection, which was woken before
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }

    /// End the call visibly incomplete.
    pub fn abort(&mut self, cause: Cause) {
        both!(self, end => end.abort(cause));
    }
}

impl Up {
    /// The answer is whole.
    pub fn part(self) {
        match self {
            Self::H2(end) => end.part(),
            Self::Faulty(end) => end.part(),
            Self::H1(_) | Self::Web(_) => {}
        }
    }

    /// How many of `want` bytes of the request body may be given now.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Lost>> {
        any!(self, end => end.poll_room(cx, want))
    }

    /// Some of the request body, no more than there is room for. `last`: the request ends with it.
    pub fn send(&mut self, data: Bytes, last: bool) {
        any!(self, end => end.send(data, last));
    }

    /// The end of the request.
    pub fn finish(&mut self, trailers: Option<Headers>) {
        any!(self, end => end.finish(trailers));
    }

    /// What comes before the body.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Lost>> {
        any!(self, end => end.poll_head(cx))
    }

    /// Some of the response body; owe `release`.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Lost>> {
        any!(self, end => end.poll_body(cx))
    }

    /// Whether the data given last was the end of the response body: no trailers follow.
    pub fn is_read(&self) -> bool {
        any!(self, end => end.is_read())
    }

    /// So many bytes of the response body were carried on; more may be read.
    pub fn release(&mut self, count: usize) {
        any!(self, end => end.release(count));
    }

    /// Move what was given towards the wire; ready only where the call broke.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        match self {
            Self::H2(_) => Poll::Pending,
            Self::H1(end) => end.poll_drive(cx),
            Self::Web(end) => end.poll_drive(cx),
            Self::Faulty(end) => end.poll_drive(cx),
        }
    }
}
