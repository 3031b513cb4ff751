//! Whether a call is tried again, and after what pause: a Plan's rules with the pauses drawn so far.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::call::breakers::{BreakerUse, Turn};
use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop, now_ns};
use crate::call::gates::Refusal;
use crate::call::not_retried::NotRetried;
use crate::call::pushback::Pushback;
use crate::decision::plan::{self, Plan};
use crate::head::{Framing, Protocol};
use crate::seam::ask::{Notice, Question};

/// Nobody processed it: another endpoint may, at once.
pub const IMMEDIATE: u32 = 1 << Cause::Connect as u32 | 1 << Cause::Refused as u32 | 1 << Cause::TlsIdentity as u32;
/// Such an attempt reached no app.
const UNPROCESSED: u32 =
    IMMEDIATE | 1 << Cause::AppDown as u32 | 1 << Cause::AppUnhealthy as u32 | 1 << Cause::Misdirected as u32;
const IMMEDIATE_TRIES: usize = 3;

/// As gates hear it: an app's answer that is a failure counts, whether or not it was passed on. One that says that there was no room is
/// `Shed`: 429 and 503, `RESOURCE_EXHAUSTED` and UNAVAILABLE.
pub fn heard_by_gates(cause: Option<Cause>, status: u16, code: Option<u32>) -> Option<Cause> {
    if !matches!(cause, None | Some(Cause::Status)) || !plan::is_failure(status, code) {
        return cause;
    }
    let has_no_room = code.map_or(matches!(status, 429 | 503), |code| matches!(code, 8 | 14));
    Some(if has_no_room { Cause::Shed } else { Cause::Status })
}

/// How an attempt failed: by a cause of ours, or by an answer, and what that asks for.
#[derive(Clone, Copy)]
pub struct Failure {
    pub cause: Cause,
    pub status: u16,
    pub code: Option<u32>,
    pub pushback: Option<Pushback>,
}

impl Failure {
    /// By a cause of ours.
    pub fn of(cause: Cause) -> Self {
        Self { cause, status: 0, code: None, pushback: None }
    }

    /// Whether any rule speaks of it.
    pub fn is_covered(&self, plan: &Plan) -> bool {
        plan.retries.iter().any(|policy| policy.covers(self.cause, self.status, self.code))
    }
}

/// What a call has drawn of its Plan's rules. `inner`: pauses by inner ones; `before`: attempts before the last pause by another.
#[derive(Default)]
pub struct Drawn {
    pauses: Vec<(usize, std::vec::IntoIter<f64>)>,
    inner: usize,
    before: usize,
}

/// How long to wait for another attempt, by the first rule of the Plan that has one: asked where no pause of its is left.
pub struct NextPause {
    failure: Failure,
    rule: usize,
    told: Option<oneshot::Receiver<Vec<f64>>>,
}

impl NextPause {
    /// After such a failure; `None`: no other attempt, and the call knows why.
    pub fn new(call: &mut Call, plan: &Plan, failure: Failure) -> Option<Self> {
        if call.body.spent {
            call.not_retried = Some(call.why_not(plan, failure));
            return None;
        }
        Self::from(0, call, plan, failure, call.why_not(plan, failure))
    }

    /// By the rules from that place on. Where an inner one has no attempt left, the next goes on. `why`: there is none before it.
    fn from(place: usize, call: &mut Call, plan: &Plan, failure: Failure, mut why: NotRetried) -> Option<Self> {
        for (rule, policy) in plan.retries.iter().enumerate().skip(place) {
            if !policy.covers(failure.cause, failure.status, failure.code) {
                continue;
            }
            if let (Some(budget), false) = (&plan.budget, policy.inner) {
                budget.failed();
            }
            let counted = call.attempts.len() - if policy.inner { call.drawn.before } else { call.drawn.inner };
            if policy.attempts.is_none_or(|most| counted < most as usize) {
                return Some(Self { failure, rule, told: Self::ask(rule, call, plan) });
            }
            why = NotRetried::NoAttempts;
            if !policy.inner {
                break;
            }
        }
        call.not_retried = Some(why);
        None
    }

    fn ask(rule: usize, call: &Call, plan: &Plan) -> Option<oneshot::Receiver<Vec<f64>>> {
        let known = call.drawn.pauses.iter().find(|(known, _)| *known == rule);
        if known.is_some_and(|(_, pauses)| pauses.len() > 0) {
            return None;
        }
        let (answer, told) = oneshot::channel();
        call.shared.inbox.ask(Question::Pauses { call: call.number, token: plan.token.id, rule, anew: known.is_none(), answer });
        Some(told)
    }

