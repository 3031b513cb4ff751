//! The caller's end of HTTP/2: from the app (prior knowledge) and from peers (mutual TLS).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, StatusCode, header};

use crate::call::cause::Cause;
use crate::call::ends::{Down, Gone, Part};
use crate::call::{exchange, unread};
use crate::connection::io::{Io, STEP, SharedIo};
use crate::connection::leaving::Leaving;
use crate::fields::{Headers, is_of_hop};
use crate::head::{Entry, Framing, Protocol, RawHead, is_grpc};
use crate::http1::h2c::Upgraded;
use crate::http1::head_scan::is_authority;
use crate::http2::frame_filter::{Flood, FrameFilter, MAX_FRAME, Side};
use crate::http2::head_blocks::Block;
use crate::http2::pulse::{Calls, Pulse, UNANSWERED};
use crate::limits::Limits;
use crate::seam::ask::Notice;
use crate::shared::Shared;

/// Take out what may not go out on HTTP/2: it would cost the connection, and every other call on it.
pub fn only_allowed(headers: &mut Headers) {
    let other_te = headers.get(header::TE).is_some_and(|value| value != "trailers");
    headers.retain(|name| !is_of_hop(name) && *name != header::HOST && (!other_te || *name != header::TE));
}

/// Why a connection takes no more calls for now, or for good.
enum Turn {
    Flood(Flood),
    /// The engine stops.
    Over,
    Rest,
}

const TOO_LARGE: &str = "the head is too large, or has too many fields";
/// Streams that were reset and of which `h2` remembers so for a moment.
pub const RESET_STREAMS: usize = 4_096;
/// Calls whose work here goes on, beside the streams that we allow: a caller counts one as over as soon as it has cancelled it.
const ENDING: usize = 2;
/// How often other tasks, some tens each time, go before a call that is refused for their number.
const YIELDS: usize = 64;

/// What small DATA frames may cost beyond their bytes while they wait, in bytes: frames of 32 fill every window without passing it.
pub fn data_frame_budget(limits: &Limits) -> usize {
    limits.connection_window_bytes as usize * 8
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(STEP)
        .data_frame_budget(data_frame_budget(limits))
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(None) // a sum over the connection's whole life: the filter counts them instead
        .enable_connect_protocol();
    builder
}

/// Serve one connection until it ends.
pub async fn serve(shared: Rc<Shared>, io: Io, entry: Entry, leaving: Rc<Leaving>) {
    let filter = FrameFilter::new(&shared.limits, Side { is_server: true, is_own: entry.peer.is_none() });
    let io = io.with_filter(filter.clone());
    serve_filtered(shared, SharedIo::new(io), entry, leaving, filter).await;
}

/// Serve one connection on which HTTP/1.1 was spoken, beginning with the answer to the request that offered HTTP/2.
pub async fn serve_upgraded(shared: Rc<Shared>, upgraded: Upgraded, entry: Entry, leaving: Rc<Leaving>) {
    let filter = FrameFilter::new(&shared.limits, Side { is_server: true, is_own: entry.peer.is_none() });
    let greeting = filter.upgrade(&upgraded.settings, upgraded.request);
    let io = upgraded.io.with_greeting(filter.clone(), greeting);
    serve_filtered(shared, SharedIo::new(io), entry, leaving, filter).await;
}

/// Without calls for a while, a connection rests: there is no `h2` until the peer goes on.
async fn serve_filtered(shared: Rc<Shared>, io: SharedIo, entry: Entry, leaving: Rc<Leaving>, filter: Rc<FrameFilter>) {
    // In a box, so that what rests holds nothing of it.
    while Box::pin(serve_awake(&shared, &io, &entry, &leaving, &filter)).await {
        let goes_on = poll_fn(|cx| {
            if leaving.is_asked(cx) {
                io.wake();
                return Poll::Ready(true);
            }
            io.poll_woken(cx)
        })
        .await;
        leaving.refresh();
        if !goes_on {
            return;
        }
    }
}

