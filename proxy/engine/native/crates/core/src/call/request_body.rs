//! A call's request body, kept where another attempt would send it again, and how far each attempt has sent it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::call::ends::{Down, Gone, Part, Up};
use crate::decision::edits::{self, Edits};
use crate::fields::Headers;

/// What came of sending it on.
pub enum Pumped {
    /// All of the request was given.
    Whole,
    Gone(Gone),
    Lost,
    TooLarge(u64),
}

/// A call's request body as far as it was read. `saved`: what another attempt would send again. `spent`: some of it was let go of, so it
/// is the one attempt's that has it.
pub struct RequestBody {
    pub bytes: u64,
    pub replay_limit: usize,
    pub spent: bool,
    /// It is sent on in upper case.
    pub upper: bool,
    pub ended: bool,
    saved: Vec<Bytes>,
    saved_bytes: usize,
    room: Arc<ReplayRoom>,
    trailers: Option<Headers>,
    released: u64,
}

impl RequestBody {
    /// `ended`: known to be none.
    pub fn new(ended: bool, room: Arc<ReplayRoom>) -> Self {
        Self {
            bytes: 0,
            replay_limit: 0,
            spent: false,
            upper: false,
            saved: Vec::new(),
            saved_bytes: 0,
            room,
            ended,
            trailers: None,
            released: 0,
        }
    }

    /// How much of it is held.
    pub fn held_bytes(&self) -> usize {
        self.saved_bytes
    }

    /// Some of it came. `keep`: another attempt may send it again; returns whether it was kept for that.
    fn arrive(&mut self, data: &Bytes, keep: bool) -> bool {
        if keep && !self.spent && self.bytes <= self.replay_limit as u64 && self.room.take(data.len()) {
            self.saved.push(data.clone());
            self.saved_bytes += data.len();
            return true;
        }
        self.spent = true;
        self.saved.clear();
        self.room.give_back(std::mem::take(&mut self.saved_bytes));
        false
    }

    /// So many bytes left for a callee: the caller may send as many more, once, however many attempts send them.
    fn release(&mut self, drained: u64, down: &mut Down) {
        if drained > self.released {
            down.release((drained - self.released) as usize);
            self.released = drained;
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.room.give_back(self.saved_bytes);
    }
}

/// What the bodies of all calls may hold for another attempt; all workers share it.
#[derive(Debug)]
pub struct ReplayRoom {
    most: usize,
    held: AtomicUsize,
}

impl ReplayRoom {
    /// For so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: AtomicUsize::new(0) })
    }

    /// Room for so many bytes more; false: there is none.
    fn take(&self, count: usize) -> bool {
        let before = self.held.fetch_add(count, Ordering::Relaxed);
        if before + count > self.most {
            self.give_back(count);
            return false;
        }
        true
    }

    fn give_back(&self, count: usize) {
        if count > 0 {
            self.held.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// ASCII letters in upper case, all other bytes as they are.
pub fn in_upper_case(data: Bytes) -> Bytes {
    let mut data = BytesMut::from(data);
    data.make_ascii_uppercase();
    data.freeze()
}

/// How far one attempt has sent the body. `at`: what it was given of what is saved.
#[derive(Default)]
pub struct BodyCursor {
    at: usize,
    pending: Bytes,
    drained: u64,
    told_end: bool,
}

impl BodyCursor {
    /// At the body's start; also whether there is nothing to send.
    pub fn new(body: &RequestBody) -> (Self, bool) {
        let end = body.ended && body.saved.is_empty() && body.trailers.is_none();
        (Self { told_end: end, ..Self::default() }, end)
    }

    /// Whether all that came went on: more is for the caller to send.
    pub fn is_drained(&self, body: &RequestBody) -> bool {
        !body.ended && self.pending.is_empty() && self.at >= body.saved.len()
    }

    /// Send on what there is of it: what was saved, then what comes. `keep`: another attempt may send it again.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (body, down): (&mut RequestBody, &mut Down),
        up: &mut Up,
        limit: Option<u64>,
        edits: &Edits,
        keep: bool,
    ) -> Poll<Pumped> {
        loop {
            while !self.pending.is_empty() {
                let room = match up.poll_room(cx, self.pending.len()) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(room)) => room,
                    Poll::Ready(Err(_)) => return Poll::Ready(Pumped::Lost),
                };
                let chunk = self.pending.split_to(room.min(self.pending.len()));
                self.drained += chunk.len() as u64;
                self.told_end = body.ended && self.pending.is_empty() && self.at == body.saved.len() && body.trailers.is_none();
                up.send(if body.upper { in_upper_case(chunk) } else { chunk }, self.told_end);
                body.release(self.drained, down);
            }
            if self.at < body.saved.len() {
                self.pending = body.saved[self.at].clone();
                self.at += 1;
                continue;
            }
            if body.ended {
                if !self.told_end {
                    self.told_end = true;
                    up.finish(body.trailers.clone().and_then(|trailers| edits::trailers(Some(edits), trailers)));
                }
                return Poll::Ready(Pumped::Whole);
            }
            match down.poll_body(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(gone)) => return Poll::Ready(Pumped::Gone(gone)),
                Poll::Ready(Ok(Part::End(trailers))) => (body.ended, body.trailers) = (true, trailers),
                Poll::Ready(Ok(Part::Data(data))) => {
                    body.bytes += data.len() as u64;
                    if let Some(limit) = limit.filter(|limit| body.bytes > *limit) {
                        return Poll::Ready(Pumped::TooLarge(limit));
                    }
                    self.at = if body.arrive(&data, keep) { self.at + 1 } else { 0 };
                    self.pending = data;
                    body.ended = down.is_read();
                }
            }
        }
    }
}
