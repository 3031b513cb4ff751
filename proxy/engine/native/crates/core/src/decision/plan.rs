//! What deciders say, as an engine needs it: the values of `proxy/contract/plan.py` without Python. `Token` names the value over there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::call::breakers::BreakerUse;
use crate::call::budgets::Budget;
use crate::call::cause::Cause;
use crate::decision::edits::Edits;
use crate::seam::lines::Piece;
use crate::seam::zipkin::SpanLabels;

/// One facet that a decider read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    Listener,
    Protocol,
    Framing,
    Method,
    Authority,
    Form,
    Peer,
    /// The class of the path in a pushed table.
    Path(u32),
    /// The value of a naming header.
    Naming(HeaderName),
    /// Whether a header's value is in a pushed set.
    Member(HeaderName, u32),
    /// Whether any header matches a pushed set of patterns.
    Carries(u32),
    /// What is wrong with the baggage, of which only keys in a pushed set may go on, if there is one.
    Baggage(Option<u32>),
}

/// Tokens that no Plan or outcome holds any more, for the other side to forget.
pub type ReleasedTokens = Arc<Mutex<VecDeque<u64>>>;

/// Names a decision on the other side of the boundary, and says when it is needed no more. `labels`: equal for decisions of which
/// telemetry says the same.
#[derive(Debug)]
pub struct Token {
    pub id: u64,
    pub labels: u64,
    /// Of the lines that its calls have in the access log; `None`: they have none.
    pub pieces: Option<Box<[Piece]>>,
    /// Of the spans of its calls; `None`: they have none.
    pub span_labels: Option<Box<SpanLabels>>,
    /// The sampling of new traces: a rule by its number, from 1 on; `FORCED`; 0: at the common rate.
    pub sampling: i32,
    released: ReleasedTokens,
}

/// Recorded whatever else decides.
pub const FORCED: i32 = -1;
/// An answer of ours that names no callee: recorded up to `REFUSED_PER_S`, however its trace is sampled.
pub const REFUSED: i32 = -2;
/// A call with no span of its own.
pub const NEVER: i32 = -3;
pub const REFUSED_PER_S: f64 = 20.0; // as in `proxy/contract/plan.py`

impl Token {
    /// A token that lands in `released` when dropped.
    pub fn new(id: u64, labels: u64, released: ReleasedTokens) -> Arc<Self> {
        Self::telling(id, labels, None, None, 0, released)
    }

    /// The same of a decision whose calls have lines of these pieces, such spans, and are sampled so.
    pub fn telling(
        id: u64,
        labels: u64,
        pieces: Option<Box<[Piece]>>,
        span_labels: Option<Box<SpanLabels>>,
        sampling: i32,
        released: ReleasedTokens,
    ) -> Arc<Self> {
        Arc::new(Self { id, labels, pieces, span_labels, sampling, released })
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.id);
    }
}

/// Where a call may go.
#[derive(Debug)]
pub struct Route {
    pub cluster: Arc<str>,
    pub weight: u32,
    pub expect: Arc<[String]>,
    pub edits: Edits,
    pub gates: Vec<Arc<str>>,
}

/// Retry as data. `on`: causes as bits. Codes: `None` means every failure status. `within`: from the call's start to an attempt's. `inner`: a
/// circuit breaker hears of the last attempt alone, and where none is left the next rule goes on. `heeds_answer`: see `call/pushback.rs`.
#[derive(Debug)]
pub struct RetryPolicy {
    pub attempts: Option<u32>,
    pub on: u32,
    pub http_codes: Option<Vec<u16>>,
    pub grpc_codes: Option<Vec<u32>>,
    pub within: Option<Duration>,
    pub inner: bool,
    pub heeds_answer: bool,
}

