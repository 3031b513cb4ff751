//! One attempt of a call: an endpoint, a connection, the request body up and the answer down. Both directions are pumped from one
//! poll, so a call is one task; bytes are acknowledged to one side once they were taken by the other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::call::answers::{self, grpc_code};
use crate::call::cause::Cause;
use crate::call::ends::{Answer, Down, Gone, Lost, Part, Up};
use crate::call::exchange::{Call, Stop, heard_by_gates, now_ns};
use crate::call::gates::{Pass, Refusal};
use crate::call::grpc_web::{self, WebUp};
use crate::call::pool::{Connection, Origin};
use crate::call::request_body::{BodyCursor, Pumped};
use crate::clusters::{Endpoint, Tls, Wire};
use crate::decision::edits::{self, drop_hop_by_hop};
use crate::decision::plan::Plan;
use crate::fields::{DECLINED, Headers, UPGRADE};
use crate::head::{Framing, Protocol, RawHead};
use crate::seam::ask::Attempt;
use crate::shared::Shared;

/// For an endpoint that was only announced to show who it is, where another one is left.
const PROOF: Duration = Duration::from_secs(1);

/// How an attempt ended.
pub enum Ended {
    Whole,
    /// The answer counts as a failure: retry after this pause.
    Retry(Duration),
    Failed(Cause, String),
    /// No other attempt may help.
    ForGood(Cause, String),
}

/// What came before the answer's body was looked at. `first`: what was read of it to know the gRPC status.
struct Answered {
    status: u16,
    headers: Headers,
    first: Option<Part>,
    end: bool,
}

/// An attempt under way. Its record is the call's; all else of it is its own.
pub struct UpstreamAttempt {
    /// Place of its record among the call's.
    number: usize,
    endpoint: Option<Rc<Endpoint>>,
    /// Of the gates that it has passed.
    passes: Vec<Pass>,
    timer: Option<Pin<Box<Sleep>>>,
    sent_at: Instant,
    cursor: BodyCursor,
    pump: Pump,
    /// The other end is a postern proxy.
    is_peer: bool,
    /// The peer's proxy says that it kept the call from its app.
    refused_as: Option<Cause>,
}

/// Dropped before its end, with its connection's task or by a fault of ours: gates hear what the call's outcome says.
impl Drop for UpstreamAttempt {
    fn drop(&mut self) {
        self.release_endpoint();
        self.passes.drain(..).for_each(|pass| pass.leave(Some(Cause::Draining)));
    }
}

impl UpstreamAttempt {
    /// One more of a call, whose record begins.
    pub fn begin(call: &mut Call, plan: &Plan) -> Self {
        call.attempts.push(Attempt { started_ns: now_ns(), ..Attempt::default() });
        Self {
            number: call.attempts.len() - 1,
            endpoint: None,
            passes: Vec::new(),
            timer: plan.attempt.map(|limit| Box::pin(tokio::time::sleep(limit))),
            sent_at: Instant::now(),
            cursor: BodyCursor::default(),
            pump: Pump::Running,
            is_peer: false,
            refused_as: None,
        }
    }

