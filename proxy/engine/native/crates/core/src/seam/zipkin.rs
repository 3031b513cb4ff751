//! A call's span in Zipkin's JSON (v2), of its outcome and of what its decision says of all its calls. Kept equal to `telemetry/spans.py`
//! and `telemetry/zipkin.py`, which write all other spans, by a test of both.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::net::IpAddr;

use crate::call::cause::Cause;
use crate::decision::baggage;
use crate::decision::target::{Form, as_forwarded, readable};
use crate::decision::trace::Context;
use crate::head::{Head, Protocol, latin1};
use crate::seam::ask::{Attempt, Outcome};
use crate::seam::lines::GRPC_CODES;

const PATH_CHARS: usize = 1_024;
const MAX_ATTEMPTS: usize = 16; // whose waits are told, the last ones
const WAIT_NS: u64 = 5_000_000; // shorter ones are part of every call
const INVOKE: &str = "/v1.0/invoke/";
const CALL_LOCAL: &str = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What spans say of every call under one decision: of `Labels` in `proxy/contract/plan.py`.
#[derive(Debug)]
pub struct SpanLabels {
    pub is_outbound: bool,
    /// On Dapr's surface.
    pub is_dapr: bool,
    /// Dapr's path form: the method is what follows `/method`.
    pub is_by_path: bool,
    pub is_grpc_web: bool,
    pub src: Box<str>,
    pub dst: Box<str>,
    pub decision: Box<str>,
}

/// Whose names attributes have: Dapr's, or those of OpenTelemetry's semantic conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conventions {
    Dapr,
    Otel,
    Both,
}

impl Conventions {
    /// Of its name in a Configuration.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "dapr" => Self::Dapr,
            "otel" => Self::Otel,
            "both" => Self::Both,
            _ => return None,
        })
    }
}

/// What spans say of every call, and how. `phrases`: of HTTP statuses. `baggage`: keys of members whose values are attributes.
#[derive(Debug)]
pub struct SpanForm {
    pub service: String,
    pub hides_paths: bool,
    pub conventions: Conventions,
    pub captures_query: bool,
    pub baggage: Vec<String>,
    pub phrases: HashMap<u16, String>,
}

impl SpanForm {
    fn has_dapr(&self) -> bool {
        self.conventions != Conventions::Otel
    }

    fn has_otel(&self) -> bool {
        self.conventions != Conventions::Dapr
    }

    /// What of a call's query spans have.
    pub fn query<'a>(&self, query: &'a [u8]) -> &'a [u8] {
        if self.captures_query && !self.hides_paths { query } else { b"" }
    }
}

/// Write the span of a call; false: it has none, as it is a probe.
pub fn write(out: &mut Vec<u8>, outcome: &Outcome, context: &Context, labels: &SpanLabels, form: &SpanForm) -> bool {
    let call = Call { outcome, labels, is_grpc: is_grpc(&outcome.head, labels) };
    let path = call.path(form.hides_paths);
    if path.contains("/healthz") {
        return false;
    }
    call.write(out, context, form, &path);
    true
}

/// The path to remember of a call, as it was sent: nothing of one that is to be hidden, of which only a probe is told apart.
pub fn kept_path<'a>(head: &'a Head, labels: &SpanLabels, hides_paths: bool) -> &'a str {
    if !hides_paths || is_grpc(head, labels) {
        return &head.path;
    }
    hidden(&readable(&head.path))
}

fn is_grpc(head: &Head, labels: &SpanLabels) -> bool {
    labels.is_grpc_web || head.protocol == Protocol::Grpc
}

fn hidden(path: &str) -> &'static str {
    if path.contains("/healthz") { "/healthz" } else { "" }
}

fn clipped(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() > PATH_CHARS && text.chars().count() > PATH_CHARS {
        return text.chars().take(PATH_CHARS - 1).chain(['…']).collect();
    }
    text
}

struct Call<'a> {
    outcome: &'a Outcome,
    labels: &'a SpanLabels,
    is_grpc: bool,
}

