//! Answers to requests whose heads can't be read. Each is reported like a call, and names its trace.

use std::sync::Arc;

use bytes::Bytes;
use http::header;

use crate::call::answers::{self, ERROR};
use crate::call::cause::Cause;
use crate::call::exchange::now_ns;
use crate::decision::plan::REFUSED;
use crate::decision::trace::{Span, TRACEPARENT};
use crate::fields::Headers;
use crate::head::{self, Entry, Framing, Protocol, RawHead};
use crate::seam::ask::Outcome;
use crate::shared::Shared;

/// Report that such a request is answered with `status`; the fields and the body of the answer, which says `text`.
pub fn refuse(shared: &Shared, entry: &Entry, status: u16, text: &str) -> (Headers, Bytes) {
    let span = shared.begin_span(&Headers::new(), false, REFUSED);
    let answer = answer(span.as_ref(), text);
    let none = Bytes::new();
    let raw = RawHead {
        protocol: Protocol::Http1,
        method: none.clone(),
        authority: none.clone(),
        target: none,
        headers: Headers::new(),
        framing: Framing::None,
        length: None,
    };
    let at_ns = now_ns();
    shared.inbox.tell(Outcome {
        head: Arc::new(head::read(raw, entry.clone()).0.told(String::new())),
        decision: None,
        span,
        started_ns: at_ns,
        head_ns: 0,
        ended_ns: at_ns,
        status,
        grpc_code: None,
        cause: Some(Cause::BadRequest),
        attempts: vec![],
        up_bytes: 0,
        down_bytes: 0,
        breaker: None,
        not_retried: None,
        resolve_ns: 0,
        queue_ns: 0,
        authorize_ns: 0,
        number: u64::MAX, // no call's
    });
    answer
}

/// As `unreadable` in `proxy/wire/answers.py`.
fn answer(span: Option<&Span>, text: &str) -> (Headers, Bytes) {
    let traceparent = span.map(Span::traceparent);
    let trace_id = traceparent.as_ref().and_then(|value| value.to_str().ok()?.get(3..35)).unwrap_or_default();
    let body: Bytes = format!(
        "{{\"errorCode\":\"ERR_BAD_REQUEST\",\"message\":\"{}\",\"details\":[{{\"@type\":\"{}\",\"requestId\":\"{trace_id}\"}}]}}",
        answers::json(text),
        answers::REQUEST_INFO,
    )
    .into();
    let mut headers = Headers::new();
    headers.append(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.append(ERROR, http::HeaderValue::from_static("bad-request"));
    if let Some(traceparent) = traceparent {
        headers.append(TRACEPARENT, traceparent);
    }
    headers.append(header::CONTENT_LENGTH, body.len().into());
    answers::date(&mut headers);
    (headers, body)
}
