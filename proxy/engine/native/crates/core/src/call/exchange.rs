//! Runs one call: finds its decision (`deciding.rs`), passes gates, tries endpoints (`under_way.rs`, `retrying.rs`), answers where it
//! can't (`answering.rs`). `attempt` does the relaying. Equal in what it does to `portable/exchange.py`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{Sleep, sleep, sleep_until};

use crate::call::attempt::Ended;
use crate::call::authorizing::Granted;
use crate::call::breakers::Asking;
use crate::call::cause::Cause;
use crate::call::deciding::Decided;
use crate::call::ends::Down;
use crate::call::gates::{Begun, Passage, Refusal, Told};
use crate::call::grpc_web;
use crate::call::not_retried::NotRetried;
use crate::call::request_body::RequestBody;
use crate::call::retrying::{Drawn, IMMEDIATE, heard_by_gates};
use crate::call::state::{CallState, Cut, SLOW_BODY, SLOW_READER};
use crate::call::under_way::UnderWay;
use crate::decision::cache::{Found, Kept};
use crate::decision::deadlines;
use crate::decision::edits::{self, GRPC_TIMEOUT, parse_grpc_timeout};
use crate::decision::plan::{Decision, Plan, Token};
use crate::decision::trace::Span;
use crate::head::{self, Entry, Framing, Head, Protocol, RawHead};
use crate::seam::ask::{Attempt, Notice, Outcome};
use crate::seam::news::{self, News};
use crate::shared::Shared;

/// That an attempt must have left: with less, it would only cost its callee.
const LEAST: Duration = Duration::from_millis(1);

/// What ends a call from outside.
#[derive(Debug)]
pub enum Stop {
    Deadline,
    /// More bytes of the request than so many.
    TooLarge(u64),
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
    /// How many attempts are under way.
    pub under_way: usize,
    /// The attempt whose answer is passed on, or the only one that can send all of the request.
    pub the_one: Option<usize>,
    pub committed: bool,
    /// The answer's body is passed on in upper case.
    pub upper_answer: bool,
    /// Some of the answer waits for the caller to read.
    pub owes_down: bool,
    /// More of the request is for the caller to send.
    pub up_waits: bool,
    /// Where gRPC-Web is made gRPC: how far the answer is that is passed on.
    pub web: Option<Rc<grpc_web::Progress>>,
    pub status: u16,
    pub down_bytes: u64,
    pub head_ns: u64,
    pub number: u64,
    deadline: Option<Pin<Box<Sleep>>>,
    /// What another attempt beside those under way waits for, and how long.
    hedge: Option<(Pin<Box<Sleep>>, Duration)>,
    gates: Passage,
    /// By its authorizers.
    pub granted: Option<Rc<Granted>>,
    /// By the gate that refused.
    pub told: Option<Box<Told>>,
    /// When its answer did.
    pub begun: Begun,
    pub breaker: Asking,
    pub drawn: Drawn,
    pub not_retried: Option<NotRetried>,
    /// Some of the request had been let go of when the answer began.
    pub had_spent: bool,
    pub answer: Option<(Arc<Token>, Cause, Option<u32>)>,
    pub cause: Option<Cause>,
    reported: bool,
    pub ended_code: Option<u32>,
    /// How long it waited for its callee to be found.
    pub held: Duration,
    /// How long it waited at gates before its first attempt.
    queued: Duration,
    /// How long it waited for its authorizers.
    pub asked: Duration,
    /// An attempt took the route for peers that are daprds.
    pub is_by_daprd: bool,
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
    let mut call = Call::new(shared, head, framing);
    call.state.is_stream.set(matches!(down, Down::H2(_)));
    let mut is_left = false;
    if let Err(stop) = call.carry(&mut down, refusal).await {
        is_left = matches!(stop, Stop::Gone(_));
        Box::pin(call.stopped(stop, &mut down)).await;
    }
    if !is_left {
        down.leave().await;
    } // else nobody waits for it, and what its caller asks next may turn on how it ended
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
    /// A call that begins. In a box, so that its task is not moved with it.
    pub fn new(shared: Rc<Shared>, head: Arc<Head>, framing: Framing) -> Box<Self> {
        let state = CallState::new(head.clone(), now_ns());
        let number = shared.enter_call(state.clone());
        Box::new(Self {
            head,
            state,
            kept: None,
            route: 0,
            attempts: Vec::with_capacity(1),
            tried: Vec::with_capacity(1),
            body: RequestBody::new(framing == Framing::None, shared.replay.clone()),
            span: None,
            under_way: 0,
            the_one: None,
            committed: false,
            upper_answer: false,
            owes_down: false,
            up_waits: false,
            web: None,
            status: 0,
            down_bytes: 0,
            head_ns: 0,
            number,
            deadline: None,
            hedge: None,
            gates: Passage::default(),
            granted: None,
            told: None,
            begun: Begun::Never,
            breaker: Asking::default(),
            drawn: Drawn::default(),
            not_retried: None,
            had_spent: false,
            answer: None,
            cause: None,
            reported: false,
            ended_code: None,
            held: Duration::ZERO,
            queued: Duration::ZERO,
            asked: Duration::ZERO,
            is_by_daprd: false,
            shared,
        })
    }