impl Call<'_> {
    /// For people, without what is beyond `PATH_CHARS`.
    fn path(&self, hides_paths: bool) -> Cow<'_, str> {
        let sent = &self.outcome.head.path;
        let path = if self.labels.is_by_path {
            Cow::Owned(readable(&as_forwarded(sent, Form::Method)).into_owned())
        } else {
            readable(sent)
        };
        if hides_paths && !self.is_grpc {
            return Cow::Borrowed(hidden(&path));
        }
        clipped(path)
    }

    fn write(&self, out: &mut Vec<u8>, context: &Context, form: &SpanForm, path: &str) {
        let Self { outcome, labels, is_grpc } = *self;
        let method = method_of(path);
        let (remote, (host, port)) = if labels.is_outbound {
            (&labels.dst, split_address(outcome.attempts.last().map_or("", |attempt| &*attempt.endpoint)))
        } else {
            (&labels.src, (&*outcome.head.entry.address, 0))
        };
        out.extend_from_slice(b"{\"traceId\":\"");
        put_hex(out, context.trace_id, 32);
        out.extend_from_slice(b"\",\"id\":\"");
        put_hex(out, u128::from(context.span_id), 16);
        out.extend_from_slice(b"\",\"name\":");
        if is_grpc {
            quote(out, &lower(path));
        } else {
            quote(out, &lower(&format!("CallLocal/{}/{method}", labels.dst)));
        }
        let started_ns = outcome.started_ns;
        let took_us = (self.end_ns().saturating_sub(started_ns) / 1_000).max(1);
        put(
            out,
            format_args!(",\"timestamp\":{},\"duration\":{took_us},\"localEndpoint\":{{\"serviceName\":", started_ns / 1_000),
        );
        quote(out, &lower(&form.service));
        put(out, format_args!("}},\"kind\":\"{}\"", if labels.is_outbound { "CLIENT" } else { "SERVER" }));
        if context.parent_id != 0 {
            out.extend_from_slice(b",\"parentId\":\"");
            put_hex(out, u128::from(context.parent_id), 16);
            out.push(b'"');
        }
        put_remote(out, remote, host, port);
        let mut tags = Tags { out, is_next: false };
        if is_grpc {
            self.put_grpc(&mut tags, path, form);
        } else if labels.is_outbound {
            self.put_client(&mut tags, method, form);
        } else {
            self.put_server(&mut tags, method, form);
        }
        self.put_rest(&mut tags, form, (host, port));
        out.push(b'}');
        put_events(out, &self.events());
        out.push(b'}');
    }

    /// A caller's HTTP span ends with the answer's head, unless the body failed; every other with the call.
    fn end_ns(&self) -> u64 {
        let outcome = self.outcome;
        let is_to_head = self.labels.is_outbound && outcome.head_ns > 0 && outcome.cause.is_none() && !self.is_grpc;
        if is_to_head { outcome.head_ns } else { outcome.ended_ns }
    }

    fn put_grpc(&self, tags: &mut Tags<'_>, path: &str, form: &SpanForm) {
        let labels = self.labels;
        if form.has_otel() {
            tags.put("rpc.system.name", "grpc");
            tags.put("rpc.method", path.strip_prefix('/').unwrap_or(path));
        }
        if labels.is_outbound {
            if form.has_dapr() {
                tags.put("dapr-app-id", &labels.dst);
                tags.put("net.peer.name", &labels.dst);
            }
            tags.put("peer.service", &labels.dst);
        } else if form.has_dapr() {
            tags.put("dapr-caller-app-id", &labels.src);
            tags.put("dapr-callee-app-id", &labels.dst);
        }
        if let Some(code) = self.outcome.grpc_code.filter(|_| form.has_otel()) {
            tags.put("rpc.response.status_code", &code_name(code));
        }
    }

    fn put_client(&self, tags: &mut Tags<'_>, method: &str, form: &SpanForm) {
        let (dst, status) = (&self.labels.dst, self.outcome.status);
        let (verb, path) = (latin1(&self.outcome.head.method), format!("/{method}"));
        let (has_dapr, has_otel) = (form.has_dapr(), form.has_otel());
        if has_dapr {
            tags.put("rpc.service", "ServiceInvocation");
            tags.put("net.peer.name", dst);
        }
        tags.put("peer.service", dst);
        if has_dapr {
            tags.put("dapr.protocol", "http");
        }
        tags.put("http.request.method", &verb);
        if has_otel {
            tags.put("url.path", &path);
        }
        let mut target = path;
        if self.labels.is_dapr {
            target = format!("{INVOKE}{dst}/method/{method}");
            if has_dapr {
                tags.put("dapr.api", &format!("{verb} {target}"));
            }
        }
        let query = form.query(&self.outcome.head.query);
        if !query.is_empty() {
            target.push('?');
            target.push_str(&clipped(latin1(query).into()));
        }
        tags.put("url.full", &target);
        if status > 0 && has_dapr {
            tags.put("dapr.status_code", &status.to_string());
        }
        if status > 0 && has_otel {
            tags.put("http.response.status_code", &status.to_string());
        }
    }

    fn put_server(&self, tags: &mut Tags<'_>, method: &str, form: &SpanForm) {
        let has_dapr = form.has_dapr();
        if has_dapr {
            tags.put("rpc.service", "ServiceInvocation");
            tags.put("dapr.invoke_method", method);
        }
        if form.has_otel() {
            tags.put("http.request.method", &latin1(&self.outcome.head.method));
            tags.put("url.path", &format!("/{method}"));
        }
        if has_dapr && self.labels.is_dapr {
            tags.put("dapr.protocol", "grpc");
            tags.put("dapr.api", CALL_LOCAL);
        } else if has_dapr {
            tags.put("dapr.protocol", "http");
        }
        if self.outcome.status > 0 && form.has_otel() {
            tags.put("http.response.status_code", &self.outcome.status.to_string());
        }
    }

    /// Addresses of the other end; by Dapr's conventions alone, those of the calling app on its HTTP calls.
    fn put_address(&self, tags: &mut Tags<'_>, form: &SpanForm, (mut host, mut port): (&str, u32)) {
        let is_outbound = self.labels.is_outbound;
        if !form.has_otel() {
            if !is_outbound || self.is_grpc {
                return;
            }
            (host, port) = (&self.outcome.head.entry.address, 0);
        }
        if host.is_empty() {
        } else if is_outbound {
            tags.put("server.address", host);
            if port > 0 {
                tags.put("server.port", &port.to_string());
            }
        } else {
            tags.put("client.address", host);
            tags.put("network.protocol.version", "2");
        }
    }

    /// What spans of all protocols have.
    fn put_rest(&self, tags: &mut Tags<'_>, form: &SpanForm, address: (&str, u32)) {
        self.put_address(tags, form, address);
        let error = self.error_type();
        if let Some(error) = &error {
            tags.put("error.type", error);
        }
        if !self.labels.decision.is_empty() {
            tags.put("postern.decision", &self.labels.decision);
        }
        if let (true, Some(why)) = (self.labels.is_outbound, self.outcome.not_retried) {
            tags.put("postern.not_retried", why.name());
        }
        if self.outcome.attempts.len() > 1 {
            tags.put("http.request.resend_count", &(self.outcome.attempts.len() - 1).to_string());
        }
        for (key, value) in baggage::values(&self.outcome.head.headers, &form.baggage) {
            tags.put_named("baggage.", key, &value);
        }
        tags.put("service.name", &form.service);
        tags.put("otel.scope.name", "dapr-diagnostics");
        if error.is_some() {
            tags.put("otel.status_code", "ERROR");
            tags.put("error", &self.error_text(form));
        }
    }

    /// Why a proxy ended the call, in place of the app.
    fn own_cause(&self) -> Option<Cause> {
        self.outcome.cause.filter(|cause| *cause != Cause::Status)
    }

    /// Our own cause, else the code that the app gave, where that is an error: for a caller from 400 on, for a callee from 500 on.
    fn error_type(&self) -> Option<Cow<'static, str>> {
        let outcome = self.outcome;
        if let Some(cause) = self.own_cause() {
            return Some(cause.name().into());
        }
        if self.is_grpc {
            if let Some(code) = outcome.grpc_code.filter(|code| *code > 0) {
                return Some(code_name(code));
            }
        } else if outcome.status >= if self.labels.is_outbound { 400 } else { 500 } {
            return Some(outcome.status.to_string().into());
        }
        outcome.cause.map(|cause| cause.name().into())
    }

    fn error_text(&self, form: &SpanForm) -> String {
        let outcome = self.outcome;
        let text = if self.is_grpc {
            match outcome.grpc_code {
                Some(code) if code > 0 => format!("Code({code}): {}", code_name(code)),
                _ => "Code(0): no status".to_owned(),
            }
        } else if outcome.status > 0 {
            format!("Code({}): {}", outcome.status, form.phrases.get(&outcome.status).map_or("Unknown", |phrase| phrase))
        } else {
            "Code(0): no response".to_owned()
        };
        match self.own_cause() {
            Some(cause) => format!("{text} ({})", cause.name()),
            None => text,
        }
    }

    /// What the call waited for, its retries, and what went wrong, in order of time.
    fn events(&self) -> Vec<(u64, String)> {
        let outcome = self.outcome;
        let attempts = &outcome.attempts[..];
        let mut events = Vec::new();
        let told = attempts.get(attempts.len().saturating_sub(MAX_ATTEMPTS)..).unwrap_or_default();
        let ended_by_us = self.own_cause().map(|cause| (outcome.ended_ns, cause));
        if outcome.resolve_ns >= WAIT_NS {
            let text = format!("resolve delay_ms={}", outcome.resolve_ns / 1_000_000);
            events.push((outcome.started_ns + outcome.resolve_ns, text));
        }
        let queue_ns = outcome.queue_ns + told.last().map_or(0, |last| last.queue_ns);
        if queue_ns >= WAIT_NS {
            let until = told.last().map_or(outcome.ended_ns, |last| last.started_ns + last.queue_ns);
            events.push((until, format!("queue delay_ms={}", queue_ns / 1_000_000)));
        }
        if outcome.authorize_ns >= WAIT_NS {
            let until = told.first().map_or(outcome.ended_ns, |first| first.started_ns);
            events.push((until, format!("authorize delay_ms={}", outcome.authorize_ns / 1_000_000)));
        }
        if let Some(last) = told.last() {
            let waited_ns = last.sent_ns.saturating_sub(last.started_ns).saturating_sub(last.queue_ns);
            if waited_ns >= WAIT_NS {
                let text = format!("connect delay_ms={} endpoint={}", waited_ns / 1_000_000, endpoint_of(last));
                events.push((last.sent_ns, text));
            }
        }
        for (number, pair) in attempts.windows(2).enumerate() {
            let delay_ms = pair[1].started_ns.saturating_sub(pair[0].ended_ns) / 1_000_000;
            let (reason, endpoint) = (reason_of(&pair[0]), endpoint_of(&pair[1]));
            let text = format!("retry attempt={} reason={reason} delay_ms={delay_ms} endpoint={endpoint}", number + 2);
            events.push((pair[1].started_ns, text));
        }
        let harmed = attempts.iter().filter(|attempt| !attempt.fault.is_empty());
        events.extend(harmed.map(|attempt| (attempt.started_ns, format!("fault {}", attempt.fault))));
        events.extend(ended_by_us.map(|(at, cause)| (at, cause.name().to_owned())));
        events.sort_by_key(|(at, _)| *at);
        events
    }
}

