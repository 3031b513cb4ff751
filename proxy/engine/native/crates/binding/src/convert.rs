//! Python values to the core's and back. Malformed values raise `ValueError`, never panic.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use postern_core::call::breakers::{BreakerSpec, BreakerUse};
use postern_core::call::budgets::{Budget, Budgets, Rule};
use postern_core::call::cause::Cause;
use postern_core::call::choosing::{self, Balancing};
use postern_core::call::not_retried::NotRetried;
use postern_core::call::outliers::Outliers;
use postern_core::call::trips::{Operand, Program};
use postern_core::clusters::{Cluster, Tls, Upstream, Wire};
use postern_core::connection::tls::{Material, ServerName, Verified, VerifiedConfigs};
use postern_core::connection::via::Via;
use postern_core::decision::access::{self, AccessTable};
use postern_core::decision::baggage;
use postern_core::decision::edits::Edits;
use postern_core::decision::path_readings::{is_ambiguous, readings};
use postern_core::decision::plan::{Hedge, Plan, Read, ReleasedTokens, Reply, RetryPolicy, Route, Token};
use postern_core::decision::tables::{self, PathTable};
use postern_core::decision::target::{self, Form};
use postern_core::decision::templates::TemplateTable;
use postern_core::decision::trace::{self, Context, Span};
use postern_core::fields::Headers;
use postern_core::head::Head;
use postern_core::seam::lines::{Field, Piece, Wanted};
use postern_core::seam::spans;
use postern_core::seam::tally::{Counts, Exemplar, Kind, Tally};
use postern_core::seam::zipkin::{Conventions, SpanForm, SpanLabels};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// number of the decision, of its labels, the pieces of its calls' lines: (field or `text` or `header`, data), what their spans say,
/// and the sampling of new traces
type TokenParts = (u64, u64, Option<Vec<(String, Vec<u8>)>>, Option<SpanLabelParts>, i32);
/// outbound, Dapr's surface, Dapr's path form, gRPC-Web, caller, callee, decision
pub(crate) type SpanLabelParts = (bool, bool, bool, bool, String, String, String);
/// service, whether paths are hidden, how many leave together (`None`: none is written), conventions of attributes, whether they have the
/// query, keys of baggage, phrases of HTTP statuses
pub(crate) type SpansParts = (String, bool, Option<u32>, String, bool, Vec<String>, Vec<(u16, String)>);
/// JSON, least status, least length in nanoseconds, one in so many, whether paths are hidden
pub(crate) type WantedParts = (bool, u16, u64, u64, bool);
/// token, status, headers, body, grpc code, grpc message, cause, scopes, gates
pub(crate) type ReplyParts = (TokenParts, u16, Pairs, Vec<u8>, u32, String, String, Vec<String>, Vec<String>);
/// (op, name, data)
pub(crate) type EditParts = (String, Vec<u8>, Vec<u8>);
/// cluster, weight, expect, edits, gates
type RouteParts = (String, u32, Vec<String>, Vec<EditParts>, Vec<String>);
/// attempts, causes, HTTP codes, gRPC codes, within, whether it is inner, whether it heeds answers
type RetryParts = (Option<u32>, Vec<String>, Option<Vec<u16>>, Option<Vec<u32>>, Option<f64>, bool, bool);
/// name, target, form, method, whether it hears of the opening alone
type BreakerUseParts = (String, String, String, Option<String>, bool);
/// target, its share (ratio, per second, seconds), or its throttle (tokens, ratio)
type BudgetParts = (String, Option<(f64, f64, f64)>, (f64, f64));
/// policy, most requests, interval, timeout, trip, methods
pub(crate) type BreakerParts = (String, i64, f64, f64, Vec<(String, OperandParts)>, usize);

