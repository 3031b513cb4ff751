//! Stands before `h2` where an HTTP/2 connection's bytes come in: counts what floods are made of, notes SETTINGS and GOAWAY, of
//! which `h2` tells nobody, and takes the header blocks out (`head_blocks.rs`). Other frames are not changed.
//!
//! What calls and data account for is never a flood: a receiver of data pings to measure the path and sends window updates (gRPC's
//! clients and servers do), a caller may cancel each of its calls, a server may stop each request that it has answered. What goes beyond
//! that has a budget; past it the peer is read more slowly, then sent away, then cut off. Source: RFC 9113 §4.1, §5.1.2, §6.8, §8.1;
//! CVE-2023-44487, CVE-2025-8671, VU#421644, CVE-2019-9511 to 9518.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use h2::Reason;

use crate::fields::Headers;
use crate::http2::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADER, HEADERS, Header, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::http2::head_blocks::{Block, Fault, HeadBlocks};
use crate::http2::ledger::Ledger;
use crate::limits::Limits;

/// What we announce. Large bodies take a quarter of the frames; one with its head fills four TLS records (RFC 8446 §5.1) and no fifth.
pub const MAX_FRAME: u32 = 65_536 - 9;
const SMALL_FRAME: usize = 1_024; // of DATA, as many peers cut them
const UPDATES_PER_FRAME: u32 = 10;
const MAX_UPDATES: u32 = 65_536;
const CONTROL_PER_HEAD: u32 = 2; // control frames that a head accounts for, besides its reset
const MAX_DUE: u32 = 4_096; // resets that may come, or go out, for calls that were
const RESETS_PER_STREAM: u32 = 5; // of ours: one, and one for each frame that was on its way when the first left
const MAX_PAUSE: Duration = Duration::from_secs(1);
const PRIORITY_BYTES: usize = 5;
const HEADS_AT_ONCE: u32 = 256; // requests that `h2` is given before those that it has are taken from it

/// What passed its limit, and how the peer is told.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub kind: &'static str,
    pub reason: Reason,
}

/// A token bucket: `burst` at once, `per_s` sustained.
#[derive(Debug)]
struct Bucket {
    per_s: f64,
    burst: f64,
    tokens: Cell<f64>,
    at: Cell<Instant>,
}

impl Bucket {
    fn new(per_s: f64, burst: f64) -> Self {
        Self { per_s, burst, tokens: Cell::new(burst), at: Cell::new(Instant::now()) }
    }

    fn take(&self) -> bool {
        let now = Instant::now();
        let gained = now.saturating_duration_since(self.at.replace(now)).as_secs_f64() * self.per_s;
        let tokens = (self.tokens.get() + gained).min(self.burst);
        self.tokens.set(if tokens < 1.0 { tokens } else { tokens - 1.0 });
        tokens >= 1.0
    }
}

/// What a peer may send beyond what calls and data account for: a bucket, and frames beyond it, of which `most_over` cost the connection.
#[derive(Debug)]
struct Budget {
    bucket: Bucket,
    over: Cell<u32>,
    most_over: u32,
}

/// What a frame beyond the bucket comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Slowed,
    Strained,
    Flood,
}

impl Budget {
    fn new(per_s: f64, burst: f64) -> Self {
        Self { bucket: Bucket::new(per_s, burst), over: Cell::new(0), most_over: burst as u32 }
    }

    fn spend(&self) -> Option<Over> {
        if self.bucket.take() {
            self.over.set(self.over.get().saturating_sub(1));
            return None;
        }
        self.over.set(self.over.get() + 1);
        Some(match self.over.get() {
            over if over > self.most_over => Over::Flood,
            over if over > self.most_over / 2 => Over::Strained,
            _ => Over::Slowed,
        })
    }
}

/// Whose frames a filter looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Whether requests come in, not answers.
    pub is_server: bool,
    /// Whether it is our own app at the other end, which is ours to trust.
    pub is_own: bool,
}

