//! The seam to the side that decides: one worker's questions, outcomes and notices, each in a bounded queue; `inboxes.rs` reads them.
//!
//! A worker only ever pushes here and goes on; whoever answers does so in its own time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::call::breakers::{State, Turn};
use crate::call::cause::Cause;
use crate::call::not_retried::NotRetried;
use crate::call::outliers::EndpointTurn;
use crate::connection::refusal::Refusal;
use crate::decision::edits::Edits;
use crate::decision::plan::{Reply, Token, Verdict};
use crate::decision::trace::Span;
use crate::head::Head;
use crate::seam::inboxes::Bell;
use crate::seam::lines::{Lines, Wanted};
use crate::seam::news::{Board, News};
use crate::seam::spans::{self, Added, Piece, Spans};
use crate::seam::tally::{Bounds, Kind, Tallies, Tally};

const MAX_OUTCOMES: usize = 65_536; // about two seconds of calls; further ones are counted and dropped
const MAX_FAILURES: usize = 16; // that wait to be told one by one: a callee that is down must not cost its callers more than others
const MAX_DENIALS: usize = 1_024; // the same for calls that a rule denied, each of which is to have its line in the log
const MAX_SPANS: usize = 4_096; // of calls that are in the sums already; a head each
const MAX_KEPT: usize = 4; // of calls that were not sampled, between two visits: an app that fails all of them costs no more than this
const MAX_NOTICES: usize = 16_384;

/// What only the other side can say. An answer that is dropped fails the one call that waits for it.
#[derive(Debug)]
pub enum Question {
    /// What to do about a head that no kept decision covers; answered with how many commands were sent by then.
    Decide { head: Arc<Head>, answer: oneshot::Sender<(Verdict, u64)> },
    /// The class of a head's path in a table; `None` where there is none of that number. With the commands sent by then.
    Class { head: Arc<Head>, table: u32, answer: oneshot::Sender<(Option<u64>, u64)> },
    /// This hop's span.
    Span { head: Arc<Head>, answer: oneshot::Sender<Span> },
    /// The ready-made answer of a Plan for a cause.
    Reply { token: u64, cause: Cause, answer: oneshot::Sender<Box<Reply>> },
    /// An answer given before any decision: a bad request (with the reason), or a deadline that has passed.
    Undecided { head: Arc<Head>, bad_request: Option<String>, answer: oneshot::Sender<Box<Reply>> },
    /// The next pauses, in seconds, of one call under a Plan's retry rule; none: no more attempts. `anew`: from its first on.
    Pauses { call: u64, token: u64, rule: usize, anew: bool, answer: oneshot::Sender<Vec<f64>> },
    /// What was tried to find a cluster.
    Explain { key: Arc<str>, answer: oneshot::Sender<String> },
    /// Whether the authorizers of a Plan let a call go on.
    Authorize { head: Arc<Head>, token: u64, answer: oneshot::Sender<Authorized> },
    /// Whose a verified chain's leaf is.
    Verify { der: Vec<u8>, as_server: bool, answer: oneshot::Sender<Result<Leaf, Refusal>> },
}

/// What came of asking authorizers: see `proxy/contract/authorizing.py`.
#[derive(Debug)]
pub enum Authorized {
    /// Edits of the request, and of its answer.
    Granted(Box<(Edits, Edits)>),
    Refused(Box<Reply>),
    /// Why nobody could say.
    Unanswered(String),
}

/// A peer's leaf: whose it is, and when it ends.
#[derive(Debug)]
pub struct Leaf {
    pub spiffe_id: String,
    pub ends_at: SystemTime,
}

/// One try at one endpoint; times are epoch nanoseconds, 0 where it did not come to that.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    pub endpoint: Arc<str>,
    pub started_ns: u64,
    pub head_ns: u64,
    pub ended_ns: u64,
    pub cause: Option<Cause>,
    pub status: u16,
    pub grpc_code: Option<u32>,
    pub detail: String,
    /// By the peer's proxy, of an answer that it made in its app's place.
    pub said: Option<Cause>,
    /// When it had a connection.
    pub sent_ns: u64,
    /// How long it waited at the limits of its route.
    pub queue_ns: u64,
    /// The faults that were injected into it, with commas between.
    pub fault: Arc<str>,
}

