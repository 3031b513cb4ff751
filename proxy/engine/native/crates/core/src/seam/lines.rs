//! Lines of an access log: one for each call, written where the call ends, of the pieces that its decision came with. What a decision knows
//! of all its calls stands in them as text; what differs is a field. Kept equal to `telemetry/access_log.py` by a test of both.

use std::io::Write;
use std::sync::Arc;

use http::HeaderName;

use crate::call::cause::Cause;
use crate::call::not_retried::NotRetried;
use crate::decision::target::{Form, as_forwarded, readable};
use crate::decision::trace::{Context, Span, parse_traceparent};
use crate::head::Protocol;
use crate::seam::ask::Outcome;

const MAX_BYTES: usize = 4 * 1024 * 1024; // that wait to be taken, of one worker: some 50 ms of calls without a visit are 10,000 lines
const MAX_TEXT: usize = 1_024; // of a path or a header's value
pub(crate) const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What differs between calls of one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Time,
    Protocol,
    Verb,
    Path,
    /// Of Dapr's path form: what follows `/method`.
    MethodPath,
    Status,
    GrpcCode,
    Cause,
    MadeBy,
    BytesIn,
    BytesOut,
    DurationUs,
    TtfbUs,
    ResolveUs,
    QueueUs,
    AuthorizeUs,
    ConnectUs,
    UpstreamTtfbUs,
    BodyUs,
    Attempts,
    NotRetried,
    Endpoint,
    Breaker,
    Fault,
    TraceId,
    SpanId,
    Sampled,
}

const FIELDS: [(Field, &str); 27] = [
    (Field::Time, "time"),
    (Field::Protocol, "protocol"),
    (Field::Verb, "verb"),
    (Field::Path, "path"),
    (Field::MethodPath, "method-path"),
    (Field::Status, "status"),
    (Field::GrpcCode, "grpc_code"),
    (Field::Cause, "cause"),
    (Field::MadeBy, "made_by"),
    (Field::BytesIn, "bytes_in"),
    (Field::BytesOut, "bytes_out"),
    (Field::DurationUs, "duration_us"),
    (Field::TtfbUs, "ttfb_us"),
    (Field::ResolveUs, "resolve_us"),
    (Field::QueueUs, "queue_us"),
    (Field::AuthorizeUs, "authorize_us"),
    (Field::ConnectUs, "connect_us"),
    (Field::UpstreamTtfbUs, "upstream_ttfb_us"),
    (Field::BodyUs, "body_us"),
    (Field::Attempts, "attempts"),
    (Field::NotRetried, "not_retried"),
    (Field::Endpoint, "endpoint"),
    (Field::Breaker, "breaker"),
    (Field::Fault, "fault"),
    (Field::TraceId, "trace_id"),
    (Field::SpanId, "span_id"),
    (Field::Sampled, "sampled"),
];

impl Field {
    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        FIELDS.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }
}

/// A piece of a line.
#[derive(Debug)]
pub enum Piece {
    Text(Box<[u8]>),
    Field(Field),
    /// Of the request.
    Header(HeaderName),
}

/// Which calls have a line, and how values are written: as JSON, else bare, with `-` for what there is not.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub is_json: bool,
    pub min_status: u16,
    pub slower_ns: u64,
    /// One call in so many, by its trace id.
    pub every: u64,
    pub hides_paths: bool,
}

impl Wanted {
    fn takes(&self, outcome: &Outcome, said: Option<Cause>, trace_id: u128) -> bool {
        if outcome.cause == Some(Cause::Denied) || said == Some(Cause::Denied) {
            return true;
        }
        let is_low = outcome.status < self.min_status && outcome.grpc_code.unwrap_or(0) == 0;
        !(is_low && outcome.cause.is_none() && said.is_none())
            && outcome.ended_ns.saturating_sub(outcome.started_ns) >= self.slower_ns
            && (self.every <= 1 || trace_id % u128::from(self.every) == 0)
    }
}