/// Python's int or float.
#[derive(FromPyObject)]
pub(crate) enum OperandParts {
    Int(i64),
    Double(f64),
}
/// connect, attempt, total
type TimeParts = (f64, Option<f64>, Option<f64>);
/// token, routes, (retries, attempts at once and after how long each), (gates, whether authorizers are asked), (breaker, budget), times, body bytes, replay bytes, reply edits, route by daprd, scopes
pub(crate) type PlanParts = (
    TokenParts,
    Vec<RouteParts>,
    (Vec<RetryParts>, Option<(usize, f64)>, bool),
    (Vec<String>, bool),
    (Option<BreakerUseParts>, Option<BudgetParts>),
    TimeParts,
    Option<u64>,
    usize,
    Vec<EditParts>,
    (bool, bool),
    Option<usize>,
    Vec<String>,
);
/// facet, header name, table, class
pub(crate) type ReadParts = (String, Vec<u8>, Option<u32>, Option<u64>);

/// kind, (pattern for the ordered reading, for the open one, verbs), whether case is folded, which form of the path counts
pub(crate) type ShapeParts = (String, Vec<(String, String, HashSet<String>)>, bool, String);

/// chain, key, roots (all PEM), and when the leaf ends, in epoch seconds
pub(crate) type IdentityParts = (Vec<u8>, Vec<u8>, Vec<u8>, f64);
/// name, roots, chain, key
type VerifiedParts = (String, Vec<u8>, Vec<u8>, Vec<u8>);
/// address, Proxy-Authorization, how it proves itself
type ViaParts = (String, Vec<u8>, Option<VerifiedParts>);
/// key, wire, TLS, upstreams by address, weight and rank, what is at them, what is before them, how calls are spread,
/// outliers
pub(crate) type ClusterParts =
    (String, String, Option<TlsParts>, Vec<(String, u32, u8)>, String, Option<ViaParts>, BalancingParts, Option<OutlierParts>);
/// consecutive, endpoints, requests and factor of success rates, ejection, longest ejection, most per cent, interval, slow start
type OutlierParts = (u32, usize, u32, f64, f64, f64, usize, f64, f64);
/// policy, header, key
type BalancingParts = (String, Vec<u8>, Vec<u8>);
/// How a cluster's connections are secured: `mesh`, `app`, or (name, roots, chain, key) of a server outside of the mesh.
#[derive(FromPyObject)]
pub(crate) enum TlsParts {
    Kind(String),
    Verified(String, Vec<u8>, Vec<u8>, Vec<u8>),
}

/// seconds, milliseconds, bytes, how HTTP's paths are told apart, and how long a slow call takes, in nanoseconds
pub(crate) type BoundsParts = (Vec<f64>, Vec<f64>, Vec<f64>, String, u64);

/// upper and lower half of the trace id, span id, sampled, tracestate
type RemoteParts = (u64, u64, u64, bool, String);

pub(crate) fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn name(data: &[u8]) -> PyResult<HeaderName> {
    HeaderName::from_bytes(data).map_err(invalid)
}

pub(crate) fn value(data: &[u8]) -> PyResult<HeaderValue> {
    HeaderValue::from_bytes(data).map_err(invalid)
}

pub(crate) fn cause(text: &str) -> PyResult<Cause> {
    Cause::parse(text).ok_or_else(|| invalid(format!("unknown cause {text}")))
}

fn strings(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

fn seconds(length_s: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(length_s).map_err(invalid)
}

/// Epoch seconds as a moment.
pub(crate) fn moment(epoch_s: f64) -> PyResult<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(seconds(epoch_s)?).ok_or_else(|| invalid("a moment beyond the clock's reach"))
}

fn token_of((token, labels, pieces, spans, sampling): TokenParts, released: &ReleasedTokens) -> PyResult<Arc<Token>> {
    let pieces = pieces.map(|pieces| pieces.into_iter().map(piece).collect::<PyResult<Box<[_]>>>()).transpose()?;
    let spans = spans.map(|parts| Box::new(span_labels(parts)));
    Ok(Token::telling(token, labels, pieces, spans, sampling, released.clone()))
}

pub(crate) fn span_labels((is_outbound, is_dapr, is_by_path, is_grpc_web, src, dst, decision): SpanLabelParts) -> SpanLabels {
    let (src, dst, decision) = (src.into(), dst.into(), decision.into());
    SpanLabels { is_outbound, is_dapr, is_by_path, is_grpc_web, src, dst, decision }
}

