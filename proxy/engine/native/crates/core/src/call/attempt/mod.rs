//! One attempt of a call: the gates before it, an endpoint, a connection, the request body up and the answer down. It is driven by polls and
//! borrows its call for the moment of each, so several may be under way at once. Bytes are acknowledged to one side once they were taken by
//! the other. Equal in what it does to `portable/attempt.py`.

use std::future::Future;
use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::call::cause::Cause;
use crate::call::ends::{Down, Gone, Lost, Part, Up};
use crate::call::exchange::{Call, Stop, now_ns};
use crate::call::faulty_up::FaultyUp;
use crate::call::gates::fault::Hit;
use crate::call::gates::{Begun, Passage, Refusal};
use crate::call::grpc_web::{Progress, WebUp};
use crate::call::outliers;
use crate::call::pool::{Connection, Origin};
use crate::call::proving::{connect, prove};
use crate::call::request_body::{BodyCursor, Pumped};
use crate::call::retrying::{NextPause, heard_by_gates};
use crate::clusters::{Endpoint, Tls, Wire};
use crate::decision::plan::Plan;
use crate::fields::Headers;
use crate::head::Protocol;
use crate::seam::ask::{Attempt, Notice};
use crate::shared::Shared;

mod answer;
mod harm;

/// How an attempt ended.
pub enum Ended {
    Whole,
    /// The answer counts as a failure: retry after this pause.
    Retry(Duration),
    Failed(Cause, String),
    /// No other attempt may help.
    ForGood(Cause, String),
}

/// What came of a step: the next may be taken, or the attempt has ended, or the call.
type Stepped = ControlFlow<Result<Ended, Stop>>;

/// What came before the answer's body was looked at. `first`: what was read of it to know the gRPC status.
struct Answered {
    status: u16,
    headers: Headers,
    first: Option<Part>,
    end: bool,
}

/// Where an attempt stands.
enum Step {
    AtGates,
    /// It has an endpoint, and is ended on purpose.
    Harmed(Hit),
    Connecting(Pin<Box<dyn Future<Output = Result<Connection, Lost>>>>),
    /// The request is on its way, the answer's head is awaited.
    AwaitingHead,
    /// The head says nothing of the gRPC status, on which a retry may turn.
    AwaitingCode(Answered),
    /// Whether the answer, a failure, is thrown away for another attempt.
    Judging(Answered, Option<u32>, NextPause),
    /// What was read of the answer's body and waits for the caller.
    Relaying(Option<Part>),
    Over,
}

/// Where the request stands.
enum Pump {
    Running,
    Done,
    /// The callee takes no more of it.
    Broken,
}

/// An attempt. Its record is the call's; all else of it is its own.
pub struct UpstreamAttempt {
    /// Place of its record among the call's.
    number: usize,
    /// The call's, or that for calls which a daprd can't be sent as they are.
    route: usize,
    step: Step,
    gates: Passage,
    endpoint: Option<Rc<Endpoint>>,
    up: Option<Up>,
    cursor: BodyCursor,
    pump: Pump,
    /// Where gRPC-Web is made gRPC.
    web: Option<Rc<Progress>>,
    timer: Option<Pin<Box<Sleep>>>,
    sent_at: Instant,
    /// When the request was whole.
    asked_at: Instant,
    begun: Begun,
    /// When it came to the gates.
    waits_since: Instant,
    /// The other end is a postern proxy, reached over mutual TLS.
    is_peer: bool,
    is_mesh: bool,
    /// The peer's proxy says that it kept the call from its app.
    refused_as: Option<Cause>,
    /// The harm that is done to it.
    hits: Vec<Hit>,
}

/// Dropped before its end, with its connection's task or by a fault of ours: gates hear what the call's outcome says.
impl Drop for UpstreamAttempt {
    fn drop(&mut self) {
        if !self.is_over() {
            if let Some(endpoint) = self.endpoint.take() {
                drop(endpoint.load.borrow_mut().end(None));
            }
            self.gates.leave(Some(Cause::Draining), Begun::Never);
        }
    }
}