/// Owns what is wanted, the lines that nobody has taken yet, and how many found no room.
#[derive(Debug, Default)]
pub struct Lines {
    wanted: Option<Arc<Wanted>>,
    text: Vec<u8>,
    lost: u64,
}

impl Lines {
    /// Write such lines from now on, or none.
    pub fn set(&mut self, wanted: Option<Arc<Wanted>>) {
        self.wanted = wanted;
    }

    /// The lines since this was last asked, and how many were lost.
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.text), std::mem::take(&mut self.lost))
    }

    /// Write a call's line, if it is to have one.
    pub fn add(&mut self, outcome: &Outcome) {
        let Some(wanted) = &self.wanted else { return };
        let Some(pieces) = outcome.decision.as_ref().and_then(|token| token.pieces.as_deref()) else { return };
        let context = context_of(outcome.span.as_ref());
        let said = outcome.attempts.last().and_then(|attempt| attempt.said);
        if !wanted.takes(outcome, said, context.trace_id) {
            return;
        }
        if self.text.len() > MAX_BYTES {
            self.lost += 1;
            return;
        }
        let mut line = Line { out: &mut self.text, is_json: wanted.is_json };
        for piece in pieces {
            match piece {
                Piece::Text(text) => line.out.extend_from_slice(text),
                Piece::Header(name) => {
                    let value = outcome.head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
                    line.text(value.as_deref());
                }
                Piece::Field(field) => line.field(*field, outcome, said, &context, wanted.hides_paths),
            }
        }
        self.text.push(b'\n');
    }
}

