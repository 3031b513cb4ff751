//! A Plan's edits, made ready once and applied once per attempt. Equal to `proxy/wire/edits.py`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::call::grpc_web;
use crate::decision::baggage::{self, BAGGAGE};
use crate::decision::deadlines;
use crate::decision::target::{self, Form};
use crate::decision::trace::{GRPC_TRACE_BIN, Span, TRACEPARENT, once};
use crate::fields::{Headers, is_of_hop};
use crate::head::{Head, Protocol};

/// What goes, what comes, in the order in which it applies.
#[derive(Debug, Default, Clone)]
pub struct Edits {
    /// Names as `spelled` has them; see `take`.
    pub remove: Vec<HeaderName>,
    pub prefixes: Vec<String>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Of lists: those that are missing.
    pub members: Vec<(HeaderName, HeaderValue)>,
    pub hop_by_hop: bool,
    pub caller: bool,
    pub trace: bool,
    pub deadline: bool,
    pub grpc_web: bool,
    pub http_only: bool,
    pub baggage: bool,
    /// Keys of those that go on; `None`: all.
    pub baggage_keys: Option<Vec<Bytes>>,
    pub tells_trace: bool,
    pub echoes: Vec<HeaderName>,
    pub path: Form,
    /// In place of any form of the path; may have a query.
    pub moved_to: Option<Bytes>,
    /// What the path is put behind, or nothing.
    pub base: String,
    pub authority: Option<Bytes>,
}

/// Besides those of any hop, by Dapr's list; `te: trailers` is put back for gRPC.
static ENDED_HERE: [HeaderName; 4] = [header::TE, header::TRAILER, header::PROXY_AUTHORIZATION, header::PROXY_AUTHENTICATE];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    is_of_hop(name) || ENDED_HERE.contains(name)
}
const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
static WRITTEN: [HeaderName; 2] = [TRACEPARENT, GRPC_TRACE_BIN];

/// The names that Connection lists.
fn listed(headers: &Headers) -> Vec<HeaderName> {
    let items = headers.get_all(header::CONNECTION).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    items.filter_map(|item| HeaderName::from_bytes(item.trim_ascii()).ok()).map(|name| spelled(&name).into_owned()).collect()
}

/// Of some members of a list, those that it lacks.
fn missing(headers: &Headers, name: &HeaderName, members: &HeaderValue) -> Option<HeaderValue> {
    if !headers.contains_key(name) {
        return Some(members.clone());
    }
    let members = members.to_str().ok()?.split(", ");
    let lacks: Vec<&str> = members.filter(|member| !is_member(headers, name, member.as_bytes())).collect();
    (!lacks.is_empty()).then(|| HeaderValue::try_from(lacks.join(", ")).ok())?
}

fn is_member(headers: &Headers, name: &HeaderName, member: &[u8]) -> bool {
    let mut items = headers.get_all(name).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    items.any(|item| matches!(item.trim_ascii(), item if item == b"*" || item.eq_ignore_ascii_case(member)))
}

/// Leave out the fields of this hop only, as engines without edits do.
pub fn drop_hop_by_hop(headers: &mut Headers) {
    let listed = listed(headers);
    headers.retain(|name| {
        let name = &*spelled(name);
        !is_hop_by_hop(name) && !listed.contains(name)
    });
}

/// CGI and WSGI apps read `dapr_caller_app_id` as `dapr-caller-app-id`: what goes, goes in either spelling.
fn spelled(name: &HeaderName) -> Cow<'_, HeaderName> {
    if name.as_str().contains('_') {
        if let Ok(other) = HeaderName::try_from(name.as_str().replace('_', "-")) {
            return Cow::Owned(other);
        }
    }
    Cow::Borrowed(name)
}

/// Trailers without what goes from the head: some servers read both alike. Nothing comes: values of ours belong into the head.
pub fn trailers(edits: Option<&Edits>, mut trailers: Headers) -> Option<Headers> {
    trailers.retain(|name| {
        let name = &*spelled(name);
        !is_hop_by_hop(name) && !edits.is_some_and(|edits| edits.takes(name))
    });
    (!trailers.is_empty()).then_some(trailers)
}

