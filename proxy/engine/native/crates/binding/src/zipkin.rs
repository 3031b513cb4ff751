//! For differential tests: the span that the core writes of a call.

use std::sync::Arc;

use bytes::Bytes;
use postern_core::call::not_retried::NotRetried;
use postern_core::decision::trace::{Context, Span};
use postern_core::head::{self, Entry, Framing, Protocol, RawHead};
use postern_core::seam::ask::{Attempt, Outcome};
use postern_core::seam::zipkin;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{self, Pairs, SpanLabelParts, SpansParts, cause, invalid};

/// endpoint, start, head, end, cause, status, gRPC code, detail, what the peer's proxy said and which faults were injected, when it was sent,
/// how long it queued
type AttemptParts = (String, u64, u64, u64, Option<String>, u16, Option<u32>, String, (Option<String>, String), u64, u64);

/// start, head and end in nanoseconds, status, gRPC code, cause, why it was not retried, how long it waited for its callee and at limits
type EndParts = (u64, u64, u64, u16, Option<u32>, Option<String>, Option<String>, u64, u64, u64);

fn attempt(parts: AttemptParts) -> PyResult<Attempt> {
    let (endpoint, started_ns, head_ns, ended_ns, why, status, grpc_code, detail, (said, fault), sent_ns, queue_ns) = parts;
    let (endpoint, fault) = (endpoint.into(), fault.into());
    let (why, said) = (why.map(|why| cause(&why)).transpose()?, said.map(|said| cause(&said)).transpose()?);
    Ok(Attempt { endpoint, started_ns, head_ns, ended_ns, cause: why, status, grpc_code, detail, said, sent_ns, queue_ns, fault })
}

fn protocol(name: &str) -> PyResult<Protocol> {
    let all = [Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Websocket];
    all.into_iter().find(|one| one.name() == name).ok_or_else(|| invalid(format!("unknown protocol {name}")))
}

/// call: protocol, method, path, query, fields, the caller's address. span: halves of the trace id, span id, parent id.
#[pyfunction]
pub(crate) fn zipkin_span(
    py: Python<'_>,
    call: (String, Vec<u8>, String, Vec<u8>, Pairs, String),
    labels: SpanLabelParts,
    wanted: SpansParts,
    span: (u64, u64, u64, u64),
    end: EndParts,
    attempts: Vec<AttemptParts>,
) -> PyResult<Option<Bound<'_, PyBytes>>> {
    let (protocol_name, method, path, query, fields, address) = call;
    let raw = RawHead {
        protocol: protocol(&protocol_name)?,
        method: method.into(),
        authority: Bytes::new(),
        target: Bytes::from_static(b"/"),
        headers: convert::fields(&fields)?,
        framing: Framing::None,
        length: None,
    };
    let mut head = head::read(raw, Entry { listener: "".into(), peer: None, caller: None, address: address.into() }).0;
    (head.path, head.query) = (path, query.into());
    let (upper, lower, span_id, parent_id) = span;
    let context = Context { trace_id: u128::from(upper) << 64 | u128::from(lower), span_id, parent_id, sampled: true };
    let labels = convert::span_labels(labels);
    let (started_ns, head_ns, ended_ns, status, grpc_code, why, not_retried, resolve_ns, queue_ns, authorize_ns) = end;
    let outcome = Outcome {
        head: Arc::new(head),
        decision: None,
        span: Some(Span::Own { context, tracestate: "".into() }),
        started_ns,
        head_ns,
        ended_ns,
        status,
        grpc_code,
        cause: why.map(|why| cause(&why)).transpose()?,
        attempts: attempts.into_iter().map(attempt).collect::<PyResult<_>>()?,
        up_bytes: 0,
        down_bytes: 0,
        breaker: None,
        not_retried: not_retried.and_then(|why| NotRetried::parse(&why)),
        resolve_ns,
        queue_ns,
        authorize_ns,
        number: 0,
    };
    let mut out = Vec::new();
    let has_span = zipkin::write(&mut out, &outcome, &context, &labels, &convert::spans_wanted(wanted)?.form);
    Ok(has_span.then(|| PyBytes::new(py, &out)))
}
