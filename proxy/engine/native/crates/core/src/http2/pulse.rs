//! Finds HTTP/2 connections that are dead and nobody said so: a ping where calls wait and nothing was heard, an eye on header blocks
//! that never end.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::http2::frame_filter::FrameFilter;
use crate::limits::Limits;

const TICK: Duration = Duration::from_secs(1);

/// A header block took too long: the peer is told.
pub const HEAD_TIMEOUT: &str = "head-timeout";
/// Nobody is there: there is nothing to tell.
pub const UNANSWERED: &str = "ping-unanswered";

/// The watch over one connection.
pub struct Pulse {
    ticks: Interval,
    ping: Option<PingPong>,
    asked_at: Option<Instant>,
    head: Duration,
    silence: Duration,
    answer: Duration,
}

impl Pulse {
    /// Nothing asked yet.
    pub fn new(ping: Option<PingPong>, limits: &Limits) -> Self {
        let mut ticks = interval_at(tokio::time::Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, ping, asked_at: None, head: limits.head, silence: limits.ping, answer: limits.pong }
    }

    /// Ready with a kind where the connection must end.
    pub fn poll(&mut self, cx: &mut Context<'_>, filter: &FrameFilter, has_calls: bool) -> Poll<&'static str> {
        if let (Some(_), Some(ping)) = (self.asked_at, &mut self.ping) {
            if ping.poll_pong(cx).is_ready() {
                self.asked_at = None;
            }
        }
        while self.ticks.poll_tick(cx).is_ready() {
            if filter.block_at().is_some_and(|begun| begun.elapsed() > self.head) {
                return Poll::Ready(HEAD_TIMEOUT);
            }
            match (self.asked_at, &mut self.ping) {
                (Some(asked), _) if asked.elapsed() > self.answer => return Poll::Ready(UNANSWERED),
                (None, Some(ping)) if has_calls && filter.heard_at().elapsed() > self.silence => {
                    self.asked_at = ping.send_ping(Ping::opaque()).is_ok().then(Instant::now);
                    drop(ping.poll_pong(cx)); // to be woken by the answer
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}
