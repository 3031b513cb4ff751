//! Pushed path tables and header sets, and what a head has in a facet.
//!
//! An answer is written as bytes into a buffer that is reused, so that looking a Plan up allocates nothing. Answers may tell heads
//! apart that the decider would not; never the other way round.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use http::HeaderName;

use crate::decision::access::{AccessTable, Class};
use crate::decision::baggage;
use crate::decision::path_readings::is_ambiguous;
use crate::decision::plan::Read;
use crate::decision::target::{Form, as_forwarded, clean, invoked};
use crate::decision::templates::TemplateTable;
use crate::fields::Headers;
use crate::head::Head;

const MAX_KEY_BYTES: usize = 256; // of a naming value; deciders read a longer one as LONG too, see `proxy/contract/plan.py`
const MAX_METHOD_BYTES: usize = 32;
const MAX_REMEMBERED_BYTES: usize = 512 * 1024; // paths that only the decider can read, of all tables, twice: the newer half and the older
const ENTRY_BYTES: usize = 64; // what an entry takes besides its path, about
/// Ignores the pad bits, as Python's decoder does: what is an app-id there must be one here, or its decision is found for calls without any.
const LENIENT: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));
const BLOCKS: [&str; 14] = [
    "state",
    "publish",
    "subscribe",
    "bindings",
    "secrets",
    "actors",
    "workflows",
    "configuration",
    "lock",
    "unlock",
    "crypto",
    "subtlecrypto",
    "jobs",
    "conversation",
];

/// How the paths of a pushed table are told apart.
#[derive(Clone, Debug)]
pub enum PathTable {
    /// The app's side: which API, or which app is invoked; see `OutPaths` in `proxy/deciding/callee.py`.
    OutPaths,
    /// The service of a gRPC path; see `Services` in `proxy/deciding/callee.py`.
    Services,
    /// A caller's access rules, on the path in this form.
    Access { table: Arc<AccessTable>, form: Form },
    /// The templates of access policies, on the path in this form.
    Templates { table: Arc<TemplateTable>, form: Form },
    /// Only the decider can tell.
    Opaque,
}

impl PathTable {
    /// Write the class of a path into `out`; false where only the decider can tell.
    pub fn class(&self, path: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Self::OutPaths => out_paths(path, out),
            Self::Services => out.extend_from_slice(service(path).as_bytes()),
            Self::Access { table, form } => return access(table, &as_forwarded(path, *form), out),
            Self::Templates { table, form } => templates(table, &as_forwarded(path, *form), out),
            Self::Opaque => return false,
        }
        true
    }
}

/// Classes of paths that only the decider can read, by table and path, in two generations; a path that neither knows is asked for again.
#[derive(Debug, Default)]
struct Remembered {
    newer: Generation,
    older: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    classes: HashMap<u32, HashMap<Box<str>, u64>>,
    bytes: usize,
}

impl Remembered {
    fn get(&self, table: u32, path: &str) -> Option<u64> {
        [&self.newer, &self.older].into_iter().find_map(|half| half.classes.get(&table)?.get(path)).copied()
    }

    fn put(&mut self, table: u32, path: &str, class: u64) {
        let bytes = path.len() + ENTRY_BYTES;
        if self.newer.bytes + bytes > MAX_REMEMBERED_BYTES {
            self.older = std::mem::take(&mut self.newer);
        }
        if self.newer.classes.entry(table).or_default().insert(path.into(), class).is_none() {
            self.newer.bytes += bytes;
        }
    }

    /// Forget a table; its bytes count on until their generation goes.
    fn forget(&mut self, table: u32) {
        self.newer.classes.remove(&table);
        self.older.classes.remove(&table);
    }
}

/// What was pushed, by number.
#[derive(Debug, Default)]
pub struct Tables {
    paths: HashMap<u32, PathTable, foldhash::fast::RandomState>,
    sets: HashMap<u32, Arc<HashSet<Box<[u8]>>>>,
    remembered: Remembered,
}

