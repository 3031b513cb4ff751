//! Finds HTTP/2 connections that are dead and nobody said so: a ping where calls wait and nothing was heard, an eye on header blocks
//! that never end.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::http2::frame_filter::FrameFilter;
use crate::limits::Limits;

const TICK: Duration = Duration::from_secs(1);
/// The same of a proxy of ours, which may be asked soon and often whether it is alive; others count PINGs.
const WATCH_TICK: Duration = Duration::from_millis(250);
/// Of silence of a proxy of ours for which calls wait.
const FIRST_SILENCE: Duration = Duration::from_millis(500);
/// Without an answer to the PING: others should take the next calls.
const DOUBT: Duration = Duration::from_millis(500);

/// Times as long an app and those who call us as one may take for a PING: one that is debugged stands still.
const OWN_PATIENCE: u32 = 12;

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
    /// Of silence with calls, then a PING: grows to `longest` with each answer, as the other end is alive.
    silence: Duration,
    first: Duration,
    longest: Duration,
    answer: Duration,
    is_watched: bool,
    /// When there was a look and no call.
    idle_at: Instant,
    /// Calls begun at the last look.
    begun: u32,
}

/// The calls of a connection. `begun`: how many there ever were, counted up to any number.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    pub has_some: bool,
    pub begun: u32,
}

impl Pulse {
    /// Nothing asked yet. `is_own`: our app is at the other end, or who calls us as one; `is_watched`: a proxy of ours.
    pub fn new(ping: Option<PingPong>, limits: &Limits, is_own: bool, is_watched: bool) -> Self {
        let tick = if is_watched { WATCH_TICK } else { TICK };
        let mut ticks = interval_at(tokio::time::Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (head, longest) = (limits.head, limits.ping);
        let answer = limits.pong * if is_own { OWN_PATIENCE } else { 1 };
        let first = if is_watched { FIRST_SILENCE.min(longest) } else { longest };
        let idle_at = Instant::now();
        Self { ticks, ping, asked_at: None, head, silence: first, first, longest, answer, is_watched, idle_at, begun: 0 }
    }

    /// Calls wait for a proxy of ours that does not answer a PING.
    pub fn is_doubtful(&self) -> bool {
        self.is_watched && self.asked_at.is_some_and(|asked| asked.elapsed() > DOUBT)
    }

    /// Ready with a kind where the connection must end.
    pub fn poll(&mut self, cx: &mut Context<'_>, filter: &FrameFilter, calls: Calls) -> Poll<&'static str> {
        if let (Some(_), Some(ping)) = (self.asked_at, &mut self.ping) {
            if ping.poll_pong(cx).is_ready() {
                self.asked_at = None;
                self.silence = (self.silence * 2).min(self.longest);
            }
        }
        while self.ticks.poll_tick(cx).is_ready() {
            if filter.block_at().is_some_and(|begun| begun.elapsed() > self.head) {
                return Poll::Ready(HEAD_TIMEOUT);
            }
            if !calls.has_some {
                self.idle_at = Instant::now();
            }
            if std::mem::replace(&mut self.begun, calls.begun) != calls.begun {
                self.silence = self.first;
            }
            let is_silent = calls.has_some && filter.heard_at().max(self.idle_at).elapsed() > self.silence;
            match (self.asked_at, &mut self.ping) {
                (Some(asked), _) if asked.elapsed() > self.answer => return Poll::Ready(UNANSWERED),
                (None, Some(ping)) if is_silent => {
                    self.asked_at = ping.send_ping(Ping::opaque()).is_ok().then(Instant::now);
                    drop(ping.poll_pong(cx)); // to be woken by the answer
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}
