//! Replies on the wire: HTTP or gRPC form, with the engine's detail put in. Equal to `portable/answers.py`.

use std::cell::RefCell;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::gates::Told;
use crate::call::grpc_web;
use crate::decision::plan::Reply;
use crate::decision::trace::{Span, TRACEPARENT};
use crate::fields::Headers;
use crate::head::{Head, Protocol};

const DETAIL: u8 = 1; // stands in a body or message for what the engine knows
const TRACE_ID: u8 = 2; // in a body, for the trace's id
/// Names why postern itself answered.
pub const ERROR: HeaderName = HeaderName::from_static("postern-error");
/// Names the faults that were injected into the attempt that is answered.
pub const FAULT: HeaderName = HeaderName::from_static("postern-fault");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
pub const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What an answer in any form has for pages of listed origins.
const FOR_PAGES: [HeaderName; 3] = [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_EXPOSE_HEADERS, header::VARY];

/// Whether a field of a reply is in an answer in HTTP, gRPC and gRPC-Web alike.
pub fn is_in_any_form(name: &HeaderName) -> bool {
    *name == ERROR || *name == GRPC_DETAILS || FOR_PAGES.contains(name)
}

/// An answer of ours, with the engine's detail. `told`: what a gate says beside: its fields come in the place of others of their names.
pub struct Said<'a> {
    pub reply: &'a Reply,
    pub detail: &'a str,
    pub told: Option<&'a Told>,
}

/// Answer a call; returns how long the body is. gRPC errors are trailers-only; gRPC-Web's are a body, as a page may not read all fields of a head.
pub fn send(down: &mut Down, said: &Said, span: Option<&Span>, asked: &Head) -> usize {
    let (reply, detail) = (said.reply, said.detail);
    if let Some(sent_as) = grpc_web::content_type(asked) {
        let mut trailers = grpc_trailers(reply, detail, span);
        tell_grpc(&mut trailers, said.told);
        let frame = grpc_web::trailer_frame(&trailers, sent_as);
        let mut headers = Headers::with_capacity(6);
        headers.append(header::CONTENT_TYPE, sent_as.clone());
        headers.append(header::CONTENT_LENGTH, frame.len().into());
        for (name, value) in reply.headers.iter().filter(|(name, _)| *name == ERROR || FOR_PAGES.contains(name)) {
            headers.append(name, value.clone());
        }
        let size = frame.len();
        down.respond(200, headers, false);
        down.send(frame, true);
        return size;
    }
    if asked.protocol == Protocol::Grpc {
        let mut headers = grpc_trailers(reply, detail, span);
        tell_grpc(&mut headers, said.told);
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        for (name, value) in reply.headers.iter().filter(|(name, _)| FOR_PAGES.contains(name)) {
            headers.append(name, value.clone());
        }
        down.respond(200, headers, true);
        return 0;
    }
    let mut headers = Headers::with_capacity(reply.headers.len() + 4);
    let traceparent = span.map(Span::traceparent);
    let trace_id = traceparent.as_ref().and_then(|value| value.as_bytes().get(3..35)).unwrap_or_default();
    let body = fill(&fill(&reply.body, DETAIL, json(detail).as_bytes()), TRACE_ID, trace_id);
    let told = said.told.map_or(&[][..], |told| &told.headers);
    for (name, value) in reply.headers.iter().filter(|(name, _)| told.iter().all(|(other, _)| name != other)).chain(told) {
        headers.append(name, value.clone());
    }
    headers.append(header::CONTENT_LENGTH, body.len().into());
    date(&mut headers);
    if let Some(traceparent) = traceparent {
        headers.append(TRACEPARENT, traceparent);
    }
    let size = if &asked.method[..] == b"HEAD" { 0 } else { body.len() };
    down.respond(reply.status, headers, size == 0);
    if size > 0 {
        down.send(body, true);
    }
    size
}

/// The same in trailers, where gRPC clients that retry look for their own field (gRFC A6).
fn tell_grpc(trailers: &mut Headers, told: Option<&Told>) {
    let Some(told) = told else { return };
    for (name, value) in &told.headers {
        trailers.append(name, value.clone());
    }
    let Some(again) = told.again else { return };
    let millis = again.as_micros().div_ceil(1_000).min(u32::MAX.into()) as u64;
    trailers.append(PUSHBACK, millis.into());
}

/// The head of an answer that was made on purpose, in place of the callee's.
pub fn injected(status: u16, code: u32, name: &str, asked: &Head) -> (u16, Headers) {
    let mut headers = Headers::with_capacity(4);
    if asked.protocol != Protocol::Grpc {
        if status != 204 {
            headers.append(header::CONTENT_LENGTH, 0.into());
        }
        return (status, headers);
    }
    headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.append(GRPC_STATUS, code.into());
    let text = format!("injected by the fault {name}");
    headers.append(GRPC_MESSAGE, HeaderValue::try_from(percent(&text)).unwrap_or(HeaderValue::from_static("")));
    (200, headers)
}