    /// `None`: the failed one was the last.
    pub fn poll(&mut self, cx: &mut Context<'_>, call: &mut Call, plan: &Plan) -> Poll<Result<Option<Duration>, Stop>> {
        loop {
            if let Some(told) = &mut self.told {
                let fresh = ready!(Pin::new(told).poll(cx)).map_err(|_| Stop::Silent)?;
                self.told = None;
                call.drawn.pauses.retain(|(known, _)| *known != self.rule);
                call.drawn.pauses.push((self.rule, fresh.into_iter()));
            }
            let inner = plan.retries[self.rule].inner;
            match self.pause(call, plan) {
                Ok(pause) => {
                    call.drawn.note(plan, inner, call.attempts.len());
                    if !inner {
                        call.tell_breaker(true);
                    }
                    return Poll::Ready(Ok(Some(pause)));
                }
                Err(why) if inner => match Self::from(self.rule + 1, call, plan, self.failure, why) {
                    Some(next) => *self = next,
                    None => return Poll::Ready(Ok(None)),
                },
                Err(why) => {
                    call.not_retried = Some(why);
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// The pause by this rule, or why it has none.
    fn pause(&self, call: &mut Call, plan: &Plan) -> Result<Duration, NotRetried> {
        let policy = &plan.retries[self.rule];
        let mut pause = call.drawn.next(self.rule).ok_or(NotRetried::NoAttempts)?;
        if let (Some(pushback), true) = (self.failure.pushback, policy.heeds_answer) {
            pause = pushback.applied(pause).ok_or(NotRetried::Pushback)?;
        }
        let elapsed = Duration::from_nanos(now_ns().saturating_sub(call.state.started_ns));
        if policy.within.is_some_and(|within| elapsed.saturating_add(pause) > within) {
            return Err(NotRetried::TooLate);
        }
        if call.left().is_some_and(|left| pause >= left) {
            return Err(NotRetried::Deadline);
        }
        match &plan.budget {
            Some(budget) if !policy.inner && !budget.take() => Err(NotRetried::Budget),
            _ => Ok(pause),
        }
    }
}

impl Drawn {
    fn next(&mut self, rule: usize) -> Option<Duration> {
        let pause_s = self.pauses.iter_mut().find(|(known, _)| *known == rule).and_then(|(_, pauses)| pauses.next())?;
        Some(Duration::try_from_secs_f64(pause_s).unwrap_or(Duration::MAX))
    }

    /// A pause begins after so many attempts; those of inner rules are drawn anew within each of another's.
    fn note(&mut self, plan: &Plan, inner: bool, attempts: usize) {
        if inner {
            self.inner += 1;
        } else {
            self.before = attempts;
            self.pauses.retain(|(known, _)| !plan.retries[*known].inner);
        }
    }
}

impl Call {
    /// Why a failure that was not asked about is not retried.
    pub fn why_not(&self, plan: &Plan, failure: Failure) -> NotRetried {
        let is_stream = self.head.framing == Framing::Stream && self.head.protocol != Protocol::Grpc;
        match failure.is_covered(plan) {
            true if self.committed => NotRetried::Begun,
            true => NotRetried::Body,
            false if failure.cause == Cause::Denied => NotRetried::Denied,
            false if is_stream && plan.retries.is_empty() => NotRetried::Streaming,
            false => NotRetried::NotCovered,
        }
    }

    /// How a gRPC answer ended that had begun.
    pub fn note_late(&mut self, plan: &Plan, code: Option<u32>) {
        let Some(code) = code.filter(|code| *code != 0) else { return };
        let failure = Failure { cause: Cause::Status, status: self.status, code: Some(code), pushback: None };
        let why = self.why_not(plan, failure);
        self.not_retried = Some(if why == NotRetried::Begun && self.had_spent { NotRetried::Body } else { why });
    }

    /// Whether an endpoint is left for a call that surely nobody processed.
    pub fn may_try_another(&self, plan: &Plan) -> bool {
        let cluster = &plan.routes[self.route].cluster;
        let has_untried = || self.shared.clusters.borrow().get(cluster).is_some_and(|state| state.has_untried(&self.tried));
        !self.body.spent && self.tried.len() <= IMMEDIATE_TRIES && has_untried()
    }

    /// How many attempts were begun, but the one of this number, that a callee may have processed.
    pub fn processed_before(&self, number: usize) -> usize {
        let others = self.attempts.iter().enumerate().filter(|(place, _)| *place != number);
        others.filter(|(_, other)| other.sent_ns > 0 && other.cause.is_none_or(|cause| UNPROCESSED & cause.bit() == 0)).count()
    }

    /// Why an attempt may not begin, as its circuit breaker has it.
    pub fn ask_breaker(&mut self, used: &BreakerUse) -> Option<Refusal> {
        let breakers = self.shared.breakers(&used.name)?;
        let (found, turn) = self.breaker.ask(&breakers, used, &self.head);
        self.note_turn(turn);
        found.err()
    }

    /// Whether the answer of this attempt is the decision of the callee's proxy, and no failure.
    pub fn is_denial(&self, plan: &Plan, number: usize) -> bool {
        !plan.denials_fail && !self.is_by_daprd && self.attempts[number].said == Some(Cause::Denied)
    }

    /// What its circuit breaker let through has ended, or has gone as far as it hears.
    pub fn tell_breaker(&mut self, is_failure: bool) {
        let turn = self.breaker.tell(is_failure);
        self.note_turn(turn);
    }

    fn note_turn(&self, turn: Option<Turn>) {
        if let Some(turn) = turn {
            self.shared.note(Notice::BreakerTurned(turn));
        }
    }

    /// How long to wait for another attempt after a failure other than an answer; `None`: this was the last.
    pub async fn next_pause(&mut self, down: &mut Down, plan: &Plan, cause: Cause) -> Result<Option<Duration>, Stop> {
        let Some(mut next) = NextPause::new(self, plan, Failure::of(cause)) else { return Ok(None) };
        poll_fn(|cx| match next.poll(cx, self, plan) {
            Poll::Pending => self.poll_stop(cx, down).map(Err),
            found @ Poll::Ready(_) => found,
        })
        .await
    }

    /// Wait before another attempt.
    pub async fn pause(&mut self, down: &mut Down, pause: Duration) -> Result<(), Stop> {
        if pause.is_zero() {
            return Ok(());
        }
        self.guarded(down, tokio::time::sleep(pause)).await
    }
}
