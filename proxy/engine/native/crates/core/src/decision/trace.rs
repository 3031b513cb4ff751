//! Trace context: reads the W3C, gRPC and B3 headers, decides what is sampled, writes the headers of the next hop. Kept equal
//! to `telemetry/context.py` by `tests/vectors/trace.json`. Where the sampling rule is not known here, spans come from the
//! other side; see `ask`.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Decoder};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::decision::plan::{FORCED, NEVER, REFUSED, REFUSED_PER_S};
use crate::fields::Headers;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const GRPC_TRACE_BIN: HeaderName = HeaderName::from_static("grpc-trace-bin");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

const TRACESTATE_MEMBERS: usize = 32;
const BINARY_BYTES: usize = 29;
const BINARY_CHARS: usize = 39; // of which base64 makes them, without padding
const HEX: &[u8; 16] = b"0123456789abcdef";
/// As lenient as Python's with the last bits.
const LENIENT: Decoder = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The identity of one span; ids are never 0, except `parent_id` of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: u64,
    pub sampled: bool,
}

/// This hop's span.
#[derive(Debug, Clone)]
pub enum Span {
    /// Made here. `tracestate`: kept for spans that are recorded.
    Own { context: Context, tracestate: Box<str> },
    /// Made by the other side, where `id` names it.
    Foreign { id: u64, traceparent: HeaderValue, grpc_trace_bin: HeaderValue },
}

impl Span {
    /// The traceparent to send on.
    pub fn traceparent(&self) -> HeaderValue {
        match self {
            Self::Own { context, .. } => wire(format_traceparent(context).to_vec()),
            Self::Foreign { traceparent, .. } => traceparent.clone(),
        }
    }

    /// The same in gRPC's binary form, base64.
    pub fn grpc_trace_bin(&self) -> HeaderValue {
        match self {
            Self::Own { context, .. } => wire(format_grpc_trace_bin(context).into_bytes()),
            Self::Foreign { grpc_trace_bin, .. } => grpc_trace_bin.clone(),
        }
    }

    /// By a sampling rule, which decides about roots alone, or as `FORCED`, `REFUSED` and `NEVER` say of all.
    pub fn resample(&mut self, sampling: i32, rules: &SamplingRules) {
        let Self::Own { context, .. } = self else { return };
        match sampling {
            0 => {}
            FORCED => context.sampled = true,
            REFUSED => context.sampled = context.sampled && rules.refused.takes(context.trace_id),
            NEVER => context.sampled = false,
            _ if context.parent_id != 0 => {}
            _ => {
                let rule = usize::try_from(sampling - 1).ok().and_then(|number| rules.by_number.get(number));
                context.sampled = rule.map_or(context.sampled, |rule| rule.takes(context.trace_id));
            }
        }
    }

    /// Whether it is recorded, as far as is known here.
    pub fn is_sampled(&self) -> bool {
        matches!(self, Self::Own { context: Context { sampled: true, .. }, .. })
    }
}

fn wire(text: Vec<u8>) -> HeaderValue {
    let value = HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""));
    once(value)
}

/// A value that no other call has: not for HPACK's tables, where it would push out those that come again.
pub fn once(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// Parent-based ratio sampling. `bound`: of the low 64 bits of a trace id, less their last, how many are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    bound: u64,
    b3: bool,
}

impl Sampler {
    /// `rate`: from 0 to 1. `b3`: whether those headers are read.
    pub fn new(rate: f64, b3: bool) -> Self {
        let rate = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
        Self { bound: (rate * (1_u64 << 63) as f64) as u64, b3 }
    }

    /// Whether a root of this id is sampled.
    fn takes(&self, trace_id: u128) -> bool {
        ((trace_id as u64) >> 1) < self.bound
    }

    /// A new span: the child of the one that the headers name, or a root.
    pub fn begin(&self, headers: &Headers, grpc: bool) -> Span {
        let span_id = fastrand::u64(1..);
        let Some((parent, tells_state)) = extract(headers, grpc, self.b3) else {
            let trace_id = fastrand::u128(1..);
            let context = Context { trace_id, span_id, parent_id: 0, sampled: self.takes(trace_id) };
            return Span::Own { context, tracestate: "".into() };
        };
        let context = Context { span_id, parent_id: parent.span_id, ..parent };
        let tracestate = if tells_state && context.sampled { tracestate(headers) } else { String::new() };
        Span::Own { context, tracestate: tracestate.into() }
    }
}

