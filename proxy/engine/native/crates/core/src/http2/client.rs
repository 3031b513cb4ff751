//! The upstream end of HTTP/2: to peers (mutual TLS) and to apps that speak h2c or gRPC.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Uri, uri};
use tokio::sync::oneshot;

use crate::call::balance::Health;
use crate::call::cause::Cause;
use crate::call::ends::{Answer, Lost, Part};
use crate::call::pool::Origin;
use crate::clusters::{Tls, Wire};
use crate::connection::alerts::named;
use crate::connection::io::{Io, STEP};
use crate::connection::leaving::Leaving;
use crate::connection::listener::EXPIRED;
use crate::connection::refusal::by_alert;
use crate::fields::Headers;
use crate::head::{Protocol, RawHead};
use crate::http2::frame_filter::{Flood, FrameFilter, MAX_FRAME, Side};
use crate::http2::pulse::{Calls, Pulse, UNANSWERED};
use crate::http2::server::{RESET_STREAMS, data_frame_budget, finish, only_allowed, poll_part, poll_room};
use crate::seam::ask::Notice;
use crate::shared::Shared;

/// Calls per connection; beyond it the pool dials another, so that one connection's window is not everyone's.
const MAX_CALLS: usize = 100;
/// Of a request body given before the stream has room: a stream gets its window only once its head is written, and what is given
/// before leaves with the head, in one write.
const EARLY_BYTES: usize = 16_384;
const CLOSED: &str = "the connection was closed";
/// For a callee to stop a request that it has answered: some count the resets that they get.
const PARTING: Duration = Duration::from_millis(500);

/// One connection to an upstream. The pool holds it while it takes calls; the last holder gone, it closes.
pub struct H2Conn {
    sender: SendRequest<Bytes>,
    filter: Rc<FrameFilter>,
    most_fields: usize,
    /// What it leads to, in errors.
    callee: Arc<str>,
    chose_h2: Option<bool>,
    pub in_flight: Cell<usize>,
    /// Calls that it took, counted up to any number.
    begun: Cell<u32>,
    /// The same of all connections.
    streams: Rc<Cell<usize>>,
    pub closed: Cell<bool>,
    pub active_at: Cell<Instant>,
    pub leaving: Rc<Leaving>,
    /// Why it ended.
    ended: RefCell<Option<String>>,
}

impl H2Conn {
    /// Calls it takes now.
    pub fn capacity(&self) -> usize {
        if self.closed.get()
            || self.leaving.is_leaving()
            || self.filter.is_strained()
            || self.filter.has_goaway()
            || self.filter.is_flooded()
        {
            return 0;
        }
        self.sender.current_max_send_streams().min(MAX_CALLS).saturating_sub(self.in_flight.get())
    }

    /// Of a proxy: whether it is a daprd. That chooses ALPN `h2`, and, where there is no TLS, offers no extended CONNECT, as ours do.
    pub fn is_daprd(&self) -> bool {
        self.chose_h2.unwrap_or_else(|| !self.sender.is_extended_connect_protocol_enabled())
    }