    async fn carry(&mut self, down: &mut Down, refusal: Option<String>) -> Result<(), Stop> {
        if let Some(reason) = refusal {
            let reply = Box::pin(self.undecided(Some(reason))).await?;
            self.reply(down, &reply, "").await;
            return Ok(());
        }
        match self.head.protocol {
            Protocol::Grpc => self.limit(self.asked_limit()),
            Protocol::Http1 | Protocol::Http2 => self.limit(deadlines::left(&self.head.headers)),
            Protocol::Websocket => {}
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
        self.tell_begun(kept.decision.token().id);
        let plan = match &kept.decision {
            Decision::Reply(reply) => {
                if !reply.gates.is_empty() {
                    if let Err(refusal) = Box::pin(self.enter(down, &reply.gates)).await? {
                        return Box::pin(self.fail(down, refusal.cause, &refusal.detail)).await;
                    }
                }
                let path = self.head.path.clone();
                self.reply(down, reply, &path).await;
                return Ok(());
            }
            Decision::Plan(plan) => plan,
        };
        self.state.carried_by.set(plan.token.id);
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
        if plan.upper_request || plan.upper_response {
            let is_plain = matches!(self.head.protocol, Protocol::Http1 | Protocol::Http2);
            let may_be = is_plain && grpc_web::content_type(&self.head).is_none();
            (self.body.upper, self.upper_answer) = (may_be && plan.upper_request, may_be && plan.upper_response);
        }
        self.route = draw_route(plan); // once: attempts stay on one side of a split
        if !plan.gates.is_empty() {
            if let Err(refusal) = Box::pin(self.enter(down, &plan.gates)).await? {
                return Box::pin(self.fail(down, refusal.cause, &refusal.detail)).await;
            }
        }
        if plan.asks && !Box::pin(self.authorize(down, plan)).await? {
            return Ok(());
        }
        self.attempts(down, plan).await
    }

    /// Tell whoever looks that it is decided, or held; its span is known once it is decided.
    pub fn tell_begun(&mut self, token: u64) {
        let Some(watch) = self.shared.watch() else { return };
        let _is_begun = self.kept.is_some() && self.begin_own_span();
        self.shared.inbox.tell_news(News::Begun {
            number: self.number,
            head: self.head.clone(),
            fields: watch.pick(&self.head.headers),
            token,
            context: news::own_context(self.span.as_ref()),
            started_ns: self.state.started_ns,
        });
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
        self.state.held_bytes.set(self.body.held_bytes());
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

    /// Pass gates of the call.
    async fn enter(&mut self, down: &mut Down, gates: &[Arc<str>]) -> Result<Result<(), Refusal>, Stop> {
        let since = Instant::now();
        let mut found = poll_fn(|cx| match self.gates.poll(cx, &self.shared, gates, self.head.who()) {
            Poll::Ready(found) => Poll::Ready(Ok(found)),
            Poll::Pending => self.poll_stop(cx, down).map(Err),
        })
        .await;
        self.queued += since.elapsed();
        if let Ok(Err(refusal)) = &mut found {
            self.told = refusal.told.take();
        }
        found
    }

    // --- attempts

    async fn attempts(&mut self, down: &mut Down, plan: &Plan) -> Result<(), Stop> {
        if !self.begin_own_span() {
            Box::pin(self.begin_span(down)).await?;
        }
        if let Some(budget) = &plan.budget {
            budget.begun();
        }
        let mut under_way = UnderWay::default();
        loop {
            if self.left().is_some_and(|left| left < LEAST) {
                return Err(Stop::Deadline);
            }
            self.not_retried = None;
            if let Some(refusal) = plan.breaker.as_ref().and_then(|used| self.ask_breaker(used)) {
                return Box::pin(self.fail(down, refusal.cause, &refusal.detail)).await;
            }
            under_way.begin(self, plan);
            self.await_hedge(plan);
            let ended = poll_fn(|cx| {
                loop {
                    let polled = under_way.poll(cx, self, down, plan);
                    if polled.is_ready() || !self.poll_hedge(cx, plan) {
                        return polled;
                    }
                    under_way.begin(self, plan);
                    self.await_hedge(plan);
                }
            })
            .await?;
            let (pause, cause, detail) = match ended {
                Ended::Whole => return Ok(()),
                Ended::Retry(pause) => {
                    Box::pin(self.pause(down, pause)).await?;
                    continue;
                }
                Ended::ForGood(cause, detail) => (None, cause, detail),
                Ended::Failed(cause, detail) if self.committed => {
                    self.not_retried = self.not_retried.or(Some(NotRetried::Begun));
                    (None, cause, detail)
                }
                Ended::Failed(cause, _) if IMMEDIATE & cause.bit() != 0 && self.may_try_another(plan) => continue,
                Ended::Failed(cause, detail) => (Box::pin(self.next_pause(down, plan, cause)).await?, cause, detail),
            };
            match pause {
                Some(pause) => Box::pin(self.pause(down, pause)).await?,
                None => return Box::pin(self.fail_after(down, plan, cause, detail)).await,
            }
        }
    }

    /// Have another attempt begin beside those under way, if the Plan says so.
    fn await_hedge(&mut self, plan: &Plan) {
        let hedge = plan.hedge.filter(|hedge| self.attempts.len() < hedge.attempts);
        self.hedge = hedge.map(|hedge| (Box::pin(sleep(hedge.delay)), hedge.delay));
    }

    /// Whether it begins now.
    fn poll_hedge(&mut self, cx: &mut Context<'_>, plan: &Plan) -> bool {
        while let Some((timer, delay)) = &mut self.hedge {
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let delay = *delay * 2;
            self.hedge = None;
            if self.under_way > 0 && self.the_one.is_none() {
                if self.body.ended {
                    return plan.budget.as_ref().is_none_or(|budget| budget.take());
                }
                self.hedge = Some((Box::pin(sleep(delay)), delay)); // some requests never are complete
            }
        }
        false
    }

    /// No attempt helped.
    async fn fail_after(&mut self, down: &mut Down, plan: &Plan, cause: Cause, detail: String) -> Result<(), Stop> {
        let detail = match cause {
            Cause::NoEndpoint => self.explain(plan.routes[self.route].cluster.clone()).await?,
            _ => detail,
        };
        self.fail(down, cause, &detail).await
    }

    /// Whether an attempt is over without more, since another is the one.
    pub fn is_anothers(&self, number: usize) -> bool {
        self.the_one.is_some_and(|one| one != number)
    }

    /// Whether anything that comes before an attempt's answer may be passed on.
    pub fn is_the_one(&self, number: usize) -> bool {
        self.the_one.map_or(self.under_way == 1, |one| one == number)
    }

    /// Whether one attempt may fail without more, since another is under way.
    pub fn has_another(&self) -> bool {
        self.under_way > 1
    }

    /// What changes where one attempt's poll concerns others.
    pub fn progress(&self) -> (Option<usize>, u64, bool) {
        (self.the_one, self.body.bytes, self.body.ended)
    }

    /// Whether a gRPC status that comes after the head could still mean another attempt.
    pub fn may_retry_grpc(&self, plan: &Plan) -> bool {
        let reads_codes = || plan.retries.iter().any(|policy| policy.grpc_codes.as_ref().is_none_or(|codes| !codes.is_empty()));
        self.head.protocol == Protocol::Grpc && !self.body.spent && reads_codes()
    }

    /// The request as the route has it sent.
    pub fn edited(&self, plan: &Plan, route: usize, number: usize) -> RawHead {
        let edits = self.edits(plan, route);
        let left = match (self.left(), plan.attempt) {
            (Some(left), Some(attempt)) => Some(left.min(attempt)),
            (left, attempt) => left.or(attempt),
        };
        let mut headers = match &self.span {
            Some(span) => edits.request(&self.head, span, left),
            None => self.head.headers.clone(),
        };
        let web = edits.sent_as(&self.head).is_some();
        if self.attempts.len() > 1 && (web || self.head.protocol == Protocol::Grpc) {
            edits::tell_previous_attempts(&mut headers, self.processed_before(number));
        }
        RawHead {
            protocol: if web { Protocol::Grpc } else { self.head.protocol },
            method: self.head.method.clone(),
            authority: edits.authority.clone().unwrap_or_else(|| self.head.raw_authority.clone()),
            target: edits.target(&self.head),
            headers,
            framing: if web { Framing::Stream } else { self.head.framing },
            length: if web { None } else { self.head.length },
        }
    }

    // --- its end

    pub fn report(&mut self) {
        self.reported = true;
        self.shared.leave_call(self.number); // whoever is told of its end finds it gone
        for record in &mut self.attempts {
            record.end(now_ns(), self.cause, ""); // where the call is dropped, nobody else does
        }
        if let Some(one) = self.the_one.filter(|one| one + 1 < self.attempts.len()) {
            self.attempts[one..].rotate_left(1); // the last is the one by which the call ended
        }
        let _is_begun = self.begin_own_span();
        let (decision, cause, grpc_code) = match self.answer.take() {
            Some((token, cause, code)) => (Some(token), Some(cause), code),
            None => (self.kept.as_ref().map(|kept| kept.decision.token().clone()), self.cause, None),
        };
        let of_attempt = self.attempts.last().filter(|_| cause.is_none()).and_then(|attempt| attempt.grpc_code);
        let grpc_code = grpc_code.or(self.ended_code).or(of_attempt);
        let heard = heard_by_gates(cause, self.status, grpc_code);
        self.gates.leave(heard, self.begun);
        let mut is_denied = cause == Some(Cause::Denied);
        if let Some(Decision::Plan(plan)) = self.kept.clone().as_ref().map(|kept| &kept.decision) {
            is_denied |= self.attempts.len().checked_sub(1).is_some_and(|last| self.is_denial(plan, last));
            if let (None, Some(budget)) = (heard, &plan.budget) {
                budget.succeeded();
            }
        }
        self.tell_breaker(heard.is_some() && !is_denied);
        let has_failed = !matches!(heard, None | Some(Cause::CallerLeft)) && self.status != 101;
        let outcome = Outcome {
            head: self.head.clone(),
            decision,
            span: self.span.take(),
            started_ns: self.state.started_ns,
            head_ns: self.head_ns,
            ended_ns: now_ns(),
            status: self.status,
            grpc_code,
            cause,
            attempts: std::mem::take(&mut self.attempts),
            up_bytes: self.body.bytes,
            down_bytes: self.down_bytes,
            breaker: self.breaker.met,
            not_retried: self.not_retried.filter(|_| has_failed),
            resolve_ns: self.held.as_nanos() as u64,
            queue_ns: self.queued.as_nanos() as u64,
            authorize_ns: self.asked.as_nanos() as u64,
            number: self.number,
        };
        if self.shared.is_phased(self.number) {
            if let Some(phased) = phased(&outcome) {
                self.shared.note(phased);
            }
        }
        self.shared.inbox.tell(outcome);
    }
}

/// Where the time of a call went; none for a tunnel, or a call with more than one attempt or no answer. As `phases_of` in `proxy/contract/outcome.py`.
fn phased(outcome: &Outcome) -> Option<Notice> {
    let token = outcome.decision.clone()?;
    let [attempt] = &outcome.attempts[..] else { return None };
    if attempt.sent_ns == 0 || attempt.head_ns == 0 || outcome.head.protocol == Protocol::Websocket {
        return None;
    }
    let split = outcome.split();
    let (connect, ttfb) = (split.connect.unwrap_or_default(), split.upstream_ttfb.unwrap_or_default());
    let body = attempt.ended_ns.saturating_sub(attempt.head_ns);
    let took = outcome.ended_ns.saturating_sub(outcome.started_ns);
    let rest = took.saturating_sub(split.resolve + split.queue + outcome.authorize_ns + connect + ttfb + body);
    let authorize = (outcome.authorize_ns > 0).then_some(outcome.authorize_ns);
    let phases = [Some(split.resolve), Some(split.queue), authorize, Some(ttfb), Some(body), Some(rest)];
    Some(Notice::Phased { token, phases: phases.map(|took| took.map(Duration::from_nanos)) })
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
