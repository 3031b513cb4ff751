//! Harm that is done to an attempt on purpose, by the fault gates that it passed.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Instant;

use http::HeaderValue;

use crate::call::answers;
use crate::call::attempt::{Answered, Step, Stepped, UpstreamAttempt};
use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::exchange::{Call, now_ns};
use crate::call::gates::Told;
use crate::call::gates::fault::{Harm, Hit};
use crate::decision::plan::Plan;

impl UpstreamAttempt {
    /// What the gates did: its record says so, and whoever gets an answer of ours in its place.
    pub(super) fn note_hits(&mut self, call: &mut Call) {
        self.hits = self.gates.hits();
        if self.hits.is_empty() {
            return;
        }
        let names = self.hits.iter().map(|hit| &*hit.name).collect::<Vec<_>>().join(",");
        if let Ok(value) = HeaderValue::from_str(&names) {
            call.told = Some(Box::new(Told { headers: vec![(answers::FAULT, value)], again: None }));
        }
        call.attempts[self.number].fault = names.into();
    }

    /// The first that ends the attempt before anything is sent.
    pub(super) fn ending_hit(&self) -> Option<Hit> {
        self.hits.iter().find(|hit| matches!(hit.harm, Harm::Abort(..) | Harm::Fail(_))).cloned()
    }

    /// End as the endpoint's end would.
    pub(super) fn end_harmed(&mut self, call: &mut Call, down: &mut Down, plan: &Plan) -> Stepped {
        let Step::Harmed(hit) = &self.step else { return Continue(()) };
        let (name, harm) = (hit.name.clone(), hit.harm);
        if harm != Harm::Fail(Cause::Connect) {
            self.sent_at = Instant::now();
            call.attempts[self.number].sent_ns = now_ns();
        }
        match harm {
            Harm::Abort(status, code) => {
                let (status, headers) = answers::injected(status, code, &name, &call.head);
                self.note_head(call, plan, status, &headers, true);
                self.judge(call, down, plan, Answered { status, headers, first: None, end: true })
            }
            Harm::Fail(cause) => Break(Ok(self.fail(call, cause, &format!("injected by the fault {name}")))),
            Harm::Delay(..) | Harm::Cut(_) | Harm::Slow(_) => self.choose(call, plan),
        }
    }
}