impl Attempt {
    /// It ended, unless it had before.
    pub fn end(&mut self, now_ns: u64, cause: Option<Cause>, detail: &str) {
        if self.ended_ns == 0 {
            self.ended_ns = now_ns;
            self.cause = cause;
            detail.clone_into(&mut self.detail);
        }
    }
}

impl Outcome {
    /// Whether a proxy ended the call, here or at the peer's.
    fn is_failure(&self) -> bool {
        let is_peers = self.attempts.last().is_some_and(|attempt| attempt.said.is_some());
        is_peers || self.cause.is_some_and(|cause| !matches!(cause, Cause::CallerLeft | Cause::Status))
    }

    /// Whether its app failed the call, by its status or a code of gRPC that stands for one.
    fn is_apps_failure(&self) -> bool {
        self.status >= 500 || self.grpc_code.is_some_and(|code| matches!(code, 2 | 4 | 12..=15)) // UNKNOWN, DEADLINE_EXCEEDED, and UNIMPLEMENTED to DATA_LOSS
    }

    /// Whether it met a circuit breaker that was not closed, or turned one, and still was carried.
    fn is_probe(&self) -> bool {
        self.breaker.is_some_and(|met| met != (State::Closed, State::Closed)) && !self.attempts.is_empty()
    }

    fn is_slow(&self, slow_ns: u64) -> bool {
        let answered_ns = if self.head_ns > 0 { self.head_ns } else { self.ended_ns };
        slow_ns > 0 && answered_ns.saturating_sub(self.started_ns) >= slow_ns
    }
}

/// What came of one call. `decision`: whose labels it bears. `breaker`: how it found the circuit breaker that it asked first, and left it.
#[derive(Debug)]
pub struct Outcome {
    pub head: Arc<Head>,
    pub decision: Option<Arc<Token>>,
    pub span: Option<Span>,
    pub started_ns: u64,
    pub head_ns: u64,
    pub ended_ns: u64,
    pub status: u16,
    pub grpc_code: Option<u32>,
    pub cause: Option<Cause>,
    pub attempts: Vec<Attempt>,
    pub up_bytes: u64,
    pub down_bytes: u64,
    pub breaker: Option<(State, State)>,
    pub not_retried: Option<NotRetried>,
    /// How long it waited for its callee to be found.
    pub resolve_ns: u64,
    /// At limits before its first attempt.
    pub queue_ns: u64,
    /// How long it waited for external authorizers; 0: it asked none.
    pub authorize_ns: u64,
    /// The call's, as news of it have.
    pub number: u64,
}

/// News of connections, and of circuit breakers.
#[derive(Debug)]
pub enum Notice {
    Connection {
        listener: Arc<str>,
        change: i8,
    },
    /// `who` sent them, for people; empty where nobody can tell.
    RefusedFrames {
        kind: &'static str,
        who: Arc<str>,
    },
    RefusedPeer {
        listener: Arc<str>,
        refusal: Refusal,
        address: Arc<str>,
    },
    UpstreamConnected {
        cluster: Arc<str>,
        connect: Duration,
        /// Zero without TLS.
        tls: Duration,
    },
    /// Waiting for the callee to be found, queueing, waiting for authorizers where any were asked, to the answer's head, to its end, and the rest. `token`: of the call's decision.
    Phased {
        token: Arc<Token>,
        phases: [Option<Duration>; 6],
    },
    BreakerTurned(Turn),
    EndpointTurned(EndpointTurn),
    UpstreamFailed {
        cluster: Arc<str>,
        address: Arc<str>,
        reason: String,
    },
}