/// Of a gRPC request that was sent so often before, besides what its caller's own client says of that (gRPC proposal A6).
pub fn tell_previous_attempts(headers: &mut Headers, count: usize) {
    if count > 0 {
        let said = headers.get(PREVIOUS_ATTEMPTS).and_then(|value| value.to_str().ok());
        let said = said.filter(|said| said.len() < 10 && said.bytes().all(|byte| byte.is_ascii_digit()));
        let said: usize = said.and_then(|said| said.parse().ok()).unwrap_or(0);
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(count + said));
    }
}

impl Edits {
    /// Remove a field, in either spelling.
    pub fn take(&mut self, name: &HeaderName) {
        self.remove.push(spelled(name).into_owned());
    }

    fn takes(&self, name: &HeaderName) -> bool {
        let has_prefix = || self.prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()));
        let of_caller = self.caller && (*name == CALLER_APP_ID || *name == CALLER_NAMESPACE);
        let of_baggage = self.baggage && *name == BAGGAGE;
        of_caller || of_baggage || self.remove.contains(name) || (self.trace && WRITTEN.contains(name)) || has_prefix()
    }

    /// Edit the fields of a response, or of a request before what only a request has.
    pub fn apply(&self, headers: &mut Headers) {
        let listed = if self.hop_by_hop { listed(headers) } else { Vec::new() };
        headers.retain(|name| self.keeps(name, &listed));
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for (name, members) in &self.members {
            if let Some(missing) = missing(headers, name, members) {
                headers.append(name, missing);
            }
        }
    }

    /// Edit the fields of an answer to who asked.
    pub fn answer(&self, headers: &mut Headers, asked: &Head, span: Option<&Span>) {
        self.apply(headers);
        if let (true, Some(span)) = (self.tells_trace && !headers.contains_key(TRACEPARENT), span) {
            headers.append(TRACEPARENT, span.traceparent());
        }
        for name in &self.echoes {
            if !headers.contains_key(name) {
                asked.headers.get_all(name).for_each(|value| headers.append(name, value.clone()));
            }
        }
    }

    fn keeps(&self, name: &HeaderName, listed: &[HeaderName]) -> bool {
        let name = &*spelled(name);
        let of_hop = self.hop_by_hop && (is_hop_by_hop(name) || listed.contains(name));
        !of_hop && !self.takes(name)
    }

    /// Edits for the fields of this hop alone.
    pub fn of_hop() -> Self {
        Self { hop_by_hop: true, ..Self::default() }
    }

    /// The same with what authorizers remove, set and add: that is not sent as the caller, or the Plan, has it.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let mut made = self.clone();
        made.add.retain(|(name, _)| !others.remove.contains(&*spelled(name)));
        made.remove.extend(others.remove.iter().cloned());
        made.add.extend(others.add.iter().cloned());
        made
    }

    /// Whether nothing is removed, set or added.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// What a call of gRPC-Web came as that becomes one of gRPC.
    pub fn sent_as<'a>(&self, head: &'a Head) -> Option<&'a HeaderValue> {
        if self.grpc_web { grpc_web::content_type(head) } else { None }
    }

    /// The fields of a request to send on. `left`: of the call's time, if it has a limit.
    pub fn request(&self, head: &Head, span: &Span, left: Option<Duration>) -> Headers {
        let web = self.sent_as(head);
        let grpc = head.protocol == Protocol::Grpc || web.is_some();
        let timed = self.deadline && grpc;
        let listed = if self.hop_by_hop { listed(&head.headers) } else { Vec::new() };
        let mut headers = Headers::with_capacity(head.headers.len() + self.add.len() + WRITTEN.len() + 2);
        for (name, value) in head.headers.iter() {
            if self.keeps(name, &listed) && !(timed && *name == GRPC_TIMEOUT) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(sent_as) = web {
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, grpc_web::as_grpc(sent_as));
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        if let (true, Some(caller)) = (self.caller, &head.entry.caller) {
            headers.append(CALLER_APP_ID, caller.app_id.clone());
            headers.append(CALLER_NAMESPACE, caller.namespace.clone());
        }
        if grpc {
            headers.append(header::TE, HeaderValue::from_static("trailers"));
        }
        if self.trace {
            headers.append(TRACEPARENT, span.traceparent());
            if grpc || head.headers.contains_key(GRPC_TRACE_BIN) {
                headers.append(GRPC_TRACE_BIN, span.grpc_trace_bin());
            }
        }
        if self.baggage {
            let is_allowed = |key: &[u8]| self.baggage_keys.as_ref().is_none_or(|keys| keys.iter().any(|one| one == key));
            let (_, sound) = baggage::read_allowed(&head.headers, is_allowed);
            if let Some(sound) = HeaderValue::from_bytes(&sound).ok().filter(|sound| !sound.is_empty()) {
                headers.append(BAGGAGE, sound);
            }
        }
        match left {
            Some(left) if timed => headers.append(GRPC_TIMEOUT, format_grpc_timeout(left)),
            Some(left) if self.deadline && head.protocol != Protocol::Websocket => deadlines::tell(&mut headers, left),
            _ => {}
        }
        headers
    }

    /// The target to send on.
    pub fn target(&self, head: &Head) -> Bytes {
        let path = match &self.moved_to {
            Some(path) => Cow::Borrowed(&**path),
            None if self.path == Form::Sent && self.base.is_empty() => return head.target.clone(),
            None => Cow::Owned(target::as_forwarded(&head.path, self.path).into_owned().into_bytes()),
        };
        let path = if self.base.is_empty() { path } else { Cow::Owned(behind(&self.base, &path)) };
        if head.query.is_empty() {
            return Bytes::copy_from_slice(&path);
        }
        let joint: &[u8] = if path.contains(&b'?') { b"&" } else { b"?" };
        [&path, joint, &head.query].concat().into()
    }
}

