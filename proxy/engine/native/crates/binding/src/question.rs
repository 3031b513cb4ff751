//! One question to Python, and its answer. Each is answered once; one that is dropped fails the one call that waits for it.

use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use postern_core::call::budgets::Budgets;
use postern_core::connection::refusal::Refusal;
use postern_core::decision::plan::{Decision, Read, ReleasedTokens, Verdict};
use postern_core::decision::trace::Span;
use postern_core::seam::ask;
use postern_core::seam::commands::Commands;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::convert::{self, EditParts, PlanParts, ReadParts, ReplyParts, invalid, value};

/// What is asked, by the names that Python knows; `kind` has them in this order.
pub(crate) const KINDS: [&str; 9] = ["decide", "class", "span", "reply", "undecided", "pauses", "explain", "verify", "authorize"];

/// The answering end of a question: the method named after what was asked answers it.
#[pyclass(frozen)]
pub(crate) struct Question {
    inner: Mutex<Option<ask::Question>>,
    released: ReleasedTokens,
    commands: Arc<Commands>,
    budgets: Arc<Budgets>,
}

/// The name of what is asked.
const fn kind(asked: &ask::Question) -> &'static str {
    match asked {
        ask::Question::Decide { .. } => KINDS[0],
        ask::Question::Class { .. } => KINDS[1],
        ask::Question::Span { .. } => KINDS[2],
        ask::Question::Reply { .. } => KINDS[3],
        ask::Question::Undecided { .. } => KINDS[4],
        ask::Question::Pauses { .. } => KINDS[5],
        ask::Question::Explain { .. } => KINDS[6],
        ask::Question::Verify { .. } => KINDS[7],
        ask::Question::Authorize { .. } => KINDS[8],
    }
}

/// What Python needs to know to answer.
fn args<'py>(py: Python<'py>, asked: &ask::Question) -> PyResult<Bound<'py, PyTuple>> {
    match asked {
        ask::Question::Decide { head, .. } => convert::head(py, head, true),
        ask::Question::Class { head, table, .. } => (head.path.as_str(), *table).into_pyobject(py),
        ask::Question::Span { head, .. } => {
            let grpc = head.protocol == postern_core::head::Protocol::Grpc;
            (convert::pairs(py, &head.headers)?, grpc).into_pyobject(py)
        }
        ask::Question::Reply { token, cause, .. } => (*token, cause.name()).into_pyobject(py),
        ask::Question::Undecided { head, bad_request, .. } => {
            (convert::head(py, head, true)?, bad_request.as_deref()).into_pyobject(py)
        }
        ask::Question::Pauses { call, token, rule, anew, .. } => (*call, *token, *rule, *anew).into_pyobject(py),
        ask::Question::Explain { key, .. } => (&**key,).into_pyobject(py),
        ask::Question::Authorize { head, token, .. } => (convert::head(py, head, true)?, *token).into_pyobject(py),
        ask::Question::Verify { der, as_server, .. } => (PyBytes::new(py, der).into_py_any(py)?, *as_server).into_pyobject(py),
    }
}

impl Question {
    /// (kind, arguments, where to answer).
    pub(crate) fn tuple(
        py: Python<'_>,
        asked: ask::Question,
        released: ReleasedTokens,
        commands: Arc<Commands>,
        budgets: Arc<Budgets>,
    ) -> PyResult<Bound<'_, PyTuple>> {
        let (kind, args) = (kind(&asked), args(py, &asked)?);
        (kind, args, Self { inner: Mutex::new(Some(asked)), released, commands, budgets }).into_pyobject(py)
    }

    fn take(&self) -> PyResult<ask::Question> {
        let asked = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        asked.ok_or_else(|| invalid("the question was answered already"))
    }
}

// A call that ended meanwhile takes no answer; that is no fault of who answers, so failed sends are dropped below.
#[pymethods]
impl Question {
    /// Answer `decide`: carry the call so. `reads`: keep that for heads which are alike in these; `None`: for no other.
    fn plan(&self, parts: PlanParts, reads: Option<Vec<ReadParts>>) -> PyResult<()> {
        let decision = Decision::Plan(convert::plan(parts, &self.released, &self.budgets)?);
        self.keep(decision, reads)
    }