    /// Try one endpoint.
    pub async fn run(&mut self, call: &mut Call, down: &mut Down, plan: &Plan) -> Result<Ended, Stop> {
        let route = &plan.routes[call.route];
        if !route.gates.is_empty() {
            if let Some(ended) = Box::pin(self.enter(call, down, plan)).await? {
                return Ok(ended);
            }
        }
        let now = Instant::now();
        let picked = {
            let clusters = call.shared.clusters.borrow();
            clusters.get(&route.cluster).and_then(|state| {
                let endpoint = state.pick(&call.tried, now)?;
                let is_alone = state.endpoints.len() == 1;
                let other = if is_alone { None } else { state.to_prove(&endpoint.address, now) };
                Some((endpoint, other, state.cluster.wire, state.cluster.tls))
            })
        };
        let Some((endpoint, other, wire, tls)) = picked else {
            self.end(call, Some(Cause::NoEndpoint), "");
            return Ok(Ended::Failed(Cause::NoEndpoint, call.explain(route.cluster.clone()).await?));
        };
        endpoint.load.borrow_mut().in_flight += 1;
        self.endpoint = Some(endpoint.clone());
        if !call.tried.contains(&endpoint.address) {
            call.tried.push(endpoint.address.clone());
        }
        call.attempts[self.number].endpoint = endpoint.address.clone();
        let origin = Origin {
            cluster: route.cluster.clone(),
            address: endpoint.address.clone(),
            wire,
            tls,
            expect: route.expect.clone(),
            connect: plan.connect,
        };
        if let Some(other) = other {
            tokio::task::spawn_local(prove(
                call.shared.clone(),
                Origin { address: other.address.clone(), ..origin.clone() },
                other,
            ));
        }
        if !call.begin_own_span() {
            Box::pin(call.begin_span(down)).await?;
        }
        let shared = call.shared.clone();
        let connected = if let Some(connection) = shared.pool.take(&origin) {
            Ok(connection)
        } else {
            let connecting = connect(shared.clone(), origin, endpoint.clone(), call.may_try_another(plan));
            match call.timed(down, &mut self.timer, Box::pin(connecting)).await? {
                None => return Ok(self.timed_out(call, plan)),
                Some(connected) => connected,
            }
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(lost) => {
                endpoint.load.borrow_mut().lose(lost.cause, tls == Tls::Mesh, Instant::now());
                self.end(call, Some(lost.cause), &lost.detail);
                return Ok(Ended::Failed(lost.cause, lost.detail));
            }
        };
        let is_daprd = tls != Tls::None && connection.is_plain_h2();
        self.is_peer = wire == Wire::Postern && !is_daprd;
        if wire == Wire::Postern && is_daprd && call.head.protocol != Protocol::Grpc {
            let detail = "the peer chose ALPN h2, as daprd does: only gRPC can be carried to it";
            self.end(call, Some(Cause::Unsupported), detail);
            return Ok(Ended::ForGood(Cause::Unsupported, detail.into()));
        }
        self.over(call, down, plan, connection).await
    }