fn method_of(path: &str) -> &str {
    let invoked = path.strip_prefix(INVOKE).and_then(|_| path.split_once("/method/"));
    invoked.map_or(path.strip_prefix('/').unwrap_or(path), |(_, method)| method)
}

fn code_name(code: u32) -> Cow<'static, str> {
    GRPC_CODES.get(code as usize).map_or_else(|| code.to_string().into(), |name| Cow::Borrowed(*name))
}

/// Why an attempt was not the last.
fn reason_of(attempt: &Attempt) -> Cow<'static, str> {
    match (attempt.cause, attempt.grpc_code) {
        (Some(Cause::CallerLeft), _) => "hedged".into(), // it was given up for another
        (Some(cause), _) if cause != Cause::Status => cause.name().into(),
        (_, Some(code)) if code > 0 => code_name(code),
        _ if attempt.status > 0 => attempt.status.to_string().into(),
        _ => "none".into(),
    }
}

fn endpoint_of(attempt: &Attempt) -> &str {
    if attempt.endpoint.is_empty() { "-" } else { &attempt.endpoint }
}

/// Host without brackets, and port; nothing of what is no `host:port`.
fn split_address(address: &str) -> (&str, u32) {
    let Some((host, digits)) = address.rsplit_once(':') else { return ("", 0) };
    let is_port = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (true, Ok(port)) = (is_port && !host.is_empty(), digits.parse()) else { return ("", 0) };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// The key that Zipkin wants an address under; it has no place for a name. An IPv6 address may name its zone.
fn family_of(host: &str) -> Option<&'static str> {
    let (address, zone) = host.split_once('%').map_or((host, None), |(address, zone)| (address, Some(zone)));
    match (address.parse().ok()?, zone) {
        (IpAddr::V4(_), None) => Some("ipv4"),
        (IpAddr::V6(_), zone) if zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('%')) => Some("ipv6"),
        _ => None,
    }
}