pub(crate) fn spans_wanted(
    (service, hides_paths, per_piece, conventions, captures_query, baggage, phrases): SpansParts,
) -> PyResult<spans::Wanted> {
    let conventions = Conventions::parse(&conventions).ok_or_else(|| invalid(format!("unknown conventions {conventions}")))?;
    let phrases = phrases.into_iter().collect();
    let form = SpanForm { service, hides_paths, conventions, captures_query, baggage, phrases };
    Ok(spans::Wanted { form, per_piece })
}

fn piece((kind, data): (String, Vec<u8>)) -> PyResult<Piece> {
    Ok(match kind.as_str() {
        "text" => Piece::Text(data.into_boxed_slice()),
        "header" => Piece::Header(name(&data)?),
        field => Piece::Field(Field::of(field).ok_or_else(|| invalid(format!("unknown field of lines {field}")))?),
    })
}

pub(crate) fn wanted((is_json, min_status, slower_ns, every, hides_paths): WantedParts) -> Wanted {
    Wanted { is_json, min_status, slower_ns, every, hides_paths }
}

pub(crate) fn reply(parts: ReplyParts, released: &ReleasedTokens) -> PyResult<Box<Reply>> {
    let (token, status, headers, body, grpc_code, grpc_message, of, scopes, gates) = parts;
    let token = token_of(token, released)?;
    let headers = headers.iter().map(|(key, data)| Ok((name(key)?, value(data)?))).collect::<PyResult<_>>()?;
    let (cause, body, scopes, gates) = (cause(&of)?, Bytes::from(body), strings(scopes), strings(gates));
    Ok(Box::new(Reply { token, cause, status, headers, body, grpc_code, grpc_message, scopes, gates }))
}

pub(crate) fn plan(parts: PlanParts, released: &ReleasedTokens, budgets: &Budgets) -> PyResult<Box<Plan>> {
    let (
        token,
        routes,
        (retries, hedge, denials_fail),
        (gates, asks),
        (breaker, budget),
        times,
        body_bytes,
        replay_bytes,
        reply_edits,
        upper,
        by_daprd,
        scopes,
    ) = parts;
    let (upper_request, upper_response) = upper;
    let (connect, attempt, total) = times;
    let token = token_of(token, released)?;
    let routes: Vec<_> = routes.into_iter().map(route).collect::<PyResult<_>>()?;
    if by_daprd.is_some_and(|place| place >= routes.len()) {
        return Err(invalid("by_daprd names no route"));
    }
    let retries = retries.into_iter().map(retry_policy).collect::<PyResult<_>>()?;
    let reply_edits = if reply_edits.is_empty() { None } else { Some(edits(reply_edits)?) };
    let (attempt, total) = (attempt.map(seconds).transpose()?, total.map(seconds).transpose()?);
    let (gates, scopes, connect) = (strings(gates), strings(scopes), seconds(connect)?);
    Ok(Box::new(Plan {
        token,
        routes,
        retries,
        hedge: hedge.map(|(attempts, delay_s)| Ok::<_, PyErr>(Hedge { attempts, delay: seconds(delay_s)? })).transpose()?,
        gates,
        asks,
        breaker: breaker.map(breaker_use).transpose()?,
        budget: budget.map(|parts| self::budget(parts, budgets)),
        connect,
        attempt,
        total,
        body_bytes,
        replay_bytes,
        reply_edits,
        upper_request,
        upper_response,
        by_daprd,
        denials_fail,
        scopes,
    }))
}

fn budget((target, share, (max_tokens, token_ratio)): BudgetParts, budgets: &Budgets) -> Arc<Budget> {
    let rule = match share {
        Some((ratio, min_per_s, ttl_s)) => Rule::Share { ratio, min_per_s, ttl_s },
        None => Rule::Throttle { max_tokens, token_ratio },
    };
    budgets.find(&target, rule)
}

fn breaker_use((name, target, form, method, is_opening): BreakerUseParts) -> PyResult<BreakerUse> {
    Ok(BreakerUse {
        name: name.into(),
        target: target.into(),
        form: path_form(&form)?,
        method: method.map(Into::into),
        is_opening,
    })
}

