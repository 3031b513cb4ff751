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
use crate::decision::plan::{self, Plan};
use crate::seam::ask::{Notice, Question};

/// Nobody processed it: another endpoint may, at once.
pub const IMMEDIATE: u32 = 1 << Cause::Connect as u32 | 1 << Cause::Refused as u32 | 1 << Cause::TlsIdentity as u32;
const IMMEDIATE_TRIES: usize = 3;

/// As gates hear it: an app's answer that is a failure counts, whether or not it was passed on.
pub fn heard_by_gates(cause: Option<Cause>, status: u16, code: Option<u32>) -> Option<Cause> {
    cause.or(plan::is_failure(status, code).then_some(Cause::Status))
}

/// How long to wait for another attempt, by a rule of the Plan: asked where no pause of its is left.
pub struct NextPause {
    rule: usize,
    told: Option<oneshot::Receiver<Vec<f64>>>,
}

impl NextPause {
    /// After such a failure; `None`: no other attempt.
    pub fn new(call: &Call, plan: &Plan, cause: Cause, status: u16, code: Option<u32>) -> Option<Self> {
        let rule = plan.retries.iter().position(|policy| policy.covers(cause, status, code))?;
        if call.body.spent || plan.retries[rule].attempts.is_some_and(|most| call.attempts.len() >= most as usize) {
            return None;
        }
        let has_drawn = call.pauses.iter().any(|(known, pauses)| *known == rule && pauses.len() > 0);
        let told = (!has_drawn).then(|| {
            let (answer, told) = oneshot::channel();
            call.shared.inbox.ask(Question::Pauses { call: call.number, token: plan.token.id, rule, answer });
            told
        });
        Some(Self { rule, told })
    }

    /// `None`: the failed one was the last.
    pub fn poll(&mut self, cx: &mut Context<'_>, call: &mut Call, plan: &Plan) -> Poll<Result<Option<Duration>, Stop>> {
        if let Some(told) = &mut self.told {
            let fresh = ready!(Pin::new(told).poll(cx)).map_err(|_| Stop::Silent)?;
            self.told = None;
            call.pauses.retain(|(known, _)| *known != self.rule);
            call.pauses.push((self.rule, fresh.into_iter()));
        }
        let drawn = call.pauses.iter_mut().find(|(known, _)| *known == self.rule).and_then(|(_, pauses)| pauses.next());
        let pause = drawn.map(|pause_s| Duration::try_from_secs_f64(pause_s).unwrap_or(Duration::MAX));
        let elapsed = Duration::from_nanos(now_ns().saturating_sub(call.started_ns));
        let within = plan.retries[self.rule].within;
        let is_late = |pause: Duration| within.is_some_and(|within| elapsed.saturating_add(pause) > within);
        let found = pause.filter(|pause| !is_late(*pause) && call.left().is_none_or(|left| *pause < left));
        if found.is_some() && !plan.retries[self.rule].inner {
            call.tell_breaker(true);
        }
        Poll::Ready(Ok(found))
    }
}

impl Call {
    /// Whether an endpoint is left for a call that surely nobody processed.
    pub fn may_try_another(&self, plan: &Plan) -> bool {
        let cluster = &plan.routes[self.route].cluster;
        let has_untried = || self.shared.clusters.borrow().get(cluster).is_some_and(|state| state.has_untried(&self.tried));
        !self.body.spent && self.tried.len() <= IMMEDIATE_TRIES && has_untried()
    }

    /// Why an attempt may not begin, as its circuit breaker has it.
    pub fn ask_breaker(&mut self, used: &BreakerUse) -> Option<Refusal> {
        let breakers = self.shared.breakers(&used.name)?;
        let (found, turn) = self.breaker.ask(&breakers, used, &self.head);
        self.note_turn(turn);
        found.err()
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
        let Some(mut next) = NextPause::new(self, plan, cause, 0, None) else { return Ok(None) };
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