/// What decisions name beside the common rate.
#[derive(Debug)]
pub struct SamplingRules {
    by_number: Vec<RuleSampler>,
    refused: RuleSampler,
}

impl SamplingRules {
    /// `by_number`: of those that labels name from 1 on.
    pub fn new(by_number: Vec<RuleSampler>) -> Self {
        Self { by_number, refused: RuleSampler::new(1.0, Some(REFUSED_PER_S)) }
    }
}

/// A rate for the new traces that a rule is for, and how many of them are sampled in a second at most: `RuleSampler` in
/// `telemetry/context.py`. One for all workers.
#[derive(Debug)]
pub struct RuleSampler {
    bound: u64,
    cap: Option<Cap>,
}

/// A token bucket that holds what a second brings, at least one.
#[derive(Debug)]
struct Cap {
    per_s: f64,
    left: Mutex<(f64, Instant)>,
}

impl RuleSampler {
    /// `rate`: from 0 to 1. `per_s`: more than 0.
    pub fn new(rate: f64, per_s: Option<f64>) -> Self {
        let cap = |per_s: f64| Cap { per_s, left: Mutex::new((per_s.max(1.0), Instant::now())) };
        Self { bound: Sampler::new(rate, false).bound, cap: per_s.map(cap) }
    }

    /// Whether a new trace of this id is sampled.
    pub fn takes(&self, trace_id: u128) -> bool {
        ((trace_id as u64) >> 1) < self.bound && self.cap.as_ref().is_none_or(|cap| cap.takes(Instant::now()))
    }
}

impl Cap {
    fn takes(&self, now: Instant) -> bool {
        let (left, since) = &mut *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let brought = now.saturating_duration_since(*since).as_secs_f64() * self.per_s;
        (*left, *since) = ((*left + brought).min(self.per_s.max(1.0)), now);
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

/// The remote span that the headers name, and whether their tracestate belongs to it.
pub fn extract(headers: &Headers, grpc: bool, b3: bool) -> Option<(Context, bool)> {
    let parent = traceparent_of(headers, grpc);
    let mut context = parent;
    if grpc || parent.is_none() {
        for value in headers.get_all(GRPC_TRACE_BIN) {
            context = parse_grpc_trace_bin(value.as_bytes()).or(context);
        }
    }
    match (context, parent) {
        (None, _) => b3.then(|| b3_of(headers)).flatten().map(|context| (context, false)),
        (Some(context), Some(parent)) => Some((context, parent.trace_id == context.trace_id)),
        (Some(context), None) => Some((context, true)),
    }
}

/// The tracestate of all its fields, normalised; "" where it is invalid.
pub fn tracestate(headers: &Headers) -> String {
    let values: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() { String::new() } else { parse_tracestate(&values.join(&b',')) }
}

fn traceparent_of(headers: &Headers, last_wins: bool) -> Option<Context> {
    let values = headers.get_all(TRACEPARENT);
    let first = values.iter().next()?;
    if last_wins || values.iter().all(|value| value == first) {
        return parse_traceparent(values.iter().next_back()?.as_bytes());
    }
    None
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Lower-case hexadecimal digits only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| {
        let figure = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(figure))
    })
}

fn checked(trace_id: u128, span_id: u128, sampled: bool) -> Option<Context> {
    let span_id = span_id as u64;
    (trace_id != 0 && span_id != 0).then_some(Context { trace_id, span_id, parent_id: 0, sampled })
}

/// A W3C `traceparent`; later versions are read by the rules of version 00, `ff` is invalid.
pub fn parse_traceparent(value: &[u8]) -> Option<Context> {
    let value = trimmed(value);
    let (known, more) = value.split_at_checked(55)?;
    if known[2] != b'-' || known[35] != b'-' || known[52] != b'-' || !(more.is_empty() || more[0] == b'-') {
        return None;
    }
    let (version, flags) = (hex(&known[..2])?, hex(&known[53..])?);
    if version == 0xff || (version == 0 && !more.is_empty()) {
        return None;
    }
    checked(hex(&known[3..35])?, hex(&known[36..52])?, flags & 1 == 1)
}

/// The list normalised (empty members and white space gone), or "" when it is invalid or has too many members.
fn parse_tracestate(value: &[u8]) -> String {
    let mut members: Vec<(&[u8], &[u8])> = Vec::new();
    for raw in value.split(|byte| *byte == b',') {
        let member = trimmed(raw);
        if member.is_empty() {
            continue;
        }
        let Some(key) = state_key(member) else { return String::new() };
        if members.iter().any(|(known, _)| *known == key) || members.len() == TRACESTATE_MEMBERS {
            return String::new();
        }
        members.push((key, member));
    }
    let joined: Vec<&[u8]> = members.into_iter().map(|(_, member)| member).collect();
    String::from_utf8(joined.join(&b',')).unwrap_or_default()
}