pub(crate) fn breaker((policy, max_requests, interval, timeout, trip, methods): BreakerParts) -> PyResult<BreakerSpec> {
    let operand = |parts: &OperandParts| match *parts {
        OperandParts::Int(number) => Operand::Int(number),
        OperandParts::Double(number) => Operand::Double(number),
    };
    let trip = Program::parse(trip.iter().map(|(name, parts)| (&**name, operand(parts)))).map_err(invalid)?;
    let interval = if interval > 0.0 { Some(seconds(interval)?) } else { None };
    Ok(BreakerSpec { policy, max_requests, interval, timeout: seconds(timeout)?, trip, methods })
}

pub(crate) fn cluster(parts: ClusterParts, configs: &VerifiedConfigs) -> PyResult<Cluster> {
    let (key, wire, tls_parts, upstreams, who, via_parts, spread, outlier_parts) = parts;
    let wire = match wire.as_str() {
        "postern" => Wire::Postern,
        "http1" => Wire::Http1,
        "h2c" => Wire::H2c,
        other => return Err(invalid(format!("unknown wire {other}"))),
    };
    let upstream = |(address, weight, rank): (String, _, _)| Upstream { address: address.into(), weight, rank };
    Ok(Cluster {
        key: key.into(),
        wire,
        tls: tls_parts.map_or(Ok(Tls::None), |parts| tls(parts, configs))?,
        upstreams: upstreams.into_iter().map(upstream).collect(),
        who: who.into(),
        via: via_parts.map(|parts| via(parts, configs)).transpose()?,
        balancing: balancing(spread)?,
        outliers: outlier_parts.map(outliers).transpose()?,
    })
}

fn outliers(parts: OutlierParts) -> PyResult<Outliers> {
    let (consecutive, rate_endpoints, rate_requests, rate_factor, ejection, max_ejection, max_percent, interval, slow_start) =
        parts;
    Ok(Outliers {
        consecutive,
        rate_endpoints,
        rate_requests,
        rate_factor,
        ejection: seconds(ejection)?,
        max_ejection: seconds(max_ejection)?,
        max_percent,
        interval: seconds(interval)?,
        slow_start: seconds(slow_start)?,
    })
}

fn balancing((policy, header, key): BalancingParts) -> PyResult<Balancing> {
    Ok(match policy.as_str() {
        "latency" => Balancing::Latency,
        "least-requests" => Balancing::LeastRequests,
        "round-robin" => Balancing::RoundRobin,
        "random" => Balancing::Random,
        "ring-hash" if header.is_empty() => Balancing::Hash(choosing::hash_of(&key)),
        "ring-hash" => Balancing::HashOf(name(&header)?),
        other => return Err(invalid(format!("unknown balancing {other}"))),
    })
}

fn tls(parts: TlsParts, configs: &VerifiedConfigs) -> PyResult<Tls> {
    Ok(match parts {
        TlsParts::Kind(kind) if kind == "mesh" => Tls::Mesh,
        TlsParts::Kind(kind) if kind == "app" => Tls::App,
        TlsParts::Kind(kind) => return Err(invalid(format!("unknown tls {kind}"))),
        TlsParts::Verified(name, roots, chain, key) => Tls::Verified(Arc::new(verified((name, roots, chain, key), configs)?)),
    })
}

fn verified((name, roots, chain, key): VerifiedParts, configs: &VerifiedConfigs) -> PyResult<Verified> {
    let name = ServerName::try_from(name).map_err(invalid)?;
    let config = configs.get(Material { roots, chain, key }).map_err(invalid)?;
    Ok(Verified { name, config })
}

fn via((address, authorization, tls): ViaParts, configs: &VerifiedConfigs) -> PyResult<Arc<Via>> {
    value(&authorization)?;
    let tls = tls.map(|parts| verified(parts, configs)).transpose()?;
    Ok(Arc::new(Via { address: address.into(), authorization, tls }))
}

