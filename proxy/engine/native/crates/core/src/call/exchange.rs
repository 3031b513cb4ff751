//! Runs one call: finds its decision (`deciding.rs`), passes gates, tries endpoints, answers where it can't. `attempt.rs` does
//! the relaying. Equal in what it does to `portable/exchange.py`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};

use crate::call::answers;
use crate::call::attempt::{Ended, UpstreamAttempt};
use crate::call::cause::Cause;
use crate::call::deciding::Decided;
use crate::call::ends::Down;
use crate::call::gates::{Entered, Pass, Refusal};
use crate::call::grpc_web;
use crate::call::request_body::RequestBody;
use crate::call::state::{CallState, Cut, SLOW_BODY, SLOW_READER};
use crate::decision::cache::{Found, Kept};
use crate::decision::edits::{GRPC_TIMEOUT, parse_grpc_timeout};
use crate::decision::plan::{self, Decision, Plan, Reply, Token};
use crate::decision::trace::Span;
use crate::head::{self, Entry, Framing, Head, Protocol, RawHead};
use crate::seam::ask::{Attempt, Outcome, Question};
use crate::shared::Shared;

/// Nobody processed it: another endpoint may, at once.
const IMMEDIATE: u32 = 1 << Cause::Connect as u32 | 1 << Cause::Refused as u32 | 1 << Cause::TlsIdentity as u32;
const IMMEDIATE_TRIES: usize = 3;
const POLICY_CHANGED: &str = "the access policy changed while the call was open";

/// What ends a call from outside.
#[derive(Debug)]
pub enum Stop {
    Deadline,
    Gone(String),
    Cut,
    /// The caller neither sends nor reads.
    Stalled,
    /// The access rules changed, and deny it now.
    Denied,
    /// The side that decides is gone.
    Silent,
}

/// One call: the decision, the attempts, the request body kept for them, the answer so far.
pub struct Call {
    pub shared: Rc<Shared>,
    pub head: Arc<Head>,
    pub state: Rc<CallState>,
    pub kept: Option<Rc<Kept>>,
    pub route: usize,
    pub attempts: Vec<Attempt>,
    pub tried: Vec<Arc<str>>,
    pub body: RequestBody,
    pub span: Option<Span>,
    pub committed: bool,
    /// Some of the answer waits for the caller to read.
    pub owes_down: bool,
    /// More of the request is for the caller to send.
    pub up_waits: bool,
    /// Where gRPC-Web is made gRPC: whether the answer stands between two messages.
    pub web: Option<Rc<grpc_web::Progress>>,
    pub status: u16,
    pub down_bytes: u64,
    pub head_ns: u64,
    number: u64,
    deadline: Option<Pin<Box<Sleep>>>,
    passes: Vec<Pass>,
    pauses: Vec<(usize, std::vec::IntoIter<f64>)>,
    started_ns: u64,
    answer: Option<(Arc<Token>, Cause, Option<u32>)>,
    cause: Option<Cause>,
    reported: bool,
    ended_code: Option<u32>,
}

/// Epoch nanoseconds.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Carry one call to its end.
pub async fn run(shared: Rc<Shared>, mut down: Down, raw: RawHead, entry: Entry) {
    shared.apply();
    let framing = raw.framing;
    let (head, refusal) = head::read(raw, entry);
    let head = Arc::new(head);
    let state = CallState::new(head.clone());
    let number = shared.enter_call(state.clone());
    // In a box, so that the task is not moved with it.
    let mut call = Box::new(Call {
        head,
        state,
        kept: None,
        route: 0,
        attempts: Vec::with_capacity(1),
        tried: Vec::with_capacity(1),
        body: RequestBody::new(framing == Framing::None),
        span: None,
        committed: false,
        web: None,
        status: 0,
        down_bytes: 0,
        head_ns: 0,
        number,
        deadline: None,
        passes: Vec::new(),
        pauses: Vec::new(),
        started_ns: now_ns(),
        answer: None,
        cause: None,
        reported: false,
        ended_code: None,
        owes_down: false,
        up_waits: false,
        shared,
    });
    if let Err(stop) = call.carry(&mut down, refusal).await {
        Box::pin(call.stopped(stop, &mut down)).await;
    }
    down.leave().await;
    call.report();
}