    /// Speak HTTP/2 on `io`; up once the peer's SETTINGS came. `chose_h2`: by ALPN, `None` without. `changed` is called when capacity may have changed, and at the end.
    pub async fn begin(
        shared: &Rc<Shared>,
        io: Io,
        origin: &Origin,
        callee: Arc<str>,
        chose_h2: Option<bool>,
        leaving: Rc<Leaving>,
        changed: impl Fn() + 'static,
    ) -> Result<Rc<Self>, Lost> {
        let filter = FrameFilter::new(&shared.limits, Side { is_server: false, is_own: origin.tls != Tls::Mesh });
        let limits = &shared.limits;
        let (sender, connection) = client::Builder::new()
            .initial_window_size(limits.window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(STEP)
            .data_frame_budget(data_frame_budget(limits))
            .max_concurrent_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(None) // a sum over the connection's whole life; each is of a call of ours
            .enable_push(false)
            .handshake::<_, Bytes>(io.with_filter(filter.clone()))
            .await
            .map_err(|error| Lost::new(Cause::Connect, error.to_string()))?;
        let active_at = Cell::new(Instant::now());
        let closed = Cell::new(false);
        let in_flight = Cell::new(0);
        let this = Rc::new(Self {
            sender,
            filter: filter.clone(),
            most_fields: limits.header_count,
            callee,
            chose_h2,
            in_flight,
            begun: Cell::new(0),
            streams: shared.pool.streams.clone(),
            closed,
            active_at,
            leaving: leaving.clone(),
            ended: RefCell::default(),
        });
        shared.pool.watch(&leaving);
        let (up, is_up) = oneshot::channel();
        let weak = Rc::downgrade(&this);
        let end = FarEnd {
            cluster: origin.cluster.clone(),
            address: origin.address.clone(),
            is_own: origin.tls != Tls::Mesh,
            is_watched: origin.wire == Wire::Postern && chose_h2 == Some(false),
        };
        let driven = drive(shared.clone(), connection, filter, leaving, weak.clone(), end, up);
        tokio::task::spawn_local(async move {
            driven.await;
            if let Some(this) = weak.upgrade() {
                this.closed.set(true);
            }
            changed();
        });
        match is_up.await {
            Ok(Ok(())) => Ok(this),
            Ok(Err(detail)) => Err(match named(&detail) {
                Some(alert) => Lost::new(Cause::TlsIdentity, by_alert(alert, &this.callee, origin.tls == Tls::Mesh)),
                None => Lost::new(Cause::Connect, detail),
            }),
            Err(_) => Err(Lost::new(Cause::Connect, "the connection was closed")),
        }
    }

    fn request(&self, head: RawHead) -> Result<Request<()>, Lost> {
        let unsupported = |detail: String| Lost::new(Cause::Unsupported, detail);
        let tunnel = head.protocol == Protocol::Websocket;
        if tunnel && !self.sender.is_extended_connect_protocol_enabled() {
            return Err(unsupported(format!("{} does not support WebSockets over HTTP/2 (RFC 8441)", self.callee)));
        }
        let method = if tunnel { Ok(Method::CONNECT) } else { Method::from_bytes(&head.method) };
        let method = method.map_err(|error| unsupported(format!("the method can't be sent on: {error}")))?;
        if method == Method::CONNECT && !tunnel {
            return Err(unsupported("CONNECT can't be sent to an app".into()));
        }
        let target = path_and_query(head.target);
        let mut parts = uri::Parts::default();
        parts.path_and_query = Some(target.map_err(|error| unsupported(format!("the target can't be sent on: {error}")))?);
        // `h2` writes no authority with escapes, as clients of a Unix socket send; our own apps' is in the plan.
        parts.authority = uri::Authority::from_maybe_shared(head.authority).ok();
        let has_authority = parts.authority.is_some();
        parts.scheme = has_authority.then_some(uri::Scheme::HTTP);
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| unsupported(error.to_string()))?;
        if has_authority {
            *request.version_mut() = http::Version::HTTP_2;
        } // else it stays HTTP/1.1, of which `h2` takes requests without an authority (HTTP/1.0 has none at all)
        let mut headers = head.headers;
        only_allowed(&mut headers);
        *request.headers_mut() = headers.into();
        if tunnel {
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        }
        Ok(request)
    }
}

/// As `h2` takes it: with what RFC 3986 §2 has escaped in escapes, of which some clients send a few as they are.
fn path_and_query(target: Bytes) -> Result<uri::PathAndQuery, uri::InvalidUri> {
    uri::PathAndQuery::from_maybe_shared(target.clone()).or_else(|_| {
        let mut escaped = Vec::with_capacity(target.len() + 16);
        for byte in target {
            match byte {
                b'"' | b'<' | b'>' | b'`' => escaped.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                _ => escaped.push(byte),
            }
        }
        uri::PathAndQuery::from_maybe_shared(Bytes::from(escaped))
    })
}

/// Where a connection leads. `is_own`: not to a proxy; `is_watched`: to a proxy of ours, of which it soon notices that it is silent.
struct FarEnd {
    cluster: Arc<str>,
    address: Arc<str>,
    is_own: bool,
    is_watched: bool,
}

impl FarEnd {
    fn who(&self) -> Arc<str> {
        format!("{} at {}", self.cluster, self.address).into()
    }

    /// Change what is known of its health, for all workers.
    fn with_health(&self, shared: &Shared, change: impl Fn(&Health, Instant)) {
        let clusters = shared.clusters.borrow();
        let endpoints = clusters.get(&self.cluster).map(|state| &state.endpoints[..]).unwrap_or_default();
        if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.address == self.address) {
            change(&endpoint.load.borrow().health, Instant::now());
        }
    }
}