    /// Pass its gates; says so where that ends it.
    async fn enter(&mut self, call: &mut Call, down: &mut Down, plan: &Plan) -> Result<Option<Ended>, Stop> {
        for name in &plan.routes[call.route].gates {
            match call.enter(down, name, &mut self.timer).await? {
                Some(Ok(pass)) => self.passes.push(pass),
                Some(Err(Refusal { cause, detail })) => {
                    self.end(call, Some(cause), &detail);
                    return Ok(Some(Ended::Failed(cause, detail)));
                }
                None if self.timer.as_ref().is_some_and(|timer| timer.is_elapsed()) => {
                    return Ok(Some(self.timed_out(call, plan)));
                }
                None => {}
            }
        }
        Ok(None)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    fn timed_out(&mut self, call: &mut Call, plan: &Plan) -> Ended {
        let detail = format!("no complete answer within {} s", plan.attempt.unwrap_or_default().as_secs_f64());
        self.end(call, Some(Cause::Timeout), &detail);
        Ended::Failed(Cause::Timeout, detail)
    }

    /// Send the request over a connection and pass the answer on.
    async fn over(&mut self, call: &mut Call, down: &mut Down, plan: &Plan, connection: Connection) -> Result<Ended, Stop> {
        let (cursor, end) = BodyCursor::new(&call.body);
        self.cursor = cursor;
        self.sent_at = Instant::now();
        let mut up = match connection.start(call.edited(plan), end) {
            Ok(up) => up,
            Err(lost) => return Ok(self.lost(call, lost)),
        };
        if let Some(sent_as) = plan.routes[call.route].edits.sent_as(&call.head) {
            let progress = call.web.insert(Rc::default());
            up = Up::Web(Box::new(WebUp::new(up, sent_as.clone(), progress.clone())));
        }
        if end {
            self.pump = Pump::Done;
        }
        let answered = match self.until_head(call, down, plan, &mut up).await? {
            Ok(answered) => answered,
            Err(ended) => return Ok(ended),
        };
        // Where no other is left, the peer's answer says more than ours could.
        if self.refused_as.is_some() && call.may_try_another(plan) {
            self.end(call, self.refused_as, "");
            return Ok(Ended::Retry(Duration::ZERO));
        }
        if plan.routes[call.route].edits.http_only && answers::is_grpc(&answered.headers) {
            let detail = format!("it answered in gRPC, with HTTP {}", answered.status);
            self.end(call, Some(Cause::Unsupported), &detail);
            return Ok(Ended::ForGood(Cause::Unsupported, detail));
        }
        let code = match (&answered.first, answered.end) {
            _ if call.head.protocol != Protocol::Grpc => None,
            (None, true) => grpc_code(&answered.headers),
            (Some(Part::End(trailers)), _) => trailers.as_ref().and_then(grpc_code),
            _ => None,
        };
        let waits_for_code = call.head.protocol == Protocol::Grpc && !answered.end && answered.first.is_none();
        if !waits_for_code && !matches!(answered.first, Some(Part::Data(_))) {
            let failed = plan.retries.iter().any(|policy| policy.covers(Cause::Status, answered.status, code));
            let pause =
                if failed { Box::pin(call.next_pause(down, plan, Cause::Status, answered.status, code)).await? } else { None };
            if let Some(pause) = pause {
                call.attempts[self.number].grpc_code = code;
                self.end(call, Some(Cause::Status), "");
                return Ok(Ended::Retry(pause));
            }
        }
        self.relay(call, down, plan, up, answered).await
    }

    fn lost(&mut self, call: &mut Call, lost: Lost) -> Ended {
        if lost.cause == Cause::Refused {
            if let Some(endpoint) = &self.endpoint {
                endpoint.load.borrow_mut().yield_way();
            }
        }
        self.end(call, Some(lost.cause), &lost.detail);
        Ended::Failed(lost.cause, lost.detail)
    }

    async fn until_head(
        &mut self,
        call: &mut Call,
        down: &mut Down,
        plan: &Plan,
        up: &mut Up,
    ) -> Result<Result<Answered, Ended>, Stop> {
        let wants_code = call.head.protocol == Protocol::Grpc
            && plan.retries.iter().any(|policy| policy.grpc_codes.as_ref().is_none_or(|codes| !codes.is_empty()));
        let mut held: Option<(u16, Headers)> = None;
        poll_fn(|cx| {
            if self.poll_timer(cx) {
                return Poll::Ready(Ok(Err(self.timed_out(call, plan))));
            }
            if let Some(ended) = self.poll_request(cx, call, down, up, plan) {
                return Poll::Ready(ended.map(Err));
            }
            loop {
                if held.is_some() {
                    match up.poll_body(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Err(lost)) => return Poll::Ready(Ok(Err(self.lost(call, lost)))),
                        Poll::Ready(Ok(part)) => {
                            let (status, headers) = held.take().unwrap_or_default();
                            return Poll::Ready(Ok(Ok(Answered { status, headers, first: Some(part), end: false })));
                        }
                    }
                }
                match up.poll_head(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(lost)) => return Poll::Ready(Ok(Err(self.lost(call, lost)))),
                    Poll::Ready(Ok(Answer::Inform(status, mut headers))) => {
                        drop_hop_by_hop(&mut headers);
                        down.inform(status, headers);
                    }
                    Poll::Ready(Ok(Answer::Head { status, headers, end })) => {
                        self.note_head(call, status, &headers, end);
                        if wants_code && !end && !call.body.spent {
                            held = Some((status, headers));
                            continue;
                        }
                        return Poll::Ready(Ok(Ok(Answered { status, headers, first: None, end })));
                    }
                }
            }
            if let Poll::Ready(lost) = up.poll_drive(cx) {
                return Poll::Ready(Ok(Err(self.lost(call, lost))));
            }
            call.poll_stop(cx, down).map(Err)
        })
        .await
    }

    fn note_head(&mut self, call: &mut Call, status: u16, headers: &Headers, end: bool) {
        call.head_ns = now_ns();
        let now = Instant::now();
        let is_failure = status >= 400 || (end && call.head.protocol == Protocol::Grpc);
        let may_be_made = self.is_peer && (is_failure || grpc_web::content_type(&call.head).is_some());
        let said = if may_be_made { said_by_proxy(headers) } else { None };
        self.refused_as = said.filter(|cause| KEPT_FROM_APP & cause.bit() != 0);
        if let Some(endpoint) = &self.endpoint {
            let mut load = endpoint.load.borrow_mut();
            match self.refused_as {
                Some(Cause::Refused) => load.yield_way(),
                // It failed as an endpoint, however fast the answer.
                Some(_) => load.eject(now),
                None => load.observe(now - self.sent_at, now),
            }
        }
        let record = &mut call.attempts[self.number];
        (record.head_ns, record.status, record.said) = (call.head_ns, status, said);
    }

    /// Move the request on; says so where that ends the attempt.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        call: &mut Call,
        down: &mut Down,
        up: &mut Up,
        plan: &Plan,
    ) -> Option<Result<Ended, Stop>> {
        call.up_waits = false;
        if !matches!(self.pump, Pump::Running) {
            return None;
        }
        let edits = &plan.routes[call.route].edits;
        match self.cursor.poll(cx, (&mut call.body, down), up, plan.body_bytes, edits, !call.committed) {
            Poll::Pending => {
                call.up_waits = self.cursor.is_drained(&call.body);
                None
            }
            Poll::Ready(Pumped::Whole) => {
                self.pump = Pump::Done;
                None
            }
            // What the callee said before it broke off is still to be read: that tells more.
            Poll::Ready(Pumped::Lost) => {
                self.pump = Pump::Broken;
                None
            }
            Poll::Ready(Pumped::Gone(Gone(detail))) => Some(Err(Stop::Gone(detail))),
            Poll::Ready(Pumped::TooLarge(limit)) => {
                self.end(call, Some(Cause::TooLarge), "");
                Some(Ok(Ended::ForGood(Cause::TooLarge, format!("more than {limit} bytes"))))
            }
        }
    }

    /// Pass the answer on to its end.
    async fn relay(
        &mut self,
        call: &mut Call,
        down: &mut Down,
        plan: &Plan,
        mut up: Up,
        answered: Answered,
    ) -> Result<Ended, Stop> {
        call.committed = true;
        call.status = answered.status;
        let mut headers = answered.headers;
        let code = if answered.end { grpc_code(&headers) } else { None };
        let mark = match answered.status {
            426 => Some(UPGRADE),
            501 => Some(DECLINED),
            _ => None,
        };
        let mark = mark.and_then(|name| Some((headers.remove(&name)?, name))); // from one HTTP/1.1 end to the other
        match &plan.reply_edits {
            Some(edits) => edits.answer(&mut headers, &call.head, call.span.as_ref()),
            None => drop_hop_by_hop(&mut headers),
        }
        if let Some((value, name)) = mark {
            headers.append(name, value);
        }
        if call.head.protocol != Protocol::Grpc {
            answers::date(&mut headers);
        }
        down.respond(answered.status, headers, answered.end);
        if answered.end {
            self.whole(call, code);
            up.part();
            return Ok(Ended::Whole);
        }
        if call.head.protocol == Protocol::Websocket {
            self.timer = None; // an attempt at a tunnel ends with its acceptance
        }
        let mut next = answered.first;
        let ended = poll_fn(|cx| {
            if self.poll_timer(cx) {
                return Poll::Ready(Ok(self.timed_out(call, plan)));
            }
            if let Some(ended) = self.poll_request(cx, call, down, &mut up, plan) {
                return Poll::Ready(ended);
            }
            loop {
                match next.take() {
                    Some(Part::Data(mut data)) => match down.poll_room(cx, data.len()) {
                        Poll::Pending => {
                            next = Some(Part::Data(data));
                            call.owes_down = true;
                            break;
                        }
                        Poll::Ready(Err(Gone(detail))) => return Poll::Ready(Err(Stop::Gone(detail))),
                        Poll::Ready(Ok(room)) => {
                            call.owes_down = false;
                            let chunk = data.split_to(room.min(data.len()));
                            call.down_bytes += chunk.len() as u64;
                            up.release(chunk.len());
                            let last = data.is_empty() && up.is_read();
                            down.send(chunk, last);
                            if last {
                                self.whole(call, None);
                                return Poll::Ready(Ok(Ended::Whole));
                            }
                            next = (!data.is_empty()).then_some(Part::Data(data));
                        }
                    },
                    Some(Part::End(trailers)) => {
                        let code = trailers.as_ref().and_then(grpc_code);
                        down.finish(trailers.and_then(|trailers| edits::trailers(plan.reply_edits.as_ref(), trailers)));
                        self.whole(call, code);
                        return Poll::Ready(Ok(Ended::Whole));
                    }
                    None => match up.poll_body(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(part)) => next = Some(part),
                        Poll::Ready(Err(lost)) => return Poll::Ready(Ok(self.lost(call, lost))),
                    },
                }
            }
            if let Poll::Ready(lost) = up.poll_drive(cx) {
                return Poll::Ready(Ok(self.lost(call, lost)));
            }
            call.poll_stop(cx, down).map(Err)
        })
        .await;
        if let Ok(Ended::Whole) = ended {
            up.part();
        }
        ended
    }

    fn whole(&mut self, call: &mut Call, code: Option<u32>) {
        call.attempts[self.number].grpc_code = match &call.web {
            Some(progress) => progress.code.get(),
            None => code.filter(|_| call.head.protocol == Protocol::Grpc),
        };
        self.end(call, self.refused_as, "");
    }

    /// Record how it ended, and release its endpoint and passes.
    pub fn end(&mut self, call: &mut Call, cause: Option<Cause>, detail: &str) {
        let record = &mut call.attempts[self.number];
        record.end(now_ns(), cause, detail);
        call.up_waits = false; // nobody reads the request until the next attempt
        self.release_endpoint();
        if !self.passes.is_empty() {
            let outcome = heard_by_gates(record.cause, record.status, record.grpc_code);
            self.passes.drain(..).for_each(|pass| pass.leave(outcome));
        }
    }

    fn release_endpoint(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.load.borrow_mut().in_flight -= 1;
        }
    }
}