/// Numbers for status, written by one worker and read anywhere.
#[derive(Debug, Default)]
pub struct Stats {
    pub connections: AtomicI64,
    pub calls: AtomicI64,
    pub plans: AtomicI64,
    pub upstream: AtomicI64,
    /// Outcomes and notices that found their queue full.
    pub dropped: AtomicU64,
    /// Spans of calls that are in the sums, lost likewise.
    pub spans_lost: AtomicU64,
    /// Heads that a kept decision covered, and that none did.
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

/// Sums of calls; none while every call is wanted by itself.
#[derive(Default)]
struct TallyState {
    bounds: Option<Bounds>,
    tallies: Tallies,
}

/// The queues.
pub struct Inbox {
    questions: Mutex<VecDeque<Question>>,
    outcomes: Mutex<VecDeque<Outcome>>,
    spans: Mutex<VecDeque<Outcome>>,
    own_spans: Mutex<Spans>,
    tally_state: Mutex<TallyState>,
    lines: Mutex<Lines>,
    notices: Mutex<VecDeque<Notice>>,
    news: Mutex<Board>,
    bell: Arc<Bell>,
    prompt: bool,
    pub stats: Stats,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Empty queues. `prompt`: reports ring the bell too, not only questions.
    pub fn new(bell: Arc<Bell>, prompt: bool) -> Arc<Self> {
        Arc::new(Self {
            questions: Mutex::default(),
            outcomes: Mutex::default(),
            spans: Mutex::default(),
            own_spans: Mutex::default(),
            tally_state: Mutex::default(),
            lines: Mutex::default(),
            notices: Mutex::default(),
            news: Mutex::default(),
            bell,
            prompt,
            stats: Stats::default(),
        })
    }

    /// Ask; the answer comes over the question's own channel.
    pub fn ask(&self, question: Question) {
        lock(&self.questions).push_back(question);
        self.bell.ring();
    }

    /// Tell what came of a call. It may lie until somebody looks for another reason, or for a while.
    pub fn tell(&self, outcome: Outcome) {
        lock(&self.lines).add(&outcome);
        match self.add_up(&outcome) {
            None => Self::queue(&self.outcomes, outcome, MAX_OUTCOMES, &self.stats.dropped),
            Some(_) if outcome.span.as_ref().is_some_and(Span::is_sampled) => {
                let added = lock(&self.own_spans).add(outcome);
                match added {
                    Added::Taken => {}
                    Added::Lost => drop(self.stats.spans_lost.fetch_add(1, Ordering::Relaxed)),
                    Added::NotHere(outcome) => Self::queue(&self.spans, outcome, MAX_SPANS, &self.stats.spans_lost),
                }
            }
            Some(slow_ns) if outcome.is_apps_failure() || outcome.is_slow(slow_ns) => {
                let mut spans = lock(&self.spans);
                if spans.len() < MAX_KEPT {
                    spans.push_back(outcome);
                }
            }
            Some(_) => {}
        }
        if self.prompt {
            self.bell.ring();
        }
    }

