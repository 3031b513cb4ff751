//! What a call says to its caller: the answer of the attempt that is the one, or an answer of ours; and how it ends where it is stopped.

use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::oneshot;

use crate::call::answers;
use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop};
use crate::call::grpc_web::{self, Progress};
use crate::call::not_retried::NotRetried;
use crate::decision::edits::drop_hop_by_hop;
use crate::decision::plan::{Decision, Plan, Reply, is_failure};
use crate::fields::{DECLINED, Headers, UPGRADE};
use crate::head::Protocol;
use crate::seam::ask::Question;
use crate::seam::news::News;

const POLICY_CHANGED: &str = "the access policy changed while the call was open";

impl Stop {
    /// What ended the call, as it and its attempts hear it.
    pub fn told(&self, stall: Duration) -> (Cause, String) {
        match self {
            Self::Deadline => (Cause::Timeout, "the call's deadline passed".to_owned()),
            Self::TooLarge(limit) => (Cause::TooLarge, format!("more than {limit} bytes")),
            Self::Gone(detail) => (Cause::CallerLeft, detail.clone()),
            Self::Stalled => (Cause::CallerLeft, format!("the caller stalled for {} s", stall.as_secs_f64())),
            Self::Denied => (Cause::Denied, POLICY_CHANGED.to_owned()),
            Self::Cut | Self::Silent => (Cause::Draining, "the proxy is shutting down".to_owned()),
        }
    }
}

impl Call {
    /// An attempt's answer is passed on from now on: no further one, and no other's.
    pub fn commit(&mut self, number: usize, web: Option<Rc<Progress>>) {
        (self.the_one, self.committed, self.web) = (Some(number), true, web);
        self.had_spent = self.body.spent;
        self.head_ns = self.attempts[number].head_ns;
    }

    /// Pass the head of an attempt's answer on.
    pub fn respond(&mut self, down: &mut Down, plan: &Plan, status: u16, mut headers: Headers, end: bool) {
        self.status = status;
        if plan.breaker.as_ref().is_some_and(|used| used.is_opening) {
            let is_denial = self.the_one.is_some_and(|one| self.is_denial(plan, one));
            self.tell_breaker(status != 101 && is_failure(status, None) && !is_denial);
        }
        let mark = match status {
            426 => Some(UPGRADE),
            501 => Some(DECLINED),
            _ => None,
        };
        let mark = mark.and_then(|name| Some((headers.remove(&name)?, name))); // from one HTTP/1.1 end to the other
        match self.reply_edits(plan) {
            Some(edits) => edits.answer(&mut headers, &self.head, self.span.as_ref()),
            None => drop_hop_by_hop(&mut headers),
        }
        if let Some((value, name)) = mark {
            headers.append(name, value);
        }
        let fault = self.the_one.map_or("", |one| &self.attempts[one].fault);
        if let Some(fault) = HeaderValue::from_str(fault).ok().filter(|fault| !fault.is_empty()) {
            headers.append(answers::FAULT, fault);
        }
        if self.head.protocol != Protocol::Grpc {
            answers::date(&mut headers);
        }
        self.state.answered.set(Some((status, self.head_ns)));
        if let Some(watch) = self.shared.watch() {
            let (number, head_ns, fields) = (self.number, self.head_ns, watch.pick(&headers));
            self.shared.inbox.tell_news(News::Answered { number, head_ns, status, fields });
        }
        down.respond(status, headers, end);
    }

    /// The ready-made answer for a cause, or the visible end of what has begun.
    pub async fn fail(&mut self, down: &mut Down, cause: Cause, detail: &str) -> Result<(), Stop> {
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

    /// An answer of ours.
    pub async fn reply(&mut self, down: &mut Down, reply: &Reply, detail: &str) {
        let sampling = self.kept.as_ref().map_or(reply.token.sampling, |kept| kept.decision.token().sampling);
        if !self.begin_span_by(sampling) {
            Box::pin(self.ask_span()).await;
        }
        self.status = reply.status;
        let grpc = self.head.protocol == Protocol::Grpc || grpc_web::content_type(&self.head).is_some();
        let told = self.told.take().filter(|told| reply.cause == Cause::Rate || told.again.is_none());
        let said = answers::Said { reply, detail, told: told.as_deref() };
        self.down_bytes = answers::send(down, &said, self.span.as_ref(), &self.head) as u64;
        self.answer = Some((reply.token.clone(), reply.cause, grpc.then_some(reply.grpc_code)));
    }

    /// Something ended the call from outside: answer where that can be, or end it visibly.
    pub async fn stopped(&mut self, stop: Stop, down: &mut Down) {
        let (cause, detail) = stop.told(self.shared.limits.stall);
        self.cause = Some(cause);
        if let Stop::Deadline = stop {
            self.not_retried = Some(NotRetried::Deadline);
        }
        match stop {
            Stop::Deadline | Stop::TooLarge(_) => {
                if self.fail(down, cause, &detail).await.is_err() {
                    self.cause = Some(Cause::Draining);
                    down.abort(Cause::Draining);
                }
            }
            Stop::Gone(_) => {}
            Stop::Denied => self.denied(down).await,
            Stop::Cut | Stop::Stalled | Stop::Silent => down.abort(cause),
        }
    }

    /// A newer decision denies the call: answer with it, or end visibly what has begun.
    async fn denied(&mut self, down: &mut Down) {
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
}