impl Tables {
    /// Add or replace a path table.
    pub fn put_paths(&mut self, number: u32, table: PathTable) {
        self.remembered.forget(number);
        self.paths.insert(number, table);
    }

    /// Add or replace a header set.
    pub fn put_set(&mut self, number: u32, members: Arc<HashSet<Box<[u8]>>>) {
        self.sets.insert(number, members);
    }

    /// Remember what the decider said of a path.
    pub fn learn(&mut self, number: u32, path: &str, class: u64) {
        let is_told = self.paths.get(&number).is_some_and(|table| !table.class(path, &mut Vec::new()));
        if is_told {
            self.remembered.put(number, path, class);
        }
    }

    /// Write what `head` has in the facet into `out`; false where only the decider can tell.
    pub fn answer(&self, read: &Read, head: &Head, out: &mut Vec<u8>) -> bool {
        match read {
            Read::Listener => out.extend_from_slice(head.entry.listener.as_bytes()),
            Read::Protocol => out.push(head.protocol as u8),
            Read::Framing => out.push(head.framing as u8),
            Read::Method if head.method.len() > MAX_METHOD_BYTES => out.push(b'*'),
            Read::Method => out.extend_from_slice(&head.method),
            // In characters, as deciders measure it: what they read whole must be a key as a whole.
            Read::Authority if head.authority.chars().nth(MAX_KEY_BYTES).is_some() => out.push(1),
            Read::Authority => whole(Some(head.authority.as_bytes()), out),
            Read::Form => out.push(u8::from(head.absolute)),
            Read::Peer => whole(head.entry.peer.as_deref().map(str::as_bytes), out),
            Read::Path(number) => return self.class(*number, &head.path, out),
            Read::Naming(name) => naming(&head.headers, name, out),
            Read::Member(name, number) => out.push(u8::from(self.is_member(head, name, *number))),
            Read::Baggage(None) => out.extend_from_slice(baggage::fault(&head.headers, |_| true).as_bytes()),
            Read::Baggage(Some(number)) => {
                let is_allowed = |key: &[u8]| self.sets.get(number).is_some_and(|set| set.contains(key));
                out.extend_from_slice(baggage::fault(&head.headers, is_allowed).as_bytes());
            }
            Read::Carries(number) => out.push(u8::from(self.sets.get(number).is_some_and(|set| carries(&head.headers, set)))),
        }
        true
    }

    fn is_member(&self, head: &Head, name: &HeaderName, number: u32) -> bool {
        let Some(set) = self.sets.get(&number) else { return false };
        head.headers.get_all(name).iter().any(|value| set.contains(value.as_bytes()))
    }

    fn class(&self, number: u32, path: &str, out: &mut Vec<u8>) -> bool {
        let Some(table) = self.paths.get(&number) else { return false };
        table.class(path, out) || self.remembered.get(number, path).inspect(|class| write_told(*class, out)).is_some()
    }
}

/// Whether a field matches a pattern; see `carries` in `proxy/contract/plan.py`.
pub fn carries<S>(headers: &Headers, patterns: &HashSet<Box<[u8]>, S>) -> bool {
    headers.iter().any(|(name, value)| {
        let word = [name.as_str().as_bytes(), b": ", &first_word(value.as_bytes())].concat();
        patterns.iter().any(|pattern| {
            let (name, word) = (name.as_str().as_bytes(), &word[..]);
            match pattern.strip_suffix(b"*") {
                Some(start) => name.starts_with(start) || word.starts_with(start),
                None => name == &**pattern || word == &**pattern,
            }
        })
    })
}

/// Up to a space, `;` or `,`, lower-case.
fn first_word(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| matches!(byte, b';' | b',' | b'\t' | b' ')).unwrap_or(value.len());
    value[..end].to_ascii_lowercase()
}