impl Call {
    /// The request as the route has it sent.
    fn edited(&self, plan: &Plan) -> RawHead {
        let edits = &plan.routes[self.route].edits;
        let left = match (self.left(), plan.attempt) {
            (Some(left), Some(attempt)) => Some(left.min(attempt)),
            (left, attempt) => left.or(attempt),
        };
        let headers = match &self.span {
            Some(span) => edits.request(&self.head, span, left),
            None => self.head.headers.clone(),
        };
        let web = edits.sent_as(&self.head).is_some();
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
}

/// Connect to an endpoint that has not shown yet who it is, beside a call to another.
async fn prove(shared: Rc<Shared>, origin: Origin, endpoint: Rc<Endpoint>) {
    let found = shared.pool.get(&shared, &origin).await;
    let is_mesh = origin.tls == Tls::Mesh;
    let mut load = endpoint.load.borrow_mut();
    load.health.end_proving();
    match found {
        Ok(_) => load.health.prove(),
        Err(lost) => load.lose(lost.cause, is_mesh, Instant::now()),
    }
}

/// A connection to an endpoint; one that was only announced has to show soon who it is, where another one is left.
async fn connect(shared: Rc<Shared>, origin: Origin, endpoint: Rc<Endpoint>, has_other: bool) -> Result<Connection, Lost> {
    let health = endpoint.load.borrow().health.clone();
    let getting = shared.pool.get(&shared, &origin);
    let found = if has_other && !health.is_proven() {
        let late = |_| Err(Lost::new(Cause::Connect, format!("no connection within {} s", PROOF.as_secs())));
        tokio::time::timeout(PROOF, getting).await.unwrap_or_else(late)
    } else {
        getting.await
    };
    if found.is_ok() {
        health.prove();
    }
    found
}

/// What a peer's proxy says when its app never saw the call.
const KEPT_FROM_APP: u32 =
    1 << Cause::AppDown as u32 | 1 << Cause::AppUnhealthy as u32 | 1 << Cause::Misdirected as u32 | 1 << Cause::Refused as u32;

/// What a peer's proxy says of an answer that it made itself.
fn said_by_proxy(headers: &Headers) -> Option<Cause> {
    Cause::parse(headers.get(answers::ERROR)?.to_str().ok()?)
}

/// Where the request stands.
enum Pump {
    Running,
    Done,
    /// The callee takes no more of it.
    Broken,
}