fn put_remote(out: &mut Vec<u8>, service: &str, host: &str, port: u32) {
    let family = family_of(host);
    if service.is_empty() && family.is_none() {
        return;
    }
    out.extend_from_slice(b",\"remoteEndpoint\":{");
    if !service.is_empty() {
        out.extend_from_slice(b"\"serviceName\":");
        quote(out, &lower(service));
    }
    if let Some(family) = family {
        put(out, format_args!("{}\"{family}\":", if service.is_empty() { "" } else { "," }));
        quote(out, host);
        if port > 0 {
            put(out, format_args!(",\"port\":{port}"));
        }
    }
    out.push(b'}');
}

fn put_events(out: &mut Vec<u8>, events: &[(u64, String)]) {
    for (number, (at_ns, text)) in events.iter().enumerate() {
        let before = if number == 0 { ",\"annotations\":[" } else { "," };
        put(out, format_args!("{before}{{\"timestamp\":{},\"value\":", at_ns / 1_000));
        quote(out, text);
        out.push(b'}');
    }
    if !events.is_empty() {
        out.push(b']');
    }
}

struct Tags<'a> {
    out: &'a mut Vec<u8>,
    is_next: bool,
}

impl Tags<'_> {
    fn put(&mut self, key: &str, value: &str) {
        self.put_named("", key, value);
    }

    /// `prefix` and `key`: ours, or a token (RFC 9110 §5.6.2), in which nothing is escaped in JSON.
    fn put_named(&mut self, prefix: &str, key: &str, value: &str) {
        self.out.extend_from_slice(if self.is_next { b",\"" } else { b",\"tags\":{\"" });
        self.is_next = true;
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        quote(self.out, value);
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.to_lowercase())
}

fn put_hex(out: &mut Vec<u8>, number: u128, digits: u32) {
    out.extend((0..digits).rev().map(|place| HEX[(number >> (4 * place) & 15) as usize]));
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default(); // to memory, which never fails
}

/// A string of JSON (RFC 8259 §7), with the short escapes where there are some.
fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            8 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            12 => b'f',
            b'\r' => b'r',
            0..=31 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        if short > 0 {
            out.extend_from_slice(&[b'\\', short]);
        } else {
            put(out, format_args!("\\u{byte:04x}"));
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}
