//! One attempt of a call: an endpoint, a connection, the request body up and the answer down. Both directions are pumped from one
//! poll, so a call is one task; bytes are acknowledged to one side once they were taken by the other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::call::answers::{self, grpc_code};
use crate::call::cause::Cause;
use crate::call::ends::{Answer, Down, Gone, Lost, Part, Up};
use crate::call::exchange::{Call, Stop, now_ns};
use crate::call::gates::Refusal;
use crate::call::grpc_web::{self, WebUp};
use crate::call::pool::{Connection, Origin};
use crate::call::request_body::Pumped;
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
    /// The answer counts as a failure: try again after so long.
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

impl Call {
    /// Try one endpoint.
    pub async fn attempt(&mut self, down: &mut Down, plan: &Plan) -> Result<Ended, Stop> {
        let route = &plan.routes[self.route];
        let mut timer = plan.attempt.map(|limit| Box::pin(tokio::time::sleep(limit)));
        if !route.gates.is_empty() {
            if let Some(ended) = Box::pin(self.enter_attempt(down, plan, &mut timer)).await? {
                return Ok(ended);
            }
        }
        let now = Instant::now();
        let picked = {
            let clusters = self.shared.clusters.borrow();
            clusters.get(&route.cluster).and_then(|state| {
                let endpoint = state.pick(&self.tried, now)?;
                let is_alone = state.endpoints.len() == 1;
                let other = if is_alone { None } else { state.to_prove(&endpoint.address, now) };
                Some((endpoint, other, state.cluster.wire, state.cluster.tls))
            })
        };
        let Some((endpoint, other, wire, tls)) = picked else {
            self.begin_attempt(Arc::default());
            self.end_attempt(Some(Cause::NoEndpoint), "");
            return Ok(Ended::Failed(Cause::NoEndpoint, self.explain(route.cluster.clone()).await?));
        };
        endpoint.load.borrow_mut().in_flight += 1;
        self.endpoint = Some(endpoint.clone());
        if !self.tried.contains(&endpoint.address) {
            self.tried.push(endpoint.address.clone());
        }
        self.begin_attempt(endpoint.address.clone());
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
                self.shared.clone(),
                Origin { address: other.address.clone(), ..origin.clone() },
                other,
            ));
        }
        if !self.begin_own_span() {
            Box::pin(self.begin_span(down)).await?;
        }
        let shared = self.shared.clone();
        let connected = if let Some(connection) = shared.pool.take(&origin) {
            Ok(connection)
        } else {
            let has_other = self.may_try_another(plan);
            match self.timed(down, &mut timer, Box::pin(connect(shared.clone(), origin, endpoint.clone(), has_other))).await? {
                None => return Ok(self.timed_out(plan)),
                Some(connected) => connected,
            }
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(lost) => {
                endpoint.load.borrow_mut().lose(lost.cause, tls == Tls::Mesh, Instant::now());
                self.end_attempt(Some(lost.cause), &lost.detail);
                return Ok(Ended::Failed(lost.cause, lost.detail));
            }
        };
        let is_daprd = tls != Tls::None && connection.is_plain_h2();
        self.is_peer = wire == Wire::Postern && !is_daprd;
        self.refused_as = None;
        if wire == Wire::Postern && is_daprd && self.head.protocol != Protocol::Grpc {
            let detail = "the peer chose ALPN h2, as daprd does: only gRPC can be carried to it";
            self.end_attempt(Some(Cause::Unsupported), detail);
            return Ok(Ended::ForGood(Cause::Unsupported, detail.into()));
        }
        self.over(down, plan, connection, &mut timer).await
    }

    /// Pass the gates of an attempt; says so where that ends it.
    async fn enter_attempt(
        &mut self,
        down: &mut Down,
        plan: &Plan,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<Option<Ended>, Stop> {
        self.begin_attempt(Arc::default());
        for name in &plan.routes[self.route].gates {
            match self.enter(down, name, timer).await? {
                Some(Ok(pass)) => self.attempt_passes.push(pass),
                Some(Err(Refusal { cause, detail })) => {
                    self.end_attempt(Some(cause), &detail);
                    return Ok(Some(Ended::Failed(cause, detail)));
                }
                None if timer.as_ref().is_some_and(|timer| timer.is_elapsed()) => return Ok(Some(self.timed_out(plan))),
                None => {}
            }
        }
        Ok(None)
    }

    /// A record of the attempt, or the endpoint to the one that gates have begun.
    fn begin_attempt(&mut self, endpoint: Arc<str>) {
        match self.attempts.last_mut().filter(|attempt| attempt.ended_ns == 0) {
            Some(attempt) => attempt.endpoint = endpoint,
            None => self.attempts.push(Attempt { endpoint, started_ns: now_ns(), ..Attempt::default() }),
        }
    }

    pub async fn timed<T>(
        &mut self,
        down: &mut Down,
        timer: &mut Option<Pin<Box<Sleep>>>,
        wait: impl Future<Output = T>,
    ) -> Result<Option<T>, Stop> {
        let Some(timer) = timer else { return self.guarded(down, wait).await.map(Some) };
        let mut wait = std::pin::pin!(wait);
        let either = poll_fn(|cx| {
            if let Poll::Ready(found) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(found));
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        self.guarded(down, either).await
    }

    fn timed_out(&mut self, plan: &Plan) -> Ended {
        let detail = format!("no complete answer within {} s", plan.attempt.unwrap_or_default().as_secs_f64());
        self.end_attempt(Some(Cause::Timeout), &detail);
        Ended::Failed(Cause::Timeout, detail)
    }

    /// Send the request over a connection and pass the answer on.
    async fn over(
        &mut self,
        down: &mut Down,
        plan: &Plan,
        connection: Connection,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<Ended, Stop> {
        let end = self.body.rewind();
        self.sent_at = Instant::now();
        let mut up = match connection.start(self.edited(plan), end) {
            Ok(up) => up,
            Err(lost) => return Ok(self.lost(lost)),
        };
        if let Some(sent_as) = plan.routes[self.route].edits.sent_as(&self.head) {
            let progress = self.web.insert(Rc::default());
            up = Up::Web(Box::new(WebUp::new(up, sent_as.clone(), progress.clone())));
        }
        let mut pump = if end { Pump::Done } else { Pump::Running };
        let answered = match self.until_head(down, plan, &mut up, &mut pump, timer).await? {
            Ok(answered) => answered,
            Err(ended) => return Ok(ended),
        };
        // Where no other is left, the peer's answer says more than ours could.
        if self.refused_as.is_some() && self.may_try_another(plan) {
            self.end_attempt(self.refused_as, "");
            return Ok(Ended::Retry(Duration::ZERO));
        }
        if plan.routes[self.route].edits.http_only && answers::is_grpc(&answered.headers) {
            let detail = format!("it answered in gRPC, with HTTP {}", answered.status);
            self.end_attempt(Some(Cause::Unsupported), &detail);
            return Ok(Ended::ForGood(Cause::Unsupported, detail));
        }
        let code = match (&answered.first, answered.end) {
            _ if self.head.protocol != Protocol::Grpc => None,
            (None, true) => grpc_code(&answered.headers),
            (Some(Part::End(trailers)), _) => trailers.as_ref().and_then(grpc_code),
            _ => None,
        };
        let waits_for_code = self.head.protocol == Protocol::Grpc && !answered.end && answered.first.is_none();
        if !waits_for_code && !matches!(answered.first, Some(Part::Data(_))) {
            let failed = plan.retries.iter().any(|policy| policy.covers(Cause::Status, answered.status, code));
            let pause = if failed { Box::pin(self.next_pause(plan, Cause::Status, answered.status, code)).await? } else { None };
            if let Some(pause) = pause {
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.grpc_code = code;
                }
                self.end_attempt(Some(Cause::Status), "");
                return Ok(Ended::Retry(pause));
            }
        }
        self.relay(down, plan, up, pump, answered, timer).await
    }

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

    fn lost(&mut self, lost: Lost) -> Ended {
        if lost.cause == Cause::Refused {
            if let Some(endpoint) = &self.endpoint {
                endpoint.load.borrow_mut().yield_way();
            }
        }
        self.end_attempt(Some(lost.cause), &lost.detail);
        Ended::Failed(lost.cause, lost.detail)
    }

    async fn until_head(
        &mut self,
        down: &mut Down,
        plan: &Plan,
        up: &mut Up,
        pump: &mut Pump,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<Result<Answered, Ended>, Stop> {
        let wants_code = self.head.protocol == Protocol::Grpc
            && plan.retries.iter().any(|policy| policy.grpc_codes.as_ref().is_none_or(|codes| !codes.is_empty()));
        let mut held: Option<(u16, Headers)> = None;
        poll_fn(|cx| {
            if let Some(timer) = timer {
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(Err(self.timed_out(plan))));
                }
            }
            if let Some(ended) = self.poll_request(cx, down, up, plan, pump) {
                return Poll::Ready(ended.map(Err));
            }
            loop {
                if held.is_some() {
                    match up.poll_body(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Err(lost)) => return Poll::Ready(Ok(Err(self.lost(lost)))),
                        Poll::Ready(Ok(part)) => {
                            let (status, headers) = held.take().unwrap_or_default();
                            return Poll::Ready(Ok(Ok(Answered { status, headers, first: Some(part), end: false })));
                        }
                    }
                }
                match up.poll_head(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(lost)) => return Poll::Ready(Ok(Err(self.lost(lost)))),
                    Poll::Ready(Ok(Answer::Inform(status, mut headers))) => {
                        drop_hop_by_hop(&mut headers);
                        down.inform(status, headers);
                    }
                    Poll::Ready(Ok(Answer::Head { status, headers, end })) => {
                        self.note_head(status, &headers, end);
                        if wants_code && !end && !self.body.spent {
                            held = Some((status, headers));
                            continue;
                        }
                        return Poll::Ready(Ok(Ok(Answered { status, headers, first: None, end })));
                    }
                }
            }
            if let Poll::Ready(lost) = up.poll_drive(cx) {
                return Poll::Ready(Ok(Err(self.lost(lost))));
            }
            self.poll_stop(cx, down).map(Err)
        })
        .await
    }

    fn note_head(&mut self, status: u16, headers: &Headers, end: bool) {
        self.head_ns = now_ns();
        let now = Instant::now();
        let is_failure = status >= 400 || (end && self.head.protocol == Protocol::Grpc);
        let may_be_made = self.is_peer && (is_failure || grpc_web::content_type(&self.head).is_some());
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
        if let Some(attempt) = self.attempts.last_mut() {
            (attempt.head_ns, attempt.status, attempt.said) = (self.head_ns, status, said);
        }
    }

    /// Move the request on; says so where that ends the attempt.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down,
        up: &mut Up,
        plan: &Plan,
        pump: &mut Pump,
    ) -> Option<Result<Ended, Stop>> {
        self.up_waits = false;
        if !matches!(pump, Pump::Running) {
            return None;
        }
        match self.body.poll(cx, down, up, plan.body_bytes, &plan.routes[self.route].edits, !self.committed) {
            Poll::Pending => {
                self.up_waits = self.body.is_drained();
                None
            }
            Poll::Ready(Pumped::Whole) => {
                *pump = Pump::Done;
                None
            }
            // What the callee said before it broke off is still to be read: that tells more.
            Poll::Ready(Pumped::Lost) => {
                *pump = Pump::Broken;
                None
            }
            Poll::Ready(Pumped::Gone(Gone(detail))) => Some(Err(Stop::Gone(detail))),
            Poll::Ready(Pumped::TooLarge(limit)) => {
                self.end_attempt(Some(Cause::TooLarge), "");
                Some(Ok(Ended::ForGood(Cause::TooLarge, format!("more than {limit} bytes"))))
            }
        }
    }

    /// Pass the answer on to its end.
    async fn relay(
        &mut self,
        down: &mut Down,
        plan: &Plan,
        mut up: Up,
        mut pump: Pump,
        answered: Answered,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<Ended, Stop> {
        self.committed = true;
        self.status = answered.status;
        let mut headers = answered.headers;
        let code = if answered.end { grpc_code(&headers) } else { None };
        let mark = match answered.status {
            426 => Some(UPGRADE),
            501 => Some(DECLINED),
            _ => None,
        };
        let mark = mark.and_then(|name| Some((headers.remove(&name)?, name))); // from one HTTP/1.1 end to the other
        match &plan.reply_edits {
            Some(edits) => edits.answer(&mut headers, &self.head, self.span.as_ref()),
            None => drop_hop_by_hop(&mut headers),
        }
        if let Some((value, name)) = mark {
            headers.append(name, value);
        }
        if self.head.protocol != Protocol::Grpc {
            answers::date(&mut headers);
        }
        down.respond(answered.status, headers, answered.end);
        if answered.end {
            self.whole(code);
            up.part();
            return Ok(Ended::Whole);
        }
        if self.head.protocol == Protocol::Websocket {
            *timer = None; // an attempt at a tunnel ends with its acceptance
        }
        let mut next = answered.first;
        let ended = poll_fn(|cx| {
            if let Some(timer) = timer {
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(self.timed_out(plan)));
                }
            }
            if let Some(ended) = self.poll_request(cx, down, &mut up, plan, &mut pump) {
                return Poll::Ready(ended);
            }
            loop {
                match next.take() {
                    Some(Part::Data(mut data)) => match down.poll_room(cx, data.len()) {
                        Poll::Pending => {
                            next = Some(Part::Data(data));
                            self.owes_down = true;
                            break;
                        }
                        Poll::Ready(Err(Gone(detail))) => return Poll::Ready(Err(Stop::Gone(detail))),
                        Poll::Ready(Ok(room)) => {
                            self.owes_down = false;
                            let chunk = data.split_to(room.min(data.len()));
                            self.down_bytes += chunk.len() as u64;
                            up.release(chunk.len());
                            let last = data.is_empty() && up.is_read();
                            down.send(chunk, last);
                            if last {
                                self.whole(None);
                                return Poll::Ready(Ok(Ended::Whole));
                            }
                            next = (!data.is_empty()).then_some(Part::Data(data));
                        }
                    },
                    Some(Part::End(trailers)) => {
                        let code = trailers.as_ref().and_then(grpc_code);
                        down.finish(trailers.and_then(|trailers| edits::trailers(plan.reply_edits.as_ref(), trailers)));
                        self.whole(code);
                        return Poll::Ready(Ok(Ended::Whole));
                    }
                    None => match up.poll_body(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(part)) => next = Some(part),
                        Poll::Ready(Err(lost)) => return Poll::Ready(Ok(self.lost(lost))),
                    },
                }
            }
            if let Poll::Ready(lost) = up.poll_drive(cx) {
                return Poll::Ready(Ok(self.lost(lost)));
            }
            self.poll_stop(cx, down).map(Err)
        })
        .await;
        if let Ok(Ended::Whole) = ended {
            up.part();
        }
        ended
    }

    fn whole(&mut self, code: Option<u32>) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.grpc_code = match &self.web {
                Some(progress) => progress.code.get(),
                None => code.filter(|_| self.head.protocol == Protocol::Grpc),
            };
        }
        self.end_attempt(self.refused_as, "");
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