impl UpstreamAttempt {
    /// One more of a call, whose record begins.
    pub fn begin(call: &mut Call, plan: &Plan) -> Self {
        let gates = Passage::new(call.under_way > 0);
        call.attempts.push(Attempt { started_ns: now_ns(), ..Attempt::default() });
        call.under_way += 1;
        call.told = None; // that was of another attempt
        let now = Instant::now();
        Self {
            number: call.attempts.len() - 1,
            route: call.route,
            step: Step::AtGates,
            gates,
            endpoint: None,
            up: None,
            cursor: BodyCursor::default(),
            pump: Pump::Running,
            web: None,
            timer: plan.attempt.map(|limit| Box::pin(tokio::time::sleep(limit))),
            sent_at: now,
            asked_at: now,
            begun: Begun::Never,
            waits_since: now,
            is_peer: false,
            is_mesh: false,
            refused_as: None,
            hits: Vec::new(),
        }
    }

    /// Whether it has ended: nothing more comes of it.
    pub fn is_over(&self) -> bool {
        matches!(self.step, Step::Over)
    }

    /// Go on with it, until it waits or has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Result<Ended, Stop>> {
        loop {
            if !self.is_over() && call.is_anothers(self.number) {
                return Poll::Ready(Ok(self.fail(call, OUTRUN, OUTRUN_BY)));
            }
            if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                let detail = format!("no complete answer within {} s", plan.attempt.unwrap_or_default().as_secs_f64());
                return Poll::Ready(Ok(self.fail(call, Cause::Timeout, &detail)));
            }
            let stepped = match self.step {
                Step::AtGates => self.poll_gates(cx, call, plan),
                Step::Harmed(_) => Poll::Ready(self.end_harmed(call, down, plan)),
                Step::Connecting(_) => self.poll_connection(cx, call, plan),
                Step::AwaitingHead | Step::AwaitingCode(_) => self.poll_head(cx, call, down, plan),
                Step::Judging(..) => self.poll_judging(cx, call, down, plan),
                Step::Relaying(_) => self.poll_body(cx, call, down, plan),
                Step::Over => return Poll::Pending,
            };
            if let Break(ended) = ready!(stepped) {
                return Poll::Ready(ended);
            }
        }
    }

    // --- the way up

    fn poll_gates(&mut self, cx: &mut Context<'_>, call: &mut Call, plan: &Plan) -> Poll<Stepped> {
        match ready!(self.gates.poll(cx, &call.shared, &plan.routes[self.route].gates, call.head.who())) {
            Ok(()) => {
                if !plan.routes[self.route].gates.is_empty() {
                    call.attempts[self.number].queue_ns = self.waits_since.elapsed().as_nanos() as u64;
                    self.note_hits(call);
                }
                Poll::Ready(self.choose(call, plan))
            }
            Err(Refusal { cause, detail, told }) => {
                call.told = told;
                Poll::Ready(Break(Ok(self.fail(call, cause, &detail))))
            }
        }
    }

    /// Choose an endpoint and connect to it.
    fn choose(&mut self, call: &mut Call, plan: &Plan) -> Stepped {
        let route = &plan.routes[self.route];
        let now = Instant::now();
        let picked = {
            let clusters = call.shared.clusters.borrow();
            clusters.get(&route.cluster).and_then(|state| {
                let endpoint = state.pick(&call.tried, &call.head.headers, now)?;
                let is_alone = state.endpoints.len() == 1;
                let other = if is_alone { None } else { state.to_prove(&endpoint.address, now) };
                Some((endpoint, other, state.cluster.wire, state.cluster.tls.clone(), state.cluster.via.clone()))
            })
        };
        let Some((endpoint, other, wire, tls, via)) = picked else {
            return Break(Ok(self.fail(call, Cause::NoEndpoint, "")));
        };
        endpoint.load.borrow_mut().begin(now);
        self.endpoint = Some(endpoint.clone());
        (self.is_peer, self.is_mesh) = (wire == Wire::Postern, tls == Tls::Mesh);
        if self.route == call.route {
            if !call.tried.contains(&endpoint.address) {
                call.tried.push(endpoint.address.clone());
            }
            call.attempts[self.number].endpoint = endpoint.address.clone();
        }
        if let Some(hit) = self.ending_hit() {
            self.step = Step::Harmed(hit);
            return Continue(());
        }
        // A proxy that is asked for a whole URL drops Upgrade (RFC 6455 §4.1).
        let tunnel = via.is_some() && call.head.protocol == Protocol::Websocket;
        let origin = Origin {
            cluster: route.cluster.clone(),
            address: endpoint.address.clone(),
            wire,
            tls,
            expect: route.expect.clone(),
            connect: plan.connect,
            via,
            tunnel,
        };
        if let Some(other) = other {
            let beside = Origin { address: other.address.clone(), ..origin.clone() };
            tokio::task::spawn_local(prove(call.shared.clone(), beside, other));
        }
        let shared = call.shared.clone();
        if let Some(connection) = shared.pool.take(&origin) {
            return self.send(call, plan, connection);
        }
        self.step = Step::Connecting(Box::pin(connect(shared, origin, endpoint, call.may_try_another(plan))));
        Continue(())
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>, call: &mut Call, plan: &Plan) -> Poll<Stepped> {
        let Step::Connecting(connecting) = &mut self.step else { return Poll::Pending };
        Poll::Ready(match ready!(connecting.as_mut().poll(cx)) {
            Ok(connection) => self.send(call, plan, connection),
            Err(lost) => {
                if let Some(endpoint) = &self.endpoint {
                    endpoint.load.borrow_mut().lose(lost.cause, self.is_mesh, Instant::now());
                }
                Break(Ok(self.fail(call, lost.cause, &lost.detail)))
            }
        })
    }

    /// Send the request over a connection.
    fn send(&mut self, call: &mut Call, plan: &Plan, connection: Connection) -> Stepped {
        if self.is_peer && connection.is_daprd() {
            self.is_peer = false;
            if call.head.protocol != Protocol::Grpc {
                if let Some(route) = plan.by_daprd {
                    self.release_endpoint(None, &call.shared);
                    (self.route, call.is_by_daprd) = (route, true);
                    return self.choose(call, plan);
                }
                let detail = "the peer is a daprd, or a proxy like it: only gRPC and plain HTTP calls can be carried to it";
                return Break(Ok(self.fail_for_good(call, Cause::Unsupported, detail)));
            }
        }
        let (cursor, end) = BodyCursor::new(&call.body);
        self.cursor = cursor;
        self.sent_at = Instant::now();
        self.asked_at = self.sent_at;
        call.attempts[self.number].sent_ns = now_ns();
        let up = match connection.start(call.edited(plan, self.route, self.number), end) {
            Ok(up) => up,
            Err(lost) => return Break(Ok(self.lost(call, lost))),
        };
        self.up = Some(match plan.routes[self.route].edits.sent_as(&call.head) {
            Some(sent_as) => {
                let progress = self.web.insert(Rc::default());
                Up::Web(Box::new(WebUp::new(up, sent_as.clone(), progress.clone())))
            }
            None => up,
        });
        self.up = self.up.take().map(|up| FaultyUp::around(up, &self.hits));
        if end {
            self.pump = Pump::Done;
        }
        self.step = Step::AwaitingHead;
        Continue(())
    }

    /// Move the request on; says so where that ends the call.
    fn poll_request(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Option<Stop> {
        let (Pump::Running, Some(up)) = (&self.pump, &mut self.up) else { return None };
        let granted = call.granted.clone();
        let edits = granted.as_ref().map_or(&plan.routes[self.route].edits, |granted| &granted.routes[self.route]);
        let pumped = self.cursor.poll(cx, (&mut call.body, down), up, plan.body_bytes, edits, !call.committed);
        if call.body.spent {
            call.the_one.get_or_insert(self.number); // nobody else can send all of it
        }
        match pumped {
            Poll::Pending => call.up_waits |= self.cursor.is_drained(&call.body),
            Poll::Ready(Pumped::Whole) => (self.pump, self.asked_at) = (Pump::Done, Instant::now()),
            // What the callee said before it broke off is still to be read: that tells more.
            Poll::Ready(Pumped::Lost) => self.pump = Pump::Broken,
            Poll::Ready(Pumped::Gone(Gone(detail))) => return Some(Stop::Gone(detail)),
            Poll::Ready(Pumped::TooLarge(limit)) => return Some(Stop::TooLarge(limit)),
        }
        None
    }

    // --- its end

    fn lost(&mut self, call: &mut Call, lost: Lost) -> Ended {
        if lost.cause == Cause::Refused {
            if let Some(endpoint) = &self.endpoint {
                endpoint.load.borrow_mut().yield_way();
            }
        }
        self.fail(call, lost.cause, &lost.detail)
    }

    fn fail(&mut self, call: &mut Call, cause: Cause, detail: &str) -> Ended {
        self.end(call, Some(cause), detail);
        Ended::Failed(cause, detail.to_owned())
    }

    fn fail_for_good(&mut self, call: &mut Call, cause: Cause, detail: &str) -> Ended {
        self.end(call, Some(cause), detail);
        Ended::ForGood(cause, detail.to_owned())
    }

    /// Settle it, once: record how it ended, reset its stream, release its endpoint and its gates.
    pub fn end(&mut self, call: &mut Call, cause: Option<Cause>, detail: &str) {
        if self.is_over() {
            return;
        }
        if matches!(self.step, Step::AtGates) {
            call.attempts[self.number].queue_ns = self.waits_since.elapsed().as_nanos() as u64;
        }
        self.step = Step::Over; // a connection that it waits for is not taken
        self.timer = None;
        self.up = None;
        call.under_way -= 1;
        if call.attempts[self.number].fault.is_empty() {
            self.note_hits(call); // of one that did not get by its delay
        }
        call.up_waits = false; // nobody reads the request until the next attempt
        let record = &mut call.attempts[self.number];
        record.end(now_ns(), cause, detail);
        let heard = heard_by_gates(record.cause, record.status, record.grpc_code);
        let has_failed = outliers::has_failed(record, call.head.protocol == Protocol::Websocket);
        if let (Some(endpoint), Some(true)) = (&self.endpoint, has_failed) {
            let took = Duration::from_nanos(record.ended_ns.saturating_sub(record.sent_ns));
            endpoint.load.borrow_mut().penalize(took, Instant::now());
        }
        self.release_endpoint(has_failed, &call.shared);
        if !call.is_anothers(self.number) {
            call.begun = self.begun;
        }
        self.gates.leave(heard, self.begun);
    }

    /// `has_failed`: see `outliers::has_failed`; who answers badly is left out.
    fn release_endpoint(&mut self, has_failed: Option<bool>, shared: &Shared) {
        let Some(endpoint) = self.endpoint.take() else { return };
        let told = endpoint.load.borrow_mut().end(has_failed);
        if let Some((watch, well)) = told {
            for turn in watch.heard(&endpoint.address, well, has_failed, Instant::now(), fastrand::f64) {
                shared.note(Notice::EndpointTurned(turn));
            }
        }
    }
}

/// Whose upstream is given up for another attempt's: to it, its caller has left.
pub const OUTRUN: Cause = Cause::CallerLeft;
pub const OUTRUN_BY: &str = "another attempt of the call went on";