/// A call that is dropped before its end, with its connection's task or by a fault of ours, is reported all the same.
impl Drop for Call {
    fn drop(&mut self) {
        if !self.reported {
            self.cause = self.cause.or(Some(Cause::Draining));
            self.report();
        }
    }
}

impl Call {
    async fn carry(&mut self, down: &mut Down, refusal: Option<String>) -> Result<(), Stop> {
        if let Some(reason) = refusal {
            let reply = Box::pin(self.undecided(Some(reason))).await?;
            self.reply(down, &reply, "").await;
            return Ok(());
        }
        if self.head.protocol == Protocol::Grpc {
            self.limit(self.asked_limit());
        }
        let decided = match self.find_now() {
            Found::Kept(kept) => Decided::Kept(kept),
            Found::Nothing | Found::Class(_) => Box::pin(self.decide(down)).await?,
        };
        let kept = match decided {
            Decided::Kept(kept) => kept,
            Decided::Late(reply, key) => {
                let detail = Box::pin(self.explain(key)).await?;
                self.reply(down, &reply, &detail).await;
                return Ok(());
            }
        };
        self.kept = Some(kept.clone());
        let plan = match &kept.decision {
            Decision::Reply(reply) => {
                let path = self.head.path.clone();
                self.reply(down, reply, &path).await;
                return Ok(());
            }
            Decision::Plan(plan) => plan,
        };
        if let (Some(limit), Some(length)) = (plan.body_bytes, self.head.length) {
            if length > limit {
                let detail = format!("{length} bytes, the limit is {limit}");
                return Box::pin(self.fail(down, Cause::TooLarge, &detail)).await;
            }
        }
        self.limit(plan.total);
        if plan.routes.first().is_some_and(|route| route.edits.grpc_web) {
            self.limit(self.asked_limit());
        }
        self.body.replay_limit = plan.replay_bytes;
        self.route = draw_route(plan); // once: attempts stay on one side of a split
        for name in &plan.gates {
            match Box::pin(self.enter(down, name, &mut None)).await? {
                None => {}
                Some(Ok(pass)) => self.passes.push(pass),
                Some(Err(refusal)) => return Box::pin(self.fail(down, refusal.cause, &refusal.detail)).await,
            }
        }
        self.attempts(down, plan).await
    }

    // --- waiting

    /// What a gRPC caller leaves us.
    fn asked_limit(&self) -> Option<Duration> {
        self.head.headers.get(GRPC_TIMEOUT).and_then(|value| parse_grpc_timeout(value.as_bytes()))
    }

    fn limit(&mut self, limit: Option<Duration>) {
        let Some(limit) = limit else { return };
        let at = tokio::time::Instant::now() + limit;
        if self.deadline.as_ref().is_none_or(|deadline| at < deadline.deadline()) {
            self.deadline = Some(Box::pin(sleep_until(at)));
        }
    }