/// Owns what is known of one direction of one connection.
#[derive(Debug)]
pub struct FrameFilter {
    first: Cell<bool>,
    /// Of the preface, which follows an upgrade and `h2` has read already.
    preface: Cell<usize>,
    header: RefCell<Vec<u8>>,
    skip: Cell<usize>,
    continuations: Cell<u32>,
    max_continuations: u32,
    resets: Budget,
    control: Budget,
    /// Control frames that calls and data account for.
    earned: Cell<u32>,
    most_earned: u32,
    pause: Cell<Duration>,
    strain: Cell<Option<&'static str>>,
    is_strained: Cell<bool>,
    /// Resets that the peer, and we, may send for calls that were begun.
    resets_due: Cell<u32>,
    own_resets_due: Cell<u32>,
    /// Requests that `h2` was given since it was last asked for all that it has.
    heads: Cell<u32>,
    flood: Cell<Option<Flood>>,
    updates: Cell<u32>,
    settings: Cell<bool>,
    goaway: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// The kind and stream of the frame whose payload is collected in `held`.
    collecting: Cell<Option<(u8, u32)>>,
    /// Where requests come in: what must outlive `h2`, and the last stream of the one before it.
    ledger: Option<RefCell<Ledger>>,
    rested_at: Cell<u32>,
    held: RefCell<BytesMut>,
    blocks: RefCell<HeadBlocks>,
    block_at: Cell<Option<Instant>>,
    /// The stream whose last DATA passes.
    ending: Cell<u32>,
    /// All that the peer ever sent has gone to `h2`.
    is_heard_out: Cell<bool>,
    heard_at: Cell<Instant>,
}

impl FrameFilter {
    /// The filter does not look at the preface, but for one that follows an upgrade.
    pub fn new(limits: &Limits, side: Side) -> Rc<Self> {
        let server = side.is_server;
        let factor = if side.is_own { limits.own_app_factor } else { 1.0 };
        let burst = limits.control_burst * factor;
        Rc::new(Self {
            first: Cell::new(!server),
            preface: Cell::new(0),
            header: RefCell::new(Vec::with_capacity(HEADER)),
            skip: Cell::new(0),
            continuations: Cell::new(0),
            max_continuations: limits.continuations,
            resets: Budget::new(limits.resets_per_s * factor, limits.resets_burst * factor),
            control: Budget::new(limits.control_per_s * factor, burst),
            earned: Cell::new(0),
            most_earned: burst as u32,
            pause: Cell::new(Duration::ZERO),
            strain: Cell::new(None),
            is_strained: Cell::new(false),
            resets_due: Cell::new(0),
            own_resets_due: Cell::new(0),
            heads: Cell::new(0),
            flood: Cell::new(None),
            updates: Cell::new(0),
            settings: Cell::new(false),
            goaway: Cell::new(false),
            waker: RefCell::default(),
            collecting: Cell::new(None),
            ledger: server.then(RefCell::default),
            rested_at: Cell::new(0),
            held: RefCell::default(),
            blocks: RefCell::new(HeadBlocks::new(limits, server)),
            block_at: Cell::new(None),
            ending: Cell::new(0),
            is_heard_out: Cell::new(false),
            heard_at: Cell::new(Instant::now()),
        })
    }

    /// Whether a limit was passed.
    pub fn is_flooded(&self) -> bool {
        self.flood.get().is_some()
    }

