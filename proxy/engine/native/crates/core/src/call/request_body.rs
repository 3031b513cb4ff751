//! A call's request body: pumped up to the callee, and kept where another attempt would send it again.

use std::task::{Context, Poll};

use bytes::Bytes;

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

/// The request body as far as it was read. `saved`: what another attempt would send again. `spent`: some of it was let go of.
pub struct RequestBody {
    pub bytes: u64,
    pub replay_limit: usize,
    pub spent: bool,
    saved: Vec<Bytes>,
    ended: bool,
    trailers: Option<Headers>,
    at: usize,
    pending: Bytes,
    told_end: bool,
    drained: u64,
    released: u64,
}

impl RequestBody {
    /// `ended`: known to be none.
    pub fn new(ended: bool) -> Self {
        Self {
            bytes: 0,
            replay_limit: 0,
            spent: false,
            saved: Vec::new(),
            ended,
            trailers: None,
            at: 0,
            pending: Bytes::new(),
            told_end: false,
            drained: 0,
            released: 0,
        }
    }

    /// Begin it again, for another attempt; returns whether there is nothing to send.
    pub fn rewind(&mut self) -> bool {
        (self.at, self.drained, self.pending, self.told_end) = (0, 0, Bytes::new(), false);
        let end = self.ended && self.saved.is_empty() && self.trailers.is_none();
        self.told_end = end;
        end
    }

    /// Whether all that came went on: more is for the caller to send.
    pub fn is_drained(&self) -> bool {
        !self.ended && self.pending.is_empty() && self.at >= self.saved.len()
    }

    /// Nothing of it is sent again.
    pub fn let_go(&mut self) {
        self.spent = true;
        self.saved.clear();
        self.at = 0;
    }

    /// Send on what there is of it: what was saved, then what comes. `keep`: another attempt may send it again.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down,
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
                self.told_end = self.ended && self.pending.is_empty() && self.at == self.saved.len() && self.trailers.is_none();
                up.send(chunk, self.told_end);
                if self.drained > self.released {
                    down.release((self.drained - self.released) as usize);
                    self.released = self.drained;
                }
            }
            if self.at < self.saved.len() {
                self.pending = self.saved[self.at].clone();
                self.at += 1;
                continue;
            }
            if self.ended {
                if !self.told_end {
                    self.told_end = true;
                    up.finish(self.trailers.clone().and_then(|trailers| edits::trailers(Some(edits), trailers)));
                }
                return Poll::Ready(Pumped::Whole);
            }
            match down.poll_body(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(gone)) => return Poll::Ready(Pumped::Gone(gone)),
                Poll::Ready(Ok(Part::End(trailers))) => (self.ended, self.trailers) = (true, trailers),
                Poll::Ready(Ok(Part::Data(data))) => {
                    self.bytes += data.len() as u64;
                    if let Some(limit) = limit.filter(|limit| self.bytes > *limit) {
                        return Poll::Ready(Pumped::TooLarge(limit));
                    }
                    if keep && !self.spent && self.bytes <= self.replay_limit as u64 {
                        self.saved.push(data.clone());
                        self.at += 1;
                    } else {
                        self.let_go();
                    }
                    self.pending = data;
                    self.ended = down.is_read();
                }
            }
        }
    }
}