/// Returns whether it rests; otherwise it has ended.
async fn serve_awake(shared: &Rc<Shared>, io: &SharedIo, entry: &Entry, leaving: &Rc<Leaving>, filter: &Rc<FrameFilter>) -> bool {
    let begun = builder(&shared.limits).handshake::<_, Bytes>(io.clone());
    let Ok(Ok(mut connection)) = tokio::time::timeout(shared.limits.head, begun).await else { return false };
    let window = shared.limits.connection_window_bytes;
    let mut pulse = Pulse::new(connection.ping_pong(), &shared.limits, entry.peer.is_none(), false);
    let mut goaway: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let mut parted = false;
    loop {
        let turn = poll_fn(|cx| {
            if let Poll::Ready(flood) = filter.poll_flood(cx) {
                return Poll::Ready(Err(Turn::Flood(flood)));
            }
            let asked = leaving.is_asked(cx) || filter.is_strained();
            if let Some(kind) = filter.take_strain() {
                shared.note(Notice::RefusedFrames { kind, who: entry.who() });
            }
            if leaving.is_over() {
                return Poll::Ready(Err(Turn::Over));
            }
            if asked && goaway.is_none() {
                connection.graceful_shutdown();
                goaway = Some(Box::pin(tokio::time::sleep(shared.limits.head)));
            }
            if let Some(late) = &mut goaway {
                // A peer that does not answer the PING after our GOAWAY is not waited for, unless it has calls.
                if late.as_mut().poll(cx).is_ready() {
                    parted = true;
                    if leaving.calls.get() == 0 {
                        return Poll::Ready(Ok(None));
                    }
                }
            }
            let calls = Calls { has_some: leaving.calls.get() > 0, begun: 0 };
            if let Poll::Ready(kind) = pulse.poll(cx, filter, calls) {
                return Poll::Ready(Err(Turn::Flood(Flood { kind, reason: Reason::ENHANCE_YOUR_CALM })));
            }
            let accepted = connection.poll_accept(cx);
            if accepted.is_pending() && filter.take_turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending; // what was begun or cancelled has its turn first
            }
            if accepted.is_pending() && filter.has_goaway() && leaving.calls.get() == 0 {
                return Poll::Ready(Ok(None)); // what came before its GOAWAY was read
            }
            // An answer may be with `h2` alone, waiting for room.
            let is_silent = accepted.is_pending() && !asked && leaving.is_tired() && !connection.has_streams();
            if is_silent && filter.may_rest(window) && io.is_at_rest() {
                return Poll::Ready(Err(Turn::Rest));
            }
            accepted.map(Ok)
        })
        .await;
        match turn {
            Ok(Some(Ok((_, mut respond)))) if parted => {
                filter.expect_reset();
                respond.send_reset(Reason::REFUSED_STREAM); // who ignores a GOAWAY does not stay
            }
            Ok(Some(Ok((request, respond)))) => {
                for _ in 0..YIELDS {
                    if is_crowded(leaving, &shared.limits) {
                        tokio::task::yield_now().await; // those that were cancelled end first
                    }
                }
                accept(shared, entry, leaving, filter, request, respond);
            }
            Ok(Some(Err(error))) => {
                if error.is_go_away() || error.is_library() {
                    shared.note(Notice::RefusedFrames { kind: "protocol", who: entry.who() });
                    filter.end("protocol", error.reason().unwrap_or(Reason::PROTOCOL_ERROR));
                }
                break;
            }
            Ok(None) => break,
            Err(Turn::Rest) => return true,
            Err(Turn::Flood(Flood { kind, reason })) => {
                shared.note(Notice::RefusedFrames { kind, who: entry.who() });
                if kind != UNANSWERED {
                    end_at_once(connection, reason).await;
                }
                return false;
            }
            Err(Turn::Over) => {
                end_at_once(connection, Reason::NO_ERROR).await;
                return false;
            }
        }
    }
    drop(
        tokio::time::timeout(
            shared.limits.head,
            poll_fn(|cx| {
                filter.take_turn();
                connection.poll_closed(cx)
            }),
        )
        .await,
    );
    false
}

/// The GOAWAY leaves if the peer takes it at once; a flooder is not waited for.
async fn end_at_once(mut connection: Connection<SharedIo, Bytes>, reason: Reason) {
    connection.abrupt_shutdown(reason);
    drop(tokio::time::timeout(std::time::Duration::from_millis(100), poll_fn(|cx| connection.poll_closed(cx))).await);
}

/// Whether more calls go on here than the peer may have open, beside as many that it has cancelled.
fn is_crowded(leaving: &Leaving, limits: &Limits) -> bool {
    leaving.calls.get() >= ENDING * limits.streams as usize
}