    /// What passed its limit; the task that asks is woken when something does, and when SETTINGS or GOAWAY come.
    pub fn poll_flood(&self, cx: &Context<'_>) -> Poll<Flood> {
        if let Some(flood) = self.flood.get() {
            return Poll::Ready(flood);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the peer's SETTINGS came.
    pub fn has_settings(&self) -> bool {
        self.settings.get()
    }

    /// Whether the peer sent GOAWAY.
    pub fn has_goaway(&self) -> bool {
        self.goaway.get()
    }

    /// How long to read no more, as the peer is beyond its budget.
    pub fn take_pause(&self) -> Option<Duration> {
        let pause = self.pause.take();
        (!pause.is_zero()).then_some(pause.min(MAX_PAUSE))
    }

    /// Whether the peer is to be sent away, and its calls in flight to end in peace.
    pub fn is_strained(&self) -> bool {
        self.is_strained.get()
    }

    /// By what, said once.
    pub fn take_strain(&self) -> Option<&'static str> {
        self.strain.take()
    }

    fn earn(&self, frames: u32) {
        self.earned.set(self.earned.get().saturating_add(frames).min(self.most_earned));
    }

    /// Our side ends a stream that goes on: a reset of ours goes out, and more for what is on its way to us.
    pub fn expect_reset(&self) {
        self.own_resets_due.set((self.own_resets_due.get() + RESETS_PER_STREAM).min(MAX_DUE));
    }

    /// Resets went out. Those that are not our own doing the peer has provoked.
    pub fn said_resets(&self, count: u32) {
        for _ in 0..count {
            match self.own_resets_due.get() {
                0 => self.count_reset(),
                due => self.own_resets_due.set(due - 1),
            }
        }
    }

    /// Count a stream that we reset for the peer's fault.
    pub fn count_reset(&self) {
        self.spend(&self.resets, "reset");
    }

    fn spend(&self, budget: &Budget, kind: &'static str) {
        let Some(over) = budget.spend() else { return };
        self.pause.set(self.pause.get().saturating_add(Duration::from_secs_f64(1.0 / budget.bucket.per_s.max(1.0))));
        if over == Over::Flood {
            self.set_flood(kind);
        } else if over == Over::Strained && !self.is_strained.replace(true) {
            self.strain.set(Some(kind));
            self.wake();
        }
    }

    fn set_flood(&self, kind: &'static str) {
        self.end(kind, Reason::ENHANCE_YOUR_CALM);
    }

    /// The connection is to end; its last bytes are to be read by the peer, not lost in a reset.
    pub fn end(&self, kind: &'static str, reason: Reason) {
        self.flood.set(Some(Flood { kind, reason }));
        self.wake();
    }

    /// So many bytes of a body are sent: the peer may answer them with window updates.
    pub fn sent_data(&self, count: usize) {
        let frames = u32::try_from(count / SMALL_FRAME).unwrap_or(u32::MAX).saturating_add(1);
        self.earn(frames);
        self.updates.set(self.updates.get().saturating_add(frames.saturating_mul(UPDATES_PER_FRAME)).min(MAX_UPDATES));
    }

    /// Whether `h2` is to give out what it has before it reads on: it ends a connection for thousands of requests that were cancelled
    /// meanwhile.
    pub fn is_full(&self) -> bool {
        self.heads.get() >= HEADS_AT_ONCE
    }

    /// It has given out all that it had. Returns whether it may have more to read.
    pub fn take_turn(&self) -> bool {
        self.heads.replace(0) >= HEADS_AT_ONCE
    }

    /// The head of a request that `h2` gave out; none where it was cancelled already.
    pub fn accept(&self, stream: u32) -> Option<Block> {
        self.blocks.borrow_mut().accept(stream)
    }

    /// A call of ours begins.
    pub fn expect(&self, stream: u32) {
        self.begins();
        self.blocks.borrow_mut().expect(stream);
    }

    /// A call: it accounts for some control frames, and for its reset.
    fn begins(&self) {
        self.earn(CONTROL_PER_HEAD);
        self.resets_due.set((self.resets_due.get() + 1).min(MAX_DUE));
    }

    /// The response head of that status, of which `h2` told.
    pub fn response(&self, stream: u32, status: u16) -> Option<Block> {
        let mut blocks = self.blocks.borrow_mut();
        std::iter::from_fn(|| blocks.next(stream)).find(|block| block.status == Some(status))
    }

    /// The trailers of which `h2` told.
    pub fn trailers(&self, stream: u32) -> Option<Headers> {
        self.blocks.borrow_mut().next(stream).map(|block| block.headers).filter(|headers| !headers.is_empty())
    }

    /// The peer closed the connection, or it broke; `h2` has read what came before.
    pub fn hear_end(&self) {
        self.is_heard_out.set(true);
    }

    /// Whether the response of a call came whole before the connection ended, of which `h2` keeps no note where it was still sending.
    pub fn came_whole(&self, stream: u32) -> bool {
        let is_cut = self.ending.get() == stream && self.skip.get() > 0;
        self.is_heard_out.get() && !is_cut && self.blocks.borrow().has_ended(stream)
    }

    /// A call is over.
    pub fn forget(&self, stream: u32) {
        self.blocks.borrow_mut().forget(stream);
    }

    /// When the header block began that has not ended.
    pub fn block_at(&self) -> Option<Instant> {
        self.block_at.get()
    }

    /// When the peer last sent anything.
    pub fn heard_at(&self) -> Instant {
        self.heard_at.get()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// How many of the next bytes are none of our business: the rest of a payload that goes on as it is.
    pub fn passing(&self) -> usize {
        if self.collecting.get().is_none() { self.skip.get() } else { 0 }
    }

    /// So many of those went on.
    pub fn pass(&self, count: usize) {
        self.heard_at.set(Instant::now());
        self.skip.set(self.skip.get() - count);
    }

    /// The connection spoke HTTP/1.1, and goes on with the answer to that request: what a new `h2` is to read first.
    pub fn upgrade(&self, settings: &[u8], request: Block) -> BytesMut {
        let Some(ledger) = &self.ledger else { return BytesMut::new() };
        self.preface.set(PREFACE.len());
        let mut told = ledger.borrow_mut().upgrade(settings);
        self.begins();
        if let Err(fault) = self.blocks.borrow_mut().upgrade(request, &mut told) {
            self.fault(fault);
        }
        told
    }

    /// Whether the preface that follows an upgrade has not come yet.
    pub fn awaits_preface(&self) -> bool {
        self.preface.get() > 0
    }

    /// What follows the preface, or the part of it that came.
    fn after_preface<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        let left = self.preface.get();
        let (some, rest) = data.split_at(left.min(data.len()));
        if !PREFACE[PREFACE.len() - left..].starts_with(some) {
            self.end("protocol", Reason::PROTOCOL_ERROR);
        }
        self.preface.set(left - some.len());
        rest
    }

    /// Look at what was read; what `h2` is to read of it goes to `out`.
    pub fn feed(&self, mut data: &[u8], out: &mut BytesMut) {
        if data.is_empty() {
            return;
        }
        self.heard_at.set(Instant::now());
        if self.preface.get() > 0 {
            data = self.after_preface(data);
        }
        while !data.is_empty() && !self.is_flooded() {
            let skip = self.skip.get().min(data.len());
            self.skip.set(self.skip.get() - skip);
            if self.collecting.get().is_some() {
                let (some, rest) = data.split_at(skip);
                data = rest;
                let is_whole = self.skip.get() == 0;
                if is_whole && self.held.borrow().is_empty() {
                    self.end_payload(some, out);
                    continue;
                }
                self.held.borrow_mut().extend_from_slice(some);
                if is_whole {
                    self.end_payload(&self.held.take(), out);
                    continue;
                }
            } else {
                out.extend_from_slice(&data[..skip]);
                data = &data[skip..];
            }
            if data.is_empty() {
                return;
            }
            let mut header = self.header.borrow_mut();
            if let (true, Some((whole, rest))) = (header.is_empty(), data.split_first_chunk()) {
                data = rest;
                drop(header);
                self.frame(*whole, out);
                continue;
            }
            let size = (HEADER - header.len()).min(data.len());
            header.extend_from_slice(&data[..size]);
            data = &data[size..];
            if let Some(whole) = header.first_chunk().copied() {
                header.clear();
                drop(header);
                self.frame(whole, out);
            }
        }
    }

    fn end_payload(&self, payload: &[u8], out: &mut BytesMut) {
        let Some((kind, stream)) = self.collecting.take() else { return };
        if !matches!(kind, HEADERS | CONTINUATION) {
            return self.end_noted(kind, stream, payload, out);
        }
        let mut blocks = self.blocks.borrow_mut();
        let ended = blocks.payload(kind, payload, out);
        if !blocks.is_within() {
            self.block_at.set(None);
        }
        if let Err(fault) = ended {
            self.fault(fault);
        }
    }

    fn end_noted(&self, kind: u8, stream: u32, payload: &[u8], out: &mut BytesMut) {
        match (kind, &self.ledger) {
            (WINDOW_UPDATE, _) if stream != 0 && is_nothing(payload) => {
                // An error of the stream (RFC 9113 §6.9), of the connection in `h2`, which has this as one of the stream: it depends on itself.
                Header { length: PRIORITY_BYTES, kind: PRIORITY, flags: 0, stream }.put(out);
                out.extend_from_slice(&stream.to_be_bytes());
                return out.extend_from_slice(&[0]);
            }
            (WINDOW_UPDATE, _) if stream != 0 => Header { length: payload.len(), kind, flags: 0, stream }.put(out),
            (WINDOW_UPDATE, Some(ledger)) => ledger.borrow_mut().heard_update(payload),
            (SETTINGS, Some(ledger)) => ledger.borrow_mut().heard_settings(payload),
            _ => return, // of a stream that is over
        }
        out.extend_from_slice(payload);
    }

    fn fault(&self, fault: Fault) {
        match fault {
            Fault::Compression => self.end("protocol", Reason::COMPRESSION_ERROR),
            Fault::Frame => self.end("protocol", Reason::PROTOCOL_ERROR),
            Fault::Closed => self.end("protocol", Reason::STREAM_CLOSED),
            Fault::Fresh => self.set_flood("stream"),
            Fault::Bomb => self.set_flood("head-size"),
        }
    }

    fn begin_block(&self, header: Header, out: &mut BytesMut) {
        if let Err(fault) = self.blocks.borrow_mut().begin(header.kind, header.flags, header.stream) {
            return self.fault(fault);
        }
        self.collecting.set(Some((header.kind, header.stream)));
        if self.block_at.get().is_none() {
            self.block_at.set(Some(Instant::now()));
        }
        if header.length == 0 {
            self.end_payload(&[], out);
        }
    }

    fn frame(&self, bytes: [u8; HEADER], out: &mut BytesMut) {
        if self.first.replace(false) && bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.set_flood(if bytes.starts_with(b"HTTP/1.") { "http1" } else { "text" }); // no floods, but as hopeless
        }
        let header = Header::new(bytes);
        self.skip.set(header.length);
        if header.length > MAX_FRAME as usize {
            return self.end("frame-size", Reason::FRAME_SIZE_ERROR);
        }
        if !has_legal_length(header) {
            return self.end("frame-size", Reason::FRAME_SIZE_ERROR); // `h2` would say PROTOCOL_ERROR
        }
        self.count(header);
        if self.is_flooded() {
            return;
        }
        self.ending.set(0);
        if header.kind == DATA && self.ledger.is_none() {
            self.blocks.borrow_mut().body(header.stream, out);
        }
        if header.kind == DATA && header.has(END_STREAM) {
            if self.ledger.is_none() {
                self.ending.set(header.stream);
            }
            self.blocks.borrow_mut().end(header.stream);
        }
        if header.kind == HEADERS && self.is_over(header.stream) {
            self.end("protocol", Reason::STREAM_CLOSED);
        } else if matches!(header.kind, HEADERS | CONTINUATION) {
            self.begin_block(header, out);
        } else if self.block_at.get().is_some() {
            self.fault(Fault::Frame); // nothing may come within a header block (RFC 9113 §4.3)
        } else if self.note(header) {
            out.extend_from_slice(&bytes);
        }
    }

