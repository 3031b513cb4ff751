//! What arrived: a request head in the form that deciding and carrying read.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::decision::target;
use crate::fields::Headers;

/// The listener where the translator of daprds' calls calls back.
const FROM_DAPRD: &str = "daprd-in";
const MAX_ADDRESS: usize = 64;

/// How the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    Websocket,
}

impl Protocol {
    /// As `proxy/contract/plan.py` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Websocket => "websocket",
        }
    }
}

/// How much body follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length,
    Stream,
}

impl Framing {
    /// As `proxy/contract/plan.py` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Length => "length",
            Self::Stream => "stream",
        }
    }
}

/// A head as a wire end read it; see `RawHead` in `portable/streams.py`.
#[derive(Debug)]
pub struct RawHead {
    pub protocol: Protocol,
    pub method: Bytes,
    pub authority: Bytes,
    pub target: Bytes,
    pub headers: Headers,
    pub framing: Framing,
    pub length: Option<u64>,
}

/// Where a connection came in.
#[derive(Clone, Debug)]
pub struct Entry {
    pub listener: Arc<str>,
    pub peer: Option<Arc<str>>,
    pub caller: Option<Arc<Caller>>,
    pub address: Arc<str>,
}

impl Entry {
    /// Who is at the other end, for people.
    pub fn who(&self) -> Arc<str> {
        match &self.peer {
            Some(peer) => format!("{peer} at {}", self.address).into(),
            None if self.address.is_empty() => format!("a caller on the socket of {}", self.listener).into(),
            None => format!("a caller at {} on {}", self.address, self.listener).into(),
        }
    }
}

/// Whom a peer's certificate names, as an app is told.
#[derive(Debug)]
pub struct Caller {
    pub app_id: HeaderValue,
    pub namespace: HeaderValue,
}

impl Caller {
    /// Of `spiffe://<trust domain>/ns/<namespace>/<app-id>`, as read in the handshake.
    pub fn of(peer: &str) -> Option<Self> {
        let mut parts = peer.rsplitn(3, '/');
        let app_id = HeaderValue::from_str(parts.next()?).ok()?;
        let namespace = HeaderValue::from_str(parts.next()?).ok()?;
        Some(Self { app_id, namespace })
    }
}

/// A head with its path as sent, of gRPC the whole target; see `RequestHead` in `proxy/contract/plan.py`. `headers` leave with the last attempt.
#[derive(Debug)]
pub struct Head {
    pub entry: Entry,
    daprd: Option<String>,
    pub protocol: Protocol,
    pub framing: Framing,
    pub method: Bytes,
    pub authority: String,
    pub raw_authority: Bytes,
    pub target: Bytes,
    pub path: String,
    pub query: Bytes,
    pub headers: Headers,
    pub length: Option<u64>,
    pub absolute: bool,
}

impl Head {
    /// Who calls, as gates tell callers apart: see `RequestHead.who`.
    pub fn who(&self) -> &str {
        self.daprd.as_deref().or(self.entry.peer.as_deref()).unwrap_or(&self.entry.address)
    }

    /// What reports tell of it with this path, without the memory that it came in.
    #[must_use]
    pub fn told(&self, path: String) -> Self {
        Self {
            entry: self.entry.clone(),
            daprd: None,
            protocol: self.protocol,
            framing: self.framing,
            method: Bytes::copy_from_slice(&self.method),
            authority: String::new(),
            raw_authority: Bytes::new(),
            target: Bytes::new(),
            path,
            query: Bytes::new(),
            headers: Headers::new(),
            length: self.length,
            absolute: self.absolute,
        }
    }
}

/// Whose call it is that comes back from its translator: the daprd's id, else the address that it says.
fn daprd(headers: &Headers) -> String {
    if let Some(proven) = headers.get(HeaderName::from_static("postern-peer")) {
        return latin1(proven.as_bytes());
    }
    let said = headers.get_all(HeaderName::from_static("x-forwarded-for")).iter().last();
    let last = said.and_then(|said| said.as_bytes().rsplit(|byte| *byte == b',').next()).unwrap_or_default().trim_ascii();
    if last.len() <= MAX_ADDRESS { latin1(last) } else { String::new() }
}

/// Each byte a character, as Python's latin-1.
pub fn latin1(data: &[u8]) -> String {
    data.iter().copied().map(char::from).collect()
}

fn lowered(authority: &[u8]) -> String {
    match std::str::from_utf8(authority) {
        Ok(text) if text.is_ascii() => text.to_ascii_lowercase(),
        _ => latin1(authority).to_lowercase(),
    }
}

/// The head, and why it is refused (its path is `/` then).
pub fn read(raw: RawHead, entry: Entry) -> (Head, Option<String>) {
    let (mut refusal, mut found) = (None, None);
    if raw.method.is_empty() || raw.method.iter().any(u8::is_ascii_lowercase) {
        refusal =
            Some(format!("the method '{}' is not upper-case; methods are case-sensitive (RFC 9110 §9.1)", latin1(&raw.method)));
    } else if &raw.target[..] == b"*" && &raw.method[..] != b"OPTIONS" {
        refusal = Some("the target '*' is for OPTIONS alone (RFC 9112 §3.2.4)".to_owned());
    } else if &raw.method[..] != b"CONNECT" {
        match target::parse(&raw.target) {
            Ok(target) => found = Some(target),
            Err(reason) => refusal = Some(reason.to_owned()),
        }
    }
    let found = found.unwrap_or(target::Target { path: "/".into(), query: 0..0, offset: 0, authority: 0..0 });
    let (mut sent, mut authority) = (raw.target.clone(), raw.authority.clone());
    if found.offset > 0 {
        sent = raw.target.slice(found.offset..);
        if sent.first() != Some(&b'/') {
            sent = [b"/", &sent[..]].concat().into();
        }
        authority = raw.target.slice(found.authority.clone());
    }
    let path = if raw.protocol == Protocol::Grpc && refusal.is_none() {
        String::from_utf8_lossy(&sent).into_owned() // a gRPC server compares bytes: there the whole target is the path, or it is none
    } else {
        found.path
    };
    let daprd = (&*entry.listener == FROM_DAPRD).then(|| daprd(&raw.headers));
    let head = Head {
        entry,
        daprd,
        protocol: raw.protocol,
        framing: raw.framing,
        authority: lowered(&authority),
        raw_authority: raw.authority,
        target: sent,
        query: raw.target.slice(found.query),
        path,
        method: raw.method,
        headers: raw.headers,
        length: raw.length,
        absolute: found.offset > 0,
    };
    (head, refusal)
}

/// Whether a content type is gRPC's; gRPC-Web's, which begins alike, is HTTP's.
pub fn is_grpc(headers: &Headers) -> bool {
    let rest = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t')))
}
