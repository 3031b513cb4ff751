//! Python values to the core's and back. Malformed values raise `ValueError`, never panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use postern_core::cause::Cause;
use postern_core::edits::{Edits, PathEdit};
use postern_core::head::Head;
use postern_core::plan::{Again, Graveyard, Plan, Read, Reply, Route, Token};
use postern_core::target;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// token, status, headers, body, grpc code, grpc message, cause, scopes
pub(crate) type ReplyParts = (u64, u16, Pairs, Vec<u8>, u32, String, String, Vec<String>);
/// (op, name, data)
type EditParts = (String, Vec<u8>, Vec<u8>);
/// cluster, weight, expect, edits
type RouteParts = (String, u32, Vec<String>, Vec<EditParts>);
/// attempts, causes, HTTP codes, gRPC codes
type AgainParts = (Option<u32>, Vec<String>, Option<Vec<u16>>, Option<Vec<u32>>);
/// connect, attempt, total
type TimeParts = (f64, Option<f64>, Option<f64>);
/// token, routes, again, gates, times, body bytes, replay bytes, reply edits, scopes
pub(crate) type PlanParts =
    (u64, Vec<RouteParts>, Vec<AgainParts>, Vec<String>, TimeParts, Option<u64>, usize, Vec<EditParts>, Vec<String>);
/// facet, header name, table, class
pub(crate) type ReadParts = (String, Vec<u8>, Option<u32>, Option<u64>);

pub(crate) fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn name(data: &[u8]) -> PyResult<HeaderName> {
    HeaderName::from_bytes(data).map_err(invalid)
}

pub(crate) fn value(data: &[u8]) -> PyResult<HeaderValue> {
    HeaderValue::from_bytes(data).map_err(invalid)
}

fn cause(text: &str) -> PyResult<Cause> {
    Cause::parse(text).ok_or_else(|| invalid(format!("unknown cause {text}")))
}

fn strings(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

fn seconds(length_s: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(length_s).map_err(invalid)
}

pub(crate) fn reply(parts: ReplyParts, graveyard: &Graveyard) -> PyResult<Box<Reply>> {
    let (token, status, headers, body, grpc_code, grpc_message, of, scopes) = parts;
    let token = Token::new(token, graveyard.clone());
    let headers = headers.iter().map(|(key, data)| Ok((name(key)?, value(data)?))).collect::<PyResult<_>>()?;
    let (cause, body) = (cause(&of)?, Bytes::from(body));
    Ok(Box::new(Reply { token, cause, status, headers, body, grpc_code, grpc_message, scopes: strings(scopes) }))
}

pub(crate) fn plan(parts: PlanParts, graveyard: &Graveyard) -> PyResult<Box<Plan>> {
    let (token, routes, again, gates, (connect, attempt, total), body_bytes, replay_bytes, reply_edits, scopes) = parts;
    let token = Token::new(token, graveyard.clone());
    let routes = routes.into_iter().map(route).collect::<PyResult<_>>()?;
    let again = again.into_iter().map(rule).collect::<PyResult<_>>()?;
    let reply_edits = if reply_edits.is_empty() { None } else { Some(edits(reply_edits)?) };
    let (attempt, total) = (attempt.map(seconds).transpose()?, total.map(seconds).transpose()?);
    let (gates, scopes, connect) = (strings(gates), strings(scopes), seconds(connect)?);
    Ok(Box::new(Plan { token, routes, again, gates, connect, attempt, total, body_bytes, replay_bytes, reply_edits, scopes }))
}

fn route((cluster, weight, expect, ops): RouteParts) -> PyResult<Route> {
    Ok(Route { cluster: cluster.into(), weight, expect: expect.into(), edits: edits(ops)? })
}

fn rule((attempts, on, http_codes, grpc_codes): AgainParts) -> PyResult<Again> {
    let mut bits = 0;
    for text in on {
        bits |= cause(&text)?.bit();
    }
    Ok(Again { attempts, on: bits, http_codes, grpc_codes })
}

fn edits(ops: Vec<EditParts>) -> PyResult<Edits> {
    let mut made = Edits::default();
    for (op, key, data) in ops {
        match op.as_str() {
            "set" => {
                made.remove.push(name(&key)?);
                made.add.push((name(&key)?, value(&data)?));
            }
            "add" => made.add.push((name(&key)?, value(&data)?)),
            "remove" => made.remove.push(name(&key)?),
            "remove-prefix" => made.prefixes.push(String::from_utf8(key).map_err(invalid)?),
            "hop-by-hop" => made.hop_by_hop = true,
            "authority" => made.authority = Some(data.into()),
            "dapr-path" => made.path = if data == b"strip" { PathEdit::Strip } else { PathEdit::Whole },
            "trace" => made.trace = true,
            "deadline" => made.deadline = true,
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
        ("exact", _) => Read::Exact,
        ("peer", _) => Read::Peer,
        ("path", Some(table)) => Read::Path(table),
        ("header", Some(table)) => Read::Member(name(&key)?, table),
        ("header", None) => Read::Naming(name(&key)?),
        (other, _) => return Err(invalid(format!("unknown facet {other}"))),
    };
    Ok((read, class))
}

/// Header fields as Python's tuple of pairs of bytes.
pub(crate) fn pairs<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyTuple>> {
    let pair = |(key, data): (&HeaderName, &HeaderValue)| {
        PyTuple::new(py, [PyBytes::new(py, key.as_str().as_bytes()), PyBytes::new(py, data.as_bytes())])
    };
    let fields: Vec<_> = headers.iter().map(pair).collect::<PyResult<_>>()?;
    PyTuple::new(py, fields)
}

/// A head as the keyword arguments' values of `RequestHead`, in the order of its fields.
pub(crate) fn head<'py>(py: Python<'py>, head: &Head) -> PyResult<Bound<'py, PyTuple>> {
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
        pairs(py, &head.headers)?,
    )
        .into_pyobject(py)?;
    let second = (head.entry.peer.as_deref(), &*head.entry.address, head.length, head.exact, form).into_pyobject(py)?;
    first.add(second)?.downcast_into::<PyTuple>().map_err(PyErr::from)
}

/// For differential tests: path, query, same, offset, authority of a target; `ValueError` with the reason where it has none.
#[pyfunction]
pub(crate) fn parse_target<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    let found = target::parse(data).map_err(invalid)?;
    let (query, authority) = (PyBytes::new(py, &data[found.query]), PyBytes::new(py, &data[found.authority]));
    (found.path, query, found.same, found.offset, authority).into_pyobject(py)
}