fn accept(
    shared: &Rc<Shared>,
    entry: &Entry,
    leaving: &Rc<Leaving>,
    filter: &Rc<FrameFilter>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let body = request.into_body();
    let stream = respond.stream_id().as_u32();
    let Some(block) = filter.accept(stream) else {
        // Cancelled already, of which `h2` may not have read yet.
        if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_pending() {
            filter.expect_reset();
            respond.send_reset(Reason::CANCEL);
        }
        return;
    };
    if is_crowded(leaving, &shared.limits) {
        filter.forget(stream);
        filter.expect_reset();
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if block.is_over || block.count > shared.limits.header_count {
        let kind = if block.is_over { "head-size" } else { "header-count" };
        shared.note(Notice::RefusedFrames { kind, who: entry.who() });
        filter.forget(stream);
        filter.expect_reset();
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let (headers, body) = unread::refuse(shared, entry, status.as_u16(), TOO_LARGE);
        let mut refusal = Response::new(());
        *refusal.status_mut() = status;
        *refusal.headers_mut() = headers.into();
        if let Ok(mut stream) = respond.send_response(refusal, false) {
            drop(stream.send_data(body, true));
        }
        return;
    }
    if is_malformed(&block) {
        shared.note(Notice::RefusedFrames { kind: "protocol", who: entry.who() });
        filter.forget(stream);
        filter.expect_reset();
        filter.count_reset();
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    let raw = read_head(block, body.is_end_stream());
    let down = Down::H2(H2Down {
        respond,
        send: None,
        body,
        stream,
        waited: false,
        over: Over::No,
        filter: filter.clone(),
        leaving: leaving.clone(),
    });
    leaving.calls.set(leaving.calls.get() + 1);
    leaving.refresh();
    // In a box: a task is moved when it begins and again when it ends.
    tokio::task::spawn_local(Box::pin(exchange::run(shared.clone(), down, raw, entry.clone())));
}

/// What frames can't show: a length that is not a number, a Host that is not the authority (RFC 9113 §8.1.1, §8.3.1).
fn is_malformed(block: &Block) -> bool {
    let is_number = |value: &http::HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    let mut hosts = block.headers.get_all(header::HOST).iter();
    let is_sound = match (&block.authority, hosts.next()) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_bytes()),
        (None, Some(host)) => is_authority(host.as_bytes()),
        (_, None) => true, // what came as HTTP/1.0 may have neither
    };
    !is_sound || hosts.next().is_some() || block.headers.get_all(header::CONTENT_LENGTH).iter().any(|value| !is_number(value))
}

fn read_head(block: Block, ended: bool) -> RawHead {
    let mut headers = block.headers;
    let host = headers.remove(header::HOST);
    join_cookies(&mut headers);
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|digits| digits.parse::<u64>().ok());
    let method = block.method.unwrap_or_default();
    let tunnel = &method[..] == b"CONNECT" && block.protocol.is_some_and(|protocol| &protocol[..] == b"websocket");
    let protocol = if tunnel {
        Protocol::Websocket
    } else if is_grpc(&headers) {
        Protocol::Grpc
    } else {
        Protocol::Http2
    };
    RawHead {
        protocol,
        method: if tunnel { Bytes::from_static(b"GET") } else { method },
        authority: block.authority.or_else(|| host.map(|host| Bytes::copy_from_slice(host.as_bytes()))).unwrap_or_default(),
        target: block.path.unwrap_or_default(),
        headers,
        framing: match length {
            _ if ended => Framing::None,
            None => Framing::Stream,
            Some(_) => Framing::Length,
        },
        length: if ended && length.is_none() { Some(0) } else { length },
    }
}

/// HTTP/2 may split a cookie into crumbs (RFC 9113 §8.2.3); empty ones say nothing, and would leave a blank at an end.
fn join_cookies(headers: &mut Headers) {
    if !headers.contains_key(header::COOKIE) {
        return;
    }
    let crumbs = headers.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes).filter(|crumb| !crumb.is_empty());
    let whole = crumbs.collect::<Vec<_>>().join(&b"; "[..]);
    headers.remove(header::COOKIE);
    if let (false, Ok(value)) = (whole.is_empty(), http::HeaderValue::from_maybe_shared(Bytes::from(whole))) {
        headers.insert(header::COOKIE, value);
    }
}

/// One call of a peer or app. Dropped before its end, it is reset.
pub struct H2Down {
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    body: RecvStream,
    stream: u32,
    waited: bool,
    over: Over,
    filter: Rc<FrameFilter>,
    leaving: Rc<Leaving>,
}

