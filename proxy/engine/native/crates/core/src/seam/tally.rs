//! Finished calls of one kind, added up until somebody takes them: so that a call which nobody wants to see by itself costs the other
//! side nothing. Which kinds there are: by labels, protocol, method, answer, for gRPC the path, and for HTTP where it is asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::call::cause::Cause;
use crate::call::not_retried::NotRetried;
use crate::decision::plan::Token;
use crate::decision::trace::{Context, Span};
use crate::head::Protocol;
use crate::seam::ask::Outcome;

const MAX_KINDS: usize = 4_096; // between two visits; calls of further kinds are told one by one
const MAX_PATHS: usize = 512; // that are told apart at all; then a path is `other` (3 KB each, in all that counts them)
const MAX_PATH_BYTES: usize = 256;
const MAX_METHOD_BYTES: usize = 16; // none that metrics tell apart is longer

/// Upper bounds of the buckets that calls are counted in, as the metrics have them.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub duration_s: Vec<f64>,
    pub latency_ms: Vec<f64>,
    pub size_bytes: Vec<f64>,
    pub http_paths: HttpPaths,
    /// Until its answer, from which on a call is slow; 0: none is.
    pub slow_ns: u64,
}

/// Whether HTTP calls are told apart by path: not at all, or the first `MAX_PATHS` of them; then a path is `other`, or its call told alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpPaths {
    #[default]
    None,
    First,
    All,
}

/// A histogram: a count per bucket (the last is everything above), and the sum.
#[derive(Debug, Clone)]
pub struct Counts {
    pub counts: Vec<u32>,
    pub sum: f64,
}

impl Counts {
    fn new(bounds: &[f64]) -> Self {
        Self { counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// The bucket of a value that is counted. Bounds are inclusive.
    fn add(&mut self, bounds: &[f64], value: f64) -> usize {
        let is_first = bounds.first().is_none_or(|first| value <= *first); // most sizes, and latencies on one host
        let bucket = if is_first { 0 } else { bounds.partition_point(|bound| *bound < value) };
        self.counts[bucket] += 1;
        self.sum += value;
        bucket
    }
}

/// A sampled call, as `Exemplar` in `proxy/contract/outcome.py`.
#[derive(Debug, Clone, Copy)]
pub struct Exemplar {
    pub trace_id: u128,
    pub span_id: u64,
    pub took_ns: u64,
    pub ended_ns: u64,
}

/// What calls of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    pub labels: u64,
    pub protocol: Protocol,
    pub method: Bytes,
    pub path: Arc<str>,
    pub status: u16,
    pub grpc_code: Option<u32>,
    pub cause: Option<Cause>,
    /// By the peer's proxy, of an answer that it made.
    pub said: Option<Cause>,
    pub not_retried: Option<NotRetried>,
}

/// The calls of a kind. `token`: of the first one's decision, whose labels are those of all. Latencies to the end and `to_head_whole` are whole milliseconds, as the metrics of old count them.
/// `exemplars`: the latest sampled call in each bucket of `duration_s` that has one.
#[derive(Debug)]
pub struct Tally {
    pub token: Arc<Token>,
    pub calls: u64,
    pub duration_s: Counts,
    pub to_end_ms: Counts,
    pub to_head_ms: Counts,
    pub to_head_whole_ms: Counts,
    pub up_bytes: Counts,
    pub down_bytes: Counts,
    pub exemplars: Vec<(usize, Exemplar)>,
}

impl Tally {
    fn new(token: Arc<Token>, bounds: &Bounds) -> Self {
        let latency = Counts::new(&bounds.latency_ms);
        let size = Counts::new(&bounds.size_bytes);
        Self {
            token,
            calls: 0,
            duration_s: Counts::new(&bounds.duration_s),
            to_end_ms: latency.clone(),
            to_head_ms: latency.clone(),
            to_head_whole_ms: latency,
            up_bytes: size.clone(),
            down_bytes: size,
            exemplars: Vec::new(),
        }
    }

