//! Header fields in the order in which they came: `http::HeaderMap` groups those of one name, and hashes what a scan finds sooner.

use std::borrow::Borrow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

static OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// What a 426 must say (RFC 9110 §15.5.22), between the two HTTP/1.1 ends of a call: Upgrade itself goes no further than one hop.
pub const UPGRADE: HeaderName = HeaderName::from_static("postern-upgrade");
/// The status of an app that goes on in HTTP where it was offered a WebSocket: over HTTP/2 a 2xx accepts (RFC 8441 §5), so 501 stands for it.
pub const DECLINED: HeaderName = HeaderName::from_static("postern-declined");
pub static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether a field belongs to one connection, so that no message on HTTP/2 holds it (RFC 9113 §8.2.2).
pub fn is_of_connections(name: &HeaderName) -> bool {
    OF_CONNECTIONS.contains(name)
}

/// Whether a field goes no further than the next hop, on any connection (RFC 9110 §7.6.1, RFC 7540 §3.2.1).
pub fn is_of_hop(name: &HeaderName) -> bool {
    is_of_connections(name) || *name == HTTP2_SETTINGS
}

/// Fields, names lower-case, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

/// The values of one name, in order.
pub struct Values<'a> {
    fields: std::slice::Iter<'a, (HeaderName, HeaderValue)>,
    name: HeaderName,
}

impl Values<'_> {
    /// As `http::HeaderMap` has it.
    #[must_use]
    #[allow(clippy::iter_without_into_iter)] // it is the iterator itself
    pub fn iter(&self) -> Self {
        Self { fields: self.fields.clone(), name: self.name.clone() }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a HeaderValue;

    fn next(&mut self) -> Option<Self::Item> {
        self.fields.by_ref().find(|(name, _)| *name == self.name).map(|(_, value)| value)
    }
}

impl DoubleEndedIterator for Values<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.fields.by_ref().rfind(|(name, _)| *name == self.name).map(|(_, value)| value)
    }
}

impl Headers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, with room.
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a name.
    pub fn get(&self, name: impl Borrow<HeaderName>) -> Option<&HeaderValue> {
        let name = name.borrow();
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of a name.
    pub fn get_all(&self, name: impl Borrow<HeaderName>) -> Values<'_> {
        Values { fields: self.0.iter(), name: name.borrow().clone() }
    }

    /// Whether a name is among them.
    pub fn contains_key(&self, name: impl Borrow<HeaderName>) -> bool {
        self.get(name).is_some()
    }

    /// Put a field last.
    pub fn append(&mut self, name: impl Into<HeaderName>, value: HeaderValue) {
        self.0.push((name.into(), value));
    }

    /// Put a field last, instead of those of its name.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.0.push((name, value));
    }

    /// Have all fields of a name this value.
    pub fn set_each(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.iter_mut().filter(|(known, _)| known == name).for_each(|(_, known)| known.clone_from(value));
    }

    /// Take a name out; its first value.
    pub fn remove(&mut self, name: impl Borrow<HeaderName>) -> Option<HeaderValue> {
        let name = name.borrow();
        let first = self.get(name).cloned();
        if first.is_some() {
            self.0.retain(|(known, _)| known != name);
        }
        first
    }

    /// Leave the fields whose names `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&HeaderName) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Each field.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        let mut headers = Self::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            last = name.or(last);
            if let Some(name) = &last {
                headers.append(name, value);
            }
        }
        headers
    }
}

impl From<Headers> for HeaderMap {
    fn from(headers: Headers) -> Self {
        let mut map = Self::with_capacity(headers.len());
        for (name, value) in headers.0 {
            map.append(name, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn fields_keep_their_order() {
        let mut all = headers(&[("a", "1"), ("x", "2"), ("b", "3"), ("a", "4")]);
        all.retain(|name| name != "x");
        all.append(HeaderName::from_static("b"), HeaderValue::from_static("5"));
        assert_eq!(all, headers(&[("a", "1"), ("b", "3"), ("a", "4"), ("b", "5")]));
        all.insert(HeaderName::from_static("a"), HeaderValue::from_static("6"));
        assert_eq!(all, headers(&[("b", "3"), ("b", "5"), ("a", "6")]));
        assert_eq!(all.remove(HeaderName::from_static("b")).unwrap(), "3");
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn values_of_one_name_are_all_found() {
        let all = headers(&[("a", "1"), ("x", "2"), ("a", "4")]);
        let found: Vec<_> = all.get_all(HeaderName::from_static("a")).iter().cloned().collect();
        assert_eq!(found, ["1", "4"]);
        assert_eq!(Headers::from(HeaderMap::from(all.clone())).len(), 3);
    }
}
