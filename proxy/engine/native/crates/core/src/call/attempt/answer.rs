//! The answer of an attempt: awaited, judged, and passed on to its end.

use std::ops::ControlFlow::{Break, Continue};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use crate::call::answers::{self, grpc_code};
use crate::call::attempt::{Answered, Ended, Pump, Step, Stepped, UpstreamAttempt};
use crate::call::cause::Cause;
use crate::call::ends::{Answer, Down, Gone, Part};
use crate::call::exchange::{Call, Stop, now_ns};
use crate::call::gates::Begun;
use crate::call::grpc_web;
use crate::call::pushback;
use crate::call::request_body::in_upper_case;
use crate::call::retrying::{Failure, NextPause};
use crate::decision::edits::{self, drop_hop_by_hop};
use crate::decision::plan::{Plan, is_failure};
use crate::fields::Headers;
use crate::head::Protocol;

/// What a peer's proxy says when its app never saw the call.
const KEPT_FROM_APP: u32 =
    1 << Cause::AppDown as u32 | 1 << Cause::AppUnhealthy as u32 | 1 << Cause::Misdirected as u32 | 1 << Cause::Refused as u32;

impl UpstreamAttempt {
    /// Until its head is there, and the gRPC status where a retry may turn on that.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Stepped> {
        if let Some(stop) = self.poll_request(cx, call, down, plan) {
            return Poll::Ready(Break(Err(stop)));
        }
        while let Some(up) = &mut self.up {
            if let Step::AwaitingCode(answered) = &mut self.step {
                match up.poll_body(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(lost)) => return Poll::Ready(Break(Ok(self.lost(call, lost)))),
                    Poll::Ready(Ok(part)) => {
                        let headers = std::mem::take(&mut answered.headers);
                        let answered = Answered { status: answered.status, headers, first: Some(part), end: false };
                        return Poll::Ready(self.judge(call, down, plan, answered));
                    }
                }
            }
            match up.poll_head(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(lost)) => return Poll::Ready(Break(Ok(self.lost(call, lost)))),
                Poll::Ready(Ok(Answer::Inform(status, mut headers))) => {
                    if call.is_the_one(self.number) {
                        drop_hop_by_hop(&mut headers);
                        down.inform(status, headers);
                    }
                }
                Poll::Ready(Ok(Answer::Head { status, headers, end })) => {
                    self.note_head(call, plan, status, &headers, end);
                    let answered = Answered { status, headers, first: None, end };
                    if end || !call.may_retry_grpc(plan) {
                        return Poll::Ready(self.judge(call, down, plan, answered));
                    }
                    self.step = Step::AwaitingCode(answered);
                }
            }
        }
        self.poll_drive(cx, call)
    }

    /// Write what was given; says so where the callee's end broke.
    fn poll_drive(&mut self, cx: &mut Context<'_>, call: &mut Call) -> Poll<Stepped> {
        let Some(up) = &mut self.up else { return Poll::Pending };
        let lost = ready!(up.poll_drive(cx));
        Poll::Ready(Break(Ok(self.lost(call, lost))))
    }

    pub(super) fn note_head(&mut self, call: &mut Call, plan: &Plan, status: u16, headers: &Headers, end: bool) {
        call.head_ns = now_ns();
        let now = Instant::now();
        self.begun = match self.pump {
            Pump::Running => Begun::Streaming,
            Pump::Done | Pump::Broken => Begun::At(now.checked_sub(self.asked_at - self.sent_at).unwrap_or(now)),
        };
        let is_failure = status >= 400 || (end && call.head.protocol == Protocol::Grpc);
        let may_be_made = self.is_peer && (is_failure || grpc_web::content_type(&call.head).is_some());
        let is_translated = plan.by_daprd == Some(self.route); // our own translator has it of the daprd
        let said = if may_be_made || is_translated { answers::said_by_proxy(headers) } else { None };
        let said = said.filter(|cause| may_be_made || *cause == Cause::Denied);
        self.refused_as = said.filter(|cause| KEPT_FROM_APP & cause.bit() != 0);
        if let Some(endpoint) = &self.endpoint {
            let mut load = endpoint.load.borrow_mut();
            match self.refused_as {
                Some(Cause::Refused) => load.yield_way(),
                // It failed as an endpoint, however fast the answer.
                Some(_) => load.eject(now),
                None if said == Some(Cause::Denied) => {} // as fast as no app
                None => {
                    load.observe(now - self.sent_at, now);
                    if matches!(said, Some(Cause::Shed | Cause::Rate | Cause::Authorizer)) {
                        load.penalize(Duration::ZERO, now);
                    }
                }
            }
        }
        let record = &mut call.attempts[self.number];
        (record.head_ns, record.status, record.said) = (call.head_ns, status, said);
    }

    /// Whether the answer is passed on, or thrown away for another attempt.
    pub(super) fn judge(&mut self, call: &mut Call, down: &mut Down, plan: &Plan, answered: Answered) -> Stepped {
        // Where no other is left, the peer's answer says more than ours could.
        if let Some(cause) = self.refused_as.filter(|_| call.has_another() || call.may_try_another(plan)) {
            self.end(call, Some(cause), "");
            return Break(Ok(Ended::Retry(Duration::ZERO)));
        }
        // It had no more time than we: its clock was first.
        if call.attempts[self.number].said == Some(Cause::Timeout) {
            return Break(Ok(self.fail(call, Cause::Timeout, "the callee's proxy ended it as its time was over")));
        }
        if plan.routes[self.route].edits.http_only && answers::is_grpc(&answered.headers) {
            let detail = format!("it answered in gRPC, with HTTP {}", answered.status);
            return Break(Ok(self.fail_for_good(call, Cause::Unsupported, &detail)));
        }
        let is_grpc = call.head.protocol == Protocol::Grpc;
        let code = match (&answered.first, answered.end) {
            _ if !is_grpc => None,
            (None, true) => grpc_code(&answered.headers),
            (Some(Part::End(trailers)), _) => trailers.as_ref().and_then(grpc_code),
            // It has a body: how it ends is not known yet.
            _ => return self.commit(call, down, plan, answered),
        };
        let cause = if call.is_denial(plan, self.number) { Cause::Denied } else { Cause::Status };
        let mut failure = Failure { cause, status: answered.status, code, pushback: None };
        if is_failure(answered.status, code) {
            if call.has_another() && failure.is_covered(plan) {
                return self.throw_away(call, code, Duration::ZERO);
            }
            let fields = match &answered.first {
                Some(Part::End(Some(trailers))) => trailers,
                _ => &answered.headers,
            };
            failure.pushback = pushback::read(fields, is_grpc, answered.status, SystemTime::now());
            if let Some(next) = NextPause::new(call, plan, failure) {
                self.step = Step::Judging(answered, code, next);
                return Continue(());
            }
        }
        self.commit(call, down, plan, answered)
    }

    pub(super) fn poll_judging(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Stepped> {
        let Step::Judging(_, code, next) = &mut self.step else { return Poll::Pending };
        let code = *code;
        match ready!(next.poll(cx, call, plan)) {
            Err(stop) => return Poll::Ready(Break(Err(stop))),
            Ok(Some(pause)) => return Poll::Ready(self.throw_away(call, code, pause)),
            Ok(None) => {}
        }
        let Step::Judging(answered, ..) = std::mem::replace(&mut self.step, Step::AwaitingHead) else { return Poll::Pending };
        Poll::Ready(self.commit(call, down, plan, answered))
    }

    fn throw_away(&mut self, call: &mut Call, code: Option<u32>, pause: Duration) -> Stepped {
        call.attempts[self.number].grpc_code = code;
        self.end(call, Some(Cause::Status), "");
        Break(Ok(Ended::Retry(pause)))
    }

    /// Begin to pass the answer on: this attempt is the one.
    fn commit(&mut self, call: &mut Call, down: &mut Down, plan: &Plan, answered: Answered) -> Stepped {
        let code = if answered.end { grpc_code(&answered.headers) } else { None };
        call.commit(self.number, self.web.clone());
        call.respond(down, plan, answered.status, answered.headers, answered.end);
        if answered.end {
            return self.whole(call, code);
        }
        if call.head.protocol == Protocol::Websocket {
            self.timer = None; // an attempt at a tunnel ends with its acceptance
        }
        self.step = Step::Relaying(answered.first);
        Continue(())
    }

    /// Pass the answer on to its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Stepped> {
        if let Some(stop) = self.poll_request(cx, call, down, plan) {
            return Poll::Ready(Break(Err(stop)));
        }
        while let (Some(up), Step::Relaying(next)) = (&mut self.up, &mut self.step) {
            match next.take() {
                Some(Part::Data(mut data)) => match down.poll_room(cx, data.len()) {
                    Poll::Pending => {
                        *next = Some(Part::Data(data));
                        call.owes_down = true;
                        break;
                    }
                    Poll::Ready(Err(Gone(detail))) => return Poll::Ready(Break(Err(Stop::Gone(detail)))),
                    Poll::Ready(Ok(room)) => {
                        call.owes_down = false;
                        let chunk = data.split_to(room.min(data.len()));
                        call.down_bytes += chunk.len() as u64;
                        up.release(chunk.len());
                        let last = data.is_empty() && up.is_read();
                        down.send(if call.upper_answer { in_upper_case(chunk) } else { chunk }, last);
                        if last {
                            return Poll::Ready(self.whole(call, None));
                        }
                        *next = (!data.is_empty()).then_some(Part::Data(data));
                    }
                },
                Some(Part::End(trailers)) => {
                    let code = trailers.as_ref().and_then(grpc_code);
                    down.finish(trailers.and_then(|trailers| edits::trailers(call.reply_edits(plan), trailers)));
                    if call.not_retried.is_none() && call.head.protocol == Protocol::Grpc {
                        call.note_late(plan, code);
                    }
                    return Poll::Ready(self.whole(call, code));
                }
                None => match up.poll_body(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(part)) => *next = Some(part),
                    Poll::Ready(Err(lost)) => return Poll::Ready(Break(Ok(self.lost(call, lost)))),
                },
            }
        }
        self.poll_drive(cx, call)
    }

    fn whole(&mut self, call: &mut Call, code: Option<u32>) -> Stepped {
        call.attempts[self.number].grpc_code = match &self.web {
            Some(progress) => progress.code.get(),
            None => code.filter(|_| call.head.protocol == Protocol::Grpc),
        };
        let up = self.up.take();
        self.end(call, self.refused_as, "");
        if let Some(up) = up {
            up.part();
        }
        Break(Ok(Ended::Whole))
    }
}