impl RetryPolicy {
    /// Whether the rule covers a failure: `covers` in `proxy/engine/portable/retrying.py`, by `tests/vectors/retries.json`.
    pub fn covers(&self, cause: Cause, status: u16, code: Option<u32>) -> bool {
        if !matches!(cause, Cause::Status | Cause::Denied) {
            return self.on & cause.bit() != 0;
        }
        let named = match code {
            Some(code) => self.grpc_codes.as_ref().map(|codes| codes.contains(&code)),
            None => self.http_codes.as_ref().map(|codes| codes.contains(&status)),
        };
        named.unwrap_or(cause == Cause::Status) && is_failure(status, code)
    }
}

/// Another attempt beside those under way after each `delay`, up to so many in all; see `proxy/contract/plan.py`.
#[derive(Debug, Clone, Copy)]
pub struct Hedge {
    pub attempts: usize,
    pub delay: Duration,
}

/// Whether an answer counts as one, by its gRPC code or its HTTP status.
pub fn is_failure(status: u16, code: Option<u32>) -> bool {
    code.map_or_else(|| !(200..=399).contains(&status), |code| code != 0)
}

/// How to carry a call; see `Plan` in `proxy/contract/plan.py`.
#[derive(Debug)]
pub struct Plan {
    pub token: Arc<Token>,
    pub routes: Vec<Route>,
    pub retries: Vec<RetryPolicy>,
    pub hedge: Option<Hedge>,
    pub gates: Vec<Arc<str>>,
    /// External authorizers are asked, after the gates.
    pub asks: bool,
    pub breaker: Option<BreakerUse>,
    pub budget: Option<Arc<Budget>>,
    pub connect: Duration,
    pub attempt: Option<Duration>,
    pub total: Option<Duration>,
    pub body_bytes: Option<u64>,
    pub replay_bytes: usize,
    pub reply_edits: Option<Edits>,
    pub upper_request: bool,
    pub upper_response: bool,
    pub by_daprd: Option<usize>,
    pub denials_fail: bool,
    pub scopes: Vec<Arc<str>>,
}

/// An answer made here; see `Reply` in `proxy/contract/plan.py`.
#[derive(Debug)]
pub struct Reply {
    pub token: Arc<Token>,
    pub cause: Cause,
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    pub grpc_code: u32,
    pub grpc_message: String,
    pub scopes: Vec<Arc<str>>,
    pub gates: Vec<Arc<str>>,
}

/// What may be kept.
#[derive(Debug)]
pub enum Decision {
    Plan(Box<Plan>),
    Reply(Box<Reply>),
}

impl Decision {
    /// What it dies with.
    pub fn scopes(&self) -> &[Arc<str>] {
        match self {
            Self::Plan(plan) => &plan.scopes,
            Self::Reply(reply) => &reply.scopes,
        }
    }

    /// Its name on the other side.
    pub fn token(&self) -> &Arc<Token> {
        match self {
            Self::Plan(plan) => &plan.token,
            Self::Reply(reply) => &reply.token,
        }
    }
}

/// What a decider answered. `reads`: what it read, in order; a path in a table that only the decider can read comes with its
/// class. `None`: the decision is for this head alone.
#[derive(Debug)]
pub enum Verdict {
    Keep { decision: Decision, reads: Option<Vec<(Read, Option<u64>)>> },
    Hold { key: Arc<str>, within: Duration, then: Box<Reply> },
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Failure {
        why: String,
        on: Vec<String>,
        http_codes: Option<Vec<u16>>,
        grpc_codes: Option<Vec<u32>>,
        cause: String,
        #[serde(default)]
        status: u16,
        code: Option<u32>,
        covers: bool,
    }

    #[test]
    fn rules_cover_the_failures_that_they_name() {
        for case in vectors::read::<Failure>("retries", "covers") {
            let on = case.on.iter().fold(0, |on, name| on | Cause::parse(name).unwrap().bit());
            let (http_codes, grpc_codes) = (case.http_codes, case.grpc_codes);
            let policy =
                RetryPolicy { attempts: None, on, http_codes, grpc_codes, within: None, inner: false, heeds_answer: false };
            let cause = Cause::parse(&case.cause).unwrap();
            assert_eq!(policy.covers(cause, case.status, case.code), case.covers, "{}", case.why);
        }
    }
}