    /// What is left of the call's time.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.as_ref().map(|deadline| deadline.deadline().saturating_duration_since(tokio::time::Instant::now()))
    }

    /// Whether something ends the call from outside.
    pub fn poll_stop(&mut self, cx: &mut Context<'_>, down: &mut Down) -> Poll<Stop> {
        match self.state.poll_cut(cx) {
            Some(Cut::Ending) => return Poll::Ready(Stop::Cut),
            Some(Cut::Stalled) => return Poll::Ready(Stop::Stalled),
            Some(Cut::Denied) => return Poll::Ready(Stop::Denied),
            None => self.note_progress(),
        }
        if let Some(deadline) = &mut self.deadline {
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Stop::Deadline);
            }
        }
        down.poll_gone(cx).map(|gone| Stop::Gone(gone.0))
    }

    /// Streams pause as they like: only the length that was announced is owed, and only what is no stream has to be read.
    fn note_progress(&self) {
        let is_stream = matches!(self.head.protocol, Protocol::Grpc | Protocol::Websocket);
        let waits = match (self.owes_down, self.up_waits && self.head.framing == Framing::Length) {
            (true, _) if !is_stream => Some(SLOW_READER),
            (_, true) => Some(SLOW_BODY),
            _ => None,
        };
        self.state.note_progress(waits, self.body.bytes + self.down_bytes);
    }

    /// Wait for something, unless the call is stopped first.
    pub async fn guarded<T>(&mut self, down: &mut Down, wait: impl Future<Output = T>) -> Result<T, Stop> {
        let mut wait = pin!(wait);
        poll_fn(|cx| {
            if let Poll::Ready(found) = wait.as_mut().poll(cx) {
                return Poll::Ready(Ok(found));
            }
            self.poll_stop(cx, down).map(Err)
        })
        .await
    }

    /// The same until a timer, which gives `None`.
    pub async fn timed<T>(
        &mut self,
        down: &mut Down,
        timer: &mut Option<Pin<Box<Sleep>>>,
        wait: impl Future<Output = T>,
    ) -> Result<Option<T>, Stop> {
        let Some(timer) = timer else { return self.guarded(down, wait).await.map(Some) };
        let mut wait = pin!(wait);
        let either = poll_fn(|cx| {
            if let Poll::Ready(found) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(found));
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        self.guarded(down, either).await
    }

    /// Be let in by a gate; `None` where none stands, or where the timer was over first.
    pub async fn enter(
        &mut self,
        down: &mut Down,
        name: &str,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<Option<Result<Pass, Refusal>>, Stop> {
        let Some(gate) = self.shared.gate(name) else { return Ok(None) };
        match gate.enter(Instant::now(), fastrand::f64()) {
            Entered::Passed(pass) => Ok(Some(Ok(pass))),
            Entered::Refused(refusal) => Ok(Some(Err(refusal))),
            Entered::Wait(wait) => self.timed(down, timer, wait).await,
        }
    }

    // --- attempts

    async fn attempts(&mut self, down: &mut Down, plan: &Plan) -> Result<(), Stop> {
        loop {
            let mut attempt = UpstreamAttempt::begin(self, plan);
            let ended = attempt.run(self, down, plan).await.inspect_err(|stop| {
                let (cause, detail) = self.told(stop);
                attempt.end(self, Some(cause), &detail);
            });
            let (cause, detail) = match ended? {
                Ended::Whole => return Ok(()),
                Ended::Retry(pause) => {
                    Box::pin(self.pause(down, pause)).await?;
                    continue;
                }
                Ended::Failed(cause, detail) => (cause, detail),
                Ended::ForGood(cause, detail) => return Box::pin(self.fail(down, cause, &detail)).await,
            };
            if self.committed {
                return Box::pin(self.fail(down, cause, &detail)).await;
            }
            if IMMEDIATE & cause.bit() != 0 && self.may_try_another(plan) {
                continue;
            }
            match Box::pin(self.next_pause(down, plan, cause, 0, None)).await? {
                Some(pause) => Box::pin(self.pause(down, pause)).await?,
                None => return Box::pin(self.fail(down, cause, &detail)).await,
            }
        }
    }

    /// Whether an endpoint is left for a call that surely nobody processed.
    pub fn may_try_another(&self, plan: &Plan) -> bool {
        let cluster = &plan.routes[self.route].cluster;
        let has_untried = || self.shared.clusters.borrow().get(cluster).is_some_and(|state| state.has_untried(&self.tried));
        !self.body.spent && self.tried.len() <= IMMEDIATE_TRIES && has_untried()
    }

    async fn pause(&mut self, down: &mut Down, pause: Duration) -> Result<(), Stop> {
        if pause.is_zero() {
            return Ok(());
        }
        self.guarded(down, tokio::time::sleep(pause)).await
    }

    /// How long to wait for another attempt; `None`: this was the last.
    pub async fn next_pause(
        &mut self,
        down: &mut Down,
        plan: &Plan,
        cause: Cause,
        status: u16,
        code: Option<u32>,
    ) -> Result<Option<Duration>, Stop> {
        if self.body.spent {
            return Ok(None);
        }
        let Some(rule) = plan.retries.iter().position(|policy| policy.covers(cause, status, code)) else { return Ok(None) };
        if plan.retries[rule].attempts.is_some_and(|most| self.attempts.len() >= most as usize) {
            return Ok(None);
        }
        let mut drawn = self.pauses.iter_mut().find(|(known, _)| *known == rule).and_then(|(_, pauses)| pauses.next());
        if drawn.is_none() {
            let (answer, told) = oneshot::channel();
            self.shared.inbox.ask(Question::Pauses { call: self.number, token: plan.token.id, rule, answer });
            let mut fresh = self.guarded(down, told).await?.map_err(|_| Stop::Silent)?.into_iter();
            drawn = fresh.next();
            self.pauses.retain(|(known, _)| *known != rule);
            self.pauses.push((rule, fresh));
        }
        let pause = drawn.map(|pause_s| Duration::try_from_secs_f64(pause_s).unwrap_or(Duration::MAX));
        let elapsed = Duration::from_nanos(now_ns().saturating_sub(self.started_ns));
        let is_late = |pause: Duration| plan.retries[rule].within.is_some_and(|within| elapsed.saturating_add(pause) > within);
        Ok(pause.filter(|pause| !is_late(*pause) && self.left().is_none_or(|left| *pause < left)))
    }

    // --- answering and ending

    /// The ready-made answer for a cause, or the visible end of what has begun.
    async fn fail(&mut self, down: &mut Down, cause: Cause, detail: &str) -> Result<(), Stop> {
        self.cause = Some(cause);
        if self.committed && cause == Cause::Timeout && self.can_end_grpc() {
            let reply = self.ready_made(cause).await?;
            if let Some(reply) = reply {
                self.end_grpc(down, &reply, detail);
                return Ok(());
            }
        }
        if self.committed {
            // What was given leaves first: a reset forgets what waits. Twice, since a connection may be woken after this call.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            down.abort(cause);
            return Ok(());
        }
        let reply = match self.ready_made(cause).await? {
            Some(reply) => reply,
            None => Rc::from(self.undecided(None).await?),
        };
        self.reply(down, &reply, detail).await;
        Ok(())
    }

    /// What the decision says for a cause; `None` where nothing was decided.
    async fn ready_made(&self, cause: Cause) -> Result<Option<Rc<Reply>>, Stop> {
        let Some(kept) = &self.kept else { return Ok(None) };
        if let Some(reply) = kept.reply(cause) {
            return Ok(Some(reply));
        }
        let (answer, made) = oneshot::channel();
        let token = kept.decision.token().id;
        self.shared.inbox.ask(Question::Reply { token, cause, answer });
        let reply: Rc<Reply> = Rc::from(made.await.map_err(|_| Stop::Silent)?);
        kept.set_reply(cause, reply.clone());
        Ok(Some(reply))
    }

    /// Whether a gRPC answer that has begun can still end with a status: not behind bytes that the caller may never read.
    fn can_end_grpc(&self) -> bool {
        let is_grpc = self.head.protocol == Protocol::Grpc || self.web.as_ref().is_some_and(|progress| progress.between.get());
        is_grpc && !self.owes_down
    }

    fn end_grpc(&mut self, down: &mut Down, reply: &Reply, detail: &str) {
        let trailers = answers::grpc_trailers(reply, detail, self.span.as_ref());
        match grpc_web::content_type(&self.head) {
            Some(sent_as) => down.send(grpc_web::trailer_frame(&trailers, sent_as), true),
            None => down.finish(Some(trailers)),
        }
        self.ended_code = Some(reply.grpc_code);
    }

    async fn reply(&mut self, down: &mut Down, reply: &Reply, detail: &str) {
        if !self.begin_own_span() {
            Box::pin(self.ask_span()).await;
        }
        self.status = reply.status;
        let grpc = self.head.protocol == Protocol::Grpc || grpc_web::content_type(&self.head).is_some();
        answers::send(down, reply, detail, self.span.as_ref(), &self.head);
        self.answer = Some((reply.token.clone(), reply.cause, grpc.then_some(reply.grpc_code)));
    }

    /// What ended the call, as an attempt hears it.
    fn told(&self, stop: &Stop) -> (Cause, String) {
        match stop {
            Stop::Deadline => (Cause::Timeout, "the call's time is over".to_owned()),
            Stop::Gone(detail) => (Cause::CallerLeft, detail.clone()),
            Stop::Stalled => (Cause::CallerLeft, format!("the caller stalled for {} s", self.shared.limits.stall.as_secs_f64())),
            Stop::Denied => (Cause::Denied, POLICY_CHANGED.to_owned()),
            Stop::Cut | Stop::Silent => (Cause::Draining, "the proxy is shutting down".to_owned()),
        }
    }

    async fn stopped(&mut self, stop: Stop, down: &mut Down) {
        let cause = match stop {
            Stop::Deadline => {
                if self.fail(down, Cause::Timeout, "the call's deadline passed").await.is_ok() {
                    return;
                }
                Cause::Draining
            }
            Stop::Gone(_) => {
                self.cause = Some(Cause::CallerLeft);
                return;
            }
            Stop::Denied => return Box::pin(self.denied(down)).await,
            Stop::Stalled => Cause::CallerLeft,
            Stop::Cut | Stop::Silent => Cause::Draining,
        };
        down.abort(cause);
        self.cause = Some(cause);
    }

    /// A newer decision denies the call: answer with it, or end visibly what has begun.
    async fn denied(&mut self, down: &mut Down) {
        self.cause = Some(Cause::Denied);
        self.kept = self.state.take_denial().or_else(|| self.kept.take());
        let kept = self.kept.clone();
        match kept.as_ref().map(|kept| &kept.decision) {
            Some(Decision::Reply(reply)) if !self.committed => {
                let path = self.head.path.clone();
                self.reply(down, reply, &path).await;
            }
            Some(Decision::Reply(reply)) if self.can_end_grpc() => self.end_grpc(down, reply, POLICY_CHANGED),
            _ => down.abort(Cause::Denied),
        }
    }

    fn report(&mut self) {
        self.reported = true;
        self.shared.leave_call(self.number); // whoever is told of its end finds it gone
        if let Some(record) = self.attempts.last_mut() {
            record.end(now_ns(), self.cause, ""); // where the call is dropped, nobody else does
        }
        let _is_begun = self.begin_own_span();
        let (decision, cause, grpc_code) = match self.answer.take() {
            Some((token, cause, code)) => (Some(token), Some(cause), code),
            None => (self.kept.as_ref().map(|kept| kept.decision.token().clone()), self.cause, None),
        };
        let of_attempt = self.attempts.last().filter(|_| cause.is_none()).and_then(|attempt| attempt.grpc_code);
        let grpc_code = grpc_code.or(self.ended_code).or(of_attempt);
        self.passes.drain(..).for_each(|pass| pass.leave(heard_by_gates(cause, self.status, grpc_code)));
        self.shared.inbox.tell(Outcome {
            head: self.head.clone(),
            decision,
            span: self.span.take(),
            started_ns: self.started_ns,
            head_ns: self.head_ns,
            ended_ns: now_ns(),
            status: self.status,
            grpc_code,
            cause,
            attempts: std::mem::take(&mut self.attempts),
            up_bytes: self.body.bytes,
            down_bytes: self.down_bytes,
        });
    }
}

fn draw_route(plan: &Plan) -> usize {
    if plan.routes.len() == 1 {
        return 0;
    }
    let total: u32 = plan.routes.iter().map(|route| route.weight).sum();
    let mut drawn = fastrand::u32(..total.max(1));
    for (place, route) in plan.routes.iter().enumerate() {
        if drawn < route.weight {
            return place;
        }
        drawn -= route.weight;
    }
    0
}

/// As gates hear it: an app's answer that is a failure counts, whether or not it was passed on.
pub fn heard_by_gates(cause: Option<Cause>, status: u16, code: Option<u32>) -> Option<Cause> {
    cause.or(plan::is_failure(status, code).then_some(Cause::Status))
}