/// The key of a well-formed member.
fn state_key(member: &[u8]) -> Option<&[u8]> {
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let is_start = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = |part: &[u8], most: usize| {
        part.len() <= most
            && part.first().is_some_and(is_start)
            && part.iter().all(|byte| is_start(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/'))
    };
    let is_key = match key.iter().position(|byte| *byte == b'@') {
        None => is_name(key, 256),
        Some(at) => is_name(&key[..at], 241) && is_name(&key[at + 1..], 14),
    };
    let is_text = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    let is_value = (1..=256).contains(&value.len()) && value.iter().all(is_text) && value.last() != Some(&b' ');
    (is_key && is_value).then_some(key)
}

/// `grpc-trace-bin` as it stands on the wire: base64, padded or not, several values joined by commas.
pub fn parse_grpc_trace_bin(value: &[u8]) -> Option<Context> {
    let mut text = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let mut raw = [0; BINARY_BYTES + 1];
    if text.len() != BINARY_CHARS || LENIENT.decode_slice(text, &mut raw).ok()? != BINARY_BYTES {
        return None;
    }
    if raw[0] != 0 || raw[1] != 0 || raw[18] != 1 || raw[27] != 2 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    checked(number(&raw[2..18]), number(&raw[19..27]), raw[28] & 1 == 1)
}

fn b3_of(headers: &Headers) -> Option<Context> {
    let last = |name: HeaderName| headers.get_all(name).iter().next_back().map(HeaderValue::as_bytes);
    if let Some(single) = last(B3) {
        if let Some((trace, span, sampled)) = b3_single(trimmed(single)) {
            return checked(trace, span, sampled);
        }
    }
    let (trace, span) = (last(B3_TRACE_ID)?, last(B3_SPAN_ID)?);
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let says = last(B3_SAMPLED).is_some_and(|value| value == b"1" || value.eq_ignore_ascii_case(b"true"));
    checked(hex(trace)?, hex(span)?, says || last(B3_FLAGS) == Some(b"1"))
}

/// `trace-span[-sampled[-parent]]`.
fn b3_single(text: &[u8]) -> Option<(u128, u128, bool)> {
    let mut parts = text.split(|byte| *byte == b'-');
    let (trace, span, sampled, parent) = (parts.next()?, parts.next()?, parts.next(), parts.next());
    let has_form = matches!(trace.len(), 16 | 32)
        && span.len() == 16
        && sampled.is_none_or(|flag| matches!(flag, b"0" | b"1" | b"d"))
        && parent.is_none_or(|id| id.len() == 16 && hex(id).is_some())
        && parts.next().is_none();
    if !has_form {
        return None;
    }
    Some((hex(trace)?, hex(span)?, matches!(sampled, Some(b"1" | b"d"))))
}

fn put_hex(out: &mut [u8], mut number: u128) {
    for place in out.iter_mut().rev() {
        *place = HEX[(number & 15) as usize];
        number >>= 4;
    }
}

/// Always version 00.
pub fn format_traceparent(context: &Context) -> [u8; 55] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    put_hex(&mut out[3..35], context.trace_id);
    put_hex(&mut out[36..52], u128::from(context.span_id));
    out[54] += u8::from(context.sampled);
    out
}

/// Base64 without padding.
pub fn format_grpc_trace_bin(context: &Context) -> String {
    let mut raw = [0; BINARY_BYTES];
    raw[2..18].copy_from_slice(&context.trace_id.to_be_bytes());
    raw[18] = 1;
    raw[19..27].copy_from_slice(&context.span_id.to_be_bytes());
    raw[27] = 2;
    raw[28] = u8::from(context.sampled);
    STANDARD_NO_PAD.encode(raw)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    /// Trace id, span id, whether it is sampled, tracestate.
    #[derive(Deserialize)]
    struct Remote(String, String, bool, Text);

    impl Remote {
        fn context(&self) -> Context {
            let number = |digits: &str| hex(digits.as_bytes()).unwrap();
            Context { trace_id: number(&self.0), span_id: number(&self.1) as u64, parent_id: 0, sampled: self.2 }
        }
    }

    fn yes() -> bool {
        true
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        why: String,
        fields: Vec<(String, Text)>,
        #[serde(default)]
        grpc: bool,
        #[serde(default = "yes")]
        b3: bool,
        span: Option<Remote>,
    }

    #[test]
    fn fields_name_the_remote_span() {
        for case in vectors::read::<Read>("trace", "read") {
            let headers = vectors::headers(case.fields.iter().map(|(name, value)| (&**name, value)));
            let found = extract(&headers, case.grpc, case.b3)
                .map(|(context, tells_state)| (context, if tells_state { tracestate(&headers) } else { String::new() }));
            let wanted = case.span.map(|span| (span.context(), span.3.spelt()));
            assert_eq!(found, wanted, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        why: String,
        span: Remote,
        traceparent: String,
        grpc_trace_bin: String,
    }

    #[test]
    fn both_forms_are_written() {
        for case in vectors::read::<Written>("trace", "written") {
            assert_eq!(format_traceparent(&case.span.context()), case.traceparent.as_bytes(), "{}", case.why);
            assert_eq!(format_grpc_trace_bin(&case.span.context()), case.grpc_trace_bin, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sampling {
        why: String,
        rate: f64,
        trace_id: String,
        sampled: bool,
    }

    #[test]
    fn roots_are_sampled_by_rate_and_id() {
        for case in vectors::read::<Sampling>("trace", "sampling") {
            let trace_id = hex(case.trace_id.as_bytes()).unwrap();
            assert_eq!(Sampler::new(case.rate, true).takes(trace_id), case.sampled, "{}", case.why);
        }
    }

    #[test]
    fn rules_decide_about_roots_alone_and_force_about_all() {
        let rules = SamplingRules::new(vec![RuleSampler::new(0.0, None), RuleSampler::new(1.0, None)]);
        let sampled = |parent_id: u64, sampled: bool, sampling: i32| {
            let context = Context { trace_id: 1, span_id: 1, parent_id, sampled };
            let mut span = Span::Own { context, tracestate: "".into() };
            span.resample(sampling, &rules);
            span.is_sampled()
        };
        assert_eq!([1, 2, 3, FORCED].map(|number| sampled(0, true, number)), [false, true, true, true]);
        assert_eq!([1, 2, 3, FORCED].map(|number| sampled(7, false, number)), [false, false, false, true]);
        assert_eq!([NEVER, REFUSED].map(|number| sampled(7, true, number)), [false, true]);
        assert!(!sampled(0, false, REFUSED));
    }

    #[test]
    fn refusals_are_recorded_up_to_a_rate() {
        let rules = SamplingRules::new(vec![]);
        let is_recorded = |_: &usize| {
            let context = Context { trace_id: 1, span_id: 1, parent_id: 7, sampled: true };
            let mut span = Span::Own { context, tracestate: "".into() };
            span.resample(REFUSED, &rules);
            span.is_sampled()
        };
        let recorded = (0..10_000).filter(is_recorded).count() as f64;
        assert!((REFUSED_PER_S..100.0 * REFUSED_PER_S).contains(&recorded), "{recorded}");
    }

    #[test]
    fn caps_let_as_many_through_as_a_second_brings() {
        let start = Instant::now();
        let cap = Cap { per_s: 2.0, left: Mutex::new((2.0, start)) };
        let through = |after_ms: u64| (0..9).filter(|_| cap.takes(start + Duration::from_millis(after_ms))).count();
        assert_eq!([0, 500, 600, 9_000].map(through), [2, 1, 0, 2]);
        let slow = Cap { per_s: 0.5, left: Mutex::new((1.0, start)) };
        assert_eq!([0, 1_000, 2_000].map(|ms| slow.takes(start + Duration::from_millis(ms))), [true, false, true]);
    }

    #[test]
    fn spans_are_children_that_keep_the_decision_or_roots_by_rate() {
        let w3c = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let mut headers = Headers::new();
        headers.append(TRACEPARENT, w3c.clone());
        headers.append(TRACESTATE, HeaderValue::from_static("a=1 , b=2"));
        let parent = parse_traceparent(w3c.as_bytes()).unwrap();
        for rate in [0.0, 1.0] {
            let Span::Own { context: child, tracestate } = Sampler::new(rate, true).begin(&headers, false) else {
                panic!("not made here");
            };
            assert_eq!((child.trace_id, child.parent_id, child.sampled), (parent.trace_id, parent.span_id, true));
            assert_eq!(&*tracestate, "a=1,b=2");
            assert_eq!(Sampler::new(rate, true).begin(&Headers::new(), false).is_sampled(), rate > 0.5);
        }
    }
}