    fn add(&mut self, outcome: &Outcome, bounds: &Bounds) {
        let took_ns = outcome.ended_ns.saturating_sub(outcome.started_ns);
        self.calls += 1;
        let bucket = self.duration_s.add(&bounds.duration_s, took_ns as f64 / 1e9);
        if let Some(Span::Own { context: Context { trace_id, span_id, sampled: true, .. }, .. }) = outcome.span {
            let exemplar = Exemplar { trace_id, span_id, took_ns, ended_ns: outcome.ended_ns };
            match self.exemplars.iter_mut().find(|(of, _)| *of == bucket) {
                Some((_, latest)) => *latest = exemplar,
                None => self.exemplars.push((bucket, exemplar)),
            }
        }
        self.to_end_ms.add(&bounds.latency_ms, (took_ns / 1_000_000) as f64);
        if outcome.head_ns > 0 {
            let head_ns = outcome.head_ns.saturating_sub(outcome.started_ns);
            self.to_head_ms.add(&bounds.latency_ms, head_ns as f64 / 1e6);
            self.to_head_whole_ms.add(&bounds.latency_ms, (head_ns / 1_000_000) as f64);
        }
        self.up_bytes.add(&bounds.size_bytes, outcome.up_bytes as f64);
        self.down_bytes.add(&bounds.size_bytes, outcome.down_bytes as f64);
    }
}

/// The first paths that were met, so that no caller can fill the memory with others.
#[derive(Debug, Default)]
struct Paths(HashSet<Arc<str>, RandomState>);

impl Paths {
    /// The path, if it is one of the first.
    fn get(&mut self, path: &str) -> Option<Arc<str>> {
        if let Some(known) = self.0.get(path) {
            return Some(known.clone());
        }
        if self.0.len() >= MAX_PATHS || path.len() > MAX_PATH_BYTES {
            return None;
        }
        let made: Arc<str> = path.into();
        self.0.insert(made.clone());
        Some(made)
    }
}

/// Owns the sums since they were last taken, the bounds of their times, and the paths that are told apart.
#[derive(Debug)]
pub struct Tallies {
    kinds: HashMap<Kind, Tally, RandomState>,
    latency_ms: Vec<f64>,
    grpc_paths: Paths,
    http_paths: Paths,
    none: Arc<str>,
    other: Arc<str>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self {
            kinds: HashMap::default(),
            latency_ms: Vec::new(),
            grpc_paths: Paths::default(),
            http_paths: Paths::default(),
            none: "".into(),
            other: "other".into(),
        }
    }
}

impl Tallies {
    /// Go by these bounds: where those of times are others, the times that were added up fit none of them and are dropped.
    pub fn fit(&mut self, bounds: &Bounds) {
        if self.latency_ms == bounds.latency_ms {
            return;
        }
        self.latency_ms.clone_from(&bounds.latency_ms);
        for tally in self.kinds.values_mut() {
            let none = Counts::new(&bounds.latency_ms);
            tally.to_end_ms = none.clone();
            tally.to_head_ms = none.clone();
            tally.to_head_whole_ms = none;
        }
    }

    /// Add a call; false where there are too many kinds or paths.
    pub fn add(&mut self, outcome: &Outcome, token: &Arc<Token>, bounds: &Bounds) -> bool {
        let head = &outcome.head;
        let is_grpc = head.protocol == Protocol::Grpc || outcome.grpc_code.is_some(); // as is a call of gRPC-Web
        let path = if !is_grpc && bounds.http_paths == HttpPaths::None {
            self.none.clone()
        } else if let Some(path) = if is_grpc { &mut self.grpc_paths } else { &mut self.http_paths }.get(&head.path) {
            path
        } else if is_grpc || bounds.http_paths == HttpPaths::First {
            self.other.clone()
        } else {
            return false;
        };
        let kind = Kind {
            labels: token.labels,
            protocol: head.protocol,
            method: if head.method.len() > MAX_METHOD_BYTES { Bytes::from_static(b"OTHER") } else { head.method.clone() },
            path,
            status: outcome.status,
            grpc_code: outcome.grpc_code,
            cause: outcome.cause,
            said: outcome.attempts.last().and_then(|attempt| attempt.said),
            not_retried: outcome.not_retried,
        };
        if let Some(tally) = self.kinds.get_mut(&kind) {
            tally.add(outcome, bounds);
            return true;
        }
        if self.kinds.len() >= MAX_KINDS {
            return false;
        }
        self.kinds.entry(kind).or_insert_with(|| Tally::new(token.clone(), bounds)).add(outcome, bounds);
        true
    }

    /// What was added since this was last asked.
    pub fn take(&mut self) -> HashMap<Kind, Tally, RandomState> {
        std::mem::take(&mut self.kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_bounded_in_number_and_length() {
        let mut paths = Paths::default();
        assert_eq!(paths.get(&"/".repeat(MAX_PATH_BYTES + 1)), None);
        for number in 0..MAX_PATHS {
            assert!(paths.get(&format!("/{number}")).is_some());
        }
        assert_eq!(paths.get("/one-more"), None);
        assert!(paths.get("/0").is_some());
    }
}