    /// Answer `decide`, `reply`, `undecided` or `authorize`: say so.
    fn reply(&self, parts: ReplyParts, reads: Option<Vec<ReadParts>>) -> PyResult<()> {
        let reply = convert::reply(parts, &self.released)?;
        match self.take()? {
            ask::Question::Reply { answer, .. } | ask::Question::Undecided { answer, .. } => drop(answer.send(reply)),
            ask::Question::Decide { answer, .. } => {
                let reads = made_of(reads)?;
                let verdict = Verdict::Keep { decision: Decision::Reply(reply), reads };
                drop(answer.send((verdict, self.commands.sent())));
            }
            ask::Question::Authorize { answer, .. } => drop(answer.send(ask::Authorized::Refused(reply))),
            _ => return Err(invalid("not a question for a reply")),
        }
        Ok(())
    }

    /// Answer `decide`: ask again when `key` is set, or answer `then` after so long.
    fn hold(&self, key: &str, within_s: f64, then: ReplyParts) -> PyResult<()> {
        let ask::Question::Decide { answer, .. } = self.take()? else { return Err(invalid("not a question to hold")) };
        let within = std::time::Duration::try_from_secs_f64(within_s.max(0.0)).map_err(invalid)?;
        let then = convert::reply(then, &self.released)?;
        drop(answer.send((Verdict::Hold { key: key.into(), within, then }, self.commands.sent())));
        Ok(())
    }

    /// Answer `class`.
    fn class_is(&self, class: Option<u64>) -> PyResult<()> {
        let ask::Question::Class { answer, .. } = self.take()? else { return Err(invalid("not a question of class")) };
        let _gone = answer.send((class, self.commands.sent()));
        Ok(())
    }

    /// Answer `span`.
    fn span(&self, number: u64, traceparent: &[u8], grpc_trace_bin: &[u8]) -> PyResult<()> {
        let ask::Question::Span { answer, .. } = self.take()? else { return Err(invalid("not a question for a span")) };
        drop(answer.send(Span::Foreign { id: number, traceparent: value(traceparent)?, grpc_trace_bin: value(grpc_trace_bin)? }));
        Ok(())
    }

    /// Answer `pauses`, in seconds; none: no more attempts.
    fn pauses(&self, pauses_s: Vec<f64>) -> PyResult<()> {
        let ask::Question::Pauses { answer, .. } = self.take()? else { return Err(invalid("not a question for pauses")) };
        drop(answer.send(pauses_s));
        Ok(())
    }

    /// Answer `explain`.
    fn explain(&self, text: String) -> PyResult<()> {
        let ask::Question::Explain { answer, .. } = self.take()? else { return Err(invalid("not a question to explain")) };
        drop(answer.send(text));
        Ok(())
    }

    /// Answer `authorize`: let the call go on, with edits of the request and of its answer.
    fn granted(&self, request: Vec<EditParts>, reply: Vec<EditParts>) -> PyResult<()> {
        let edits = Box::new((convert::edits(request)?, convert::edits(reply)?));
        self.authorized(ask::Authorized::Granted(edits))
    }

    /// Answer `authorize`: nobody could say, and why.
    fn unanswered(&self, detail: String) -> PyResult<()> {
        self.authorized(ask::Authorized::Unanswered(detail))
    }

    /// Answer `verify`: the SPIFFE id and when the leaf ends (epoch seconds), or why its owner is not let in.
    fn verify(&self, leaf: Option<(String, f64)>, reason: String, detail: String) -> PyResult<()> {
        let ask::Question::Verify { answer, .. } = self.take()? else { return Err(invalid("not a question to verify")) };
        let found = match leaf {
            Some((spiffe_id, ends_at)) => Ok(ask::Leaf { spiffe_id, ends_at: convert::moment(ends_at)? }),
            None => Err(Refusal { reason: reason.into(), detail }),
        };
        drop(answer.send(found));
        Ok(())
    }
}

impl Question {
    fn authorized(&self, found: ask::Authorized) -> PyResult<()> {
        let ask::Question::Authorize { answer, .. } = self.take()? else { return Err(invalid("not a question to authorize")) };
        drop(answer.send(found));
        Ok(())
    }

    fn keep(&self, decision: Decision, reads: Option<Vec<ReadParts>>) -> PyResult<()> {
        let reads = made_of(reads)?;
        let ask::Question::Decide { answer, .. } = self.take()? else { return Err(invalid("not a question to decide")) };
        drop(answer.send((Verdict::Keep { decision, reads }, self.commands.sent())));
        Ok(())
    }
}

/// What a decider read, in order, each with its class where there is one.
type Reads = Vec<(Read, Option<u64>)>;

fn made_of(reads: Option<Vec<ReadParts>>) -> PyResult<Option<Reads>> {
    reads.map(|reads| reads.into_iter().map(convert::read).collect()).transpose()
}