/// Drive a connection to its end; `up` hears of its SETTINGS, or why none came.
async fn drive(
    shared: Rc<Shared>,
    mut connection: client::Connection<Io, Bytes>,
    filter: Rc<FrameFilter>,
    leaving: Rc<Leaving>,
    conn: Weak<H2Conn>,
    end: FarEnd,
    up: oneshot::Sender<Result<(), String>>,
) {
    let mut up = Some(up);
    let mut pulse = Pulse::new(connection.ping_pong(), &shared.limits, end.is_own, end.is_watched);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(kind) = filter.poll_flood(cx) {
            return Poll::Ready(Err(kind));
        }
        if leaving.is_asked(cx) && leaving.is_over() {
            return Poll::Ready(Err(Flood { kind: EXPIRED, reason: Reason::NO_ERROR }));
        }
        if let Some(kind) = filter.take_strain() {
            shared.note(Notice::RefusedFrames { kind, who: end.who() });
        }
        let calls = conn.upgrade().map_or((0, 0), |conn| (conn.in_flight.get(), conn.begun.get()));
        if let Poll::Ready(kind) = pulse.poll(cx, &filter, Calls { has_some: calls.0 > 0, begun: calls.1 }) {
            return Poll::Ready(Err(Flood { kind, reason: Reason::ENHANCE_YOUR_CALM }));
        }
        if pulse.is_doubtful() {
            end.with_health(&shared, Health::avoid);
        }
        let polled = Pin::new(&mut connection).poll(cx);
        if filter.has_settings() {
            if let Some(up) = up.take() {
                drop(up.send(Ok(()))); // whoever dialled may have given up
            }
        }
        polled.map(Ok)
    })
    .await;
    let detail = match ended {
        Ok(Ok(())) => CLOSED.to_owned(),
        // TLS ends without a word where its transport does (RFC 8446 §6.1).
        Ok(Err(error)) if error.get_io().is_some_and(|io| io.kind() == ErrorKind::UnexpectedEof) => CLOSED.to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(Flood { kind: "http1", .. }) => "it speaks HTTP/1.1, not HTTP/2 (is its protocol set right?)".to_owned(),
        Err(Flood { kind: "text", .. }) => "it does not speak HTTP/2 (is its protocol set right?)".to_owned(),
        Err(Flood { kind: EXPIRED, .. }) => "a certificate of the connection has expired".to_owned(),
        Err(Flood { kind: UNANSWERED, .. }) => {
            if end.is_watched {
                end.with_health(&shared, Health::eject);
            }
            shared.note(Notice::RefusedFrames { kind: UNANSWERED, who: end.who() });
            "the other end answers no PING".to_owned()
        }
        Err(Flood { kind, .. }) => {
            shared.note(Notice::RefusedFrames { kind, who: end.who() });
            format!("this proxy ended the connection: too many {kind} frames")
        }
    };
    if let Some(conn) = conn.upgrade() {
        *conn.ended.borrow_mut() = Some(detail.clone());
    }
    if let Some(up) = up {
        drop(up.send(Err(detail)));
    }
}

/// Whose a connection is.
pub trait Owner {
    /// There is room for another call.
    fn freed(self: Rc<Self>);
}

/// A call's place on a connection; its owner hears when it is free again.
pub struct Place {
    pub conn: Rc<H2Conn>,
    owner: Weak<dyn Owner>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.conn.in_flight.set(self.conn.in_flight.get() - 1);
        self.conn.streams.set(self.conn.streams.get() - 1);
        self.conn.active_at.set(Instant::now());
        if let Some(owner) = self.owner.upgrade() {
            owner.freed();
        }
    }
}

impl Place {
    /// Take one.
    pub fn take(conn: &Rc<H2Conn>, owner: Weak<dyn Owner>) -> Self {
        conn.in_flight.set(conn.in_flight.get() + 1);
        conn.begun.set(conn.begun.get().wrapping_add(1));
        conn.streams.set(conn.streams.get() + 1);
        Self { conn: conn.clone(), owner }
    }

    /// Begin the call.
    pub fn start(self, head: RawHead, end: bool) -> Result<H2Up, Lost> {
        let request = self.conn.request(head)?;
        let (response, send) = self
            .conn
            .sender
            .clone()
            .send_request(request, end)
            .map_err(|error| Lost::new(Cause::Refused, format!("the connection was closing: {error}")))?;
        let stream = response.stream_id().as_u32();
        self.conn.filter.expect(stream);
        let most_fields = self.conn.most_fields;
        Ok(H2Up { response, send, body: None, stream, early: EARLY_BYTES, waited: false, is_sent: end, most_fields, place: self })
    }
}