/// The class of a path under access rules, or those of its readings, each with its length: no two lists are written alike.
fn access(table: &AccessTable, path: &str, out: &mut Vec<u8>) -> bool {
    if !is_ambiguous(path.as_bytes()) {
        return table.classify(path).inspect(|class| write(class, out)).is_some();
    }
    let Some(classes) = table.classes(path) else { return false };
    out.push(3);
    for class in classes {
        let start = out.len() + 4;
        out.extend_from_slice(&[0; 4]);
        write(&class, out);
        let length = (out.len() - start) as u32;
        out[start - 4..start].copy_from_slice(&length.to_le_bytes());
    }
    true
}

/// The templates that the readings of a path meet, each list with its length.
fn templates(table: &TemplateTable, path: &str, out: &mut Vec<u8>) {
    let Some(classes) = table.classes(path) else { return out.push(0) };
    out.push(1);
    for met in classes {
        out.extend_from_slice(&(met.len() as u32).to_le_bytes());
        out.extend(met.iter().flat_map(|number| number.to_le_bytes()));
    }
}

fn write(class: &Class, out: &mut Vec<u8>) {
    let Class::Met(walked, found) = class else { return out.push(0) };
    out.push(1);
    out.extend_from_slice(&walked.map_or(0, |rule| rule + 1).to_le_bytes());
    for candidate in found {
        out.extend_from_slice(&(candidate.rule * 2 + u32::from(candidate.is_parent)).to_le_bytes());
    }
}

fn write_told(class: u64, out: &mut Vec<u8>) {
    out.push(2);
    out.extend_from_slice(&class.to_le_bytes());
}

fn naming(headers: &Headers, name: &HeaderName, out: &mut Vec<u8>) {
    let value = headers.get(name).map(http::HeaderValue::as_bytes);
    if *name == http::header::AUTHORIZATION {
        bounded(value.and_then(basic_app_id).as_deref(), out);
    } else {
        bounded(value, out);
    }
}

fn bounded(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(long) if long.len() > MAX_KEY_BYTES => out.push(1),
        value => whole(value, out),
    }
}

fn whole(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(2);
            out.extend_from_slice(value);
        }
    }
}

/// X of `Basic base64("dapr-app-id:X")`; any other credentials read as absent. See `proxy/contract/plan.py`.
fn basic_app_id(credentials: &[u8]) -> Option<Vec<u8>> {
    let space = credentials.iter().position(|byte| *byte == b' ')?;
    let (scheme, encoded) = credentials.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let text = LENIENT.decode(encoded.trim_ascii()).ok()?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    let app_id = &text[colon + 1..];
    (text[..colon].eq_ignore_ascii_case(b"dapr-app-id") && !app_id.contains(&b':')).then(|| app_id.to_vec())
}

fn out_paths(path: &str, out: &mut Vec<u8>) {
    if let Some((app, _)) = invoked(path) {
        out.push(b'i');
        out.extend_from_slice(app.as_bytes());
        return;
    }
    let path = clean(path);
    let Some(after) = path.strip_prefix("/v1.0") else {
        out.push(b'a');
        return;
    };
    match after {
        "/healthz" => out.push(1),
        "/healthz/outbound" => out.push(2),
        "/metadata" => out.push(3),
        "/shutdown" => out.push(4),
        _ if after.strip_prefix("/metadata/").is_some_and(|key| !key.contains('/')) => out.push(5),
        _ => match block(after) {
            Some(block) => {
                out.push(b'b');
                out.extend_from_slice(block.as_bytes());
            }
            None if after.is_empty() || after.starts_with('/') => out.push(b'v'),
            None => out.push(b'a'),
        },
    }
}

/// The building block of Dapr's that a path is one of; see `proxy/deciding/building_blocks.py`.
fn block(after: &str) -> Option<&str> {
    let rest = ["/", "-alpha1/", "-alpha2/", "-beta1/"].iter().find_map(|version| after.strip_prefix(version))?;
    let name = rest.split('/').next()?;
    BLOCKS.contains(&name).then_some(name)
}