    /// Count what floods are made of, and note what `h2` tells nobody.
    fn count(&self, header: Header) {
        let goes_on = header.kind == DATA && !header.has(END_STREAM);
        match header.kind {
            DATA if goes_on && header.length == 0 => self.count_control("empty-data"),
            DATA if goes_on && header.length == 1 && header.has(PADDED) => self.count_control("empty-data"),
            PRIORITY => self.count_control("priority"),
            DATA if header.has(PADDED) => {} // padding may be all that there is
            DATA => self.earn(1),
            RST_STREAM => {
                self.blocks.borrow_mut().cancel(header.stream);
                match self.resets_due.get() {
                    0 => self.count_control("reset"),
                    due => self.resets_due.set(due - 1),
                }
            }
            SETTINGS => {
                self.count_control("settings");
                if !header.has(ACK) && !self.settings.replace(true) {
                    self.wake();
                }
            }
            PUSH_PROMISE => self.end("push-promise", Reason::PROTOCOL_ERROR), // nobody may push here
            PING => self.count_control("ping"),
            WINDOW_UPDATE if self.updates.get() > 0 => self.updates.set(self.updates.get() - 1),
            WINDOW_UPDATE => self.count_control("window-update"),
            GOAWAY if self.block_at.get().is_none() => {
                self.goaway.set(true);
                self.wake();
            }
            GOAWAY => {} // it may not come here, which is what counts
            CONTINUATION => {
                self.continuations.set(if header.has(END_HEADERS) { 0 } else { self.continuations.get() + 1 });
                if self.continuations.get() > self.max_continuations {
                    self.set_flood("continuation");
                }
            }
            HEADERS => {
                self.heads.set(self.heads.get() + u32::from(self.ledger.is_some()));
                self.begins();
            }
            _ => self.count_control("unknown"),
        }
    }