fn route((cluster, weight, expect, ops, gates): RouteParts) -> PyResult<Route> {
    Ok(Route { cluster: cluster.into(), weight, expect: expect.into(), edits: edits(ops)?, gates: strings(gates) })
}

fn retry_policy((attempts, on, http_codes, grpc_codes, within_s, inner, heeds_answer): RetryParts) -> PyResult<RetryPolicy> {
    let mut bits = 0;
    for text in on {
        bits |= cause(&text)?.bit();
    }
    let within = within_s.map(|within_s| Duration::try_from_secs_f64(within_s).unwrap_or(Duration::MAX));
    Ok(RetryPolicy { attempts, on: bits, http_codes, grpc_codes, within, inner, heeds_answer })
}

pub(crate) fn edits(ops: Vec<EditParts>) -> PyResult<Edits> {
    let mut made = Edits::default();
    for (op, key, data) in ops {
        match op.as_str() {
            "set" => {
                made.take(&name(&key)?);
                made.add.push((name(&key)?, value(&data)?));
            }
            "add" => made.add.push((name(&key)?, value(&data)?)),
            "list" => made.members.push((name(&key)?, value(&data)?)),
            "remove" => made.take(&name(&key)?),
            "remove-prefix" => made.prefixes.push(String::from_utf8(key).map_err(invalid)?),
            "hop-by-hop" => made.hop_by_hop = true,
            "authority" => made.authority = Some(data.into()),
            "dapr-path" => made.path = path_form(&String::from_utf8_lossy(&data))?,
            "path" => made.moved_to = Some(data.into()),
            "base" => made.base = String::from_utf8(data).map_err(invalid)?,
            "caller" => made.caller = true,
            "trace" => made.trace = true,
            "deadline" => made.deadline = true,
            "grpc-web" => made.grpc_web = true,
            "http-only" => made.http_only = true,
            "baggage" => {
                made.baggage = true;
                if !key.is_empty() {
                    made.baggage_keys = Some(data.split(|byte| *byte == b',').map(Bytes::copy_from_slice).collect());
                }
            }
            "tell-trace" => made.tells_trace = true,
            "echo" => made.echoes.push(name(&key)?),
            other => return Err(invalid(format!("unknown edit {other}"))),
        }
    }
    Ok(made)
}

pub(crate) fn read((facet, key, table, class): ReadParts) -> PyResult<(Read, Option<u64>)> {
    let read = match (facet.as_str(), table) {
        ("listener", _) => Read::Listener,
        ("protocol", _) => Read::Protocol,
        ("framing", _) => Read::Framing,
        ("method", _) => Read::Method,
        ("authority", _) => Read::Authority,
        ("form", _) => Read::Form,
        ("peer", _) => Read::Peer,
        ("path", Some(table)) => Read::Path(table),
        ("header", Some(table)) => Read::Member(name(&key)?, table),
        ("baggage", table) => Read::Baggage(table),
        ("carries", Some(table)) => Read::Carries(table),
        ("header", None) => Read::Naming(name(&key)?),
        (other, _) => return Err(invalid(format!("unknown facet {other}"))),
    };
    Ok((read, class))
}

/// Header fields as Python's tuple of pairs of bytes.
pub(crate) fn pairs<'py>(py: Python<'py>, headers: &Headers) -> PyResult<Bound<'py, PyTuple>> {
    let pair = |(key, data): (&HeaderName, &HeaderValue)| {
        PyTuple::new(py, [PyBytes::new(py, key.as_str().as_bytes()), PyBytes::new(py, data.as_bytes())])
    };
    let fields: Vec<_> = headers.iter().map(pair).collect::<PyResult<_>>()?;
    PyTuple::new(py, fields)
}

