//! A callee's end whose answer is harmed on purpose: it breaks off, or comes slowly. Equal to `FaultyAnswer` in `portable/faults.py`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use crate::call::cause::Cause;
use crate::call::ends::{Answer, Lost, Part, Up};
use crate::call::gates::fault::{Harm, Hit};
use crate::fields::Headers;

const PIECES_A_SECOND: f64 = 20.0; // of a slow answer

/// Where an answer breaks off.
#[derive(Debug, PartialEq)]
enum Cut {
    Never,
    /// So many bytes are left.
    After(u64),
    Now,
}

pub struct FaultyUp {
    up: Up,
    cut: Cut,
    /// Bytes a second.
    rate: Option<f64>,
    /// When more may come.
    due: Option<Pin<Box<Sleep>>>,
    /// What was read and waits for that.
    rest: Option<Bytes>,
}

impl FaultyUp {
    /// The same end, harmed where one of the hits says so.
    pub fn around(up: Up, hits: &[Hit]) -> Up {
        let (mut cut, mut rate) = (Cut::Never, None::<f64>);
        for hit in hits {
            match hit.harm {
                Harm::Cut(None) => cut = Cut::Now,
                Harm::Cut(Some(after)) if cut != Cut::Now => {
                    cut = Cut::After(if let Cut::After(least) = cut { least.min(after) } else { after });
                }
                Harm::Slow(bytes) => rate = Some(rate.map_or(bytes, |least| least.min(bytes))),
                _ => {}
            }
        }
        if cut == Cut::Never && rate.is_none() {
            return up;
        }
        Up::Faulty(Box::new(Self { up, cut, rate, due: None, rest: None }))
    }

    pub fn part(self) {
        self.up.part();
    }

    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Lost>> {
        self.up.poll_room(cx, want)
    }

    pub fn send(&mut self, data: Bytes, last: bool) {
        self.up.send(data, last);
    }

    pub fn finish(&mut self, trailers: Option<Headers>) {
        self.up.finish(trailers);
    }

    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Lost>> {
        self.up.poll_head(cx)
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Lost>> {
        if self.cut == Cut::Now {
            return Poll::Ready(Err(Lost::new(Cause::ResetLate, "injected by a fault")));
        }
        if let Some(due) = &mut self.due {
            ready!(due.as_mut().poll(cx));
            self.due = None;
        }
        let part = match self.rest.take() {
            Some(rest) => Part::Data(rest),
            None => ready!(self.up.poll_body(cx))?,
        };
        let Part::Data(mut data) = part else { return Poll::Ready(Ok(part)) };
        if let Some(rate) = self.rate {
            let most = (rate / PIECES_A_SECOND).max(1.0) as usize;
            if data.len() > most {
                self.rest = Some(data.split_off(most));
            }
            let pause = Duration::try_from_secs_f64(data.len() as f64 / rate).unwrap_or(Duration::MAX);
            self.due = Some(Box::pin(tokio::time::sleep(pause)));
        }
        if let Cut::After(left) = &mut self.cut {
            let there = data.len() as u64;
            if there > *left {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                self.cut = Cut::Now;
                if data.is_empty() {
                    return self.poll_body(cx);
                }
            } else {
                *left -= there;
            }
        }
        Poll::Ready(Ok(Part::Data(data)))
    }

    pub fn is_read(&self) -> bool {
        self.rest.is_none() && self.cut != Cut::Now && self.up.is_read()
    }

    pub fn release(&mut self, count: usize) {
        self.up.release(count);
    }

    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        self.up.poll_drive(cx)
    }
}