    /// Whether a stream was of an `h2` before this one.
    fn is_over(&self, stream: u32) -> bool {
        stream != 0 && stream <= self.rested_at.get()
    }

    /// Keep what must outlive `h2`; returns whether the frame is for it.
    fn note(&self, header: Header) -> bool {
        let collect = |kind| self.collecting.set((header.length > 0).then_some((kind, header.stream)));
        if header.kind == WINDOW_UPDATE && header.stream != 0 && !self.is_over(header.stream) {
            collect(WINDOW_UPDATE);
            return false;
        }
        let Some(ledger) = &self.ledger else { return true };
        let is_over = self.is_over(header.stream);
        match header.kind {
            DATA if is_over => {
                self.end("protocol", Reason::STREAM_CLOSED);
                return false;
            }
            DATA => ledger.borrow_mut().heard_data(header.length),
            SETTINGS if header.has(ACK) => ledger.borrow_mut().heard_ack(),
            RST_STREAM | WINDOW_UPDATE if is_over => {
                collect(RST_STREAM);
                return false;
            }
            SETTINGS => collect(SETTINGS),
            WINDOW_UPDATE if header.stream == 0 => collect(WINDOW_UPDATE),
            _ => {}
        }
        true
    }

    /// Whether nothing is under way, so that `h2` may go. `window`: of the connection, as we announce it.
    pub fn may_rest(&self, window: u32) -> bool {
        let Some(ledger) = &self.ledger else { return false };
        let is_between = self.header.borrow().is_empty() && self.skip.get() == 0 && self.block_at.get().is_none();
        is_between
            && !self.is_flooded()
            && !self.has_goaway()
            && self.blocks.borrow().is_idle()
            && ledger.borrow().may_rest(window)
    }