/// What has become of a stream.
#[derive(PartialEq, Eq)]
enum Over {
    No,
    /// The answer is whole.
    Answered,
    /// It was reset, or its connection broke.
    Broken,
}

impl Drop for H2Down {
    fn drop(&mut self) {
        if self.over == Over::No || self.over == Over::Answered && !self.body.is_end_stream() {
            self.filter.expect_reset(); // `h2` ends it, or tells the caller to stop (RFC 9113 §8.1)
        }
        self.filter.forget(self.stream);
        self.leaving.calls.set(self.leaving.calls.get() - 1);
        self.leaving.active_at.set(Instant::now());
    }
}

impl H2Down {
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Gone>> {
        poll_part(&mut self.body, &self.filter, self.stream, cx).map_err(|error| {
            self.over = Over::Broken;
            Gone(format!("the caller cancelled the call: {error}"))
        })
    }

    pub(crate) fn is_read(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn release(&mut self, count: usize) {
        drop(self.body.flow_control().release_capacity(count)); // fails where the stream is over already
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        if reset.is_ready() {
            self.over = Over::Broken;
        }
        reset.map(|_| Gone("the caller cancelled the call".into()))
    }

    pub(crate) fn inform(&mut self, status: u16, headers: Headers) {
        if let Some(response) = response(status, headers) {
            drop(self.respond.send_informational(response));
        }
    }

    pub(crate) fn respond(&mut self, status: u16, headers: Headers, end: bool) {
        if let Some(response) = response(status, headers) {
            self.send = self.respond.send_response(response, end).ok();
            self.ends(end);
        }
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>> {
        let left = || Gone("the caller cancelled the call".into());
        let Some(send) = &mut self.send else { return Poll::Ready(Err(left())) };
        poll_room(send, cx, want, &mut self.waited).map(|room| room.ok_or_else(left))
    }

    pub(crate) fn send(&mut self, data: Bytes, last: bool) {
        if let Some(send) = &mut self.send {
            self.filter.sent_data(data.len());
            drop(send.send_data(data, last)); // a caller that left is met at the next poll
            self.ends(last);
        }
    }

    pub(crate) fn finish(&mut self, trailers: Option<Headers>) {
        if let Some(send) = &mut self.send {
            finish(send, trailers);
            self.ends(true);
        }
    }

    fn ends(&mut self, is_last: bool) {
        if is_last && self.over == Over::No {
            self.over = Over::Answered;
        }
    }

    pub(crate) fn abort(&mut self, cause: Cause) {
        let reason = match cause {
            Cause::Refused => Reason::REFUSED_STREAM,
            Cause::Timeout | Cause::CallerLeft => Reason::CANCEL,
            _ => Reason::INTERNAL_ERROR,
        };
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

fn response(status: u16, mut headers: Headers) -> Option<Response<()>> {
    only_allowed(&mut headers);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    *response.headers_mut() = headers.into();
    Some(response)
}

/// The next part of a stream's body.
pub fn poll_part(
    body: &mut RecvStream,
    filter: &FrameFilter,
    stream: u32,
    cx: &mut Context<'_>,
) -> Poll<Result<Part, h2::Error>> {
    loop {
        return match body.poll_data(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(data))) if data.is_empty() => continue,
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Ok(Part::Data(data))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(None) => body
                .poll_trailers(cx)
                .map(|trailers| trailers.map(|found| Part::End(found.and_then(|_| filter.trailers(stream))))),
        };
    }
}

/// Room for body bytes within the peer's windows; `None`: the stream is over. Where only a part of a frame has room, the connection has
/// its turn before (`waited`): it mostly makes room for all of it.
pub fn poll_room(send: &mut SendStream<Bytes>, cx: &mut Context<'_>, want: usize, waited: &mut bool) -> Poll<Option<usize>> {
    send.reserve_capacity(want);
    loop {
        let capacity = send.capacity();
        if capacity >= want.min(MAX_FRAME as usize) || capacity > 0 && *waited {
            *waited = false;
            return Poll::Ready(Some(capacity.min(want)));
        }
        if capacity > 0 {
            *waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match send.poll_capacity(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
        }
    }
}

/// `END_STREAM`, with trailers or without.
pub fn finish(send: &mut SendStream<Bytes>, trailers: Option<Headers>) {
    let sent = match trailers {
        Some(mut trailers) => {
            only_allowed(&mut trailers);
            send.send_trailers(trailers.into())
        }
        None => send.send_data(Bytes::new(), true),
    };
    drop(sent); // a stream that is over needs no end
}