/// A target below a base; what of it is a query stays.
fn behind(base: &str, target: &[u8]) -> Vec<u8> {
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let path = String::from_utf8_lossy(&target[..end]);
    [target::below(base, &path).as_bytes(), &target[end..]].concat()
}

/// `None` where the value is malformed (at most 8 digits and a unit; gRPC over HTTP/2, Timeout).
pub fn parse_grpc_timeout(data: &[u8]) -> Option<Duration> {
    let (unit, digits) = data.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The finest unit whose value fits in 8 digits, never zero.
pub fn format_grpc_timeout(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let (count, unit) =
        units.into_iter().find(|(count, _)| *count <= MOST).unwrap_or((u128::from(left.as_secs() / 3_600).min(MOST), 'H'));
    once(HeaderValue::try_from(format!("{}{unit}", count.max(1))).unwrap_or(HeaderValue::from_static("1n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_take_the_finest_unit_that_fits() {
        for (millis, text) in
            [(0, "1n"), (50, "50000000n"), (99, "99000000n"), (100, "100000u"), (30_000, "30000000u"), (200_000, "200000m")]
        {
            assert_eq!(format_grpc_timeout(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn grpc_timeouts_are_read_strictly() {
        assert_eq!(parse_grpc_timeout(b"50m"), Some(Duration::from_millis(50)));
        for bad in [&b""[..], b"5", b"m", b"123456789n", b"-1S", b"1x", b"1 S"] {
            assert_eq!(parse_grpc_timeout(bad), None);
        }
    }

    #[test]
    fn what_goes_from_a_head_goes_from_trailers_in_either_spelling() {
        let edits = Edits { prefixes: vec!["dapr-".into()], trace: true, ..Edits::default() };
        let mut sent = Headers::new();
        for name in ["grpc-status", "dapr_caller_app_id", "traceparent", "connection", "x_y"] {
            sent.append(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        let left = trailers(Some(&edits), sent.clone()).unwrap();
        assert_eq!(left.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["grpc-status", "x_y"]);
        assert_eq!(trailers(None, sent).unwrap().len(), 4);
    }

    #[test]
    fn edits_remove_then_add_and_drop_what_connection_lists() {
        let edits = Edits {
            hop_by_hop: true,
            remove: vec![HeaderName::from_static("x-set")],
            prefixes: vec!["postern-".into()],
            add: vec![(HeaderName::from_static("x-set"), HeaderValue::from_static("new"))],
            ..Edits::default()
        };
        let mut headers = Headers::new();
        for (name, value) in [
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("x-set", "old"),
            ("postern-a", "1"),
            ("te", "gzip"),
            ("x", "y"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        edits.apply(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("x", "y"), ("x-set", "new")]);
    }
}