/// One call to the callee. Dropped before its end, it is reset with CANCEL.
pub struct H2Up {
    response: ResponseFuture,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    stream: u32,
    early: usize,
    waited: bool,
    is_sent: bool,
    most_fields: usize,
    place: Place,
}

impl Drop for H2Up {
    fn drop(&mut self) {
        self.place.conn.filter.forget(self.stream);
    }
}

impl H2Up {
    fn lost(&self, error: &h2::Error) -> Lost {
        let early = if self.body.is_some() { Cause::ResetLate } else { Cause::ResetEarly };
        let who = &self.place.conn.callee;
        if error.is_go_away() && error.is_remote() {
            return Lost::new(Cause::Refused, format!("{who} is going away"));
        }
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_remote() => {
                Lost::new(Cause::Refused, format!("{who} reset the call (REFUSED_STREAM)"))
            }
            Some(reason) if error.is_reset() && error.is_remote() => {
                Lost::new(early, format!("{who} reset the call ({})", reason_name(reason)))
            }
            Some(_) if error.is_reset() => Lost::new(Cause::InvalidAnswer, format!("malformed response: {error}")),
            _ => match &*self.place.conn.ended.borrow() {
                Some(why) => Lost::new(early, why.clone()),
                None => Lost::new(early, format!("the connection broke: {error}")),
            },
        }
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Lost>> {
        if self.early > 0 && self.send.capacity() == 0 {
            return Poll::Ready(Ok(want.min(self.early)));
        }
        poll_room(&mut self.send, cx, want, &mut self.waited).map(|room| {
            room.ok_or_else(|| {
                Lost::new(Cause::ResetEarly, format!("{} stopped reading the request body", self.place.conn.callee))
            })
        })
    }

    pub(crate) fn send(&mut self, data: Bytes, last: bool) {
        self.early = self.early.saturating_sub(data.len());
        self.place.conn.filter.sent_data(data.len());
        self.is_sent = last;
        drop(self.send.send_data(data, last)); // a stream that broke says so in its answer
    }

    pub(crate) fn finish(&mut self, trailers: Option<Headers>) {
        self.is_sent = true;
        finish(&mut self.send, trailers);
    }

    /// The callee has answered in full: it may stop what is left of the request itself, as servers do (RFC 9113 §8.1), before it is reset.
    pub(crate) fn part(mut self) {
        if !self.is_sent {
            self.send.reserve_capacity(0); // or its share of the connection's window would be no other call's
            tokio::task::spawn_local(async move {
                let stopped = poll_fn(|cx| self.send.poll_reset(cx));
                drop(tokio::time::timeout(PARTING, stopped).await); // either way it is over
            });
        }
    }

    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Lost>> {
        match self.response.poll_informational(cx) {
            Poll::Ready(Some(Ok(inform))) => {
                let status = inform.status().as_u16();
                let headers = self.place.conn.filter.response(self.stream, status).unwrap_or_default().headers;
                return Poll::Ready(Ok(Answer::Inform(status, headers)));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.lost(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.lost(&error))),
            Poll::Ready(Ok(response)) => {
                let (status, body) = (response.status().as_u16(), response.into_body());
                let block = self.place.conn.filter.response(self.stream, status).unwrap_or_default();
                if block.is_over || block.count > self.most_fields {
                    return Poll::Ready(Err(Lost::new(Cause::InvalidAnswer, "the response has too many headers")));
                }
                let end = body.is_end_stream();
                self.body = Some(body);
                Poll::Ready(Ok(Answer::Head { status, headers: block.headers, end }))
            }
        }
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Lost>> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        let filter = &self.place.conn.filter;
        match poll_part(body, filter, self.stream, cx) {
            Poll::Ready(Err(error)) if error.is_io() && filter.came_whole(self.stream) => {
                Poll::Ready(Ok(Part::End(filter.trailers(self.stream))))
            }
            polled => polled.map_err(|error| self.lost(&error)),
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.body.as_ref().is_some_and(RecvStream::is_end_stream)
    }

    pub(crate) fn release(&mut self, count: usize) {
        if let Some(body) = &mut self.body {
            drop(body.flow_control().release_capacity(count)); // fails where the stream is over already
        }
    }
}

fn reason_name(reason: Reason) -> String {
    let text = format!("{reason:?}"); // the name for those that have one
    if text.starts_with("Reason") { format!("code {}", u32::from(reason)) } else { text }
}