/// A head as the fields of `RequestHead`, in their order; without its headers where nobody reads them.
pub(crate) fn head<'py>(py: Python<'py>, head: &Head, with_headers: bool) -> PyResult<Bound<'py, PyTuple>> {
    let method: String = head.method.iter().copied().map(char::from).collect();
    let (path, form) = (head.path.as_str(), if head.absolute { "absolute" } else { "origin" });
    let first = (
        &*head.entry.listener,
        head.protocol.name(),
        head.framing.name(),
        method,
        head.authority.as_str(),
        PyBytes::new(py, &head.target),
        path,
        PyBytes::new(py, &head.query),
        if with_headers { pairs(py, &head.headers)? } else { baggage_pairs(py, &head.headers)? },
    )
        .into_pyobject(py)?;
    let second = (head.entry.peer.as_deref(), &*head.entry.address, head.length, form).into_pyobject(py)?;
    first.add(second)?.downcast_into::<PyTuple>().map_err(PyErr::from)
}

fn baggage_pairs<'py>(py: Python<'py>, headers: &Headers) -> PyResult<Bound<'py, PyTuple>> {
    let fields = headers.get_all(baggage::BAGGAGE).map(|value| (b"baggage".as_slice(), value.as_bytes()));
    PyTuple::new(py, fields.map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect::<Vec<_>>())
}

/// For differential tests: path, query, offset, authority of a target; `ValueError` with the reason where it is refused.
#[pyfunction]
pub(crate) fn parse_target<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    let found = target::parse(data).map_err(invalid)?;
    let (query, authority) = (PyBytes::new(py, &data[found.query]), PyBytes::new(py, &data[found.authority]));
    (found.path, query, found.offset, authority).into_pyobject(py)
}

fn path_form(name: &str) -> PyResult<Form> {
    Form::of(name).ok_or_else(|| invalid(format!("unknown form of paths {name}")))
}

/// A table by how its paths are classed.
pub(crate) fn path_table((kind, rules, fold_case, form): ShapeParts) -> PyResult<PathTable> {
    Ok(match kind.as_str() {
        "out-paths" => PathTable::OutPaths,
        "services" => PathTable::Services,
        "access" => {
            let rules = rules.into_iter().map(|(ordered, open, verbs)| access::Rule { ordered, open, verbs }).collect();
            let table = Arc::new(AccessTable::new(rules, fold_case));
            PathTable::Access { table, form: path_form(&form)? }
        }
        "templates" => {
            let table = Arc::new(TemplateTable::new(rules.iter().map(|(exact, folded, _)| (exact.as_str(), folded.as_str()))));
            PathTable::Templates { table, form: path_form(&form)? }
        }
        "opaque" => PathTable::Opaque,
        other => return Err(invalid(format!("unknown table {other}"))),
    })
}

fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

/// A span as Python knows it: the number of one that it made, else the upper and lower half of the trace id, span id, parent id,
/// whether it is sampled, and its tracestate.
pub(crate) fn span<'py>(py: Python<'py>, span: Option<&Span>) -> PyResult<Bound<'py, PyAny>> {
    match span {
        None => Ok(py.None().into_bound(py)),
        Some(Span::Foreign { id, .. }) => id.into_bound_py_any(py),
        Some(Span::Own { context, tracestate }) => self::context(py, context, tracestate),
    }
}

pub(crate) fn context<'py>(py: Python<'py>, context: &Context, tracestate: &str) -> PyResult<Bound<'py, PyAny>> {
    let (upper, lower) = halves(context.trace_id);
    (upper, lower, context.span_id, context.parent_id, context.sampled, tracestate).into_bound_py_any(py)
}

/// Calls of one kind: decision of one of them, protocol, method, path, status, gRPC code, cause, what the peer said, why not retried, how many, and a histogram
/// each of duration, times to the end and to the head (this one also in whole milliseconds), bytes up and down; and sampled ones:
/// halves of the trace id, span id, duration and end in nanoseconds.
pub(crate) fn tally<'py>(py: Python<'py>, kind: &Kind, tally: Tally) -> PyResult<Bound<'py, PyTuple>> {
    let method: String = kind.method.iter().copied().map(char::from).collect();
    let counts = |counts: Counts| (counts.counts, counts.sum);
    let of_kind = (
        tally.token.id,
        kind.protocol.name(),
        method,
        &*kind.path,
        kind.status,
        kind.grpc_code,
        kind.cause.map(Cause::name),
        kind.said.map(Cause::name),
        kind.not_retried.map(NotRetried::name),
    );
    let sums = (
        counts(tally.duration_s),
        counts(tally.to_end_ms),
        counts(tally.to_head_ms),
        counts(tally.to_head_whole_ms),
        counts(tally.up_bytes),
        counts(tally.down_bytes),
    );
    let exemplar = |(_, Exemplar { trace_id, span_id, took_ns, ended_ns }): (_, Exemplar)| {
        let (upper, lower) = halves(trace_id);
        (upper, lower, span_id, took_ns, ended_ns)
    };
    let exemplars: Vec<_> = tally.exemplars.into_iter().map(exemplar).collect();
    (of_kind, tally.calls, sums, exemplars).into_pyobject(py)
}