    fn queue<T>(queue: &Mutex<VecDeque<T>>, told: T, most: usize, lost: &AtomicU64) {
        let mut queue = lock(queue);
        if queue.len() < most {
            queue.push_back(told);
        } else {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Put a call into the sums, and say what is slow among them; `None`: it is told by itself. One that was refused by a rule, failed
    /// otherwise or was retried is, for the log, until so many wait to be told.
    fn add_up(&self, outcome: &Outcome) -> Option<u64> {
        let token = outcome.decision.as_ref()?;
        let most_waiting = match outcome.cause {
            _ if outcome.attempts.len() > 1 || outcome.is_probe() => MAX_OUTCOMES,
            Some(Cause::Denied) => MAX_DENIALS,
            _ if outcome.is_failure() => MAX_FAILURES,
            _ => 0,
        };
        if most_waiting > 0 && lock(&self.outcomes).len() < most_waiting {
            return None;
        }
        let TallyState { bounds, tallies } = &mut *lock(&self.tally_state);
        let bounds = bounds.as_ref()?;
        tallies.add(outcome, token, bounds).then_some(bounds.slow_ns)
    }

    /// Add calls up from now on, or tell each by itself.
    pub fn set_bounds(&self, bounds: Option<Bounds>) {
        let mut state = lock(&self.tally_state);
        if let Some(bounds) = &bounds {
            state.tallies.fit(bounds);
        }
        state.bounds = bounds;
    }

    /// Write lines of calls from now on, or none.
    pub fn set_lines(&self, wanted: Option<Arc<Wanted>>) {
        lock(&self.lines).set(wanted);
    }

    /// The lines since this was last asked, and how many were lost.
    pub fn take_lines(&self) -> (Vec<u8>, u64) {
        lock(&self.lines).take()
    }

    /// Take spans of calls that are in the sums from now on, or leave them to the other side.
    pub fn set_spans(&self, wanted: Option<Arc<spans::Wanted>>) {
        lock(&self.own_spans).set(wanted);
    }

    /// Spans written since this was last asked, oldest first.
    pub fn take_written(&self) -> VecDeque<Piece> {
        lock(&self.own_spans).take_written()
    }

    /// At most `most` of the sampled calls whose spans were taken, oldest first.
    pub fn take_recent(&self, most: usize) -> Vec<Outcome> {
        lock(&self.own_spans).take_recent(most)
    }

    /// Tell whoever looks of a call that goes on.
    pub fn tell_news(&self, news: News) {
        lock(&self.news).add(news);
        if self.prompt {
            self.bell.ring();
        }
    }

    /// All of it, oldest first, and how much was lost.
    pub fn take_news(&self) -> (VecDeque<News>, u64) {
        lock(&self.news).take()
    }

    /// Tell news of connections.
    pub fn note(&self, notice: Notice) {
        Self::queue(&self.notices, notice, MAX_NOTICES, &self.stats.dropped);
        if self.prompt {
            self.bell.ring();
        }
    }

    /// The oldest question.
    pub fn take_question(&self) -> Option<Question> {
        lock(&self.questions).pop_front()
    }

    /// At most `most` outcomes, oldest first.
    pub fn take_outcomes(&self, most: usize) -> Vec<Outcome> {
        let mut outcomes = lock(&self.outcomes);
        let count = most.min(outcomes.len());
        outcomes.drain(..count).collect()
    }

    /// At most `most` calls that are in the sums and whose spans are to be recorded, oldest first.
    pub fn take_spans(&self, most: usize) -> Vec<Outcome> {
        let mut spans = lock(&self.spans);
        let count = most.min(spans.len());
        spans.drain(..count).collect()
    }

    /// The sums since this was last asked.
    pub fn take_tallies(&self) -> impl Iterator<Item = (Kind, Tally)> + use<> {
        lock(&self.tally_state).tallies.take().into_iter()
    }

    /// A head was covered by a kept decision, or not.
    pub fn count_lookup(&self, hit: bool) {
        let count = if hit { &self.stats.hits } else { &self.stats.misses };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// All notices, oldest first.
    pub fn take_notices(&self) -> Vec<Notice> {
        lock(&self.notices).drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::decision::plan::ReleasedTokens;
    use crate::fields::Headers;
    use crate::head::{self, Entry, Framing, Protocol, RawHead};
    use crate::seam::inboxes::Inboxes;

    fn outcome(cause: Option<Cause>, said: Option<Cause>) -> Outcome {
        let raw = RawHead {
            protocol: Protocol::Http1,
            method: Bytes::from_static(b"GET"),
            authority: Bytes::new(),
            target: Bytes::from_static(b"/x"),
            headers: Headers::new(),
            framing: Framing::None,
            length: None,
        };
        Outcome {
            head: Arc::new(head::read(raw, Entry { listener: "http".into(), peer: None, caller: None, address: "".into() }).0),
            decision: Some(Token::new(1, 1, ReleasedTokens::default())),
            span: None,
            started_ns: 0,
            head_ns: 0,
            ended_ns: 0,
            status: 0,
            grpc_code: None,
            cause,
            attempts: vec![Attempt { said, ..Attempt::default() }],
            up_bytes: 0,
            down_bytes: 0,
            breaker: None,
            not_retried: None,
            resolve_ns: 0,
            queue_ns: 0,
            authorize_ns: 0,
            number: 0,
        }
    }

    #[test]
    fn failures_are_told_one_by_one_and_many_at_once_are_added_up() {
        let inboxes = Inboxes::new(1, Box::new(|| ()), false);
        inboxes.set_bounds(Some(&Bounds::default()));
        let inbox = &inboxes.each()[0];
        for (cause, said) in [(None, None), (Some(Cause::CallerLeft), None), (Some(Cause::Status), None)] {
            inbox.tell(outcome(cause, said));
        }
        assert!(inbox.take_outcomes(100).is_empty());
        for (cause, said) in [(Some(Cause::Timeout), None), (None, Some(Cause::Denied))] {
            inbox.tell(outcome(cause, said));
        }
        assert_eq!(inbox.take_outcomes(100).len(), 2);
        for _ in 0..100 {
            inbox.tell(outcome(Some(Cause::Connect), None));
        }
        assert_eq!(inbox.take_outcomes(200).len(), MAX_FAILURES);
        for _ in 0..2 * MAX_DENIALS {
            inbox.tell(outcome(Some(Cause::Denied), None));
        }
        assert_eq!(inbox.take_outcomes(2 * MAX_DENIALS).len(), MAX_DENIALS);
        let counted: u64 = inboxes.take_tallies().iter().map(|(_, tally)| tally.calls).sum();
        assert_eq!(counted, (3 + 100 - MAX_FAILURES + MAX_DENIALS) as u64);
    }

    #[test]
    fn a_call_that_met_a_circuit_breaker_which_was_not_closed_is_told_by_itself() {
        let inboxes = Inboxes::new(1, Box::new(|| ()), false);
        inboxes.set_bounds(Some(&Bounds::default()));
        let inbox = &inboxes.each()[0];
        let (closed, half_open, open) = (State::Closed, State::HalfOpen, State::Open);
        for (met, told) in [((closed, closed), 0), ((closed, open), 1), ((half_open, half_open), 1), ((half_open, closed), 1)] {
            inbox.tell(Outcome { breaker: Some(met), ..outcome(None, None) });
            assert_eq!(inbox.take_outcomes(9).len(), told, "{met:?}");
        }
        for _ in 0..100 {
            inbox.tell(Outcome { breaker: Some((open, open)), attempts: vec![], ..outcome(Some(Cause::Breaker), None) });
        }
        assert_eq!(inbox.take_outcomes(200).len(), MAX_FAILURES); // refusals are cheap, and so is what is told of them
    }

    #[test]
    fn some_calls_that_an_app_failed_or_that_were_slow_are_told_beside_the_sums() {
        let inboxes = Inboxes::new(1, Box::new(|| ()), false);
        inboxes.set_bounds(Some(&Bounds { slow_ns: 100, ..Bounds::default() }));
        let inbox = &inboxes.each()[0];
        for (status, head_ns, ended_ns, told) in
            [(200, 99, 500, 0), (200, 100, 500, 1), (200, 0, 100, 1), (404, 1, 2, 0), (500, 1, 2, 1)]
        {
            inbox.tell(Outcome { head_ns, ended_ns, status, ..outcome(None, None) });
            assert_eq!(inbox.take_spans(9).len(), told, "{status} {head_ns} {ended_ns}");
        }
        for _ in 0..100 {
            inbox.tell(Outcome { status: 503, ..outcome(None, None) });
        }
        assert_eq!(inbox.take_spans(100).len(), MAX_KEPT);
        let counted: u64 = inboxes.take_tallies().iter().map(|(_, tally)| tally.calls).sum();
        assert_eq!(counted, 105);
    }

    #[test]
    fn calls_added_up_by_bounds_that_change_keep_their_number_and_lose_their_times() {
        let inboxes = Inboxes::new(1, Box::new(|| ()), false);
        let bounds = |latency_ms| Bounds { latency_ms, ..Bounds::default() };
        for latency_ms in [vec![1.0], vec![1.0, 2.0, 3.0]] {
            inboxes.set_bounds(Some(&bounds(latency_ms)));
            inboxes.each()[0].tell(outcome(None, None));
        }
        let (_, tally) = inboxes.take_tallies().pop().expect("one kind");
        assert_eq!((tally.calls, tally.to_end_ms.counts), (2, vec![1, 0, 0, 0]));
    }

    #[test]
    fn calls_under_equal_labels_are_added_up_together() {
        let inboxes = Inboxes::new(1, Box::new(|| ()), false);
        inboxes.set_bounds(Some(&Bounds::default()));
        for (decision, labels) in [(1, 1), (2, 1), (3, 3)] {
            let decision = Some(Token::new(decision, labels, ReleasedTokens::default()));
            inboxes.each()[0].tell(Outcome { decision, ..outcome(None, None) });
        }
        let mut calls: Vec<u64> = inboxes.take_tallies().iter().map(|(_, tally)| tally.calls).collect();
        calls.sort_unstable();
        assert_eq!(calls, [1, 2]);
    }
}