fn context_of(span: Option<&Span>) -> Context {
    const NONE: Context = Context { trace_id: 0, span_id: 0, parent_id: 0, sampled: false };
    match span {
        None => NONE,
        Some(Span::Own { context, .. }) => *context,
        Some(Span::Foreign { traceparent, .. }) => parse_traceparent(traceparent.as_bytes()).unwrap_or(NONE),
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    is_json: bool,
}

impl Line<'_> {
    fn field(&mut self, field: Field, outcome: &Outcome, said: Option<Cause>, context: &Context, hides_paths: bool) {
        let own = outcome.cause;
        match field {
            Field::Time => self.quoted(|out| put_time(out, outcome.ended_ns)),
            Field::Protocol => self.text(Some(match outcome.head.protocol {
                Protocol::Grpc => "grpc",
                Protocol::Websocket => "websocket",
                Protocol::Http1 | Protocol::Http2 => "http",
            })),
            Field::Verb => self.text(Some(&String::from_utf8_lossy(&outcome.head.method))),
            Field::Path | Field::MethodPath if hides_paths => self.text(Some("")),
            Field::Path => self.text(Some(&readable(&outcome.head.path))),
            Field::MethodPath => self.text(Some(&readable(&as_forwarded(&outcome.head.path, Form::Method)))),
            Field::Status => self.number(u64::from(outcome.status)),
            Field::GrpcCode => match outcome.grpc_code {
                None => self.text(None),
                Some(code) => match GRPC_CODES.get(code as usize) {
                    Some(name) => self.text(Some(name)),
                    None => self.text(Some(&code.to_string())),
                },
            },
            Field::Cause => self.text(own.or(said).map(Cause::name)),
            Field::MadeBy => self.text(match (own, said) {
                (Some(cause), _) if cause != Cause::Status => Some("this-proxy"),
                (_, Some(_)) => Some("peer-proxy"),
                _ => None,
            }),
            Field::BytesIn => self.number(outcome.up_bytes),
            Field::BytesOut => self.number(outcome.down_bytes),
            Field::DurationUs => self.number(outcome.ended_ns.saturating_sub(outcome.started_ns) / 1_000),
            Field::TtfbUs if outcome.head_ns == 0 => self.text(None),
            Field::TtfbUs => self.number(outcome.head_ns.saturating_sub(outcome.started_ns) / 1_000),
            Field::ResolveUs => self.length(Some(outcome.resolve_ns)),
            Field::QueueUs => self.length(Some(outcome.split().queue)),
            Field::AuthorizeUs => self.length((outcome.authorize_ns > 0).then_some(outcome.authorize_ns)),
            Field::ConnectUs => self.length(outcome.split().connect),
            Field::UpstreamTtfbUs => self.length(outcome.split().upstream_ttfb),
            Field::BodyUs => self.length(outcome.split().body),
            Field::Attempts => self.number(outcome.attempts.len().max(1) as u64),
            Field::NotRetried => self.text(outcome.not_retried.map(NotRetried::name)),
            Field::Endpoint => self.text(Some(outcome.attempts.last().map_or("", |attempt| &attempt.endpoint))),
            Field::Breaker => self.text(outcome.breaker.map(|(_, left)| left.name())),
            Field::Fault => {
                let faults: Vec<_> =
                    outcome.attempts.iter().map(|attempt| &*attempt.fault).filter(|fault| !fault.is_empty()).collect();
                self.text((!faults.is_empty()).then(|| faults.join(",")).as_deref());
            }
            Field::TraceId => self.quoted(|out| put(out, format_args!("{:032x}", context.trace_id))),
            Field::SpanId => self.quoted(|out| put(out, format_args!("{:016x}", context.span_id))),
            Field::Sampled => self.out.extend_from_slice(if context.sampled { b"true" } else { b"false" }),
        }
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_json {
            self.out.push(b'"');
        }
        write(self.out);
        if self.is_json {
            self.out.push(b'"');
        }
    }

    fn number(&mut self, number: u64) {
        put(self.out, format_args!("{number}"));
    }

    /// Nanoseconds as microseconds.
    fn length(&mut self, length_ns: Option<u64>) {
        match length_ns {
            Some(length_ns) => self.number(length_ns / 1_000),
            None => self.text(None),
        }
    }

    /// A text that may hold anything: nothing in it ends the line, or is obeyed by a terminal.
    fn text(&mut self, text: Option<&str>) {
        let (is_json, text) = match text {
            Some(text) if self.is_json || !text.is_empty() => (self.is_json, text),
            _ => return self.out.extend_from_slice(if self.is_json { b"null" } else { b"-" }),
        };
        self.quoted(|out| {
            for letter in text.chars().take(MAX_TEXT) {
                match letter {
                    '"' | '\\' if is_json => {
                        out.push(b'\\');
                        out.push(letter as u8);
                    }
                    '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                        put(out, format_args!("\\u{:04x}", u32::from(letter)));
                    }
                    ' '..='~' => out.push(letter as u8),
                    _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        });
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default(); // to memory, which never fails
}

/// RFC 3339 with nanoseconds, in UTC. Days to a date: Howard Hinnant, `civil_from_days`.
fn put_time(out: &mut Vec<u8>, epoch_ns: u64) {
    let (seconds, nanos) = (epoch_ns / 1_000_000_000, epoch_ns % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year + era * 400) } else { (month - 9, year + era * 400 + 1) };
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    put(out, format_args!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (epoch_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_827_696_789_000_001, "2000-02-29T12:34:56.789000001Z"),
            (1_735_689_599_000_000_000, "2024-12-31T23:59:59.000000000Z"),
        ] {
            let mut out = Vec::new();
            put_time(&mut out, epoch_ns);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn no_text_ends_a_line_or_a_string() {
        for (is_json, text, written) in [
            (true, Some("a\"b\\c\nd\u{9b}é"), "\"a\\\"b\\\\c\\u000ad\\u009bé\""),
            (false, Some("a \"b\"\r\n"), "a \"b\"\\u000d\\u000a"),
            (true, None, "null"),
            (false, None, "-"),
            (true, Some(""), "\"\""),
            (false, Some(""), "-"),
        ] {
            let mut out = Vec::new();
            Line { out: &mut out, is_json }.text(text);
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }
}