/// The service of `/package.Service/Method`, else "".
fn service(path: &str) -> &str {
    let is_name = |text: &str| {
        !matches!(text, "" | "." | "..") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
    };
    match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((service, method)) if is_name(service) && is_name(method) && service.len() <= MAX_KEY_BYTES => service,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Naming {
        why: String,
        path: String,
        class: Vec<String>,
        app_as_sent: Option<String>,
    }

    #[test]
    fn paths_of_the_apps_side_fall_into_their_classes() {
        for case in vectors::read::<Naming>("targets", "naming") {
            let mut found = Vec::new();
            out_paths(&case.path, &mut found);
            let wanted = match &case.class.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["app"] => "a".to_owned(),
                ["v1"] => "v".to_owned(),
                ["api", "healthz"] => "\x01".to_owned(),
                ["api", "outbound"] => "\x02".to_owned(),
                ["api", "metadata"] => "\x03".to_owned(),
                ["api", "shutdown"] => "\x04".to_owned(),
                ["api", "metadata-key"] => "\x05".to_owned(),
                ["block", block] => format!("b{block}"),
                // As sent: apps that are the same once decoded may be told apart here.
                ["invoke", app] => format!("i{}", case.app_as_sent.as_deref().unwrap_or(app)),
                other => panic!("{}: {other:?}", case.why),
            };
            assert_eq!(String::from_utf8(found).unwrap(), wanted, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NamingHeader {
        why: String,
        name: String,
        values: Vec<Text>,
        found: Option<Text>,
    }

    #[test]
    fn naming_headers_are_told_apart_as_they_are_read() {
        for case in vectors::read::<NamingHeader>("fields", "naming") {
            let headers = vectors::headers(case.values.iter().map(|value| (&*case.name, value)));
            let mut found = Vec::new();
            naming(&headers, &HeaderName::try_from(&case.name).unwrap(), &mut found);
            let wanted = match case.found.map(|text| text.octets()) {
                None => vec![0],
                Some(text) if text == b"\0long" => vec![1],
                Some(text) => [b"\x02", &text[..]].concat(),
            };
            assert_eq!(found, wanted, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Matching {
        why: String,
        patterns: Vec<Text>,
        fields: Vec<(String, Text)>,
        carries: bool,
    }

    #[test]
    fn patterns_are_names_or_names_with_their_first_word() {
        for case in vectors::read::<Matching>("fields", "carries") {
            let headers = vectors::headers(case.fields.iter().map(|(name, value)| (&**name, value)));
            let patterns: HashSet<Box<[u8]>> = case.patterns.iter().map(|pattern| pattern.octets().into()).collect();
            assert_eq!(carries(&headers, &patterns), case.carries, "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Services {
        why: String,
        path: Text,
        service: Text,
    }

    #[test]
    fn services_are_those_of_grpc_paths() {
        for case in vectors::read::<Services>("targets", "services") {
            assert_eq!(service(&case.path.spelt()), case.service.spelt(), "{}", case.why);
        }
    }

    #[test]
    fn remembered_paths_are_bounded_in_bytes_over_all_tables() {
        let mut known = Remembered::default();
        for number in 0..200_000_u64 {
            known.put((number % 7) as u32, &format!("/{number}/{}", "x".repeat((number % 5_000) as usize)), number);
            assert!(known.newer.bytes <= MAX_REMEMBERED_BYTES && known.older.bytes <= MAX_REMEMBERED_BYTES);
        }
        let held = [&known.newer, &known.older].into_iter().flat_map(|half| half.classes.values()).flat_map(HashMap::keys);
        assert!(held.map(|path| path.len() + ENTRY_BYTES).sum::<usize>() <= 2 * MAX_REMEMBERED_BYTES);
        assert_eq!(known.get(0, "/0/"), None);
        assert_eq!(known.get(199_999 % 7, &format!("/199999/{}", "x".repeat(4_999))), Some(199_999));
        known.put(1, &"y".repeat(65_536), 1);
        assert_eq!(
            known.get(1, &"y".repeat(65_536)),
            Some(1),
            "any path that was just told is known, or a call would ask for ever"
        );
        known.forget(1);
        assert_eq!(known.get(1, &"y".repeat(65_536)), None);
    }
}