/// Add a Date where there is none (RFC 9110 §6.6.1).
pub fn date(headers: &mut Headers) {
    if headers.get(header::DATE).is_none() {
        headers.append(header::DATE, date_now());
    }
}

/// The present second as a Date has it.
pub fn date_now() -> HeaderValue {
    thread_local! {
        static NOW: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    NOW.with_borrow_mut(|(kept, value)| {
        if *kept != second {
            (*kept, *value) =
                (second, HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static("")));
        }
        value.clone()
    })
}

/// How a gRPC call ends with a reply of ours.
pub fn grpc_trailers(reply: &Reply, detail: &str, span: Option<&Span>) -> Headers {
    let mut headers = Headers::with_capacity(4);
    headers.append(GRPC_STATUS, reply.grpc_code.into());
    let text = reply.grpc_message.replace(char::from(DETAIL), detail);
    headers.append(GRPC_MESSAGE, HeaderValue::try_from(percent(&text)).unwrap_or(HeaderValue::from_static("")));
    let told = |wanted: &HeaderName| reply.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let mut details = told(&GRPC_DETAILS);
    if let Some(span) = span {
        let traceparent = span.traceparent();
        let said = details.as_ref().and_then(|said| STANDARD_NO_PAD.decode(said).ok());
        let status = with_trace(said, reply.grpc_code, &text, traceparent.as_bytes().get(3..35).unwrap_or_default());
        details = HeaderValue::try_from(STANDARD_NO_PAD.encode(status)).ok();
        headers.append(TRACEPARENT, traceparent);
    }
    if let Some(cause) = told(&ERROR) {
        headers.append(ERROR, cause);
    }
    if let Some(details) = details {
        headers.append(GRPC_DETAILS, details);
    }
    headers
}

/// A google.rpc.Status with the trace's id as the `request_id` of a `RequestInfo`, behind what it says already (none: code and message).
/// A repeated field is added to by writing it once more. Equal to `wire/request_info.py`.
fn with_trace(said: Option<Vec<u8>>, code: u32, message: &str, trace_id: &[u8]) -> Vec<u8> {
    let mut out = said.unwrap_or_else(|| {
        let mut out = vec![0x08];
        varint(&mut out, code as usize);
        field(&mut out, 2, message.as_bytes());
        out
    });
    let (mut info, mut any) = (Vec::with_capacity(34), Vec::with_capacity(80));
    field(&mut info, 1, trace_id);
    field(&mut any, 1, REQUEST_INFO.as_bytes());
    field(&mut any, 2, &info);
    field(&mut out, 3, &any);
    out
}

/// A field of bytes, as protobuf writes it.
fn field(out: &mut Vec<u8>, number: u8, data: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, data.len());
    out.extend_from_slice(data);
}

fn varint(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn fill(body: &Bytes, place: u8, detail: &[u8]) -> Bytes {
    let mut parts = body.split(|byte| *byte == place);
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        out.extend_from_slice(detail);
        out.extend_from_slice(part);
    }
    out.into()
}

/// As it stands inside a JSON string.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out
}

/// gRPC's percent-encoding of messages: printable ASCII but `%` stays.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whether an answer is gRPC's; gRPC-Web's is HTTP.
pub fn is_grpc(headers: &Headers) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let begins = |with: &[u8]| kind.get(..with.len()).is_some_and(|some| some.eq_ignore_ascii_case(with));
    begins(b"application/grpc") && !begins(b"application/grpc-web")
}

/// What a peer's proxy says of an answer that it made itself.
pub fn said_by_proxy(headers: &Headers) -> Option<Cause> {
    Cause::parse(headers.get(&ERROR)?.to_str().ok()?)
}

/// The grpc-status among trailers: 2 (UNKNOWN) where it is malformed.
pub fn grpc_code(headers: &Headers) -> Option<u32> {
    let value = headers.get(GRPC_STATUS)?.as_bytes();
    let sound = (1..=3).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    Some(if sound { value.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')) } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_escaped_where_they_are_put_in() {
        assert_eq!(
            &fill(&Bytes::from_static(b"a \x01 b"), DETAIL, json("\"x\"\n\u{1}ä").as_bytes())[..],
            "a \\\"x\\\"\\n\\u0001ä b".as_bytes()
        );
        assert_eq!(percent("näh: 100%"), "n%C3%A4h: 100%25");
    }
}