    /// What a new `h2` is to read first.
    pub fn wake_up(&self) -> BytesMut {
        self.rested_at.set(self.blocks.borrow().last());
        self.ledger.as_ref().map_or_else(BytesMut::new, |ledger| ledger.borrow_mut().wake())
    }

    /// Whether a new `h2` has yet to say what the peer knows.
    pub fn is_waking(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.borrow().is_filtering())
    }

    /// What goes out is noted there.
    pub fn ledger(&self) -> Option<&RefCell<Ledger>> {
        self.ledger.as_ref()
    }

    fn count_control(&self, kind: &'static str) {
        if self.earned.get() > 0 {
            return self.earned.set(self.earned.get() - 1);
        }
        self.spend(&self.control, kind);
    }
}

/// Whether a window is to grow by 0.
fn is_nothing(increment: &[u8]) -> bool {
    matches!(increment, [0 | 0x80, 0, 0, 0]) // the first bit is reserved
}

/// Whether a frame of a fixed size has it (RFC 9113 §6.3 to §6.9).
fn has_legal_length(header: Header) -> bool {
    match header.kind {
        PRIORITY => header.length == PRIORITY_BYTES,
        RST_STREAM | WINDOW_UPDATE => header.length == 4,
        PING => header.length == 8,
        SETTINGS if header.has(ACK) => header.length == 0,
        SETTINGS => header.length % 6 == 0,
        GOAWAY => header.length >= 8,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut data = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        data.resize(HEADER + length, 0);
        data
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let data = [frame(4, 0, 12), frame(0, 0, 300), frame(7, 0, 8)].concat();
        for size in [1, 2, 7, 9, 64, 1_000] {
            let filter = FrameFilter::new(&Limits::default(), Side { is_server: true, is_own: false });
            let mut out = BytesMut::new();
            data.chunks(size).for_each(|piece| filter.feed(piece, &mut out));
            assert_eq!(out, data);
            assert!(filter.has_settings() && filter.has_goaway() && !filter.is_flooded());
        }
    }

    #[test]
    fn floods_are_named() {
        for (kind, flags, length, name) in [
            (3, 0, 4, "reset"),
            (6, 0, 8, "ping"),
            (4, 0, 0, "settings"),
            (2, 0, 5, "priority"),
            (0, 0, 0, "empty-data"),
            (9, 0, 1, "continuation"),
        ] {
            let filter = FrameFilter::new(&Limits::default(), Side { is_server: false, is_own: false });
            let mut out = BytesMut::new();
            if kind == 9 {
                filter.feed(&frame(1, 0, 0), &mut out);
            }
            for _ in 0..2_500 {
                filter.feed(&frame(kind, flags, length), &mut out);
            }
            assert_eq!(filter.flood.get().map(|flood| flood.kind), Some(name));
        }
    }
}
