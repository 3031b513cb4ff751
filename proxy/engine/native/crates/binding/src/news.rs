//! News of calls that go on, as tuples that begin with their kind.

use http::{HeaderName, HeaderValue};
use postern_core::seam::news::News;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::convert;

/// By the names that Python knows: those of the Observer's methods.
pub(crate) const KINDS: [&str; 2] = ["begun", "answered"];

pub(crate) fn news<'py>(py: Python<'py>, news: &News) -> PyResult<Bound<'py, PyTuple>> {
    match news {
        News::Begun { number, head, fields, token, context, started_ns } => {
            let (head, fields) = (convert::head(py, head, false)?, pairs(py, fields)?);
            let span = context.map(|context| convert::context(py, &context, "")).transpose()?;
            (KINDS[0], *number, head, fields, *token, span, *started_ns).into_pyobject(py)
        }
        News::Answered { number, head_ns, status, fields } => {
            (KINDS[1], *number, *head_ns, *status, pairs(py, fields)?).into_pyobject(py)
        }
    }
}

fn pairs<'py>(py: Python<'py>, fields: &[(HeaderName, HeaderValue)]) -> PyResult<Bound<'py, PyTuple>> {
    let pair = |(name, value): &(HeaderName, HeaderValue)| {
        (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes())).into_bound_py_any(py)
    };
    PyTuple::new(py, fields.iter().map(pair).collect::<PyResult<Vec<_>>>()?)
}