/// For differential tests: what a table of this shape tells a path apart by; `None` where only Python can say.
#[pyfunction]
pub(crate) fn path_class<'py>(py: Python<'py>, shape: ShapeParts, path: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut class = Vec::new();
    Ok(path_table(shape)?.class(path, &mut class).then(|| PyBytes::new(py, &class)))
}

/// For differential tests: all that an app may read a path as; `None` where it can't be judged.
#[pyfunction]
pub(crate) fn path_readings(path: &str) -> Option<Vec<String>> {
    if is_ambiguous(path.as_bytes()) { readings(path) } else { Some(vec![path.to_owned()]) }
}

/// For differential tests: a path as an app finds it in this form.
#[pyfunction]
pub(crate) fn forwarded_path(path: &str, form: &str) -> PyResult<String> {
    Ok(target::as_forwarded(path, path_form(form)?).into_owned())
}

/// For differential tests: a path that is sent on, behind a base.
#[pyfunction]
pub(crate) fn path_below(base: &str, path: &str) -> String {
    target::below(base, path)
}

/// For differential tests: the remote span that headers name, as (trace id's halves, span id, sampled, tracestate).
#[pyfunction]
pub(crate) fn extract_context(headers: Pairs, grpc: bool, b3: bool) -> PyResult<Option<RemoteParts>> {
    let fields = fields(&headers)?;
    Ok(trace::extract(&fields, grpc, b3).map(|(context, tells_state)| {
        let (upper, lower) = halves(context.trace_id);
        let state = if tells_state { trace::tracestate(&fields) } else { String::new() };
        (upper, lower, context.span_id, context.sampled, state)
    }))
}

pub(crate) fn fields(pairs: &Pairs) -> PyResult<Headers> {
    let mut fields = Headers::new();
    for (key, data) in pairs {
        fields.append(name(key)?, value(data)?);
    }
    Ok(fields)
}

/// For differential tests: what is wrong with the baggage of these headers, and what is passed on of it.
#[pyfunction]
pub(crate) fn read_baggage(
    py: Python<'_>,
    headers: Pairs,
    allowed: Option<HashSet<Vec<u8>>>,
) -> PyResult<(&'static str, Bound<'_, PyBytes>)> {
    let is_allowed = |key: &[u8]| allowed.as_ref().is_none_or(|keys| keys.contains(key));
    let (wrong, sound) = baggage::read_allowed(&fields(&headers)?, is_allowed);
    Ok((wrong, PyBytes::new(py, &sound)))
}

/// For differential tests: whether a field matches a pattern.
#[pyfunction]
pub(crate) fn carries(headers: Pairs, patterns: HashSet<Vec<u8>>) -> PyResult<bool> {
    let patterns: HashSet<Box<[u8]>> = patterns.into_iter().map(Vec::into_boxed_slice).collect();
    Ok(tables::carries(&fields(&headers)?, &patterns))
}

/// For differential tests: both wire forms of a context.
#[pyfunction]
pub(crate) fn format_context(
    py: Python<'_>,
    upper: u64,
    lower: u64,
    span_id: u64,
    sampled: bool,
) -> (Bound<'_, PyBytes>, String) {
    let trace_id = u128::from(upper) << 64 | u128::from(lower);
    let context = Context { trace_id, span_id, parent_id: 0, sampled };
    (PyBytes::new(py, &trace::format_traceparent(&context)), trace::format_grpc_trace_bin(&context))
}
